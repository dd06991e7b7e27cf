//! The four graphs: their names, and the signature that a model's dimensions give each of them.
//!
//! The same function serves validation of the manifest, the pre-scan of the files and the session layer, so that the
//! three cannot disagree about a tensor.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::manifest::{Dtype, Manifest, PolicyKind, Precision, Target};

/// One of the bundle's graphs, in the order they run; its word is the key in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GraphName {
    /// Frames to image embeddings.
    VisionEncoder,
    /// Prefix embeddings to the KV cache.
    PrefixPrefill,
    /// Time embeddings to each step's constant rows.
    TimeConditioning,
    /// One Euler step.
    DenoiseStep,
}

words!(GraphName {
    VisionEncoder => "vision_encoder",
    PrefixPrefill => "prefix_prefill",
    TimeConditioning => "time_conditioning",
    DenoiseStep => "denoise_step",
});

/// File and signature of each graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Graphs {
    /// Frames to image embeddings.
    pub vision_encoder: GraphSpec,
    /// Prefix embeddings to the KV cache.
    pub prefix_prefill: GraphSpec,
    /// Time embeddings to each step's constant rows.
    pub time_conditioning: GraphSpec,
    /// One Euler step.
    pub denoise_step: GraphSpec,
}

impl Graphs {
    /// One graph by name.
    pub fn get(&self, name: GraphName) -> &GraphSpec {
        match name {
            GraphName::VisionEncoder => &self.vision_encoder,
            GraphName::PrefixPrefill => &self.prefix_prefill,
            GraphName::TimeConditioning => &self.time_conditioning,
            GraphName::DenoiseStep => &self.denoise_step,
        }
    }
}

/// File and signature of one graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphSpec {
    /// The `.onnx` file: a plain name, directly in the bundle. Its weights are in `<file>.data`.
    pub file: String,
    /// Inputs.
    pub inputs: Vec<TensorSpec>,
    /// Outputs.
    pub outputs: Vec<TensorSpec>,
}

impl GraphSpec {
    /// The name of the file with this graph's external weights.
    pub fn data_file(&self) -> String {
        format!("{}.data", self.file)
    }
}

/// Name, element type and shape of a graph's input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// The tensor's name in the graph.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<Dim>,
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}[", self.name, self.dtype)?;
        for (i, dim) in self.shape.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}

/// One dimension of a shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Dim {
    /// The same in every run.
    Fixed(usize),
    /// Chosen by the run: `views`, `prefix` (prefix tokens) or `steps` (rows of the time tables).
    Named(String),
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(n) => write!(f, "{n}"),
            Dim::Named(name) => f.write_str(name),
        }
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Self {
        Dim::Fixed(n)
    }
}

impl From<&str> for Dim {
    fn from(name: &str) -> Self {
        Dim::Named(name.to_owned())
    }
}

/// The dimension named for the number of views in a run.
pub const VIEWS: &str = "views";
/// The dimension named for the number of prefix tokens in a run.
pub const PREFIX: &str = "prefix";
/// The dimension named for the number of cached keys where the state token's come before those of the prefix.
pub const CACHE: &str = "cache";
/// The dimension named for the number of rows in the time tables.
pub const STEPS: &str = "steps";

/// The input that is added to the scores of a padded prefix's rows.
pub(crate) const PREFIX_BIAS: &str = "prefix_bias";
/// The input that counts the rows of a padded prefix which are not there to fill it up.
pub(crate) const VALID_ROWS: &str = "valid_rows";

macro_rules! shape {
    ($($dim:expr),+) => { vec![$(Dim::from($dim)),+] };
}

impl Manifest {
    /// Tokens that one denoise step computes: the actions, and before them the state token where that is not cached.
    pub fn suffix_len(&self) -> usize {
        let state = self.policy == PolicyKind::Pi0 && !self.state_in_prefill;
        self.dimensions.action_horizon + usize::from(state)
    }

    /// Returns true if the rows of a padded prefix that count are told by their number, not by a bias.
    pub(crate) fn counts_valid_rows(&self) -> bool {
        self.graph(GraphName::PrefixPrefill).inputs.iter().any(|t| t.name == VALID_ROWS)
    }

    /// Values of one row of the time table: what a step adds to each action token, or scale, shift and gate for every
    /// norm of the expert.
    pub fn time_row_len(&self) -> usize {
        let d = &self.dimensions;
        match self.policy {
            PolicyKind::Pi0 => d.expert_width,
            PolicyKind::Pi05 => (2 * d.layers + 1) * 3 * d.expert_width,
        }
    }

    /// Element type of image embeddings, prefix, token rows and KV cache.
    pub fn embedding_dtype(&self) -> Dtype {
        match self.precision {
            Precision::Int8 | Precision::Int4 if self.target != Target::Cpu => Dtype::F16,
            Precision::Fp32 | Precision::Int8 | Precision::Int4 => Dtype::F32,
            Precision::Fp16 => Dtype::F16,
            Precision::Bf16 => Dtype::Bf16,
        }
    }

    /// The inputs and outputs that a graph of this bundle must have, as the policy kind, the precision and the
    /// dimensions give them.
    pub fn signature(&self, name: GraphName) -> (Vec<TensorSpec>, Vec<TensorSpec>) {
        let d = &self.dimensions;
        let half = d.head_dim / 2;
        let embedding = self.embedding_dtype();
        let cached = if self.state_in_prefill { CACHE } else { PREFIX };
        let cache = |template: &str| -> Vec<TensorSpec> {
            (0..d.layers)
                .flat_map(|layer| ["key", "value"].map(|part| format!("{template}.{layer}.{part}")))
                .map(|name| TensorSpec { name, dtype: embedding, shape: shape![1, cached, d.head_dim] })
                .collect()
        };
        let state = || f32_tensor("state", shape![1, self.state.padded_dim]);
        let padding = self.prefix_bucket.map(|_| match self.counts_valid_rows() {
            true => tensor(VALID_ROWS, Dtype::I64, shape![1]),
            false => tensor(PREFIX_BIAS, embedding, shape![1, PREFIX]),
        });
        match name {
            GraphName::VisionEncoder => (
                vec![f32_tensor("pixel_values", shape![VIEWS, 3, d.image_height, d.image_width])],
                vec![tensor("image_embeds", embedding, shape![VIEWS, d.tokens_per_view, d.prefix_width])],
            ),
            GraphName::PrefixPrefill => (
                std::iter::once(tensor("prefix_embeds", embedding, shape![1, PREFIX, d.prefix_width]))
                    .chain(padding)
                    .chain(["rope_cos", "rope_sin"].map(|name| f32_tensor(name, shape![PREFIX, half])))
                    .chain(self.state_in_prefill.then(state))
                    .chain(
                        ["state_rope_cos", "state_rope_sin"]
                            .into_iter()
                            .filter(|_| self.state_in_prefill)
                            .map(|name| f32_tensor(name, shape![1, half])),
                    )
                    .collect(),
                cache("present"),
            ),
            GraphName::TimeConditioning => (
                vec![f32_tensor("time_embedding", shape![STEPS, d.expert_width])],
                vec![f32_tensor("time_table", shape![STEPS, self.time_row_len()])],
            ),
            GraphName::DenoiseStep => {
                let actions = || shape![1, d.action_horizon, self.action.padded_dim];
                let mut inputs = vec![
                    f32_tensor("x_t", actions()),
                    tensor("step", Dtype::I64, shape![1]),
                    f32_tensor("schedule", shape![STEPS, 3]),
                    f32_tensor("time_table", shape![STEPS, self.time_row_len()]),
                ];
                if self.policy == PolicyKind::Pi0 && !self.state_in_prefill {
                    inputs.push(state());
                }
                inputs.extend([
                    f32_tensor("prev_actions", actions()),
                    f32_tensor("prefix_weights", shape![1, d.action_horizon, 1]),
                    f32_tensor("rope_cos", shape![self.suffix_len(), half]),
                    f32_tensor("rope_sin", shape![self.suffix_len(), half]),
                ]);
                if self.flow.rtc_training_max_delay.is_some() {
                    inputs.extend([
                        tensor("clean_rows", Dtype::I64, shape![1]),
                        f32_tensor("clean_time", shape![1, self.time_row_len()]),
                    ]);
                }
                inputs.extend(padding);
                inputs.extend(cache("past_key_values"));
                (inputs, vec![f32_tensor("x_next", actions()), f32_tensor("v_t", actions())])
            }
        }
    }
}

fn tensor(name: &str, dtype: Dtype, shape: Vec<Dim>) -> TensorSpec {
    TensorSpec { name: name.to_owned(), dtype, shape }
}

fn f32_tensor(name: &str, shape: Vec<Dim>) -> TensorSpec {
    tensor(name, Dtype::F32, shape)
}

/// Compares a found signature with the expected one by name, as ONNX Runtime binds. Says the first difference.
pub(super) fn compare_tensors(
    kind: &str,
    found: &[TensorSpec],
    expected: &[TensorSpec],
) -> Result<(), String> {
    for (i, tensor) in found.iter().enumerate() {
        if found[..i].iter().any(|t| t.name == tensor.name) {
            return Err(format!("{kind} {} is there twice", tensor.name));
        }
        match expected.iter().find(|e| e.name == tensor.name) {
            None => return Err(format!("{kind} {tensor} is not expected")),
            Some(e) if e != tensor => return Err(format!("{kind} is {tensor}, expected {e}")),
            Some(_) => {}
        }
    }
    match expected.iter().find(|e| !found.iter().any(|t| t.name == e.name)) {
        Some(missing) => Err(format!("{kind} {missing} is missing")),
        None => Ok(()),
    }
}
