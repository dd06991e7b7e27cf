//! A policy's inference with a watcher that is told of every chunk.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pi0_edge::rtc::Guidance;
use pi0_edge::runtime::{Inference, ObservationSlot, PolicyInference};
use pi0_edge::{ActionLimits, Result};

/// The policy, loaded once for all the runs that come after each other.
pub type Loaded = Arc<Mutex<PolicyInference>>;

/// A loaded policy's lock. A run that panicked has not spoilt the policy for looking at.
pub fn lock(loaded: &Loaded) -> MutexGuard<'_, PolicyInference> {
    loaded.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A watcher. All of it happens on the inference thread.
pub trait Watcher: Send {
    /// An observation was taken; the chunk is about to be begun.
    fn begins(&mut self) {}

    /// A denoise step is about to be done.
    fn steps(&mut self) {}

    /// A chunk is finished: its number, the room there was for it, and how many values it has.
    fn finished(&mut self, chunk: u64, actions: &[f32], length: usize);
}

/// Inference that lends the policy to one runtime, watched. Every method of the trait is passed on here: one that is not
/// has its default, and limits, for one, would be gone.
#[derive(Debug)]
pub struct Watched<W> {
    policy: Loaded,
    watcher: W,
    chunk: u64,
}

impl<W> Watched<W> {
    pub fn new(policy: &Loaded, watcher: W) -> Self {
        Watched { policy: Arc::clone(policy), watcher, chunk: 0 }
    }
}

impl<W: Watcher> Inference for Watched<W> {
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

    fn limits(&self) -> Option<ActionLimits> {
        lock(&self.policy).limits()
    }

    fn joint_scales(&self) -> Option<Vec<f32>> {
        lock(&self.policy).joint_scales()
    }

    fn state<'a>(&self, seen: &'a ObservationSlot) -> &'a [f32] {
        lock(&self.policy).state(seen)
    }

    fn worker_threads(&self) -> Vec<i32> {
        lock(&self.policy).worker_threads()
    }

    fn warm_up(&mut self) -> Result<()> {
        lock(&self.policy).warm_up()
    }

    fn begin(&mut self, seen: &ObservationSlot, guidance: Option<Guidance<'_>>, chunk: u64) -> Result<()> {
        self.chunk = chunk;
        self.watcher.begins();
        lock(&self.policy).begin(seen, guidance, chunk)
    }

    fn step(&mut self, k: usize) -> Result<()> {
        self.watcher.steps();
        lock(&self.policy).step(k)
    }

    fn finish(&mut self, actions: &mut [f32]) -> Result<usize> {
        let length = lock(&self.policy).finish(actions)?;
        self.watcher.finished(self.chunk, actions, length);
        Ok(length)
    }
}
