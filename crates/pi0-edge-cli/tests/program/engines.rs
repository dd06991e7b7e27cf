//! `pi0-edge engines`, and runs with `--provider tensorrt`, as their user meets them: real ONNX Runtime, its real
//! TensorRT provider, and libraries in place of NVIDIA's that only know who they are (see `nvidia`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::gpu_build::gpu_build;
use crate::common::{observation_dir, tiny};
use crate::nvidia::Otherwise;
use crate::support::{assert_says, pi0_edge, text};
use pi0_edge::Environment;
use pi0_edge::bundle::GraphName;
use pi0_edge::tensorrt::Pins;
use serde_json::Value;

fn engines(root: &Path, arguments: &[&str]) -> Output {
    pi0_edge().arg("engines").args(arguments).arg("--engine-cache").arg(root).output().unwrap()
}

fn assert_succeeds(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn a_directory_of_engines_is_listed_verified_and_cleaned() {
    let dir = crate::engine_sets::cache();
    let nothing = dir.path().join("engines");
    for verb in ["list", "verify", "clean"] {
        assert!(assert_succeeds(&engines(&nothing, &[verb])).contains("no engines"), "{verb}");
    }
    assert!(!nothing.exists(), "looking makes nothing");
    let pins = crate::engine_sets::pins();
    crate::engine_sets::build(dir.path(), &pins, b"engine");
    let list = assert_succeeds(&engines(dir.path(), &["list"]));
    for word in
        [&pins.key()[..12], "fp32", "Orin (sm_87, 16 multiprocessors)", "TensorRT 10.3.0", "/bundles/pi0"]
    {
        assert!(list.contains(word), "{word}: {list}");
    }
    let list: Value =
        serde_json::from_str(&assert_succeeds(&engines(dir.path(), &["list", "--format", "json"]))).unwrap();
    assert_eq!(list["sets"][0]["record"]["pins"]["tensorrt"], "10.3.0");
    assert_eq!(list["sets"][0]["problem"], Value::Null);
    assert!(assert_succeeds(&engines(dir.path(), &["verify"])).contains("intact"));
    fs::write(dir.path().join(pins.key()).join("vision_encoder_1_sm87.engine"), b"enginf").unwrap();
    let output = engines(dir.path(), &["verify"]);
    assert!(text(&output.stdout).contains("UNUSABLE"), "{}", text(&output.stdout));
    assert_says(&output, 1, &["1 of 1 sets cannot be used", "engines clean"]);
    let report: Value =
        serde_json::from_slice(&engines(dir.path(), &["verify", "--format", "json"]).stdout).unwrap();
    assert_eq!(report["pass"], false);
    assert!(report["sets"][0]["problem"].as_str().unwrap().contains("SHA-256"));
    // Damage that only reading every byte shows is not what cleaning looks for; a missing file is.
    assert!(assert_succeeds(&engines(dir.path(), &["clean"])).contains("0 removed"));
    fs::remove_file(dir.path().join(pins.key()).join("vision_encoder_1_sm87.engine")).unwrap();
    assert!(assert_succeeds(&engines(dir.path(), &["clean", "--dry-run"])).contains("1 would be removed"));
    assert!(dir.path().join(pins.key()).exists());
    assert!(assert_succeeds(&engines(dir.path(), &["clean"])).contains("1 removed"));
    crate::engine_sets::build(dir.path(), &pins, b"engine");
    assert!(assert_succeeds(&engines(dir.path(), &["clean", "--all"])).contains("1 removed"));
    assert!(!dir.path().join(pins.key()).exists());
}

#[test]
fn wrong_usage_is_said() {
    for arguments in [
        &["engines"][..],
        &["engines", "build"],
        &["engines", "build", "b", "--workspace", "much"],
        &["engines", "build", "b", "--optimization-level", "6"],
    ] {
        assert_eq!(pi0_edge().args(arguments).output().unwrap().status.code(), Some(2), "{arguments:?}");
    }
    let typed = pi0_edge().args(["engines", "build", "b", "--precision", "fp16"]).output().unwrap();
    assert_says(&typed, 2, &["the types of the bundle's graphs", "export.py --precision"]);
}

#[test]
fn without_tensorrt_a_build_says_what_to_install() {
    let Some(library) = gpu_build() else { return };
    if Path::new("/dev/nvidia0").exists() {
        return; // what such a machine lacks is its own affair
    }
    let dir = crate::engine_sets::cache();
    let root = dir.path().join("engines");
    let bundle = tiny();
    let build = ["build", bundle.to_str().unwrap(), "--ort-library", library.to_str().unwrap()];
    let words = [
        "the tensorrt provider cannot be used",
        "libnvinfer.so.10",
        "libnvonnxparser.so.10",
        "apt install libnvinfer10",
    ];
    assert_says(&engines(&root, &build), 1, &words);
    assert!(!root.exists(), "nothing is made for a build that cannot start");
}

/// A machine with NVIDIA's names, and a directory for engines.
struct Orin {
    library: PathBuf,
    libraries: tempfile::TempDir,
    engines: tempfile::TempDir,
}

impl Orin {
    fn new(otherwise: Otherwise) -> Option<Self> {
        let library = gpu_build()?;
        let libraries = tempfile::tempdir().unwrap();
        if !crate::nvidia::make_libraries(&library, libraries.path(), otherwise) {
            eprintln!("skipped: no C compiler");
            return None;
        }
        Some(Orin { library, libraries, engines: crate::engine_sets::cache() })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = pi0_edge();
        command.args(arguments);
        command.env("LD_LIBRARY_PATH", self.libraries.path()).arg("--engine-cache").arg(self.engines.path());
        command.arg("--ort-library").arg(&self.library);
        command
    }

    fn run(&self) -> Output {
        let (bundle, observation) = (tiny(), observation_dir());
        let (bundle, observation) = (bundle.to_str().unwrap(), observation.to_str().unwrap());
        let arguments = ["run", bundle, "--provider", "tensorrt", "--observation", observation];
        self.command(&arguments).output().unwrap()
    }

    fn build(&self) -> Command {
        self.command(&["engines", "build", tiny().to_str().unwrap()])
    }

    /// The pins of engines for the small bundle on this machine.
    fn pins(&self) -> Pins {
        let manifest = fs::read(tiny().join("manifest.json")).unwrap();
        let hash = <sha2::Sha256 as sha2::Digest>::digest(&manifest);
        let bundle = hash.iter().map(|b| format!("{b:02x}")).collect();
        let onnxruntime = Environment::get(Some(&self.library)).unwrap().version().to_owned();
        Pins { bundle, onnxruntime, ..crate::engine_sets::pins() }
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.engines.path()).unwrap();
        names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

#[test]
fn a_run_without_the_right_engines_fails_at_once_and_builds_nothing() {
    // A build would be noticed: it waits for ever here.
    let Some(orin) = Orin::new(Otherwise::Wait) else { return };
    let start = Instant::now();
    let output = orin.run();
    println!("refused in {:?}", start.elapsed());
    assert_says(&output, 1, &["no TensorRT engines for this bundle here", "pi0-edge engines build BUNDLE"]);
    assert_eq!(orin.names(), Vec::<String>::new());
    // Others' engines.
    let pins = orin.pins();
    let old = Pins { tensorrt: "8.6.2".into(), ..pins.clone() };
    crate::engine_sets::build(orin.engines.path(), &old, b"engine");
    assert_says(&orin.run(), 1, &["are for TensorRT 8.6.2, here it is 10.3.0"]);
    // The right ones, with one byte flipped.
    crate::engine_sets::build(orin.engines.path(), &pins, b"engine");
    let engine = orin.engines.path().join(pins.key()).join("denoise_step_1_sm87.engine");
    fs::write(&engine, b"enginE").unwrap();
    assert_says(&orin.run(), 1, &["is damaged or was tampered with and is not loaded"]);
    // The right ones, whole, but not of every graph.
    let some = [GraphName::VisionEncoder, GraphName::DenoiseStep];
    crate::engine_sets::build_some(orin.engines.path(), &pins, b"engine", &some);
    assert_says(&orin.run(), 1, &["have none for prefix_prefill"]);
}

/// Waits until the build has begun with a graph.
fn wait_for_building(orin: &Orin, child: &mut Child) {
    let start = Instant::now();
    while !orin.names().iter().any(|n| n.starts_with(".building")) {
        assert!(child.try_wait().unwrap().is_none(), "the build ended by itself");
        assert!(start.elapsed() < Duration::from_secs(120), "the build does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    // And is at work in TensorRT, where nothing can be interrupted.
    std::thread::sleep(Duration::from_millis(500));
}

#[test]
fn ctrl_c_ends_a_build_and_leaves_nothing() {
    let Some(orin) = Orin::new(Otherwise::Wait) else { return };
    let mut child = orin.build().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_building(&orin, &mut child);
    // Meanwhile nobody else builds here.
    let words = ["another pi0-edge (process", "is building or removing engines"];
    assert_says(&orin.build().output().unwrap(), 1, &words);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_says(&output, 130, &["building vision_encoder (1 of 4)", "stopped; no engine was kept"]);
    assert!(output.stdout.is_empty());
    assert!(!orin.names().iter().any(|n| n.starts_with(".building")), "{:?}", orin.names());
    assert_says(&orin.run(), 1, &["no TensorRT engines for this bundle here"]);
}

#[test]
fn a_build_that_is_killed_counts_for_nothing() {
    let Some(orin) = Orin::new(Otherwise::Wait) else { return };
    let mut child = orin.build().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for_building(&orin, &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(orin.names().iter().any(|n| n.starts_with(".building")), "nothing could clean up");
    assert_says(&orin.run(), 1, &["no TensorRT engines for this bundle here"]);
    let cleaned = assert_succeeds(&engines(orin.engines.path(), &["clean"]));
    assert!(cleaned.contains("left by a build that was stopped"), "{cleaned}");
    assert!(!orin.names().iter().any(|n| n.starts_with(".building")));
}

/// A `trtexec` that writes down what it is asked for, checks that every option is one that NVIDIA's has and that the model is
/// there, and makes an engine of its name; `then` is what it does in the end.
fn trtexec(folder: &Path, version: &str, then: &str) -> PathBuf {
    let program = folder.join("trtexec");
    let script = format!(
        r#"#!/bin/sh
echo "&&&& RUNNING TensorRT.trtexec [TensorRT v{version}] # $0 $*"
echo "$*" >>{folder}/asked
for option; do
    case $option in
    --onnx=*) [ -f "${{option#*=}}" ] && [ -f "${{option#*=}}.data" ] || exit 3 ;;
    --saveEngine=*) engine=${{option#*=}} ;;
    --minShapes=*:* | --optShapes=*:* | --maxShapes=*:* | --device=[0-9] | --builderOptimizationLevel=[0-5]) ;;
    --skipInference | --stronglyTyped | --timingCacheFile=/* | --memPoolSize=workspace:*B | --maxAuxStreams=[0-9]) ;;
    *) echo "[E] Unknown option: $option" >&2 && exit 1 ;;
    esac
done
{then}
basename "$engine" >"$engine"
"#,
        folder = folder.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    program
}

#[test]
fn trtexec_builds_what_is_recorded_and_found() {
    let Some(orin) = Orin::new(Otherwise::Abort) else { return };
    let folder = tempfile::tempdir().unwrap();
    let build = |program: &Path| {
        let mut command = orin.build();
        command.arg("--trtexec").arg(program).args(["--workspace", "1GiB", "--auxiliary-streams", "0"]);
        command.output().unwrap()
    };
    let said = assert_succeeds(&build(&trtexec(folder.path(), "100300", "")));
    assert!(said.contains("engines built"), "{said}");
    let asked = fs::read_to_string(folder.path().join("asked")).unwrap();
    assert_eq!(asked.lines().count(), GraphName::ALL.len(), "{asked}");
    for word in [
        "--stronglyTyped --device=0",
        "--minShapes=pixel_values:1x3x56x56 --optShapes=pixel_values:3x3x56x56",
        "--memPoolSize=workspace:1073741824B",
        "--maxAuxStreams=0",
    ] {
        assert!(asked.contains(word), "{word}: {asked}");
    }
    let list: Value =
        serde_json::from_str(&assert_succeeds(&engines(orin.engines.path(), &["list", "--format", "json"])))
            .unwrap();
    let record = &list["sets"][0]["record"];
    assert_eq!(record["graphs"]["denoise_step"], "denoise_step_ctx.onnx");
    assert_eq!(record["files"]["denoise_step.engine"]["size"], "denoise_step.engine\n".len());
    assert!(assert_succeeds(&engines(orin.engines.path(), &["verify"])).contains("intact"));
    // They are there now.
    assert!(assert_succeeds(&build(&trtexec(folder.path(), "100300", "exit 9"))).contains("already there"));
}

#[test]
fn a_trtexec_that_cannot_is_told_with_what_it_said() {
    let Some(orin) = Orin::new(Otherwise::Abort) else { return };
    let folder = tempfile::tempdir().unwrap();
    let build = |program: &Path| orin.build().arg("--trtexec").arg(program).output().unwrap();
    let fails = trtexec(folder.path(), "100300", "echo '[E] Error Code 2: OutOfMemory' >&2; exit 1");
    let words = ["vision_encoder", "cannot build it", "exit status: 1", "Error Code 2: OutOfMemory"];
    assert_says(&build(&fails), 1, &words);
    let other = trtexec(folder.path(), "101602", "");
    assert_says(&build(&other), 1, &["is of TensorRT 10.16.2", "ONNX Runtime loads 10.3.0"]);
    assert_says(&build(&folder.path().join("none")), 1, &["cannot run", "none"]);
    let left = orin.names().into_iter().filter(|name| !matches!(name.as_str(), ".lock" | "timing"));
    assert_eq!(left.count(), 0, "nothing is left of builds that failed");
}

#[test]
fn ctrl_c_ends_trtexec_too() {
    let Some(orin) = Orin::new(Otherwise::Abort) else { return };
    let folder = tempfile::tempdir().unwrap();
    let waits = trtexec(folder.path(), "100300", "echo $$ >$(dirname $0)/pid; exec sleep 600");
    let mut child = orin.build().arg("--trtexec").arg(&waits).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    let pid = loop {
        match fs::read_to_string(folder.path().join("pid"))
            .ok()
            .and_then(|pid| pid.trim().parse::<i32>().ok())
        {
            Some(pid) => break pid,
            None => assert!(begun.elapsed() < Duration::from_secs(120)),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    // To the program alone, as a service manager does; a terminal would tell both.
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "trtexec goes on");
}
