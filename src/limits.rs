//! The bounds that hold in every layer, each in one place: what a manifest may ask for is what the runtime can run.

/// Most Euler steps of a chunk. The tables of time and guidance are made for so many, and TensorRT engines are built
/// for them.
pub const MAX_NUM_STEPS: usize = 64;

/// Most cameras of a policy, and most images of an observation.
pub const MAX_CAMERAS: usize = 16;

/// Most bytes of a prompt; checked before a tokenizer sees it. No prompt has more tokens than bytes and its frame.
pub(crate) const MAX_PROMPT_BYTES: usize = 16 << 10;

/// Most tokens a manifest may allow a prompt. PaliGemma's position table ends at 8192.
pub(crate) const MAX_PROMPT_TOKENS: usize = MAX_PROMPT_BYTES;
