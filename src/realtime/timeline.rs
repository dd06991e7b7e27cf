//! From control ticks to actions: where in which chunk the robot is, and how far that can be relied on.

use super::chunk::{ChunkInfo, Interpolation, StampedChunk};
use super::clock::{Timestamp, nanos};
use super::limiter::Limiter;
use super::plan::{Grid, PlanClock};
use super::reading::{Flags, Reading, Status};
use super::splice::{Seam, Splicer};
use super::timeline_config::{TimelineConfig, Underrun};
use crate::Result;

/// The robot's place in its plan, for whoever computes the next chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// The chunk being executed; 0 before the first.
    pub chunk: u64,
    /// The time when this was so.
    pub at: Timestamp,
    /// The distance into the chunk, in nanoseconds from its row 0.
    pub position_ns: i64,
    /// True while it is being executed at full pace, so that the position grows with time.
    pub moving: bool,
}

/// Maps ticks to actions. Owns no clock and no chunk: both come with each read, so it can be run on recorded time.
///
/// Fixed memory. Every function takes a bounded number of steps and allocates nothing.
#[derive(Debug, Clone)]
pub struct Timeline {
    action_period: i64,
    control_period: i64,
    max_age: u64,
    hold_after: u64,
    interpolation: Interpolation,
    on_underrun: Underrun,
    max_missed_ticks: u64,
    limiter: Limiter,
    splicer: Splicer,
    grid: Grid,
    plan: PlanClock,
    /// The chunk being executed, its number of rows, and the time played at its row 0.
    info: ChunkInfo,
    rows: i64,
    origin: i64,
    /// The chunk was used up.
    exhausted: bool,
    /// An action was taken from the chunk.
    joined: bool,
    tripped: bool,
    /// The last action; meaningless while `known` is false.
    value: Box<[f32]>,
    target: Box<[f32]>,
    known: bool,
    executed: bool,
    last: Reading,
    episode: u64,
    /// The time the machine has slept since the chunk's observation was captured, and when that was last noticed.
    slept: u64,
    slept_at: Timestamp,
}

impl Timeline {
    /// Creates a timeline for actions of `dim` values that has nothing to execute yet.
    pub fn new(config: &TimelineConfig, dim: usize) -> Result<Self> {
        config.validate(dim)?;
        let control_period = nanos(config.control_period);
        let steps = config.step_limits.clone().unwrap_or_else(|| vec![f32::INFINITY; dim]);
        Ok(Timeline {
            action_period: nanos(config.action_period) as i64,
            control_period: control_period as i64,
            max_age: nanos(config.max_age),
            hold_after: nanos(config.hold_after),
            interpolation: config.interpolation,
            on_underrun: config.on_underrun,
            max_missed_ticks: u64::from(config.max_missed_ticks),
            limiter: Limiter::new(steps.into(), config.trip_after),
            splicer: Splicer::new(config.splice, config.interpolation, dim),
            grid: Grid::new(control_period),
            plan: PlanClock::new(),
            info: ChunkInfo::default(),
            rows: 0,
            origin: 0,
            exhausted: false,
            joined: false,
            tripped: false,
            value: vec![0.0; dim].into(),
            target: vec![0.0; dim].into(),
            known: false,
            executed: false,
            last: Reading::default(),
            episode: 0,
            slept: 0,
            slept_at: Timestamp::default(),
        })
    }

    /// Sets the scale on which each joint's distances are compared where a chunk takes over by progress; 1 for all
    /// joints otherwise.
    ///
    /// # Panics
    /// If there is not one scale a joint.
    pub fn set_joint_scales(&mut self, scales: &[f32]) {
        self.splicer.set_scales(scales);
    }

    /// Returns the number of the episode that is followed.
    #[inline]
    pub fn episode(&self) -> u64 {
        self.episode
    }

    /// Forgets the plan and the last action, as if nothing had been read yet; ticks and a trip of the step limit stay.
    /// Chunks of other episodes are not followed from now on.
    ///
    /// RT-safe: yes. Thread: control.
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn begin_episode(&mut self, episode: u64) {
        self.episode = episode;
        self.plan = PlanClock::new();
        self.info = ChunkInfo::default();
        (self.rows, self.origin) = (0, 0);
        (self.exhausted, self.joined, self.known, self.executed) = (false, false, false, false);
        self.limiter.reset();
        self.last = Reading { tick: self.last.tick, ..Reading::default() };
    }

    /// Counts `more` nanoseconds that the machine slept, noticed at `now`, towards the age of what was captured before.
    ///
    /// RT-safe: yes. Thread: control.
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn slept(&mut self, now: Timestamp, more: u64) {
        self.slept = self.slept.saturating_add(more);
        self.slept_at = now;
    }

    /// Takes the position of the robot before the first action, so that the first step is limited too. It is given as the
    /// action until there is a better one. False, and nothing done, if the length is wrong or a value not finite.
    ///
    /// RT-safe: yes. Thread: control.
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn set_reference(&mut self, position: &[f32]) -> bool {
        if position.len() != self.value.len() || position.iter().any(|v| !v.is_finite()) {
            return false;
        }
        self.value.copy_from_slice(position);
        self.known = true;
        true
    }

    /// Takes the measured state for the next tick, for [`Splice::State`](super::splice::Splice::State): one value a joint in robot units, NaN for a
    /// joint that is not measured. False, and nothing done, if the length is wrong, a value infinite, or nothing
    /// measured.
    ///
    /// RT-safe: yes. Thread: control.
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn set_state(&mut self, state: &[f32]) -> bool {
        self.splicer.measure(state)
    }

    /// Ends the HOLD that a trip of the step limit led to. The newest chunk is followed from where it stands.
    ///
    /// RT-safe: yes. Thread: control.
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn clear_trip(&mut self) {
        self.tripped = false;
        self.limiter.reset();
    }

    /// Sets the most that each joint may move from one tick to the next, in robot units; infinity: no limit. False, and
    /// nothing done, if the number is wrong or one of them is not positive.
    ///
    /// RT-safe: yes. Thread: control.
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn set_step_limits(&mut self, limits: &[f32]) -> bool {
        self.limiter.set_steps(limits)
    }

    /// Returns the action as of the last read; none until there has been one or a reference.
    ///
    /// RT-safe: yes. Thread: control.
    #[inline]
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn action(&self) -> Option<&[f32]> {
        self.known.then_some(&*self.value)
    }

    /// Reads the action for `now`.
    ///
    /// `chunk` is the newest chunk there is (number 0 if none). `fault` is what speaks against following it from
    /// outside: any flag here means HOLD. Reading twice in one control tick gives the same action.
    ///
    /// RT-safe: yes. Thread: control.
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn read(&mut self, now: Timestamp, chunk: &StampedChunk, fault: Flags) -> Reading {
        let ticks = self.grid.advance(now);
        if ticks > 0 {
            self.tick(now, ticks, chunk, fault);
        } else {
            let kept = self.last.flags & (Flags::UNDERRUN | Flags::CLAMPED | Flags::RAMPING);
            self.last.flags = kept | fault | Flags::REPEATED;
            if self.tripped {
                self.last.flags |= Flags::TRIPPED;
            }
            self.last.missed = 0;
            self.last.seam_jump = 0.0;
        }
        self.last.age_ns = self.age(now);
        self.last.status = self.status(fault);
        self.last
    }

    /// Returns the robot's place in its plan, as of the last read, which was at `now`.
    #[inline]
    pub fn progress(&self, now: Timestamp) -> Progress {
        Progress {
            chunk: self.info.number,
            at: now,
            position_ns: self.position(self.grid.time()),
            moving: self.plan.running(),
        }
    }

    fn age(&self, now: Timestamp) -> u64 {
        if self.info.number == 0 { 0 } else { now.since(self.info.captured).saturating_add(self.slept) }
    }

    /// Returns the nanoseconds into the chunk at grid time `at`.
    fn position(&self, at: i64) -> i64 {
        (self.plan.played(at) - self.origin).max(0)
    }

    /// Returns the position past the last row.
    fn end(&self) -> i64 {
        self.rows.saturating_mul(self.action_period)
    }

    fn tick(&mut self, now: Timestamp, ticks: u64, chunk: &StampedChunk, fault: Flags) {
        let at = self.grid.time();
        let before =
            at.saturating_sub(i64::try_from(ticks).unwrap_or(i64::MAX).saturating_mul(self.control_period));
        let missed = ticks - 1;
        let mut flags = fault;
        self.last.seam_jump = 0.0;
        if missed > 0 {
            flags |= Flags::MISSED_TICKS;
        }
        if missed > self.max_missed_ticks && self.plan.running() {
            // The robot was given nothing new meanwhile, so its plan did not go on either.
            self.plan.stop(before + self.control_period, 0);
        }
        if chunk.info.number != self.info.number && chunk.info.episode == self.episode {
            self.info = chunk.info;
            if chunk.info.captured > self.slept_at {
                self.slept = 0;
            }
            self.rows = chunk.actions.action_horizon() as i64;
            self.origin = self.plan.played(self.grid.time_of(chunk.info.captured));
            self.exhausted = false;
            self.joined = false;
            flags |= Flags::NEW_CHUNK;
            self.splice(chunk, before, at);
            if self.splicer.lacks_state(chunk) {
                flags |= Flags::UNMEASURED;
            }
        }
        self.splicer.end_tick();
        self.start_or_stop(now, at, fault, flags.contains(Flags::NEW_CHUNK));
        let position = self.position(at);
        if self.info.number > 0 && (self.plan.moved(before, at) || self.follows_to_the_end()) {
            self.aim(chunk, position);
            if !self.joined && self.known {
                let distances = self.value.iter().zip(&self.target).map(|(a, b)| (a - b).abs());
                self.last.seam_jump = distances.fold(0.0, f32::max);
            }
            self.joined = true;
            flags |= self.follow(at);
        }
        if self.exhausted {
            flags |= Flags::UNDERRUN;
        }
        if self.tripped {
            flags |= Flags::TRIPPED;
        }
        if self.executed && !self.plan.running() && !self.plan.at_rest(at) {
            flags |= Flags::RAMPING;
        }
        let row = (position / self.action_period).clamp(0, (self.rows - 1).max(0));
        self.last.flags = flags;
        self.last.chunk = self.info.number;
        self.last.tick = self.grid.tick();
        self.last.row = row as u32;
        self.last.remaining = if self.exhausted { 0 } else { (self.rows - 1 - row).max(0) as u32 };
        self.last.missed = u32::try_from(missed).unwrap_or(u32::MAX);
    }

    /// Moves the new chunk's beginning so that it takes over at `at` by the rule, at the place within a row that time
    /// gives. The last action was given at `before`.
    fn splice(&mut self, chunk: &StampedChunk, before: i64, at: i64) {
        let rows = |time: i64| time as f64 / self.action_period as f64;
        let position = self.position(at);
        let due = position / self.action_period;
        let seam = Seam {
            last: self.known.then_some(&*self.value),
            due: due as usize,
            phase: rows(position % self.action_period),
            since: rows(self.plan.played(at) - self.plan.played(before)),
        };
        let row = self.splicer.row(chunk, &seam) as i64;
        self.origin += (due - row) * self.action_period;
    }

    /// Returns true if the plan is followed although there is reason to hold.
    fn follows_to_the_end(&self) -> bool {
        self.on_underrun == Underrun::FlagOnly && !self.tripped
    }

    fn must_hold(&self, now: Timestamp, fault: Flags) -> bool {
        self.tripped || (!self.follows_to_the_end() && (!fault.is_empty() || self.age(now) > self.hold_after))
    }

    /// Stops the plan where it must stop, and lets it run where it may.
    fn start_or_stop(&mut self, now: Timestamp, at: i64, fault: Flags, new_chunk: bool) {
        if self.info.number == 0 {
            return;
        }
        let position = self.position(at);
        // Where motion comes to rest on the plan: where the last row is reached.
        let rest = match self.interpolation {
            Interpolation::None => self.end() - 1,
            Interpolation::Linear => self.end() - self.action_period,
        };
        let ramp = match self.on_underrun {
            Underrun::RampToHold(ramp) => nanos(ramp) as i64,
            _ => 0,
        };
        // A ramp of length r goes r/2 further.
        let ramp_that_fits = ramp.min((rest - position).max(0) * 2);
        if self.must_hold(now, fault) {
            if self.plan.running() {
                self.plan.stop(at, if self.tripped { 0 } else { ramp_that_fits });
            }
            return;
        }
        if !self.plan.running() && !self.exhausted {
            self.plan.resume(at);
        }
        if !self.plan.running() {
            return;
        }
        if position >= self.end() {
            // Back to the moment of the end, so that time played stays within the plan; but a chunk that came after
            // its own end says nothing about when the robot stopped.
            let beyond = if new_chunk { 0 } else { position - self.end() };
            self.plan.stop(at - beyond, 0);
            self.exhausted = true;
        } else if ramp > 0 && position + ramp / 2 >= rest {
            self.plan.stop(at, ramp_that_fits);
            self.exhausted = true;
        }
    }

    /// Computes the action at `position`.
    fn aim(&mut self, chunk: &StampedChunk, position: i64) {
        let row = (position / self.action_period) as usize;
        let fraction = match self.interpolation {
            Interpolation::None => 0.0,
            Interpolation::Linear => (position % self.action_period) as f32 / self.action_period as f32,
        };
        chunk.actions.interpolate(row, fraction, &mut self.target);
    }

    /// Moves the action towards the computed one.
    fn follow(&mut self, at: i64) -> Flags {
        self.executed = true;
        if !self.known {
            self.value.copy_from_slice(&self.target);
            self.known = true;
            return Flags::empty();
        }
        if !self.limiter.follow(&mut self.value, &self.target) {
            return Flags::empty();
        }
        if self.limiter.tripped() {
            self.tripped = true;
            self.plan.stop(at, 0);
        }
        Flags::CLAMPED
    }

    fn status(&self, fault: Flags) -> Status {
        if !self.executed {
            return Status::Empty;
        }
        let exhausted = self.exhausted && !self.follows_to_the_end();
        if self.tripped || !fault.is_empty() || exhausted || self.last.age_ns > self.hold_after {
            Status::Hold
        } else if self.last.age_ns > self.max_age {
            Status::Stale
        } else {
            Status::Ok
        }
    }
}

#[cfg(test)]
#[path = "timeline_tests.rs"]
mod tests;
