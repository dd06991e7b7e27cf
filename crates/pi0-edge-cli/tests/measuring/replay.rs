//! `pi0-edge replay`: an episode through the live runtime, its recording bit by bit, its picture, and bad episodes.

use std::path::Path;
use std::process::{Command, Output};

use crate::common::project::project;
use crate::common::{copy_of_tiny, tiny};
use crate::support::{assert_fails, pi0_edge, text};
use serde_json::{Value, json};

/// A directory with an episode for the small bundle in its `episode`, made by the script that users have.
pub fn with_episode() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let script = project().join("scripts/make_episode.py");
    let made = Command::new("python3")
        .arg(script)
        .arg(tiny())
        .arg("--output")
        .arg(dir.path().join("episode"))
        .args(["--seconds", "1", "--fps", "20", "--frame-size", "24x32"])
        .output()
        .expect("python3 starts");
    assert!(made.status.success(), "{}", text(&made.stderr));
    dir
}

/// Replays without asking for rights that would change the machine the test runs on.
fn replay(dir: &Path, more: &[&str]) -> Output {
    replay_of(&tiny(), dir, more)
}

fn replay_of(bundle: &Path, dir: &Path, more: &[&str]) -> Output {
    let mut command = pi0_edge();
    command.arg("replay").arg(bundle).arg("--episode").arg(dir.join("episode"));
    command.args(["--threads", "1", "--realtime", "off"]).args(more).current_dir(dir);
    command.output().expect("the program starts")
}

fn json_of(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object on stdout")
}

#[test]
fn a_live_replay_is_reported_drawn_recorded_and_run_again_bit_by_bit() {
    let dir = with_episode();
    let live = ["--rate", "100", "--duration", "3", "--rtc", "--inject-latency", "20", "--action-rate", "20"];
    // By state, because that is one more thing that the recording has to give again.
    let files = ["--svg", "run.svg", "--record", "run.jsonl", "--format", "json", "--splice", "state"];
    let report = json_of(&replay(dir.path(), &[&live[..], &files].concat()));
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2, "without real-time chunking and with it");
    for (run, guided) in runs.iter().zip([false, true]) {
        assert_eq!(run["rtc"].is_null(), !guided);
        let control = &run["runtime"]["control"];
        let reads = control["reads"].as_u64().unwrap();
        let statuses: u64 =
            ["ok", "stale", "hold", "empty"].iter().map(|s| control[s].as_u64().unwrap()).sum();
        assert_eq!(statuses, reads);
        assert_eq!(reads + run["deadline_misses"].as_u64().unwrap(), 300, "every tick was read or missed");
        assert!(control["ok"].as_u64().unwrap() > 0 && run["rate_hz"].as_f64().unwrap() > 0.0);
        let chunks = run["runtime"]["inference"]["published"].as_u64().unwrap();
        assert!(chunks >= 3, "{run}");
        assert_eq!(run["runtime"]["inference"]["guided"].as_u64().unwrap() > 0, guided);
        assert!(run["seam_jump"]["n"].as_u64().unwrap() >= 1 && run["seam_jump"]["max"].as_f64().is_some());
        // Four denoise steps share the added latency, and every chunk has it.
        assert!(run["runtime"]["inference"]["chunk_ns"]["min"].as_u64().unwrap() >= 20_000_000);
        let estimates = &run["delay_estimate"];
        assert!((1..chunks).contains(&estimates["n"].as_u64().unwrap()), "not the first: {estimates}");
        assert_eq!(run["realtime"]["inference"]["realtime"], "off");
    }
    assert_eq!(report["recording"]["identical"], true);
    assert_eq!(report["settings"]["splice"], "state");

    let svg = std::fs::read_to_string(dir.path().join("run.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    for word in ["joint_0.pos", "gripper.pos", "time (s)", "robot units", "with RTC", "<circle"] {
        assert!(svg.contains(word), "{word}");
    }

    // Again from the file, in another process.
    let again = json_of(&replay(dir.path(), &["--recording", "run.jsonl", "--format", "json"]));
    assert_eq!((&again["identical"], &again["runs"]), (&json!(true), &json!(2)));
    assert_eq!(again["ticks"], report["recording"]["ticks"]);
    assert!(again["ticks"].as_u64().unwrap() > 100);

    a_recording_that_was_changed_is_found_out(dir.path());
}

/// One bit of one action, one of a chunk, a missing line, a missing end, another episode.
fn a_recording_that_was_changed_is_found_out(dir: &Path) {
    let recorded = std::fs::read_to_string(dir.join("run.jsonl")).unwrap();
    let lines: Vec<&str> = recorded.lines().collect();
    let last = |kind: &str| lines.iter().rposition(|l| l.starts_with(&format!("{{\"{kind}\""))).unwrap();
    let with = |index: usize, line: String| {
        let mut changed: Vec<String> = lines.iter().map(|l| (*l).to_owned()).collect();
        changed[index] = line;
        std::fs::write(dir.join("changed.jsonl"), changed.join("\n") + "\n").unwrap();
        replay(dir, &["--recording", "changed.jsonl"])
    };
    let flipped = |index: usize| {
        // The last hexadecimal digit of the line: the lowest bits of its last value.
        let line = lines[index];
        let at = line.rfind(|c: char| c.is_ascii_hexdigit()).unwrap();
        let digit = u32::from_str_radix(&line[at..=at], 16).unwrap() ^ 1;
        format!("{}{digit:x}{}", &line[..at], &line[at + 1..])
    };
    let (read, chunk) = (last("read"), last("chunk"));
    assert_fails(&with(read, flipped(read)), &["another result", "the action of read"]);
    assert_fails(&with(chunk, flipped(chunk)), &["another result", "chunk", "joint 6 was"]);
    assert_fails(&with(read, "{}".into()), &["changed.jsonl line", "no line of a recording"]);
    std::fs::write(dir.join("changed.jsonl"), lines[..lines.len() - 1].join("\n")).unwrap();
    assert_fails(&replay(dir, &["--recording", "changed.jsonl"]), &["cut off"]);
    let fewer = [&lines[..read], &lines[read + 1..]].concat().join("\n");
    std::fs::write(dir.join("changed.jsonl"), fewer).unwrap();
    assert_fails(&replay(dir, &["--recording", "changed.jsonl"]), &["lines are missing"]);

    let episode = dir.join("episode/episode.json");
    let text = std::fs::read_to_string(&episode).unwrap();
    std::fs::write(&episode, text.replace("0.05,", "0.06,")).unwrap();
    assert_fails(&replay(dir, &["--recording", "run.jsonl"]), &["another episode"]);
}

/// The hour-long form of this is `--duration 3600`.
#[test]
fn at_full_speed_threads_and_files_stay_and_memory_is_flat() {
    let dir = with_episode();
    let args = ["--rate", "200", "--duration", "4", "--full-speed", "--soak", "0.1", "--format", "json"];
    let report = json_of(&replay(dir.path(), &args));
    let run = &report["runs"][0];
    // How many there are is the machine's business.
    assert!(run["runtime"]["inference"]["published"].as_u64().unwrap() > 2, "{run}");
    let soak = &run["soak"];
    assert!(soak["n"].as_u64().unwrap() >= 5, "{soak}");
    for trend in soak["trends"].as_array().unwrap() {
        let grown = trend["max"].as_f64().unwrap() - trend["min"].as_f64().unwrap();
        let allowed = match trend["name"].as_str().unwrap() {
            // Pages of the program itself are still being touched for the first time in its first seconds.
            "resident_kib" | "anonymous_kib" => 4096.0,
            _ => 0.0,
        };
        assert!(grown <= allowed, "{trend}");
        assert!(trend["slope_per_hour"].as_f64().is_some(), "{trend}");
    }
}

#[test]
fn the_flight_record_is_written_on_a_trip_and_otherwise_at_the_end() {
    let dir = with_episode();
    let flight = || -> Value {
        let text = std::fs::read_to_string(dir.path().join("flight.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let tripped = |record: &Value| {
        let ticks = record["ticks"].as_array().unwrap();
        ticks.iter().filter(|tick| tick["flags"].as_array().unwrap().contains(&json!("tripped"))).count()
    };
    let base = ["--rate", "100", "--duration", "1", "--format", "json", "--flight-record", "flight.json"];
    let calm = json_of(&replay(dir.path(), &base));
    assert_eq!(calm["runs"][0]["runtime"]["control"]["trips"], 0);
    assert_eq!(tripped(&flight()), 0);
    assert!(!flight()["chunks"].as_array().unwrap().is_empty());
    let trip = ["--step-limit", "0.001", "--trip-after", "5", "--record", "run.jsonl"];
    let tripping = json_of(&replay(dir.path(), &[&base[..], &trip].concat()));
    let control = &tripping["runs"][0]["runtime"]["control"];
    assert!(control["trips"] == 1 && control["hold"].as_u64().unwrap() > 10, "{control}");
    assert!(tripped(&flight()) > 0);
    assert_eq!(tripping["recording"]["identical"], true, "a trip can be recorded too");
}

/// A control loop that is late reads some ticks twice, and chunks come between such reads.
#[test]
fn a_run_too_fast_for_the_machine_can_be_recorded_too() {
    let dir = with_episode();
    let more = ["--rate", "4000", "--duration", "1", "--full-speed", "--rtc", "--record", "run.jsonl"];
    for _ in 0..2 {
        let report = json_of(&replay(dir.path(), &[&more[..], &["--format", "json"]].concat()));
        assert_eq!(report["recording"]["identical"], true);
    }
}

#[test]
fn rejected_chunks_can_be_recorded_too() {
    let (dir, bundle) = (with_episode(), copy_of_tiny());
    let manifest = bundle.path().join("manifest.json");
    let mut edited: Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    // Some chunks of the random policy go beyond this, and some do not.
    edited["action"]["limits"] = json!({"min": vec![-4.0; 7], "max": vec![4.0; 7]});
    std::fs::write(&manifest, edited.to_string()).unwrap();
    let more = ["--rate", "100", "--duration", "2", "--rtc", "--record", "run.jsonl", "--format", "json"];
    let report = json_of(&replay_of(bundle.path(), dir.path(), &more));
    assert_eq!(report["recording"]["identical"], true);
    let counts = |key: &str| -> u64 {
        let runs = report["runs"].as_array().unwrap();
        runs.iter().map(|run| run["runtime"]["inference"][key].as_u64().unwrap()).sum()
    };
    assert!(counts("rejected_limits") > 0 && counts("published") > 0 && counts("errors") == 0, "{report}");
}

#[test]
fn hung_inference_can_be_recorded_too() {
    let dir = with_episode();
    let slow = ["--inject-latency", "1200", "--num-steps", "4", "--hold-after", "200", "--max-age", "100"];
    let more = ["--rate", "100", "--duration", "2.5", "--record", "run.jsonl", "--format", "json"];
    let report = json_of(&replay(dir.path(), &[&slow[..], &more].concat()));
    assert_eq!(report["recording"]["identical"], true);
    let recorded = std::fs::read_to_string(dir.path().join("run.jsonl")).unwrap();
    let hung = recorded.lines().filter(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["read"][1][1].as_u64().is_some_and(|flags| flags & 1 << 7 != 0)
    });
    assert!(hung.count() > 10, "each step takes longer than an action stays valid");
}

#[test]
fn the_table_has_a_column_for_each_run() {
    let dir = with_episode();
    let args = ["--rate", "100", "--duration", "0.6", "--rtc", "--inject-latency", "0,30"];
    let output = replay(dir.path(), &args);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    for word in
        ["no RTC", "RTC", "no RTC +30 ms", "RTC +30 ms", "deadline misses", "seam jump", "delay estimate"]
    {
        assert!(table.contains(word), "{word}: {table}");
    }
    assert!(table.contains("control rate 100 Hz, action rate 50 Hz"), "{table}");
    assert_eq!(
        table.lines().filter(|line| line.starts_with("gripper.pos ")).count(),
        4,
        "each joint: {table}"
    );
    assert!(table.contains("\nonnxruntime: 1.") && table.contains("largest at seam"), "{table}");
}

#[test]
fn a_bad_episode_is_refused_in_words() {
    type Change = fn(&mut Value);
    let cases: [(Change, &[&str]); 8] = [
        (|e| e["observations"] = json!([]), &["episode.json", "no observations"]),
        (|e| e["observations"][3]["time_s"] = json!(0.05), &["observation 3", "not after"]),
        (|e| e["observations"][0]["time_s"] = json!(-1.0), &["observation 0", "time_s -1"]),
        (|e| e["observations"][2]["path"] = json!("../0001"), &["observation 2", "must lie in"]),
        (|e| e["observations"][2]["path"] = json!("nowhere"), &["nowhere"]),
        (|e| e["frames"] = json!(30), &["malformed", "frames"]),
        (|e| e["prompt"] = json!("pick ".repeat(400)), &["prompt", "tokens"]),
        (|e| _ = e.as_object_mut().unwrap().remove("observations"), &["malformed", "observations"]),
    ];
    for (change, words) in cases {
        let dir = with_episode();
        let file = dir.path().join("episode/episode.json");
        let mut episode: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        change(&mut episode);
        std::fs::write(&file, episode.to_string()).unwrap();
        assert_fails(&replay(dir.path(), &["--rate", "100"]), words);
    }
}

#[test]
fn a_bad_observation_in_an_episode_is_named() {
    type Change = fn(&mut Value);
    let cases: [(Change, &[&str]); 5] = [
        (|o| _ = o["state"].as_array_mut().unwrap().pop(), &["0004", "state", "5"]),
        (|o| o["images"] = json!({}), &["0004", "camera"]),
        (|o| o["images"]["nobody"] = json!("base.png"), &["0004", "nobody"]),
        (|o| o["images"]["observation.images.base"] = json!("none.png"), &["none.png"]),
        (|o| o["prompt"] = json!("something else"), &["observation 4", "one prompt"]),
    ];
    for (change, words) in cases {
        let dir = with_episode();
        let file = dir.path().join("episode/0004/observation.json");
        let mut observation: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        change(&mut observation);
        std::fs::write(&file, observation.to_string()).unwrap();
        assert_fails(&replay(dir.path(), &["--rate", "100"]), words);
    }
    let dir = with_episode();
    std::fs::remove_file(dir.path().join("episode/episode.json")).unwrap();
    assert_fails(&replay(dir.path(), &["--rate", "100"]), &["episode.json", "is missing"]);
}

#[test]
fn a_wrong_command_line_says_so() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &[][..],
        &["--rate", "0"],
        &["--rate", "fast"],
        &["--rate", "100", "--inject-latency", "-1"],
        &["--rate", "100", "--execution-horizon", "4"],
        &["--rate", "100", "--recording", "x"],
        &["--rate", "100", "--full-speed", "--replan-remaining", "3"],
    ] {
        assert_eq!(replay(dir.path(), args).status.code(), Some(2), "{args:?}");
    }
    let dir = with_episode();
    let two = ["--rate", "100", "--svg", "x.svg", "--inject-latency", "0,5"];
    assert_fails(&replay(dir.path(), &two), &["--svg", "one value"]);
    let horizon = ["--rate", "100", "--rtc", "--execution-horizon", "11", "--duration", "0.1"];
    assert_fails(&replay(dir.path(), &horizon), &["execution horizon", "10"]);
}
