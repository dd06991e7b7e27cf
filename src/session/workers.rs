//! ONNX Runtime's worker threads, made here so that it is known which they are.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use ort::environment::ThreadManager;

/// A thread's stack as the C library gives it unless told otherwise, which ONNX Runtime's kernels expect.
const STACK: usize = 8 << 20;

/// The worker threads of one graph, by Linux thread id. Clones are the same list.
#[derive(Debug, Clone, Default)]
pub(super) struct Workers(Arc<Mutex<Vec<i32>>>);

impl Workers {
    /// The threads made so far. They have all said who they are by the time the graph is loaded.
    pub(super) fn ids(&self) -> Vec<i32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ThreadManager for Workers {
    type Thread = JoinHandle<()>;

    fn create(&self, work: impl FnOnce() + Send + 'static) -> ort::Result<JoinHandle<()>> {
        let (ids, (here, known)) = (Arc::clone(&self.0), std::sync::mpsc::sync_channel(1));
        let body = move || {
            // Not by libc's function, which glibc has since 2.30 only.
            // SAFETY: gettid has no preconditions.
            let id = unsafe { libc::syscall(libc::SYS_gettid) } as i32;
            ids.lock().unwrap_or_else(PoisonError::into_inner).push(id);
            // Whoever made the thread waits for this.
            _ = here.send(());
            work();
        };
        let thread = Builder::new().name("pi0-worker".into()).stack_size(STACK).spawn(body);
        let thread = thread.map_err(|e| ort::Error::new(format!("cannot start a worker thread: {e}")))?;
        _ = known.recv();
        Ok(thread)
    }

    fn join(thread: JoinHandle<()>) -> ort::Result<()> {
        // A panic in ONNX Runtime's part is not possible, and in the lines above it would have been seen.
        _ = thread.join();
        Ok(())
    }
}
