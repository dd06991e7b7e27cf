//! The task text to tokens.

use tokenizers::Tokenizer;

use super::bpe::Bpe;
use super::{state_text, tokenizer_file};
use crate::bundle::{Bundle, Manifest, PromptFormat, PromptRule};
use crate::error::{ErrorKind, Result, ResultExt};
use crate::limits::MAX_PROMPT_BYTES;

/// Most bytes of a `tokenizer.json`; PaliGemma's has some 17 million.
const MAX_TOKENIZER_BYTES: u64 = 128 << 20;

/// Makes the tokens of a prompt and remembers those of the last one: a task rarely changes between two chunks.
///
/// With a tokenizer of PaliGemma's family, which every released policy has, nothing is allocated for a new prompt.
#[derive(Debug)]
pub struct PromptTokenizer {
    encoder: Encoder,
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

#[derive(Debug)]
enum Encoder {
    /// In buffers of its own.
    Own(Box<Bpe>),
    /// For every other kind of tokenizer.
    Library(Box<Tokenizer>),
}

impl PromptTokenizer {
    /// Loads the tokenizer of a bundle.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Integrity`] if the file is not a tokenizer, or the default prompt does not fit; [`ErrorKind::Io`]
    /// if it cannot be read.
    pub fn load(bundle: &Bundle) -> Result<Self> {
        let manifest = bundle.manifest();
        Self::new(&bundle.read_file(&manifest.prompt.tokenizer, MAX_TOKENIZER_BYTES)?, manifest)
    }

    /// A tokenizer from the bytes of a `tokenizer.json`. Its own padding and truncation are turned off: a prompt that
    /// is too long is an error here and not a shorter prompt.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Integrity`] if the bytes are not a tokenizer, or the default prompt does not fit.
    pub fn new(json: &[u8], manifest: &Manifest) -> Result<Self> {
        let rule = &manifest.prompt;
        let (shown, state_len) = match rule.format {
            PromptFormat::AppendNewline | PromptFormat::CleanedNewline => (0, manifest.state.padded_dim),
            PromptFormat::Pi05State => (manifest.state.dim, manifest.state.padded_dim),
            PromptFormat::Pi05PaddedState => (manifest.state.padded_dim, manifest.state.padded_dim),
        };
        let max_bytes = MAX_PROMPT_BYTES + state_text::overhead(shown);
        let mut prompt = PromptTokenizer {
            encoder: Encoder::new(json, rule, max_bytes)?,
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
    /// padding; from 1 to `max_tokens` of them. `state` is the model's, as
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
        self.encoder.encode(&self.text, &mut self.ids)?;
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

    /// Returns true if new prompts are tokenised without allocating.
    pub fn is_allocation_free(&self) -> bool {
        matches!(self.encoder, Encoder::Own(_))
    }
}

impl Encoder {
    fn new(json: &[u8], rule: &PromptRule, max_bytes: usize) -> Result<Self> {
        let why = match tokenizer_file::read(json) {
            Ok(tables) => return Ok(Encoder::Own(Box::new(Bpe::new(tables, max_bytes)))),
            Err(why) => why,
        };
        let tokenizer = library(json, rule)?;
        log::warn!(
            "{}: {why}; prompts are left to the tokenizers library, which allocates for every new one",
            rule.tokenizer
        );
        Ok(Encoder::Library(Box::new(tokenizer)))
    }

    fn encode(&mut self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        match self {
            Encoder::Own(bpe) => bpe.encode(text, ids),
            Encoder::Library(tokenizer) => {
                let encoding = tokenizer
                    .encode_fast(text, true)
                    .or_kind(ErrorKind::Observation, || "the prompt cannot be tokenized".into())?;
                ids.extend_from_slice(encoding.get_ids());
            }
        }
        Ok(())
    }
}

fn library(json: &[u8], rule: &PromptRule) -> Result<Tokenizer> {
    let mut tokenizer = Tokenizer::from_bytes(json)
        .or_kind(ErrorKind::Integrity, || format!("{} is not a tokenizer", rule.tokenizer))?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).or_kind(ErrorKind::Integrity, || {
        format!("{} does not let truncation be turned off", rule.tokenizer)
    })?;
    Ok(tokenizer)
}
