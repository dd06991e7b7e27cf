//! Which library this is.

use std::ffi::{CStr, c_char};

const VERSION: &CStr = {
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("the version holds a NUL"),
    }
};

/// The version of the library that is running, for example `"0.1.0"`. That of the header is `PI0_VERSION`; programs
/// run with any library of the same major and minor version that is not older than their header.
///
/// RT-safe: yes. Thread: any.
#[unsafe(no_mangle)]
#[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
pub extern "C" fn pi0_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The time now on CLOCK_MONOTONIC, in nanoseconds: the clock of every time in this interface.
///
/// RT-safe: yes. Thread: any.
#[unsafe(no_mangle)]
#[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
pub extern "C" fn pi0_now_ns() -> u64 {
    pi0_edge::runtime::Timestamp::now().as_nanos()
}
