//! Bundles that a test has the exporter make, from a checkpoint of random weights.

use std::path::PathBuf;
use std::process::Command;

use super::project::project;

/// A checkpoint, and the bundles made from it.
pub struct Exports(tempfile::TempDir);

fn python(script: &str, arguments: &[&str]) {
    let python = project().join(".venv/bin/python");
    assert!(python.is_file(), "no {}; scripts/python_env.sh makes it", python.display());
    let script = project().join("scripts").join(script);
    let output = Command::new(python).arg(&script).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&output.stderr));
}

impl Exports {
    /// A checkpoint of the policy `policy` and the size `size`, as `make_checkpoint.py` names them.
    pub fn of(policy: &str, size: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let checkpoint = directory.path().join("checkpoint");
        let arguments = [checkpoint.to_str().unwrap(), "--policy", policy, "--size", size, "--seed", "0"];
        python("make_checkpoint.py", &arguments);
        Exports(directory)
    }

    /// A bundle of it, with these options of `export.py`.
    pub fn bundle(&self, name: &str, options: &[&str]) -> PathBuf {
        let bundle = self.0.path().join(name);
        let checkpoint = self.0.path().join("checkpoint");
        let mut arguments = vec![checkpoint.to_str().unwrap(), bundle.to_str().unwrap(), "--quiet"];
        arguments.extend(options);
        python("export.py", &arguments);
        bundle
    }
}
