//! The parts of the real-time runtime: time, hand-over between threads, and the way from a chunk to the action
//! that is due now. Nothing here knows what a policy is made of, and nothing needs ONNX Runtime.
//!
//! Functions marked *RT-safe: yes* take no lock, make no system call, allocate nothing and finish in a bounded number
//! of steps. Every one of them runs under RealtimeSanitizer in the tests.

pub mod cell;
pub mod chunk;
pub mod clock;
pub mod delay;
pub mod episode;
mod limiter;
mod memory;
mod plan;
mod primitive;
pub mod reading;
pub mod recorder;
mod ring;
pub mod splice;
pub mod thread;
pub mod timeline;
pub mod timeline_config;
pub mod wake;
