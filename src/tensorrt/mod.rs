//! TensorRT engines, built ahead of time and kept in a directory of the user's own.
//!
//! An engine is code: whoever can write one can run what he likes in the process that loads it, and TensorRT's own
//! checks are none against tampering. So engines are used only from a directory that nobody but the user and root can
//! write (`EngineCache::open`), each set of them pinned to the bundle, the GPU, TensorRT and ONNX Runtime it
//! was made with and for ([`Pins`]), and every file by its hash ([`Record`]).
//!
//! Nothing is built at run time. A set holds, for every graph, an EP context model: a small ONNX file with a single
//! node that names a finished engine: it does not contain the graph, so a session made from it has nothing it could
//! build.
//!
//! ```text
//! CACHE/            the user's own or root's
//!   .lock           held while a set is built or removed
//!   timing/KEY/     what the builder learned about this GPU, by TensorRT version
//!   KEY/            one set; KEY is a hash over its pins
//!     engines.json  the record: pins, options, size and SHA-256 of each file
//!     *.onnx        a graph's context model
//!     *.engine      the engine it names
//!   .building-KEY/  a set that is being made; it gets its name when it is complete
//! ```
//!
//! This module knows files only. The session layer builds and loads the engines.

pub(crate) mod build;
pub(crate) mod context;
pub(crate) mod directory;
mod pins;
pub(crate) mod record;
pub(crate) mod store;
pub(crate) mod trtexec;

pub(crate) use build::{Building, CacheLock};
pub(crate) use context::context_model;
pub(crate) use directory::default_path;
pub use pins::{GpuPin, Pins};
pub use record::{BuilderConfig, Record};
pub(crate) use store::{CacheEntry, EngineCache};

// Building them takes the session layer.
pub use crate::policy::{BuildOptions, BuildOutcome, BuildProgress, build_engines, engine_directory};
