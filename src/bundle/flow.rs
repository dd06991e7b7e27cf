//! The manifest's part about the sampler and positions.

use serde::{Deserialize, Serialize};

/// The flow-matching sampler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    /// Which end of the flow is noise.
    pub convention: FlowConvention,
    /// Euler steps when the caller asks for no other number.
    pub num_steps: usize,
    /// Shortest period of the time embedding.
    pub min_period: f64,
    /// Longest period of the time embedding.
    pub max_period: f64,
    /// Rounding of a step's time.
    #[serde(default, skip_serializing_if = "FlowTimes::is_default")]
    pub times: FlowTimes,
    /// For a policy trained for real-time chunking: the longest action prefix it has seen, in rows. Such a policy takes
    /// what will be executed meanwhile as it is, and is not guided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtc_training_max_delay: Option<usize>,
}

/// Rounding of an Euler step's time. The time embedding turns by hundreds of radians over the flow, so that the
/// last bits of a time show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FlowTimes {
    /// `1 - step / num_steps`, rounded to f32 once (lerobot).
    #[default]
    Fraction,
    /// The step's length added up in f32 (openpi).
    Accumulated,
}

impl FlowTimes {
    fn is_default(&self) -> bool {
        *self == FlowTimes::default()
    }
}

/// Which end of the flow is noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FlowConvention {
    /// Time runs from 1 (noise) to 0 (action).
    NoiseAtOne,
}

/// Rotary position embedding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// Rounding of the frequencies.
    pub inv_freq: InvFreq,
}

/// Rounding of the rotary frequencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum InvFreq {
    /// f32.
    F32,
    /// f32, then to bf16: what lerobot computes for a policy whose dtype is bfloat16.
    Bf16,
}
