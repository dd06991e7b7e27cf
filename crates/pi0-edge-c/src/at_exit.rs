//! The end of the process: threads are joined before ONNX Runtime's statics go.

use super::handle::forked;
use super::{log, runtime};

/// Has everything ended when the process exits. To be called after what must outlive our threads was made: handlers
/// run in the opposite order, so the last registration decides.
pub(super) fn register() {
    extern "C" fn end() {
        // A fork's child has none of the threads, and would wait for them for ever.
        if !forked() {
            _ = std::panic::catch_unwind(|| {
                runtime::end_all();
                log::end();
            });
        }
    }
    // SAFETY: the handler is there for ever: the library is never unloaded.
    unsafe { libc::atexit(end) };
}
