//! Parts that the tests of the C interface share: compilers, the library as cargo built it, a bundle.
#![allow(dead_code, reason = "each test uses a part")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{LazyLock, OnceLock};

pub const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// The crate of the C interface.
pub fn crate_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The repository.
pub fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> =
        LazyLock::new(|| crate_dir().join("../..").canonicalize().expect("the repository"));
    &ROOT
}

pub fn header() -> String {
    std::fs::read_to_string(crate_dir().join("include/pi0_edge.h")).expect("the header")
}

pub fn bundle() -> PathBuf {
    root().join("models/pi0-tiny")
}

/// The directory where cargo has put libpi0_edge.so, libpi0_edge.a and the program. Cargo makes no library for C when it
/// makes tests, so it is asked for them here, in this test's profile: a moment's work where they are up to date.
pub fn library_dir() -> PathBuf {
    static DIR: LazyLock<PathBuf> = LazyLock::new(|| {
        let test = std::env::current_exe().expect("this test");
        let dir = test.ancestors().nth(2).expect("the profile's directory, above deps").to_owned();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.arg("build").arg("--quiet").current_dir(root());
        cargo.arg("--target-dir").arg(dir.parent().expect("the target directory"));
        run(cargo.args(dir.ends_with("release").then_some("--release")));
        dir
    });
    DIR.clone()
}

/// A directory for what is compiled, removed at the end.
pub fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("pi0-c").tempdir().expect("a directory")
}

/// The compilers that are there; gcc must be.
pub fn compilers() -> Vec<(&'static str, &'static str)> {
    let all = [("gcc", "g++"), ("clang", "clang++")];
    let found: Vec<_> = all.into_iter().filter(|(c, cxx)| has(c) && has(cxx)).collect();
    assert!(found.first().is_some_and(|(c, _)| *c == "gcc"), "gcc and g++ are needed: apt-get install g++");
    if found.len() < all.len() {
        println!("skipped: clang is not installed");
    }
    found
}

pub fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success())
}

/// Runs a command to its end; its output if it succeeded.
pub fn run(command: &mut Command) -> String {
    let output = output(command);
    let text = both(&output);
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

pub fn output(command: &mut Command) -> Output {
    command.env("ORT_DISABLE_TELEMETRY", "1").env("LC_ALL", "C");
    // Cargo's own would have programs find a library that an earlier build left behind.
    if !command.get_envs().any(|(name, _)| name == "LD_LIBRARY_PATH") {
        command.env_remove("LD_LIBRARY_PATH");
    }
    command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

pub fn both(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

/// Compiles a C11 or C++17 program against the header and the shared library.
pub fn compile(compiler: &str, source: &Path, to: &Path, more: &[&str]) {
    let standard = if source.extension() == Some(OsStr::new("cpp")) { "-std=c++17" } else { "-std=gnu11" };
    let lib = library_dir();
    let mut command = Command::new(compiler);
    command.arg(standard).args(WARNINGS).args(["-g", "-pthread", "-I"]).arg(crate_dir().join("include"));
    command.args(more).arg(source).arg("-o").arg(to).arg("-L").arg(&lib).arg("-lpi0_edge");
    command.arg(format!("-Wl,-rpath,{}", lib.display()));
    run(&mut command);
}

/// The controller of examples/ros2 and the program that takes it through its life.
pub fn ros2_sources() -> [PathBuf; 2] {
    [root().join("examples/ros2/pi0_edge_controller/src"), crate_dir().join("tests/c/ros2")]
}

/// A directory that has every header of ROS 2 which that controller includes, each the types that stand in for them.
pub fn ros2_headers(dir: &Path) -> PathBuf {
    let to = dir.join("ros2_headers");
    let source =
        std::fs::read_to_string(ros2_sources()[0].join("policy_controller.cpp")).expect("the controller");
    let included = source.lines().filter_map(|line| line.strip_prefix("#include <")?.strip_suffix('>'));
    for header in included.filter(|header| header.contains('/')) {
        let header = to.join(header);
        std::fs::create_dir_all(header.parent().expect("a directory")).expect("the directory");
        std::fs::write(header, "#include \"stand_ins.hpp\"\n").expect("the header");
    }
    to
}

/// Makes libpi0_edge.so.0.1, the name programs look for, beside the library.
pub fn with_soname() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let (dir, name) = (library_dir(), format!("libpi0_edge.so.{}", soversion()));
        let beside = dir.join(format!("{name}.{}", std::process::id()));
        std::os::unix::fs::symlink("libpi0_edge.so", &beside).expect("a link");
        std::fs::rename(beside, dir.join(name)).expect("the link's name");
    });
}

pub fn soversion() -> String {
    match env!("CARGO_PKG_VERSION_MAJOR") {
        "0" => format!("0.{}", env!("CARGO_PKG_VERSION_MINOR")),
        major => major.to_owned(),
    }
}

/// A test program of tests/c, compiled.
pub fn program(name: &str, dir: &Path) -> PathBuf {
    with_soname();
    let to = dir.join(name);
    compile("gcc", &crate_dir().join("tests/c").join(name).with_extension("c"), &to, &[]);
    to
}

/// A function of the header.
#[derive(Debug)]
pub struct Function {
    pub name: String,
    pub returns: String,
    /// Type and name of each parameter.
    pub parameters: Vec<(String, String)>,
    pub documentation: String,
}

impl Function {
    /// The statuses it is documented to return.
    pub fn statuses(&self) -> Vec<String> {
        let Some((_, list)) = self.documentation.split_once("Statuses:") else { return Vec::new() };
        let words = list.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        words.filter(|word| word.starts_with("PI0_")).map(str::to_owned).collect()
    }

    /// Returns what it says of itself after `label`, up to the next full stop.
    pub fn says(&self, label: &str) -> Option<&str> {
        let (_, rest) = self.documentation.split_once(label)?;
        Some(rest.split('.').next().unwrap_or_default().trim())
    }
}

/// The functions that the header declares.
pub fn functions() -> Vec<Function> {
    let header = header();
    let (_, declarations) = header.split_once("extern \"C\" {").expect("the functions");
    let mut functions = Vec::new();
    for part in declarations.split("/**").skip(1) {
        let (comment, rest) = part.split_once("*/").expect("the end of a comment");
        let (declaration, _) = rest.split_once(';').expect("a declaration");
        let declaration = declaration.split_whitespace().collect::<Vec<_>>().join(" ");
        let (head, parameters) = declaration.split_once('(').expect("parameters");
        let parameters = parameters.trim_end_matches(')');
        let (returns, name) = type_and_name(head);
        let parameters = parameters.split(',').map(str::trim).filter(|p| *p != "void");
        let lines = comment.lines().map(|line| line.trim().trim_start_matches('*').trim());
        functions.push(Function {
            name,
            returns,
            parameters: parameters.map(type_and_name).collect(),
            documentation: lines.collect::<Vec<_>>().join(" "),
        });
    }
    functions
}

fn type_and_name(text: &str) -> (String, String) {
    let at = text.rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).expect("a type") + 1;
    (text[..at].trim().replace("struct ", ""), text[at..].to_owned())
}
