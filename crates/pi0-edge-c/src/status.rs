//! Statuses: what every function of the C interface returns.

use std::borrow::Cow;
use std::ffi::{CStr, c_char};

use pi0_edge::{Error, ErrorKind};

/// The outcome of a call: 0 is success, negative is an error, positive is a condition. Numbers never change their
/// meaning and are never used again.
pub type pi0_status = i32;

/// Done.
pub const PI0_OK: pi0_status = 0;

/// There is an action, but its observation is older than `max_age_ns`; the plan is still followed.
pub const PI0_STALE: pi0_status = 1;
/// The plan is not followed any more: the last action is held, or motion is coming to rest. Flags say why.
pub const PI0_HOLD: pi0_status = 2;
/// There is nothing yet: no chunk to execute, or no event waiting.
pub const PI0_EMPTY: pi0_status = 3;

/// A pointer that must not be NULL is.
pub const PI0_ERR_NULL: pi0_status = -1;
/// The handle is not one of this kind that is alive: it was freed or taken over, or never was one.
pub const PI0_ERR_HANDLE: pi0_status = -2;
/// Another call with this handle is going on. Nothing was done.
pub const PI0_ERR_BUSY: pi0_status = -3;
/// The handle belongs to another thread, or the function may not be called from a callback. Nothing was done.
pub const PI0_ERR_THREAD: pi0_status = -4;
/// Not at this time: for example, waiting for events that a callback already gets.
pub const PI0_ERR_STATE: pi0_status = -5;
/// An argument or setting is outside its range, contradicts another one, or is not UTF-8.
pub const PI0_ERR_ARGUMENT: pi0_status = -6;
/// A structure's `struct_size` is not that of any release up to this library's.
pub const PI0_ERR_STRUCT_SIZE: pi0_status = -7;
/// An array or buffer does not have the size it must have.
pub const PI0_ERR_SIZE: pi0_status = -8;
/// A bug in pi0-edge was stopped at its border. The handle is good for nothing but being freed.
pub const PI0_ERR_PANIC: pi0_status = -9;
/// An earlier call with this handle ended in `PI0_ERR_PANIC`: all that is left is to free it.
pub const PI0_ERR_POISONED: pi0_status = -10;
/// The process was forked, and this is the child: handles are the parent's. Open anew after `exec`.
pub const PI0_ERR_FORKED: pi0_status = -11;
/// There are as many handles of this kind as there can be.
pub const PI0_ERR_LIMIT: pi0_status = -12;
/// The capture time is later than now: it is from another clock than CLOCK_MONOTONIC.
pub const PI0_ERR_FUTURE: pi0_status = -13;
/// The capture time is before that of the observation published last.
pub const PI0_ERR_ORDER: pi0_status = -14;

/// A file or directory could not be read or written.
pub const PI0_ERR_IO: pi0_status = -20;
/// The bundle's manifest is missing, unreadable, of an unknown version, or contradicts itself.
pub const PI0_ERR_MANIFEST: pi0_status = -21;
/// A bundle file is missing, has the wrong size or hash, or holds what a bundle may not hold.
pub const PI0_ERR_INTEGRITY: pi0_status = -22;
/// ONNX Runtime's shared library was not found, is too old, or is another than the one already loaded.
pub const PI0_ERR_LIBRARY: pi0_status = -23;
/// An execution provider that was asked for could not be used.
pub const PI0_ERR_PROVIDER: pi0_status = -24;
/// A graph could not be loaded, does not match the manifest, or failed while running.
pub const PI0_ERR_GRAPH: pi0_status = -25;
/// The observation does not fit the bundle: camera, image, state or prompt.
pub const PI0_ERR_OBSERVATION: pi0_status = -26;
/// A value that must be finite is NaN or infinite.
pub const PI0_ERR_NON_FINITE: pi0_status = -27;
/// An action is outside of the bundle's limits.
pub const PI0_ERR_OUT_OF_LIMITS: pi0_status = -28;
/// The outputs differ from the reference policy's by more than the bundle's tolerance.
pub const PI0_ERR_PARITY: pi0_status = -29;
/// A real-time right that was insisted on (priority, CPU affinity, locked memory) is missing.
pub const PI0_ERR_REALTIME_DENIED: pi0_status = -30;
/// The real-time runtime could not start, has given up, or is gone.
pub const PI0_ERR_RUNTIME: pi0_status = -31;
/// TensorRT engines are missing, damaged, not the user's own, or made for something else.
pub const PI0_ERR_ENGINE: pi0_status = -32;

/// A status in words: a short sentence without a full stop, in static memory. Any number is fine.
///
/// RT-safe: yes. Thread: any.
#[unsafe(no_mangle)]
#[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
pub extern "C" fn pi0_status_str(status: pi0_status) -> *const c_char {
    words(status).as_ptr()
}

fn words(status: pi0_status) -> &'static CStr {
    match status {
        PI0_OK => c"done",
        PI0_STALE => c"the action's observation is too old, the plan is still followed",
        PI0_HOLD => c"the plan is not followed, the last action is held",
        PI0_EMPTY => c"there is nothing yet",
        PI0_ERR_NULL => c"a pointer that must not be NULL is",
        PI0_ERR_HANDLE => c"the handle is not one of this kind that is alive",
        PI0_ERR_BUSY => c"another call with this handle is going on",
        PI0_ERR_THREAD => c"not from this thread",
        PI0_ERR_STATE => c"not at this time",
        PI0_ERR_ARGUMENT => c"an argument or setting is outside its range",
        PI0_ERR_STRUCT_SIZE => c"a structure's struct_size fits no release up to this library's",
        PI0_ERR_SIZE => c"an array or buffer does not have the size it must have",
        PI0_ERR_PANIC => c"a bug in pi0-edge was stopped at its border",
        PI0_ERR_POISONED => c"an earlier call with this handle hit a bug, it can only be freed",
        PI0_ERR_FORKED => c"the process was forked, handles are the parent's",
        PI0_ERR_LIMIT => c"there are as many handles of this kind as there can be",
        PI0_ERR_FUTURE => c"the capture time is later than now",
        PI0_ERR_ORDER => c"the capture time is before that of the last observation",
        PI0_ERR_IO => c"a file could not be read or written",
        PI0_ERR_MANIFEST => c"the bundle's manifest is not usable",
        PI0_ERR_INTEGRITY => c"a file of the bundle is not what it must be",
        PI0_ERR_LIBRARY => c"ONNX Runtime could not be loaded",
        PI0_ERR_PROVIDER => c"the execution provider could not be used",
        PI0_ERR_GRAPH => c"a graph could not be loaded or run",
        PI0_ERR_OBSERVATION => c"the observation does not fit the bundle",
        PI0_ERR_NON_FINITE => c"a value that must be finite is not",
        PI0_ERR_OUT_OF_LIMITS => c"an action is out of limits",
        PI0_ERR_PARITY => c"the outputs differ from the reference policy's",
        PI0_ERR_REALTIME_DENIED => c"a real-time right that was insisted on is missing",
        PI0_ERR_RUNTIME => c"the runtime could not start, has given up, or is gone",
        PI0_ERR_ENGINE => c"the TensorRT engines are missing or not to be used",
        _ => c"no status of this library",
    }
}

/// The failure of a call: its status, and for a human what, where and what to do.
#[derive(Debug)]
pub(super) struct Fail {
    pub(super) status: pi0_status,
    pub(super) message: Cow<'static, str>,
}

impl Fail {
    /// Allocates nothing if `message` is static.
    pub(super) fn new(status: pi0_status, message: impl Into<Cow<'static, str>>) -> Self {
        Fail { status, message: message.into() }
    }

    pub(super) fn argument(message: impl Into<Cow<'static, str>>) -> Self {
        Fail::new(PI0_ERR_ARGUMENT, message)
    }
}

impl From<Error> for Fail {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::Io => PI0_ERR_IO,
            ErrorKind::Manifest => PI0_ERR_MANIFEST,
            ErrorKind::Integrity => PI0_ERR_INTEGRITY,
            ErrorKind::Library => PI0_ERR_LIBRARY,
            ErrorKind::Provider => PI0_ERR_PROVIDER,
            ErrorKind::Engine => PI0_ERR_ENGINE,
            ErrorKind::Graph => PI0_ERR_GRAPH,
            ErrorKind::Observation => PI0_ERR_OBSERVATION,
            ErrorKind::InvalidArgument => PI0_ERR_ARGUMENT,
            ErrorKind::NonFinite => PI0_ERR_NON_FINITE,
            ErrorKind::OutOfLimits => PI0_ERR_OUT_OF_LIMITS,
            ErrorKind::Parity => PI0_ERR_PARITY,
            ErrorKind::RealtimeDenied => PI0_ERR_REALTIME_DENIED,
            ErrorKind::Runtime => PI0_ERR_RUNTIME,
        };
        Fail::new(status, error.to_string())
    }
}

pub(super) type Result<T = ()> = std::result::Result<T, Fail>;
