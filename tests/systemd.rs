//! A program that runs a real policy and tells systemd: what arrives at `$NOTIFY_SOCKET`.
//!
//! The program is this one, told by an environment variable, because the environment is the process's own.

mod common;

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{fill, load_tiny};
use pi0_edge::runtime::{
    PolicyInference, PolicyInferenceOptions, Replan, Runtime, RuntimeConfig, ThreadConfig, Timestamp,
};

const CASE: &str = "PI0_TEST_SYSTEMD_CASE";

fn program(case: &str) {
    let prompt = Some("pick up the cube".to_owned());
    let options = PolicyInferenceOptions { prompt, max_frame: (64, 64), ..PolicyInferenceOptions::default() };
    let inference = PolicyInference::new(load_tiny(), options).unwrap();
    let config = RuntimeConfig {
        thread: ThreadConfig::off(),
        replan: Replan::Period(Duration::ZERO),
        ..RuntimeConfig::default()
    };
    let (runtime, mut observations, _controller) = Runtime::start(inference, &config).unwrap();
    if case == "impatient" {
        let refused = runtime.notify_systemd().unwrap_err().to_string();
        assert!(refused.contains("WatchdogSec"), "{refused}");
        return;
    }
    assert_eq!(runtime.notify_systemd().unwrap(), case == "notified");
    let give_up = Instant::now() + Duration::from_secs(60);
    while runtime.stats().inference.published < 20 {
        fill(observations.slot(), 64, 64);
        observations.publish(Timestamp::now()).unwrap();
        std::thread::sleep(Duration::from_millis(10));
        let events = || runtime.events().try_iter().collect::<Vec<_>>();
        assert!(Instant::now() < give_up, "{:?}", events());
    }
    runtime.stop().unwrap();
}

#[test]
fn a_program_with_a_policy_is_ready_alive_and_stopping() {
    if let Ok(case) = std::env::var(CASE) {
        return program(&case);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let run = |case: &str| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["a_program_with_a_policy_is_ready_alive_and_stopping", "--exact", "--nocapture"]);
        command.env(CASE, case).env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_PID");
        let interval = if case == "impatient" { "1" } else { "10000000" };
        if case != "alone" {
            command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", interval);
        }
        let mut program = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut message, mut lines, mut ended) = ([0; 1024], vec![], None);
        loop {
            match socket.recv(&mut message) {
                Ok(length) => {
                    let text = std::str::from_utf8(&message[..length]).unwrap();
                    lines.extend(text.lines().map(str::to_owned));
                }
                // What it sent before it ended has been taken.
                Err(_) if ended.is_some() => break,
                Err(_) => ended = program.try_wait().unwrap(),
            }
        }
        let errors = std::io::read_to_string(program.stderr.take().unwrap()).unwrap();
        assert!(ended.is_some_and(|status| status.success()), "{errors}");
        lines
    };
    assert!(run("alone").is_empty(), "without a socket there is nobody to tell");
    assert!(
        run("impatient").is_empty(),
        "an interval that no chunk keeps to is refused before anything is said"
    );
    let heard = run("notified");
    assert_eq!(heard.first().map(String::as_str), Some("READY=1"), "{heard:?}");
    assert!(heard.contains(&"WATCHDOG=1".to_owned()), "{heard:?}");
    assert_eq!(heard[heard.len() - 2..], ["STOPPING=1", "STATUS=stopping"], "{heard:?}");
}
