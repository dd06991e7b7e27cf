//! The policy over its bound tensors: no copies, padded prefixes, device memory, files that change, the runtime with a real policy.

#[path = "../common/mod.rs"]
mod common;

mod bad_input;
mod changing_files;
mod device_memory;
mod padded_prefix;
mod runtime;
mod zero_copy;
