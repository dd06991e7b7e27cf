//! Threads that call the program's callbacks.
//!
//! A callback may call any function but those that wait for callbacks. So whoever waits for one of these threads holds
//! no lock and no handle that a callback could want, and is itself none of them.

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::signals::signals_blocked;
use super::status::{Fail, PI0_ERR_RUNTIME, PI0_ERR_THREAD, Result};

thread_local! {
    static IS_CARRIER: Cell<bool> = const { Cell::new(false) };
}

/// Refuses a call that waits for callbacks from a callback.
pub(super) fn not_in_callback(what: &'static str) -> Result {
    if IS_CARRIER.get() { Err(Fail::new(PI0_ERR_THREAD, what)) } else { Ok(()) }
}

/// A thread that calls the program's callbacks.
#[derive(Debug)]
pub(super) struct Carrier {
    thread: ThreadId,
    /// None once somebody has joined it.
    handle: Mutex<Option<JoinHandle<()>>>,
    /// Disconnected once the thread has ended.
    ended: Receiver<()>,
}

impl Carrier {
    pub(super) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<Carrier> {
        let (running, ended) = bounded(0);
        let run = move || {
            // Dropped last, whichever way the body ends.
            let _running: Sender<()> = running;
            IS_CARRIER.set(true);
            body();
        };
        let builder = std::thread::Builder::new().name(name.into());
        let handle = signals_blocked(|| builder.spawn(run));
        let handle =
            handle.map_err(|e| Fail::new(PI0_ERR_RUNTIME, format!("starting thread {name}: {e}")))?;
        Ok(Carrier { thread: handle.thread().id(), handle: Mutex::new(Some(handle)), ended })
    }

    /// Refuses a call that waits for this thread from this thread.
    pub(super) fn not_itself(&self, what: &'static str) -> Result {
        if self.is_current() { Err(Fail::new(PI0_ERR_THREAD, what)) } else { Ok(()) }
    }

    fn is_current(&self) -> bool {
        std::thread::current().id() == self.thread
    }

    /// Waits for the thread, which must have been told to end: for ever, or for `patience`. Several may wait at once.
    /// The thread does not wait for itself.
    pub(super) fn join(&self, patience: Option<Duration>) {
        if self.is_current() {
            return;
        }
        let ended = match patience {
            None => self.ended.recv().is_err(),
            Some(patience) => self.ended.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected),
        };
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(handle) = handle.filter(|_| ended) {
            // It does not panic: a callback that throws ends the program, as documented.
            _ = handle.join();
        }
    }
}
