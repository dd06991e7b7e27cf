//! A wait-free cell that hands the latest value from one thread to another.
//!
//! [`cell`] returns the two halves: the [`Writer`] fills a slot in place and publishes it, the [`Reader`] takes the
//! newest published slot and looks at it in place. Three slots and one atomic byte: each side owns one slot, the
//! third lies between them. An exchange of that byte moves ownership, so neither side ever waits for the other,
//! whatever the other's priority and wherever it was preempted; nothing is copied, and nothing is allocated after
//! construction. A value that was never looked at is overwritten, and the writer is told.
//!
//! No crate does it: `crossbeam-channel` spins without bound while its peer is preempted between claiming and filling
//! a slot, so a SCHED_FIFO reader on the writer's core never gets out. `triple_buffer` has the right semantics, but
//! its atomics cannot be exchanged for a model checker's from outside. This one is small enough to be checked
//! exhaustively by loom, and is.
//!
//! Wait-free holds where an 8-bit exchange is one instruction: x86-64, and aarch64 with LSE atomics (every Jetson
//! since Xavier). On older aarch64 it is a load/store-exclusive pair that the hardware may have to retry.

use std::cell::Cell;
use std::marker::PhantomData;

use super::primitive::{Arc, AtomicBool, AtomicU8, Ordering, UnsafeCell};

/// The bits of the state byte that name the slot between the two sides.
const INDEX: u8 = 0b011;
/// Set in the state byte while that slot holds a value the reader has not taken.
const FRESH: u8 = 0b100;

/// One slot, on cache lines of its own (two, because x86 prefetches them in pairs).
#[repr(align(128))]
#[derive(Debug)]
struct Slot<T>(UnsafeCell<T>);

#[derive(Debug)]
struct Shared<T> {
    slots: [Slot<T>; 3],
    state: AtomicU8,
    writer_alive: AtomicBool,
    reader_alive: AtomicBool,
}

// SAFETY: a slot is reached by the writer only through `back` and by the reader only through `front`; those two and
// the index in `state` are always three different numbers, because each side only ever exchanges its own for the
// one in `state`. So no slot is reached from two threads at once, and T needs to be Send only.
unsafe impl<T: Send> Sync for Shared<T> {}

/// The half that writes. One thread at a time: it can be sent, not shared.
#[derive(Debug)]
pub struct Writer<T> {
    shared: Arc<Shared<T>>,
    back: u8,
    not_sync: PhantomData<Cell<()>>,
}

/// The half that reads. One thread at a time: it can be sent, not shared.
///
/// ```compile_fail
/// fn shared<T: Sync>() {}
/// shared::<pi0_edge::internals::cell::Reader<u8>>();
/// ```
/// ```compile_fail
/// let (_writer, reader) = pi0_edge::internals::cell::cell(|| 0u8);
/// let second = reader.clone();
/// ```
#[derive(Debug)]
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
    front: u8,
    not_sync: PhantomData<Cell<()>>,
}

/// Creates a cell whose three slots come from `init`; the reader sees one of them until the first publication.
///
/// Whoever drops the second half frees the slots, which is no work for a real-time thread.
pub fn cell<T>(mut init: impl FnMut() -> T) -> (Writer<T>, Reader<T>) {
    let mut slot = || Slot(UnsafeCell::new(init()));
    let shared = Arc::new(Shared {
        slots: [slot(), slot(), slot()],
        state: AtomicU8::new(1),
        writer_alive: AtomicBool::new(true),
        reader_alive: AtomicBool::new(true),
    });
    let writer = Writer { shared: Arc::clone(&shared), back: 0, not_sync: PhantomData };
    let reader = Reader { shared, front: 2, not_sync: PhantomData };
    (writer, reader)
}

impl<T> Writer<T> {
    /// Returns the slot to fill before [`publish`](Self::publish). What it holds is some earlier value, not the last one.
    #[inline]
    pub fn slot(&mut self) -> &mut T {
        // SAFETY: slot `back` belongs to this half until `publish`, which the borrow of self excludes.
        self.shared.slots[usize::from(self.back)].0.with_mut(|slot| unsafe { &mut *slot })
    }

    /// Makes the filled slot the latest value. Returns true if the one before it was never read.
    ///
    /// RT-safe: yes, one atomic exchange. Thread: the one that writes.
    #[inline]
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn publish(&mut self) -> bool {
        // AcqRel. Release, because the reader must see everything written into the slot before it owns it. Acquire,
        // because the slot taken in exchange may have been the reader's, whose reads of it must have ended before
        // this half writes to it again.
        let between = self.shared.state.swap(self.back | FRESH, Ordering::AcqRel);
        self.back = between & INDEX;
        between & FRESH != 0
    }

    /// Returns false once the reader has been dropped.
    pub fn reader_alive(&self) -> bool {
        // Acquire pairs with the reader's Release: what its thread did before dropping it is visible.
        self.shared.reader_alive.load(Ordering::Acquire)
    }

    /// The slot, under the model checker's eyes.
    #[cfg(all(test, pi0_loom))]
    pub(crate) fn write_with<R>(&mut self, f: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: as in `slot`.
        self.shared.slots[usize::from(self.back)].0.with_mut(|slot| f(unsafe { &mut *slot }))
    }
}

impl<T> Reader<T> {
    /// Takes the latest value if there is one that was not taken before. Returns true if [`get`](Self::get) changed.
    ///
    /// RT-safe: yes, one atomic load, and one exchange if there is news. Thread: the one that reads.
    #[inline]
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn update(&mut self) -> bool {
        // Relaxed, because the load only decides whether to exchange; the exchange synchronises. A stale "nothing
        // new" is a value seen one call later.
        if self.shared.state.load(Ordering::Relaxed) & FRESH == 0 {
            return false;
        }
        // AcqRel. Acquire, because the slot taken must be seen as the writer left it. Release, because this half's
        // reads of the slot given up must have ended before the writer fills it. Only this half clears FRESH, so
        // what the load saw still holds.
        let between = self.shared.state.swap(self.front, Ordering::AcqRel);
        self.front = between & INDEX;
        true
    }

    /// Returns the value taken by the last successful [`update`](Self::update). It does not change until the next.
    #[inline]
    pub fn get(&self) -> &T {
        // SAFETY: slot `front` belongs to this half until `update`, which the borrow of self excludes.
        self.shared.slots[usize::from(self.front)].0.with(|slot| unsafe { &*slot })
    }

    /// Returns false once the writer has been dropped. An [`update`](Self::update) after that gets its last value.
    #[inline]
    pub fn writer_alive(&self) -> bool {
        // Acquire pairs with the writer's Release: all its publications come before its death.
        self.shared.writer_alive.load(Ordering::Acquire)
    }

    /// The value, under the model checker's eyes.
    #[cfg(all(test, pi0_loom))]
    pub(crate) fn read_with<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        // SAFETY: as in `get`.
        self.shared.slots[usize::from(self.front)].0.with(|slot| f(unsafe { &*slot }))
    }
}

impl<T> Drop for Writer<T> {
    fn drop(&mut self) {
        // Release, because a reader that sees this must also see every publication before it.
        self.shared.writer_alive.store(false, Ordering::Release);
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        // Release, so that a writer that sees this sees what the reader's thread did before.
        self.shared.reader_alive.store(false, Ordering::Release);
    }
}

#[cfg(test)]
#[path = "cell_tests.rs"]
mod tests;
