//! The control loop's side: the action for now, and how far it can be relied on.

use std::sync::Arc;

use super::shared::{Phase, Shared};
use crate::realtime::cell::{Reader, Writer};
use crate::realtime::chunk::StampedChunk;
use crate::realtime::clock::Timestamp;
use crate::realtime::reading::{Flags, Reading};
use crate::realtime::recorder::TickRecorder;
use crate::realtime::timeline::{Progress, Timeline};

/// The control loop's handle. Any one thread: it can be sent, not shared.
///
/// Reading takes no lock, makes no system call, allocates nothing and finishes in a bounded number of steps, whatever
/// the inference thread is doing or was doing when it was preempted. Dropping the handle may free memory; do that
/// outside the real-time part.
///
/// ```no_run
/// use std::time::Duration;
///
/// use pi0_edge::Controller;
/// use pi0_edge::runtime::{Status, Timestamp};
///
/// /// Runs at 1 kHz until there is nothing to follow any more.
/// fn control(mut controller: Controller, mut send: impl FnMut(&[f32])) {
///     let mut due = Timestamp::now();
///     loop {
///         let reading = controller.read();
///         if let Some(action) = controller.action() {
///             send(action);
///         }
///         if reading.status == Status::Hold {
///             eprintln!("holding since the plan of chunk {} ended: {:?}", reading.chunk, reading.flags);
///             break;
///         }
///         due = due + Duration::from_millis(1);
///         due.sleep_until();
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Controller {
    pub(super) chunks: Reader<StampedChunk>,
    pub(super) timeline: Timeline,
    pub(super) progress: Writer<Progress>,
    pub(super) recorder: TickRecorder,
    pub(super) shared: Arc<Shared>,
    pub(super) watchdog: u64,
    pub(super) flags_before: Flags,
    /// The time the machine has slept, as known so far.
    pub(super) slept: u64,
    pub(super) sleep_checked: Timestamp,
}

/// The time from one look for a sleep of the machine to the next, in nanoseconds.
const SLEEP_CHECK: u64 = 5_000_000;

/// Differences below this are what reading two clocks one after the other costs. No machine sleeps so shortly.
const SHORTEST_SLEEP: u64 = 1_000_000;

#[cfg(all(test, pi0_rtsan))]
thread_local! {
    /// True if a read of this thread allocates: what the sanitizer must find, in the test that shows that it would.
    pub(super) static PLANT: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

impl Controller {
    /// Reads the action for now. Call it once per control period, then use [`action`](Self::action).
    ///
    /// RT-safe: yes. Thread: control.
    #[inline]
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn read(&mut self) -> Reading {
        let mut now = Timestamp::now();
        // Not each time: a clock costs as much as the rest of a read.
        if now.since(self.sleep_checked) > SLEEP_CHECK {
            let slept;
            (now, slept) = Timestamp::now_and_slept();
            self.sleep_checked = now;
            self.notice_sleep(now, slept);
        }
        self.read_at(now)
    }

    /// Lets time that the machine slept count towards the age of actions.
    #[inline]
    pub(super) fn notice_sleep(&mut self, now: Timestamp, slept: u64) {
        let more = slept.saturating_sub(self.slept);
        self.slept += more;
        if more > SHORTEST_SLEEP {
            self.timeline.slept(now, more);
        }
    }

    /// Reads the action for `now`, which must not go back from call to call.
    ///
    /// RT-safe: yes. Thread: control.
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn read_at(&mut self, now: Timestamp) -> Reading {
        #[cfg(all(test, pi0_rtsan))]
        PLANT.with(|plant| plant.get().then(|| std::hint::black_box(Box::new(now))));

        let reading = self.look_at(now);
        self.tell_at(now);
        reading
    }

    /// Does the first half of [`read_at`](Self::read_at): reads, without telling the inference thread where in its plan
    /// the robot is. For replays, because inference may begin a chunk between the two.
    ///
    /// RT-safe: yes. Thread: control.
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn look_at(&mut self, now: Timestamp) -> Reading {
        let fault = self.fault(now);
        self.chunks.update();
        // After that, so that the chunk is of no later episode than the one followed from here on.
        self.follow_episode();
        let reading = self.timeline.read(now, self.chunks.get(), fault);
        self.shared.control.count(&reading, self.flags_before);
        self.shared.set_tripped(reading.flags.contains(Flags::TRIPPED));
        self.recorder.record(now, &reading, self.timeline.action());
        self.flags_before = reading.flags;
        reading
    }

    /// Does the second half of [`read_at`](Self::read_at), for the same time: tells the inference thread.
    ///
    /// RT-safe: yes. Thread: control.
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn tell_at(&mut self, now: Timestamp) {
        *self.progress.slot() = self.timeline.progress(now);
        self.progress.publish();
    }

    /// Returns the action as of the last read, one value a joint in robot units; none until there has been a chunk or a
    /// reference. It stays the last one in HOLD.
    ///
    /// RT-safe: yes. Thread: control.
    #[inline]
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn action(&self) -> Option<&[f32]> {
        self.timeline.action()
    }

    /// Takes the position of the robot before the first action, so that the first step is limited too; it is the action
    /// until there is a chunk. False, and nothing done, if the length is wrong or a value not finite.
    ///
    /// RT-safe: yes. Thread: control.
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn set_reference(&mut self, position: &[f32]) -> bool {
        self.follow_episode();
        self.timeline.set_reference(position)
    }

    /// Sets the most that each joint may move from one tick to the next, in robot units; infinity: no limit. False, and
    /// nothing done, if the number is wrong or one of them is not positive.
    ///
    /// RT-safe: yes. Thread: control.
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn set_step_limits(&mut self, limits: &[f32]) -> bool {
        self.timeline.set_step_limits(limits)
    }

    /// Takes the measured state for the next read, for [`Splice::State`](super::Splice::State): one value for each joint
    /// of an action, in the units of the observation's state, NaN for a joint that is not measured. False, and nothing
    /// done, if the length is wrong, a value infinite, or nothing measured.
    ///
    /// RT-safe: yes. Thread: control.
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn set_state(&mut self, state: &[f32]) -> bool {
        self.timeline.set_state(state)
    }

    /// Ends the HOLD that a trip of the step limit led to.
    ///
    /// RT-safe: yes. Thread: control.
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn clear_trip(&mut self) {
        self.timeline.clear_trip();
    }

    #[inline]
    fn follow_episode(&mut self) {
        let episode = self.shared.episode.number();
        if episode != self.timeline.episode() {
            self.timeline.begin_episode(episode);
        }
    }

    /// Returns the conditions that speak against following any chunk.
    #[inline]
    fn fault(&self, now: Timestamp) -> Flags {
        let mut fault = Flags::empty();
        if matches!(self.shared.phase(), Phase::Failed | Phase::Stopped) || !self.chunks.writer_alive() {
            fault |= Flags::STOPPED;
        }
        if self.shared.quantum_age(now).is_some_and(|age| age > self.watchdog) {
            fault |= Flags::HUNG;
        }
        fault
    }
}
