//! The end of the process: threads are joined before ONNX Runtime's statics go.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::handle::forked;
use super::status::{Fail, PI0_ERR_STATE, Result};
use super::{log, runtime};

/// The time that exit waits for a callback that is running. It may be the one that called exit, or wait for it.
const PATIENCE: Duration = Duration::from_secs(5);

static EXITING: AtomicBool = AtomicBool::new(false);
static ENDED: Once = Once::new();

fn end_everything() {
    // Release pairs with the Acquire below, for tidiness; the flag carries no data.
    EXITING.store(true, Ordering::Release);
    runtime::end_all(PATIENCE);
    log::end(PATIENCE);
    // Once more, for what a callback started meanwhile.
    runtime::end_all(Duration::ZERO);
}

/// Refuses what would need ONNX Runtime once the process is exiting.
pub(super) fn not_exiting() -> Result {
    // Acquire, as said above.
    if EXITING.load(Ordering::Acquire) {
        return Err(Fail::new(PI0_ERR_STATE, "the process is exiting"));
    }
    Ok(())
}

/// Has everything ended when the process exits. To be called after what must outlive our threads was made: handlers
/// run in the opposite order, so the last registration decides.
pub(super) fn register() {
    extern "C" fn end() {
        // A fork's child has none of the threads, and would wait for them for ever.
        if !forked() {
            // Several threads may call exit: the others wait here for the first.
            _ = std::panic::catch_unwind(|| ENDED.call_once(end_everything));
        }
    }
    // SAFETY: the handler is there for ever: the library is never unloaded.
    unsafe { libc::atexit(end) };
}
