//! `manifest.json`: the types, field for field, and how the file is read.
//!
//! The manifest is a contract between one exporter and one runtime, so nothing in it is optional by omission and
//! nothing unknown is skipped: a field this runtime does not know may change what the numbers mean.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::features::{ActionFeature, ImageRule, StateFeature};
use super::files::read_inside;
use super::flow::{Flow, Rope};
use super::graphs::{GraphName, GraphSpec, Graphs};
use super::quantization::Quantization;
use super::versioned;
use crate::error::{ErrorKind, Result};

/// The manifest version this runtime reads.
pub const FORMAT_VERSION: u64 = 1;

/// The largest `manifest.json` that is parsed, in bytes. A real one has some ten kilobytes.
pub const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// Everything the runtime must know about a bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this file's layout; always [`FORMAT_VERSION`] after a successful read.
    pub format_version: u64,
    /// The kind of policy the graphs compute.
    pub policy: PolicyKind,
    /// Name and version of the program that wrote the bundle. For people.
    pub exporter: String,
    /// Element type of weights, embeddings and KV cache.
    pub precision: Precision,
    /// The execution provider that the graphs were made for.
    pub target: Target,
    /// The default-domain opset of every graph.
    pub opset: u32,
    /// The checkpoint the bundle was made from.
    pub source: Source,
    /// Sizes of the model.
    pub dimensions: Dimensions,
    /// The cameras in policy order: views of one observation are laid out in this order.
    pub cameras: Vec<Camera>,
    /// From the key a robot uses to the policy's key, as lerobot's rename step holds it.
    #[serde(deserialize_with = "unique_keys")]
    pub rename: BTreeMap<String, String>,
    /// The rule by which frames become `pixel_values`.
    pub image: ImageRule,
    /// The robot's state vector.
    pub state: StateFeature,
    /// The action vector.
    pub action: ActionFeature,
    /// True for openpi's `adapt_to_pi`: the robot is an ALOHA, and the policy's joints are those PI0 was trained with. The
    /// state is converted before it is normalised, and actions at the very end. Absent: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adapt_to_pi: bool,
    /// The rule by which the task text becomes tokens.
    pub prompt: PromptRule,
    /// The flow-matching sampler.
    pub flow: Flow,
    /// Rotary position embedding.
    pub rope: Rope,
    /// The record of how products were quantised; of quantised precisions, and of no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization: Option<Quantization>,
    /// The table of token rows.
    pub token_embedding: TokenEmbedding,
    /// The least version of ONNX Runtime that has every operator of the graphs, as `1.31`. Absent: any that this
    /// runtime takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onnxruntime: Option<String>,
    /// The least version of TensorRT that takes the graphs, as `10.14`, where they are made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensorrt: Option<String>,
    /// PI0: the prefill computes the state token, once a chunk, and its keys and values are the first row of the cache.
    /// Absent or `false`: every denoise step computes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub state_in_prefill: bool,
    /// The prefix's length is padded to a multiple of this, for providers whose shapes are fixed. The rows that fill it
    /// up are kept from being seen, by a bias or by the number of those that count. Absent: the prefix is as long as it
    /// is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_bucket: Option<usize>,
    /// File and signature of each graph.
    pub graphs: Graphs,
    /// `golden.json` relative to the bundle, if the bundle can check itself.
    #[serde(deserialize_with = "present")]
    pub golden: Option<String>,
    /// Every file of the bundle but the manifest, by its `/`-separated path relative to the bundle.
    #[serde(deserialize_with = "unique_keys")]
    pub files: BTreeMap<String, FileEntry>,
}

/// The kind of policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyKind {
    /// PI0: the state is one suffix token, time is mixed into the action tokens.
    Pi0,
    /// PI0.5: no state token, time modulates the expert's norms.
    Pi05,
}

/// Element type of weights, embeddings and KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Precision {
    /// Every tensor is f32.
    Fp32,
    /// Weights, image embeddings, prefix, token rows and KV cache are f16; norms, softmax, the residual stream and the
    /// flow's variable stay f32.
    Fp16,
    /// As [`Fp16`](Self::Fp16), in bfloat16: the range of f32, an eighth of the exactness of f16. On a GPU only.
    Bf16,
    /// As [`Fp32`](Self::Fp32) for the target `cpu`, and as [`Fp16`](Self::Fp16) for others, but for the layers' weights,
    /// which are of 8 bits; [`Manifest::quantization`] has the details.
    Int8,
    /// As [`Int8`](Self::Int8), and most of the denoise step's weights are of 4 bits.
    Int4,
}

words!(Precision { Fp32 => "fp32", Fp16 => "fp16", Bf16 => "bf16", Int8 => "int8", Int4 => "int4" });

/// The execution provider that graphs were made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Target {
    /// ONNX Runtime's CPU provider.
    Cpu,
    /// ONNX Runtime's CUDA provider.
    Cuda,
    /// ONNX Runtime's TensorRT provider.
    Tensorrt,
}

/// Element type of a tensor or table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Dtype {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16.
    Bf16,
    /// 64-bit signed integer.
    I64,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::I64 => 8,
        }
    }
}

words!(Dtype { F32 => "f32", F16 => "f16", Bf16 => "bf16", I64 => "i64" });

/// The checkpoint a bundle was made from. For people and for provenance; nothing is computed from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The checkpoint's format: `lerobot` or `openpi`.
    pub format: String,
    /// Base name of the checkpoint's directory.
    pub checkpoint: String,
    /// SHA-256 of the checkpoint's weights, as lowercase hex.
    pub model_sha256: String,
    /// The dtype the checkpoint's configuration asks for.
    pub dtype: String,
    /// Conventions the policy was trained under that its files do not record.
    pub conventions: Conventions,
    /// openpi only: the file in the checkpoint that the statistics are from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub norm_stats: Option<String>,
}

/// Train/serve conventions that changed between lerobot releases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conventions {
    /// Value of letterbox bars in the model's input range; equals [`ImageRule::pad_value`].
    pub letterbox_pad: f32,
    /// PI0.5 only: whether the state in the prompt is padded first, as up to lerobot 0.4.4; see [`PromptRule::format`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad_state_in_prompt: Option<bool>,
}

/// Sizes of the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dimensions {
    /// Height of one view in pixels.
    pub image_height: usize,
    /// Width of one view in pixels.
    pub image_width: usize,
    /// Side of one square patch in pixels.
    pub patch_size: usize,
    /// Prefix tokens made from one view.
    pub tokens_per_view: usize,
    /// Width of the VLM's residual stream.
    pub prefix_width: usize,
    /// Hidden width of the VLM's MLP.
    pub prefix_mlp: usize,
    /// Width of the action expert's residual stream.
    pub expert_width: usize,
    /// Hidden width of the action expert's MLP.
    pub expert_mlp: usize,
    /// Layers of VLM and expert (one attention spans both, so the count is shared).
    pub layers: usize,
    /// Query heads of each layer.
    pub query_heads: usize,
    /// Key/value heads of each layer; 1.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Width of the vision encoder.
    pub vision_width: usize,
    /// Layers of the vision encoder.
    pub vision_layers: usize,
    /// Heads of the vision encoder.
    pub vision_heads: usize,
    /// Hidden width of the vision encoder's MLP.
    pub vision_mlp: usize,
    /// Rows of the token table.
    pub vocab_size: usize,
    /// Actions in one chunk.
    pub action_horizon: usize,
}

/// One camera of the policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Camera {
    /// The policy's key, such as `observation.images.base`.
    pub name: String,
    /// True if an observation without this camera is refused.
    pub required: bool,
}

/// The rule by which the task text becomes tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptRule {
    /// The text made from the task.
    pub format: PromptFormat,
    /// Most tokens a prompt may have, BOS included.
    pub max_tokens: usize,
    /// True if a prompt of more tokens is cut there, as the checkpoint's tokenizer step does. False or absent: it is
    /// refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncation: bool,
    /// The task used when an observation brings none.
    #[serde(deserialize_with = "present")]
    pub default: Option<String>,
    /// The tokenizer's file, relative to the bundle.
    pub tokenizer: String,
}

/// The text made from a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PromptFormat {
    /// The task, and a newline unless it ends with one.
    AppendNewline,
    /// The task without white space around it, its underscores and newlines as spaces, and a newline.
    CleanedNewline,
    /// The task, cleaned likewise, and the normalised state as numbers from -1 to 255:
    /// [`StateFeature::normalized_len`] entries.
    Pi05State,
    /// As [`Pi05State`](Self::Pi05State), of the state padded with zeros.
    Pi05PaddedState,
}

/// The table of token rows, already multiplied by the square root of the width.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenEmbedding {
    /// The table's file, relative to the bundle: `rows * width` elements, little-endian, row-major.
    pub file: String,
    /// Element type.
    pub dtype: Dtype,
    /// Rows; the vocabulary's size.
    pub rows: usize,
    /// Elements of a row; the prefix width.
    pub width: usize,
}

/// Size and hash of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Bytes.
    pub size: u64,
    /// SHA-256 as lowercase hex.
    pub sha256: String,
}

impl Manifest {
    /// Parses and validates the bytes of a `manifest.json`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Manifest`] for more than [`MAX_MANIFEST_BYTES`], an unknown `format_version`, anything that is
    /// not the documented layout, and any contradiction between fields. The text names the key.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let size = bytes.len();
        ensure!(
            size as u64 <= MAX_MANIFEST_BYTES,
            Manifest,
            "manifest.json has {size} bytes, more than the {MAX_MANIFEST_BYTES} a manifest may have"
        );
        let remedy = "export the bundle again with this release's exporter, or use the release that made it";
        let manifest: Manifest =
            versioned::parse(bytes, "manifest.json", ErrorKind::Manifest, FORMAT_VERSION, remedy)?;
        manifest.validate()?;
        Ok(manifest)
    }

    /// Reads, parses and validates the file at `path`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] if the file cannot be read, else as [`parse`](Self::parse).
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let directory = path.parent().unwrap_or(Path::new("."));
        let bytes = read_inside(directory, &name, MAX_MANIFEST_BYTES, ErrorKind::Manifest)?;
        Self::parse(&bytes).map_err(|e| e.context(path.display()))
    }

    /// File and signature of one graph.
    pub fn graph(&self, name: GraphName) -> &GraphSpec {
        self.graphs.get(name)
    }
}

/// An optional value whose key must be there: `null` is a decision, a forgotten key is not.
pub(super) fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer)
}

/// A map in which a key that is given twice is an error and not a silent replacement.
fn unique_keys<'de, D, V>(deserializer: D) -> Result<BTreeMap<String, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    struct Unique<V>(std::marker::PhantomData<V>);
    impl<'de, V: Deserialize<'de>> Visitor<'de> for Unique<V> {
        type Value = BTreeMap<String, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((key, value)) = access.next_entry::<String, V>()? {
                if map.contains_key(&key) {
                    return Err(serde::de::Error::custom(format!("key {key:?} is given twice")));
                }
                map.insert(key, value);
            }
            Ok(map)
        }
    }
    deserializer.deserialize_map(Unique(std::marker::PhantomData))
}
