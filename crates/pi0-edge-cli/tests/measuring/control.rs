//! `pi0-edge bench control`: what it prints, and that it measures.

use std::process::{Command, Output};

use crate::common::tiny;
use crate::support::text;
use serde_json::Value;

fn bench_control(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pi0-edge"));
    command.args(["bench", "control"]).arg(tiny()).args(["--threads", "1"]).args(args);
    command.env("ORT_DISABLE_TELEMETRY", "1").output().unwrap()
}

#[test]
fn every_tick_is_measured_and_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let load_dir = folder.path().to_str().unwrap();
    let args = ["--rate", "500", "--duration", "3", "--load", "--load-dir", load_dir, "--format", "json"];
    let output = bench_control(&args);
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["reads"], 1500, "{json:#}");
    for latency in ["read_ns", "wake_ns", "response_ns"] {
        let keys: Vec<_> = json[latency].as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["p50", "p99", "p99_9", "p99_99", "max"]);
        let at = |key: &str| json[latency][key].as_u64();
        assert!(at("p50") <= at("p99") && at("p99") <= at("max") && at("p50") > Some(0), "{json:#}");
        assert_eq!(at("p99_9"), None, "1500 are too few to say");
    }
    for key in ["allocations", "torn"] {
        assert_eq!(json[key], 0, "{key}: {json:#}");
    }
    // None where this system does not allow the filter that counts them.
    assert!(json["syscalls"] == 0 || json["syscalls"].is_null(), "{json:#}");
    assert!(json["page_faults"].is_u64());
    let statuses = json["statuses"].as_object().unwrap();
    assert_eq!(statuses.keys().collect::<Vec<_>>(), ["ok", "stale", "hold", "empty"]);
    assert_eq!(statuses.values().map(|n| n.as_u64().unwrap()).sum::<u64>(), 1500);
    assert!(json["checked"].as_u64().unwrap() > 0, "nothing was compared: {json:#}");
    for thread in ["control", "inference"] {
        assert!(json["realtime"][thread]["scheduler"].is_string(), "{json:#}");
    }
    let counted: u64 =
        json["wake_histogram_us"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(counted + json["wake_histogram_overflows"].as_u64().unwrap(), 1500);
    assert!(json["load"]["memory_gb_s"].as_f64().unwrap() > 0.0);
    assert!(json["load"]["disk_mb_s"].as_f64().unwrap() > 0.0);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the load leaves nothing behind");
}

#[test]
fn the_text_has_cyclictests_line_and_histogram() {
    let output = bench_control(&["--rate", "200", "--duration", "1", "--histogram", "50"]);
    let out = text(&output.stdout);
    assert!(output.status.success(), "{out}\n{}", text(&output.stderr));
    let line = out.lines().find(|line| line.starts_with("T: 0 (")).unwrap();
    for words in [") P:", " I:5000 C:    200 Min:", " Act:", " Avg:", " Max:"] {
        assert!(line.contains(words), "{words}: {line}");
    }
    let rows = out.lines().skip_while(|line| *line != "# Histogram").skip(1);
    let rows: Vec<_> = rows.take_while(|line| !line.starts_with('#')).collect();
    assert_eq!((rows.len(), &rows[49][..7]), (50, "000049 "), "{out}");
    assert!(out.contains("# Histogram Overflows: "), "{out}");
    for words in ["0 allocations", "0 torn of", "reading kept its promises", "control thread: "] {
        assert!(out.contains(words), "{words}: {out}");
    }
}

#[test]
fn what_cannot_be_measured_is_refused_in_words() {
    for (args, words) in [
        (&["--rate", "0"][..], "--rate"),
        (&["--duration", "0"], "--duration"),
        (&["--load-dir", "/tmp"], "--load"),
        (&["--priority", "100"], "--priority"),
    ] {
        let output = bench_control(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains(words), "{args:?}: {}", text(&output.stderr));
    }
    for (args, words) in [
        (&["--load", "--load-dir", "/no/such/folder"][..], "--load-dir names another place"),
        (&["--realtime", "enforce", "--cpu", "1023"], "CPU affinity"),
        (&["--observation", "/no/such/folder"], "/no/such/folder"),
    ] {
        let output = bench_control(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(text(&output.stderr).contains(words), "{args:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty());
    }
}
