//! The task text to tokens.

use super::bpe::Bpe;
use super::{state_text, tokenizer_file};
use crate::bundle::{Bundle, Manifest, PromptFormat, PromptRule};
use crate::error::{ErrorKind, Result, ResultExt};
use crate::limits::MAX_PROMPT_BYTES;

/// Most bytes of a `tokenizer.json`; PaliGemma's has some 17 million.
const MAX_TOKENIZER_BYTES: u64 = 32 << 20;
/// Most characters said about a file that is refused: it can quote what is in the file.
const MAX_REASON: usize = 160;

/// Makes the tokens of a prompt and remembers those of the last one: a task rarely changes between two chunks.
///
/// Nothing is allocated for a new prompt.
#[derive(Debug)]
pub struct PromptTokenizer {
    encoder: Box<Bpe>,
    rule: PromptRule,
    /// The number of the model's state entries in the prompt, and of all.
    shown: usize,
    state_len: usize,
    /// The task that `ids` are for; empty if they are for none.
    task: String,
    /// The state that `ids` are for.
    bins: Vec<i16>,
    text: String,
    ids: Vec<u32>,
}

impl PromptTokenizer {
    /// Loads the tokenizer of a bundle.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Integrity`] if the file is not a tokenizer of PaliGemma's kind, or the default prompt does not fit;
    /// [`ErrorKind::Io`] if it cannot be read.
    pub fn load(bundle: &Bundle) -> Result<Self> {
        let manifest = bundle.manifest();
        Self::new(&bundle.read_file(&manifest.prompt.tokenizer, MAX_TOKENIZER_BYTES)?, manifest)
    }

    /// Makes a tokenizer from the bytes of a `tokenizer.json`. Its padding and truncation are left out: the manifest says
    /// what becomes of a prompt that is too long.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Integrity`] if the bytes are not a tokenizer of PaliGemma's kind, which is byte-pair encoding with
    /// spaces as U+2581 and bytes for what is no token, or the default prompt does not fit.
    pub fn new(json: &[u8], manifest: &Manifest) -> Result<Self> {
        let rule = &manifest.prompt;
        let (shown, state_len) = match rule.format {
            PromptFormat::AppendNewline | PromptFormat::CleanedNewline => (0, manifest.state.padded_dim),
            PromptFormat::Pi05State => (manifest.state.normalized_len(), manifest.state.padded_dim),
            PromptFormat::Pi05PaddedState => (manifest.state.padded_dim, manifest.state.padded_dim),
        };
        let max_bytes = MAX_PROMPT_BYTES + state_text::overhead(shown);
        let tables = tokenizer_file::read(json).map_err(|why| {
            let why: String = why.chars().take(MAX_REASON).collect();
            let what = format!(
                "{} is not a tokenizer of PaliGemma's kind, which is what policies have",
                rule.tokenizer
            );
            err!(Integrity, "{what}: {why}")
        })?;
        let mut prompt = PromptTokenizer {
            encoder: Box::new(Bpe::new(tables, max_bytes)),
            rule: rule.clone(),
            shown,
            state_len,
            task: String::with_capacity(MAX_PROMPT_BYTES),
            bins: Vec::with_capacity(shown),
            text: String::with_capacity(max_bytes),
            ids: Vec::with_capacity(max_bytes),
        };
        if rule.default.is_some() {
            // The state of the middle stands for any: what it takes is about what others take.
            prompt
                .encode(None, &vec![0.0; state_len])
                .or_kind(ErrorKind::Integrity, || "manifest.json: prompt.default cannot be used".into())?;
        }
        Ok(prompt)
    }

    /// The tokens of `prompt`, or of the bundle's default if it is `None` or empty: ids in order, BOS included, without
    /// padding; from 1 to `max_tokens` of them, of a longer prompt the first where the bundle has `truncation`. `state` is the model's, as
    /// [`write_state`](super::Preprocessor::write_state) writes it; PI0.5 has it in its prompt, other policies do not
    /// look at it. The same as the last time costs one comparison.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Observation`] if there is neither prompt nor default, or the prompt has too many bytes or tokens;
    /// [`ErrorKind::InvalidArgument`] if a state that is needed has another length than the model's.
    /// The tokens of the prompt before are then forgotten.
    pub fn encode(&mut self, prompt: Option<&str>, state: &[f32]) -> Result<&[u32]> {
        let Some(task) = prompt.filter(|p| !p.is_empty()).or(self.rule.default.as_deref()) else {
            bail!(
                Observation,
                "the observation has no prompt and the bundle has no default; give the task as prompt"
            );
        };
        let known = self.task == task;
        if self.shown > 0 && state.len() != self.state_len {
            bail!(
                InvalidArgument,
                "the model's state has {} entries, {} were given",
                self.state_len,
                state.len()
            );
        }
        let bins = state.iter().take(self.shown).map(|&value| state_text::bin(value));
        if known && self.bins.iter().copied().eq(bins.clone()) {
            return Ok(&self.ids);
        }
        self.bins.clear();
        self.bins.extend(bins);
        self.task.clear();
        self.ids.clear();
        self.text.clear();
        // A tokenizer's worst case is far from linear, so its input is bounded before it is looked at.
        ensure!(
            task.len() <= MAX_PROMPT_BYTES,
            Observation,
            "the prompt has {} bytes, at most {MAX_PROMPT_BYTES} are allowed",
            task.len()
        );
        match self.rule.format {
            PromptFormat::AppendNewline => {
                self.text.push_str(task);
                self.text.push_str(if task.ends_with('\n') { "" } else { "\n" });
            }
            PromptFormat::CleanedNewline => {
                state_text::push_cleaned(task, &mut self.text);
                self.text.push('\n');
            }
            PromptFormat::Pi05State | PromptFormat::Pi05PaddedState => {
                state_text::write_prompt(task, &self.bins, &mut self.text);
            }
        }
        self.encoder.encode(&self.text, &mut self.ids);
        let tokens = self.ids.len();
        if self.rule.truncation && tokens > self.rule.max_tokens {
            self.encoder.truncate(&mut self.ids, self.rule.max_tokens);
            if !known {
                log::warn!(
                    "the prompt has {tokens} tokens and is cut to {}, as in training",
                    self.rule.max_tokens
                );
            }
        }
        if self.ids.is_empty() || self.ids.len() > self.rule.max_tokens {
            let with_state = if self.shown > 0 { ", those of the state among them" } else { "" };
            bail!(
                Observation,
                "the prompt has {} tokens{with_state}, the policy takes from 1 to {}; shorten the task",
                self.ids.len(),
                self.rule.max_tokens
            );
        }
        self.task.push_str(task);
        Ok(&self.ids)
    }

    /// The tokens of the last prompt.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }
}
