//! C programs on a real policy: how they end, what they are told, what a read costs them.

use std::path::Path;
use std::process::Command;

use crate::support::{
    both, bundle, crate_dir, functions, library_dir, output, program, root, run, scratch, with_soname,
};

/// Runs a program to its end, or for two minutes.
fn within(program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "120"]).arg(program);
    command
}

#[test]
fn processes_end_and_fork_and_take_signals_as_they_should() {
    let dir = scratch();
    let program = program("ends", dir.path());
    for way in ["exit_while_running", "exit_on_another_thread", "fork_child", "bare_fork_child", "signals"] {
        run(within(&program).arg(way).arg(bundle()));
    }
    let told = run(within(&program).arg("exit_order").arg(bundle()));
    assert!(told.contains("ended before this handler"), "{told}");
}

/// Nothing waits for what waits for it, however a runtime or the process comes to its end.
#[test]
fn callbacks_call_everything_while_others_stop_free_and_exit() {
    let dir = scratch();
    let program = program("callbacks", dir.path());
    let source = std::fs::read_to_string(crate_dir().join("tests/c/callbacks.c")).unwrap();
    let source = [source, std::fs::read_to_string(crate_dir().join("tests/c/support.h")).unwrap()].concat();
    for function in functions().iter().filter(|f| f.says("Thread:").is_some_and(|t| t.starts_with("any"))) {
        assert!(source.contains(&format!("{}(", function.name)), "{} is not called", function.name);
    }
    for way in [
        "stop",
        "free",
        "take_policy",
        "exit",
        "exit_while_stopping",
        "exit_in_event_callback",
        "exit_in_log_callback",
    ] {
        println!("{way}: {}", run(within(&program).arg(way).arg(bundle())));
    }
}

#[test]
fn observations_that_cannot_be_used_episodes_and_lives_follow_each_other() {
    let dir = scratch();
    run(within(&program("recovers", dir.path())).arg(bundle()));
}

/// PI0_SOAK_MINUTES: how long faults are injected (default 0.2); PI0_SOAK_SEED: which (default 1).
#[test]
fn faults_at_random_all_the_time() {
    let dir = scratch();
    let variable = |name: &str, default: &str| std::env::var(name).unwrap_or(default.into());
    let mut soak = Command::new(program("soak", dir.path()));
    soak.arg(bundle()).args(["--minutes", &variable("PI0_SOAK_MINUTES", "0.2")]);
    println!("{}", run(soak.args(["--seed", &variable("PI0_SOAK_SEED", "1")])));
}

#[test]
fn a_host_loads_and_unloads_the_library_time_and_again() {
    let dir = scratch();
    let host = dir.path().join("plugin_host");
    let mut cc = Command::new("gcc");
    cc.args(["-std=gnu11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"])
        .arg(crate_dir().join("include"));
    run(cc.arg(crate_dir().join("tests/c/plugin_host.c")).arg("-o").arg(&host).arg("-ldl"));
    let library = library_dir().join("libpi0_edge.so");
    run(within(&host).arg(&library).arg(bundle()).arg("3"));
    // With inference going on when the library is closed, and at the end of the process.
    run(within(&host).arg(&library).arg(bundle()).args(["2", "running"]));
}

#[test]
fn programs_are_told_what_happens() {
    let dir = scratch();
    let told = run(within(&program("told", dir.path())).arg(bundle()));
    assert!(told.contains(r#"{"event":"chunk","chunk":1,"#), "{told}");
}

/// PI0_LOOP_SECONDS: how long the loop runs (default 2).
#[test]
fn reads_allocate_nothing_and_make_no_system_call() {
    let dir = scratch();
    let program = program("measured_loop", dir.path());
    let seconds = std::env::var("PI0_LOOP_SECONDS").unwrap_or("2".into());
    println!("{}", run(within(&program).arg(bundle()).arg(&seconds)));
    // What the program counts with does count.
    for (plant, counted) in [("plant_allocation", " 0 system calls"), ("plant_system_call", " 0 allocations")]
    {
        let output = output(within(&program).arg(bundle()).args(["1", plant]));
        let told = both(&output);
        assert_eq!(output.status.code(), Some(1), "{plant}: {told}");
        assert!(told.contains(counted), "{plant}: {told}");
    }
}

/// A program that was built with the header of the first release goes on to work.
#[test]
fn the_first_releases_client_runs_with_this_library() {
    with_soname();
    let dir = scratch();
    let (abi, client) = (crate_dir().join("tests/c/abi/0.1"), dir.path().join("client"));
    let lib = library_dir();
    let mut cc = Command::new("gcc");
    cc.args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"]).arg(&abi);
    cc.arg(abi.join("client.c")).arg("-o").arg(&client).arg("-L").arg(&lib).arg("-lpi0_edge");
    run(cc.arg(format!("-Wl,-rpath,{}", lib.display())));
    let told = run(within(&client).arg(bundle()));
    assert!(told.contains("built with 0.1.0"), "{told}");
}

/// The examples, each built as its first lines say.
#[test]
fn the_examples_run() {
    with_soname();
    let dir = scratch();
    let example = |source: &str, compiler: &str| {
        let source = root().join("examples").join(source);
        let to = dir.path().join(source.file_stem().expect("a name"));
        crate::support::compile(compiler, &source, &to, &[]);
        to
    };
    let chunk = run(within(&example("c/infer_once.c", "gcc")).arg(bundle()));
    assert!(chunk.lines().filter(|line| line.starts_with(' ')).count() >= 2, "{chunk}");
    let control_loop = example("c/control_loop.c", "gcc");
    let told = run(within(&control_loop).arg(bundle()).arg("2"));
    assert!(told.contains("chunks: "), "{told}");
    let headers = crate::support::ros2_headers(dir.path());
    let [plugin, manager] = crate::support::ros2_sources();
    let controller = dir.path().join("controller_manager");
    let include = [&headers, &plugin, &manager].map(|place| format!("-I{}", place.display()));
    let flags = include.each_ref().map(String::as_str);
    crate::support::compile("g++", &manager.join("controller_manager.cpp"), &controller, &flags);
    let told = run(within(&controller).arg(bundle()).arg("2"));
    assert!(told.contains("with a command"), "{told}");

    // SIGINT ends the loop cleanly.
    let mut command = Command::new("timeout");
    command.args(["--preserve-status", "--signal=INT", "3"]).arg(&control_loop).arg(bundle());
    let told = run(&mut command);
    assert!(told.contains("signal 2: stopping") && told.contains("chunks: "), "{told}");

    // A bundle that is none is said so, in words.
    for program in ["infer_once", "control_loop", "controller_manager"] {
        let output = output(Command::new(dir.path().join(program)).arg("/nowhere"));
        let told = both(&output);
        assert_eq!(output.status.code(), Some(1), "{program}: {told}");
        assert!(told.contains("/nowhere"), "{program}: {told}");
    }
}
