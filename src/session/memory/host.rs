//! The CPU's memory.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::time::Duration;

use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};

use super::{Access, Block, Memory, Route};
use crate::error::Result;

/// Tensors start on a page: whole pages for huge transfers, and no false sharing between them.
pub(in crate::session) const ALIGNMENT: usize = 4096;

/// The CPU's memory, which graphs and host share. What is asked for is done at once.
#[derive(Debug)]
pub(in crate::session) struct HostMemory {
    /// True if the host's side of every tensor is a block of its own, with copies between the two: what a GPU needs,
    /// to be tried where there is none.
    pub(in crate::session) separate: bool,
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes.max(1), ALIGNMENT).expect("tensor size within the address space")
}

fn zeroed(bytes: usize) -> NonNull<u8> {
    let layout = layout(bytes);
    // SAFETY: the layout's size is at least one (see `layout`).
    let ptr = unsafe { alloc_zeroed(layout) };
    NonNull::new(ptr).unwrap_or_else(|| handle_alloc_error(layout))
}

impl Memory for HostMemory {
    fn info(&self) -> ort::Result<MemoryInfo<'static>> {
        MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default)
    }

    fn allocate(&self, access: Access, bytes: usize) -> Result<Block> {
        let device = zeroed(bytes);
        let host = match (self.separate, access) {
            (false, _) => Some(device),
            (true, Access::Host) => Some(zeroed(bytes)),
            (true, Access::Graphs) => None,
        };
        Ok(Block { device, host, shared: !self.separate, bytes })
    }

    unsafe fn release(&self, block: &Block) {
        let host = block.host.filter(|_| !block.shared);
        for ptr in std::iter::once(block.device).chain(host) {
            // SAFETY: `ptr` came from `zeroed` with this same layout, and the caller gives it up.
            unsafe { dealloc(ptr.as_ptr(), layout(block.bytes)) }
        }
    }

    unsafe fn copy(&self, from: NonNull<u8>, to: NonNull<u8>, bytes: usize, _route: Route) -> Result<()> {
        // SAFETY: the caller vouches for both ends, and that they do not overlap.
        unsafe { from.copy_to_nonoverlapping(to, bytes) }
        Ok(())
    }

    unsafe fn fill(&self, to: NonNull<u8>, value: u8, bytes: usize) -> Result<()> {
        // SAFETY: the caller vouches for the target.
        unsafe { to.write_bytes(value, bytes) }
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn is_queued(&self) -> bool {
        false
    }

    fn mark(&self, _run: usize, _end: bool) -> Result<()> {
        Ok(())
    }

    fn run_time(&self, _run: usize) -> Result<Duration> {
        Ok(Duration::ZERO)
    }
}
