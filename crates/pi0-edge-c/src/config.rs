//! Settings of the runtime as C has them, and as Rust does.

use std::ffi::c_char;
use std::path::PathBuf;
use std::time::Duration;

use super::boundary::{
    grows, guard, optional_string, read_settings, read_settings_or_default, slice, write_default, zeroed,
};
use super::event::{Sink, pi0_event_callback};
use super::rtc::{optional_rtc, pi0_rtc_config};
use super::status::{Fail, PI0_ERR_SIZE, Result, pi0_status};
use pi0_edge::ActionLimits;
use pi0_edge::internals::nanos;
use pi0_edge::runtime::{
    DelayConfig, DelayRule, Interpolation, MemoryLock, PolicyInferenceOptions, Realtime, Replan,
    RuntimeConfig, Splice, ThreadConfig, TimelineConfig, Underrun,
};

/// Each row of a chunk stands for a whole action period.
pub const PI0_INTERPOLATION_NONE: u32 = 0;
/// The action moves evenly from one row to the next.
pub const PI0_INTERPOLATION_LINEAR: u32 = 1;

/// A new chunk takes over at the row that is due: as many rows in as were executed since its observation.
pub const PI0_SPLICE_TIME: u32 = 0;
/// A new chunk takes over at the row, of those due, that follows on the last action most closely. For actions that are
/// positions.
pub const PI0_SPLICE_COMMAND: u32 = 1;
/// A new chunk takes over at the row, of those due, for which it expects the robot to be where it was measured to be. For
/// actions that are positions, and programs that call `pi0_controller_set_state` before each read.
pub const PI0_SPLICE_STATE: u32 = 2;
/// A new chunk takes over at its row 0, whenever it comes.
pub const PI0_SPLICE_ARRIVAL: u32 = 3;

/// When there is nothing valid to follow, the last action is held.
pub const PI0_UNDERRUN_HOLD: u32 = 0;
/// Motion slows down evenly over `ramp_ns` and comes to rest on the plan.
pub const PI0_UNDERRUN_RAMP: u32 = 1;
/// The plan is followed to its end, however old; the program decides by status and flags.
pub const PI0_UNDERRUN_FLAG_ONLY: u32 = 2;

/// The next chunk is begun when `replan_remaining` rows of the one being executed are left, or fewer.
pub const PI0_REPLAN_REMAINING: u32 = 0;
/// The next chunk is begun when `replan_period_ns` have passed since the last was. 0: always.
pub const PI0_REPLAN_PERIOD: u32 = 1;

/// Go on without a real-time right that is missing, and report it.
pub const PI0_REALTIME_TRY: u32 = 0;
/// Fail with `PI0_ERR_REALTIME_DENIED` if a real-time right is missing.
pub const PI0_REALTIME_ENFORCE: u32 = 1;
/// Ask for nothing.
pub const PI0_REALTIME_OFF: u32 = 2;

/// No memory is locked in particular.
pub const PI0_LOCK_OFF: u32 = 0;
/// Every page of the process stays in RAM once it has been touched.
pub const PI0_LOCK_ON_FAULT: u32 = 1;
/// All memory of the process stays in RAM, now and later, used or not: for a full-size policy twice as much.
pub const PI0_LOCK_ALL: u32 = 2;

/// Per-joint limits of an action, in robot units, both ends included.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pi0_limits {
    /// `sizeof(pi0_limits)`.
    pub struct_size: usize,
    /// The lowest value of each joint.
    pub min: *const f32,
    /// The highest value of each joint.
    pub max: *const f32,
    /// Values in each of the two: `action_dim`.
    pub len: usize,
}
grows!(pi0_limits, len);

impl Default for pi0_limits {
    fn default() -> Self {
        zeroed()
    }
}

/// The rights and processors of the inference thread. Fill it by `pi0_thread_config_default`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pi0_thread_config {
    /// `sizeof(pi0_thread_config)`.
    pub struct_size: usize,
    /// The CPUs it may run on.
    pub cpus: *const u32,
    /// Their number. 0 leaves that alone.
    pub cpu_count: usize,
    /// The CPUs that the threads working for it may run on, ONNX Runtime's. They get its priority in any case.
    pub worker_cpus: *const u32,
    /// Their number. 0 leaves that alone.
    pub worker_cpu_count: usize,
    /// Bytes of its stack that are touched beforehand, so that they are there.
    pub prefault_stack: u64,
    /// `PI0_REALTIME_...`: what to do where a right is missing.
    pub realtime: u32,
    /// SCHED_FIFO priority, 1 to 99. 0 leaves the scheduling policy alone.
    pub priority: u32,
    /// `PI0_LOCK_...`: which memory of the process stays in RAM.
    pub lock_memory: u32,
    /// 1: memory given back to the allocator stays with the process, so that asking again does not fault.
    pub keep_heap: u32,
}
grows!(pi0_thread_config, keep_heap);

impl Default for pi0_thread_config {
    fn default() -> Self {
        let config = ThreadConfig::default();
        pi0_thread_config {
            prefault_stack: config.prefault_stack as u64,
            realtime: PI0_REALTIME_TRY,
            priority: config.priority.unwrap_or(0) as u32,
            lock_memory: PI0_LOCK_ON_FAULT,
            keep_heap: u32::from(config.keep_heap),
            ..zeroed()
        }
    }
}

/// The settings of a runtime. Fill it by `pi0_runtime_config_default`. Everything it points to is copied by
/// `pi0_runtime_start`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pi0_runtime_config {
    /// `sizeof(pi0_runtime_config)`.
    pub struct_size: usize,
    /// The task, UTF-8. NULL for the bundle's default.
    pub prompt: *const c_char,
    /// Seed of the noise; every chunk draws its own from it and the chunk's number.
    pub seed: u64,
    /// Width of the widest frame that a camera slot has room for, in pixels.
    pub max_frame_width: u32,
    /// Height of the highest.
    pub max_frame_height: u32,

    /// The control loop's period: how often actions are read.
    pub control_period_ns: u64,
    /// The policy's period: how far apart the rows of a chunk are.
    pub action_period_ns: u64,
    /// An action whose observation is older than this is `PI0_STALE`.
    pub max_age_ns: u64,
    /// An action whose observation is older than this is not followed any more: `PI0_HOLD`.
    pub hold_after_ns: u64,
    /// Time that `PI0_UNDERRUN_RAMP` takes to come to rest.
    pub ramp_ns: u64,
    /// `PI0_INTERPOLATION_...`: how one row turns into the next.
    pub interpolation: u32,
    /// `PI0_UNDERRUN_...`: what happens to motion when there is nothing valid to follow.
    pub on_underrun: u32,
    /// If the control loop misses more ticks than this in a row, the plan waits for it.
    pub max_missed_ticks: u32,
    /// After this many ticks in a row at the step limit: `PI0_HOLD` until `pi0_controller_clear_trip`. 0: never.
    pub trip_after: u32,
    /// The most that each joint may move from one tick to the next, in robot units; infinity: no limit. NULL for none.
    pub step_limits: *const f32,
    /// Values in `step_limits`: `action_dim`.
    pub step_limits_len: usize,
    /// A chunk with a value outside these is not published. NULL: values must be finite, that is all.
    pub limits: *const pi0_limits,

    /// Real-time chunking. NULL: chunks are computed without regard to each other.
    pub rtc: *const pi0_rtc_config,
    /// `PI0_REPLAN_...`: when the next chunk is begun.
    pub replan: u32,
    /// For `PI0_REPLAN_REMAINING`.
    pub replan_remaining: u32,
    /// For `PI0_REPLAN_PERIOD`.
    pub replan_period_ns: u64,
    /// RTC's inference delay is estimated from this many of the latest latencies, 1 to 64.
    pub delay_window: u32,
    /// Number of chunks after the start that do not count for that.
    pub delay_warm_up: u32,
    /// Which of those latencies is the estimate: the one that this share of them does not exceed, 0 to 1. 1: the
    /// largest.
    pub delay_quantile: f64,
    /// The estimate until there is one.
    pub delay_initial_ns: u64,

    /// A chunk that is not finished this long after it was begun is dropped. 0: none is.
    pub deadline_ns: u64,
    /// Inference that has not come back from one step for this long counts as hung: `PI0_HOLD`.
    pub watchdog_ns: u64,
    /// Time from an error to the next try.
    pub retry_after_ns: u64,
    /// Time that `pi0_runtime_stop` waits for inference to come back before its thread is left behind.
    pub stop_timeout_ns: u64,
    /// After this many errors in a row inference gives up: `PI0_HOLD` until its policy is started again. An
    /// observation that the policy cannot use is no such error.
    pub max_errors: u32,
    /// Number of events that are kept until somebody takes them, 1 to 65536; further ones are counted and lost.
    pub event_capacity: u32,
    /// The rights and processors of the inference thread. NULL for the defaults.
    pub thread: *const pi0_thread_config,
    /// The file the flight record is written to when the step limit trips or inference gives up. NULL: none is.
    pub flight_record: *const c_char,

    /// Called with each event, on a thread of its own that is neither real-time nor the program's. It must not throw
    /// or unwind, and must return for `pi0_runtime_stop` to return. NULL for none.
    pub event_callback: pi0_event_callback,
    /// Handed to `event_callback`.
    pub event_user: *mut std::ffi::c_void,
    /// A file descriptor that gets each event as one line of JSON, written from a thread of its own; it stays the
    /// caller's, who must not close it before `pi0_runtime_stop` has returned. -1 for none. Not together with
    /// `event_callback`. Without either, `pi0_runtime_next_event` gives the events.
    pub event_fd: i32,
    /// 0.
    pub reserved: u32,

    /// `PI0_SPLICE_...`: the row at which a new chunk takes over.
    pub splice: u32,
    /// 0.
    pub reserved_splice: u32,
}
grows!(pi0_runtime_config, reserved);

impl Default for pi0_runtime_config {
    fn default() -> Self {
        let inference = PolicyInferenceOptions::default();
        let config = RuntimeConfig::default();
        let replan_remaining = match config.replan {
            Replan::Remaining(rows) => rows as u32,
            Replan::Period(_) => 0,
        };
        pi0_runtime_config {
            seed: inference.seed,
            max_frame_width: inference.max_frame.0,
            max_frame_height: inference.max_frame.1,
            control_period_ns: nanos(config.timeline.control_period),
            action_period_ns: nanos(config.timeline.action_period),
            max_age_ns: nanos(config.timeline.max_age),
            hold_after_ns: nanos(config.timeline.hold_after),
            interpolation: PI0_INTERPOLATION_LINEAR,
            on_underrun: PI0_UNDERRUN_HOLD,
            max_missed_ticks: config.timeline.max_missed_ticks,
            trip_after: config.timeline.trip_after,
            replan: PI0_REPLAN_REMAINING,
            replan_remaining,
            delay_window: config.delay.window as u32,
            delay_warm_up: config.delay.warm_up as u32,
            delay_quantile: 1.0,
            delay_initial_ns: nanos(config.delay.initial),
            watchdog_ns: nanos(config.watchdog),
            retry_after_ns: nanos(config.retry_after),
            stop_timeout_ns: nanos(config.stop_timeout),
            max_errors: config.max_errors,
            event_capacity: config.event_capacity as u32,
            event_fd: -1,
            splice: PI0_SPLICE_TIME,
            ..zeroed()
        }
    }
}

/// Writes the default settings: try for SCHED_FIFO 80 on any CPU, memory locked once it is touched, 256 KiB of stack
/// touched, the heap kept. `struct_size` is `sizeof(pi0_thread_config)`.
///
/// RT-safe: yes. Thread: any.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_STRUCT_SIZE.
#[unsafe(no_mangle)]
#[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
pub unsafe extern "C" fn pi0_thread_config_default(
    config: *mut pi0_thread_config,
    struct_size: usize,
) -> pi0_status {
    // SAFETY: `config` is NULL or has `struct_size` bytes, as documented.
    guard(|| unsafe { write_default(config, struct_size) })
}

/// Writes the default settings: 1 kHz control, 50 Hz actions, STALE after 0.5 s, HOLD after 1 s holding the last
/// action, replanning when 25 rows remain, no RTC, no deadline, a watchdog of 1 s. `struct_size` is
/// `sizeof(pi0_runtime_config)`.
///
/// RT-safe: no. Thread: any.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_STRUCT_SIZE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_runtime_config_default(
    config: *mut pi0_runtime_config,
    struct_size: usize,
) -> pi0_status {
    // SAFETY: `config` is NULL or has `struct_size` bytes, as documented.
    guard(|| unsafe { write_default(config, struct_size) })
}

/// Room for events is made at the start, so no number may take all the memory there is.
const MOST_EVENTS: u32 = 1 << 16;

/// A runtime's settings as Rust has them.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) inference: PolicyInferenceOptions,
    pub(super) runtime: RuntimeConfig,
    pub(super) sink: Sink,
}

impl pi0_runtime_config {
    pub(super) fn settings(&self) -> Result<Settings> {
        // SAFETY: the documentation of the structure says what each pointer must be.
        let (prompt, flight_record) = unsafe {
            (optional_string(self.prompt, "prompt")?, optional_string(self.flight_record, "flight_record")?)
        };
        if (self.reserved, self.reserved_splice) != (0, 0) {
            return Err(Fail::argument("reserved and reserved_splice must be 0"));
        }
        if self.event_capacity > MOST_EVENTS {
            let given = self.event_capacity;
            return Err(Fail::argument(format!("event_capacity {given}; use 1 to {MOST_EVENTS}")));
        }
        let inference = PolicyInferenceOptions {
            prompt: prompt.map(str::to_owned),
            seed: self.seed,
            max_frame: (self.max_frame_width, self.max_frame_height),
        };
        let runtime = RuntimeConfig {
            timeline: self.timeline()?,
            // SAFETY: as above.
            limits: unsafe { limits(self.limits) }?,
            replan: match self.replan {
                PI0_REPLAN_REMAINING => Replan::Remaining(self.replan_remaining as usize),
                PI0_REPLAN_PERIOD => Replan::Period(Duration::from_nanos(self.replan_period_ns)),
                other => return unknown("replan", other),
            },
            // SAFETY: as above.
            rtc: unsafe { optional_rtc(self.rtc) }?,
            delay: DelayConfig {
                window: self.delay_window as usize,
                rule: match self.delay_quantile {
                    1.0 => DelayRule::Max,
                    share => DelayRule::Quantile(share),
                },
                warm_up: self.delay_warm_up as usize,
                initial: Duration::from_nanos(self.delay_initial_ns),
            },
            deadline: (self.deadline_ns > 0).then(|| Duration::from_nanos(self.deadline_ns)),
            watchdog: Duration::from_nanos(self.watchdog_ns),
            max_errors: self.max_errors,
            retry_after: Duration::from_nanos(self.retry_after_ns),
            // SAFETY: as above.
            thread: thread(&unsafe { read_settings_or_default(self.thread) }?)?,
            event_capacity: self.event_capacity as usize,
            flight_record: flight_record.map(PathBuf::from),
            stop_timeout: Duration::from_nanos(self.stop_timeout_ns),
        };
        let sink = Sink::new(self.event_callback, self.event_user, self.event_fd)?;
        Ok(Settings { inference, runtime, sink })
    }

    fn timeline(&self) -> Result<TimelineConfig> {
        // SAFETY: the documentation of the structure says what the pointer must be.
        let steps = unsafe { slice(self.step_limits, self.step_limits_len, "step_limits") }?;
        Ok(TimelineConfig {
            control_period: Duration::from_nanos(self.control_period_ns),
            action_period: Duration::from_nanos(self.action_period_ns),
            interpolation: match self.interpolation {
                PI0_INTERPOLATION_NONE => Interpolation::None,
                PI0_INTERPOLATION_LINEAR => Interpolation::Linear,
                other => return unknown("interpolation", other),
            },
            splice: match self.splice {
                PI0_SPLICE_TIME => Splice::Time,
                PI0_SPLICE_COMMAND => Splice::Command,
                PI0_SPLICE_STATE => Splice::State,
                PI0_SPLICE_ARRIVAL => Splice::Arrival,
                other => return unknown("splice", other),
            },
            max_age: Duration::from_nanos(self.max_age_ns),
            hold_after: Duration::from_nanos(self.hold_after_ns),
            on_underrun: match self.on_underrun {
                PI0_UNDERRUN_HOLD => Underrun::HoldLast,
                PI0_UNDERRUN_RAMP => Underrun::RampToHold(Duration::from_nanos(self.ramp_ns)),
                PI0_UNDERRUN_FLAG_ONLY => Underrun::FlagOnly,
                other => return unknown("on_underrun", other),
            },
            max_missed_ticks: self.max_missed_ticks,
            step_limits: (!self.step_limits.is_null()).then(|| steps.to_vec()),
            trip_after: self.trip_after,
        })
    }
}

pub(super) fn unknown<T>(name: &str, value: u32) -> Result<T> {
    Err(Fail::argument(format!("{name} {value} is not known")))
}

/// # Safety
/// `given` is NULL or as its structure documents.
pub(super) unsafe fn limits(given: *const pi0_limits) -> Result<Option<ActionLimits>> {
    if given.is_null() {
        return Ok(None);
    }
    // SAFETY: as the caller promises, here and below.
    let given = unsafe { read_settings(given, "limits") }?;
    if given.len == 0 {
        return Err(Fail::new(PI0_ERR_SIZE, "limits.len is 0; give one value a joint"));
    }
    // SAFETY: as above.
    let (min, max) =
        unsafe { (slice(given.min, given.len, "limits.min")?, slice(given.max, given.len, "limits.max")?) };
    Ok(Some(ActionLimits { min: min.to_vec(), max: max.to_vec() }))
}

fn thread(given: &pi0_thread_config) -> Result<ThreadConfig> {
    // SAFETY: the documentation of the structure says what each pointer must be.
    let (cpus, worker_cpus) = unsafe {
        (
            slice(given.cpus, given.cpu_count, "cpus")?,
            slice(given.worker_cpus, given.worker_cpu_count, "worker_cpus")?,
        )
    };
    let numbers = |cpus: &[u32]| cpus.iter().map(|&cpu| cpu as usize).collect();
    if given.priority > 99 {
        return Err(Fail::argument(format!(
            "priority {}; use 1 to 99, or 0 to leave it alone",
            given.priority
        )));
    }
    Ok(ThreadConfig {
        realtime: match given.realtime {
            PI0_REALTIME_TRY => Realtime::Try,
            PI0_REALTIME_ENFORCE => Realtime::Enforce,
            PI0_REALTIME_OFF => Realtime::Off,
            other => return unknown("realtime", other),
        },
        priority: (given.priority > 0).then_some(given.priority as i32),
        cpus: numbers(cpus),
        worker_cpus: numbers(worker_cpus),
        lock_memory: match given.lock_memory {
            PI0_LOCK_OFF => MemoryLock::Off,
            PI0_LOCK_ON_FAULT => MemoryLock::OnFault,
            PI0_LOCK_ALL => MemoryLock::All,
            other => return unknown("lock_memory", other),
        },
        prefault_stack: usize::try_from(given.prefault_stack).unwrap_or(usize::MAX),
        keep_heap: given.keep_heap != 0,
    })
}
