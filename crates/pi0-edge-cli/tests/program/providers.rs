//! A provider that was asked for and cannot be used: exit codes and words, against real builds of ONNX Runtime.

use std::path::Path;
use std::process::Output;

use crate::common::gpu_build::gpu_build;
use crate::common::{observation_dir, tiny};
use crate::support::{assert_fails_with, pi0_edge};

fn run(arguments: &[&str]) -> Output {
    let mut command = pi0_edge();
    command.args(["run"]).arg(tiny()).arg("--observation").arg(observation_dir()).args(arguments);
    command.output().expect("the program starts")
}

#[test]
fn the_cpu_build_has_no_gpu_providers() {
    for provider in ["cuda", "tensorrt"] {
        let output = run(&["--provider", provider]);
        let cannot = format!("the {provider} provider cannot be used");
        let built = format!("is built without the {provider} provider");
        assert_fails_with(&output, 1, &[&cannot, &built, "to do:", "--ort-library"]);
    }
}

#[test]
fn an_unknown_provider_is_wrong_usage() {
    assert_fails_with(&run(&["--provider", "gpu"]), 2, &["cpu, cuda and tensorrt"]);
}

#[test]
fn the_cpu_may_be_asked_for_by_name() {
    let output = run(&["--provider", "cpu", "--threads", "1"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_gpu_build_without_cuda_names_what_is_missing() {
    let Some(library) = gpu_build() else { return };
    if Path::new("/dev/nvidia0").exists() {
        return; // what is missing on a machine with a GPU is its own affair
    }
    let library = library.to_str().unwrap();
    let output = run(&["--provider", "cuda", "--ort-library", library]);
    let missing =
        ["libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcudart.so.13", "libcuda.so.1"];
    let mut words =
        vec!["the cuda provider cannot be used", "libonnxruntime_providers_cuda.so needs", "no NVIDIA GPU"];
    words.extend(["apt install", "ONNX Runtime says"].iter().chain(&missing));
    assert_fails_with(&output, 1, &words);
    let output = run(&["--provider", "tensorrt", "--ort-library", library]);
    let words = [
        "the tensorrt provider cannot be used",
        "libnvinfer.so.10",
        "libnvonnxparser.so.10",
        "libcudnn.so.9",
    ];
    assert_fails_with(&output, 1, &words);
}

#[test]
fn the_gpu_build_runs_on_the_cpu_when_that_is_asked_for() {
    let Some(library) = gpu_build() else { return };
    let output = run(&["--ort-library", library.to_str().unwrap(), "--threads", "1", "--num-steps", "1"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}
