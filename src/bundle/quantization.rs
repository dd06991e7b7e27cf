//! A quantised bundle's record of how its products are computed and why. For people: the graphs are what is run.

use serde::{Deserialize, Serialize};

/// The scheme of a quantised bundle, the products that are computed more exactly than it says, and the observations that
/// decided it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantization {
    /// The scheme's name: `w8a8_dynamic` for weights and activations of 8 bits, the activations' scale found in every run;
    /// `w8a8_static` where it was measured; `w8a16` for activations of 16 bits; `w4_gptq_denoise` for weights of 4 bits in
    /// the denoise step and the first in other graphs, `w4_gptq_denoise_w8a16` and the third.
    pub scheme: String,
    /// The share of the activations' range that weights take over, from 0 to 1.
    pub smoothing: f32,
    /// Values that share one scale in a product that is kept more exact, and where weights are of 4 bits.
    pub block_size: usize,
    /// Products that are computed more exactly.
    pub kept: Vec<KeptProduct>,
    /// The observations that it was decided with.
    pub calibration: CalibrationRecord,
}

/// A product that is computed more exactly than the scheme says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptProduct {
    /// The graph's name.
    pub graph: String,
    /// The name of the node.
    pub product: String,
    /// `int8` for what the scheme `w8a8_dynamic` has; `blocks` for 8 bits on both sides with a scale for every block; `wide`
    /// for wider activations and such weights; `rows` for wider activations and weights with a scale for each output; `plain`
    /// for no rounding.
    pub form: String,
    /// `measured`, `asked`, or `rule`: the scheme never rounds it further.
    pub why: String,
    /// The relative L2 error that made it so, as the scheme would have computed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
}

/// The observations that a bundle was calibrated with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationRecord {
    /// `golden`, or the name of the directory.
    pub source: String,
    /// Observations.
    pub observations: usize,
    /// Denoise steps of all of them.
    pub steps: usize,
}
