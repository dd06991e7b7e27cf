//! The program as its user meets it: exit codes, words, and nothing written when something is wrong.

use std::path::Path;
use std::process::Output;

use crate::common::npy::{read_npy, write_npy};
use crate::common::{copy_of_tiny, observation_dir, tiny, tiny_pi05};
use crate::support::{assert_fails, pi0_edge, text};
use ndarray::{Array2, array};
use serde_json::Value;

fn run_on(bundle: &Path, observation: &Path, more: &[&str]) -> Output {
    let mut command = pi0_edge();
    command.arg("run").arg(bundle).arg("--observation").arg(observation).args(["--threads", "2"]).args(more);
    command.output().expect("the program starts")
}

/// A copy of a recorded observation with its JSON changed.
fn observation_with(change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    crate::common::copy_tree(&observation_dir(), dir.path());
    let file = dir.path().join("observation.json");
    let mut value: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(&file, value.to_string()).unwrap();
    dir
}

#[test]
fn check_passes_on_the_small_bundles() {
    [tiny(), tiny_pi05()].iter().for_each(|bundle| check_passes(bundle));
}

fn check_passes(bundle: &Path) {
    let output = pi0_edge().arg("check").arg(bundle).args(["--format", "json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["shown"], "parity");
    let cases = report["cases"].as_array().unwrap();
    let steps: Vec<_> = cases.iter().map(|c| c["num_steps"].as_u64().unwrap()).collect();
    assert!(steps.contains(&4) && steps.contains(&10), "{steps:?}");
    for case in cases {
        for stage in
            ["pixel_values", "image_embeds", "keys", "values", "v_t", "actions_normalized", "actions"]
        {
            let relative = case["stages"][stage]["relative_error"].as_f64().unwrap();
            assert!(relative <= 1e-5, "{} {stage} {relative}", case["name"]);
        }
    }
}

/// A copy of the small bundle as an export without the reference policy makes it.
fn without_golden_data() -> tempfile::TempDir {
    let dir = copy_of_tiny();
    let path = dir.path().join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    manifest["golden"] = Value::Null;
    manifest["files"].as_object_mut().unwrap().retain(|name, _| !name.starts_with("golden/"));
    std::fs::write(&path, manifest.to_string()).unwrap();
    std::fs::remove_dir_all(dir.path().join("golden")).unwrap();
    dir
}

#[test]
fn check_says_what_was_shown_and_no_more() {
    let bare = without_golden_data();
    for (bundle, level, shown, last) in [
        (tiny(), &[][..], "parity", "PARITY: the bundle computes what the reference policy computes"),
        (tiny(), &["--level", "parity"], "parity", "PARITY: "),
        (tiny(), &["--level", "self-consistency"], "self-consistency", "SELF-CONSISTENCY ONLY: "),
        (tiny(), &["--level", "integrity"], "integrity", "INTEGRITY ONLY: "),
        (bare.path().into(), &[], "self-consistency", "SELF-CONSISTENCY ONLY: "),
        (bare.path().into(), &["--level", "integrity"], "integrity", "INTEGRITY ONLY: "),
    ] {
        let check = |more: &[&str]| {
            pi0_edge()
                .arg("check")
                .arg(&bundle)
                .args(["--threads", "2"])
                .args(level)
                .args(more)
                .output()
                .unwrap()
        };
        let (words, report) = (check(&[]), check(&["--format", "json"]));
        assert_eq!(
            (words.status.code(), report.status.code()),
            (Some(0), Some(0)),
            "{}",
            text(&words.stderr)
        );
        let words = text(&words.stdout);
        assert!(words.lines().last().unwrap().starts_with(last), "{level:?}: {words}");
        let report: Value = serde_json::from_slice(&report.stdout).unwrap();
        assert_eq!(report["shown"], shown);
        assert_eq!(report["cases"].as_array().unwrap().is_empty(), shown == "integrity");
        if shown != "parity" {
            assert!(
                !words.contains("PASS") && !words.contains("PARITY") && report["reference"].is_null(),
                "{words}"
            );
        }
        if shown == "self-consistency" {
            assert_eq!(report["cases"][0]["stages"]["actions"]["max_abs_error"], 0.0, "the same bits");
            assert!(words.contains("scripts/reference.py CHECKPOINT_DIR"), "{words}");
        }
    }
    let refused = pi0_edge().arg("check").arg(bare.path()).args(["--level", "parity"]).output().unwrap();
    assert_fails(&refused, &["no golden data", "scripts/reference.py CHECKPOINT_DIR"]);
    // No ONNX Runtime is needed to compare files.
    let mut files = pi0_edge();
    files.arg("check").arg(tiny()).args(["--level", "integrity", "--ort-library", "/nowhere.so"]);
    assert!(files.output().unwrap().status.success());
}

#[test]
fn run_prints_the_documented_json_and_writes_the_same_actions() {
    let dir = tempfile::tempdir().unwrap();
    let npy = dir.path().join("actions.npy");
    let npy_text = npy.to_str().unwrap();
    let more = ["--format", "json", "--seed", "3", "--num-steps", "4", "--output", npy_text];
    let output = run_on(&tiny(), &observation_dir(), &more);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let actions = result["actions"].as_array().unwrap();
    let written: Array2<f32> = read_npy(&npy).unwrap();
    assert_eq!((actions.len(), actions[0].as_array().unwrap().len()), written.dim());
    for (row, expected) in actions.iter().zip(written.rows()) {
        for (v, e) in row.as_array().unwrap().iter().zip(expected) {
            assert_eq!(v.as_f64().unwrap() as f32, *e);
        }
    }
    assert_eq!(result["num_steps"], 4);
    assert!(result["prefix_len"].as_u64().unwrap() > 0);
    for stage in ["preprocess", "vision", "prefix", "denoise", "total"] {
        assert!(result["timing_ms"][stage].as_f64().unwrap() > 0.0, "{stage}");
    }
    let again = run_on(&tiny(), &observation_dir(), &["--format", "json", "--seed", "3", "--num-steps", "4"]);
    let again: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(result["actions"], again["actions"], "the same seed gives the same actions");
}

#[test]
fn run_with_the_recorded_noise_gives_the_recorded_actions() {
    let noise = observation_dir().join("noise.npy");
    let more = ["--noise", noise.to_str().unwrap(), "--num-steps", "10", "--format", "json"];
    let output = run_on(&tiny(), &observation_dir(), &more);
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let want: Array2<f32> = read_npy(observation_dir().join("actions.npy")).unwrap();
    let largest = want.iter().fold(0f32, |m, v| m.max(v.abs()));
    for (row, expected) in result["actions"].as_array().unwrap().iter().zip(want.rows()) {
        for (v, e) in row.as_array().unwrap().iter().zip(expected) {
            assert!((v.as_f64().unwrap() - f64::from(*e)).abs() <= 1e-5 * f64::from(largest), "{v} {e}");
        }
    }
}

#[test]
fn bench_reports_every_stage_and_no_allocations() {
    [tiny(), tiny_pi05()].iter().for_each(|bundle| bench_reports(bundle));
}

fn bench_reports(bundle: &Path) {
    let mut command = pi0_edge();
    command.arg("bench").arg(bundle).args(["-n", "5", "--warmup", "2", "--threads", "2", "--format", "json"]);
    let output = command.output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object on stdout");
    for stage in ["preprocess", "vision", "prefix", "denoise_step", "chunk", "overhead"] {
        let row = &report["stages"][stage];
        assert!(row["n"].as_u64().unwrap() >= 5, "{stage}");
        let [p50, p90, p99, max] = ["p50_ms", "p90_ms", "p99_ms", "max_ms"].map(|k| row[k].as_f64());
        assert!(0.0 < p50.unwrap() && p50 <= max, "{stage} {row}");
        // A percentile of too few values is left out.
        assert!((p90.is_some(), p99.is_some()) == (row["n"].as_u64() >= Some(100), false), "{stage} {row}");
    }
    assert_eq!(report["allocations_per_chunk"], 0.0);
    let environment = &report["environment"];
    assert!(environment["onnxruntime"].as_str().unwrap().starts_with("1."), "a version: {environment}");
    assert_eq!(environment["weights"], "checkpoint");
}

#[test]
fn bench_writes_a_profile_of_every_graph() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("profiles");
    let mut command = pi0_edge();
    command.arg("bench").arg(tiny()).args(["-n", "2", "--warmup", "1", "--num-steps", "3", "--profile"]);
    let output = command.arg(&target).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut graphs = Vec::new();
    for entry in std::fs::read_dir(&target).unwrap() {
        let entry = entry.unwrap();
        let events: Vec<Value> = serde_json::from_slice(&std::fs::read(entry.path()).unwrap()).unwrap();
        let runs = events.iter().filter(|e| e["name"] == "model_run").count();
        let name = entry.file_name().into_string().unwrap();
        graphs.push((name.rsplitn(4, '_').last().unwrap().to_owned(), runs));
    }
    graphs.sort();
    let expected =
        [("denoise_step", 9), ("prefix_prefill", 3), ("time_conditioning", 1), ("vision_encoder", 3)];
    assert_eq!(graphs, expected.map(|(name, runs)| (name.to_owned(), runs)));
    // A directory that cannot be.
    let output =
        pi0_edge().arg("bench").arg(tiny()).args(["--profile", "/dev/null/profiles"]).output().unwrap();
    assert_fails(&output, &["cannot make /dev/null/profiles"]);
}

#[test]
fn inspect_shows_dimensions_and_graphs() {
    let output = pi0_edge().arg("inspect").arg(tiny()).output().unwrap();
    let shown = text(&output.stdout);
    for word in ["pi0", "camera", "required", "denoise_step", "past_key_values.0.key"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    let output = pi0_edge().arg("inspect").arg(tiny_pi05()).output().unwrap();
    let shown = text(&output.stdout);
    for word in ["pi05", "state in the prompt", "time_table       f32 [steps, 672]"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
}

#[test]
fn inspect_says_which_boards_have_the_memory() {
    let output =
        pi0_edge().arg("inspect").arg(tiny()).args(["--memory", "--format", "json"]).output().unwrap();
    let needs: Value = serde_json::from_slice(&output.stdout).unwrap();
    let weights = needs["weights"].as_object().unwrap();
    let all: u64 = weights.values().map(|size| size.as_u64().unwrap()).sum();
    let largest =
        weights["prefix_prefill"].as_u64().unwrap().max(weights["vision_encoder"].as_u64().unwrap());
    assert_eq!((weights.len(), needs["engines"].as_u64()), (4, Some(all)));
    assert_eq!(needs["building"].as_u64(), Some(3 * largest));
    assert_eq!(needs["boards"]["Orin Nano 8 GB"]["running_gpu"], "yes");
    let output = pi0_edge().arg("inspect").arg(tiny()).arg("--memory").output().unwrap();
    let shown = text(&output.stdout);
    for word in ["prefix_prefill", "token table", "AGX Thor 128 GB", "building: yes"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
}

#[test]
fn help_begins_with_what_is_required_and_has_headings() {
    for (verb, required) in
        [(&["run"][..], "--observation"), (&["replay"], "--episode"), (&["bench", "control"], "-h")]
    {
        for help in ["-h", "--help"] {
            let shown = text(&pi0_edge().args(verb).arg(help).output().unwrap().stdout);
            let at = |word: &str| shown.find(word).unwrap_or_else(|| panic!("{word}: {shown}"));
            let (options, loading) = (at("\nOptions:\n"), at("\nLoading the policy:\n"));
            assert!(options < loading && loading < at("--provider"), "{shown}");
            let first = shown[options..].lines().find(|line| line.trim_start().starts_with('-')).unwrap();
            assert!(first.contains(required) || required == "-h", "{shown}");
            assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
        }
    }
}

#[test]
fn people_are_told_what_to_type_next_and_programs_are_not() {
    let (bundle, observation) = (tiny(), observation_dir());
    let (bundle, observation) = (bundle.to_str().unwrap(), observation.to_str().unwrap());
    for (args, next) in [
        (&["inspect", bundle][..], "next: pi0-edge check "),
        (&["check", bundle], "next: pi0-edge run "),
        (&["run", bundle, "--observation", observation], "next: pi0-edge bench "),
        (&["bench", bundle, "-n", "1", "--warmup", "1"], "next: pi0-edge bench control "),
    ] {
        let told = text(&pi0_edge().args(args).output().unwrap().stderr);
        assert!(told.contains(next) && told.contains(bundle), "{args:?}: {told}");
        let json = pi0_edge().args(args).args(["--format", "json"]).output().unwrap();
        assert!(json.status.success() && !text(&json.stderr).contains("next:"), "{args:?}");
    }
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    for args in
        [&["run"][..], &["dance"], &["bench", "x", "-n", "0"], &["run", "x", "--observation", "y", "--frob"]]
    {
        let output = pi0_edge().args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn a_spoilt_bundle_is_refused() {
    let truncated = copy_of_tiny();
    let weights = truncated.path().join("denoise_step.onnx.data");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() - 1]).unwrap();
    assert_fails(
        &run_on(truncated.path(), &observation_dir(), &[]),
        &["denoise_step.onnx.data", "truncated"],
    );

    let edited = copy_of_tiny();
    let weights = edited.path().join("prefix_prefill.onnx.data");
    let mut bytes = std::fs::read(&weights).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&weights, &bytes).unwrap();
    assert_fails(&run_on(edited.path(), &observation_dir(), &[]), &["prefix_prefill.onnx.data", "SHA-256"]);
    let check = pi0_edge().arg("check").arg(edited.path()).output().unwrap();
    assert_fails(&check, &["prefix_prefill.onnx.data", "SHA-256"]);

    let unknown = copy_of_tiny();
    let manifest = unknown.path().join("manifest.json");
    let changed = std::fs::read_to_string(&manifest)
        .unwrap()
        .replace("\"format_version\": 1", "\"format_version\": 99");
    std::fs::write(&manifest, changed).unwrap();
    assert_fails(&run_on(unknown.path(), &observation_dir(), &[]), &["format_version", "99"]);

    let empty = tempfile::tempdir().unwrap();
    assert_fails(&run_on(empty.path(), &observation_dir(), &[]), &["manifest.json"]);
}

#[test]
fn a_bad_observation_is_refused() {
    let required = |value: &Value| {
        let images = value["images"].as_object().unwrap();
        images.keys().next().unwrap().clone()
    };
    let mut name = String::new();
    let missing = observation_with(|v| {
        name = required(v);
        v["images"].as_object_mut().unwrap().remove(&name);
    });
    assert_fails(&run_on(&tiny(), missing.path(), &[]), &[&name, "required"]);

    let none = observation_with(|v| v["images"] = serde_json::json!({}));
    assert_fails(&run_on(&tiny(), none.path(), &[]), &["camera"]);

    let unknown = observation_with(|v| {
        let file = v["images"][required(v)].clone();
        v["images"]["observation.images.nobody_knows"] = file;
    });
    assert_fails(&run_on(&tiny(), unknown.path(), &[]), &["observation.images.nobody_knows"]);

    let not_an_image = observation_with(|v| {
        let name = required(v);
        v["images"][&name] = "observation.json".into();
    });
    assert_fails(&run_on(&tiny(), not_an_image.path(), &[]), &["observation.json", "image"]);

    let short = observation_with(|v| _ = v["state"].as_array_mut().unwrap().pop());
    assert_fails(&run_on(&tiny(), short.path(), &[]), &["state"]);

    let huge = observation_with(|v| v["prompt"] = "pick ".repeat(400).into());
    assert_fails(&run_on(&tiny(), huge.path(), &[]), &["prompt", "tokens"]);

    let nan = observation_with(|_| {});
    let file = nan.path().join("observation.json");
    let mut value: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    value["state"][0] = Value::String("@".into());
    std::fs::write(&file, value.to_string().replace("\"@\"", "NaN")).unwrap();
    assert_fails(&run_on(&tiny(), nan.path(), &[]), &["observation.json"]);
    std::fs::write(&file, value.to_string().replace("\"@\"", "1e39")).unwrap();
    assert_fails(&run_on(&tiny(), nan.path(), &[]), &["state[0]", "inf"]);

    assert_fails(&run_on(&tiny(), Path::new("no/such/directory"), &[]), &["no/such/directory"]);
}

#[test]
fn bad_noise_and_step_counts_are_refused_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (noise, out) = (dir.path().join("noise.npy"), dir.path().join("out.npy"));
    let (noise_text, out_text) = (noise.to_str().unwrap(), out.to_str().unwrap());

    write_npy(&noise, &array![[0.0f32, 1.0]]).unwrap();
    let wrong_shape = run_on(&tiny(), &observation_dir(), &["--noise", noise_text, "--output", out_text]);
    assert_fails(&wrong_shape, &["noise.npy", "shape"]);

    let good: Array2<f32> = read_npy(observation_dir().join("noise.npy")).unwrap();
    let mut bad = good.clone();
    bad[[0, 0]] = f32::NAN;
    write_npy(&noise, &bad).unwrap();
    let not_finite = run_on(&tiny(), &observation_dir(), &["--noise", noise_text, "--output", out_text]);
    assert_fails(&not_finite, &["noise", "finite"]);

    for steps in ["0", "100000"] {
        let output = run_on(&tiny(), &observation_dir(), &["--num-steps", steps, "--output", out_text]);
        assert_fails(&output, &["num_steps"]);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "only noise.npy is there");
}

#[test]
fn a_missing_or_wrong_onnx_runtime_is_named() {
    let nowhere = run_on(&tiny(), &observation_dir(), &["--ort-library", "/nowhere/libonnxruntime.so.1"]);
    assert_fails(&nowhere, &["/nowhere/libonnxruntime.so.1", "no such file", "fetch_onnxruntime"]);

    let dir = tempfile::tempdir().unwrap();
    let fake = dir.path().join("libonnxruntime.so.1");
    std::fs::write(&fake, "not a library").unwrap();
    let mut command = pi0_edge();
    command.arg("check").arg(tiny()).env("ORT_DYLIB_PATH", &fake);
    assert_fails(&command.output().unwrap(), &["ORT_DYLIB_PATH", "libonnxruntime.so.1"]);
}

/// Checks a copy of a bundle, saying what was verified: the first time all, then what changed since.
#[test]
fn what_was_verified_is_not_read_again_until_it_changes() {
    let (bundle, cache) = (copy_of_tiny(), tempfile::tempdir().unwrap());
    // What changed a moment ago is not remembered.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let check = |level: &str| {
        let mut command = pi0_edge();
        command.arg("check").arg(bundle.path()).args(["--verify", level]);
        command.env("XDG_CACHE_HOME", cache.path()).env("RUST_LOG", "pi0_edge=debug").output().unwrap()
    };
    let verified = |level: &str| {
        let output = check(level);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let line = said.lines().find(|line| line.contains("files are to be verified")).unwrap();
        line.split(": ").last().unwrap().to_owned()
    };
    let all = verified("changed");
    let files = all.split_whitespace().nth(2).unwrap();
    assert_eq!(all, format!("{files} of {files} files are to be verified"));
    assert_eq!(verified("changed"), format!("0 of {files} files are to be verified"));
    assert_eq!(verified("full"), all);
    let weights = bundle.path().join("denoise_step.onnx.data");
    let mut bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes).unwrap();
    assert_eq!(verified("changed"), format!("1 of {files} files are to be verified"));
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, &bytes).unwrap();
    let output = check("changed");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("denoise_step.onnx.data has SHA-256"), "{said}");
}
