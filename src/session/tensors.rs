//! The preallocated tensors: plain memory at addresses that never change.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use half::{bf16, f16};

use crate::bundle::Dtype;

/// Tensors start on a page: whole pages for huge transfers, and no false sharing between them.
const ALIGNMENT: usize = 4096;

/// One block of zero-initialised memory, shared between [`Tensors`] and the graphs bound to it.
pub(super) struct Storage {
    ptr: NonNull<u8>,
    bytes: usize,
}

// SAFETY: `Storage` is plain memory without thread affinity; all access goes through `Tensors` (`&`/`&mut`) or
// through `Graph::run`, which holds `&mut Tensors`.
unsafe impl Send for Storage {}
// SAFETY: as above; a shared `Storage` gives out no references of its own.
unsafe impl Sync for Storage {}

impl Storage {
    fn new(bytes: usize) -> Self {
        let layout = Self::layout(bytes);
        // SAFETY: the layout's size is at least one (see `layout`).
        let ptr = unsafe { alloc_zeroed(layout) };
        let Some(ptr) = NonNull::new(ptr) else { handle_alloc_error(layout) };
        Storage { ptr, bytes }
    }

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes.max(1), ALIGNMENT).expect("tensor size within the address space")
    }

    /// Address of the first byte.
    pub(super) fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        // SAFETY: `ptr` came from `alloc_zeroed` with this same layout and is freed once, here.
        unsafe { dealloc(self.ptr.as_ptr(), Self::layout(self.bytes)) }
    }
}

struct Tensor {
    name: &'static str,
    dtype: Dtype,
    elements: usize,
    storage: Arc<Storage>,
}

/// Names one tensor of a [`Tensors`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorId(usize);

/// Every tensor of a pipeline: allocated once, zeroed, at addresses that stay until drop.
pub struct Tensors {
    identity: u64,
    tensors: Vec<Tensor>,
}

impl Tensors {
    /// An empty set.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // Relaxed: only uniqueness matters, nothing is published through the counter.
        Tensors { identity: NEXT.fetch_add(1, Ordering::Relaxed), tensors: Vec::new() }
    }

    /// Tells one set from another, so that a graph bound to one is never run on the other.
    pub(super) fn identity(&self) -> u64 {
        self.identity
    }

    /// Adds a tensor with room for `elements` elements, all zero.
    pub fn add(&mut self, name: &'static str, dtype: Dtype, elements: usize) -> TensorId {
        let bytes = elements.checked_mul(dtype.size()).expect("tensor size within the address space");
        self.tensors.push(Tensor { name, dtype, elements, storage: Arc::new(Storage::new(bytes)) });
        TensorId(self.tensors.len() - 1)
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

    /// Bytes of all tensors together.
    pub fn total_bytes(&self) -> usize {
        self.tensors.iter().map(|t| t.storage.bytes).sum()
    }

    pub(super) fn storage(&self, id: TensorId) -> &Arc<Storage> {
        &self.tensors[id.0].storage
    }

    fn typed(&self, id: TensorId, dtype: Dtype) -> (*mut u8, usize) {
        let t = &self.tensors[id.0];
        assert_eq!(t.dtype, dtype, "tensor {} read as {dtype:?}", t.name);
        (t.storage.ptr.as_ptr(), t.elements)
    }

    /// A whole tensor as bytes.
    pub fn bytes_mut(&mut self, id: TensorId) -> &mut [u8] {
        let s = &self.tensors[id.0].storage;
        // SAFETY: `ptr` is valid for `bytes` bytes, all initialised (zeroed at allocation). `&mut self` excludes
        // every other slice and, because `Graph::run` takes `&mut Tensors`, every run.
        unsafe { std::slice::from_raw_parts_mut(s.ptr.as_ptr(), s.bytes) }
    }

    /// A whole f32 tensor.
    pub fn f32(&self, id: TensorId) -> &[f32] {
        let (ptr, len) = self.typed(id, Dtype::F32);
        // SAFETY: page-aligned, `len` initialised f32 (any bit pattern is one); `&self` excludes writers.
        unsafe { std::slice::from_raw_parts(ptr.cast(), len) }
    }

    /// A whole f32 tensor, to write.
    pub fn f32_mut(&mut self, id: TensorId) -> &mut [f32] {
        let (ptr, len) = self.typed(id, Dtype::F32);
        // SAFETY: as `f32`; `&mut self` makes this the only access.
        unsafe { std::slice::from_raw_parts_mut(ptr.cast(), len) }
    }

    /// A whole i64 tensor, to write.
    pub fn i64_mut(&mut self, id: TensorId) -> &mut [i64] {
        let (ptr, len) = self.typed(id, Dtype::I64);
        // SAFETY: as `f32_mut`, for i64.
        unsafe { std::slice::from_raw_parts_mut(ptr.cast(), len) }
    }

    /// Copies `range` (in elements) of a float tensor out as f32. Allocates; for checks, not for the loop.
    pub fn read_f32(&self, id: TensorId, range: std::ops::Range<usize>) -> Vec<f32> {
        match self.tensors[id.0].dtype {
            Dtype::F32 => self.f32(id)[range].to_vec(),
            Dtype::F16 => {
                self.u16(id, Dtype::F16)[range].iter().map(|&v| f16::from_bits(v).to_f32()).collect()
            }
            Dtype::Bf16 => {
                self.u16(id, Dtype::Bf16)[range].iter().map(|&v| bf16::from_bits(v).to_f32()).collect()
            }
            Dtype::I64 => panic!("tensor {} holds I64, not floats", self.tensors[id.0].name),
        }
    }

    /// The bits of a whole tensor of 16-bit floats.
    fn u16(&self, id: TensorId, dtype: Dtype) -> &[u16] {
        let (ptr, len) = self.typed(id, dtype);
        // SAFETY: as `f32`; both formats called for have 16 bits an element.
        unsafe { std::slice::from_raw_parts(ptr.cast(), len) }
    }

    /// Fills a tensor with NaN (integers: with a value far out of range). A result that still comes out right
    /// proves that everything read was written first.
    pub fn poison(&mut self, id: TensorId) {
        // 0xFF in every byte is a NaN in every float format and -1 in every integer one.
        self.bytes_mut(id).fill(0xFF);
    }
}

impl std::fmt::Debug for Tensors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map()
            .entries(self.tensors.iter().map(|t| (t.name, (t.dtype, t.elements, t.storage.ptr))))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_zeroed_page_aligned_and_apart() {
        let mut t = Tensors::new();
        let a = t.add("a", Dtype::F32, 5);
        let b = t.add("b", Dtype::I64, 3);
        assert_eq!(t.f32(a), [0.0; 5]);
        assert_eq!(t.i64_mut(b), [0; 3]);
        let [pa, pb] = [a, b].map(|id| t.storage(id).ptr().as_ptr() as usize);
        assert_eq!((pa % ALIGNMENT, pb % ALIGNMENT), (0, 0));
        assert!(pa.abs_diff(pb) >= 20);
        t.f32_mut(a)[4] = 7.0;
        assert_eq!(t.read_f32(a, 3..5), [0.0, 7.0]);
        assert_eq!(t.total_bytes(), 20 + 24);
    }

    #[test]
    fn poison_is_nan_everywhere() {
        let mut t = Tensors::new();
        let a = t.add("a", Dtype::F32, 4);
        let h = t.add("h", Dtype::F16, 4);
        t.poison(a);
        t.poison(h);
        assert!(t.f32(a).iter().all(|v| v.is_nan()));
        assert!(t.read_f32(h, 0..4).iter().all(|v| v.is_nan()));
    }

    #[test]
    fn half_precision_is_read_as_f32() {
        let mut t = Tensors::new();
        let (half, brain) = (t.add("half", Dtype::F16, 3), t.add("brain", Dtype::Bf16, 3));
        let bytes = |bits: [u16; 3]| bits.map(u16::to_le_bytes).concat();
        t.bytes_mut(half).copy_from_slice(&bytes([0x3C00, 0xC100, 0x7BFF]));
        t.bytes_mut(brain).copy_from_slice(&bytes([0x3F80, 0xC020, 0x7F7F]));
        assert_eq!(t.read_f32(half, 0..3), [1.0, -2.5, 65504.0]);
        assert_eq!(t.read_f32(brain, 0..2), [1.0, -2.5]);
        // Far beyond f16, and still a number.
        assert!(t.read_f32(brain, 2..3)[0] > 3e38);
        t.poison(brain);
        assert!(t.read_f32(brain, 0..3).iter().all(|v| v.is_nan()));
    }

    #[test]
    #[should_panic(expected = "tensor a read as I64")]
    fn reading_as_another_type_panics() {
        let mut t = Tensors::new();
        let a = t.add("a", Dtype::F32, 1);
        t.i64_mut(a);
    }
}
