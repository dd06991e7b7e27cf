//! A policy as the inference thread drives it, one bounded step at a time.

use std::time::Duration;

#[cfg(doc)]
use crate::ErrorKind;
use crate::Result;
use crate::action::ActionLimits;
use crate::policy::rtc::Guidance;

/// The inference of action chunks, cut into bounded steps: [`begin`](Self::begin), then [`step`](Self::step) for each
/// denoise step, then [`finish`](Self::finish).
///
/// Between two of these calls the runtime looks at commands and deadlines, and may break off and begin anew. After an
/// error the next call is `begin`. After a panic there is none.
///
/// [`PolicyInference`](super::PolicyInference) is the one for bundles.
pub trait Inference: Send {
    /// The type that a chunk is computed from. It is made a few times at the start and filled in place ever after.
    type Observation: Send;

    /// Creates an observation with room for everything, for the sensor side to fill.
    fn new_observation(&self) -> Self::Observation;

    /// Returns the number of actions in a chunk.
    fn action_horizon(&self) -> usize;

    /// Returns the number of values in an action, as the robot takes them.
    fn action_dim(&self) -> usize;

    /// Returns the number of denoise steps in a chunk.
    fn num_steps(&self) -> usize;

    /// Returns, for a policy trained for real-time chunking, the most rows that may be executed before a chunk is
    /// ready. Such a chunk joins the one before it from the row on that it was told, and is of no use when it comes
    /// later.
    fn max_inference_delay(&self) -> Option<usize> {
        None
    }

    /// Sets the number of denoise steps, from the next chunk on.
    ///
    /// # Errors
    /// A number that cannot be used; everything is as before.
    fn set_num_steps(&mut self, num_steps: usize) -> Result<()>;

    /// Sets the prompt, from the next chunk on.
    ///
    /// # Errors
    /// A prompt that cannot be used; everything is as before.
    fn set_prompt(&mut self, prompt: &str) -> Result<()>;

    /// Returns the limits that the policy itself brings. A chunk must keep to these and to the runtime's.
    fn limits(&self) -> Option<ActionLimits> {
        None
    }

    /// Returns the scale on which distances of each joint are compared where a chunk takes over by progress
    /// ([`Splice`](super::Splice)), in robot units; 0 for a joint that is not to count. `None`: all joints alike.
    fn joint_scales(&self) -> Option<Vec<f32>> {
        None
    }

    /// Returns the robot's state in an observation, in robot units: entry i is the position of the joint that entry i of
    /// an action moves. Fewer or more entries are possible, none means that there is no such state.
    fn state<'a>(&self, _observation: &'a Self::Observation) -> &'a [f32] {
        &[]
    }

    /// Returns the threads that compute beside the calling one, by Linux thread id: the runtime gives them the
    /// inference thread's priority and CPUs of their own.
    fn worker_threads(&self) -> Vec<i32> {
        Vec::new()
    }

    /// Runs every graph once, so that nothing is built, captured or allocated later. Called on the inference thread.
    ///
    /// # Errors
    /// The runtime does not start.
    fn warm_up(&mut self) -> Result<()>;

    /// Returns the time that the last chunk of warming up took; `None` where no whole chunk was computed.
    fn warm_chunk(&self) -> Option<Duration> {
        None
    }

    /// Takes in an observation: everything up to the first denoise step. `chunk` is the number the chunk will have;
    /// noise is to be drawn from it (and a seed) alone, so that a recording can be replayed.
    ///
    /// # Errors
    /// Of kind [`ErrorKind::Observation`] or [`ErrorKind::NonFinite`]: this observation cannot be used, which is told
    /// and counted; only a newer one is tried. Of any other kind: inference failed; the same observation is tried again
    /// later, and too many such errors in a row are the end.
    fn begin(
        &mut self,
        observation: &Self::Observation,
        guidance: Option<Guidance<'_>>,
        chunk: u64,
    ) -> Result<()>;

    /// Does one denoise step, `k` from 0.
    ///
    /// # Errors
    /// Counted; the chunk is dropped.
    fn step(&mut self, k: usize) -> Result<()>;

    /// Writes the chunk in robot units and returns its number of values.
    ///
    /// # Errors
    /// Counted; the chunk is dropped.
    fn finish(&mut self, actions: &mut [f32]) -> Result<usize>;
}
