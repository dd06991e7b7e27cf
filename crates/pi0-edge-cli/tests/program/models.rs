//! Every bundle in `models` computes what its reference recorded.

use std::process::Command;

use crate::common::project::project;

#[test]
fn every_bundle_passes_its_check() {
    let models = project().join("models");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&models).unwrap() {
        let bundle = entry.unwrap().path();
        if !bundle.is_dir() {
            continue;
        }
        let run = Command::new(env!("CARGO_BIN_EXE_pi0-edge"))
            .arg("check")
            .arg(&bundle)
            .args(["--threads", "2"])
            .output()
            .unwrap();
        let (said, why) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        assert!(run.status.success(), "{}: {said}{why}", bundle.display());
        assert!(said.contains("computes what the reference policy computes"), "{}: {said}", bundle.display());
        names.push(bundle.file_name().unwrap().to_string_lossy().into_owned());
    }
    names.sort();
    // Both policies of both sources, and what only few policies have.
    assert_eq!(names, ["pi0-openpi", "pi0-tiny", "pi05-openpi", "pi05-tiny", "pi05-trained-rtc"]);
}
