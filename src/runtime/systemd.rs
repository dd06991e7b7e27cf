//! Telling systemd how inference goes, for services of `Type=notify`.
//!
//! One datagram a message to `$NOTIFY_SOCKET`, sent from the watch thread and never waited for. The watchdog is fed
//! by chunks that were completed and by nothing else: no timer goes on when inference does not.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use super::shared::{Phase, Shared};
use crate::error::ResultExt;
use crate::realtime::clock::{Timestamp, nanos};
use crate::{Error, ErrorKind, Result};

/// The time between two messages of which only the counts differ, in nanoseconds.
const STATUS_PERIOD: u64 = 1_000_000_000;

/// The way to systemd, and what was said on it.
#[derive(Debug)]
pub(super) struct Systemd {
    socket: UnixDatagram,
    address: SocketAddr,
    /// Nanoseconds within which systemd wants to hear of progress, if it does.
    watchdog: Option<u64>,
    /// Chunks completed when the watchdog was last fed, and the time of that.
    fed: (u64, Timestamp),
    /// The status sent last, and the time of that; empty before the first message.
    status: (String, Timestamp),
    /// A message was lost; said once.
    failed: bool,
}

impl Systemd {
    /// Opens the way that the environment names. None if no systemd wants to be notified.
    pub(super) fn from_environment() -> Result<Option<Self>> {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else { return Ok(None) };
        let watchdog =
            watchdog(env::var_os("WATCHDOG_USEC"), env::var_os("WATCHDOG_PID"), std::process::id())?;
        Self::new(&name, watchdog).map(Some)
    }

    /// Opens a way to the socket `name`, `/path` or `@abstract`; `watchdog` is how often progress is to be heard of.
    pub(super) fn new(name: &OsStr, watchdog: Option<Duration>) -> Result<Self> {
        let what = || format!("systemd's notification socket {} ($NOTIFY_SOCKET)", name.display());
        let address = match name.as_bytes() {
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
            [b'/', ..] => SocketAddr::from_pathname(name),
            _ => {
                let why = format!("{}: only /path and @abstract are known", what());
                return Err(Error::new(ErrorKind::InvalidArgument, why));
            }
        };
        let open = || {
            let address = address?;
            // Nobody there is found out now, where it can be told. What is sent later names the address each time,
            // because a systemd that was restarted listens on a new socket of the same name.
            UnixDatagram::unbound()?.connect_addr(&address)?;
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            io::Result::Ok((socket, address))
        };
        let (socket, address) = open().or_kind(ErrorKind::Io, what)?;
        Ok(Systemd {
            socket,
            address,
            watchdog: watchdog.map(nanos),
            fed: (0, Timestamp::default()),
            status: (String::new(), Timestamp::default()),
            failed: false,
        })
    }

    /// Checks that systemd waits for as long as two chunks take, each of `chunk` nanoseconds.
    pub(super) fn check_interval(&self, chunk: u64) -> Result<()> {
        let Some(every) = self.watchdog.filter(|every| *every < 2 * chunk) else { return Ok(()) };
        let (every, chunk) = (every as f64 / 1e9, chunk as f64 / 1e9);
        Err(err!(
            InvalidArgument,
            "systemd ends this service after {every:.3} s without a chunk (WatchdogSec), and here a chunk takes {chunk:.3} s; \
             set WatchdogSec={} or more in a drop-in (systemctl edit)",
            (3.0 * chunk).ceil()
        ))
    }

    /// Says what is new: READY=1 first, WATCHDOG=1 for chunks completed since it was last said, and the status.
    pub(super) fn look(&mut self, now: Timestamp, shared: &Shared, hung: bool) {
        let completed = shared.inference.completed();
        // Four times in its interval is often enough for systemd.
        let feed =
            self.watchdog.is_some_and(|every| completed > self.fed.0 && now.since(self.fed.1) >= every / 4);
        let status = status(shared, hung, completed);
        // Counts change with every chunk, which is more often than anybody reads them.
        let counts = |status: &str| status.starts_with(|c: char| c.is_ascii_digit());
        let soon = counts(&status) && counts(&self.status.0) && now.since(self.status.1) < STATUS_PERIOD;
        let tell = status != self.status.0 && !soon;
        let mut message = String::new();
        if self.status.0.is_empty() {
            message.push_str("READY=1\n");
        }
        if feed {
            message.push_str("WATCHDOG=1\n");
        }
        if tell {
            message = format!("{message}STATUS={status}\n");
        }
        // What found no room is said again at the next look.
        if message.is_empty() || !self.send(&message) {
            return;
        }
        if feed {
            self.fed = (completed, now);
        }
        if tell {
            self.status = (status, now);
        }
    }

    /// Says that this is the end.
    pub(super) fn stopping(&mut self) {
        self.send("STOPPING=1\nSTATUS=stopping\n");
    }

    fn send(&mut self, message: &str) -> bool {
        match self.socket.send_to_addr(message.as_bytes(), &self.address) {
            Ok(_) => true,
            Err(e) => {
                if e.kind() != io::ErrorKind::WouldBlock && !std::mem::replace(&mut self.failed, true) {
                    log::warn!("systemd cannot be notified: {e}");
                }
                false
            }
        }
    }
}

/// Sends systemd a message, such as `READY=1`, if it wants to be notified.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] if `NOTIFY_SOCKET` or what goes with it is not what systemd sets,
/// [`ErrorKind::Io`] if its socket cannot be opened.
pub fn notify(message: &str) -> Result<()> {
    if let Some(mut systemd) = Systemd::from_environment()? {
        systemd.send(message);
    }
    Ok(())
}

/// Returns the status that `systemctl status` shows, where `completed` chunks were computed to the end.
fn status(shared: &Shared, hung: bool, completed: u64) -> String {
    let status = match shared.phase() {
        Phase::Failed => "inference has given up; holding",
        _ if hung => "inference does not come back; holding",
        _ if shared.tripped() => "the step limit tripped; holding until it is cleared",
        _ if completed == 0 => "waiting for the first chunk",
        _ => {
            // No more than were completed when those were counted.
            let published = shared.inference.published.count().min(completed);
            return format!("{published} chunks published, {} rejected", completed - published);
        }
    };
    status.to_owned()
}

/// Returns the interval in which systemd wants to hear from process `me`, from `$WATCHDOG_USEC` and `$WATCHDOG_PID`.
fn watchdog(usec: Option<OsString>, pid: Option<OsString>, me: u32) -> Result<Option<Duration>> {
    let number = |name: &str, value: OsString| {
        let parsed = value.to_str().and_then(|v| v.parse::<u64>().ok()).filter(|v| *v > 0);
        parsed.ok_or_else(|| {
            let what = format!("{name} is {value:?}, which is no positive number; systemd sets it");
            Error::new(ErrorKind::InvalidArgument, what)
        })
    };
    let Some(usec) = usec else { return Ok(None) };
    let usec = number("WATCHDOG_USEC", usec)?;
    let pid = pid.map(|pid| number("WATCHDOG_PID", pid)).transpose()?;
    // Otherwise it is meant for a parent that passed its environment on.
    let for_me = pid.is_none_or(|pid| pid == u64::from(me));
    Ok(for_me.then(|| Duration::from_micros(usec)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_has_room_for_two_chunks() {
        let with = |watchdog| Systemd::new("/nowhere/notify".as_ref(), watchdog);
        assert_eq!(with(None).unwrap_err().kind(), ErrorKind::Io);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let _heard = UnixDatagram::bind(&path).unwrap();
        let check = |watchdog, chunk| Systemd::new(path.as_os_str(), watchdog).unwrap().check_interval(chunk);
        let (five, seven) = (Some(Duration::from_secs(5)), 7_000_000_000);
        check(None, seven).unwrap();
        check(five, 0).unwrap();
        check(five, 2_500_000_000).unwrap();
        let text = check(five, seven).unwrap_err().to_string();
        assert!(text.contains("after 5.000 s") && text.contains("takes 7.000 s"), "{text}");
        assert!(text.contains("WatchdogSec=21 or more"), "{text}");
    }

    #[test]
    fn the_interval_is_for_the_process_it_names() {
        let set = |usec: &str, pid: Option<&str>| watchdog(Some(usec.into()), pid.map(Into::into), 42);
        assert_eq!(watchdog(None, Some("42".into()), 42).unwrap(), None);
        assert_eq!(set("5000000", None).unwrap(), Some(Duration::from_secs(5)));
        assert_eq!(set("5000000", Some("42")).unwrap(), Some(Duration::from_secs(5)));
        assert_eq!(set("5000000", Some("43")).unwrap(), None, "another process's");
        for (usec, pid) in [("soon", None), ("0", None), ("-1", None), ("5", Some("me"))] {
            let error = set(usec, pid).unwrap_err();
            assert!(error.to_string().contains("WATCHDOG_"), "{error}");
        }
    }

    #[test]
    fn a_socket_that_is_not_there_is_an_error_that_names_it() {
        for (name, words) in [
            ("/no/such/socket", "/no/such/socket"),
            ("@pi0-edge-nobody", "@pi0-edge-nobody"),
            ("vsock:2:1234", "only /path and @abstract"),
            ("", "only /path and @abstract"),
        ] {
            let error = Systemd::new(OsStr::new(name), None).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("NOTIFY_SOCKET"), "{error}");
        }
    }
}
