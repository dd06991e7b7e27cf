//! A slow look at the runtime from outside: says so when inference hangs or the step limit trips, writes the flight
//! record, and keeps systemd informed. It is what still works when the inference thread does not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::event::{Event, EventSender};
use super::shared::{Phase, Shared};
use super::systemd::Systemd;
use crate::realtime::clock::Timestamp;
use crate::realtime::recorder::RecorderView;
use crate::realtime::wake::Waiter;

/// How often it looks.
const PERIOD: Duration = Duration::from_millis(20);

pub(super) struct Watch {
    pub(super) shared: Arc<Shared>,
    pub(super) events: EventSender,
    pub(super) recorder: RecorderView,
    pub(super) flight_record: Option<PathBuf>,
    pub(super) watchdog: u64,
    pub(super) systemd: Option<Systemd>,
    pub(super) hung: bool,
    pub(super) tripped: bool,
    pub(super) failed: bool,
}

impl Watch {
    /// Looks until told to stop through `waiter`. A systemd to be informed comes through `systemd`.
    pub(super) fn run(mut self, mut waiter: Waiter, systemd: &Receiver<Systemd>) {
        loop {
            let stop = waiter.wait(Some(Timestamp::now() + PERIOD));
            if let Ok(systemd) = systemd.try_recv() {
                self.systemd = Some(systemd);
            }
            // Once more before the end: what happened last may be why it was stopped.
            self.look(Timestamp::now());
            if stop {
                break;
            }
        }
        if let Some(systemd) = &mut self.systemd {
            systemd.stopping();
        }
    }

    /// Looks once.
    pub(super) fn look(&mut self, now: Timestamp) {
        let age = self.shared.quantum_age(now).filter(|age| *age > self.watchdog);
        match age {
            Some(for_ns) if !self.hung => self.events.send(Event::Hung { for_ns }),
            None if self.hung => self.events.send(Event::Recovered),
            _ => {}
        }
        let hangs = age.is_some() && !self.hung;
        self.hung = age.is_some();
        let (tripped, failed) = (self.shared.tripped(), self.shared.phase() == Phase::Failed);
        if tripped && !self.tripped {
            self.events.send(Event::Tripped);
        }
        if hangs || (tripped && !self.tripped) || (failed && !self.failed) {
            self.dump();
        }
        (self.tripped, self.failed) = (tripped, failed);
        if let Some(systemd) = &mut self.systemd {
            systemd.look(now, &self.shared, self.hung);
        }
    }

    fn dump(&self) {
        if let Some(path) = &self.flight_record {
            let outcome = write(path, &self.recorder.take().to_json()).map(|()| path.clone());
            self.events.send(Event::FlightRecord { outcome });
        }
    }
}

/// Writes all of a file or none of it.
pub(super) fn write(path: &Path, text: &str) -> Result<(), String> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let written = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|e| {
        // What there is of it is no use to anybody.
        _ = std::fs::remove_file(&beside);
        format!("flight record {}: {e}", path.display())
    })
}
