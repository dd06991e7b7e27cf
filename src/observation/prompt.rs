//! The task text to tokens.

use tokenizers::Tokenizer;

use crate::bundle::{Bundle, MAX_PROMPT_BYTES, PromptFormat, PromptRule};
use crate::error::{Error, ErrorKind, Result, ResultExt};

/// Most bytes of a `tokenizer.json`; PaliGemma's has some 17 million.
const MAX_TOKENIZER_BYTES: u64 = 128 << 20;

/// Makes the tokens of a prompt and remembers those of the last one: a task rarely changes between two chunks.
#[derive(Debug)]
pub struct PromptTokenizer {
    tokenizer: Tokenizer,
    rule: PromptRule,
    /// The task that `ids` are for.
    task: String,
    ids: Vec<u32>,
}

impl PromptTokenizer {
    /// Loads the tokenizer of a bundle.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Integrity`] if the file is not a tokenizer, or the default prompt does not fit; [`ErrorKind::Io`]
    /// if it cannot be read.
    pub fn load(bundle: &Bundle) -> Result<Self> {
        let rule = &bundle.manifest().prompt;
        Self::new(&bundle.read_file(&rule.tokenizer, MAX_TOKENIZER_BYTES)?, rule)
    }

    /// A tokenizer from the bytes of a `tokenizer.json`. Its own padding and truncation are turned off: a prompt that
    /// is too long is an error here and not a shorter prompt.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Integrity`] if the bytes are not a tokenizer, or the default prompt does not fit.
    pub fn new(json: &[u8], rule: &PromptRule) -> Result<Self> {
        let mut tokenizer = Tokenizer::from_bytes(json)
            .or_kind(ErrorKind::Integrity, || format!("{} is not a tokenizer", rule.tokenizer))?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).or_kind(ErrorKind::Integrity, || {
            format!("{} does not let truncation be turned off", rule.tokenizer)
        })?;
        let mut prompt = PromptTokenizer {
            tokenizer,
            rule: rule.clone(),
            task: String::new(),
            ids: Vec::with_capacity(rule.max_tokens),
        };
        if let Some(default) = &rule.default {
            prompt
                .tokenize(default)
                .or_kind(ErrorKind::Integrity, || "manifest.json: prompt.default cannot be used".into())?;
        }
        Ok(prompt)
    }

    /// The tokens of `prompt`, or of the bundle's default if it is `None` or empty: ids in order, BOS included, without
    /// padding; from 1 to `max_tokens` of them. The same prompt as the last time costs one comparison.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Observation`] if there is neither prompt nor default, or the prompt has too many bytes or tokens.
    /// The tokens of the prompt before are then forgotten.
    pub fn encode(&mut self, prompt: Option<&str>) -> Result<&[u32]> {
        let task = match (prompt.filter(|p| !p.is_empty()), &self.rule.default) {
            (Some(task), _) => task,
            (None, Some(default)) if *default == self.task => return Ok(&self.ids),
            (None, Some(default)) => &default.clone(),
            (None, None) => {
                return Err(Error::new(
                    ErrorKind::Observation,
                    "the observation has no prompt and the bundle has no default; give the task as prompt",
                ));
            }
        };
        if self.task != task {
            self.tokenize(task)?;
        }
        Ok(&self.ids)
    }

    /// The tokens of the last prompt.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    fn tokenize(&mut self, task: &str) -> Result<()> {
        self.task.clear();
        self.ids.clear();
        // A tokenizer's worst case is far from linear, so its input is bounded before it is looked at.
        if task.len() > MAX_PROMPT_BYTES {
            return Err(Error::new(
                ErrorKind::Observation,
                format!("the prompt has {} bytes, at most {MAX_PROMPT_BYTES} are allowed", task.len()),
            ));
        }
        let PromptFormat::AppendNewline = self.rule.format;
        let newline = if task.ends_with('\n') { "" } else { "\n" };
        let encoding = self
            .tokenizer
            .encode_fast(format!("{task}{newline}"), true)
            .or_kind(ErrorKind::Observation, || "the prompt cannot be tokenized".into())?;
        let ids = encoding.get_ids();
        if ids.is_empty() || ids.len() > self.rule.max_tokens {
            return Err(Error::new(
                ErrorKind::Observation,
                format!(
                    "the prompt has {} tokens, the policy takes from 1 to {}; shorten the task",
                    ids.len(),
                    self.rule.max_tokens
                ),
            ));
        }
        self.ids.extend_from_slice(ids);
        self.task.push_str(task);
        Ok(())
    }
}
