//! Long work as its user meets it: progress on terminals and elsewhere, Ctrl-C, outputs that cannot be written.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::common::tiny;
use crate::replay::with_episode;
use crate::support::{assert_fails, pi0_edge, text};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;

/// The program with its stderr on a terminal, or on a pipe.
struct Run {
    child: Child,
    stderr: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Run {
    fn on_terminal(mut command: Command, columns: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let ours = openpt(flags).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let theirs = ioctl_tiocgptpeer(&ours, flags).unwrap();
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&theirs, size).unwrap();
        command.stderr(theirs);
        Self::start(command, |_| ours.into())
    }

    fn on_pipe(mut command: Command) -> Self {
        command.stderr(Stdio::piped());
        Self::start(command, |child| std::os::fd::OwnedFd::from(child.stderr.take().unwrap()).into())
    }

    fn start(mut command: Command, stderr: impl FnOnce(&mut Child) -> File) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program starts");
        // The terminal's other end, which is open here as long as this is.
        drop(command);
        let mut from = stderr(&mut child);
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&stderr);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A terminal that nobody writes to any more is an error to read from.
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                to.lock().unwrap().extend(&buffer[..n]);
            }
        });
        Run { child, stderr, reader }
    }

    fn said(&self) -> String {
        text(&self.stderr.lock().unwrap())
    }

    fn wait_until(&mut self, what: &str, is: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !is(self) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && begun.elapsed() < Duration::from_secs(120), "{what}: {}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn wait_for(&mut self, words: &str) {
        self.wait_until(words, |run| run.said().contains(words));
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// The exit code, stdout and stderr.
    fn end(self) -> (Option<i32>, String, String) {
        let output = self.child.wait_with_output().unwrap();
        self.reader.join().unwrap();
        (output.status.code(), text(&output.stdout), text(&self.stderr.lock().unwrap()))
    }
}

fn program(verb: &[&str], more: &[&str]) -> Command {
    let mut command = pi0_edge();
    command.args(verb).arg(tiny()).args(["--threads", "1"]).args(more).env("TERM", "xterm");
    command
}

fn replay(dir: &Path, more: &[&str]) -> Command {
    let mut command = program(&["replay"], &["--realtime", "off", "--rate", "50", "--episode", "episode"]);
    command.args(more).current_dir(dir);
    command
}

/// What is in a directory, but the episode.
fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name != "episode").collect();
    names.sort();
    names
}

fn json(stdout: &str) -> Value {
    serde_json::from_str(stdout).unwrap_or_else(|e| panic!("{e}: {stdout}"))
}

#[test]
fn a_bar_fits_the_terminal_and_is_gone_in_the_end() {
    let dir = with_episode();
    for (columns, no_colour) in [(80, ""), (120, "1")] {
        let mut command = replay(dir.path(), &["--duration", "1", "--format", "json"]);
        let (code, stdout, stderr) = Run::on_terminal(
            {
                command.env("NO_COLOR", no_colour);
                command
            },
            columns,
        )
        .end();
        assert_eq!(code, Some(0), "{stderr}");
        assert!(json(&stdout).get("interrupted").is_none());
        let bars: Vec<_> =
            stderr.split('\r').filter(|line| line.starts_with("replaying, no RTC [")).collect();
        assert!(bars.len() >= 2, "{stderr:?}");
        for bar in bars {
            let bar = bar.strip_suffix("\x1b[K").unwrap_or_else(|| panic!("{bar:?}"));
            assert!(bar.chars().count() < columns.into() && bar.contains(" of 1 s"), "{bar:?}");
        }
        assert!(stderr.ends_with("\r\x1b[K"), "{stderr:?}");
    }
}

#[test]
fn elsewhere_lines_come_now_and_then() {
    let dir = with_episode();
    let lines = |run: Run| {
        let (code, stdout, stderr) = run.end();
        assert_eq!(code, Some(0), "{stderr}");
        assert!(json(&stdout)["runs"][0]["runtime"].is_object());
        let lines: Vec<_> = stderr.lines().filter(|line| line.starts_with("replaying, no RTC: ")).collect();
        assert_eq!(lines.len(), 1, "{stderr:?}");
        assert!(lines[0].contains(" %, ") && !stderr.contains(['\x1b']), "{stderr:?}");
    };
    let three_seconds = || replay(dir.path(), &["--duration", "3", "--format", "json"]);
    std::thread::scope(|scope| {
        scope.spawn(|| lines(Run::on_pipe(three_seconds())));
        let mut dumb = three_seconds();
        lines(Run::on_terminal(
            {
                dumb.env("TERM", "dumb");
                dumb
            },
            80,
        ));
    });
}

#[test]
fn ctrl_c_ends_a_replay_with_what_there_is() {
    let dir = with_episode();
    let files = ["--svg", "a.svg", "--mcap", "a.mcap", "--record", "a.jsonl", "--flight-record", "a.json"];
    let more = ["--duration", "600", "--rtc", "--format", "json"];
    let mut run = Run::on_terminal(replay(dir.path(), &[&files[..], &more].concat()), 80);
    run.wait_for("replaying, no RTC [");
    // The files have no names yet.
    assert!(names(dir.path()).iter().all(|name| name.ends_with(".part")), "{:?}", names(dir.path()));
    run.signal("-INT");
    let (code, stdout, stderr) = run.end();
    assert_eq!(code, Some(130), "{stderr}");
    assert!(stderr.contains("interrupted; ends with what there is so far"), "{stderr}");
    let report = json(&stdout);
    assert_eq!((&report["interrupted"], report["runs"].as_array().unwrap().len()), (&true.into(), 1));
    assert!(report["runs"][0]["runtime"]["control"]["reads"].as_u64().unwrap() > 0);
    assert_eq!(report["recording"]["identical"], true);
    assert_eq!(names(dir.path()), ["a.json", "a.jsonl", "a.mcap", "a.svg"]);
}

#[test]
fn sigterm_ends_the_benches_with_what_there_is() {
    let mut bench = Run::on_terminal(program(&["bench"], &["-n", "10000000", "--format", "json"]), 80);
    bench.wait_for("measuring [");
    bench.signal("-TERM");
    let more = ["--duration", "600", "--rate", "1000", "--realtime", "off", "--format", "json"];
    let mut control = Run::on_terminal(program(&["bench", "control"], &more), 80);
    control.wait_for("reading actions [");
    // The loop waits for the first chunk, and looks 210 ticks around before it counts.
    std::thread::sleep(Duration::from_secs(2));
    control.signal("-TERM");

    let (code, stdout, stderr) = bench.end();
    assert_eq!(code, Some(130), "{stderr}");
    let report = json(&stdout);
    assert!(
        report["interrupted"] == true && report["stages"]["chunk"]["n"].as_u64().unwrap() > 0,
        "{report:#}"
    );
    assert_eq!(report["allocations_per_chunk"], 0.0, "{report:#}");
    let (code, stdout, stderr) = control.end();
    assert_eq!(code, Some(130), "{stderr}");
    let report = json(&stdout);
    assert!(report["interrupted"] == true && report["reads"].as_u64().unwrap() > 0, "{report:#}");
    assert!(report["syscalls"] == 0 || report["syscalls"].is_null(), "{report:#}");
}

#[test]
fn a_bench_of_the_device_that_is_interrupted_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let device = |settle: &str| {
        let mut command =
            program(&["bench", "device"], &["--settle-limit", settle, "--idle", "0", "--minutes", "60"]);
        command.args(["--output", "report", "--export-times", "times.json"]).current_dir(dir.path());
        Run::on_terminal(command, 80)
    };
    for (settle, words) in [("600", "settling, at most ["), ("0.1", "steady run [")] {
        let mut run = device(settle);
        run.wait_for(words);
        run.signal("-INT");
        let (code, stdout, stderr) = run.end();
        assert_eq!(code, Some(130), "{stderr}");
        assert!(stdout.starts_with("INTERRUPTED: ") && stdout.contains("\nchunk "), "{stdout}");
        let report: Value =
            serde_json::from_slice(&fs::read(dir.path().join("report/bench.json")).unwrap()).unwrap();
        assert!(report["interrupted"] == true && report["control"].is_null(), "{report:#}");
        assert_eq!(names(&dir.path().join("report")).len(), 5);
        assert_eq!(names(dir.path()), ["report", "times.json"]);
        fs::remove_dir_all(dir.path().join("report")).unwrap();
    }
}

#[test]
fn ctrl_c_leaves_no_bundle_half_filled() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = pi0_edge();
    command.args(["synthesize", "pi0", "--size", "small"]).arg(dir.path().join("bundle"));
    let mut run = Run::on_pipe(command);
    run.wait_until("it begins", |_| names(dir.path()).iter().any(|name| name.ends_with(".part")));
    run.signal("-INT");
    let (code, stdout, stderr) = run.end();
    assert_eq!((code, stdout.as_str()), (Some(130), ""), "{stderr}");
    assert!(names(dir.path()).is_empty(), "{:?}", names(dir.path()));
}

#[test]
fn small_policies_are_made_where_nothing_is_installed() {
    let dir = tempfile::tempdir().unwrap();
    // As it is installed: below no checkout, and nobody's home.
    let installed = dir.path().join("bin/pi0-edge");
    fs::create_dir(dir.path().join("bin")).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_pi0-edge"), &installed).unwrap();
    for policy in ["pi0", "pi05"] {
        let mut command = Command::new(&installed);
        command.env_clear().env("XDG_CACHE_HOME", dir.path()).args(["synthesize", policy, "--size", "small"]);
        let (code, stdout, stderr) = Run::on_pipe(command).end();
        assert_eq!(code, Some(0), "{stderr}");
        let bundle = stdout.trim_end();
        assert_eq!(Path::new(bundle), dir.path().join(format!("pi0-edge/synthetic/{policy}-small-fp32")));
        let mut bench = pi0_edge();
        bench.args(["bench", bundle, "-n", "1", "--warmup", "1", "--format", "json"]);
        let (code, stdout, stderr) = Run::on_pipe(bench).end();
        assert_eq!(code, Some(0), "{stderr}");
        assert_eq!(json(&stdout)["stages"]["chunk"]["n"], 1);
        fs::remove_dir_all(bundle).unwrap();
    }
    let output = pi0_edge().args(["synthesize", "pi0", "--size", "small", "--precision", "fp16"]).output();
    assert_fails(&output.unwrap(), &["comes in precision fp32 alone"]);
}

#[test]
fn a_place_where_no_file_can_be_is_told_before_the_work() {
    let dir = with_episode();
    let nowhere = dir.path().join("no/such");
    let file = nowhere.join("file");
    let file = file.to_str().unwrap();
    let replay = ["--episode", "episode", "--rate", "50"];
    let observation = tiny().join("golden/two_cameras_10_steps");
    let run = ["--observation", observation.to_str().unwrap()];
    for (verb, more, option) in [
        (&["replay"][..], &replay[..], "--svg"),
        (&["replay"], &replay, "--mcap"),
        (&["replay"], &replay, "--record"),
        (&["replay"], &replay, "--flight-record"),
        (&["run"], &run, "--output"),
        (&["bench", "device"], &["--output", "report"], "--export-times"),
    ] {
        // The bundle is not there either, and is looked for later.
        let mut command = pi0_edge();
        command.args(verb).arg("no-bundle").args(more).args([option, file]).current_dir(dir.path());
        assert_fails(&command.output().unwrap(), &["cannot write", file]);
    }
    let mut command = pi0_edge();
    command.args(["bench", "device", "no-bundle", "--output", "/proc/no/report"]).current_dir(dir.path());
    assert_fails(&command.output().unwrap(), &["cannot write /proc/no/report"]);
    assert!(names(dir.path()).is_empty(), "{:?}", names(dir.path()));
}

#[test]
fn results_are_printed_although_a_file_cannot_be_written() {
    let dir = with_episode();
    let there = dir.path().join("there");
    fs::create_dir(&there).unwrap();
    let mut run = Run::on_terminal(replay(dir.path(), &["--duration", "1", "--svg", "there/a.svg"]), 80);
    run.wait_for("replaying, no RTC [");
    fs::remove_dir_all(&there).unwrap();
    let (code, stdout, stderr) = run.end();
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stdout.contains("deadline misses") && stderr.contains("cannot write there/a.svg"),
        "{stdout}{stderr}"
    );
    // A device is written to as it is.
    let output = replay(dir.path(), &["--duration", "0.1", "--svg", "/dev/null"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
}
