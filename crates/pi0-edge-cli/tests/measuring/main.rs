//! The verbs that measure: `bench control`, `bench device` and `replay`.

#[path = "../../../../tests/common/mod.rs"]
mod common;
#[path = "../../../pi0-edge-doctor/tests/machine/mod.rs"]
mod machine;
#[path = "../program/support.rs"]
mod support;

mod control;
mod device;
mod long;
mod replay;
