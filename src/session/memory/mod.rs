//! Memory that graphs compute in, and the way between it and the host.
//!
//! One trait, so that the pipeline is the same everywhere: [`host`] is the CPU's own memory, where nothing needs to
//! be copied, or, on demand, two separate parts of it with every copy a GPU would need; [`cuda`] is an NVIDIA GPU's.

pub(super) mod cuda;
mod cudart;
#[cfg(test)]
#[path = "../tests/fake_cuda.rs"]
pub(crate) mod fake;
pub(super) mod host;

use std::fmt::Debug;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use ort::memory::MemoryInfo;

use crate::error::Result;

/// Runs whose time is kept at once: vision, prefill and the most Euler steps there can be, with room to spare.
pub(super) const MAX_TIMED_RUNS: usize = crate::limits::MAX_NUM_STEPS + 8;

/// Who touches a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Graphs alone; it never leaves their memory.
    Graphs,
    /// The host too, which fills it before graphs read it or reads what they wrote.
    Host,
}

/// Which way a copy goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Upload,
    Download,
    /// From device to device.
    Within,
}

/// Memory of one tensor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    /// The address that graphs use.
    pub(super) device: NonNull<u8>,
    /// The address that the host uses; none for [`Access::Graphs`] in another memory than the host's.
    pub(super) host: Option<NonNull<u8>>,
    /// True if both see the same bytes, so that nothing has to be copied.
    pub(super) shared: bool,
    pub(super) bytes: usize,
}

/// A GPU's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemoryUse {
    /// Taken on the device since this policy's memory was opened: weights, tensors and what the provider needs.
    /// Other processes' changes meanwhile count too.
    pub used: u64,
    /// Free on the device now.
    pub free: u64,
    /// All the device has.
    pub total: u64,
}

/// A kind of memory, and the queue of work on it. What is queued is done in order; only
/// [`synchronize`](Self::synchronize) waits for it.
pub(super) trait Memory: Debug + Send + Sync {
    /// Returns ONNX Runtime's description of this memory.
    fn info(&self) -> ort::Result<MemoryInfo<'static>>;

    /// A zeroed block for a tensor that is touched as `access` says.
    fn allocate(&self, access: Access, bytes: usize) -> Result<Block>;

    /// Gives a block back.
    ///
    /// # Safety
    /// The block is from this memory's [`allocate`](Self::allocate), no work on it is queued, and nobody uses it
    /// again.
    unsafe fn release(&self, block: &Block);

    /// Queues a copy of `bytes` bytes.
    ///
    /// # Safety
    /// Both ends are valid for that many bytes until the copy is done, they do not overlap, and nobody writes either
    /// end, or reads the target, before that.
    unsafe fn copy(&self, from: NonNull<u8>, to: NonNull<u8>, bytes: usize, route: Route) -> Result<()>;

    /// Queues filling `bytes` bytes of the device's memory with `value`.
    ///
    /// # Safety
    /// As for the target of [`copy`](Self::copy).
    unsafe fn fill(&self, to: NonNull<u8>, value: u8, bytes: usize) -> Result<()>;

    /// Waits until all that was queued is done.
    fn synchronize(&self) -> Result<()>;

    /// Returns true if work is only queued by the calls that ask for it. If not, it is done when they return.
    fn is_queued(&self) -> bool;

    /// Queues taking the time, twice per run: at its start and at its end. Only where work is queued.
    fn mark(&self, run: usize, end: bool) -> Result<()>;

    /// The time between the two marks of a run, once all is done.
    fn run_time(&self, run: usize) -> Result<Duration>;

    /// The queue as the provider takes it: a `cudaStream_t`.
    fn stream(&self) -> Option<NonNull<std::ffi::c_void>> {
        None
    }

    /// Asks what the device has left, where there is one.
    fn usage(&self) -> Result<Option<DeviceMemoryUse>> {
        Ok(None)
    }

    /// Leaves a capture of the queue that failed half-way, so that it can be used again.
    fn abandon_capture(&self) {}
}

/// A block that gives itself back.
#[derive(Debug)]
pub(super) struct Storage {
    memory: Arc<dyn Memory>,
    block: Block,
}

// SAFETY: a block is plain memory without thread affinity; all access goes through `Tensors` (`&`/`&mut`) or through
// `Graph::run`, which holds `&mut Tensors`.
unsafe impl Send for Storage {}
// SAFETY: as above; a shared `Storage` gives out no references of its own.
unsafe impl Sync for Storage {}

impl Storage {
    pub(super) fn new(memory: &Arc<dyn Memory>, access: Access, bytes: usize) -> Result<Self> {
        let block = memory.allocate(access, bytes)?;
        Ok(Storage { memory: Arc::clone(memory), block })
    }

    pub(super) fn block(&self) -> &Block {
        &self.block
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        // Work that is still queued may touch the block. A device that fails even at this has nothing left to touch it.
        let _ = self.memory.synchronize();
        // SAFETY: `block` came from this memory, its queue is empty (above), and this is the last owner.
        unsafe { self.memory.release(&self.block) }
    }
}
