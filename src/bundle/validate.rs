//! Rules that hold between the manifest's fields.
//!
//! Every check names the key it is about, so that a broken exporter is found from the message alone.

use super::features::Normalization;
use super::files::{check_plain_name, check_relative};
use super::graphs::{GraphName, compare_tensors};
use super::manifest::{Manifest, PolicyKind, PromptFormat, Target};
use crate::error::{Error, ErrorKind, Result};

/// No single size of a real model comes near; keeps every product of two sizes far inside 64 bits.
const MAX_SIZE: usize = 1 << 24;
const MAX_LAYERS: usize = 512;
const MAX_CAMERAS: usize = 64;
/// Longest step between two lengths of a padded prefix: every tensor of the prefix has room for as much.
const MAX_BUCKET: usize = 1 << 14;
/// Most bytes of a prompt; checked before a tokenizer sees it.
pub(crate) const MAX_PROMPT_BYTES: usize = 16 << 10;
/// Most Euler steps: the time tables grow with them.
const MAX_STEPS: usize = 10_000;

fn bad<T>(key: &str, what: impl std::fmt::Display) -> Result<T> {
    Err(Error::new(ErrorKind::Manifest, format!("manifest.json: {key} {what}")))
}

impl Manifest {
    /// Checks what the layout alone cannot: sizes, statistics, names, paths, and that they agree with each other.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Manifest`], naming the key.
    pub fn validate(&self) -> Result<()> {
        self.check_dimensions()?;
        self.check_cameras()?;
        self.check_image()?;
        self.check_state()?;
        self.check_action()?;
        self.check_prompt()?;
        self.check_flow()?;
        self.check_graph_files()?;
        self.check_files()?;
        self.check_token_embedding()?;
        self.check_signatures()
    }

    fn check_dimensions(&self) -> Result<()> {
        let d = &self.dimensions;
        for (key, value) in [
            ("image_height", d.image_height),
            ("image_width", d.image_width),
            ("patch_size", d.patch_size),
            ("tokens_per_view", d.tokens_per_view),
            ("prefix_width", d.prefix_width),
            ("prefix_mlp", d.prefix_mlp),
            ("expert_width", d.expert_width),
            ("expert_mlp", d.expert_mlp),
            ("layers", d.layers),
            ("query_heads", d.query_heads),
            ("kv_heads", d.kv_heads),
            ("head_dim", d.head_dim),
            ("vision_width", d.vision_width),
            ("vision_layers", d.vision_layers),
            ("vision_heads", d.vision_heads),
            ("vision_mlp", d.vision_mlp),
            ("vocab_size", d.vocab_size),
            ("action_horizon", d.action_horizon),
        ] {
            in_range(&format!("dimensions.{key}"), value, MAX_SIZE)?;
        }
        in_range("dimensions.layers", d.layers, MAX_LAYERS)?;
        let (rows, columns) = (d.image_height / d.patch_size, d.image_width / d.patch_size);
        if rows * columns != d.tokens_per_view {
            return bad(
                "dimensions.tokens_per_view",
                format_args!(
                    "is {}, but {}x{} pixels hold {rows}x{columns} patches of {}",
                    d.tokens_per_view, d.image_height, d.image_width, d.patch_size
                ),
            );
        }
        if d.kv_heads != 1 {
            return bad("dimensions.kv_heads", format_args!("is {}, only 1 is supported", d.kv_heads));
        }
        // Rotary embedding turns pairs of one half and the other; the time embedding is sines, then cosines.
        for (key, value) in [("head_dim", d.head_dim), ("expert_width", d.expert_width)] {
            if !value.is_multiple_of(2) {
                return bad(&format!("dimensions.{key}"), format_args!("is {value}, which is odd"));
            }
        }
        if !d.vision_width.is_multiple_of(d.vision_heads) {
            return bad(
                "dimensions.vision_width",
                format_args!("is {}, not a multiple of vision_heads {}", d.vision_width, d.vision_heads),
            );
        }
        if let Some(bucket) = self.prefix_bucket {
            in_range("prefix_bucket", bucket, MAX_BUCKET)?;
        }
        // Every provider takes opset 20; newer ones are for those that the bundle was made for.
        let newest = if self.target == Target::Cpu { 20 } else { 24 };
        if !(1..=newest).contains(&self.opset) {
            return bad("opset", format_args!("is {}, supported are 1 to {newest}", self.opset));
        }
        if self.state_in_prefill && self.policy != PolicyKind::Pi0 {
            return bad("state_in_prefill", "is true, but the policy has no state token");
        }
        if self.source.model_sha256.len() != 64 || !is_lower_hex(&self.source.model_sha256) {
            return bad("source.model_sha256", "is not 64 lowercase hexadecimal digits");
        }
        Ok(())
    }

    fn check_cameras(&self) -> Result<()> {
        in_range("the number of cameras", self.cameras.len(), MAX_CAMERAS)?;
        for (i, camera) in self.cameras.iter().enumerate() {
            if camera.name.is_empty() {
                return bad(&format!("cameras[{i}].name"), "is empty");
            }
            if self.cameras[..i].iter().any(|c| c.name == camera.name) {
                return bad(&format!("cameras[{i}].name"), format_args!("{:?} is used twice", camera.name));
            }
        }
        match self.rename.iter().find(|(from, to)| from.is_empty() || to.is_empty()) {
            Some((from, to)) => bad("rename", format_args!("maps {from:?} to {to:?}; a key is empty")),
            None => Ok(()),
        }
    }

    fn check_image(&self) -> Result<()> {
        if !self.image.pad_value.is_finite() {
            return bad("image.pad_value", "is not finite");
        }
        let convention = self.source.conventions.letterbox_pad;
        if convention != self.image.pad_value {
            return bad(
                "image.pad_value",
                format_args!(
                    "is {}, but source.conventions.letterbox_pad is {convention}",
                    self.image.pad_value
                ),
            );
        }
        Ok(())
    }

    fn check_state(&self) -> Result<()> {
        let s = &self.state;
        check_feature("state", s.dim, s.padded_dim, s.names.as_deref())?;
        check_normalization("state.normalization", &s.normalization, s.dim)
    }

    fn check_action(&self) -> Result<()> {
        let a = &self.action;
        check_feature("action", a.dim, a.padded_dim, a.names.as_deref())?;
        check_normalization("action.normalization", &a.normalization, a.dim)?;
        if let Some(mask) = &a.relative_mask {
            same_length("action.relative_mask", mask.len(), a.dim)?;
            if let Some(i) = mask.iter().rposition(|&on| on)
                && i >= self.state.dim
            {
                return bad(
                    "action.relative_mask",
                    format_args!("is true at {i}, but the state has only {} entries", self.state.dim),
                );
            }
        }
        if let Some(limits) = &a.limits {
            check_range("action.limits", ("min", &limits.min), ("max", &limits.max), a.dim)?;
        }
        Ok(())
    }

    fn check_prompt(&self) -> Result<()> {
        let p = &self.prompt;
        in_range("prompt.max_tokens", p.max_tokens, MAX_PROMPT_BYTES)?;
        // Whether the state is in the prompt is the policy's, whether it is padded there the checkpoint's.
        let padded = match (self.policy, p.format) {
            (PolicyKind::Pi0, PromptFormat::AppendNewline) | (_, PromptFormat::CleanedNewline) => None,
            (PolicyKind::Pi05, PromptFormat::Pi05State) => Some(false),
            (PolicyKind::Pi05, PromptFormat::Pi05PaddedState) => Some(true),
            (policy, format) => {
                return bad("prompt.format", format_args!("is {format:?}, which {policy:?} does not use"));
            }
        };
        if self.source.conventions.pad_state_in_prompt != padded {
            return bad(
                "source.conventions.pad_state_in_prompt",
                format_args!("contradicts prompt.format {:?} of {:?}", p.format, self.policy),
            );
        }
        match &p.default {
            Some(text) if text.is_empty() => bad("prompt.default", "is empty; use null for no default"),
            Some(text) if text.len() > MAX_PROMPT_BYTES => bad(
                "prompt.default",
                format_args!("has {} bytes, at most {MAX_PROMPT_BYTES} are allowed", text.len()),
            ),
            _ => Ok(()),
        }
    }

    fn check_flow(&self) -> Result<()> {
        let f = &self.flow;
        in_range("flow.num_steps", f.num_steps, MAX_STEPS)?;
        if !(f.min_period > 0.0 && f.min_period < f.max_period && f.max_period.is_finite()) {
            return bad(
                "flow",
                format_args!(
                    "has periods {} to {}; 0 < min_period < max_period must hold",
                    f.min_period, f.max_period
                ),
            );
        }
        if let Some(delay) = f.rtc_training_max_delay {
            let key = "flow.rtc_training_max_delay";
            if self.policy != PolicyKind::Pi05 {
                return bad(key, format_args!("is {delay}, but {:?} is not trained for it", self.policy));
            }
            if !(1..self.dimensions.action_horizon).contains(&delay) {
                let horizon = self.dimensions.action_horizon;
                return bad(
                    key,
                    format_args!("is {delay}, it must be from 1 to below the horizon {horizon}"),
                );
            }
        }
        if !(self.rope.theta > 0.0 && self.rope.theta.is_finite()) {
            return bad("rope.theta", format_args!("is {}, it must be positive and finite", self.rope.theta));
        }
        Ok(())
    }

    fn check_files(&self) -> Result<()> {
        for (path, entry) in &self.files {
            if let Err(what) = check_relative(path) {
                return bad("files", format_args!("holds the path {path:?}, which {what}"));
            }
            if path == "manifest.json" {
                return bad("files", "holds manifest.json, which cannot hold its own hash");
            }
            if entry.sha256.len() != 64 || !is_lower_hex(&entry.sha256) {
                return bad(&format!("files[{path:?}].sha256"), "is not 64 lowercase hexadecimal digits");
            }
            let is_graph = GraphName::ALL
                .iter()
                .any(|&g| self.graph(g).file == *path || self.graph(g).data_file() == *path);
            if super::integrity::is_graph_file(path) && !is_graph {
                return bad("files", format_args!("holds {path:?}, which belongs to no graph"));
            }
        }
        let named = [
            ("prompt.tokenizer", Some(&self.prompt.tokenizer)),
            ("token_embedding.file", Some(&self.token_embedding.file)),
            ("golden", self.golden.as_ref()),
        ];
        for (key, path) in named.into_iter().filter_map(|(key, path)| Some((key, path?))) {
            self.check_listed(key, path)?;
        }
        Ok(())
    }

    fn check_listed(&self, key: &str, path: &str) -> Result<()> {
        if let Err(what) = check_relative(path) {
            return bad(key, format_args!("is {path:?}, which {what}"));
        }
        if !self.files.contains_key(path) {
            return bad(key, format_args!("is {path:?}, which is not in files"));
        }
        Ok(())
    }

    fn check_token_embedding(&self) -> Result<()> {
        let (t, d) = (&self.token_embedding, &self.dimensions);
        if t.rows != d.vocab_size || t.width != d.prefix_width {
            return bad(
                "token_embedding",
                format_args!(
                    "is [{}, {}], but vocab_size x prefix_width is [{}, {}]",
                    t.rows, t.width, d.vocab_size, d.prefix_width
                ),
            );
        }
        if t.dtype != self.embedding_dtype() {
            return bad(
                "token_embedding.dtype",
                format_args!(
                    "is {}, but prefix_embeds of this precision are {}",
                    t.dtype,
                    self.embedding_dtype()
                ),
            );
        }
        let bytes = (t.rows as u64) * (t.width as u64) * (t.dtype.size() as u64);
        let size = self.files[&t.file].size;
        if size != bytes {
            return bad(
                &format!("files[{:?}].size", t.file),
                format_args!("is {size}, but [{}, {}] of {} has {bytes} bytes", t.rows, t.width, t.dtype),
            );
        }
        Ok(())
    }

    fn check_graph_files(&self) -> Result<()> {
        for (i, &name) in GraphName::ALL.iter().enumerate() {
            let spec = self.graph(name);
            let key = format!("graphs.{name}.file");
            self.check_listed(&key, &spec.file)?;
            if let Err(what) = check_plain_name(&spec.file) {
                return bad(&key, format_args!("is {:?}, which {what}", spec.file));
            }
            if !spec.file.ends_with(".onnx") {
                return bad(&key, format_args!("is {:?}, which does not end with .onnx", spec.file));
            }
            if GraphName::ALL[..i].iter().any(|&other| self.graph(other).file == spec.file) {
                return bad(&key, format_args!("is {:?}, which another graph uses", spec.file));
            }
        }
        Ok(())
    }

    fn check_signatures(&self) -> Result<()> {
        for name in GraphName::ALL {
            let spec = self.graph(name);
            let (inputs, outputs) = self.signature(name);
            let differs = compare_tensors("input", &spec.inputs, &inputs)
                .and_then(|()| compare_tensors("output", &spec.outputs, &outputs));
            if let Err(what) = differs {
                return bad(&format!("graphs.{name}"), format_args!("contradicts the dimensions: {what}"));
            }
        }
        Ok(())
    }
}

fn in_range(key: &str, value: usize, max: usize) -> Result<()> {
    if value == 0 || value > max {
        return bad(key, format_args!("is {value}, it must be from 1 to {max}"));
    }
    Ok(())
}

fn same_length(key: &str, found: usize, dim: usize) -> Result<()> {
    if found != dim {
        return bad(key, format_args!("has {found} entries, the feature has {dim}"));
    }
    Ok(())
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn check_feature(key: &str, dim: usize, padded_dim: usize, names: Option<&[String]>) -> Result<()> {
    in_range(&format!("{key}.dim"), dim, MAX_SIZE)?;
    in_range(&format!("{key}.padded_dim"), padded_dim, MAX_SIZE)?;
    if padded_dim < dim {
        return bad(&format!("{key}.padded_dim"), format_args!("is {padded_dim}, less than dim {dim}"));
    }
    match names {
        Some(names) => same_length(&format!("{key}.names"), names.len(), dim),
        None => Ok(()),
    }
}

fn check_normalization(key: &str, rule: &Normalization, dim: usize) -> Result<()> {
    let eps = match rule {
        Normalization::Identity { eps }
        | Normalization::MeanStd { eps, .. }
        | Normalization::MinMax { eps, .. }
        | Normalization::Quantiles { eps, .. }
        | Normalization::Quantile10 { eps, .. }
        | Normalization::ZScore { eps, .. }
        | Normalization::QuantileRange { eps, .. } => *eps,
    };
    if !(eps.is_finite() && eps >= 0.0) {
        return bad(&format!("{key}.eps"), format_args!("is {eps}, it must be finite and not negative"));
    }
    match rule {
        Normalization::Identity { .. } => Ok(()),
        Normalization::MeanStd { mean, std, .. } => {
            check_finite(&format!("{key}.mean"), mean, dim)?;
            check_finite(&format!("{key}.std"), std, dim)?;
            match std.iter().position(|&s| s < 0.0 || s + eps as f32 == 0.0) {
                Some(i) => bad(
                    &format!("{key}.std[{i}]"),
                    format_args!("is {} with eps {eps}; the sum must be positive", std[i]),
                ),
                None => Ok(()),
            }
        }
        Normalization::MinMax { min, max, .. } => check_span(key, ("min", min), ("max", max), eps, dim),
        Normalization::Quantiles { q01, q99, .. } => check_span(key, ("q01", q01), ("q99", q99), eps, dim),
        Normalization::Quantile10 { q10, q90, .. } => check_span(key, ("q10", q10), ("q90", q90), eps, dim),
        Normalization::ZScore { mean, std, .. } => {
            check_finite(&format!("{key}.mean"), mean, dim)?;
            check_finite(&format!("{key}.std"), std, dim)?;
            check_divisors(key, "std", std.iter().map(|std| std + eps), std.iter().all(|&std| std >= 0.0))
        }
        Normalization::QuantileRange { q01, q99, .. } => {
            check_range(key, ("q01", q01), ("q99", q99), dim)?;
            check_divisors(key, "q99", q01.iter().zip(q99).map(|(low, high)| high - low + eps), true)
        }
    }
}

fn check_span(key: &str, low: (&str, &[f32]), high: (&str, &[f32]), eps: f64, dim: usize) -> Result<()> {
    check_range(key, low, high, dim)?;
    match low.1.iter().zip(high.1).position(|(l, h)| h == l && eps as f32 == 0.0 || !(h - l).is_finite()) {
        Some(i) => bad(
            &format!("{key}.{}[{i}]", high.0),
            format_args!("and {}[{i}] span {} with eps {eps}; nothing can be divided by that", low.0, {
                high.1[i] - low.1[i]
            }),
        ),
        None => Ok(()),
    }
}

/// Each divisor, eps included, is positive in f32 as well, which its quotients are rounded to.
fn check_divisors(
    key: &str,
    name: &str,
    mut divisors: impl Iterator<Item = f64>,
    in_order: bool,
) -> Result<()> {
    match divisors.position(|d| !(d as f32 > 0.0 && (d as f32).is_finite())) {
        Some(i) => {
            bad(&format!("{key}.{name}[{i}]"), "and eps make a divisor that is not positive and finite")
        }
        None if !in_order => bad(&format!("{key}.{name}"), "holds a negative value"),
        None => Ok(()),
    }
}

fn check_range<T: Value>(key: &str, low: (&str, &[T]), high: (&str, &[T]), dim: usize) -> Result<()> {
    check_finite(&format!("{key}.{}", low.0), low.1, dim)?;
    check_finite(&format!("{key}.{}", high.0), high.1, dim)?;
    match low.1.iter().zip(high.1).position(|(l, h)| l > h) {
        Some(i) => bad(
            &format!("{key}.{}[{i}]", low.0),
            format_args!("is {}, above {}[{i}] = {}", low.1[i], high.0, high.1[i]),
        ),
        None => Ok(()),
    }
}

/// A statistic: f32 as lerobot keeps them, f64 as openpi does.
trait Value: Copy + PartialOrd + std::fmt::Display + Into<f64> {}
impl Value for f32 {}
impl Value for f64 {}

fn check_finite<T: Value>(key: &str, values: &[T], dim: usize) -> Result<()> {
    same_length(key, values.len(), dim)?;
    match values.iter().position(|&v| !v.into().is_finite()) {
        Some(i) => bad(&format!("{key}[{i}]"), format_args!("is {}, it must be finite", values[i])),
        None => Ok(()),
    }
}
