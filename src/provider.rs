//! The execution providers: names only, so that code that loads nothing can speak of them too.

use std::path::Path;
use std::sync::OnceLock;

use serde::Serialize;

/// Names what computes the graphs. The one that is asked for is the one that is used; nothing falls back to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// The CPU; part of every build of ONNX Runtime.
    #[default]
    Cpu,
    /// ONNX Runtime's CUDA kernels, on an NVIDIA GPU.
    Cuda,
    /// Engines built ahead of time by TensorRT, on an NVIDIA GPU.
    TensorRt,
}

words!(Provider, "provider", str::eq, { Cpu => "cpu", Cuda => "cuda", TensorRt => "tensorrt" });

static EXPLAIN: OnceLock<fn(Provider, &Path) -> Option<String>> = OnceLock::new();

impl Provider {
    /// Registers what finds out why a provider cannot be used with ONNX Runtime's library, for this process' errors of
    /// kind [`ErrorKind::Provider`](crate::ErrorKind::Provider): for example the doctor, which reads what the library
    /// needs and this machine lacks.
    ///
    /// `explain` gets the provider and the library, and returns `None` when it knows nothing. The first one registered
    /// stays.
    pub fn explain_failures_with(explain: fn(Provider, &Path) -> Option<String>) {
        _ = EXPLAIN.set(explain);
    }

    /// Returns why this provider cannot be used with the ONNX Runtime at `library`, if something registered knows.
    pub(crate) fn explain_failure(self, library: &Path) -> Option<String> {
        EXPLAIN.get()?(self, library)
    }
}
