//! The runtime without its threads.

use super::worker::{Turn, Worker};
use super::{Controller, Inference, ObservationWriter, Parts, Runtime, RuntimeConfig, Watch, assemble};
use crate::Result;
use crate::realtime::clock::{Clock, SimulatedClock, Timestamp};

/// The same runtime, turned by hand over simulated time: for replays that must give the same bits each time, and for
/// tests that must not depend on what the machine is doing.
///
/// `clock` is the inference thread's time. It moves only when the caller moves it: between turns, or from within
/// inference for the time that computing takes. Inputs go in through [`ObservationWriter::publish_at`], actions come
/// out through [`Controller::read_at`], each with a time of its own.
pub struct Lockstep<I: Inference> {
    worker: Worker<I, SimulatedClock>,
    watch: Watch,
    pub(super) runtime: Runtime<I>,
    clock: SimulatedClock,
}

impl<I: Inference> Lockstep<I> {
    /// Creates a runtime on `clock`'s time, with the policy warmed up. The configuration's thread settings are not
    /// used.
    ///
    /// # Errors
    /// As [`Runtime::start`].
    pub fn new(
        inference: I,
        config: &RuntimeConfig,
        clock: SimulatedClock,
    ) -> Result<(Self, ObservationWriter<I::Observation>, Controller)> {
        let Parts { mut worker, watch, runtime, observations, controller, .. } =
            assemble(inference, clock.clone(), config)?;
        worker.warm_up()?;
        Ok((Lockstep { worker, watch, runtime, clock }, observations, controller))
    }

    /// Returns the owner's handle: commands, events, counters and records, as of a runtime with threads.
    pub fn runtime(&self) -> &Runtime<I> {
        &self.runtime
    }

    /// Does what the inference thread would do next.
    pub fn turn(&mut self) -> Turn {
        self.worker.turn()
    }

    /// Turns until there is nothing to do at this time; returns until when.
    pub fn run_until_idle(&mut self) -> Turn {
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
            true => self.runtime.shared.quantum_begins(Timestamp::default()),
            false => self.runtime.shared.quantum_ends(),
        }
    }

    /// Begins a new episode at `now`, as [`Runtime::begin_episode`] does at the machine's time.
    pub fn begin_episode_at(&self, now: Timestamp) {
        self.runtime.shared.episode.begin(now);
    }

    /// Does what the watch thread would do at `now`.
    pub fn watch_at(&mut self, now: Timestamp) {
        self.watch.look(now);
    }

    /// Asks the runtime to stop, as of the next turn.
    pub fn ask_to_stop(&self) {
        self.runtime.shared.ask_to_stop();
    }
}

impl<I: Inference> std::fmt::Debug for Lockstep<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lockstep").field("clock", &self.clock).finish_non_exhaustive()
    }
}
