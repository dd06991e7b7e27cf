//! What the runtime's threads know of each other: phase, heartbeat, counters.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use serde::Serialize;

use crate::realtime::clock::Timestamp;
use crate::realtime::reading::{Flags, Reading, Status};
use crate::stats::{Counter, Histogram, Summary};

/// What the inference thread is doing with its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Phase {
    /// Setting itself up and warming the policy up.
    Starting = 0,
    /// Computing chunks, or waiting for a reason to.
    Ready = 1,
    /// It gave up after an error it could not get over. It computes no more; only stopping is left.
    Failed = 2,
    /// It has ended.
    Stopped = 3,
}

/// State that every thread of a runtime reaches, each field written by one of them.
#[derive(Debug)]
pub(super) struct Shared {
    phase: AtomicU8,
    /// When the quantum being computed began; 0 between quanta.
    quantum_since: AtomicU64,
    /// The runtime is to end.
    stop: AtomicBool,
    tripped: AtomicBool,
    /// Events that found no room, on either of the threads that send them.
    pub(super) events_lost: AtomicU64,
    pub(super) control: ControlCounts,
    pub(super) inference: InferenceCounts,
    pub(super) observations: ObservationCounts,
}

impl Shared {
    pub(super) fn new() -> Self {
        Shared {
            phase: AtomicU8::new(Phase::Starting as u8),
            quantum_since: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            tripped: AtomicBool::new(false),
            events_lost: AtomicU64::new(0),
            control: ControlCounts::default(),
            inference: InferenceCounts::default(),
            observations: ObservationCounts::default(),
        }
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

    /// How long the quantum being computed has taken; none between quanta.
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

    /// Everything that was counted so far.
    pub(super) fn stats(&self, now: Timestamp) -> RuntimeStats {
        let (control, inference, observations) = (&self.control, &self.inference, &self.observations);
        RuntimeStats {
            phase: self.phase(),
            quantum_age_ns: self.quantum_age(now),
            // Relaxed: a count.
            events_lost: self.events_lost.load(Ordering::Relaxed),
            control: ControlStats {
                reads: control.reads.count(),
                repeated: control.repeated.count(),
                ok: control.statuses[0].count(),
                stale: control.statuses[1].count(),
                hold: control.statuses[2].count(),
                empty: control.statuses[3].count(),
                missed_ticks: control.missed_ticks.count(),
                chunks: control.chunks.count(),
                underruns: control.underruns.count(),
                clamped: control.clamped.count(),
                trips: control.trips.count(),
                age_ns: control.age.snapshot().summary(),
            },
            inference: InferenceStats {
                begun: inference.begun.count(),
                published: inference.published.count(),
                overwritten: inference.overwritten.count(),
                guided: inference.guided.count(),
                rejected_non_finite: inference.rejected_non_finite.count(),
                rejected_limits: inference.rejected_limits.count(),
                rejected_length: inference.rejected_length.count(),
                errors: inference.errors.count(),
                panics: inference.panics.count(),
                deadline_misses: inference.deadline_misses.count(),
                abandoned: inference.abandoned.count(),
                stale_observations: inference.stale_observations.count(),
                begin_ns: inference.begin.snapshot().summary(),
                step_ns: inference.step.snapshot().summary(),
                finish_ns: inference.finish.snapshot().summary(),
                gate_ns: inference.gate.snapshot().summary(),
                chunk_ns: inference.chunk.snapshot().summary(),
                latency_ns: inference.latency.snapshot().summary(),
            },
            observations: ObservationStats {
                published: observations.published.count(),
                overwritten: observations.overwritten.count(),
                refused: observations.refused.count(),
                wakes: observations.wakes.count(),
            },
        }
    }
}

/// Counted by the control loop's thread.
#[derive(Debug, Default)]
pub(super) struct ControlCounts {
    reads: Counter,
    repeated: Counter,
    statuses: [Counter; 4],
    missed_ticks: Counter,
    chunks: Counter,
    underruns: Counter,
    clamped: Counter,
    trips: Counter,
    age: Histogram,
}

impl ControlCounts {
    /// Counts one read that came after one with `before`'s flags.
    #[inline]
    pub(super) fn count(&self, reading: &Reading, before: Flags) {
        self.reads.add(1);
        self.statuses[reading.status as usize].add(1);
        if reading.status != Status::Empty {
            self.age.record(reading.age_ns);
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

/// Counted by the inference thread. What each is, its public twin below says.
#[derive(Debug, Default)]
pub(super) struct InferenceCounts {
    pub begun: Counter,
    pub published: Counter,
    pub overwritten: Counter,
    pub guided: Counter,
    pub rejected_non_finite: Counter,
    pub rejected_limits: Counter,
    pub rejected_length: Counter,
    pub errors: Counter,
    pub panics: Counter,
    pub deadline_misses: Counter,
    pub abandoned: Counter,
    pub stale_observations: Counter,
    pub begin: Histogram,
    pub step: Histogram,
    pub finish: Histogram,
    pub gate: Histogram,
    pub chunk: Histogram,
    pub latency: Histogram,
}

impl InferenceCounts {
    /// Chunks computed to the end, published or rejected.
    pub(super) fn completed(&self) -> u64 {
        let counts =
            [&self.published, &self.rejected_non_finite, &self.rejected_limits, &self.rejected_length];
        counts.iter().map(|count| count.count()).sum()
    }
}

/// Counted by the sensor side's thread.
#[derive(Debug, Default)]
pub(super) struct ObservationCounts {
    pub(super) published: Counter,
    pub(super) overwritten: Counter,
    pub(super) refused: Counter,
    pub(super) wakes: Counter,
}

/// What was counted since the start.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuntimeStats {
    /// What the inference thread is doing.
    pub phase: Phase,
    /// How long it has been in one step, in nanoseconds; none between steps.
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

/// The control loop's side of [`RuntimeStats`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ControlStats {
    /// Reads in all.
    pub reads: u64,
    /// Reads of a control tick that had been read before.
    pub repeated: u64,
    /// Reads that were OK.
    pub ok: u64,
    /// Reads that were STALE.
    pub stale: u64,
    /// Reads that were HOLD.
    pub hold: u64,
    /// Reads that were EMPTY.
    pub empty: u64,
    /// Control ticks that were not read at all.
    pub missed_ticks: u64,
    /// Chunks that were begun to be executed.
    pub chunks: u64,
    /// Chunks that were used up before the next one came.
    pub underruns: u64,
    /// Ticks in which some joint was kept to its step limit.
    pub clamped: u64,
    /// Times the step limit tripped.
    pub trips: u64,
    /// Age of the observation behind each action.
    pub age_ns: Summary,
}

/// The inference thread's side of [`RuntimeStats`]. Its histograms are in nanoseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InferenceStats {
    /// Chunks begun.
    pub begun: u64,
    /// Chunks published.
    pub published: u64,
    /// Chunks published that the control loop never saw, because the next one came first.
    pub overwritten: u64,
    /// Chunks guided by the one before (RTC).
    pub guided: u64,
    /// Chunks not published because of NaN or infinity.
    pub rejected_non_finite: u64,
    /// Chunks not published because of a value out of limits.
    pub rejected_limits: u64,
    /// Chunks not published because they had the wrong length.
    pub rejected_length: u64,
    /// Errors of the engine.
    pub errors: u64,
    /// Panics of the engine.
    pub panics: u64,
    /// Chunks dropped because they were not finished in time.
    pub deadline_misses: u64,
    /// Chunks dropped because of a new prompt or step count.
    pub abandoned: u64,
    /// Observations not used because they were too old when their turn came.
    pub stale_observations: u64,
    /// Everything before the first denoise step.
    pub begin_ns: Summary,
    /// One denoise step.
    pub step_ns: Summary,
    /// Everything after the last denoise step.
    pub finish_ns: Summary,
    /// The finite and limit checks.
    pub gate_ns: Summary,
    /// From begin to publication.
    pub chunk_ns: Summary,
    /// From the observation's capture to publication.
    pub latency_ns: Summary,
}

/// The sensor side of [`RuntimeStats`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ObservationStats {
    /// Observations published.
    pub published: u64,
    /// Observations that were replaced before the inference thread looked.
    pub overwritten: u64,
    /// Observations refused because of their capture time.
    pub refused: u64,
    /// Publications that cost a system call, because the inference thread slept.
    pub wakes: u64,
}
