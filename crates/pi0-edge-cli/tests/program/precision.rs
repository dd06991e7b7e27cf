//! bf16 where it cannot be computed, and the tolerances a bundle declares.

use std::path::Path;
use std::process::{Command, Output};

use crate::bundle_support::{Fixture, assert_refused, file_entry, onnx};
use crate::common::{copy_of_tiny, tiny};
use pi0_edge::ErrorKind;
use serde_json::{Value, json};

fn pi0_edge(verb: &str, bundle: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pi0-edge"))
        .arg(verb)
        .arg(bundle)
        .args(more)
        .env("ORT_DISABLE_TELEMETRY", "1")
        .output()
        .unwrap()
}

/// A bundle in bf16 whose vision encoder multiplies in bf16, which is what the first of the real ones does.
fn bf16_bundle() -> Fixture {
    let mut fixture = Fixture::new();
    let m = &mut fixture.manifest;
    m["precision"] = json!("bf16");
    m["target"] = json!("cuda");
    m["token_embedding"]["dtype"] = json!("bf16");
    fixture.files.insert("token_embedding.bin".into(), vec![0; 16 * 8 * 2]);
    m["graphs"]["vision_encoder"]["outputs"][0]["dtype"] = json!("bf16");
    m["graphs"]["prefix_prefill"]["inputs"][0]["dtype"] = json!("bf16");
    for i in 0..4 {
        m["graphs"]["prefix_prefill"]["outputs"][i]["dtype"] = json!("bf16");
        m["graphs"]["denoise_step"]["inputs"][9 + i]["dtype"] = json!("bf16");
    }
    for (name, model) in &mut fixture.graphs {
        let spec = &fixture.manifest["graphs"][*name];
        let list = |key: &str| spec[key].as_array().unwrap().iter().map(onnx::value_info).collect();
        (model.inputs, model.outputs) = (list("inputs"), list("outputs"));
    }
    let vision = fixture.graphs.get_mut("vision_encoder").unwrap();
    let mut shape = onnx::header("shape", &[3], 7);
    onnx::block(&mut shape, 9, [-1i64, 6, 8].map(i64::to_le_bytes).concat());
    vision.initializers = vec![shape];
    vision.nodes = vec![
        onnx::wired("Cast", "narrowed", &["pixel_values"], "narrowed", &[onnx::int_attribute("to", 16)]),
        onnx::wired("Reshape", "rows", &["narrowed", "shape"], "rows", &[]),
        onnx::wired("Mul", "layer.0.squared", &["rows", "rows"], "image_embeds", &[]),
    ];
    fixture
}

#[test]
fn a_bf16_bundle_on_the_cpu_is_refused_with_graph_node_and_remedy() {
    let written = bf16_bundle().write();
    let words = [
        "vision_encoder.onnx",
        "Mul(",
        "layer.0.squared",
        "bf16",
        "--provider cuda",
        "--precision fp32 or fp16",
    ];
    assert_refused(crate::common::load(written.dir.path()), ErrorKind::Graph, &words);
    let observation = tiny().join("golden/two_cameras_10_steps");
    for (verb, more) in
        [("check", vec![]), ("bench", vec![]), ("run", vec!["--observation", observation.to_str().unwrap()])]
    {
        let output = pi0_edge(verb, written.dir.path(), &more);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(output.stdout.is_empty() && words.iter().all(|word| said.contains(word)), "{verb}: {said}");
    }
}

/// The small bundle with another tolerance; the manifest knows.
fn tiny_with(tolerance: Value) -> tempfile::TempDir {
    let dir = copy_of_tiny();
    let edit = |name: &str, change: &dyn Fn(&mut Value)| {
        let path = dir.path().join(name);
        let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut json);
        std::fs::write(&path, json.to_string()).unwrap();
        json.to_string()
    };
    let golden = edit("golden/golden.json", &|golden| golden["tolerance"] = tolerance.clone());
    edit("manifest.json", &|manifest| {
        manifest["files"]["golden/golden.json"] = file_entry(golden.as_bytes());
    });
    dir
}

#[test]
fn check_holds_every_stage_to_the_bundles_own_tolerance() {
    let loose = json!({"stages": 1e-3, "actions": 1e-3, "cosine": 0.5, "by_stage": {"values": 1e-12}});
    let bundle = tiny_with(loose);
    let output = pi0_edge("check", bundle.path(), &["--format", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["shown"], Value::Null);
    for case in report["cases"].as_array().unwrap() {
        for (name, stage) in case["stages"].as_object().unwrap() {
            assert_eq!(stage["pass"], json!(name != "values"), "{name}: {stage}");
            assert_eq!(stage["tolerance"], json!(if name == "values" { 1e-12 } else { 1e-3 }));
            assert_eq!(stage["min_cosine"], json!(0.5));
            let cosine = stage["cosine"].as_f64().unwrap();
            assert!(cosine > 0.999_999_9 && cosine <= 1.0, "{name}: {cosine}");
        }
    }
    let output = pi0_edge("check", bundle.path(), &[]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed: Vec<&str> = text.lines().filter(|line| line.ends_with("  FAIL")).collect();
    assert!(failed.len() == 3 && failed.iter().all(|line| line.trim_start().starts_with("values")), "{text}");
    assert!(text.contains("cosine") && text.contains("FAIL: the bundle does not compute"), "{text}");
}
