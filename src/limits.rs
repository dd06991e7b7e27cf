//! The bounds that hold in every layer, each in one place: what a manifest may ask for is what the runtime can run.

/// Most Euler steps of a chunk. The tables of time and guidance are made for so many, and TensorRT engines are built
/// for them.
pub const MAX_NUM_STEPS: usize = 64;

/// Most cameras of a policy, and most images of an observation.
pub const MAX_CAMERAS: usize = 16;

/// Most threads of one operator.
pub(crate) const MAX_THREADS: usize = 128;

/// Most bytes that an inference may need for its tensors and the largest of what is computed between them, as
/// [`Manifest::working_bytes`](crate::bundle::Manifest::working_bytes) counts.
pub(crate) const MAX_WORKING_BYTES: u64 = 1 << 30;

/// Most entries of a state or an action, padding included.
pub(crate) const MAX_FEATURE_DIM: usize = 4096;

/// Most files that a manifest lists.
pub(crate) const MAX_FILES: usize = 4096;

/// Most tokens of a tokenizer, and most that are added to its vocabulary.
pub(crate) const MAX_VOCABULARY: usize = 1 << 19;
pub(crate) const MAX_ADDED_TOKENS: usize = 8192;

/// Most bytes of a prompt; checked before a tokenizer sees it. No prompt has more tokens than bytes and its frame.
pub(crate) const MAX_PROMPT_BYTES: usize = 16 << 10;

/// Most tokens a manifest may allow a prompt. PaliGemma's position table ends at 8192.
pub(crate) const MAX_PROMPT_TOKENS: usize = MAX_PROMPT_BYTES;
