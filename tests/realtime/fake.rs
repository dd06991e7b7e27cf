//! Inference that computes nothing: what it does in between is the test's.

use pi0_edge::Result;
use pi0_edge::rtc::Guidance;
use pi0_edge::runtime::Inference;

/// Happens while chunks are made.
pub trait Behaviour: Send {
    /// Chunk `chunk` begins, guided by the one before or not.
    fn begin(&mut self, _chunk: u64, _guided: bool) {}
    /// One denoise step.
    fn step(&mut self) {}
    /// Returns the value that fills the chunk.
    fn value(&self) -> f32;
}

/// A policy of any size with a behaviour.
pub struct Fake<B> {
    pub rows: usize,
    pub dim: usize,
    pub num_steps: usize,
    pub behaviour: B,
}

impl<B: Behaviour> Inference for Fake<B> {
    type Observation = ();
    fn new_observation(&self) {}
    fn action_horizon(&self) -> usize {
        self.rows
    }
    fn action_dim(&self) -> usize {
        self.dim
    }
    fn num_steps(&self) -> usize {
        self.num_steps
    }
    fn set_num_steps(&mut self, _: usize) -> Result<()> {
        Ok(())
    }
    fn set_prompt(&mut self, _: &str) -> Result<()> {
        Ok(())
    }
    fn warm_up(&mut self) -> Result<()> {
        Ok(())
    }
    fn begin(&mut self, _: &(), guidance: Option<Guidance<'_>>, chunk: u64) -> Result<()> {
        self.behaviour.begin(chunk, guidance.is_some());
        Ok(())
    }
    fn step(&mut self, _: usize) -> Result<()> {
        self.behaviour.step();
        Ok(())
    }
    fn finish(&mut self, actions: &mut [f32]) -> Result<usize> {
        actions.fill(self.behaviour.value());
        Ok(actions.len())
    }
}
