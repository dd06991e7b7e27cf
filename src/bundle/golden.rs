//! The reference policy's outputs that a bundle carries, so that it can check itself where it runs.

use std::path::PathBuf;

use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

use super::files::check_relative;
use super::{Bundle, npy};
use crate::error::{Error, ErrorKind, Result, ResultExt};

/// The golden format version this runtime reads.
pub const GOLDEN_VERSION: u64 = 1;

/// Most bytes of one golden file.
const MAX_GOLDEN_BYTES: u64 = 1 << 30;

/// The content of `golden.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// Version of this layout; [`GOLDEN_VERSION`].
    pub format_version: u64,
    /// What computed the outputs.
    pub reference: Reference,
    /// How far a device may be off.
    pub tolerance: Tolerance,
    /// The cases.
    pub cases: Vec<Case>,
}

/// The software that computed the outputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// Version of lerobot.
    pub lerobot: String,
    /// Version of transformers.
    pub transformers: String,
    /// Version of torch.
    pub torch: String,
    /// The dtype it computed in.
    pub dtype: String,
}

/// Largest deviations allowed, as shares of the largest expected magnitude.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tolerance {
    /// For each stage's output.
    pub stages: f64,
    /// For the final actions.
    pub actions: f64,
}

/// One observation, its noise, and the outputs for them. Paths are relative to the directory of `golden.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The case's name.
    pub name: String,
    /// `observation.json`; the frames are beside it.
    pub observation: String,
    /// The noise that x_t begins with: f32 `[action_horizon, padded action_dim]`.
    pub noise: String,
    /// Euler steps.
    pub num_steps: usize,
    /// The outputs.
    pub expected: Expected,
}

/// Outputs by stage, each f32 and flattened in row-major order, in the order the stages run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// Ids of the prompt's tokens, BOS included, padding not.
    pub tokens: Vec<u32>,
    /// `[views, 3, height, width]` of the present views.
    pub pixel_values: Sampled,
    /// `[views, tokens_per_view, prefix_width]` of the present views.
    pub image_embeds: Sampled,
    /// Keys of the prefix after RoPE: `[layers, prefix * head_dim]`, sampled within each layer.
    pub keys: Sampled,
    /// Values of the prefix, laid out as `keys`.
    pub values: Sampled,
    /// Velocities of all steps: `[num_steps, action_horizon, padded action_dim]`.
    pub v_t: Sampled,
    /// The last x_t: `[action_horizon, padded action_dim]`.
    pub actions_normalized: Sampled,
    /// Actions in robot units: `[action_horizon, action_dim]`.
    pub actions: Sampled,
}

/// A `.npy` file with every `stride`-th element of a flattened tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampled {
    /// The file: f32.
    pub file: String,
    /// Distance between the elements kept; 1 keeps all.
    pub stride: usize,
}

impl Golden {
    /// The bundle's golden cases, or `None` if it has none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Integrity`] if `golden.json` is not what this runtime reads or names files that are not in the
    /// manifest; [`ErrorKind::Io`] if it cannot be read.
    pub fn load(bundle: &Bundle) -> Result<Option<Self>> {
        let Some(path) = &bundle.manifest().golden else {
            return Ok(None);
        };
        let broken = |what: String| Error::new(ErrorKind::Integrity, format!("{path}: {what}"));
        let bytes = bundle.read_file(path, MAX_GOLDEN_BYTES)?;
        let version: serde_json::Value =
            serde_json::from_slice(&bytes).or_kind(ErrorKind::Integrity, || format!("{path} is not JSON"))?;
        if version["format_version"].as_u64() != Some(GOLDEN_VERSION) {
            return Err(broken(format!(
                "format_version is {}, this runtime reads {GOLDEN_VERSION}; make the golden outputs again",
                version["format_version"]
            )));
        }
        let golden: Golden = serde_json::from_slice(&bytes).or_kind(ErrorKind::Integrity, || {
            format!("{path} does not have the layout of format_version {GOLDEN_VERSION}")
        })?;
        for limit in [golden.tolerance.stages, golden.tolerance.actions] {
            if !(limit.is_finite() && limit > 0.0) {
                return Err(broken(format!("a tolerance is {limit}, it must be positive and finite")));
            }
        }
        if golden.cases.is_empty() {
            return Err(broken("it has no cases".into()));
        }
        for case in &golden.cases {
            if case.num_steps == 0 {
                return Err(broken(format!("case {}: num_steps is 0", case.name)));
            }
            for file in case.files() {
                golden_path(bundle, file)
                    .map_err(|e| e.context(format_args!("{path}: case {}", case.name)))?;
            }
            if let Some((stage, _)) = case.expected.stages().into_iter().find(|(_, s)| s.stride == 0) {
                return Err(broken(format!("case {}: {stage}.stride is 0", case.name)));
            }
        }
        Ok(Some(golden))
    }
}

impl Case {
    /// Where `observation.json` is.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Integrity`] if it is not a file of the bundle.
    pub fn observation_path(&self, bundle: &Bundle) -> Result<PathBuf> {
        Ok(bundle.path(&golden_path(bundle, &self.observation)?))
    }

    /// The noise, f32 `[action_horizon, padded action_dim]`, flattened.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Integrity`] if the file is not such an array.
    pub fn noise(&self, bundle: &Bundle) -> Result<Vec<f32>> {
        let array = read_array(bundle, &self.noise)?;
        let m = bundle.manifest();
        if array.shape() != [m.dimensions.action_horizon, m.action.padded_dim] {
            return Err(Error::new(
                ErrorKind::Integrity,
                format!(
                    "{}: its shape is {:?}, expected [{}, {}]",
                    self.noise,
                    array.shape(),
                    m.dimensions.action_horizon,
                    m.action.padded_dim
                ),
            ));
        }
        Ok(flat(array))
    }

    fn files(&self) -> impl Iterator<Item = &str> {
        let stages = self.expected.stages().map(|(_, sampled)| sampled.file.as_str());
        [self.observation.as_str(), self.noise.as_str()].into_iter().chain(stages)
    }
}

impl Expected {
    /// The sampled outputs with their stages' names, in the order the stages run.
    pub fn stages(&self) -> [(&'static str, &Sampled); 7] {
        [
            ("pixel_values", &self.pixel_values),
            ("image_embeds", &self.image_embeds),
            ("keys", &self.keys),
            ("values", &self.values),
            ("v_t", &self.v_t),
            ("actions_normalized", &self.actions_normalized),
            ("actions", &self.actions),
        ]
    }
}

impl Sampled {
    /// The elements, flattened.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Integrity`] if the file is not an f32 array.
    pub fn read(&self, bundle: &Bundle) -> Result<Vec<f32>> {
        Ok(flat(read_array(bundle, &self.file)?))
    }

    /// The elements as one row for each of `rows` parts that were sampled apart; what `keys` and `values` are, with
    /// the layers as rows.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Integrity`] if the file is not an f32 array of that many rows.
    pub fn read_rows(&self, bundle: &Bundle, rows: usize) -> Result<Vec<Vec<f32>>> {
        let array = read_array(bundle, &self.file)?;
        if array.shape().first() != Some(&rows) || array.is_empty() {
            return Err(Error::new(
                ErrorKind::Integrity,
                format!("{}: its shape is {:?}, expected {rows} rows", self.file, array.shape()),
            ));
        }
        let values = flat(array);
        Ok(values.chunks_exact(values.len() / rows).map(<[f32]>::to_vec).collect())
    }
}

/// The path of a file of `golden.json` relative to the bundle.
fn golden_path(bundle: &Bundle, file: &str) -> Result<String> {
    let index = bundle.manifest().golden.as_deref().unwrap_or_default();
    let path = match index.rsplit_once('/') {
        Some((directory, _)) => format!("{directory}/{file}"),
        None => file.to_owned(),
    };
    if let Err(what) = check_relative(file) {
        return Err(Error::new(ErrorKind::Integrity, format!("the path {file:?} {what}")));
    }
    if !bundle.manifest().files.contains_key(&path) {
        return Err(Error::new(ErrorKind::Integrity, format!("{path:?} is not in the manifest's files")));
    }
    Ok(path)
}

fn read_array(bundle: &Bundle, file: &str) -> Result<ArrayD<f32>> {
    let path = golden_path(bundle, file)?;
    npy::parse(&bundle.read_file(&path, MAX_GOLDEN_BYTES)?, &path, ErrorKind::Integrity)
}

fn flat(array: ArrayD<f32>) -> Vec<f32> {
    if array.is_standard_layout() {
        array.into_raw_vec_and_offset().0
    } else {
        array.iter().copied().collect()
    }
}

/// How far outputs are from what is expected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deviation {
    /// The largest `|got - want|`; infinite if a value of `got` is not finite.
    pub max_abs: f64,
    /// The largest `|want|`.
    pub max_expected: f64,
    /// `max_abs / max_expected`: what a [`Tolerance`] is held against. 0 where both are 0.
    pub relative: f64,
}

impl Deviation {
    /// No deviation yet; the start of a [`merge`](Self::merge) over parts of one tensor.
    pub const NONE: Deviation = Deviation { max_abs: 0.0, max_expected: 0.0, relative: 0.0 };

    fn of(max_abs: f64, max_expected: f64) -> Self {
        let relative = if max_abs == 0.0 { 0.0 } else { max_abs / max_expected };
        Deviation { max_abs, max_expected, relative }
    }

    /// The deviation of two parts of one tensor, such as the layers of a cache, seen as one.
    pub fn merge(self, other: Deviation) -> Self {
        Deviation::of(self.max_abs.max(other.max_abs), self.max_expected.max(other.max_expected))
    }

    /// Whether the deviation is at most `tolerance` of the largest expected magnitude.
    pub fn is_within(&self, tolerance: f64) -> bool {
        self.max_abs <= tolerance * self.max_expected
    }
}

/// Compares every `stride`-th element of `got` with `want`, which was sampled that way. A NaN or an infinity on either
/// side is an infinite deviation.
///
/// # Errors
///
/// [`ErrorKind::Parity`] if the number of sampled elements is not that of `want`.
pub fn compare(got: &[f32], want: &[f32], stride: usize) -> Result<Deviation> {
    let sampled = got.iter().step_by(stride.max(1));
    if sampled.len() != want.len() {
        return Err(Error::new(
            ErrorKind::Parity,
            format!(
                "{} values sampled at every {stride} are {}, the reference has {}; the golden outputs belong to \
                 another model",
                got.len(),
                sampled.len(),
                want.len()
            ),
        ));
    }
    let mut max_abs = 0f64;
    let mut max_expected = 0f64;
    for (&got, &want) in sampled.zip(want) {
        let difference = f64::from(got) - f64::from(want);
        // `f64::max` would pass over a NaN.
        max_abs = max_abs.max(if difference.is_finite() { difference.abs() } else { f64::INFINITY });
        max_expected = max_expected.max(if want.is_finite() { f64::from(want).abs() } else { 0.0 });
    }
    Ok(Deviation::of(max_abs, max_expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviation_is_relative_to_the_largest_expected() {
        let d = compare(&[1.0, 9.0, -4.5, 9.0, 2.0], &[1.0, -4.0, 2.0], 2).unwrap();
        assert_eq!(d, Deviation { max_abs: 0.5, max_expected: 4.0, relative: 0.125 });
        assert!(d.is_within(0.125) && !d.is_within(0.1));
    }

    #[test]
    fn equal_zeros_are_within_any_tolerance() {
        let d = compare(&[0.0; 3], &[0.0; 3], 1).unwrap();
        assert_eq!(d, Deviation::NONE);
        assert!(d.is_within(1e-9));
        let off = compare(&[1e-9], &[0.0], 1).unwrap();
        assert!(off.relative.is_infinite() && !off.is_within(1.0));
    }

    #[test]
    fn a_value_that_is_not_finite_never_passes() {
        for (got, want) in
            [(f32::NAN, 1.0), (1.0, f32::NAN), (f32::INFINITY, f32::INFINITY), (f32::NAN, f32::NAN)]
        {
            let d = compare(&[1.0, got], &[1.0, want], 1).unwrap();
            assert!(d.max_abs.is_infinite() && !d.is_within(1e30), "{got} {want}");
            assert!(!d.merge(Deviation::NONE).is_within(1.0));
        }
    }

    #[test]
    fn another_length_is_an_error() {
        assert_eq!(compare(&[1.0; 4], &[1.0; 3], 1).unwrap_err().kind(), ErrorKind::Parity);
        assert!(compare(&[1.0; 5], &[1.0; 3], 2).is_ok());
    }
}
