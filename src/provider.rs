//! The execution providers: names only, so that the doctor, which loads nothing, can speak of them too.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::OnceLock;

use serde::Serialize;

use crate::error::{Error, ErrorKind};

/// What computes the graphs. The one that is asked for is the one that is used; nothing falls back to another.
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

impl Provider {
    /// The name used on the command line and in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Provider::Cpu => "cpu",
            Provider::Cuda => "cuda",
            Provider::TensorRt => "tensorrt",
        }
    }

    /// Registers what finds out why a provider cannot be used with ONNX Runtime's library, for this process' errors of
    /// kind [`ErrorKind::Provider`]: for example the doctor, which reads what the library needs and this machine lacks.
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

static EXPLAIN: OnceLock<fn(Provider, &Path) -> Option<String>> = OnceLock::new();

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Provider {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        [Provider::Cpu, Provider::Cuda, Provider::TensorRt].into_iter().find(|p| p.as_str() == s).ok_or_else(
            || {
                Error::new(
                    ErrorKind::InvalidArgument,
                    format!("{s:?} is no provider; there are cpu, cuda and tensorrt"),
                )
            },
        )
    }
}
