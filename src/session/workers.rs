//! ONNX Runtime's worker threads, made here so that it is known which they are.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use ort::environment::ThreadManager;

use super::faults::{Lost, this_thread};

/// A thread's stack as the C library gives it unless told otherwise, which ONNX Runtime's kernels expect.
const STACK: usize = 8 << 20;

/// The worker threads of one graph. Clones are the same threads.
#[derive(Debug, Clone, Default)]
pub(super) struct Workers {
    /// By Linux thread id.
    ids: Arc<Mutex<Vec<i32>>>,
    /// The graph's, which they work for as long as they live.
    pub(super) lost: Lost,
}

impl Workers {
    /// The threads made so far. They have all said who they are by the time the graph is loaded.
    pub(super) fn ids(&self) -> Vec<i32> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ThreadManager for Workers {
    type Thread = JoinHandle<()>;

    fn create(&self, work: impl FnOnce() + Send + 'static) -> ort::Result<JoinHandle<()>> {
        let (graph, (here, known)) = (self.clone(), std::sync::mpsc::sync_channel(1));
        let body = move || {
            graph.ids.lock().unwrap_or_else(PoisonError::into_inner).push(this_thread());
            let working = graph.lost.working();
            // Whoever made the thread waits for this.
            _ = here.send(working.as_ref().err().map(ToString::to_string));
            if working.is_ok() {
                work();
            }
        };
        let thread = Builder::new().name("pi0-worker".into()).stack_size(STACK).spawn(body);
        let thread = thread.map_err(|e| ort::Error::new(format!("cannot start a worker thread: {e}")))?;
        match known.recv() {
            Ok(Some(why)) => Err(ort::Error::new(why)),
            _ => Ok(thread),
        }
    }

    fn join(thread: JoinHandle<()>) -> ort::Result<()> {
        // A panic in ONNX Runtime's part is not possible, and in the lines above it would have been seen.
        _ = thread.join();
        Ok(())
    }
}
