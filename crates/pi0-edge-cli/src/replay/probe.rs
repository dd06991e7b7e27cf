//! The watcher of a replay: it slows the policy down on request, and keeps its chunks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use pi0_edge::internals::wake::Waker;
use pi0_edge::runtime::{SimulatedClock, Timestamp};

use crate::watched::Watcher;

/// A chunk's number and its values.
pub type Values = (u64, Vec<f32>);

/// Watches, and delays. The default leaves the policy as it is.
#[derive(Default)]
pub struct Probe {
    /// Sleep in each denoise step.
    pub delay: Duration,
    /// Told whenever an observation was taken.
    pub taken: Option<Waker>,
    /// Takes finished chunks. Sending allocates, so only where they are wanted.
    pub chunks: Option<Sender<Values>>,
    /// Simulated time, and what it is to be once a chunk is finished.
    pub finishes: Option<(SimulatedClock, Arc<AtomicU64>)>,
}

impl Watcher for Probe {
    fn begins(&mut self) {
        if let Some(waker) = &self.taken {
            waker.notify();
        }
    }

    fn steps(&mut self) {
        std::thread::sleep(self.delay);
    }

    fn finished(&mut self, chunk: u64, actions: &[f32], length: usize) {
        if let Some((clock, at)) = &self.finishes {
            // Relaxed, because it was set by this same thread.
            clock.set(Timestamp::from_nanos(at.load(Ordering::Relaxed)));
        }
        if let Some(chunks) = &self.chunks {
            // Nobody listens any more: the run is over.
            _ = chunks.send((chunk, actions[..length].to_vec()));
        }
    }
}
