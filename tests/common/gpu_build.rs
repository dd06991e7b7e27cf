//! The published GPU build of ONNX Runtime, for integration tests and the library's own.

use std::path::PathBuf;

use super::project::project;

/// Its library, on the machines it is published for.
pub fn gpu_build() -> Option<PathBuf> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return None;
    }
    let path = project().join(".cache/onnxruntime-gpu/libonnxruntime.so.1");
    assert!(path.is_file(), "no {}; scripts/fetch_onnxruntime.sh --gpu fetches it", path.display());
    Some(path)
}
