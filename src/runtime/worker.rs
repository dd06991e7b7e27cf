//! The inference thread's work, one bounded quantum at a time.
//!
//! The worker owns no thread: [`Worker::turn`] does one thing and says what next. The runtime's thread calls it for
//! ever; a replay or a test turns it by hand over simulated time.

mod joining;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::command::{Command, CommandReceiver};
use super::config::{Replan, RuntimeConfig, check_rtc, limits};
use super::event::{Event, EventSender};
use super::inference::Inference;
use super::observation::Observed;
use super::shared::{Phase, Shared};
use crate::action::{ActionLimits, Reject};
use crate::policy::rtc::Guidance;
use crate::realtime::cell::{Reader, Writer};
use crate::realtime::chunk::{ChunkInfo, StampedChunk};
use crate::realtime::clock::{Clock, Timestamp, nanos};
use crate::realtime::delay::DelayEstimator;
use crate::realtime::recorder::ChunkRecorder;
use crate::realtime::timeline::Progress;
use crate::stats::Histogram;
use crate::{Error, ErrorKind, Result};

/// The next thing to do after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Something was done: turn again.
    Worked,
    /// Nothing to do before a notification, or before this time if one is given.
    Wait(Option<Timestamp>),
    /// The runtime was asked to stop.
    Stopped,
}

/// The worker's ends of everything it is connected to.
pub(super) struct Ends<I: Inference> {
    pub(super) observations: Reader<Observed<I::Observation>>,
    pub(super) chunks: Writer<StampedChunk>,
    pub(super) progress: Reader<Progress>,
    pub(super) commands: CommandReceiver,
    pub(super) events: EventSender,
    pub(super) recorder: ChunkRecorder,
    pub(super) shared: Arc<Shared>,
}

/// The chunk being computed.
#[derive(Debug, Clone, Copy)]
struct Job {
    info: ChunkInfo,
    step: usize,
    num_steps: usize,
}

/// The reason why a quantum did not succeed.
enum Failure {
    Error(Error),
    Panic(String),
}

pub(super) struct Worker<I: Inference, C> {
    inference: I,
    clock: C,
    config: RuntimeConfig,
    action_period: u64,
    ends: Ends<I>,
    /// The configured limits and the policy's own.
    limits: ActionLimits,
    delay: DelayEstimator,
    /// The chunk published last, and room for what it leaves over.
    previous: StampedChunk,
    leftover: Box<[f32]>,
    weights: Box<[f32]>,
    job: Option<Job>,
    /// The observation at hand has not been used.
    fresh: bool,
    last_begun: Option<Timestamp>,
    not_before: Timestamp,
    errors_in_a_row: u32,
    number: u64,
    episode: u64,
}

impl<I: Inference, C: Clock> Worker<I, C> {
    /// Creates a worker by settings that have been validated.
    pub(super) fn new(inference: I, clock: C, config: RuntimeConfig, ends: Ends<I>) -> Result<Self> {
        let (rows, dim) = (inference.action_horizon(), inference.action_dim());
        Ok(Worker {
            limits: limits(config.limits.as_ref(), &inference)?,
            delay: DelayEstimator::new(config.delay)?,
            inference,
            clock,
            action_period: nanos(config.timeline.action_period),
            config,
            ends,
            previous: StampedChunk::new(rows, dim),
            leftover: vec![0.0; rows * dim].into(),
            weights: vec![0.0; rows].into(),
            job: None,
            fresh: false,
            last_begun: None,
            not_before: Timestamp::default(),
            errors_in_a_row: 0,
            number: 0,
            episode: 0,
        })
    }

    /// Returns the threads that inference computes on beside this one.
    pub(super) fn worker_threads(&self) -> Vec<i32> {
        self.inference.worker_threads()
    }

    /// Runs every graph once and says that the worker is ready.
    pub(super) fn warm_up(&mut self) -> Result<()> {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.inference.warm_up()));
        let warmed = outcome.unwrap_or_else(|panic| {
            Err(Error::new(ErrorKind::Runtime, format!("inference panicked: {}", panic_message(&*panic))))
        });
        warmed.map_err(|e| e.context("warming up"))?;
        self.ends.shared.set_warm_chunk(self.inference.warm_chunk().map_or(0, crate::realtime::clock::nanos));
        self.ends.shared.set_phase(Phase::Ready);
        Ok(())
    }

    /// Does one thing.
    pub(super) fn turn(&mut self) -> Turn {
        if self.ends.shared.asked_to_stop() {
            return Turn::Stopped;
        }
        if self.ends.shared.phase() == Phase::Failed {
            return Turn::Wait(None);
        }
        while let Some(command) = self.ends.commands.take() {
            self.carry_out(command);
            if self.ends.shared.phase() == Phase::Failed {
                return Turn::Wait(None);
            }
        }
        let episode = self.ends.shared.episode.number();
        if episode > self.episode {
            self.begin_episode(episode);
        }
        match self.job.take() {
            Some(job) => self.advance(job),
            None => self.begin_if_due(),
        }
    }

    fn carry_out(&mut self, command: Command) {
        let restart = matches!(command, Command::Prompt(_) | Command::NumSteps(_));
        let outcome = match command {
            Command::Prompt(prompt) => self.quantum(None, |inference| inference.set_prompt(&prompt)),
            Command::NumSteps(n) => self.quantum(None, |inference| inference.set_num_steps(n)),
            Command::Limits(given) => limits(given.as_ref(), &self.inference)
                .map(|limits| self.limits = limits)
                .map_err(Failure::Error),
            Command::Rtc(rtc) => rtc
                .map_or(Ok(()), |rtc| check_rtc(&rtc, self.inference.action_horizon()))
                .map(|()| self.config.rtc = rtc)
                .map_err(Failure::Error),
        };
        match outcome {
            Ok(()) if restart && self.job.take().is_some() => {
                // What is being computed answers the old prompt. The observation can be used again.
                self.ends.shared.inference.abandoned.add(1);
                self.fresh = true;
            }
            Ok(()) => {}
            Err(Failure::Error(e)) => self.ends.events.send(Event::CommandFailed { error: e.to_string() }),
            Err(Failure::Panic(what)) => self.panicked(&what),
        }
    }

    /// Forgets what an earlier episode would guide, or delay, the first chunk of this one by.
    fn begin_episode(&mut self, episode: u64) {
        self.episode = episode;
        self.previous.info = ChunkInfo::default();
        self.last_begun = None;
        if self.job.take().is_some() {
            self.ends.shared.inference.abandoned.add(1);
        }
    }

    /// Begins a chunk if there is reason to, and says when there will be if not.
    fn begin_if_due(&mut self) -> Turn {
        self.fresh |= self.ends.observations.update();
        if !self.fresh {
            return Turn::Wait(None);
        }
        let episode = self.ends.observations.get().episode;
        if episode > self.episode {
            // Begun since this turn began.
            self.begin_episode(episode);
        }
        // Once for all that is decided here, so that a recording can say what it was decided by.
        self.ends.progress.update();
        let now = self.clock.now();
        let due = self.due().max(self.not_before);
        if now < due {
            return Turn::Wait(Some(due));
        }
        self.fresh = false;
        let too_old =
            now.since(self.ends.observations.get().captured) > nanos(self.config.timeline.hold_after);
        if too_old || episode < self.episode {
            // Its chunk would be held from the start, or not followed at all.
            self.ends.shared.inference.stale_observations.add(1);
            return Turn::Worked;
        }
        self.begin(now);
        Turn::Worked
    }

    /// Returns the time at which the next chunk is to be begun.
    fn due(&self) -> Timestamp {
        match self.config.replan {
            Replan::Period(period) => self.last_begun.map_or(Timestamp::default(), |begun| begun + period),
            Replan::Remaining(_) if self.previous.info.number == 0 => Timestamp::default(),
            Replan::Remaining(remaining) => {
                let progress = self.progress();
                if !progress.moving {
                    return Timestamp::default();
                }
                let row = (self.previous.actions.action_horizon() - 1).saturating_sub(remaining) as u64;
                let left = (row * self.action_period).saturating_sub(progress.position_ns.max(0) as u64);
                progress.at.plus(left)
            }
        }
    }

    /// Returns the place where the robot is in the chunk published last.
    fn progress(&self) -> Progress {
        let progress = *self.ends.progress.get();
        let published = &self.previous.info;
        if progress.chunk == published.number {
            return progress;
        }
        // The control loop has not said yet; most likely it will begin where time says.
        Progress { chunk: published.number, at: published.captured, position_ns: 0, moving: true }
    }

    fn begin(&mut self, now: Timestamp) {
        let last_begun = self.last_begun;
        let captured = self.ends.observations.get().captured;
        self.number += 1;
        let mut info = ChunkInfo {
            number: self.number,
            episode: self.episode,
            captured,
            begun: now,
            expected_ns: now.since(captured).saturating_add(self.delay.estimate()),
            progress_at: self.ends.progress.get().at,
            ..ChunkInfo::default()
        };
        self.last_begun = Some(now);
        let guidance = self.guide(&mut info);
        let num_steps = self.inference.num_steps();
        let Ends { shared, observations, .. } = &self.ends;
        shared.inference.begun.add(1);
        let guidance = guidance.map(|max_guidance_weight| Guidance {
            previous: &self.leftover,
            prefix_weights: &self.weights,
            max_guidance_weight,
            inference_delay: info.inference_delay as usize,
        });
        let data = &observations.get().data;
        let call = |inference: &mut I| inference.begin(data, guidance, info.number);
        match quantum(&mut self.inference, &self.clock, shared, Some(&shared.inference.begin_ns), call) {
            Ok(()) => self.job = Some(Job { info, step: 0, num_steps }),
            Err(Failure::Error(e)) if matches!(e.kind(), ErrorKind::Observation | ErrorKind::NonFinite) => {
                // The fault of the input: nothing is wrong with inference, and the next observation need not wait.
                self.last_begun = last_begun;
                self.ends.shared.inference.refused_observations.add(1);
                self.ends.events.send(Event::ObservationRefused { error: e.to_string() });
            }
            Err(failure) => self.failed(failure, true),
        }
    }

    fn advance(&mut self, mut job: Job) -> Turn {
        let taken = self.clock.now().since(job.info.begun);
        if self.config.deadline.is_some_and(|deadline| taken > nanos(deadline)) {
            self.ends.shared.inference.deadline_misses.add(1);
            let (chunk, steps) = (job.info.number, job.step);
            self.ends.events.send(Event::DeadlineMiss { chunk, steps, after_ns: taken });
            return Turn::Worked;
        }
        if job.step < job.num_steps {
            let shared = &self.ends.shared;
            let call = |inference: &mut I| inference.step(job.step);
            match quantum(&mut self.inference, &self.clock, shared, Some(&shared.inference.step_ns), call) {
                Ok(()) => {
                    job.step += 1;
                    self.job = Some(job);
                }
                Err(failure) => self.failed(failure, false),
            }
        } else {
            self.finish(job);
        }
        Turn::Worked
    }

    fn finish(&mut self, job: Job) {
        if let Some(error) = self.too_late(&job.info) {
            return self.failed(Failure::Error(error), false);
        }
        // The observation is still the one that it was begun with: no newer one is taken while there is a job.
        let Ends { shared, observations, chunks, recorder, events, .. } = &mut self.ends;
        let counts = &shared.inference;
        let slot = chunks.slot();
        slot.info = job.info;
        let observation = &observations.get().data;
        let call = |inference: &mut I| {
            slot.state.fill(f32::NAN);
            slot.state.iter_mut().zip(inference.state(observation)).for_each(|(to, from)| *to = *from);
            inference.finish(slot.actions.as_mut_slice())
        };
        let got = match quantum(&mut self.inference, &self.clock, shared, Some(&counts.finish_ns), call) {
            Ok(got) => got,
            Err(failure) => return self.failed(failure, false),
        };
        self.errors_in_a_row = 0;
        let checking = self.clock.now();
        let actions = slot.actions.as_slice();
        let verdict =
            if got == actions.len() { self.limits.check(actions) } else { Err(Reject::WrongLength { got }) };
        let published = self.clock.now();
        counts.gate_ns.record(published.since(checking));
        if let Err(reason) = verdict {
            let counter = match reason {
                Reject::NonFinite { .. } => &counts.rejected_non_finite,
                Reject::OutOfLimits { .. } => &counts.rejected_limits,
                Reject::WrongLength { .. } => &counts.rejected_length,
            };
            counter.add(1);
            recorder.record(slot, Some(reason));
            events.send(Event::Rejected { chunk: job.info.number, reason });
            return;
        }
        slot.info.published = published;
        let info = slot.info;
        recorder.record(slot, None);
        self.previous.copy_from(slot);
        let overwrote = chunks.publish();
        self.delay.record(published.since(info.begun));
        counts.published.add(1);
        counts.overwritten.add(u64::from(overwrote));
        counts.guided.add(u64::from(info.guided_rows > 0));
        counts.chunk_ns.record(published.since(info.begun));
        counts.latency_ns.record(published.since(info.captured));
        events.send(Event::Chunk(info));
    }

    fn quantum<R>(
        &mut self,
        time: Option<&Histogram>,
        call: impl FnOnce(&mut I) -> Result<R>,
    ) -> std::result::Result<R, Failure> {
        quantum(&mut self.inference, &self.clock, &self.ends.shared, time, call)
    }

    /// Counts a failure and decides whether there is any use in going on.
    fn failed(&mut self, failure: Failure, observation_unused: bool) {
        let error = match failure {
            Failure::Panic(what) => return self.panicked(&what),
            Failure::Error(error) => error,
        };
        self.fresh |= observation_unused;
        self.ends.shared.inference.errors.add(1);
        self.errors_in_a_row += 1;
        self.not_before = self.clock.now().plus(nanos(self.config.retry_after));
        let (error, in_a_row) = (error.to_string(), self.errors_in_a_row);
        if in_a_row >= self.config.max_errors {
            self.give_up(format!("{in_a_row} errors in a row, the last: {error}"));
        } else {
            self.ends.events.send(Event::InferenceError { error, in_a_row });
        }
    }

    fn panicked(&mut self, what: &str) {
        self.ends.shared.inference.panics.add(1);
        // Nobody knows what state a panic leaves inference in, so it is not called again.
        self.give_up(format!("inference panicked: {what}"));
    }

    fn give_up(&mut self, error: String) {
        self.job = None;
        self.ends.shared.set_phase(Phase::Failed);
        self.ends.events.send(Event::GaveUp { error });
    }
}

impl<I: Inference, C> Worker<I, C> {
    /// Ends the worker and gives inference back; none if it panicked. A panic while inference is dropped goes no
    /// further.
    pub(super) fn end(self) -> Option<I> {
        let Worker { inference, ends, .. } = self;
        ends.shared.set_phase(Phase::Stopped);
        if ends.shared.inference.panics.count() == 0 {
            return Some(inference);
        }
        _ = catch_unwind(AssertUnwindSafe(|| drop(inference)));
        None
    }
}

/// Calls inference, with the heartbeat telling that it is being called, and nothing unwinding out of it.
fn quantum<I, C: Clock, R>(
    inference: &mut I,
    clock: &C,
    shared: &Shared,
    time: Option<&Histogram>,
    call: impl FnOnce(&mut I) -> Result<R>,
) -> std::result::Result<R, Failure> {
    let begun = clock.now();
    shared.quantum_begins(begun);
    // AssertUnwindSafe, because after a panic inference is not called again and what it wrote to is not published.
    let outcome = catch_unwind(AssertUnwindSafe(|| call(inference)));
    shared.quantum_ends();
    if let Some(time) = time {
        time.record(clock.now().since(begun));
    }
    match outcome {
        Ok(result) => result.map_err(Failure::Error),
        Err(panic) => Err(Failure::Panic(panic_message(&*panic))),
    }
}

/// Returns the message of a panic.
pub(super) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}
