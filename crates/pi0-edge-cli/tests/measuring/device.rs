//! `bench device` and `synthesize` as their user meets them, on sensors of a Jetson whose values change meanwhile.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::{copy_of_tiny, tiny};
use crate::machine::Machine;
use crate::support::{pi0_edge, text};
use serde_json::Value;

/// A short bench of `bundle` on the sensors of `machine`; the options of the command line come last.
fn bench(bundle: &Path, machine: &Path, output: &Path, more: &[&str]) -> Output {
    let mut command = pi0_edge();
    command.args(["bench", "device"]).arg(bundle).arg("--root").arg(machine).arg("--output").arg(output);
    command.args(["--minutes", "0.05", "--settle-limit", "0.5", "--threads", "1"]).args(more);
    command.output().expect("the program starts")
}

fn json(path: PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(&path).unwrap())
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn assert_ok(output: &Output) {
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// The Orin NX draws 1.3 A, then between 2 and 4, while its GPU warms up and its clock falls.
fn change_values(machine: &Machine, stop: &AtomicBool) {
    let write = |path: &str, value: u64| {
        // Whole or not at all, as the kernel gives it.
        let (path, part) = (machine.real(path), machine.real("/part"));
        std::fs::write(&part, format!("{value}\n")).unwrap();
        std::fs::rename(part, path).unwrap();
    };
    let mut tick = 0;
    while !stop.load(Ordering::Relaxed) {
        write("/sys/class/hwmon/hwmon1/curr1_input", 2000 + tick * 400 % 2000);
        write("/sys/class/thermal/thermal_zone1/temp", 46_125 + tick * 50);
        write("/sys/class/hwmon/hwmon2/oc3_event_cnt", tick / 30);
        write("/sys/class/devfreq/17000000.gpu/cur_freq", 918_000_000 - tick * 1_000_000);
        tick += 1;
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_bench_on_a_jetsons_sensors_is_complete() {
    let machine = Machine::tree("orin-nx");
    let dir = tempfile::tempdir().unwrap();
    let (output, times) = (dir.path().join("report"), dir.path().join("times.json"));
    let stop = AtomicBool::new(false);
    let ran = std::thread::scope(|scope| {
        scope.spawn(|| change_values(&machine, &stop));
        let more = [
            "--export-times",
            times.to_str().unwrap(),
            "--action-rate",
            "30",
            "--idle",
            "0.4",
            "--control-seconds",
            "2",
        ];
        let ran = bench(&tiny(), &machine.real("/"), &output, &more);
        stop.store(true, Ordering::Relaxed);
        ran
    });
    assert_ok(&ran);
    let report = json(output.join("bench.json"));
    let figures = &report["figures"];

    let stages = figures["stages"].as_array().unwrap();
    let stage = |name: &str| stages.iter().find(|s| s["name"] == name).unwrap_or_else(|| panic!("{name}"));
    let n = stage("chunk")["n"].as_u64().unwrap();
    assert!(n > 20, "{n} chunks in three seconds");
    assert_eq!(stage("denoise_step")["n"], n * 10);
    for name in ["preprocess", "vision", "prefix", "denoise", "overhead", "chunk"] {
        let (min, p50, max) = (&stage(name)["min"], &stage(name)["p50"], &stage(name)["max"]);
        let order = [min, p50, max].map(|v| v.as_f64().unwrap());
        assert!(order.is_sorted(), "{name}: {order:?}");
    }
    assert!(n >= 10_000 || stage("chunk")["p99_9"].is_null(), "a percentile of {n} values");

    let power = &figures["power"];
    assert_eq!(power["rails"], serde_json::json!(["VDD_IN"]));
    let watts = power["mean_w"].as_f64().unwrap();
    assert!((9.8..=19.0).contains(&watts), "{watts} W of 2 to 3.6 A at 4.92 V");
    let joule = power["joule_per_chunk"].as_f64().unwrap();
    let seconds = figures["seconds"].as_f64().unwrap();
    assert!((joule - watts * seconds / n as f64).abs() < 1e-9 * joule);
    assert_eq!(power["by_rail"].as_array().unwrap().len(), 3);

    let drift = &figures["drift"];
    assert_eq!(drift["hottest"][0], "gpu");
    assert!(drift["hottest"][2].as_f64() > drift["hottest"][1].as_f64(), "{drift}");
    assert!(drift["throttled"].as_u64().unwrap() >= 1, "{drift}");
    assert_eq!(figures["after_idle"]["n"], 3);

    let environment = &report["environment"];
    assert_eq!(environment["recorded_elsewhere"], true);
    assert_eq!(environment["blocks"]["software"]["L4T"], "36.4.7");
    assert!(environment["blocks"]["machine"]["module"].as_str().unwrap().contains("Orin NX"));
    let nodes = environment["blocks"]["bundle and run"]["nodes of denoise_step"].as_str().unwrap();
    assert!(nodes.to_lowercase().starts_with("cpu"), "{nodes}");
    let warm = environment["blocks"]["at that moment"]["temperature gpu"].as_str().unwrap();
    assert!(warm.ends_with(" °C"), "{warm}");
    assert_eq!(environment["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(report["weights"], "checkpoint");
    assert!(
        report["verdict"]["words"][0]
            .as_str()
            .unwrap()
            .contains("At an action rate of 30 Hz with 10 rows a chunk")
    );
    let series = &report["series"];
    assert_eq!(series["at_s"].as_array().unwrap().len(), series["rails_w"][0].as_array().unwrap().len());

    assert_eq!(report["control"]["reads"], 2000);
    assert_eq!((&report["control"]["torn"], &report["control"]["allocations"]), (&0.into(), &0.into()));

    let records = json(times);
    assert_eq!(records.as_array().unwrap().len() as u64, n);
    for key in ["startMs", "endMs", "visionMs", "prefixMs", "denoiseMs", "latencyMs"] {
        assert!(records[0][key].is_f64(), "{key}");
    }
    let lines = std::fs::read_to_string(output.join("trtexec.txt")).unwrap();
    assert!(lines.contains("\nLatency: min = ") && lines.contains(" ms, median = "), "{lines}");

    let page = std::fs::read_to_string(output.join("report.html")).unwrap();
    assert_eq!(page.matches("<svg").count(), 6, "wake-ups, histogram, latency, power, temperature, clocks");
    for never in ["<script", "http://", "https://", "<link", "NaN"] {
        assert!(!page.contains(never), "{never}");
    }
    let said = text(&ran.stdout);
    assert!(
        said.contains("\nT: 0 (") && said.contains("Beside inference, a control loop at 1 kHz"),
        "{said}"
    );
    assert!(said.contains("recorded tree") && said.contains("J a chunk (VDD_IN"), "{said}");
    let table = std::fs::read_to_string(output.join("bench.md")).unwrap();
    assert!(table.starts_with("| device | policy | precision | weights | image encoders |"), "{table}");
}

#[test]
fn without_sensors_the_report_says_so() {
    let (machine, dir) = (Machine::empty(), tempfile::tempdir().unwrap());
    let more = ["--format", "json", "--idle", "0", "--control-seconds", "0"];
    let ran = bench(&tiny(), &machine.real("/"), &dir.path().join("r"), &more);
    assert_ok(&ran);
    let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert!(report["figures"]["power"].is_null() && report["figures"]["after_idle"].is_null());
    assert!(report["control"].is_null());
    let page = std::fs::read_to_string(dir.path().join("r/report.html")).unwrap();
    assert_eq!(page.matches("<svg").count(), 2);
    assert!(page.contains("No power monitor was found"));
}

#[test]
fn bad_arguments_are_told_before_anything_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = bench(&tiny(), &dir.path().join("nowhere"), dir.path(), &[]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(text(&nowhere.stderr).contains("nowhere is no directory"), "{}", text(&nowhere.stderr));
    for bad in [["--minutes", "0"], ["--minutes", "soon"], ["--action-rate", "-1"], ["--idle", "-1"]] {
        let ran = bench(&tiny(), dir.path(), dir.path(), &bad);
        assert_eq!(ran.status.code(), Some(2), "{bad:?}: {}", text(&ran.stderr));
    }
    let broken = copy_of_tiny();
    std::fs::remove_file(broken.path().join("denoise_step.onnx.data")).unwrap();
    let ran = bench(broken.path(), dir.path(), dir.path(), &[]);
    assert_eq!(ran.status.code(), Some(1));
    assert!(text(&ran.stderr).contains("denoise_step.onnx.data"), "{}", text(&ran.stderr));
}
