//! Rules that hold between the manifest's fields.
//!
//! Every check names the key it is about, so that a broken exporter is found from the message alone.

/// Returns an error about the manifest: what `format!` takes, beginning with the key.
macro_rules! refuse {
    ($($text:tt)+) => { bail!(Manifest, "manifest.json: {}", format_args!($($text)+)) };
}

/// Returns an error about the manifest unless the condition holds.
macro_rules! check {
    ($holds:expr, $($text:tt)+) => {
        if !$holds {
            refuse!($($text)+);
        }
    };
}

mod features;

use super::files::{check_plain_name, check_relative};
use super::graphs::{GraphName, compare_tensors};
use super::manifest::{Manifest, PolicyKind, Precision, PromptFormat, Target};
use crate::aloha;
use crate::error::Result;
use crate::limits::{MAX_CAMERAS, MAX_FILES, MAX_NUM_STEPS, MAX_PROMPT_BYTES, MAX_PROMPT_TOKENS};

/// No single size of a real model comes near; keeps every product of two sizes far inside 64 bits.
const MAX_SIZE: usize = 1 << 24;
const MAX_LAYERS: usize = 64;
/// Longest step between two lengths of a padded prefix: every tensor of the prefix has room for as much.
const MAX_BUCKET: usize = 1 << 14;

impl Manifest {
    /// Checks what the layout alone cannot: sizes, statistics, names, paths, and that they agree with each other.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Manifest`](crate::ErrorKind::Manifest), naming the key.
    pub fn validate(&self) -> Result<()> {
        self.check_dimensions()?;
        let quantised = matches!(self.precision, Precision::Int8 | Precision::Int4);
        check!(
            self.quantization.is_some() == quantised,
            "quantization is {} with this precision",
            if quantised { "missing, which there must be" } else { "there, which there must not be" }
        );
        self.check_cameras()?;
        self.check_image()?;
        self.state.check()?;
        self.action.check(self.state.dim)?;
        self.check_robot()?;
        self.check_prompt()?;
        self.check_flow()?;
        self.check_graph_files()?;
        self.check_files()?;
        self.check_token_embedding()?;
        self.check_signatures()?;
        self.check_working_bytes()
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
            in_range(format_args!("dimensions.{key}"), value, MAX_SIZE)?;
        }
        in_range("dimensions.layers", d.layers, MAX_LAYERS)?;
        let (rows, columns) = (d.image_height / d.patch_size, d.image_width / d.patch_size);
        let (tokens, height, width, patch) = (d.tokens_per_view, d.image_height, d.image_width, d.patch_size);
        check!(
            rows * columns == tokens,
            "dimensions.tokens_per_view is {tokens}, but {height}x{width} pixels hold {rows}x{columns} patches of {patch}"
        );
        check!(d.kv_heads == 1, "dimensions.kv_heads is {}, only 1 is supported", d.kv_heads);
        // Rotary embedding turns pairs of one half and the other; the time embedding is sines, then cosines.
        for (key, value) in [("head_dim", d.head_dim), ("expert_width", d.expert_width)] {
            check!(value.is_multiple_of(2), "dimensions.{key} is {value}, which is odd");
        }
        let (width, heads) = (d.vision_width, d.vision_heads);
        check!(
            width.is_multiple_of(heads),
            "dimensions.vision_width is {width}, not a multiple of vision_heads {heads}"
        );
        self.prefix_bucket.map_or(Ok(()), |bucket| in_range("prefix_bucket", bucket, MAX_BUCKET))?;
        // Every provider takes opset 20; newer ones are for the provider that the bundle was made for.
        let newest = if self.target == Target::Cpu { 20 } else { 24 };
        check!((1..=newest).contains(&self.opset), "opset is {}, supported are 1 to {newest}", self.opset);
        check!(
            !self.state_in_prefill || self.policy == PolicyKind::Pi0,
            "state_in_prefill is true, but the policy has no state token"
        );
        is_sha256("source.model_sha256", &self.source.model_sha256)
    }

    fn check_cameras(&self) -> Result<()> {
        in_range("the number of cameras", self.cameras.len(), MAX_CAMERAS)?;
        for (i, camera) in self.cameras.iter().enumerate() {
            check!(!camera.name.is_empty(), "cameras[{i}].name is empty");
            let known = self.cameras[..i].iter().any(|c| c.name == camera.name);
            check!(!known, "cameras[{i}].name {:?} is used twice", camera.name);
        }
        match self.rename.iter().find(|(from, to)| from.is_empty() || to.is_empty()) {
            Some((from, to)) => refuse!("rename maps {from:?} to {to:?}; a key is empty"),
            None => Ok(()),
        }
    }

    fn check_image(&self) -> Result<()> {
        let (pad, convention) = (self.image.pad_value, self.source.conventions.letterbox_pad);
        check!(pad.is_finite(), "image.pad_value is not finite");
        check!(
            pad == convention,
            "image.pad_value is {pad}, but source.conventions.letterbox_pad is {convention}"
        );
        Ok(())
    }

    fn check_robot(&self) -> Result<()> {
        let (state, action) = (self.state.dim, self.action.dim);
        check!(
            !self.adapt_to_pi || (state, action) == (aloha::DIM, aloha::DIM),
            "adapt_to_pi is true, but state and action have {state} and {action} entries, and ALOHA's {} each",
            aloha::DIM
        );
        Ok(())
    }

    fn check_prompt(&self) -> Result<()> {
        let p = &self.prompt;
        in_range("prompt.max_tokens", p.max_tokens, MAX_PROMPT_TOKENS)?;
        // The policy says whether the state is in the prompt, the checkpoint whether it is padded there.
        let padded = match (self.policy, p.format) {
            (PolicyKind::Pi0, PromptFormat::AppendNewline) | (_, PromptFormat::CleanedNewline) => None,
            (PolicyKind::Pi05, PromptFormat::Pi05State) => Some(false),
            (PolicyKind::Pi05, PromptFormat::Pi05PaddedState) => Some(true),
            (policy, format) => refuse!("prompt.format is {format:?}, which {policy:?} does not use"),
        };
        check!(
            self.source.conventions.pad_state_in_prompt == padded,
            "source.conventions.pad_state_in_prompt contradicts prompt.format {:?} of {:?}",
            p.format,
            self.policy
        );
        if let Some(bytes) = p.default.as_ref().map(String::len) {
            check!(bytes > 0, "prompt.default is empty; use null for no default");
            check!(
                bytes <= MAX_PROMPT_BYTES,
                "prompt.default has {bytes} bytes, at most {MAX_PROMPT_BYTES} are allowed"
            );
        }
        Ok(())
    }

    fn check_flow(&self) -> Result<()> {
        let (f, theta) = (&self.flow, self.rope.theta);
        in_range("flow.num_steps", f.num_steps, MAX_NUM_STEPS)?;
        let (min, max) = (f.min_period, f.max_period);
        check!(
            min > 0.0 && min < max && max.is_finite(),
            "flow has periods {min} to {max}; 0 < min_period < max_period must hold"
        );
        if let Some(delay) = f.rtc_training_max_delay {
            let (policy, horizon) = (self.policy, self.dimensions.action_horizon);
            check!(
                policy == PolicyKind::Pi05,
                "flow.rtc_training_max_delay is {delay}, but {policy:?} is not trained for it"
            );
            check!(
                (1..horizon).contains(&delay),
                "flow.rtc_training_max_delay is {delay}, it must be from 1 to below the horizon {horizon}"
            );
        }
        check!(theta > 0.0 && theta.is_finite(), "rope.theta is {theta}, it must be positive and finite");
        Ok(())
    }

    fn check_files(&self) -> Result<()> {
        in_range("the number of files", self.files.len(), MAX_FILES)?;
        for (path, entry) in &self.files {
            if let Err(what) = check_relative(path) {
                refuse!("files holds the path {path:?}, which {what}");
            }
            check!(path != "manifest.json", "files holds manifest.json, which cannot hold its own hash");
            is_sha256(format_args!("files[{path:?}].sha256"), &entry.sha256)?;
            let is_graph = GraphName::ALL
                .iter()
                .any(|&g| self.graph(g).file == *path || self.graph(g).data_file() == *path);
            check!(
                is_graph || !super::integrity::is_graph_file(path),
                "files holds {path:?}, which belongs to no graph"
            );
        }
        self.check_listed("prompt.tokenizer", &self.prompt.tokenizer)?;
        self.check_listed("token_embedding.file", &self.token_embedding.file)?;
        self.golden.as_ref().map_or(Ok(()), |path| self.check_listed("golden", path))
    }

    fn check_listed(&self, key: &str, path: &str) -> Result<()> {
        if let Err(what) = check_relative(path) {
            refuse!("{key} is {path:?}, which {what}");
        }
        check!(self.files.contains_key(path), "{key} is {path:?}, which is not in files");
        Ok(())
    }

    fn check_token_embedding(&self) -> Result<()> {
        let (t, d, needed) = (&self.token_embedding, &self.dimensions, self.embedding_dtype());
        let (rows, width, dtype) = (t.rows, t.width, t.dtype);
        check!(
            (rows, width) == (d.vocab_size, d.prefix_width),
            "token_embedding is [{rows}, {width}], but vocab_size x prefix_width is [{}, {}]",
            d.vocab_size,
            d.prefix_width
        );
        check!(
            dtype == needed,
            "token_embedding.dtype is {dtype}, but prefix_embeds of this precision are {needed}"
        );
        let bytes = (rows as u64) * (width as u64) * (dtype.size() as u64);
        let size = self.files[&t.file].size;
        check!(
            size == bytes,
            "files[{:?}].size is {size}, but [{rows}, {width}] of {dtype} has {bytes} bytes",
            t.file
        );
        Ok(())
    }

    fn check_graph_files(&self) -> Result<()> {
        for (i, &name) in GraphName::ALL.iter().enumerate() {
            let (key, file) = (format!("graphs.{name}.file"), &self.graph(name).file);
            self.check_listed(&key, file)?;
            if let Err(what) = check_plain_name(file) {
                refuse!("{key} is {file:?}, which {what}");
            }
            check!(file.ends_with(".onnx"), "{key} is {file:?}, which does not end with .onnx");
            let used = GraphName::ALL[..i].iter().any(|&other| self.graph(other).file == *file);
            check!(!used, "{key} is {file:?}, which another graph uses");
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
                refuse!("graphs.{name} contradicts the dimensions: {what}");
            }
        }
        Ok(())
    }
}

fn in_range(key: impl std::fmt::Display, value: usize, max: usize) -> Result<()> {
    check!((1..=max).contains(&value), "{key} is {value}, it must be from 1 to {max}");
    Ok(())
}

fn is_sha256(key: impl std::fmt::Display, text: &str) -> Result<()> {
    let hex = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    check!(hex, "{key} is not 64 lowercase hexadecimal digits");
    Ok(())
}
