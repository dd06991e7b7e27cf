//! The facts that the files tell, unjudged.

pub(super) mod bundle;
pub(super) mod engine_cache;
pub(super) mod gpu;
pub(super) mod memory;
pub(super) mod onnxruntime;
pub(super) mod power;
pub(super) mod realtime;
pub(super) mod software;
pub(super) mod system;

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::loader::Loader;
use super::tree::Tree;

/// Files to look at beyond the tree's own conventions. Paths are as seen from inside the tree.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// ONNX Runtime's library, as `--ort-library` names it.
    pub ort_library: Option<PathBuf>,
    /// The directory of TensorRT engines, if not the default one.
    pub engine_cache: Option<PathBuf>,
}

/// Everything the doctor knows about a machine.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// Architecture, kernel, distribution, board.
    pub system: System,
    /// NVIDIA GPUs.
    pub gpus: Vec<Gpu>,
    /// NVIDIA's kernel driver.
    pub driver: Driver,
    /// CUDA, cuDNN and TensorRT.
    pub software: Software,
    /// ONNX Runtime and its providers.
    pub onnxruntime: OnnxRuntime,
    /// Power mode and clocks.
    pub power: Power,
    /// Kernel and limits that real-time threads depend on.
    pub realtime: Realtime,
    /// Memory, its fragmentation, swap.
    pub memory: Memory,
    /// The directory of TensorRT engines.
    pub engine_cache: EngineCache,
}

use engine_cache::EngineCache;
use gpu::{Driver, Gpu};
use memory::Memory;
use onnxruntime::OnnxRuntime;
use power::Power;
use realtime::Realtime;
use software::Software;
use system::System;

impl Facts {
    /// Reads the tree at `root` (`/` for the machine this runs on) with the environment `env`.
    ///
    /// A file that is missing or unreadable leaves its fact unknown; nothing here can fail.
    pub fn gather(root: &Path, env: &dyn Fn(&str) -> Option<String>, options: &Options) -> Facts {
        let tree = Tree::new(root);
        let loader = Loader::new(&tree, env);
        let packages = software::packages(&tree);
        let system = System::read(&tree, &packages);
        Facts {
            gpus: gpu::read(&tree, &system),
            driver: Driver::read(&tree),
            software: Software::read(&tree, &loader, &packages, &system),
            onnxruntime: OnnxRuntime::read(&tree, &loader, env, options.ort_library.as_deref(), &system),
            power: Power::read(&tree),
            realtime: Realtime::read(&tree),
            memory: Memory::read(&tree),
            engine_cache: EngineCache::read(&tree, env, options.engine_cache.as_deref()),
            system,
        }
    }

    /// The GPU a provider would use: the first one.
    pub fn gpu(&self) -> Option<&Gpu> {
        self.gpus.first()
    }
}
