//! `synthesize`: a template becomes a bundle that loads, runs and is marked; anything in its way is told in words.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::tiny;
use pi0_edge::bundle::Bundle;
use pi0_edge::{InferOptions, Observation, Policy, PolicyOptions, Verify};
use serde_json::{Value, json};

/// A directory of templates with one, `pi0-fp32`: the tiny bundle without its weights.
fn templates() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let template = dir.path().join("pi0-fp32");
    fs::create_dir(&template).unwrap();
    let mut manifest: Value =
        serde_json::from_slice(&fs::read(tiny().join("manifest.json")).unwrap()).unwrap();
    let mut weights = json!({});
    let files = manifest["files"].as_object_mut().unwrap();
    files.retain(|name, entry| {
        if name.ends_with(".data") || name.ends_with(".bin") {
            let size = entry["size"].as_u64().unwrap();
            // Two runs with a gap of a page between them where there is room, so that gaps are tried too.
            let first = size / 8;
            let second = (size / 4096 > 2).then(|| {
                json!({"offset": (first * 4).next_multiple_of(4096) + 4096, "count": 100, "dtype": "f32", "mean": 1.0, "std": 0.0})
            });
            let mut runs = vec![json!({"offset": 0, "count": first, "dtype": "f32", "mean": 0.0, "std": 0.05})];
            runs.extend(second.filter(|run| run["offset"].as_u64().unwrap() + 400 <= size));
            weights[name] = json!({"size": size, "runs": runs});
        } else if !name.starts_with("golden") {
            fs::copy(tiny().join(name), template.join(name)).unwrap();
        }
        !weights.as_object().unwrap().contains_key(name) && !name.starts_with("golden")
    });
    manifest["golden"] = Value::Null;
    manifest["source"]["format"] = "synthetic".into();
    write_json(&template.join("manifest.json"), &manifest);
    write_json(&template.join("weights.json"), &json!({"version": 1, "files": weights}));
    dir
}

fn write_json(path: &Path, value: &Value) {
    fs::write(path, value.to_string()).unwrap();
}

fn synthesize(templates: &Path, directory: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pi0-edge"));
    command.args(["synthesize", "pi0"]).arg(directory).arg("--templates").arg(templates).args(more);
    command.output().expect("the program starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn filled(templates: &Path, directory: &Path, more: &[&str]) -> PathBuf {
    let output = synthesize(templates, directory, more);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), directory.to_str().unwrap());
    directory.to_path_buf()
}

#[test]
fn the_bundle_is_whole_marked_and_runs() {
    let (templates, dir) = (templates(), tempfile::tempdir().unwrap());
    let directory = filled(templates.path(), &dir.path().join("new/bundle"), &["--seed", "7"]);
    let bundle = Bundle::open(&directory, Verify::Full, &mut |_, _| {}).unwrap();
    assert_eq!(bundle.manifest().source.format, "synthetic");
    assert!(bundle.manifest().source.checkpoint.ends_with("seed 7"));
    let mut policy =
        Policy::load(&directory, &PolicyOptions { threads: 1, ..PolicyOptions::default() }).unwrap();
    let frame = vec![100; 32 * 24 * 3];
    let frame = pi0_edge::Frame::new(&frame, 32, 24).unwrap();
    let images: Vec<_> = bundle.manifest().cameras.iter().map(|c| (c.name.as_str(), frame)).collect();
    let observation = Observation { images: &images, state: &[0.1; 6], prompt: Some("pick up the cube") };
    policy.infer(&observation, &InferOptions::default()).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("new")).unwrap().count(), 1, "nothing else is left");
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_is_not_written_again() {
    let (templates, dir) = (templates(), tempfile::tempdir().unwrap());
    let data = |d: &Path| fs::read(d.join("prefix_prefill.onnx.data")).unwrap();
    let first = filled(templates.path(), &dir.path().join("a"), &[]);
    let again = filled(templates.path(), &dir.path().join("b"), &[]);
    assert!(data(&first) == data(&again));
    let manifest = |d: &Path| fs::read_to_string(d.join("manifest.json")).unwrap();
    assert!(manifest(&first) == manifest(&again), "{}", manifest(&again));

    let written = |d: &Path| fs::metadata(d.join("manifest.json")).unwrap().modified().unwrap();
    let before = written(&first);
    let output = synthesize(templates.path(), &first, &[]);
    assert!(stderr(&output).contains("filled before") && written(&first) == before);
    let output = synthesize(templates.path(), &first, &["--seed", "1"]);
    assert!(!stderr(&output).contains("filled before") && data(&first) != data(&again));
    // Cut short by something else: filled anew.
    fs::write(first.join("prefix_prefill.onnx.data"), "").unwrap();
    filled(templates.path(), &first, &["--seed", "1"]);
    Bundle::open(&first, Verify::Full, &mut |_, _| {}).unwrap();
}

#[test]
fn runs_lie_where_the_recipe_says_and_gaps_are_zero() {
    let (templates, dir) = (templates(), tempfile::tempdir().unwrap());
    let directory = filled(templates.path(), &dir.path().join("a"), &[]);
    let recipe: Value =
        serde_json::from_slice(&fs::read(templates.path().join("pi0-fp32/weights.json")).unwrap()).unwrap();
    for (name, file) in recipe["files"].as_object().unwrap() {
        let bytes = fs::read(directory.join(name)).unwrap();
        assert_eq!(bytes.len() as u64, file["size"].as_u64().unwrap());
        let values: Vec<f32> =
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let mut end = 0;
        for run in file["runs"].as_array().unwrap() {
            let (at, count) =
                (run["offset"].as_u64().unwrap() as usize / 4, run["count"].as_u64().unwrap() as usize);
            assert!(values[end..at].iter().all(|&v| v == 0.0), "{name}: the gap before {at}");
            let constant = run["std"] == 0.0;
            assert!(values[at..at + count].iter().all(|&v| if constant { v == 1.0 } else { v.abs() < 0.1 }));
            end = at + count;
        }
        assert!(values[end..].iter().all(|&v| v == 0.0), "{name}: the end");
    }
}

#[test]
fn what_is_in_the_way_is_told() {
    let (templates, dir) = (templates(), tempfile::tempdir().unwrap());
    let fails = |directory: &Path, more: &[&str], word: &str| {
        let output = synthesize(templates.path(), directory, more);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains(word) && output.stdout.is_empty(), "{}", stderr(&output));
    };
    fails(&dir.path().join("x"), &["--precision", "fp64"], "there are: fp32");
    // Somebody's files are never replaced.
    let theirs = dir.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    fs::write(theirs.join("notes"), "mine").unwrap();
    fails(&theirs, &[], "is no synthetic bundle");
    let bundle = tiny();
    fails(&bundle, &[], "is no synthetic bundle");
    assert!(bundle.join("manifest.json").exists() && theirs.join("notes").exists());
    fails(Path::new("/proc/nowhere"), &[], "/proc");

    let path = templates.path().join("pi0-fp32/weights.json");
    let mut recipe: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let whole = recipe.clone();
    let edit =
        |recipe: &mut Value, key: &str, value: Value| recipe["files"]["denoise_step.onnx.data"][key] = value;
    edit(&mut recipe, "size", (1u64 << 60).into());
    write_json(&path, &recipe);
    fails(&dir.path().join("x"), &[], "GB free and the weights take");
    recipe = whole.clone();
    edit(&mut recipe, "size", 8.into());
    write_json(&path, &recipe);
    fails(&dir.path().join("x"), &[], "the run at 0 does not fit");
    recipe = whole;
    recipe["version"] = 2.into();
    write_json(&path, &recipe);
    fails(&dir.path().join("x"), &[], "has version 2");
    assert!(!dir.path().join("x").exists());
}
