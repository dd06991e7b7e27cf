//! Options of loading a policy, and of one inference.

use std::path::PathBuf;

use super::Noise;
use super::rtc::Guidance;
use crate::bundle::Verify;
use crate::provider::Provider;
use crate::session::DeviceMemory;

/// The memory that weights live in while the policy is loaded. The numbers that decide are in the README's bench table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weights {
    /// Each graph the way that suits it: the denoise step, which runs many times over few rows and gains a third
    /// from it, packed; vision and prefix, whose large products gain nothing, mapped.
    #[default]
    Auto,
    /// All mapped: nothing to do at load, pages shared between processes and evictable.
    Mapped,
    /// All packed: anonymous memory of the weights' size, read in full at load.
    Packed,
}

/// Options of loading a policy.
#[derive(Debug, Clone, Default)]
pub struct PolicyOptions {
    /// The provider that computes the graphs. If it cannot, loading fails and says why.
    pub provider: Provider,
    /// The GPU, as CUDA counts them from 0. The CPU provider has no use for it.
    pub gpu: u32,
    /// The directory of TensorRT engines, for that provider; [`engine_directory`](super::engine_directory) when absent.
    pub engine_cache: Option<PathBuf>,
    /// The memory of tensors that the host and the graphs both touch.
    pub device_memory: DeviceMemory,
    /// Never capture CUDA graphs, see [`Policy::capture_graphs`](super::Policy::capture_graphs).
    pub no_cuda_graphs: bool,
    /// ONNX Runtime's library; looked for as [`Environment::get`](crate::Environment::get) says when absent.
    pub ort_library: Option<PathBuf>,
    /// Threads of one operator, the calling thread included; 0 means one per available core; at most 128.
    pub threads: usize,
    /// The part of the bundle that is verified before it is used.
    pub verify: Verify,
    /// The memory that weights live in.
    pub weights: Weights,
    /// A directory to write ONNX Runtime's profile of every graph to, when the policy is dropped: where the time of
    /// its runs went, node by node, for any trace viewer. Costs time and memory in every run.
    pub profile: Option<PathBuf>,
    /// Worker threads sleep instead of spin while they wait for their part of an operator, and the calling thread
    /// while it waits for a GPU: slower by some percent, but a control loop on the same cores keeps them.
    pub no_spin: bool,
}

/// Options of one inference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InferOptions<'a> {
    /// The flow's starting point.
    pub noise: Noise<'a>,
    /// Euler steps, 1 to [`MAX_NUM_STEPS`](super::MAX_NUM_STEPS); the bundle's default when absent.
    pub num_steps: Option<usize>,
    /// The plan that the chunk is to join on to (real-time chunking); nothing when absent.
    pub guidance: Option<Guidance<'a>>,
}

impl Default for InferOptions<'_> {
    fn default() -> Self {
        InferOptions { noise: Noise::Seed(0), num_steps: None, guidance: None }
    }
}
