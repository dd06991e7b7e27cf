//! The C examples under AddressSanitizer, UndefinedBehaviorSanitizer and valgrind: no error, and no leak of ours. And hostile
//! bundles, where some are given.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{both, bundle, compile, crate_dir, has, output, root, run, scratch, with_soname};

const EXAMPLES: [(&str, &[&str]); 2] = [("infer_once", &[]), ("control_loop", &["2"])];

fn build(name: &str, dir: &Path, more: &[&str]) -> PathBuf {
    with_soname();
    let to = dir.join(name);
    compile("gcc", &root().join("examples/c").join(name).with_extension("c"), &to, more);
    to
}

#[test]
fn under_address_and_undefined_behaviour_sanitizers() {
    let dir = scratch();
    let suppressions = format!("suppressions={}", crate_dir().join("tests/c/leaks.supp").display());
    for (name, arguments) in EXAMPLES {
        let plain = build(name, dir.path(), &[]);
        let symbols = |program: &Path| run(Command::new("nm").arg(program));
        assert!(!symbols(&plain).contains("__asan_"), "the plain build is sanitised");
        let flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"];
        let program = build(name, dir.path(), &flags);
        let found = symbols(&program);
        assert!(found.contains("__asan_init") && found.contains("__ubsan_"), "the build is not sanitised");
        let mut command = Command::new(&program);
        command.arg(bundle()).args(arguments).env("LSAN_OPTIONS", &suppressions);
        let told = run(command.env("ASAN_OPTIONS", "detect_leaks=1:abort_on_error=0"));
        assert!(!told.contains("ERROR: ") && !told.contains("runtime error"), "{told}");
    }
    // It can fail: a leak of a chunk of ours is found, past the suppressions.
    let leaking = dir.path().join("leaking.c");
    let source = std::fs::read_to_string(root().join("examples/c/infer_once.c")).unwrap();
    assert_eq!(source.matches("    pi0_policy_free(policy);\n").count(), 1);
    std::fs::write(&leaking, source.replace("    free(actions);\n", "")).unwrap();
    let program = dir.path().join("leaking");
    compile("gcc", &leaking, &program, &["-fsanitize=address"]);
    let mut command = Command::new(&program);
    let output = output(command.arg(bundle()).env("LSAN_OPTIONS", &suppressions));
    assert!(!output.status.success() && both(&output).contains("LeakSanitizer"), "{}", both(&output));
}

/// Opens and infers with every bundle in `$PI0_HOSTILE_BUNDLES`, each in a process of its own. They are made by
///
/// ```sh
/// PI0_HOSTILE_KEEP=DIR cargo test -p pi0-edge-cli --test program hostile
/// ```
#[test]
fn hostile_bundles_under_the_address_sanitizer() {
    let Some(bundles) = std::env::var_os("PI0_HOSTILE_BUNDLES") else {
        println!("skipped: PI0_HOSTILE_BUNDLES is not set");
        return;
    };
    let dir = scratch();
    // Exceptions inside ONNX Runtime go through the sanitizer, which must find the C++ library when it starts.
    let flags = ["-fsanitize=address", "-fno-omit-frame-pointer", "-Wl,--no-as-needed", "-lstdc++"];
    let program = build("infer_once", dir.path(), &flags);
    let suppressions = format!("suppressions={}", crate_dir().join("tests/c/leaks.supp").display());
    let infer = |bundle: &Path| {
        let mut command = Command::new("timeout");
        command.arg("60").arg(&program).arg(bundle).env("LSAN_OPTIONS", &suppressions);
        output(command.env("ASAN_OPTIONS", "detect_leaks=1:exitcode=99:max_allocation_size_mb=2048"))
    };
    let want = infer(&bundle());
    assert!(want.status.success(), "{}", both(&want));
    let (mut refused, mut equal, mut escaped) = (0, 0, Vec::new());
    for entry in Path::new(&bundles).read_dir().expect("the bundles") {
        let path = entry.expect("an entry").path();
        let got = infer(&path);
        match got.status.code() {
            Some(0) if got.stdout == want.stdout => equal += 1,
            Some(1) if !got.stderr.is_empty() => refused += 1,
            _ => escaped.push(format!("{}: {}: {}", path.display(), got.status, both(&got))),
        }
    }
    println!("{refused} refused, {equal} with equal actions, {} escaped", escaped.len());
    assert!(escaped.is_empty() && refused > 0, "{}", escaped.join("\n"));
}

#[test]
fn under_valgrind() {
    if !has("valgrind") {
        println!("skipped: valgrind is not installed");
        return;
    }
    let dir = scratch();
    for (name, arguments) in EXAMPLES {
        let program = build(name, dir.path(), &[]);
        let mut command = Command::new("valgrind");
        command.args([
            "--quiet",
            "--error-exitcode=9",
            "--leak-check=full",
            "--show-leak-kinds=definite,indirect",
        ]);
        command.args(["--errors-for-leak-kinds=definite,indirect", "--fair-sched=yes"]);
        command.arg(format!("--suppressions={}", crate_dir().join("tests/c/valgrind.supp").display()));
        let told = run(command.arg(&program).arg(bundle()).args(arguments));
        assert!(!told.contains("definitely lost"), "{told}");
    }
}
