//! The header: it compiles everywhere, says what it must, and is all that the library exports.

use std::collections::BTreeSet;
use std::process::Command;

use crate::support::{
    WARNINGS, compilers, crate_dir, functions, header, library_dir, run, scratch, soversion,
};

#[test]
fn it_compiles_as_c99_and_cpp17_without_a_warning() {
    let dir = scratch();
    let include = crate_dir().join("include");
    for (name, text) in [("a.c", "#include <pi0_edge.h>\n"), ("a.cpp", "#include <pi0_edge.hpp>\n")] {
        // Twice, for the include guard.
        std::fs::write(dir.path().join(name), format!("{text}{text}int main() {{ return 0; }}\n")).unwrap();
    }
    let c = std::fs::read_to_string(dir.path().join("a.c")).unwrap().replace("main()", "main(void)");
    std::fs::write(dir.path().join("a.c"), c).unwrap();
    for (c, cxx) in compilers() {
        for (compiler, standard, file) in [
            (c, "-std=c99", "a.c"),
            (c, "-std=c11", "a.c"),
            (cxx, "-std=c++17", "a.cpp"),
            (cxx, "-std=c++20", "a.cpp"),
        ] {
            let mut command = Command::new(compiler);
            command.arg(standard).args(WARNINGS).args(["-Wshadow", "-fsyntax-only", "-I"]).arg(&include);
            run(command.arg(dir.path().join(file)));
        }
    }
}

#[test]
fn every_function_says_what_its_callers_must_know() {
    let functions = functions();
    assert!(functions.len() > 30, "{} functions", functions.len());
    let known: BTreeSet<String> = header()
        .lines()
        .filter_map(|line| line.strip_prefix("#define ")?.split_whitespace().next().map(str::to_owned))
        .collect();
    for function in &functions {
        let name = &function.name;
        assert!(matches!(function.says("RT-safe:"), Some("yes" | "no")), "{name}: RT-safe");
        let threads = [
            "any",
            "any, one at a time",
            "any but a callback's",
            "any but a log callback's",
            "control",
            "sensor",
        ];
        assert!(function.says("Thread:").is_some_and(|t| threads.contains(&t)), "{name}: Thread");
        if function.returns != "pi0_status" {
            continue;
        }
        let statuses = function.statuses();
        assert!(statuses.contains(&"PI0_OK".to_owned()), "{name}: {statuses:?}");
        for status in &statuses {
            assert!(known.contains(status), "{name}: there is no {status}");
        }
        // A handle can be any of these at any time.
        let handles = ["pi0_policy *", "pi0_runtime *", "pi0_observation_writer *", "pi0_controller *"];
        if function.parameters.iter().any(|(kind, _)| handles.contains(&kind.trim_start_matches("const "))) {
            for status in ["PI0_ERR_HANDLE", "PI0_ERR_BUSY", "PI0_ERR_FORKED", "PI0_ERR_PANIC"] {
                assert!(statuses.contains(&status.to_owned()), "{name}: {status}");
            }
        }
        if matches!(function.says("Thread:"), Some("control" | "sensor")) {
            assert!(statuses.contains(&"PI0_ERR_THREAD".to_owned()), "{name}: PI0_ERR_THREAD");
        }
    }
}

#[test]
fn the_library_exports_what_the_header_declares_and_nothing_else() {
    let library = library_dir().join("libpi0_edge.so");
    let symbols = run(Command::new("nm").args(["-D", "--defined-only"]).arg(&library));
    let exported: BTreeSet<&str> =
        symbols.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    let functions = functions();
    let declared: BTreeSet<&str> = functions.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(exported, declared);
}

#[test]
fn versions_agree() {
    let header = header();
    for (name, value) in [
        ("PI0_VERSION", format!("\"{}\"", env!("CARGO_PKG_VERSION"))),
        ("PI0_VERSION_MAJOR", env!("CARGO_PKG_VERSION_MAJOR").to_owned()),
        ("PI0_VERSION_MINOR", env!("CARGO_PKG_VERSION_MINOR").to_owned()),
        ("PI0_VERSION_PATCH", env!("CARGO_PKG_VERSION_PATCH").to_owned()),
    ] {
        assert!(header.contains(&format!("#define {name} {value}\n")), "{name}");
    }
    let library = library_dir().join("libpi0_edge.so");
    let dynamic = run(Command::new("readelf").arg("-d").arg(&library));
    assert!(dynamic.contains(&format!("[libpi0_edge.so.{}]", soversion())), "{dynamic}");
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
}
