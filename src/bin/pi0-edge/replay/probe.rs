//! The policy as the replay drives it: slowed down on request, with its chunks kept.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pi0_edge::Result;
use pi0_edge::realtime::chunk::Gate;
use pi0_edge::realtime::clock::{SimulatedClock, Timestamp};
use pi0_edge::realtime::engine::{Engine, Guidance};
use pi0_edge::realtime::wake::Waker;
use pi0_edge::runtime::{ObservationSlot, PolicyEngine};

/// The policy, loaded once for all the runs that come after each other.
pub type Loaded = Arc<Mutex<PolicyEngine>>;

/// A loaded policy's lock. A run that panicked has not spoilt the policy for looking at.
pub fn lock(loaded: &Loaded) -> MutexGuard<'_, PolicyEngine> {
    loaded.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A chunk's number and its values.
pub type Values = (u64, Vec<f32>);

/// An engine that lends the policy to one runtime.
pub struct Probe {
    policy: Loaded,
    /// Sleep in each denoise step.
    pub delay: Duration,
    /// Told whenever an observation was taken.
    pub taken: Option<Waker>,
    /// Where finished chunks go. Sending allocates, so only where they are wanted.
    pub chunks: Option<Sender<Values>>,
    /// Simulated time, and what it is to be once a chunk is finished.
    pub finishes: Option<(SimulatedClock, Arc<AtomicU64>)>,
    chunk: u64,
}

impl Probe {
    /// The policy as it is.
    pub fn new(policy: &Loaded) -> Self {
        Probe {
            policy: Arc::clone(policy),
            delay: Duration::ZERO,
            taken: None,
            chunks: None,
            finishes: None,
            chunk: 0,
        }
    }
}

impl Engine for Probe {
    type Observation = ObservationSlot;

    fn new_observation(&self) -> ObservationSlot {
        lock(&self.policy).new_observation()
    }

    fn action_horizon(&self) -> usize {
        lock(&self.policy).action_horizon()
    }

    fn action_dim(&self) -> usize {
        lock(&self.policy).action_dim()
    }

    fn num_steps(&self) -> usize {
        lock(&self.policy).num_steps()
    }

    fn set_num_steps(&mut self, num_steps: usize) -> Result<()> {
        lock(&self.policy).set_num_steps(num_steps)
    }

    fn set_prompt(&mut self, prompt: &str) -> Result<()> {
        lock(&self.policy).set_prompt(prompt)
    }

    fn max_inference_delay(&self) -> Option<usize> {
        lock(&self.policy).max_inference_delay()
    }

    fn limits(&self) -> Option<Gate> {
        lock(&self.policy).limits()
    }

    fn worker_threads(&self) -> Vec<i32> {
        lock(&self.policy).worker_threads()
    }

    fn warm_up(&mut self) -> Result<()> {
        lock(&self.policy).warm_up()
    }

    fn begin(&mut self, seen: &ObservationSlot, guidance: Option<Guidance<'_>>, chunk: u64) -> Result<()> {
        self.chunk = chunk;
        if let Some(waker) = &self.taken {
            waker.notify();
        }
        lock(&self.policy).begin(seen, guidance, chunk)
    }

    fn step(&mut self, k: usize) -> Result<()> {
        std::thread::sleep(self.delay);
        lock(&self.policy).step(k)
    }

    fn finish(&mut self, actions: &mut [f32]) -> Result<usize> {
        let length = lock(&self.policy).finish(actions)?;
        if let Some((clock, at)) = &self.finishes {
            // Relaxed, because it was set by this same thread.
            clock.set(Timestamp::from_nanos(at.load(Ordering::Relaxed)));
        }
        if let Some(chunks) = &self.chunks {
            // Nobody listens any more: the run is over.
            _ = chunks.send((self.chunk, actions[..length].to_vec()));
        }
        Ok(length)
    }
}
