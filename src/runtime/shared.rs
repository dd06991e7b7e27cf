//! State that the runtime's threads share: phase, heartbeat, counters.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use serde::Serialize;

use crate::realtime::clock::Timestamp;
use crate::realtime::episode::Episode;
use crate::realtime::reading::{Flags, Reading, Status};
use crate::stats::{Counter, Histogram, Summary};

/// The state of the inference thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Phase {
    /// Setting itself up and warming the policy up.
    Starting = 0,
    /// Computing chunks, or waiting for a reason to.
    Ready = 1,
    /// It gave up after an error it could not get over. It computes no more; it can be stopped, and started again.
    Failed = 2,
    /// It has ended.
    Stopped = 3,
}

/// State that every thread of a runtime reaches, each field written by one of them.
#[derive(Debug)]
pub(super) struct Shared {
    phase: AtomicU8,
    /// The time the quantum being computed began; 0 between quanta.
    quantum_since: AtomicU64,
    /// The time that the last chunk of warming up took, in nanoseconds; 0 where that is not known.
    warm_chunk: AtomicU64,
    /// The runtime is to end.
    stop: AtomicBool,
    tripped: AtomicBool,
    pub(super) episode: Episode,
    /// Events that found no room, on either of the threads that send them.
    pub(super) events_lost: AtomicU64,
    pub(super) control: ControlCounters,
    pub(super) inference: InferenceCounters,
    pub(super) observations: ObservationCounters,
}

impl Shared {
    pub(super) fn new() -> Self {
        Shared {
            phase: AtomicU8::new(Phase::Starting as u8),
            quantum_since: AtomicU64::new(0),
            warm_chunk: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            tripped: AtomicBool::new(false),
            episode: Episode::new(),
            events_lost: AtomicU64::new(0),
            control: ControlCounters::default(),
            inference: InferenceCounters::default(),
            observations: ObservationCounters::default(),
        }
    }

    pub(super) fn set_warm_chunk(&self, nanos: u64) {
        // Relaxed, here and below: a number by itself.
        self.warm_chunk.store(nanos, Ordering::Relaxed);
    }

    pub(super) fn warm_chunk(&self) -> u64 {
        self.warm_chunk.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn phase(&self) -> Phase {
        // Acquire pairs with the Release below: who sees a phase sees what led to it.
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            2 => Phase::Failed,
            _ => Phase::Stopped,
        }
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        // Release, as said above.
        self.phase.store(phase as u8, Ordering::Release);
    }

    pub(super) fn ask_to_stop(&self) {
        // Release pairs with the Acquire below, for tidiness; the flag carries no data.
        self.stop.store(true, Ordering::Release);
    }

    pub(super) fn asked_to_stop(&self) -> bool {
        // Acquire, as said above.
        self.stop.load(Ordering::Acquire)
    }

    pub(super) fn quantum_begins(&self, now: Timestamp) {
        // Relaxed, because the time stands for itself and orders nothing. At least 1, because 0 means "none".
        self.quantum_since.store(now.as_nanos().max(1), Ordering::Relaxed);
    }

    pub(super) fn quantum_ends(&self) {
        // Relaxed, as in `quantum_begins`.
        self.quantum_since.store(0, Ordering::Relaxed);
    }

    /// Returns the time that the quantum being computed has taken; none between quanta.
    #[inline]
    pub(super) fn quantum_age(&self, now: Timestamp) -> Option<u64> {
        // Relaxed, as in `quantum_begins`.
        let since = self.quantum_since.load(Ordering::Relaxed);
        (since != 0).then(|| now.since(Timestamp::from_nanos(since)))
    }

    #[inline]
    pub(super) fn set_tripped(&self, tripped: bool) {
        // Relaxed, because whoever sees it goes on to read the recorder, which orders itself.
        self.tripped.store(tripped, Ordering::Relaxed);
    }

    pub(super) fn tripped(&self) -> bool {
        // Relaxed, as in `set_tripped`.
        self.tripped.load(Ordering::Relaxed)
    }

    /// Returns everything that was counted so far.
    pub(super) fn stats(&self, now: Timestamp) -> RuntimeStats {
        RuntimeStats {
            phase: self.phase(),
            quantum_age_ns: self.quantum_age(now),
            // Relaxed: a count.
            events_lost: self.events_lost.load(Ordering::Relaxed),
            control: self.control.stats(),
            inference: self.inference.stats(),
            observations: self.observations.stats(),
        }
    }
}

impl ControlCounters {
    /// Counts one read that came after one with `before`'s flags.
    #[inline]
    pub(super) fn count(&self, reading: &Reading, before: Flags) {
        self.reads.add(1);
        let status = match reading.status {
            Status::Ok => &self.ok,
            Status::Stale => &self.stale,
            Status::Hold => &self.hold,
            Status::Empty => &self.empty,
        };
        status.add(1);
        if reading.status != Status::Empty {
            self.age_ns.record(reading.age_ns);
        }
        if reading.flags.contains(Flags::REPEATED) {
            self.repeated.add(1);
            return;
        }
        let began = |flag| reading.flags.contains(flag) && !before.contains(flag);
        self.missed_ticks.add(u64::from(reading.missed));
        self.chunks.add(u64::from(reading.flags.contains(Flags::NEW_CHUNK)));
        // A chunk that comes after its own end is an underrun of its own.
        let late = reading.flags.contains(Flags::NEW_CHUNK | Flags::UNDERRUN);
        self.underruns.add(u64::from(began(Flags::UNDERRUN) || late));
        self.clamped.add(u64::from(reading.flags.contains(Flags::CLAMPED)));
        self.trips.add(u64::from(began(Flags::TRIPPED)));
    }
}

impl InferenceCounters {
    /// Returns the number of chunks computed to the end, published or rejected.
    pub(super) fn completed(&self) -> u64 {
        let counts =
            [&self.published, &self.rejected_non_finite, &self.rejected_limits, &self.rejected_length];
        counts.iter().map(|count| count.count()).sum()
    }
}

/// Everything that was counted since the start.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuntimeStats {
    /// The state of the inference thread.
    pub phase: Phase,
    /// The time that inference has been in one step, in nanoseconds; none between steps.
    pub quantum_age_ns: Option<u64>,
    /// Events dropped because nobody took them.
    pub events_lost: u64,
    /// The control loop's side.
    pub control: ControlStats,
    /// The inference thread's side.
    pub inference: InferenceStats,
    /// The sensor side.
    pub observations: ObservationStats,
}

/// Declares what one thread counts, and the figures in which every other one sees it: each count a number, each time a
/// distribution in nanoseconds.
macro_rules! counters {
    (
        $(#[$doc:meta])*
        $live:ident => $stats:ident
        counts { $($(#[$count_doc:meta])* $count:ident,)* }
        times { $($(#[$time_doc:meta])* $time:ident,)* }
    ) => {
        #[derive(Debug, Default)]
        pub(super) struct $live {
            $(pub(super) $count: Counter,)*
            $(pub(super) $time: Histogram,)*
        }

        impl $live {
            fn stats(&self) -> $stats {
                $stats {
                    $($count: self.$count.count(),)*
                    $($time: self.$time.snapshot().summary(),)*
                }
            }
        }

        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize)]
        pub struct $stats {
            $($(#[$count_doc])* pub $count: u64,)*
            $($(#[$time_doc])* pub $time: Summary,)*
        }
    };
}

counters! {
    /// The control loop's side of [`RuntimeStats`].
    ControlCounters => ControlStats
    counts {
        /// Reads in all.
        reads,
        /// Reads of a control tick that had been read before.
        repeated,
        /// Reads that were OK.
        ok,
        /// Reads that were STALE.
        stale,
        /// Reads that were HOLD.
        hold,
        /// Reads that were EMPTY.
        empty,
        /// Control ticks that were not read at all.
        missed_ticks,
        /// Chunks that were begun to be executed.
        chunks,
        /// Chunks that were used up before the next one came.
        underruns,
        /// Ticks in which some joint was kept to its step limit.
        clamped,
        /// Times the step limit tripped.
        trips,
    }
    times {
        /// Age of the observation behind each action.
        age_ns,
    }
}

counters! {
    /// The inference thread's side of [`RuntimeStats`]. Its histograms are in nanoseconds.
    InferenceCounters => InferenceStats
    counts {
        /// Chunks begun.
        begun,
        /// Chunks published.
        published,
        /// Chunks published that the control loop never saw, because the next one came first.
        overwritten,
        /// Chunks guided by the one before (RTC).
        guided,
        /// Chunks not published because of NaN or infinity.
        rejected_non_finite,
        /// Chunks not published because of a value out of limits.
        rejected_limits,
        /// Chunks not published because they had the wrong length.
        rejected_length,
        /// Errors of inference.
        errors,
        /// Panics of inference.
        panics,
        /// Chunks dropped because they were not finished in time.
        deadline_misses,
        /// Chunks dropped because of a new prompt, step count or episode.
        abandoned,
        /// Observations not used because they were too old, or of an earlier episode, when their turn came.
        stale_observations,
        /// Observations that the policy could not use, see [`Event::ObservationRefused`](super::Event::ObservationRefused).
        refused_observations,
    }
    times {
        /// Everything before the first denoise step.
        begin_ns,
        /// One denoise step.
        step_ns,
        /// Everything after the last denoise step.
        finish_ns,
        /// The finite and limit checks.
        gate_ns,
        /// From begin to publication.
        chunk_ns,
        /// From the observation's capture to publication.
        latency_ns,
    }
}

counters! {
    /// The sensor side of [`RuntimeStats`].
    ObservationCounters => ObservationStats
    counts {
        /// Observations published.
        published,
        /// Observations that were replaced before the inference thread looked.
        overwritten,
        /// Observations refused because of their capture time.
        refused,
        /// Publications that cost a system call, because the inference thread slept.
        wakes,
    }
    times {
    }
}
