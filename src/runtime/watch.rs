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

/// The time from one look to the next.
const PERIOD: Duration = Duration::from_millis(20);

pub(super) struct Watch {
    pub(super) shared: Arc<Shared>,
    pub(super) events: EventSender,
    pub(super) recorder: RecorderView,
    pub(super) flight_record: Option<PathBuf>,
    pub(super) watchdog: u64,
    /// The systemd to be informed, on its way here.
    pub(super) requests: Receiver<Systemd>,
    pub(super) systemd: Option<Systemd>,
    pub(super) before: Alarms,
}

/// Conditions that call for attention when they begin.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Alarms {
    hung: bool,
    tripped: bool,
    failed: bool,
}

impl Watch {
    /// Looks until told to stop through `waiter`.
    pub(super) fn run(mut self, mut waiter: Waiter) {
        loop {
            let stop = waiter.wait(Some(Timestamp::now() + PERIOD));
            if let Ok(systemd) = self.requests.try_recv() {
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
        let alarms = Alarms {
            hung: age.is_some(),
            tripped: self.shared.tripped(),
            failed: self.shared.phase() == Phase::Failed,
        };
        let before = std::mem::replace(&mut self.before, alarms);
        match age {
            Some(for_ns) if !before.hung => self.events.send(Event::Hung { for_ns }),
            None if before.hung => self.events.send(Event::Recovered),
            _ => {}
        }
        if alarms.tripped && !before.tripped {
            self.events.send(Event::Tripped);
        }
        let began = |alarm: fn(Alarms) -> bool| alarm(alarms) && !alarm(before);
        if began(|a| a.hung) || began(|a| a.tripped) || began(|a| a.failed) {
            self.dump();
        }
        if let Some(systemd) = &mut self.systemd {
            systemd.look(now, &self.shared, alarms.hung);
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
