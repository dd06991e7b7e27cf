//! The execution providers: names only, so that code that loads nothing can speak of them too.

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

words!(Provider, "provider", { Cpu => "cpu", Cuda => "cuda", TensorRt => "tensorrt" });
