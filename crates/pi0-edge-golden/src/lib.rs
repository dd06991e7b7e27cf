//! The reference policy's outputs that a bundle carries, so that it can check itself where it runs; the distance of other
//! outputs from them, and the `.npy` files that hold both.

#![deny(unsafe_code)]

mod deviation;
mod npy;

use ndarray::ArrayD;
use pi0_edge::internals::parse_versioned;
use pi0_edge::{Bundle, Error, ErrorKind, MAX_NUM_STEPS, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use deviation::{Deviation, compare};
pub use npy::{parse_npy, read_npy, write_npy};

/// The golden format version this runtime reads.
const GOLDEN_VERSION: u64 = 1;

/// Most bytes of `golden.json`, and of one file that it names.
const MAX_INDEX_BYTES: u64 = 4 << 20;
const MAX_GOLDEN_BYTES: u64 = 64 << 20;

/// Most cases.
const MAX_GOLDEN_CASES: usize = 64;

/// The content of `golden.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// Version of this layout, 1.
    pub format_version: u64,
    /// The software that computed the outputs.
    pub reference: Reference,
    /// The deviations that a device may have.
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

/// The deviations that each stage may have, in the bundle's precision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tolerance {
    /// Largest [`Deviation::relative`] of a stage that `by_stage` does not name.
    pub stages: f64,
    /// As `stages`, for the final actions.
    pub actions: f64,
    /// Smallest [`Deviation::cosine`] of any stage. Bundles made before it was declared are
    /// held to 0.9999.
    #[serde(default = "default_cosine")]
    pub cosine: f64,
    /// Takes the place of `stages` for single stages, by the names of [`Expected::stages`]; such as `pixel_values`,
    /// which are f32 in every precision.
    #[serde(default)]
    pub by_stage: BTreeMap<String, f64>,
    /// Largest [`Deviation::relative_l2`] of single stages; of a quantised bundle all but `pixel_values`. Others may have any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub relative_l2: BTreeMap<String, f64>,
}

fn default_cosine() -> f64 {
    0.9999
}

impl Tolerance {
    /// The largest relative deviation that `stage` may have.
    pub fn relative(&self, stage: &str) -> f64 {
        let general = if stage == "actions" { self.actions } else { self.stages };
        self.by_stage.get(stage).copied().unwrap_or(general)
    }

    /// Returns true if `deviation`, of `stage`, is within both bounds.
    pub fn allows(&self, stage: &str, deviation: &Deviation) -> bool {
        let length = self.relative_l2.get(stage).is_none_or(|&most| deviation.relative_l2 <= most);
        deviation.is_within(self.relative(stage)) && length && deviation.cosine >= self.cosine
    }

    fn check(&self) -> Result<()> {
        let by_stage = || self.by_stage.iter().chain(&self.relative_l2);
        for limit in [self.stages, self.actions].iter().chain(by_stage().map(|(_, limit)| limit)) {
            let sound = limit.is_finite() && *limit > 0.0;
            ensure(sound, || format!("a tolerance is {limit}, it must be positive and finite"))?;
        }
        let cosine = self.cosine;
        let sound = (0.0..=1.0).contains(&cosine);
        ensure(sound, || format!("tolerance.cosine is {cosine}, it must be from 0 to 1"))?;
        by_stage().try_for_each(|(name, _)| {
            let known = STAGES.contains(&name.as_str());
            ensure(known, || format!("tolerance names {name:?}, which is no stage"))
        })
    }
}

/// The stages that are compared, in the order they run.
const STAGES: [&str; 7] =
    ["pixel_values", "image_embeds", "keys", "values", "v_t", "actions_normalized", "actions"];

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
        let golden = Golden::parse(&bundle.read_file(path, MAX_INDEX_BYTES)?, path)?;
        golden.check(bundle).map_err(|e| e.context(path))?;
        Ok(Some(golden))
    }

    /// Parses a `golden.json`, which the bundle has at `path`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Integrity`] if it is not what this runtime reads.
    pub fn parse(bytes: &[u8], path: &str) -> Result<Self> {
        let remedy = "make the golden outputs again";
        parse_versioned(bytes, path, ErrorKind::Integrity, GOLDEN_VERSION, remedy)
    }

    fn check(&self, bundle: &Bundle) -> Result<()> {
        self.tolerance.check()?;
        let cases = self.cases.len();
        ensure(cases > 0, || "it has no cases".into())?;
        ensure(cases <= MAX_GOLDEN_CASES, || {
            format!("it has {cases} cases, at most {MAX_GOLDEN_CASES} are allowed")
        })?;
        self.cases
            .iter()
            .try_for_each(|c| c.check(bundle).map_err(|e| e.context(format_args!("case {}", c.name))))
    }
}

impl Case {
    /// Returns the path of `observation.json` relative to the bundle. The paths in it are relative to its directory.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Integrity`] if it is not a file of the bundle.
    pub fn observation_path(&self, bundle: &Bundle) -> Result<String> {
        golden_path(bundle, &self.observation)
    }

    /// The noise, f32 `[action_horizon, padded action_dim]`, flattened.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Integrity`] if the file is not such an array.
    pub fn noise(&self, bundle: &Bundle) -> Result<Vec<f32>> {
        let array = read_array(bundle, &self.noise)?;
        let m = bundle.manifest();
        let (shape, wanted) = (array.shape(), [m.dimensions.action_horizon, m.action.padded_dim]);
        ensure(shape == wanted, || format!("{}: its shape is {shape:?}, expected {wanted:?}", self.noise))?;
        Ok(flat(array))
    }

    fn check(&self, bundle: &Bundle) -> Result<()> {
        let steps = self.num_steps;
        let sound = (1..=MAX_NUM_STEPS).contains(&steps);
        ensure(sound, || format!("num_steps is {steps}, it must be from 1 to {MAX_NUM_STEPS}"))?;
        golden_path(bundle, &self.observation)?;
        golden_path(bundle, &self.noise)?;
        for (stage, sampled) in self.expected.stages() {
            golden_path(bundle, &sampled.file)?;
            ensure(sampled.stride > 0, || format!("{stage}.stride is 0"))?;
        }
        Ok(())
    }
}

impl Expected {
    /// The sampled outputs with their stages' names, in the order the stages run.
    pub fn stages(&self) -> [(&'static str, &Sampled); 7] {
        let outputs = [
            &self.pixel_values,
            &self.image_embeds,
            &self.keys,
            &self.values,
            &self.v_t,
            &self.actions_normalized,
            &self.actions,
        ];
        std::array::from_fn(|i| (STAGES[i], outputs[i]))
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
        let (file, shape) = (&self.file, array.shape());
        let sound = shape.first() == Some(&rows) && !array.is_empty();
        ensure(sound, || format!("{file}: its shape is {shape:?}, expected {rows} rows"))?;
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
    let listed = bundle.manifest().files.contains_key(&path);
    ensure(listed, || format!("{path:?} is not in the manifest's files"))?;
    Ok(path)
}

fn read_array(bundle: &Bundle, file: &str) -> Result<ArrayD<f32>> {
    let path = golden_path(bundle, file)?;
    parse_npy(&bundle.read_file(&path, MAX_GOLDEN_BYTES)?, &path, ErrorKind::Integrity)
}

fn flat(array: ArrayD<f32>) -> Vec<f32> {
    if array.is_standard_layout() {
        array.into_raw_vec_and_offset().0
    } else {
        array.iter().copied().collect()
    }
}

/// Fails with [`ErrorKind::Integrity`] unless the condition holds.
fn ensure(holds: bool, text: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::new(ErrorKind::Integrity, text())) }
}
