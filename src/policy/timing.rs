//! The times of one chunk.

use std::time::Duration;

/// Times of one chunk, monotonic. `vision`, `prefix` and `steps` are the time inside ONNX Runtime's runs alone,
/// on a GPU as its own clock saw them.
#[derive(Debug, Clone, Default)]
pub struct Timing {
    /// Frames resized and normalised, state normalised, prompt tokenised.
    pub preprocess: Duration,
    /// The vision encoder over the present cameras.
    pub vision: Duration,
    /// The prefill of the KV cache.
    pub prefix: Duration,
    /// Each Euler step.
    pub steps: Vec<Duration>,
    /// From the call to the finished chunk.
    pub total: Duration,
}

impl Timing {
    pub(super) fn with_capacity(steps: usize) -> Self {
        Timing { steps: Vec::with_capacity(steps), ..Timing::default() }
    }

    pub(super) fn reset(&mut self) {
        let mut steps = std::mem::take(&mut self.steps);
        steps.clear();
        *self = Timing { steps, ..Timing::default() };
    }

    /// Takes the times of the runs that make a chunk, in their order.
    pub(super) fn set_runs(&mut self, runs: &[Duration]) {
        if let [vision, prefix, steps @ ..] = runs {
            (self.vision, self.prefix) = (*vision, *prefix);
            self.steps.extend_from_slice(steps);
        }
    }

    /// The denoise loop: all Euler steps together.
    pub fn denoise(&self) -> Duration {
        self.steps.iter().sum()
    }

    /// Time outside both preprocessing and ONNX Runtime's own runs: what the runtime itself costs.
    pub fn overhead(&self) -> Duration {
        let inside = self.preprocess + self.vision + self.prefix + self.denoise();
        self.total.saturating_sub(inside)
    }
}
