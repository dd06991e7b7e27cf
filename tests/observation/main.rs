//! Frames, state and prompt against the references: torch, Pillow, tokenizers.

#[path = "../bundle_support/mod.rs"]
mod bundle_support;

mod allocations;
mod bpe;
mod camera_frame;
mod golden;
mod pillow;
mod preprocess;
mod prompt;
mod resize;
mod torch;
