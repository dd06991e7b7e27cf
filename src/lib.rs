//! **pi0-edge** runs PI0 and PI0.5 policies on robots: camera frames, a state and an instruction go in, a chunk of actions
//! comes out.
//!
//! The contract, in short:
//!
//! * **No copies between graphs.** The vision encoder writes its embeddings into rows of the one prefix buffer,
//!   token rows are gathered from a file map straight behind them, the prefill's keys and values are the denoise
//!   step's inputs, and the denoise step updates its variable in place. All of it is bound once, by address.
//! * **No allocation of ours in the steady state.** After the first chunk, an inference over frames of known sizes
//!   allocates nothing on the Rust side, whatever its prompt and state. (ONNX Runtime itself makes small, bounded ones.)
//! * **Nothing computed that would be masked.** Absent cameras and prompt padding are left out, which is exact.
//! * **Exactness before speed.** Every bundle can carry the reference policy's recorded outputs, and
//!   `pi0-edge check` compares with them stage by stage.
//! * **Failures in words, early.** Every byte of a bundle is verified before it is used; nothing falls back to
//!   something that was not asked for; a chunk with a value that is not finite is an error, not a chunk.
//! * **Threads.** A [`Policy`] computes one chunk at a time and may move between threads. Errors leave it usable.
//!
//! ```no_run
//! use pi0_edge::{Frame, InferOptions, Noise, Observation, Policy, PolicyOptions};
//!
//! # fn main() -> pi0_edge::Result<()> {
//! let mut policy = Policy::load("models/pi0-tiny", &PolicyOptions::default())?;
//! let frame = vec![0u8; 640 * 480 * 3]; // RGB, row-major
//! let observation = Observation {
//!     images: &[("observation.images.base", Frame::new(&frame, 640, 480)?)],
//!     state: &[0.0; 6],
//!     prompt: Some("pick up the cube"),
//! };
//! let options = InferOptions { noise: Noise::Seed(7), ..InferOptions::default() };
//! let chunk = policy.infer(&observation, &options)?;
//! println!("first action: {:?}", chunk.action(0));
//! # Ok(())
//! # }
//! ```
//!
//! For a control loop, [`runtime`] does this on a thread of its own and answers "what is the action now?" without a
//! lock, a system call or an allocation; `examples/control_loop.rs` shows it.
//!
//! A bundle is a directory made by `scripts/export.py` from a checkpoint of lerobot's or openpi's; [`bundle`] describes
//! it.
//!
//! C and C++ programs link `libpi0_edge.so` or `libpi0_edge.a` and include `pi0_edge.h`, which `crates/pi0-edge-c` makes.

#![deny(unsafe_code)]
#![cfg_attr(pi0_rtsan, feature(sanitize))]

#[macro_use]
mod words;
#[macro_use]
mod error;
mod action;
mod aloha;
mod limits;
mod lookup;
mod observation;
mod policy;
mod provider;
#[allow(unsafe_code)]
mod session;
mod text;

pub mod bundle;
pub mod tensorrt;

pub mod stats;

#[allow(unsafe_code)]
mod realtime;

pub mod runtime;

#[doc(hidden)]
pub mod internals;

pub use action::{ActionChunk, ActionLimits, Reject};
pub use bundle::{Bundle, Manifest, Verify};
pub use error::{Error, ErrorKind, Result};
pub use limits::{MAX_CAMERAS, MAX_NUM_STEPS};
pub use observation::{CameraFrame, Frame, FrameError, MAX_FRAME_SIDE, Observation, Pixels, Plane, Yuv};
pub use policy::{
    InferOptions, Inspector, Noise, Observer, Policy, PolicyOptions, Stage, StageOutput, Timing, Weights, rtc,
};
pub use provider::Provider;
pub use runtime::{
    Controller, Event, ObservationWriter, PublishError, Published, Reading, Runtime, RuntimeConfig, Status,
};
pub use session::{DeviceMemory, DeviceMemoryUse, Environment, Transfers};
