//! A whole bundle opens, and one that is not what its manifest says does not.

use crate::bundle_support::{Fixture, assert_refused, file_entry, tamper};
use pi0_edge::ErrorKind::{Integrity, Manifest};
use pi0_edge::bundle::{GraphName, Verify};
use pi0_edge::internals::TokenTable;
use pi0_edge_golden::{Golden, Tolerance, compare};
use serde_json::json;

#[test]
fn a_whole_bundle_opens_and_gives_what_it_holds() {
    let written = Fixture::new().write();
    let mut reports = Vec::new();
    let bundle = pi0_edge::bundle::Bundle::open(written.dir.path(), Verify::Full, &mut |done, all| {
        reports.push((done, all))
    })
    .unwrap();
    let m = bundle.manifest();
    let total: u64 = m.files.values().map(|f| f.size).sum();
    assert!(reports.iter().all(|(_, all)| *all == total) && reports.len() > 1);
    assert_eq!(reports.last(), Some(&(total, total)));
    assert!(reports.is_sorted());

    assert_eq!(bundle.root(), written.dir.path());
    assert_eq!(m.graph(GraphName::DenoiseStep).file, "denoise_step.onnx");
    let bytes = bundle.read_file(&m.token_embedding.file, 1 << 20).unwrap();
    let table = TokenTable::new(bytes, &m.token_embedding).unwrap();
    let mut row = [0; 32];
    table.gather(&[3], &mut row).unwrap();
    assert_eq!(row[..4], 24f32.to_le_bytes());
    written.open_with(Verify::Size).unwrap();
}

#[test]
fn golden_outputs_are_read_and_compared() {
    let written = Fixture::new().write();
    let bundle = written.open().unwrap();
    let golden = Golden::load(&bundle).unwrap().unwrap();
    let case = &golden.cases[0];
    assert_eq!(case.expected.tokens, [2, 5, 8, 4]);
    assert_eq!(case.noise(&bundle).unwrap(), [0.5; 35]);
    assert_eq!(case.observation_path(&bundle).unwrap(), "golden/one/observation.json");
    let stages = case.expected.stages();
    assert_eq!(stages.map(|(_, s)| s.stride), [1, 2, 3, 4, 5, 6, 7]);
    let want = stages[1].1.read(&bundle).unwrap();
    assert_eq!(want, [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
    let got: Vec<f32> = (0..12).map(|v| v as f32).collect();
    assert!(compare(&got, &want, 2).unwrap().is_within(golden.tolerance.stages));
    assert_eq!(case.expected.keys.read_rows(&bundle, 2).unwrap(), [[0.0, 3.0, 6.0], [9.0, 12.0, 15.0]]);
    assert_refused(case.expected.keys.read_rows(&bundle, 3), Integrity, &["keys.npy", "expected 3 rows"]);
}

#[test]
fn tolerances_hold_for_single_stages_and_older_bundles_have_a_cosine() {
    let deviation = |relative, cosine| pi0_edge_golden::Deviation {
        max_abs: relative,
        max_expected: 1.0,
        relative,
        relative_l2: relative / 2.0,
        cosine,
    };
    let older: Tolerance = serde_json::from_value(json!({"stages": 1e-2, "actions": 1e-3})).unwrap();
    assert_eq!(older.cosine, 0.9999);
    assert!(older.allows("keys", &deviation(1e-2, 1.0)) && !older.allows("keys", &deviation(1.1e-2, 1.0)));
    assert!(
        older.allows("actions", &deviation(1e-3, 1.0)) && !older.allows("actions", &deviation(1e-2, 1.0))
    );
    assert!(!older.allows("keys", &deviation(1e-2, 0.99989)));
    let json = json!({"stages": 1e-2, "actions": 1e-3, "cosine": 0.9, "by_stage": {"pixel_values": 1e-5}});
    let tolerance: Tolerance = serde_json::from_value(json).unwrap();
    assert!(
        tolerance.allows("keys", &deviation(1e-2, 0.9)) && !tolerance.allows("keys", &deviation(1e-2, 0.89))
    );
    assert!(!tolerance.allows("pixel_values", &deviation(1e-4, 1.0)));
    assert_eq!(["keys", "pixel_values", "actions"].map(|s| tolerance.relative(s)), [1e-2, 1e-5, 1e-3]);
    let json = json!({"stages": 1, "actions": 1, "relative_l2": {"keys": 1e-2}});
    let tolerance: Tolerance = serde_json::from_value(json).unwrap();
    assert!(
        tolerance.allows("keys", &deviation(2e-2, 1.0)) && !tolerance.allows("keys", &deviation(3e-2, 1.0))
    );
    assert!(tolerance.allows("values", &deviation(3e-2, 1.0)));
}

#[test]
fn a_bundle_without_golden_outputs_opens() {
    let mut fixture = Fixture::new();
    fixture.manifest["golden"] = json!(null);
    fixture.files.retain(|path, _| !path.starts_with("golden/"));
    assert!(Golden::load(&fixture.write().open().unwrap()).unwrap().is_none());
}

#[test]
fn golden_files_are_held_to_their_contract() {
    for (change, words) in [
        (("/format_version", json!(2)), ["format_version is 2", "reads 1"]),
        (("/tolerance/actions", json!(0.0)), ["tolerance is 0", "positive"]),
        (
            ("/tolerance", json!({"stages": 1, "actions": 1, "cosine": 1.5})),
            ["tolerance.cosine is 1.5", "from 0 to 1"],
        ),
        (
            ("/tolerance", json!({"stages": 1, "actions": 1, "by_stage": {"keys": -1}})),
            ["tolerance is -1", "positive"],
        ),
        (("/tolerance", json!({"stages": 1, "actions": 1, "relative_l2": {"v": 1}})), ["\"v\"", "no stage"]),
        (("/tolerance", json!({"stages": 1, "actions": 1, "by_stage": {"key": 1}})), ["\"key\"", "no stage"]),
        (("/cases", json!([])), ["golden.json", "no cases"]),
        (("/cases/0/noise", json!("../../noise.npy")), ["case one", "not in the manifest's files"]),
        (("/cases/0/noise", json!("absent.npy")), ["golden/absent.npy", "not in the manifest"]),
        (("/cases/0/expected/v_t/stride", json!(0)), ["case one", "v_t.stride is 0"]),
        (("/cases/0/num_steps", json!(0)), ["case one", "num_steps is 0"]),
        (("/cases/0/num_steps", json!(65)), ["num_steps is 65", "from 1 to 64"]),
        (("/cases/0/extra", json!(1)), ["layout of format_version 1", "unknown field `extra`"]),
    ] {
        let mut fixture = Fixture::new();
        let file = fixture.files.get_mut("golden/golden.json").unwrap();
        let mut golden: serde_json::Value = serde_json::from_slice(file).unwrap();
        match golden.pointer_mut(change.0) {
            Some(place) => *place = change.1,
            None => golden["cases"][0]["extra"] = change.1,
        }
        *file = golden.to_string().into_bytes();
        let written = fixture.write();
        assert_refused(Golden::load(&written.open().unwrap()), Integrity, &words);
    }
}

#[test]
fn a_file_of_another_size_is_refused_at_every_level() {
    for level in [Verify::Full, Verify::Size] {
        let written = Fixture::new().write();
        tamper(&written.path("prefix_prefill.onnx.data"), |b| b.truncate(8000));
        assert_refused(
            written.open_with(level),
            Integrity,
            &["prefix_prefill.onnx.data has 8000 bytes", "manifest says 8256", "truncated"],
        );
        let written = Fixture::new().write();
        tamper(&written.path("tokenizer.json"), |b| b.push(b' '));
        assert_refused(
            written.open_with(level),
            Integrity,
            &["tokenizer.json has", "not the file that was exported"],
        );
    }
}

#[test]
fn one_flipped_bit_anywhere_is_refused() {
    let paths: Vec<String> = {
        let manifest = Fixture::new().manifest_json();
        manifest["files"].as_object().unwrap().keys().cloned().collect()
    };
    for path in paths {
        let written = Fixture::new().write();
        tamper(&written.path(&path), |b| *b.last_mut().unwrap() ^= 0x10);
        assert_refused(written.open(), Integrity, &[&path, "SHA-256", "damaged or was edited"]);
    }
}

#[test]
fn a_wrong_hash_in_the_manifest_is_refused() {
    let mut fixture = Fixture::new();
    let mut files = Fixture::new().manifest_json()["files"].take();
    files["tokenizer.json"]["sha256"] = json!("0".repeat(64));
    fixture.manifest["files"] = files;
    assert_refused(fixture.write().open(), Integrity, &["tokenizer.json has SHA-256", &"0".repeat(64)]);
}

#[test]
fn a_missing_file_is_refused() {
    for level in [Verify::Full, Verify::Size] {
        let written = Fixture::new().write();
        std::fs::remove_file(written.path("golden/one/v_t.npy")).unwrap();
        assert_refused(written.open_with(level), Integrity, &["v_t.npy is missing", "copy the whole bundle"]);
        let written = Fixture::new().write();
        std::fs::remove_dir_all(written.path("golden")).unwrap();
        assert_refused(written.open_with(level), Integrity, &["golden is missing"]);
    }
}

#[test]
fn a_missing_manifest_or_bundle_is_refused() {
    let written = Fixture::new().write();
    std::fs::remove_file(written.path("manifest.json")).unwrap();
    assert_refused(written.open(), Manifest, &["manifest.json is missing"]);
    let nowhere = pi0_edge::bundle::Bundle::open(written.path("nowhere"), Verify::Full, &mut |_, _| {});
    assert_refused(nowhere, Manifest, &["nowhere/manifest.json is missing"]);
}

#[test]
fn links_are_not_followed() {
    use std::os::unix::fs::symlink;
    for path in ["manifest.json", "tokenizer.json", "vision_encoder.onnx.data", "golden/one/v_t.npy"] {
        let written = Fixture::new().write();
        let elsewhere = tempfile::tempdir().unwrap();
        let target = elsewhere.path().join("file");
        std::fs::rename(written.path(path), &target).unwrap();
        symlink(&target, written.path(path)).unwrap();
        let kind = if path == "manifest.json" { Manifest } else { Integrity };
        for level in [Verify::Full, Verify::Size] {
            assert_refused(written.open_with(level), kind, &[path, "is a symbolic link"]);
        }
    }
    let written = Fixture::new().write();
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::rename(written.path("golden/one"), elsewhere.path().join("one")).unwrap();
    symlink(elsewhere.path().join("one"), written.path("golden/one")).unwrap();
    assert_refused(written.open(), Integrity, &["golden/one is not a directory", "not followed"]);
}

#[test]
fn special_files_are_refused_without_being_opened() {
    let written = Fixture::new().write();
    std::fs::remove_file(written.path("tokenizer.json")).unwrap();
    std::fs::create_dir(written.path("tokenizer.json")).unwrap();
    assert_refused(written.open(), Integrity, &["tokenizer.json is not a regular file"]);

    let written = Fixture::new().write();
    std::fs::remove_file(written.path("tokenizer.json")).unwrap();
    // Opening a pipe that nobody writes to would never return.
    let made = std::process::Command::new("mkfifo").arg(written.path("tokenizer.json")).status().unwrap();
    assert!(made.success());
    assert_refused(written.open(), Integrity, &["tokenizer.json is not a regular file"]);
}

#[test]
fn stray_graphs_and_weights_are_refused_and_other_strays_are_not() {
    for name in ["other.onnx", "OTHER.ONNX", "x.onnx.data", "weights.data"] {
        let written = Fixture::new().write();
        std::fs::write(written.path(name), b"").unwrap();
        assert_refused(written.open(), Integrity, &[name, "not in its manifest; remove it"]);
    }
    let written = Fixture::new().write();
    std::fs::write(written.path("README.md"), b"notes").unwrap();
    written.open().unwrap();
}

#[test]
fn paths_that_leave_the_bundle_are_refused() {
    for path in [
        "../escape",
        "/etc/passwd",
        "golden/../../escape",
        "./tokenizer.json",
        "golden//x",
        "a\\b",
        "a\u{0}b",
        "",
        "golden/",
        "manifest.json",
    ] {
        let mut fixture = Fixture::new();
        let mut files = Fixture::new().manifest_json()["files"].take();
        files[path] = file_entry(b"");
        fixture.manifest["files"] = files;
        assert_refused(fixture.write().open(), Manifest, &["manifest.json: files h"]);
    }
}

#[test]
fn only_listed_files_are_handed_out() {
    let written = Fixture::new().write();
    std::fs::write(written.path("README.md"), b"notes").unwrap();
    let bundle = written.open().unwrap();
    for path in ["README.md", "../x", "manifest.json"] {
        assert_refused(bundle.open_file(path), Integrity, &["is not in the manifest's files"]);
    }
    assert_refused(bundle.read_file("tokenizer.json", 10), Integrity, &["tokenizer.json has", "at most 10"]);
    tamper(&written.path("tokenizer.json"), |b| b.push(b' '));
    assert_refused(bundle.read_file("tokenizer.json", 1 << 20), Integrity, &["no longer has"]);
}
