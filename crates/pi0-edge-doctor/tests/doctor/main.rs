//! Findings of the doctor on machines of all kinds, from their files.

#[path = "../../../../tests/engine_sets/mod.rs"]
mod engine_sets;
#[path = "../machine/mod.rs"]
mod machine;

mod bundle;
mod libraries;
mod trees;
