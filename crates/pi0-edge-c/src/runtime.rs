//! The real-time runtime's owner: start, commands, events, statistics, stop.

use std::ffi::c_char;
use std::path::Path;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::at_exit::{self, not_exiting};
use super::boundary::{
    fixed_text, grows, guard, guard_with, not_null, pi0_error, put, read_settings_or_default, result_size,
    string, write_result,
};
use super::carrier::not_in_callback;
use super::config::{Settings, limits, pi0_limits, pi0_runtime_config};
use super::controller::{CONTROLLERS, Control, pi0_controller};
use super::event::{Courier, pi0_event};
use super::handle::Table;
use super::observation::{WRITERS, pi0_observation_writer};
use super::policy::{POLICIES, pi0_info, pi0_policy};
use super::rtc::{optional_rtc, pi0_rtc_config};
use super::signals::signals_blocked;
use super::stats::pi0_stats;
use super::status::{Fail, PI0_EMPTY, PI0_ERR_STATE, PI0_OK, Result, pi0_status};
use pi0_edge::runtime::{Event, PolicyInference, Realtime, Runtime};

/// A running runtime, for its owner. Its functions may be called from several threads at once.
#[derive(Debug)]
pub struct pi0_runtime {
    _opaque: (),
}

pub(super) static RUNTIMES: Table<pi0_runtime, Owner> = Table::new(2);

pub(super) struct Owner {
    runtime: Runtime,
    events: Receiver<Event>,
    courier: Courier,
    info: pi0_info,
}

/// The real-time rights of the inference thread, as read back from the system.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pi0_realtime {
    /// `sizeof(pi0_realtime)`; set it before the call.
    pub struct_size: usize,
    /// The part of the process's memory that is in RAM and locked there, in KiB.
    pub locked_kib: u64,
    /// Bytes of the thread's stack that were touched.
    pub stack_prefaulted: u64,
    /// Its priority; 0 where the scheduling policy has none.
    pub priority: i32,
    /// 1 if memory given back to the allocator stays with the process.
    pub heap_kept: u32,
    /// Number of things that were asked for and not obtained.
    pub missing_count: u32,
    /// `PI0_REALTIME_...` as configured.
    pub realtime: u32,
    /// Number of threads that work for it, ONNX Runtime's.
    pub worker_count: u32,
    /// 0.
    pub reserved: u32,
    /// The scheduling policy: `fifo`, `rr`, `other`, `batch`, `idle`, `deadline`, or `unknown`.
    pub scheduler: [c_char; 16],
    /// Names each thing that was not obtained, with why and what to do about it; what does not fit is cut off.
    pub missing: [c_char; 1024],
}
grows!(pi0_realtime, missing);

impl Owner {
    /// Stops inference, then the callback: for as long as it runs, or for `patience`.
    fn stop(&self, patience: Option<Duration>) -> Result {
        let ended = self.runtime.end();
        // After inference, so that its last events are told.
        self.courier.end(patience);
        Ok(ended?)
    }
}

/// Ends every runtime there is, as far as it can be.
pub(super) fn end_all(patience: Duration) {
    for handle in RUNTIMES.handles() {
        _ = match RUNTIMES.shared(handle) {
            Ok(owner) => owner.stop(Some(patience)),
            // Poisoned: all that can be done is to free it, which ends it too.
            Err(_) => RUNTIMES.free(handle),
        };
    }
}

/// Starts inference on a thread of its own, and returns once the policy is warmed up there.
///
/// Takes the policy over, whatever the outcome: its handle is one no more. `config` may be NULL for the defaults.
/// Gives three handles: `runtime` for the owner, `writer` for the thread that has the sensors, `controller` for the
/// control loop. Each is freed on its own, in any order. `error` may be NULL; it is written when the call fails.
///
/// Threads made here leave the signals a program handles to the program's own threads. When the process exits, they
/// are ended first.
///
/// RT-safe: no. Thread: any.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_ARGUMENT, PI0_ERR_STRUCT_SIZE, PI0_ERR_SIZE,
/// PI0_ERR_LIMIT, PI0_ERR_STATE (the process is exiting), PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_OBSERVATION,
/// PI0_ERR_NON_FINITE, PI0_ERR_OUT_OF_LIMITS, PI0_ERR_GRAPH, PI0_ERR_INTEGRITY, PI0_ERR_IO, PI0_ERR_REALTIME_DENIED,
/// PI0_ERR_RUNTIME, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_runtime_start(
    policy: *mut pi0_policy,
    config: *const pi0_runtime_config,
    runtime: *mut *mut pi0_runtime,
    writer: *mut *mut pi0_observation_writer,
    controller: *mut *mut pi0_controller,
    error: *mut pi0_error,
) -> pi0_status {
    let body = || {
        let policy = POLICIES.take(policy)?;
        not_null(runtime, "runtime is NULL")?;
        not_null(writer, "writer is NULL")?;
        not_null(controller, "controller is NULL")?;
        // SAFETY: `config` is NULL or as documented.
        let settings = unsafe { read_settings_or_default(config) }?.settings()?;
        let handles = start(*policy, settings)?;
        // SAFETY: none is NULL, so they are valid to write to as documented.
        unsafe {
            put(runtime, handles.0, "runtime")?;
            put(writer, handles.1, "writer")?;
            put(controller, handles.2, "controller")
        }
    };
    // SAFETY: `error` is NULL or valid, as documented.
    unsafe { guard_with(error, body) }
}

type Handles = (*mut pi0_runtime, *mut pi0_observation_writer, *mut pi0_controller);

fn start(policy: pi0_edge::Policy, settings: Settings) -> Result<Handles> {
    not_exiting()?;
    let info = pi0_info::new(policy.manifest());
    let (runtime, writer, controller) = signals_blocked(|| -> Result<_> {
        let inference = PolicyInference::new(policy, settings.inference)?;
        Ok(Runtime::start(inference, &settings.runtime)?)
    })?;
    // After warming up, so that ONNX Runtime's statics exist.
    at_exit::register();
    log::info!(target: "pi0_edge::ffi::runtime", "inference thread: {:?}", runtime.realtime());
    let writer = WRITERS.insert(writer)?;
    let control = Control { controller, action_dim: info.action_dim as usize };
    let controller = CONTROLLERS.insert(control).inspect_err(|_| _ = WRITERS.free(writer))?;
    // The callback last: nothing fails after it that would have to wait for it.
    let runtime = RUNTIMES.insert_with(|| {
        let events = runtime.events().clone();
        let courier = Courier::start(settings.sink, events.clone())?;
        Ok(Owner { runtime, events, courier, info })
    });
    let runtime = runtime.inspect_err(|_| {
        _ = WRITERS.free(writer);
        _ = CONTROLLERS.free(controller);
    })?;
    Ok((runtime, writer, controller))
}

/// Stops inference and waits for its thread to end, for as long as the configuration says. From then on reads are
/// `PI0_HOLD`; events, statistics and the flight record can still be had. Stopping again does nothing. If inference
/// does not come back in time its thread is left behind, and that is `PI0_ERR_RUNTIME`. `error` may be NULL.
///
/// Waits for an event callback that is running, which may call anything meanwhile; so the caller must hold no lock of
/// its own that the callback takes.
///
/// RT-safe: no. Thread: any but a callback's.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_POISONED, PI0_ERR_FORKED,
/// PI0_ERR_RUNTIME, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_runtime_stop(runtime: *mut pi0_runtime, error: *mut pi0_error) -> pi0_status {
    // SAFETY: `error` is NULL or valid, as documented.
    unsafe { guard_with(error, || stop(runtime)) }
}

fn stop(runtime: *const pi0_runtime) -> Result {
    let owner = RUNTIMES.shared(runtime)?;
    not_in_callback("a callback cannot stop a runtime: stopping waits for callbacks")?;
    owner.stop(None)
}

/// Stops a runtime if it is running, and frees it. NULL is fine. The writer and the controller stay and are freed on
/// their own; reads are `PI0_HOLD` from then on. Refused while another call with this handle is going on.
///
/// RT-safe: no. Thread: any but a callback's.
/// Statuses: PI0_OK, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_runtime_free(runtime: *mut pi0_runtime) -> pi0_status {
    guard(|| {
        if runtime.is_null() {
            return Ok(());
        }
        not_in_callback("a callback cannot free a runtime: freeing waits for callbacks")?;
        // Stopped while the handle is still there, because an event callback may be using it.
        if let Ok(owner) = RUNTIMES.shared(runtime)
            && let Err(fail) = owner.stop(None)
        {
            log::warn!(target: "pi0_edge::ffi::runtime", "{}", fail.message);
        }
        RUNTIMES.free(runtime)
    })
}

/// Tells what the policy behind a runtime takes and gives.
///
/// RT-safe: no. Thread: any.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_STRUCT_SIZE, PI0_ERR_POISONED,
/// PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_runtime_info(runtime: *const pi0_runtime, info: *mut pi0_info) -> pi0_status {
    guard(|| {
        let owner = RUNTIMES.shared(runtime)?;
        // SAFETY: `info` is NULL or as documented.
        unsafe { write_result(info, &owner.info, "info is NULL") }
    })
}

/// Tells what the inference thread was given of what it was to have.
///
/// RT-safe: no. Thread: any.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_STRUCT_SIZE, PI0_ERR_POISONED,
/// PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_runtime_realtime(
    runtime: *const pi0_runtime,
    realtime: *mut pi0_realtime,
) -> pi0_status {
    guard(|| {
        let owner = RUNTIMES.shared(runtime)?;
        let obtained = owner.runtime.realtime();
        let missing: Vec<String> =
            obtained.missing.iter().map(|m| format!("{}: {}", m.what, m.why)).collect();
        let result = pi0_realtime {
            struct_size: size_of::<pi0_realtime>(),
            locked_kib: obtained.locked_kib,
            stack_prefaulted: obtained.stack_prefaulted as u64,
            priority: obtained.priority,
            heap_kept: u32::from(obtained.heap_kept),
            missing_count: missing.len() as u32,
            realtime: match obtained.realtime {
                Realtime::Try => super::config::PI0_REALTIME_TRY,
                Realtime::Enforce => super::config::PI0_REALTIME_ENFORCE,
                Realtime::Off => super::config::PI0_REALTIME_OFF,
            },
            worker_count: obtained.workers.len() as u32,
            reserved: 0,
            scheduler: fixed_text(obtained.scheduler),
            missing: fixed_text(&missing.join("; ")),
        };
        // SAFETY: `realtime` is NULL or as documented.
        unsafe { write_result(realtime, &result, "realtime is NULL") }
    })
}

/// From now on tells systemd how inference goes, where the program is a service of `Type=notify`: READY=1 at once,
/// WATCHDOG=1 as chunks are completed and for nothing else, what `systemctl status` shows, and STOPPING=1 when the
/// runtime is stopped. Call it once everything else the program needs is ready too. `found` may be NULL; it is set to
/// 1 if there is a systemd that wants to know (`$NOTIFY_SOCKET`), to 0 if there is none. `error` may be NULL.
///
/// RT-safe: no. Thread: any.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_ARGUMENT (the environment is not what
/// systemd sets), PI0_ERR_IO (nobody listens), PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_runtime_notify_systemd(
    runtime: *mut pi0_runtime,
    found: *mut u32,
    error: *mut pi0_error,
) -> pi0_status {
    let body = || {
        let owner = RUNTIMES.shared(runtime)?;
        let wanted = owner.runtime.notify_systemd()?;
        if !found.is_null() {
            // SAFETY: not NULL, so valid to write to as documented.
            unsafe { put(found, u32::from(wanted), "found") }?;
        }
        Ok(())
    };
    // SAFETY: `error` is NULL or valid, as documented.
    unsafe { guard_with(error, body) }
}

/// Begins a new episode: the robot was put somewhere else, or its task starts anew. The plan, what it leaves over and the
/// held action are dropped; reads are `PI0_EMPTY` from now on until there is a chunk of an observation that was captured
/// and published after this call, and that chunk is guided by none before it. What is being computed meanwhile is never
/// followed. A trip of the step limit stays until it is cleared; `pi0_controller_set_reference` may tell where the robot
/// is now.
///
/// RT-safe: yes. Thread: any.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
#[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
pub unsafe extern "C" fn pi0_runtime_begin_episode(runtime: *mut pi0_runtime) -> pi0_status {
    guard(|| {
        RUNTIMES.shared(runtime)?.runtime.begin_episode();
        Ok(())
    })
}

/// Sets the prompt (UTF-8). A chunk being computed is dropped and begun anew; the one being executed goes on until
/// the new one takes over. Whether the policy takes the prompt shows later: a `PI0_EVENT_COMMAND_FAILED` if not.
///
/// RT-safe: no. Thread: any.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_ARGUMENT, PI0_ERR_POISONED, PI0_ERR_FORKED,
/// PI0_ERR_RUNTIME (stopped, given up, or 16 commands are waiting), PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_runtime_set_prompt(
    runtime: *mut pi0_runtime,
    prompt: *const c_char,
) -> pi0_status {
    guard(|| {
        let owner = RUNTIMES.shared(runtime)?;
        // SAFETY: `prompt` is NULL or a string, as documented.
        let prompt = unsafe { string(prompt, "prompt") }?;
        Ok(owner.runtime.set_prompt(prompt)?)
    })
}

/// Sets the number of denoise steps, 1 to `max_num_steps`. A chunk being computed is dropped and begun anew. A number
/// that cannot be used shows later, as `PI0_EVENT_COMMAND_FAILED`.
///
/// RT-safe: no. Thread: any.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_ARGUMENT, PI0_ERR_POISONED, PI0_ERR_FORKED,
/// PI0_ERR_RUNTIME (stopped, given up, or 16 commands are waiting), PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_runtime_set_num_steps(runtime: *mut pi0_runtime, num_steps: u32) -> pi0_status {
    guard(|| {
        let owner = RUNTIMES.shared(runtime)?;
        let most = owner.info.max_num_steps;
        if !(1..=most).contains(&num_steps) {
            return Err(Fail::argument(format!("num_steps {num_steps}; use 1 to {most}")));
        }
        Ok(owner.runtime.set_num_steps(num_steps as usize)?)
    })
}

/// Sets the limits chunks must keep to, from the next one finished on. NULL: values must be finite, that is all.
/// Limits that cannot be used show later, as `PI0_EVENT_COMMAND_FAILED`.
///
/// RT-safe: no. Thread: any.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_STRUCT_SIZE, PI0_ERR_SIZE, PI0_ERR_POISONED,
/// PI0_ERR_FORKED, PI0_ERR_RUNTIME (stopped, given up, or 16 commands are waiting), PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_runtime_set_limits(
    runtime: *mut pi0_runtime,
    limits: *const pi0_limits,
) -> pi0_status {
    guard(|| {
        let owner = RUNTIMES.shared(runtime)?;
        // SAFETY: `limits` is NULL or as documented.
        let limits = unsafe { self::limits(limits) }?;
        Ok(owner.runtime.set_limits(limits)?)
    })
}

/// Turns real-time chunking on or to other settings, or off by NULL, from the next chunk begun on. Settings that
/// cannot be used show later, as `PI0_EVENT_COMMAND_FAILED`.
///
/// RT-safe: no. Thread: any.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_ARGUMENT, PI0_ERR_STRUCT_SIZE,
/// PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_RUNTIME (stopped, given up, or 16 commands are waiting), PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_runtime_set_rtc(
    runtime: *mut pi0_runtime,
    rtc: *const pi0_rtc_config,
) -> pi0_status {
    guard(|| {
        let owner = RUNTIMES.shared(runtime)?;
        // SAFETY: `rtc` is NULL or as documented.
        let rtc = unsafe { optional_rtc(rtc) }?;
        Ok(owner.runtime.set_rtc(rtc)?)
    })
}

/// Tells what was counted so far. Takes no lock that the control loop or inference could wait for.
///
/// RT-safe: no. Thread: any.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_STRUCT_SIZE, PI0_ERR_POISONED,
/// PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_runtime_stats(runtime: *const pi0_runtime, stats: *mut pi0_stats) -> pi0_status {
    guard(|| {
        let owner = RUNTIMES.shared(runtime)?;
        let result = pi0_stats::new(&owner.runtime.stats(), owner.courier.lost());
        // SAFETY: `stats` is NULL or as documented.
        unsafe { write_result(stats, &result, "stats is NULL") }
    })
}

/// The next event, waiting for it for up to `timeout_ns` (0: not at all). `PI0_EMPTY`, and nothing written, if there
/// is none by then. For runtimes that were given neither a callback nor a file descriptor for events.
///
/// RT-safe: no. Thread: any.
/// Statuses: PI0_OK, PI0_EMPTY, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_STATE, PI0_ERR_STRUCT_SIZE,
/// PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_runtime_next_event(
    runtime: *mut pi0_runtime,
    timeout_ns: u64,
    event: *mut pi0_event,
) -> pi0_status {
    guard(|| {
        let owner = RUNTIMES.shared(runtime)?;
        if owner.courier.carries() {
            return Err(Fail::new(PI0_ERR_STATE, "events go to a callback or a file descriptor"));
        }
        // SAFETY: `event` is NULL or as documented. Before an event is taken, which could not be put back.
        unsafe { result_size(event, "event is NULL") }?;
        match owner.events.recv_timeout(Duration::from_nanos(timeout_ns)) {
            Ok(next) => {
                // SAFETY: as above.
                unsafe { write_result(event, &pi0_event::new(&next), "event is NULL") }?;
                Ok(PI0_OK)
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(PI0_EMPTY),
        }
    })
}

/// Writes the last control ticks and chunks to a file, as JSON: all of it or nothing. `error` may be NULL.
///
/// RT-safe: no. Thread: any.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_ARGUMENT, PI0_ERR_POISONED, PI0_ERR_FORKED,
/// PI0_ERR_IO, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_runtime_write_flight_record(
    runtime: *const pi0_runtime,
    path: *const c_char,
    error: *mut pi0_error,
) -> pi0_status {
    let body = || {
        let owner = RUNTIMES.shared(runtime)?;
        // SAFETY: `path` is NULL or a string, as documented.
        let path = unsafe { string(path, "path") }?;
        Ok(owner.runtime.write_flight_record(Path::new(path))?)
    };
    // SAFETY: `error` is NULL or valid, as documented.
    unsafe { guard_with(error, body) }
}

/// Stops a runtime as `pi0_runtime_stop` does and gives its policy back, whether inference had given up or not: it can
/// be started again, or compute chunks one by one, without being loaded. The runtime's handle stays, for what happened
/// to be asked for, and is freed on its own. `error` may be NULL.
///
/// RT-safe: no. Thread: any but a callback's.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_STATE (it was taken before,
/// or hit a bug and is not used again), PI0_ERR_LIMIT, PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_RUNTIME,
/// PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_runtime_take_policy(
    runtime: *mut pi0_runtime,
    policy: *mut *mut pi0_policy,
    error: *mut pi0_error,
) -> pi0_status {
    let body = || {
        let owner = RUNTIMES.shared(runtime)?;
        not_null(policy, "policy is NULL")?;
        stop(runtime)?;
        let handle = POLICIES.insert_with(|| {
            let inference = owner.runtime.take();
            let gone = Fail::new(PI0_ERR_STATE, "the policy was taken before, or hit a bug; load it anew");
            inference.map(PolicyInference::into_policy).ok_or(gone)
        })?;
        // SAFETY: not NULL, so valid to write to as documented.
        unsafe { put(policy, handle, "policy") }
    };
    // SAFETY: `error` is NULL or valid, as documented.
    unsafe { guard_with(error, body) }
}
