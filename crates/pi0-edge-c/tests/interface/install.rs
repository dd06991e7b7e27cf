//! C and C++ programs build against what scripts/install.sh puts in place: by pkg-config and by CMake, the
//! shared library and the static one, where it is installed and in a package's staging directory.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::support::{both, bundle, has, library_dir, output, root, run, scratch};

/// The library that install.sh installs, as cargo built it for this test; without what debuggers need, which is most of
/// it.
fn built(dir: &Path) {
    let strip = |from: &Path, name: &str| {
        run(Command::new("strip").arg("--strip-debug").arg("-o").arg(dir.join(name)).arg(from));
    };
    for file in ["pi0-edge", "libpi0_edge.so", "libpi0_edge.a"] {
        strip(&library_dir().join(file), file);
    }
}

fn install(from: &Path, more: &[&str]) -> String {
    let mut command = Command::new(root().join("scripts/install.sh"));
    run(command.arg("--from").arg(from).args(more))
}

#[test]
fn programs_build_against_what_is_installed_and_run() {
    if !has("pkg-config") || !has("cmake") {
        println!("skipped: pkg-config and cmake are needed; scripts/c_tools.sh installs them");
        return;
    }
    let dir = scratch();
    let (from, prefix) = (dir.path().join("built"), dir.path().join("prefix"));
    std::fs::create_dir(&from).unwrap();
    built(&from);
    let onnxruntime = root().join(".cache/onnxruntime/libonnxruntime.so.1");
    let more = ["--prefix", prefix.to_str().unwrap(), "--onnxruntime", onnxruntime.to_str().unwrap()];
    let lib = prefix.join("lib");
    // Twice: a second installation replaces the first, and never writes to what a program has open.
    install(&from, &more);
    let places =
        ["lib/libpi0_edge.so", "lib/pi0-edge/libonnxruntime.so.1", "bin/pi0-edge"].map(|f| prefix.join(f));
    let before = places.each_ref().map(|place| File::open(place).unwrap());
    install(&from, &more);
    for (place, before) in places.iter().zip(before) {
        let (inode, links) = before.metadata().map(|m| (m.ino(), m.nlink())).unwrap();
        assert!(links == 0 && place.metadata().unwrap().ino() != inode, "{} was written to", place.display());
    }

    let pkg_config = |arguments: &[&str]| {
        let mut command = Command::new("pkg-config");
        command.args(arguments).arg("pi0_edge").env("PKG_CONFIG_PATH", lib.join("pkgconfig"));
        run(&mut command).trim().to_owned()
    };
    assert_eq!(pkg_config(&["--modversion"]), env!("CARGO_PKG_VERSION"));
    let source = root().join("examples/c/infer_once.c");
    let cc = |name: &str, flags: &str| {
        let program = dir.path().join(name);
        let mut command = Command::new("gcc");
        command.args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]).arg(&source);
        run(command.args(flags.split_whitespace()).arg("-o").arg(&program));
        program
    };
    let dynamic = cc("dynamic", &pkg_config(&["--cflags", "--libs"]));
    let fixed =
        cc("static", &format!("{} {}", pkg_config(&["--cflags"]), pkg_config(&["--variable=static_libs"])));
    let needed = |program: &Path| run(Command::new("readelf").arg("-d").arg(program)).contains("libpi0_edge");
    assert!(needed(&dynamic) && !needed(&fixed));

    let headers = crate::support::ros2_headers(dir.path());
    let cmake = |source: &Path, linking: &str| {
        let name = source.file_name().expect("a name").to_string_lossy();
        let build = dir.path().join(format!("{name}-{linking}"));
        let mut command = Command::new("cmake");
        command.arg("-S").arg(source).arg("-B").arg(&build);
        command
            .arg(format!("-DROS2_HEADERS={}", headers.display()))
            .arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display()))
            .arg(format!("-DPI0_EDGE_STATIC={linking}"));
        run(&mut command);
        run(Command::new("cmake").arg("--build").arg(&build));
        build
    };
    let c = root().join("examples/c");
    let shared = cmake(&c, "OFF").join("infer_once");
    let linked = cmake(&c, "ON").join("infer_once");
    let cpp = cmake(&crate::support::ros2_sources()[1], "OFF").join("controller_manager");
    assert!(needed(&shared) && !needed(&linked) && needed(&cpp));

    // Each finds the library and ONNX Runtime where they were installed, told nothing.
    let told_nothing = |program: &Path| {
        let mut command = Command::new(program);
        command
            .arg(bundle())
            .current_dir(dir.path())
            .env_remove("LD_LIBRARY_PATH")
            .env_remove("ORT_DYLIB_PATH");
        command
    };
    let chunk = |program: &Path| {
        let mut command = told_nothing(program);
        let output = output(&mut command);
        assert!(output.status.success(), "{}: {}", program.display(), both(&output));
        String::from_utf8(output.stdout).expect("a chunk")
    };
    let first = chunk(&dynamic);
    assert!(first.lines().count() > 1);
    for program in [&fixed, &shared, &linked] {
        assert_eq!(chunk(program), first, "{}", program.display());
    }
    run(told_nothing(&cpp).arg("1"));
    // Nor is there another ONNX Runtime that they could have found.
    std::fs::rename(&places[1], dir.path().join("away")).unwrap();
    for program in [&dynamic, &fixed, &shared, &linked] {
        let output = output(&mut told_nothing(program));
        assert!(both(&output).contains("libonnxruntime.so.1"), "{}: {}", program.display(), both(&output));
        assert!(!output.status.success(), "{}", program.display());
    }
    run(Command::new(prefix.join("bin/pi0-edge")).arg("--version"));
    for file in [
        "man/man1/pi0-edge.1",
        "man/man1/pi0-edge-bench-control.1",
        "bash-completion/completions/pi0-edge",
        "zsh/site-functions/_pi0-edge",
        "fish/vendor_completions.d/pi0-edge.fish",
    ] {
        assert!(prefix.join("share").join(file).is_file(), "{file}");
    }

    // A version that is not this one is refused.
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let lists =
        "cmake_minimum_required(VERSION 3.16)\nproject(other C)\nfind_package(pi0_edge 99.0 REQUIRED)\n";
    std::fs::write(other.join("CMakeLists.txt"), lists).unwrap();
    let mut command = Command::new("cmake");
    command.arg("-S").arg(&other).arg("-B").arg(other.join("build"));
    let output = output(command.arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display())));
    assert!(!output.status.success() && both(&output).contains("99.0"), "{}", both(&output));
}

#[test]
fn a_package_is_staged_below_its_destination_and_names_its_prefix_only() {
    let dir = scratch();
    let (from, stage) = (dir.path().join("built"), dir.path().join("stage"));
    std::fs::create_dir(&from).unwrap();
    built(&from);
    let more =
        ["--prefix", "/usr", "--libdir", "lib/aarch64-linux-gnu", "--destdir", stage.to_str().unwrap()];
    install(&from, &more);
    let lib = stage.join("usr/lib/aarch64-linux-gnu");
    let version = env!("CARGO_PKG_VERSION");
    let soname = format!("libpi0_edge.so.{}", crate::support::soversion());
    for (link, target) in [("libpi0_edge.so", soname.clone()), (&soname, format!("libpi0_edge.so.{version}"))]
    {
        assert_eq!(std::fs::read_link(lib.join(link)).expect(link), Path::new(&target));
    }
    for file in ["libpi0_edge.a", "pkgconfig/pi0_edge.pc", "cmake/pi0_edge/pi0_edge-config.cmake"] {
        assert!(lib.join(file).is_file(), "{file}");
    }
    for file in ["bin/pi0-edge", "include/pi0_edge.h", "include/pi0_edge.hpp"] {
        assert!(stage.join("usr").join(file).is_file(), "{file}");
    }
    let pc = std::fs::read_to_string(lib.join("pkgconfig/pi0_edge.pc")).unwrap();
    assert!(pc.contains("prefix=/usr\n") && pc.contains("libdir=${prefix}/lib/aarch64-linux-gnu\n"), "{pc}");
    assert!(!pc.contains(stage.to_str().unwrap()) && !pc.contains('@'), "{pc}");
}

#[test]
fn wrong_use_is_said_in_words() {
    let script = root().join("scripts/install.sh");
    for (arguments, status, words) in [
        (&["--prefix", "relative"][..], 2, "absolute"),
        (&["--prefix"], 2, "--prefix needs a value"),
        (&["--libdir", "/lib"], 2, "below the prefix"),
        (&["--colour", "blue"], 2, "no argument called --colour"),
        (&["--from", "/x", "--target", "y"], 2, "one of them"),
        (&["--from", "/nowhere"], 1, "there is no /nowhere/pi0-edge"),
    ] {
        let output = output(Command::new(&script).args(arguments));
        let told = both(&output);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {told}");
        assert!(told.contains(words), "{arguments:?}: {told}");
    }
}
