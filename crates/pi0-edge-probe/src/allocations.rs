//! Allocations, counted by thread.
//!
//! ```
//! use pi0_edge_probe::allocations::{CountingAllocator, on_this_thread};
//!
//! #[global_allocator]
//! static ALLOCATOR: CountingAllocator = CountingAllocator;
//!
//! let before = on_this_thread();
//! drop(Box::new(1));
//! assert_eq!(on_this_thread() - before, 2);
//! ```

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, which counts what is asked of it by Rust code. What C and C++ libraries allocate goes
/// another way and is not counted.
#[derive(Debug)]
pub struct CountingAllocator;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// Returns the allocations, reallocations and releases of the calling thread so far. Zero for ever if [`CountingAllocator`] is not
/// the program's global allocator.
///
/// Neither allocates nor makes a system call. Thread: any.
#[inline]
pub fn on_this_thread() -> u64 {
    COUNT.with(Cell::get)
}

fn count() {
    // Fails only while the thread's storage is being destroyed.
    _ = COUNT.try_with(|n| n.set(n.get() + 1));
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count();
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
