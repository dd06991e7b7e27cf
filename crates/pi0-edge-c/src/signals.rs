//! Signals belong to the program: threads that are made here do not take them.

/// Runs `body` with the signals blocked that a program handles, so that the threads it makes inherit that. What a
/// thread brings on itself (SIGSEGV and its like) and profilers' ticks stay.
pub(super) fn signals_blocked<R>(body: impl FnOnce() -> R) -> R {
    let _restored = Blocked::new();
    body()
}

/// Puts the calling thread's mask back when dropped.
struct Blocked(libc::sigset_t);

impl Blocked {
    fn new() -> Self {
        const KEPT: [libc::c_int; 8] = [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGILL,
            libc::SIGTRAP,
            libc::SIGABRT,
            libc::SIGSYS,
            libc::SIGPROF,
        ];
        // SAFETY: both sets are valid to write to, and initialised before they are read.
        unsafe {
            let mut blocked: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&mut blocked);
            for signal in KEPT {
                libc::sigdelset(&mut blocked, signal);
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, &blocked, &mut before);
            Blocked(before)
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set is the one the thread had.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
    }
}
