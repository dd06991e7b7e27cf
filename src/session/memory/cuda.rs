//! Memory of an NVIDIA GPU, and the one stream on which everything happens.

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;
use std::time::Duration;

use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};

use super::cudart::{self, CudaRuntime, Event, Kind};
use super::{Access, Block, DeviceMemoryUse, MAX_TIMED_RUNS, Memory, Route};
use crate::error::Result;

/// A GPU's memory with a stream of its own, shared by every session and every copy: order is the stream's order, and
/// only [`Memory::synchronize`] waits.
#[derive(Debug)]
pub(in crate::session) struct CudaMemory {
    runtime: CudaRuntime,
    device: c_int,
    /// True if tensors that the host touches are pages of its memory that the GPU reads and writes in place, which
    /// saves the copies where both have the same DRAM.
    mapped: bool,
    stream: NonNull<c_void>,
    /// Start and end of every run, one after the other.
    events: Vec<Event>,
    free_at_start: usize,
}

// SAFETY: streams and events may be used from any thread of the process; the runtime's functions are thread-safe.
unsafe impl Send for CudaMemory {}
// SAFETY: as above; nothing here changes after `new`.
unsafe impl Sync for CudaMemory {}

impl CudaMemory {
    /// Opens GPU `device`. `mapped` as on the field; `sleep` makes the thread that waits for the GPU sleep, where it
    /// would otherwise spin.
    pub(in crate::session) fn open(device: u32, mapped: bool, sleep: bool) -> Result<Self> {
        Self::on(CudaRuntime::load()?, device, mapped, sleep)
    }

    fn on(runtime: CudaRuntime, device: u32, mapped: bool, sleep: bool) -> Result<Self> {
        let mut count = 0;
        // SAFETY: a place for the result.
        unsafe { runtime.get_device_count(&mut count) }?;
        let device = c_int::try_from(device).unwrap_or(c_int::MAX);
        ensure!(device < count, Provider, "there is no GPU {device}; CUDA sees {count}, counted from 0");
        let attribute = |which| {
            let mut value = 0;
            // SAFETY: a place for the result, and a device that exists.
            unsafe { runtime.get_attribute(&mut value, which, device) }.map(|()| value)
        };
        if mapped && attribute(cudart::ATTRIBUTE_CAN_MAP_HOST_MEMORY)? == 0 {
            bail!(Provider, "GPU {device} cannot map the host's memory; use separate device memory");
        }
        if mapped && attribute(cudart::ATTRIBUTE_INTEGRATED)? == 0 {
            log::warn!(
                "GPU {device} has memory of its own: unified memory makes it read every tensor over the bus"
            );
        }
        // SAFETY: a device that exists; this thread's choice of device is the runtime's own state.
        unsafe { runtime.set_device(device) }?;
        if sleep {
            // SAFETY: a documented flag.
            let set = unsafe { runtime.set_device_flags(cudart::DEVICE_BLOCKING_SYNC) };
            // Before CUDA 12 only a process that has not used the GPU yet could choose. The results are the same.
            set.unwrap_or_else(|e| log::warn!("threads that wait for the GPU will spin: {e}"));
        }
        let (mut free, mut total) = (0, 0);
        // SAFETY: places for the results.
        unsafe { runtime.memory_info(&mut free, &mut total) }?;
        // SAFETY: a place for the result.
        let stream = cudart::made(|s| unsafe { runtime.stream_create(s, cudart::STREAM_NON_BLOCKING) })?;
        // From here on, what was made is given back by `drop`.
        let mut memory =
            CudaMemory { runtime, device, mapped, stream, events: Vec::new(), free_at_start: free };
        for _ in 0..2 * MAX_TIMED_RUNS {
            memory.events.push(memory.event()?);
        }
        Ok(memory)
    }

    fn event(&self) -> Result<Event> {
        // SAFETY: a place for the result; no flags: an event that takes the time.
        cudart::made(|e| unsafe { self.runtime.event_create(e, 0) }).map(NonNull::as_ptr)
    }

    /// Makes this GPU the calling thread's; every thread starts at GPU 0.
    fn enter(&self) -> Result<()> {
        // SAFETY: a device that exists.
        unsafe { self.runtime.set_device(self.device) }
    }

    fn host_block(&self, bytes: usize, flags: u32) -> Result<NonNull<u8>> {
        // SAFETY: a place for the result.
        let host = cudart::made(|p| unsafe { self.runtime.host_alloc(p, bytes, flags) })
            .map_err(|e| e.context(format_args!("no {bytes} bytes of locked host memory")))?;
        // SAFETY: made just now, that many bytes long.
        unsafe { host.cast::<u8>().write_bytes(0, bytes) };
        Ok(host.cast())
    }

    fn device_block(&self, bytes: usize) -> Result<NonNull<u8>> {
        // SAFETY: a place for the result.
        let device = cudart::made(|p| unsafe { self.runtime.malloc(p, bytes) })
            .map_err(|e| e.context(format_args!("no {bytes} bytes of GPU memory")))?
            .cast();
        // SAFETY: made just now, that many bytes long, and known to nobody else.
        let zeroed = unsafe { self.fill(device, 0, bytes) }.and_then(|()| self.synchronize());
        zeroed.inspect_err(|_| {
            // SAFETY: made above, and not used any more.
            let _ = unsafe { self.runtime.free(device.as_ptr().cast()) };
        })?;
        Ok(device)
    }

    fn mapped_block(&self, bytes: usize) -> Result<Block> {
        let host = self.host_block(bytes, cudart::HOST_MAPPED | cudart::HOST_PORTABLE)?;
        // SAFETY: a place for the result, and a block that was made with the flag for it.
        let device =
            cudart::made(|p| unsafe { self.runtime.host_device_pointer(p, host.as_ptr().cast(), 0) })
                .inspect_err(|_| {
                    // SAFETY: made above, and not used any more.
                    let _ = unsafe { self.runtime.free_host(host.as_ptr().cast()) };
                })?;
        Ok(Block { device: device.cast(), host: Some(host), shared: true, bytes })
    }
}

impl Memory for CudaMemory {
    fn info(&self) -> ort::Result<MemoryInfo<'static>> {
        MemoryInfo::new(AllocationDevice::CUDA, self.device, AllocatorType::Device, MemoryType::Default)
    }

    fn allocate(&self, access: Access, bytes: usize) -> Result<Block> {
        self.enter()?;
        // Nothing is empty, and CUDA gives no address for nothing.
        let room = bytes.max(1);
        match access {
            Access::Graphs => {
                Ok(Block { device: self.device_block(room)?, host: None, shared: false, bytes })
            }
            Access::Host if self.mapped => Ok(Block { bytes, ..self.mapped_block(room)? }),
            Access::Host => {
                let device = self.device_block(room)?;
                let host = self.host_block(room, cudart::HOST_PORTABLE).inspect_err(|_| {
                    // SAFETY: made above, and not used any more.
                    let _ = unsafe { self.runtime.free(device.as_ptr().cast()) };
                })?;
                Ok(Block { device, host: Some(host), shared: false, bytes })
            }
        }
    }

    unsafe fn release(&self, block: &Block) {
        let freed = self.enter().and_then(|()| {
            if !block.shared {
                // SAFETY: made by `device_block`; the caller gives it up.
                unsafe { self.runtime.free(block.device.as_ptr().cast()) }?;
            }
            if let Some(host) = block.host {
                // SAFETY: made by `host_block`; the caller gives it up.
                unsafe { self.runtime.free_host(host.as_ptr().cast()) }?;
            }
            Ok(())
        });
        if let Err(e) = freed {
            log::warn!("GPU memory not given back: {e}");
        }
    }

    unsafe fn copy(&self, from: NonNull<u8>, to: NonNull<u8>, bytes: usize, route: Route) -> Result<()> {
        let kind = match route {
            Route::Upload => Kind::HostToDevice,
            Route::Download => Kind::DeviceToHost,
            Route::Within => Kind::DeviceToDevice,
        };
        self.enter()?;
        let (to, from) = (to.as_ptr().cast(), from.as_ptr().cast_const().cast());
        // SAFETY: the caller vouches for both ends until the copy is done.
        unsafe { self.runtime.memcpy_async(to, from, bytes, kind, self.stream.as_ptr()) }
    }

    unsafe fn fill(&self, to: NonNull<u8>, value: u8, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: the caller vouches for the target until it is filled.
        unsafe { self.runtime.memset_async(to.as_ptr().cast(), value.into(), bytes, self.stream.as_ptr()) }
    }

    fn synchronize(&self) -> Result<()> {
        self.enter()?;
        // SAFETY: the stream lives as long as `self`.
        unsafe { self.runtime.stream_synchronize(self.stream.as_ptr()) }
    }

    fn is_queued(&self) -> bool {
        true
    }

    fn mark(&self, run: usize, end: bool) -> Result<()> {
        self.enter()?;
        // SAFETY: event and stream live as long as `self`.
        unsafe { self.runtime.event_record(self.events[2 * run + usize::from(end)], self.stream.as_ptr()) }
    }

    fn run_time(&self, run: usize) -> Result<Duration> {
        let (start, end) = (self.events[2 * run], self.events[2 * run + 1]);
        let mut milliseconds = 0.0;
        // SAFETY: a place for the result, and events that live as long as `self`.
        unsafe { self.runtime.event_elapsed(&mut milliseconds, start, end) }?;
        Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3))
    }

    fn stream(&self) -> Option<NonNull<c_void>> {
        Some(self.stream)
    }

    fn usage(&self) -> Result<Option<DeviceMemoryUse>> {
        self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: places for the results.
        unsafe { self.runtime.memory_info(&mut free, &mut total) }?;
        let used = self.free_at_start.saturating_sub(free);
        Ok(Some(DeviceMemoryUse { used: used as u64, free: free as u64, total: total as u64 }))
    }

    fn abandon_capture(&self) {
        let (stream, mut status) = (self.stream.as_ptr(), 0);
        // SAFETY: a place for the result, and a stream that lives as long as `self`.
        let asked = unsafe { self.runtime.stream_is_capturing(stream, &mut status) };
        if asked.is_ok() && status != 0 {
            // A capture that was spoiled ends with an error and without a graph; ended it is either way.
            // SAFETY: as above.
            if let Ok(graph) = cudart::made(|g| unsafe { self.runtime.stream_end_capture(stream, g) }) {
                // SAFETY: made just now and used by nobody.
                let _ = unsafe { self.runtime.graph_destroy(graph.as_ptr()) };
            }
        }
        self.runtime.forget_error();
    }
}

impl Drop for CudaMemory {
    fn drop(&mut self) {
        let _ = self.synchronize();
        for event in &self.events {
            // SAFETY: made by `event` and destroyed once.
            let _ = unsafe { self.runtime.event_destroy(*event) };
        }
        // SAFETY: made by `on` and destroyed once; sessions that were given it are gone, see `Device`.
        let _ = unsafe { self.runtime.stream_destroy(self.stream.as_ptr()) };
    }
}

#[cfg(test)]
#[path = "../tests/cuda.rs"]
mod tests;
