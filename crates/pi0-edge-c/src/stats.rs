//! Counters and latencies as C has them.

use super::boundary::grows;
use pi0_edge::runtime::{Phase, RuntimeStats};
use pi0_edge::stats::Summary;

/// A figure that too few values were recorded for.
pub const PI0_UNKNOWN: u64 = u64::MAX;

/// Setting itself up and warming the policy up.
pub const PI0_PHASE_STARTING: u32 = 0;
/// Computing chunks, or waiting for a reason to.
pub const PI0_PHASE_READY: u32 = 1;
/// Inference gave up after an error it could not get over.
pub const PI0_PHASE_FAILED: u32 = 2;
/// Inference has ended.
pub const PI0_PHASE_STOPPED: u32 = 3;

/// A distribution of durations in nanoseconds; percentiles are rounded up by at most 1/32. A figure that too few
/// values were recorded for is `PI0_UNKNOWN`: p50 needs 20 of them, p99 1000, p99.99 100000.
///
/// This structure is part of others and never changes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "each field is the figure its name says")]
pub struct pi0_latency {
    pub count: u64,
    pub min_ns: u64,
    pub mean_ns: u64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p99_ns: u64,
    pub p99_9_ns: u64,
    pub p99_99_ns: u64,
    pub max_ns: u64,
}

impl pi0_latency {
    fn new(summary: &Summary) -> Self {
        let known = |figure: Option<u64>| figure.unwrap_or(PI0_UNKNOWN);
        pi0_latency {
            count: summary.count,
            min_ns: known(summary.min),
            mean_ns: known(summary.mean.map(|mean| mean.round() as u64)),
            p50_ns: known(summary.p50),
            p90_ns: known(summary.p90),
            p99_ns: known(summary.p99),
            p99_9_ns: known(summary.p99_9),
            p99_99_ns: known(summary.p99_99),
            max_ns: known(summary.max),
        }
    }
}

/// The counts since the start.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pi0_stats {
    /// `sizeof(pi0_stats)`; set it before the call.
    pub struct_size: usize,
    /// `PI0_PHASE_...`: what inference is doing.
    pub phase: u32,
    /// 0.
    pub reserved: u32,
    /// Time that inference has been in one step; 0 between steps.
    pub step_age_ns: u64,
    /// Events that were lost because nobody took them.
    pub events_lost: u64,

    /// Reads of the control loop.
    pub reads: u64,
    /// Reads of a control tick that had been read before.
    pub reads_repeated: u64,
    /// Reads that were `PI0_OK`.
    pub reads_ok: u64,
    /// Reads that were `PI0_STALE`.
    pub reads_stale: u64,
    /// Reads that were `PI0_HOLD`.
    pub reads_hold: u64,
    /// Reads that were `PI0_EMPTY`.
    pub reads_empty: u64,
    /// Control ticks that were not read at all.
    pub missed_ticks: u64,
    /// Chunks that were begun to be executed.
    pub chunks_executed: u64,
    /// Chunks that were used up before the next one came.
    pub underruns: u64,
    /// Ticks in which some joint was kept to its step limit.
    pub clamped: u64,
    /// Times the step limit tripped.
    pub trips: u64,

    /// Chunks begun.
    pub chunks_begun: u64,
    /// Chunks published.
    pub chunks_published: u64,
    /// Chunks published that the control loop never saw, because the next one came first.
    pub chunks_overwritten: u64,
    /// Chunks guided by the one before (RTC).
    pub chunks_guided: u64,
    /// Chunks not published because of NaN or infinity.
    pub rejected_non_finite: u64,
    /// Chunks not published because of a value out of limits.
    pub rejected_limits: u64,
    /// Chunks not published because they had the wrong length.
    pub rejected_length: u64,
    /// Errors of inference.
    pub errors: u64,
    /// Bugs that inference hit.
    pub panics: u64,
    /// Chunks dropped because they were not finished in time.
    pub deadline_misses: u64,
    /// Chunks dropped because of a new prompt or step count.
    pub abandoned: u64,
    /// Observations not used because they were too old when their turn came.
    pub stale_observations: u64,

    /// Observations published.
    pub observations_published: u64,
    /// Observations that were replaced before inference looked.
    pub observations_overwritten: u64,
    /// Observations refused because of their capture time.
    pub observations_refused: u64,
    /// Publications that cost a system call, because inference slept.
    pub wakes: u64,

    /// Age of the observation behind each action read.
    pub age: pi0_latency,
    /// Everything before the first denoise step.
    pub begin: pi0_latency,
    /// One denoise step.
    pub step: pi0_latency,
    /// Everything after the last denoise step.
    pub finish: pi0_latency,
    /// The finite and limit checks.
    pub gate: pi0_latency,
    /// From begin to publication.
    pub chunk: pi0_latency,
    /// From the observation's capture to publication.
    pub latency: pi0_latency,
    /// Observations that the policy could not use, see `PI0_EVENT_OBSERVATION_REFUSED`.
    pub observations_unusable: u64,
}
grows!(pi0_stats, latency);

impl pi0_stats {
    /// `events_lost` are those lost on the way from the runtime to the program.
    pub(super) fn new(stats: &RuntimeStats, events_lost: u64) -> Self {
        let RuntimeStats { control, inference, observations, .. } = stats;
        pi0_stats {
            struct_size: size_of::<Self>(),
            phase: match stats.phase {
                Phase::Starting => PI0_PHASE_STARTING,
                Phase::Ready => PI0_PHASE_READY,
                Phase::Failed => PI0_PHASE_FAILED,
                Phase::Stopped => PI0_PHASE_STOPPED,
            },
            reserved: 0,
            step_age_ns: stats.quantum_age_ns.unwrap_or(0),
            events_lost: stats.events_lost + events_lost,
            reads: control.reads,
            reads_repeated: control.repeated,
            reads_ok: control.ok,
            reads_stale: control.stale,
            reads_hold: control.hold,
            reads_empty: control.empty,
            missed_ticks: control.missed_ticks,
            chunks_executed: control.chunks,
            underruns: control.underruns,
            clamped: control.clamped,
            trips: control.trips,
            chunks_begun: inference.begun,
            chunks_published: inference.published,
            chunks_overwritten: inference.overwritten,
            chunks_guided: inference.guided,
            rejected_non_finite: inference.rejected_non_finite,
            rejected_limits: inference.rejected_limits,
            rejected_length: inference.rejected_length,
            errors: inference.errors,
            panics: inference.panics,
            deadline_misses: inference.deadline_misses,
            abandoned: inference.abandoned,
            stale_observations: inference.stale_observations,
            observations_published: observations.published,
            observations_overwritten: observations.overwritten,
            observations_refused: observations.refused,
            wakes: observations.wakes,
            age: pi0_latency::new(&control.age_ns),
            begin: pi0_latency::new(&inference.begin_ns),
            step: pi0_latency::new(&inference.step_ns),
            finish: pi0_latency::new(&inference.finish_ns),
            gate: pi0_latency::new(&inference.gate_ns),
            chunk: pi0_latency::new(&inference.chunk_ns),
            latency: pi0_latency::new(&inference.latency_ns),
            observations_unusable: inference.refused_observations,
        }
    }
}
