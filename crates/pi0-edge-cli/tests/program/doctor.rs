//! `pi0-edge doctor` as users and scripts see it.

use std::process::{Command, Output};

use crate::machine::library::AARCH64;
use crate::machine::{Machine, install_gpu_runtime, install_libraries};
use serde_json::Value;

fn doctor(machine: &Machine, arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_pi0-edge");
    Command::new(program).arg("doctor").arg("--root").arg(machine.real("/")).args(arguments).output().unwrap()
}

fn robot() -> Machine {
    let machine = Machine::tree("agx-orin");
    install_libraries(&machine, 12);
    install_gpu_runtime(&machine, "/usr/lib/pi0-edge", AARCH64, 12, &[(2, 87)]);
    machine
}

#[test]
fn json_has_the_documented_shape() {
    let output = doctor(&robot(), &["--format", "json"]);
    assert_eq!(output.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    assert!(findings.len() > 15);
    for finding in findings {
        let keys: Vec<_> = finding.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["code", "severity", "message", "remedy"]);
        assert!(["error", "warning", "info", "ok"].contains(&finding["severity"].as_str().unwrap()));
        assert!(finding["remedy"].is_null() || finding["remedy"].is_string());
    }
    assert_eq!(report["summary"]["error"], 0);
    assert_eq!(report["facts"]["system"]["l4t"]["version"], "36.4.3");
    assert_eq!(report["facts"]["realtime"]["limits"]["memlock"], "unlimited");
    assert_eq!(
        report["facts"]["onnxruntime"]["library"]["providers"][1]["kernels"]["sass"],
        serde_json::json!([87])
    );
    assert!(report["bundle"].is_null());
}

#[test]
fn the_exit_code_follows_the_errors() {
    let machine = robot();
    assert_eq!(doctor(&machine, &["--provider", "cuda"]).status.code(), Some(0));
    machine.remove("/usr/lib/aarch64-linux-gnu/libcuda.so.1");
    assert_eq!(doctor(&machine, &["--provider", "cuda"]).status.code(), Some(1));
    assert_eq!(doctor(&machine, &["--provider", "cpu"]).status.code(), Some(0));
    assert_eq!(doctor(&machine, &["--provider", "gpu"]).status.code(), Some(2));
}

#[test]
fn text_is_grouped_and_plain_when_piped() {
    let machine = Machine::tree("orin-nx");
    let output = doctor(&machine, &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "no ONNX Runtime");
    assert!(!text.contains('\x1b'), "{text}");
    let titles: Vec<_> = text.lines().filter(|l| !l.is_empty() && !l.starts_with(' ')).collect();
    assert_eq!(
        titles[..titles.len() - 1],
        ["ONNX Runtime", "GPU and providers", "Board and power", "Real time", "Memory"]
    );
    assert!(titles.last().unwrap().starts_with("It will not run (1 error, "), "{titles:?}");
    let at = text.find("  warning POWER_MODE: 25W (mode 3); MAXN_SUPER (mode 0) is faster\n").unwrap();
    assert!(text[at..].lines().nth(1).unwrap().ends_with("→ sudo nvpmodel -m 0"));
}

#[test]
fn a_bundle_is_judged_with_the_machine() {
    let machine = robot();
    let bundle = tempfile::tempdir().unwrap();
    let manifest = r#"{"format_version": 1, "policy": "pi0", "precision": "fp16", "target": "tensorrt", "opset": 17,
        "golden": "golden/golden.json",
        "files": {"a.onnx.data": {"size": 5, "sha256": "00"}}}"#;
    std::fs::write(bundle.path().join("manifest.json"), manifest).unwrap();
    std::fs::write(bundle.path().join("a.onnx.data"), "12345").unwrap();
    let path = bundle.path().to_str().unwrap();
    let output = doctor(&machine, &[path, "--engine-cache", "/var/cache/engines", "--format", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let first = &report["findings"][0];
    assert_eq!(first["message"], format!("{path}: pi0 in fp16 for tensorrt, 5 B"));
    let errors: Vec<_> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|f| f["severity"] == "error")
        .map(|f| &f["code"])
        .collect();
    assert_eq!(errors, ["ENGINE_CACHE_MISSING"]);
    assert_eq!(output.status.code(), Some(1));
}
