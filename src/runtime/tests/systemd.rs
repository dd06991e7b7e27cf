//! The messages that systemd hears, on real threads and a real socket.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use super::fake::{Fake, Fault};
use super::lockstep::{MS, config};
use crate::realtime::clock::Timestamp;
use crate::realtime::thread::ThreadConfig;
use crate::runtime::*;

/// Chunks as fast as they come, no rights asked for.
fn busy() -> RuntimeConfig {
    RuntimeConfig { thread: ThreadConfig::off(), replan: Replan::Period(Duration::ZERO), ..config() }
}

/// systemd's end.
struct Heard {
    socket: UnixDatagram,
    lines: Vec<String>,
}

impl Heard {
    fn new(address: &SocketAddr) -> Self {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        socket.set_read_timeout(Some(20 * MS)).unwrap();
        Heard { socket, lines: vec![] }
    }

    /// Takes in what was sent for `time` while observations keep coming; how often `what` was said then.
    fn count(&mut self, what: &str, time: Duration, sensors: &mut ObservationWriter<f32>) -> usize {
        let (before, end) = (self.lines.len(), Timestamp::now() + time);
        while Timestamp::now() < end {
            *sensors.slot() = 1.0;
            sensors.publish(Timestamp::now()).unwrap();
            self.take();
        }
        self.lines[before..].iter().filter(|line| line.starts_with(what)).count()
    }

    fn take(&mut self) {
        let mut message = [0; 1024];
        match self.socket.recv(&mut message) {
            Ok(length) => {
                let text = std::str::from_utf8(&message[..length]).unwrap();
                assert!(text.ends_with('\n') && !text.contains("\n\n"), "{text:?}");
                self.lines.extend(text.lines().map(str::to_owned));
            }
            Err(e) => assert!(matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{e}"),
        }
    }

    /// Waits for a line that must come; how long is the machine's business.
    fn wait_for(&mut self, what: &str, sensors: &mut ObservationWriter<f32>) {
        let begun = Timestamp::now();
        while !self.lines.iter().any(|line| line.starts_with(what)) {
            assert!(Timestamp::now().since(begun) < 60_000_000_000, "no {what} in {:?}", self.lines);
            self.count(what, 20 * MS, sensors);
        }
    }
}

/// A socket with a path, and one without.
fn sockets(folder: &tempfile::TempDir, name: &str) -> [(OsString, SocketAddr); 2] {
    let path = folder.path().join("notify");
    let abstract_name = format!("pi0-edge-{name}-{}", std::process::id());
    [
        (path.clone().into(), SocketAddr::from_pathname(path).unwrap()),
        (format!("@{abstract_name}").into(), SocketAddr::from_abstract_name(abstract_name).unwrap()),
    ]
}

#[test]
fn systemd_hears_ready_then_progress_then_stopping() {
    let folder = tempfile::tempdir().unwrap();
    for (name, address) in sockets(&folder, "life") {
        let mut heard = Heard::new(&address);
        let (runtime, mut sensors, _controller) = Runtime::start(Fake::new(20, 1), &busy()).unwrap();
        runtime.notify(Systemd::new(&name, Some(200 * MS)).unwrap());
        while heard.lines.is_empty() {
            heard.take();
        }
        assert_eq!(heard.lines, ["READY=1", "STATUS=waiting for the first chunk"], "{name:?}");
        assert_eq!(heard.count("WATCHDOG=1", 200 * MS, &mut sensors).min(1), 1, "{:?}", heard.lines);
        heard.wait_for("STATUS=1", &mut sensors);
        runtime.stop().unwrap();
        while heard.lines.last().is_none_or(|last| last != "STATUS=stopping") {
            heard.take();
        }
        assert_eq!(heard.lines[heard.lines.len() - 2], "STOPPING=1");
        assert_eq!(heard.lines.iter().filter(|line| *line == "READY=1").count(), 1);
    }
}

#[test]
fn no_chunk_no_ping_and_no_interval_no_ping() {
    let folder = tempfile::tempdir().unwrap();
    let [(name, address), _] = sockets(&folder, "idle");
    let mut heard = Heard::new(&address);
    let (runtime, mut sensors, _controller) = Runtime::start(Fake::new(20, 1), &busy()).unwrap();
    runtime.notify(Systemd::new(&name, None).unwrap());
    heard.wait_for("STATUS=1", &mut sensors);
    assert!(!heard.lines.iter().any(|line| line == "WATCHDOG=1"), "nobody asked: {:?}", heard.lines);
    drop(runtime);

    let (runtime, ..) = Runtime::start(Fake::new(20, 1), &busy()).unwrap();
    heard.lines.clear();
    runtime.notify(Systemd::new(&name, Some(40 * MS)).unwrap());
    for _ in 0..20 {
        heard.take();
    }
    assert!(heard.lines.contains(&"READY=1".to_owned()));
    assert!(!heard.lines.iter().any(|line| line == "WATCHDOG=1"), "nothing was computed: {:?}", heard.lines);
}

#[test]
fn inference_that_hangs_or_gives_up_stops_the_pings() {
    let folder = tempfile::tempdir().unwrap();
    let [(name, address), _] = sockets(&folder, "hang");
    let mut heard = Heard::new(&address);
    for (fault, says) in [
        (Fault::Slow(Duration::from_secs(4)), "STATUS=inference does not come back"),
        (Fault::Panic, "STATUS=inference has given up"),
    ] {
        heard.lines.clear();
        let fake = Fake::new(20, 1);
        let script = fake.script.clone();
        let config = RuntimeConfig { watchdog: 50 * MS, stop_timeout: 20 * MS, ..busy() };
        let (runtime, mut sensors, _controller) = Runtime::start(fake, &config).unwrap();
        runtime.notify(Systemd::new(&name, Some(80 * MS)).unwrap());
        heard.wait_for("WATCHDOG=1", &mut sensors);
        {
            let mut script = script.lock().unwrap();
            let soon = script.calls.len() + 8;
            script.faults.insert(soon, fault);
        }
        heard.wait_for(says, &mut sensors);
        let since = heard.lines.len();
        // Observations go on and so does the watch; the pings do not.
        assert_eq!(heard.count("WATCHDOG=1", 1000 * MS, &mut sensors), 0, "{:?}", &heard.lines[since..]);
        _ = runtime.stop();
    }
}

/// systemd that does not read: the watch goes on, and says what is left to say when there is room again.
#[test]
fn a_full_socket_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let [(name, address), _] = sockets(&folder, "full");
    let mut heard = Heard::new(&address);
    let clog = UnixDatagram::unbound().unwrap();
    clog.set_nonblocking(true).unwrap();
    while clog.send_to_addr(b"CLOG=1\n", &address).is_ok() {}
    let (runtime, mut sensors, _controller) = Runtime::start(Fake::new(20, 1), &busy()).unwrap();
    runtime.notify(Systemd::new(&name, Some(200 * MS)).unwrap());
    std::thread::sleep(100 * MS);
    heard.wait_for("READY=1", &mut sensors);
    heard.wait_for("WATCHDOG=1", &mut sensors);
    assert!(heard.lines[0] == "CLOG=1");
    runtime.stop().unwrap();
}
