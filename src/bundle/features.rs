//! The manifest's part about inputs and outputs: images, state and actions.

use serde::{Deserialize, Serialize};

use super::manifest::present;
use crate::action::ActionLimits;

/// The rule by which a frame becomes one view of `pixel_values`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageRule {
    /// Interpolation.
    pub resize: Resize,
    /// True if shrinking averages over the covered area: `false` as torch interpolates f32 values (lerobot), `true` as
    /// Pillow resizes bytes (openpi), to the last bit.
    pub antialias: bool,
    /// Value of the bars in the model's input range [-1, 1]: -1, or -3 for policies trained before lerobot 0.5.
    pub pad_value: f32,
    /// The image's place between the bars.
    pub pad_side: PadSide,
}

/// Interpolation of a resize.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Resize {
    /// Bilinear with half-pixel centres.
    Bilinear,
}

/// An image's place between its bars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PadSide {
    /// In the middle; an odd pixel of padding goes to the bottom or right.
    Center,
    /// At the bottom right: all bars are at the top or the left, as in lerobot 0.3 and older.
    TopLeft,
}

/// The robot's state vector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateFeature {
    /// The policy's key.
    pub name: String,
    /// Entries the robot gives, in robot units.
    pub dim: usize,
    /// Entries the model takes; those beyond the normalised ones are zero.
    pub padded_dim: usize,
    /// Entries that are normalised, where they are more than `dim`: training padded the state with zeros, in robot units,
    /// before its statistics were taken. Absent: `dim`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalized_dim: Option<usize>,
    /// Names of the `dim` entries, if the checkpoint has them.
    #[serde(deserialize_with = "present")]
    pub names: Option<Vec<String>>,
    /// From robot units to model units.
    pub normalization: Normalization,
}

impl StateFeature {
    /// Returns how many entries are normalised: those the robot gives, and the zeros that training put behind them.
    pub fn normalized_len(&self) -> usize {
        self.normalized_dim.unwrap_or(self.dim)
    }
}

/// The action vector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionFeature {
    /// The policy's key.
    pub name: String,
    /// Entries the robot takes, in robot units.
    pub dim: usize,
    /// Entries the model computes with; those beyond `dim` are dropped.
    pub padded_dim: usize,
    /// Names of the `dim` entries, if the checkpoint has them.
    #[serde(deserialize_with = "present")]
    pub names: Option<Vec<String>>,
    /// From robot units to model units; the runtime applies its inverse.
    pub normalization: Normalization,
    /// For a policy of relative actions: the entries that are offsets from the raw state.
    #[serde(deserialize_with = "present")]
    pub relative_mask: Option<Vec<bool>>,
    /// The range outside which a chunk is refused, in robot units.
    #[serde(deserialize_with = "present")]
    pub limits: Option<ActionLimits>,
}

/// A per-entry map between robot units and model units, with its statistics in robot units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Normalization {
    /// Unchanged.
    Identity {
        /// Unused.
        eps: f64,
    },
    /// To mean 0 and deviation 1.
    MeanStd {
        /// Added to `std` before dividing.
        eps: f64,
        /// Means.
        mean: Vec<f32>,
        /// Standard deviations.
        std: Vec<f32>,
    },
    /// From [`min`, `max`] to [-1, 1].
    MinMax {
        /// Takes the place of a range that is zero.
        eps: f64,
        /// Minima.
        min: Vec<f32>,
        /// Maxima.
        max: Vec<f32>,
    },
    /// From [`q01`, `q99`] to [-1, 1].
    Quantiles {
        /// Takes the place of a range that is zero.
        eps: f64,
        /// 1st percentiles.
        q01: Vec<f32>,
        /// 99th percentiles.
        q99: Vec<f32>,
    },
    /// To mean 0 and deviation 1 by openpi's rule: in f64, and with `eps` on both ways.
    ZScore {
        /// Added to `std`.
        eps: f64,
        /// Means.
        mean: Vec<f64>,
        /// Standard deviations.
        std: Vec<f64>,
    },
    /// From [`q01`, `q99`] to [-1, 1] by openpi's rule: in f64, and with `eps` on both ways.
    QuantileRange {
        /// Added to the range.
        eps: f64,
        /// 1st percentiles.
        q01: Vec<f64>,
        /// 99th percentiles.
        q99: Vec<f64>,
    },
    /// From [`q10`, `q90`] to [-1, 1].
    Quantile10 {
        /// Takes the place of a range that is zero.
        eps: f64,
        /// 10th percentiles.
        q10: Vec<f32>,
        /// 90th percentiles.
        q90: Vec<f32>,
    },
}

impl Normalization {
    /// Returns how far each entry spreads, in robot units: its standard deviation, or half of its range. `None` where
    /// there are no statistics.
    pub fn scales(&self) -> Option<Vec<f32>> {
        fn halves<T: Copy + Into<f64>>(low: &[T], high: &[T]) -> Vec<f32> {
            low.iter().zip(high).map(|(&low, &high)| ((high.into() - low.into()) / 2.0) as f32).collect()
        }
        Some(match self {
            Normalization::Identity { .. } => return None,
            Normalization::MeanStd { std, .. } => std.clone(),
            Normalization::ZScore { std, .. } => std.iter().map(|&std| std as f32).collect(),
            Normalization::MinMax { min, max, .. } => halves(min, max),
            Normalization::Quantiles { q01, q99, .. } => halves(q01, q99),
            Normalization::QuantileRange { q01, q99, .. } => halves(q01, q99),
            Normalization::Quantile10 { q10, q90, .. } => halves(q10, q90),
        })
    }
}
