//! The parts of an inference, and what comes out between them.

use crate::error::Result;

/// An intermediate result handed to the observer of [`Inspector::infer_observed`](super::Inspector::infer_observed):
/// f32 copies, row-major.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum StageOutput {
    /// The prompt's tokens.
    Tokens(Vec<u32>),
    /// `[views, 3, height, width]`, in [-1, 1].
    PixelValues(Vec<f32>),
    /// `[views, tokens_per_view, prefix_width]`.
    ImageEmbeds(Vec<f32>),
    /// Keys of one layer, `[prefix, head_dim]`.
    Keys(usize, Vec<f32>),
    /// Values of one layer, `[prefix, head_dim]`.
    Values(usize, Vec<f32>),
    /// The velocity of one Euler step, `[action_horizon, padded action width]`.
    Velocity(usize, Vec<f32>),
    /// The finished chunk before un-normalisation, `[action_horizon, padded action width]`.
    ActionsNormalized(Vec<f32>),
}

/// A part of the inference that [`Inspector::run_stage`](super::Inspector::run_stage) runs alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The vision encoder over the present cameras.
    Vision,
    /// The prefill of the KV cache.
    Prefix,
    /// The first Euler step.
    DenoiseStep,
    /// All Euler steps of the bundle's default count.
    DenoiseLoop,
}

/// Receives intermediate results; an error stops the inference.
pub type Observer<'a> = dyn FnMut(StageOutput) -> Result<()> + 'a;
