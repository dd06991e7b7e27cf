//! Every bundle in `models` computes what its reference recorded, with every ONNX Runtime that it may meet.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::project::project;

/// The library of one version.
fn library(version: &str) -> PathBuf {
    let library = project().join(format!(".cache/onnxruntime-{version}/libonnxruntime.so.1"));
    let fetch = format!("scripts/fetch_onnxruntime.sh --version {version} fetches it");
    assert!(library.is_file(), "no {}; {fetch}", library.display());
    library
}

/// Checks the bundles in `models` that are not `left_out` with the library of one version, or with the one that is found;
/// names those that pass.
fn check_all(version: Option<&str>, left_out: &[&str]) -> Vec<String> {
    let library = version.map(library);
    let bundles = std::fs::read_dir(project().join("models")).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> = bundles
        .filter(|path| path.is_dir() && !left_out.iter().any(|name| path.ends_with(name)))
        .map(|path| check(&path, library.as_ref()))
        .collect();
    names.sort();
    names
}

fn check(bundle: &Path, library: Option<&PathBuf>) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pi0-edge"));
    command.arg("check").arg(bundle).args(["--threads", "2"]);
    command.args(library.map(|library| format!("--ort-library={}", library.display())));
    let run = command.output().unwrap();
    let (said, why) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{}, {library:?}: {said}{why}", bundle.display());
    assert!(said.contains("computes what the reference policy computes"), "{}: {said}", bundle.display());
    assert!(
        !why.contains("ERROR") && !why.contains("API version"),
        "{}, {library:?}: {why}",
        bundle.display()
    );
    bundle.file_name().unwrap().to_string_lossy().into_owned()
}

/// Both policies of both sources, and what only few policies have.
const BUNDLES: [&str; 7] =
    ["pi0-openpi", "pi0-openpi-int8", "pi0-sort", "pi0-tiny", "pi05-openpi", "pi05-tiny", "pi05-trained-rtc"];

#[test]
fn every_bundle_passes_its_check() {
    assert_eq!(check_all(None, &[]), BUNDLES);
}

/// One alone asks for a newer ONNX Runtime than the oldest, and says so.
#[test]
fn every_bundle_passes_with_the_oldest_onnx_runtime() {
    const NEWER: &str = "pi0-openpi-int8";
    let others: Vec<_> = BUNDLES.into_iter().filter(|name| *name != NEWER).collect();
    assert_eq!(check_all(Some("1.20.0"), &[NEWER]), others);
    let mut command = Command::new(env!("CARGO_BIN_EXE_pi0-edge"));
    command.arg("check").arg(project().join("models").join(NEWER));
    let run = command.arg("--ort-library").arg(library("1.20.0")).output().unwrap();
    let why = String::from_utf8_lossy(&run.stderr);
    assert!(!run.status.success() && why.contains("1.23") && why.contains("1.20"), "{why}");
}

/// The newest with a GPU for JetPack 6.
#[test]
fn every_bundle_passes_with_onnx_runtime_1_23() {
    assert_eq!(check_all(Some("1.23.2"), &[]), BUNDLES);
}

#[test]
fn every_bundle_passes_with_the_newest_onnx_runtime() {
    assert_eq!(check_all(Some("1.32.0"), &[]), BUNDLES);
}
