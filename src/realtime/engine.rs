//! What the runtime asks of a policy, cut into quanta.

use super::chunk::Gate;
use crate::Result;

/// What guides a chunk so that it joins the one being executed. Both slices have one entry per row of the chunk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guidance<'a> {
    /// What will be executed from the observation's capture on, in robot units: rows of `action_dim` values, the
    /// last planned row held to the end.
    pub leftover: &'a [f32],
    /// Each row's weight, from 1 (certain to be executed) to 0 (free).
    pub prefix_weights: &'a [f32],
    /// The upper bound of the guidance weight.
    pub max_guidance_weight: f32,
    /// Rows that are expected to be executed before the chunk is ready.
    pub inference_delay: usize,
}

/// A policy as the inference thread drives it: [`begin`](Engine::begin), then [`step`](Engine::step) for each
/// denoise step, then [`finish`](Engine::finish).
///
/// Each call is one bounded quantum; between two of them the runtime looks at commands and deadlines, and may break
/// off and begin anew. After an error the next call is `begin`. After a panic there is none.
pub trait Engine: Send {
    /// What a chunk is computed from. It is made a few times at the start and filled in place ever after.
    type Observation: Send;

    /// An observation with room for everything, for the sensor side to fill.
    fn new_observation(&self) -> Self::Observation;

    /// Actions in a chunk.
    fn action_horizon(&self) -> usize;

    /// Values in an action, as the robot takes them.
    fn action_dim(&self) -> usize;

    /// Denoise steps in a chunk.
    fn num_steps(&self) -> usize;

    /// For a policy trained for real-time chunking: the most rows that may be executed before a chunk is ready. Such a
    /// chunk joins the one before it from the row on that it was told, and is of no use when it comes later.
    fn max_inference_delay(&self) -> Option<usize> {
        None
    }

    /// Sets the number of denoise steps, from the next chunk on.
    fn set_num_steps(&mut self, num_steps: usize) -> Result<()>;

    /// Sets the prompt, from the next chunk on.
    fn set_prompt(&mut self, prompt: &str) -> Result<()>;

    /// The limits that the policy itself brings. A chunk must keep to these and to the runtime's.
    fn limits(&self) -> Option<Gate> {
        None
    }

    /// The threads that the engine computes on beside the calling one, by Linux thread id: the runtime gives them the
    /// inference thread's priority and CPUs of their own.
    fn worker_threads(&self) -> Vec<i32> {
        Vec::new()
    }

    /// Runs every graph once, so that nothing is built, captured or allocated later. Called on the inference thread.
    fn warm_up(&mut self) -> Result<()>;

    /// Takes in an observation: everything up to the first denoise step. `chunk` is the number the chunk will have;
    /// noise is to be drawn from it (and a seed) alone, so that a recording can be replayed.
    fn begin(
        &mut self,
        observation: &Self::Observation,
        guidance: Option<Guidance<'_>>,
        chunk: u64,
    ) -> Result<()>;

    /// One denoise step, `k` from 0.
    fn step(&mut self, k: usize) -> Result<()>;

    /// Writes the chunk in robot units and says how many values it has.
    fn finish(&mut self, actions: &mut [f32]) -> Result<usize>;
}
