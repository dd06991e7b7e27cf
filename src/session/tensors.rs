//! The preallocated tensors: memory at addresses that never change, and the copies between its two sides.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use half::{bf16, f16};

use super::memory::{Access, MAX_TIMED_RUNS, Memory, Route, Storage};
use crate::bundle::Dtype;
use crate::error::Result;

/// A copy that is queued on the host's side of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pending {
    Nothing,
    /// It is being read.
    Upload,
    /// It is being written.
    Download,
}

struct Tensor {
    name: &'static str,
    dtype: Dtype,
    elements: usize,
    storage: Arc<Storage>,
    pending: Pending,
}

/// Names one tensor of a [`Tensors`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorId(usize);

/// Bytes copied between host and device; none where both see the same memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transfers {
    /// From the host: images, token rows, state, noise, and tables that changed.
    pub to_device: u64,
    /// To the host: actions.
    pub from_device: u64,
}

/// Every tensor of a pipeline: allocated once, zeroed, at addresses that stay until drop.
///
/// A tensor has a side for graphs and, if the host touches it ([`Access::Host`]), one for the host. In the CPU's own
/// memory both are the same bytes. Elsewhere [`upload`](Self::upload) and [`download`](Self::download) queue copies
/// between them, in order with the graphs' runs; a host slice is only given out once nothing queued touches it.
pub struct Tensors {
    identity: u64,
    memory: Arc<dyn Memory>,
    tensors: Vec<Tensor>,
    /// True if runs were queued that may touch what host and device share.
    running: bool,
    transfers: Transfers,
    run_times: Vec<Duration>,
}

impl Tensors {
    /// An empty set in `memory`.
    pub(super) fn new(memory: Arc<dyn Memory>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Tensors {
            // Relaxed: only uniqueness matters, nothing is published through the counter.
            identity: NEXT.fetch_add(1, Ordering::Relaxed),
            memory,
            tensors: Vec::new(),
            running: false,
            transfers: Transfers::default(),
            run_times: Vec::with_capacity(MAX_TIMED_RUNS),
        }
    }

    /// Tells one set from another, so that a graph bound to one is never run on the other.
    pub(super) fn identity(&self) -> u64 {
        self.identity
    }

    /// Adds a tensor with room for `elements` elements, all zero.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`] when the device has no room for it.
    pub fn add(
        &mut self,
        name: &'static str,
        dtype: Dtype,
        elements: usize,
        access: Access,
    ) -> Result<TensorId> {
        let bytes = elements.checked_mul(dtype.size()).expect("tensor size within the address space");
        let storage = Storage::new(&self.memory, access, bytes).map_err(|e| e.context(name))?;
        self.tensors.push(Tensor {
            name,
            dtype,
            elements,
            storage: Arc::new(storage),
            pending: Pending::Nothing,
        });
        Ok(TensorId(self.tensors.len() - 1))
    }

    /// Element type of a tensor.
    pub fn dtype(&self, id: TensorId) -> Dtype {
        self.tensors[id.0].dtype
    }

    /// Capacity of a tensor, in elements.
    pub fn capacity(&self, id: TensorId) -> usize {
        self.tensors[id.0].elements
    }

    /// The name given at [`add`](Self::add).
    pub fn name(&self, id: TensorId) -> &'static str {
        self.tensors[id.0].name
    }

    /// Bytes of all tensors together, on the graphs' side.
    pub fn total_bytes(&self) -> usize {
        self.tensors.iter().map(|t| t.storage.block().bytes).sum()
    }

    pub(super) fn storage(&self, id: TensorId) -> &Arc<Storage> {
        &self.tensors[id.0].storage
    }

    // --- the host's side ---

    /// The host's side of a tensor, once nothing queued touches it.
    fn host(&mut self, id: TensorId) -> Result<NonNull<u8>> {
        let t = &self.tensors[id.0];
        if t.pending != Pending::Nothing || (self.running && t.storage.block().shared) {
            self.synchronize()?;
        }
        let t = &self.tensors[id.0];
        Ok(t.storage.block().host.unwrap_or_else(|| panic!("tensor {} is the graphs' alone", t.name)))
    }

    fn typed_mut(&mut self, id: TensorId, dtype: Dtype) -> Result<(*mut u8, usize)> {
        let t = &self.tensors[id.0];
        assert_eq!(t.dtype, dtype, "tensor {} read as {dtype:?}", t.name);
        let elements = t.elements;
        Ok((self.host(id)?.as_ptr(), elements))
    }

    /// A whole tensor as bytes. Waits, as the two below do, if something that is queued touches them.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`] when waiting fails.
    pub fn bytes_mut(&mut self, id: TensorId) -> Result<&mut [u8]> {
        let ptr = self.host(id)?;
        let bytes = self.tensors[id.0].storage.block().bytes;
        // SAFETY: `ptr` is valid for `bytes` bytes, all initialised (zeroed at allocation), and nothing queued
        // touches them (see `host`). `&mut self` excludes every other slice and, because `Graph::run` takes
        // `&mut Tensors`, every run.
        Ok(unsafe { std::slice::from_raw_parts_mut(ptr.as_ptr(), bytes) })
    }

    /// A whole f32 tensor, to read. What was downloaded is there after [`synchronize`](Self::synchronize).
    pub fn f32(&self, id: TensorId) -> &[f32] {
        let t = &self.tensors[id.0];
        assert_eq!(t.dtype, Dtype::F32, "tensor {} read as F32", t.name);
        let block = t.storage.block();
        let unfinished = t.pending == Pending::Download || (self.running && block.shared);
        assert!(!unfinished, "tensor {} read before what writes it is done", t.name);
        let host = block.host.unwrap_or_else(|| panic!("tensor {} is the graphs' alone", t.name));
        // SAFETY: page-aligned, that many initialised f32 (any bit pattern is one); `&self` excludes writers on the
        // host, and the assertion those that are queued.
        unsafe { std::slice::from_raw_parts(host.as_ptr().cast(), t.elements) }
    }

    /// A whole f32 tensor, to write.
    ///
    /// # Errors
    /// As [`bytes_mut`](Self::bytes_mut).
    pub fn f32_mut(&mut self, id: TensorId) -> Result<&mut [f32]> {
        let (ptr, len) = self.typed_mut(id, Dtype::F32)?;
        // SAFETY: as `f32`; `&mut self` makes this the only access.
        Ok(unsafe { std::slice::from_raw_parts_mut(ptr.cast(), len) })
    }

    /// Sets the elements in `range` of a float tensor to `value`, in its own type.
    ///
    /// # Errors
    /// As [`bytes_mut`](Self::bytes_mut).
    pub fn fill_floats(&mut self, id: TensorId, range: Range<usize>, value: f32) -> Result<()> {
        let (name, dtype) = (self.name(id), self.dtype(id));
        let (f32_bytes, f16_bytes) = (value.to_ne_bytes(), f16::from_f32(value).to_ne_bytes());
        let bf16_bytes = bf16::from_f32(value).to_ne_bytes();
        let element: &[u8] = match dtype {
            Dtype::F32 => &f32_bytes,
            Dtype::F16 => &f16_bytes,
            Dtype::Bf16 => &bf16_bytes,
            Dtype::I64 => panic!("tensor {name} holds integers, not floats"),
        };
        let size = dtype.size();
        let bytes = &mut self.bytes_mut(id)?[range.start * size..range.end * size];
        bytes.chunks_exact_mut(size).for_each(|e| e.copy_from_slice(element));
        Ok(())
    }

    // --- between the sides ---

    /// Queues the elements in `range` on their way to the graphs' side.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`] when the device refuses.
    pub fn upload(&mut self, id: TensorId, range: Range<usize>) -> Result<()> {
        let moved = self.transfer(id, range, Route::Upload)?;
        self.transfers.to_device += moved;
        Ok(())
    }

    /// Queues the elements in `range` on their way to the host's side.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`] when the device refuses.
    pub fn download(&mut self, id: TensorId, range: Range<usize>) -> Result<()> {
        let moved = self.transfer(id, range, Route::Download)?;
        self.transfers.from_device += moved;
        Ok(())
    }

    fn transfer(&mut self, id: TensorId, range: Range<usize>, route: Route) -> Result<u64> {
        let queued = self.memory.is_queued();
        let t = &mut self.tensors[id.0];
        let block = t.storage.block();
        assert!(range.start <= range.end && range.end <= t.elements, "{range:?} of tensor {}", t.name);
        if block.shared || range.is_empty() {
            return Ok(0);
        }
        let (start, bytes) = (range.start * t.dtype.size(), range.len() * t.dtype.size());
        let host = block.host.unwrap_or_else(|| panic!("tensor {} is the graphs' alone", t.name));
        // SAFETY: `start..start + bytes` lies inside both sides, checked above.
        let (host, device) = unsafe { (host.add(start), block.device.add(start)) };
        let (from, to) = if route == Route::Upload { (host, device) } else { (device, host) };
        // SAFETY: both ends lie in blocks of `bytes` bytes at least, apart from each other, that live as long as
        // `self`. `pending` keeps the host from its side until the copy is done; the device's order is the queue's.
        unsafe { self.memory.copy(from, to, bytes, route) }.map_err(|e| e.context(t.name))?;
        if queued {
            t.pending = if route == Route::Upload { Pending::Upload } else { Pending::Download };
        }
        Ok(bytes as u64)
    }

    /// Queues a copy of `elements` elements between two tensors, on the graphs' side.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`] when the device refuses.
    pub fn copy(&mut self, from: (TensorId, usize), to: TensorId, elements: usize) -> Result<()> {
        let (source, target) = (&self.tensors[from.0.0], &self.tensors[to.0]);
        assert!(from.0 != to && source.dtype == target.dtype, "{} copied to {}", source.name, target.name);
        let fits = from.1 + elements <= source.elements && elements <= target.elements;
        assert!(fits, "{elements} elements of {} copied to {}", source.name, target.name);
        let size = source.dtype.size();
        // SAFETY: inside the source, checked above.
        let start = unsafe { source.storage.block().device.add(from.1 * size) };
        let end = target.storage.block().device;
        // SAFETY: both ends lie inside blocks that live as long as `self` and are not the same (checked above).
        // `&mut self` keeps the host away while this is called, `running` until it is done.
        unsafe { self.memory.copy(start, end, elements * size, Route::Within) }?;
        self.running = self.memory.is_queued();
        Ok(())
    }

    /// Queues setting the elements in `range` to zero, on the graphs' side.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`] when the device refuses.
    pub fn clear(&mut self, id: TensorId, range: Range<usize>) -> Result<()> {
        let t = &self.tensors[id.0];
        assert!(range.start <= range.end && range.end <= t.elements, "{range:?} of tensor {}", t.name);
        let (block, start, bytes) =
            (*t.storage.block(), range.start * t.dtype.size(), range.len() * t.dtype.size());
        if block.shared && block.host.is_some() {
            self.bytes_mut(id)?[start..start + bytes].fill(0);
            return Ok(());
        }
        // SAFETY: inside the block, checked above, which lives as long as `self`; the host has its own side.
        unsafe { self.memory.fill(block.device.add(start), 0, bytes) }
    }

    /// Fills a tensor, from its first element, with what the graphs alone will read. Waits; for start-up.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`] when the device refuses.
    pub fn write_once<T: Element>(&mut self, id: TensorId, values: &[T]) -> Result<()> {
        let t = &self.tensors[id.0];
        assert!(
            t.dtype == T::DTYPE && values.len() <= t.elements,
            "tensor {} filled as {:?}",
            t.name,
            T::DTYPE
        );
        let (from, to) = (NonNull::from(values).cast(), t.storage.block().device);
        // SAFETY: both ends are that long, and `synchronize` waits until `values` has been read.
        unsafe { self.memory.copy(from, to, size_of_val(values), Route::Upload) }?;
        self.transfers.to_device += if t.storage.block().shared { 0 } else { size_of_val(values) as u64 };
        self.synchronize()
    }

    /// Waits until everything that was queued is done.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`] when something that was queued failed.
    pub fn synchronize(&mut self) -> Result<()> {
        self.memory.synchronize()?;
        self.running = false;
        self.tensors.iter_mut().for_each(|t| t.pending = Pending::Nothing);
        Ok(())
    }

    // --- what is counted ---

    /// Forgets the run times and the bytes moved so far.
    pub fn restart(&mut self) {
        self.transfers = Transfers::default();
        self.run_times.clear();
    }

    /// Bytes moved since [`restart`](Self::restart).
    pub fn transfers(&self) -> Transfers {
        self.transfers
    }

    /// Runs `work`, which may only queue, and keeps the time it takes as that of the next run.
    pub(super) fn timed(&mut self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let run = self.run_times.len();
        if run == MAX_TIMED_RUNS {
            return work();
        }
        let queued = self.memory.is_queued();
        let start = Instant::now();
        if queued {
            self.memory.mark(run, false)?;
        }
        self.running = queued;
        work()?;
        if queued {
            self.memory.mark(run, true)?;
        }
        self.run_times.push(start.elapsed());
        Ok(())
    }

    /// Forgets the time of the last run.
    pub fn forget_run(&mut self) {
        self.run_times.pop();
    }

    /// Returns the times that the runs since [`restart`](Self::restart) took, in their order, as the device saw them.
    /// Waits.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`] when something that was queued failed.
    pub fn run_times(&mut self) -> Result<&[Duration]> {
        if self.memory.is_queued() {
            self.synchronize()?;
            for run in 0..self.run_times.len() {
                self.run_times[run] = self.memory.run_time(run)?;
            }
        }
        Ok(&self.run_times)
    }

    // --- for checks ---

    /// Copies `range` (in elements) of a float tensor out of the graphs' side as f32. Allocates and waits.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`] when the device refuses.
    pub fn read_f32(&self, id: TensorId, range: Range<usize>) -> Result<Vec<f32>> {
        let t = &self.tensors[id.0];
        assert!(range.start <= range.end && range.end <= t.elements, "{range:?} of tensor {}", t.name);
        let size = t.dtype.size();
        let mut bytes = vec![0u8; range.len() * size];
        // SAFETY: inside the block, checked above.
        let from = unsafe { t.storage.block().device.add(range.start * size) };
        // SAFETY: both ends are that long; nobody else has `bytes`, and it lives until `synchronize` has waited.
        unsafe {
            self.memory.copy(from, NonNull::from(bytes.as_mut_slice()).cast(), bytes.len(), Route::Download)
        }?;
        self.memory.synchronize()?;
        Ok(match t.dtype {
            Dtype::F32 => {
                bytes.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            Dtype::F16 => bytes.chunks_exact(2).map(|b| f16::from_ne_bytes([b[0], b[1]]).to_f32()).collect(),
            Dtype::Bf16 => {
                bytes.chunks_exact(2).map(|b| bf16::from_ne_bytes([b[0], b[1]]).to_f32()).collect()
            }
            other => panic!("tensor {} holds {other:?}, not floats", t.name),
        })
    }

    /// Fills both sides of a tensor with NaN (integers: with a value far out of range). A result that still comes
    /// out right proves that everything read was written first.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`] when the device refuses.
    pub fn poison(&mut self, id: TensorId) -> Result<()> {
        // 0xFF in every byte is a NaN in every float format and -1 in every integer one.
        const POISON: u8 = 0xFF;
        let block = *self.tensors[id.0].storage.block();
        if block.host.is_some() {
            self.bytes_mut(id)?.fill(POISON);
        }
        // SAFETY: the whole block, which lives as long as `self`; `synchronize` waits before anyone else has it.
        unsafe { self.memory.fill(block.device, POISON, block.bytes) }?;
        self.synchronize()
    }
}

/// A Rust type that a tensor's elements can be written as.
pub trait Element: Copy {
    /// The element type it is.
    const DTYPE: Dtype;
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;
}

impl Element for i64 {
    const DTYPE: Dtype = Dtype::I64;
}

#[cfg(test)]
#[path = "tests/tensors.rs"]
mod tests;
