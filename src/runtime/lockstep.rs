//! The runtime without its threads.

use super::command::Command;
use super::shared::RuntimeStats;
use super::worker::{Turn, Worker};
use super::{Controller, Event, Limits, ObservationWriter, Office, Parts, RuntimeConfig, Watch, assemble};
use crate::Result;
use crate::policy::rtc::RtcConfig;
use crate::realtime::clock::{Clock, SimulatedClock, Timestamp};
use crate::realtime::engine::Engine;
use crate::realtime::recorder::FlightRecord;

/// The same runtime, turned by hand over simulated time: for replays that must give the same bits each time, and for
/// tests that must not depend on what the machine is doing.
///
/// `clock` is the inference thread's time. It moves only when the caller moves it: between turns, or from within the
/// engine for the time that computing takes. Inputs go in through [`ObservationWriter::publish_at`], actions come out
/// through [`Controller::read_at`], each with a time of its own.
pub struct Lockstep<E: Engine> {
    worker: Worker<E, SimulatedClock>,
    watch: Watch,
    pub(super) office: Office,
    clock: SimulatedClock,
}

impl<E: Engine> Lockstep<E> {
    /// A runtime on `clock`'s time, with the policy warmed up. The configuration's thread settings are not used.
    pub fn new(
        engine: E,
        config: &RuntimeConfig,
        clock: SimulatedClock,
    ) -> Result<(Self, ObservationWriter<E::Observation>, Controller)> {
        let Parts { mut worker, watch, office, observations, controller, .. } =
            assemble(engine, clock.clone(), config)?;
        worker.warm_up()?;
        Ok((Lockstep { worker, watch, office, clock }, observations, controller))
    }

    /// Does what the inference thread would do next.
    pub fn turn(&mut self) -> Turn {
        self.worker.turn()
    }

    /// Turns until there is nothing to do at this time; says until when.
    pub fn settle(&mut self) -> Turn {
        loop {
            match self.turn() {
                Turn::Worked => {}
                Turn::Wait(Some(until)) if until <= self.clock.now() => {}
                other => return other,
            }
        }
    }

    /// Lets the control loop see inference hang in one step, or not any more: what a recording says that it saw.
    pub fn set_hung(&self, hung: bool) {
        match hung {
            true => self.office.shared.quantum_begins(Timestamp::default()),
            false => self.office.shared.quantum_ends(),
        }
    }

    /// Does what the watch thread would do at `now`.
    pub fn watch_at(&mut self, now: Timestamp) {
        self.watch.look(now);
    }

    /// See [`Runtime::set_prompt`](super::Runtime::set_prompt).
    pub fn set_prompt(&self, prompt: impl Into<String>) -> Result<()> {
        self.office.command(Command::Prompt(prompt.into()))
    }

    /// See [`Runtime::set_num_steps`](super::Runtime::set_num_steps).
    pub fn set_num_steps(&self, num_steps: usize) -> Result<()> {
        self.office.command(Command::NumSteps(num_steps))
    }

    /// See [`Runtime::set_limits`](super::Runtime::set_limits).
    pub fn set_limits(&self, limits: Option<Limits>) -> Result<()> {
        self.office.command(Command::Limits(limits))
    }

    /// See [`Runtime::set_rtc`](super::Runtime::set_rtc).
    pub fn set_rtc(&self, rtc: Option<RtcConfig>) -> Result<()> {
        self.office.command(Command::Rtc(rtc))
    }

    /// Asks the runtime to stop, as of the next turn.
    pub fn ask_to_stop(&self) {
        self.office.shared.ask_to_stop();
    }

    /// The next event, if there is one.
    pub fn event(&self) -> Option<Event> {
        self.office.events.try_recv().ok()
    }

    /// What was counted so far.
    pub fn stats(&self) -> RuntimeStats {
        self.office.shared.stats(self.clock.now())
    }

    /// The last control ticks and chunks.
    pub fn flight_record(&self) -> FlightRecord {
        self.office.recorder.take()
    }
}

impl<E: Engine> std::fmt::Debug for Lockstep<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lockstep").field("clock", &self.clock).finish_non_exhaustive()
    }
}
