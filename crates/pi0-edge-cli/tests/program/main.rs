//! The program's verbs, their output and their exit codes, and what they compute against the references.

#[path = "../../../../tests/bundle_support/mod.rs"]
mod bundle_support;
#[path = "../../../../tests/common/mod.rs"]
mod common;
#[path = "../../../../tests/engine_sets/mod.rs"]
mod engine_sets;
#[path = "../../../pi0-edge-doctor/tests/machine/mod.rs"]
mod machine;
#[path = "../../../../tests/nvidia/mod.rs"]
mod nvidia;
mod support;

mod command_line;
mod doctor;
mod engines;
mod hostile;
mod models;
mod precision;
mod providers;
mod rtc;
mod synthesize;
mod trained_rtc;
