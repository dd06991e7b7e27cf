//! The TensorRT provider's own library accepts the options that are passed to it.
//!
//! The library needs TensorRT, cuDNN and CUDA to load, which are not here. It is given libraries of their names that
//! say there is one GPU and abort on any other call: enough to load it and have it parse options. So what is tested
//! is the published provider's parser; that its options do what they say, only a machine with TensorRT can tell.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use super::tensorrt::{EngineBuild, RunSizes, build_settings, functions, load_settings};
use crate::bundle::{GraphName, Manifest, Precision};
use crate::session::Environment;
use crate::session::fake::gpu_build::gpu_build;
use crate::tensorrt::BuilderConfig;

#[path = "../../../tests/nvidia/mod.rs"]
mod nvidia;

/// Set in the process that runs with the libraries of aborting functions: the path of ONNX Runtime's GPU build.
const CHILD: &str = "PI0_EDGE_TEST_OPTIONS_OF";

/// Every set of options that any build or run passes.
fn all_settings() -> Vec<Vec<(&'static str, String)>> {
    let mut all = vec![load_settings(0, true)];
    let sizes = RunSizes { views: [1, 3, 3], prefix: [17, 72, 72], steps: [1, 10, 64] };
    for bundle in ["pi0-tiny", "pi05-tiny"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(bundle).join("manifest.json");
        let manifest = Manifest::read(&path).unwrap();
        for graph in GraphName::ALL {
            for precision in [Precision::Fp32, Precision::Fp16, Precision::Bf16, Precision::Int8] {
                let options = BuilderConfig {
                    precision,
                    workspace: Some(2 << 30),
                    optimization_level: 5,
                    auxiliary_streams: Some(0),
                };
                let build = EngineBuild {
                    gpu: 0,
                    graph: graph.as_str(),
                    context_model: Path::new("/tmp/nowhere/x_ctx.onnx"),
                    timing: Path::new("/tmp/nowhere/timing"),
                    options: &options,
                    sizes: &sizes,
                };
                all.push(build_settings(&build, &manifest.graph(graph).inputs).unwrap());
            }
        }
    }
    all
}

#[test]
fn every_option_is_a_word_of_the_library() {
    let Some(library) = gpu_build() else { return };
    let bytes = std::fs::read(nvidia::provider(&library)).unwrap();
    let words: BTreeSet<&[u8]> = bytes.split(|b| *b == 0).collect();
    let keys: BTreeSet<&str> = all_settings().iter().flatten().map(|(key, _)| *key).collect();
    assert!(keys.len() > 15, "{keys:?}");
    for key in keys {
        assert!(words.contains(key.as_bytes()), "the TensorRT provider does not know {key}");
    }
    assert!(!words.contains(b"trt_no_such_option".as_slice()));
}

#[test]
fn the_library_parses_every_option() {
    if let Some(library) = std::env::var_os(CHILD) {
        return parse_all(Path::new(&library));
    }
    let Some(library) = gpu_build() else { return };
    let dir = tempfile::tempdir().unwrap();
    if !nvidia::make_libraries(&library, dir.path(), nvidia::Otherwise::Abort) {
        eprintln!("skipped: no C compiler");
        return;
    }
    let test = "session::provider::tensorrt_options::the_library_parses_every_option";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("LD_LIBRARY_PATH", dir.path())
        .env(CHILD, &library)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("parsed 33 sets of options"), "{said}");
}

fn parse_all(library: &Path) {
    Environment::get(Some(library)).unwrap();
    let all = all_settings();
    for settings in &all {
        functions().accept(settings).unwrap_or_else(|e| panic!("{settings:?}: {}", e.message()));
    }
    // The parser does look: a wrong name, a wrong kind and a wrong number are refused by name.
    for (key, value) in [
        ("trt_no_such_option", "1"),
        ("trt_fp16_enable", "maybe"),
        ("trt_builder_optimization_level", "high"),
        ("trt_max_workspace_size", "2GiB"),
    ] {
        let error = functions().accept(&[(key, value.to_owned())]).expect_err(key);
        assert!(error.message().contains(key), "{key}: {}", error.message());
    }
    println!("parsed {} sets of options", all.len());
}
