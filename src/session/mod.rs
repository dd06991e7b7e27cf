//! ONNX Runtime: finding and loading it, sessions, and tensors bound once at fixed addresses.
//!
//! This is the crate's only module that uses `ort`, and with `realtime` the only one with `unsafe`. What it gives the
//! rest is safe: [`Tensors`] owns every buffer, [`Graph::bind`] hands addresses inside them to
//! ONNX Runtime after checking bounds, and [`Graph::run`] takes `&mut Tensors`, so no slice of a buffer can be
//! alive while ONNX Runtime reads or writes it. On a device whose runs are only queued, the tensors know what is
//! under way and give out a slice once nothing touches it any more.

mod binding;
mod build_engine;
mod captures;
mod device;
mod environment;
mod faults;
mod graph;
mod mapped;
mod memory;
mod placement;
mod provider;
mod run_options;
mod shared_library;
mod tensors;
mod workers;

pub(crate) use build_engine::version_text as tensorrt_version_text;
pub use build_engine::{build_engine, pins_here};
pub use device::{Device, DeviceMemory, DeviceOptions};
pub use environment::Environment;
pub use graph::{Graph, GraphOptions, Port};
pub use mapped::MappedFile;
pub use memory::{Access, DeviceMemoryUse};
pub(crate) use provider::tensorrt::shapes;
pub use provider::tensorrt::{EngineBuild, RunSizes};
pub use tensors::{TensorId, Tensors, Transfers};

#[cfg(test)]
pub(crate) use memory::fake;

use crate::error::Error;

/// `ort`'s errors can carry a builder that is neither `Send` nor `Sync`; only their text travels on.
fn graph_error<R>(context: impl std::fmt::Display, error: ort::Error<R>) -> Error {
    err!(Graph, "{context}: {}", error.message())
}
