//! The real-time runtime's owner: start, commands, events, statistics, stop.

use std::ffi::c_char;
use std::path::Path;
use std::sync::{Mutex, PoisonError, RwLock};
use std::thread::ThreadId;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::at_exit;
use super::boundary::{
    fixed_text, grows, guard, guard_with, not_null, pi0_error, put, read_settings_or_default, result_size,
    string, write_result,
};
use super::config::{Settings, limits, pi0_limits, pi0_runtime_config};
use super::controller::{CONTROLLERS, Control, pi0_controller};
use super::event::{Courier, pi0_event};
use super::handle::Table;
use super::observation::{WRITERS, pi0_observation_writer};
use super::policy::{POLICIES, pi0_info, pi0_policy};
use super::rtc::{optional_rtc, pi0_rtc_config};
use super::signals::signals_blocked;
use super::stats::pi0_stats;
use super::status::{
    Fail, PI0_EMPTY, PI0_ERR_POISONED, PI0_ERR_STATE, PI0_ERR_THREAD, PI0_OK, Result, pi0_status,
};
use pi0_edge::runtime::{Event, PolicyInference, Realtime, Runtime};

/// A running runtime, for its owner. Its functions may be called from several threads at once.
#[derive(Debug)]
pub struct pi0_runtime {
    _opaque: (),
}

pub(super) static RUNTIMES: Table<pi0_runtime, Owner> = Table::new(2);

pub(super) struct Owner {
    runtime: RwLock<Runtime>,
    events: Receiver<Event>,
    courier: Mutex<Courier>,
    /// The courier's thread, which cannot wait for itself.
    courier_thread: Option<ThreadId>,
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
    fn read(&self) -> Result<std::sync::RwLockReadGuard<'_, Runtime>> {
        self.runtime.read().map_err(|_| Fail::new(PI0_ERR_POISONED, "an earlier call hit a bug"))
    }

    fn not_the_courier(&self) -> Result {
        if self.courier_thread == Some(std::thread::current().id()) {
            return Err(Fail::new(PI0_ERR_THREAD, "an event callback cannot stop the runtime that calls it"));
        }
        Ok(())
    }

    fn stop(&self) -> Result {
        self.not_the_courier()?;
        let ended = match self.runtime.write() {
            Ok(mut runtime) => runtime.end(),
            Err(poisoned) => poisoned.into_inner().end(),
        };
        // After inference, so that its last events are told.
        self.courier.lock().unwrap_or_else(PoisonError::into_inner).end();
        Ok(ended?)
    }
}

/// Ends every runtime there is, as far as it can be.
pub(super) fn end_all() {
    for handle in RUNTIMES.handles() {
        _ = match RUNTIMES.shared(handle) {
            Ok(owner) => owner.stop(),
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
/// PI0_ERR_LIMIT, PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_OBSERVATION, PI0_ERR_NON_FINITE, PI0_ERR_OUT_OF_LIMITS,
/// PI0_ERR_GRAPH, PI0_ERR_IO, PI0_ERR_REALTIME_DENIED, PI0_ERR_RUNTIME, PI0_ERR_PANIC.
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
    let info = pi0_info::new(policy.manifest());
    let (runtime, writer, controller, courier, events) = signals_blocked(|| -> Result<_> {
        let inference = PolicyInference::new(policy, settings.inference)?;
        let (runtime, writer, controller) = Runtime::start(inference, &settings.runtime)?;
        let events = runtime.events().clone();
        let courier = Courier::start(settings.sink, events.clone())?;
        Ok((runtime, writer, controller, courier, events))
    })?;
    // After warming up, so that ONNX Runtime's statics exist.
    at_exit::register();
    log::info!(target: "pi0_edge::ffi::runtime", "inference thread: {:?}", runtime.realtime());
    let owner = Owner {
        runtime: RwLock::new(runtime),
        events,
        courier_thread: courier.thread_id(),
        courier: Mutex::new(courier),
        info,
    };
    let runtime = RUNTIMES.insert(owner)?;
    let rest = WRITERS.insert(writer).and_then(|writer| {
        let control = Control { controller, action_dim: info.action_dim as usize };
        let controller = CONTROLLERS.insert(control).inspect_err(|_| _ = WRITERS.free(writer))?;
        Ok((writer, controller))
    });
    match rest {
        Ok((writer, controller)) => Ok((runtime, writer, controller)),
        Err(fail) => {
            // Dropping it stops it.
            _ = RUNTIMES.free(runtime);
            Err(fail)
        }
    }
}

/// Stops inference and waits for its thread to end, for as long as the configuration says. From then on reads are
/// `PI0_HOLD`; events, statistics and the flight record can still be had. Stopping again does nothing. If inference
/// does not come back in time its thread is left behind, and that is `PI0_ERR_RUNTIME`. `error` may be NULL.
///
/// RT-safe: no. Thread: any but a callback's.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_POISONED, PI0_ERR_FORKED,
/// PI0_ERR_RUNTIME, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_runtime_stop(runtime: *mut pi0_runtime, error: *mut pi0_error) -> pi0_status {
    // SAFETY: `error` is NULL or valid, as documented.
    unsafe { guard_with(error, || RUNTIMES.shared(runtime)?.stop()) }
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
        // Stopped while the handle is still there, because an event callback may be using it.
        if let Ok(owner) = RUNTIMES.shared(runtime) {
            owner.not_the_courier()?;
            if let Err(fail) = owner.stop() {
                log::warn!(target: "pi0_edge::ffi::runtime", "{}", fail.message);
            }
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
        let guard = owner.read()?;
        let obtained = guard.realtime();
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
        let wanted = owner.read()?.notify_systemd()?;
        if !found.is_null() {
            // SAFETY: not NULL, so valid to write to as documented.
            unsafe { put(found, u32::from(wanted), "found") }?;
        }
        Ok(())
    };
    // SAFETY: `error` is NULL or valid, as documented.
    unsafe { guard_with(error, body) }
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
        Ok(owner.read()?.set_prompt(prompt)?)
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
        Ok(owner.read()?.set_num_steps(num_steps as usize)?)
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
        Ok(owner.read()?.set_limits(limits)?)
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
        Ok(owner.read()?.set_rtc(rtc)?)
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
        let lost = owner.courier.lock().unwrap_or_else(PoisonError::into_inner).lost();
        let result = pi0_stats::new(&owner.read()?.stats(), lost);
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
        if owner.courier_thread.is_some() {
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
        Ok(owner.read()?.write_flight_record(Path::new(path))?)
    };
    // SAFETY: `error` is NULL or valid, as documented.
    unsafe { guard_with(error, body) }
}
