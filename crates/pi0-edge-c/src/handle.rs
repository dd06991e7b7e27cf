//! Handles: what C holds in place of a Rust object.
//!
//! A handle is a number that looks like a pointer and is never followed. It names a place in a table and how many
//! objects were there before, so one that was freed, belongs to another kind, or never was a handle is told apart for
//! certain, whatever has become of the memory. Using one takes one compare-and-swap and never waits: a second call
//! that would get in the way is refused.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicUsize, Ordering};

use super::status::{
    Fail, PI0_ERR_BUSY, PI0_ERR_FORKED, PI0_ERR_HANDLE, PI0_ERR_LIMIT, PI0_ERR_NULL, PI0_ERR_POISONED,
    PI0_ERR_THREAD, Result,
};

/// Most handles of one kind at a time.
const SLOTS: usize = 64;

// A handle from its lowest bit: calls going on (0 in the handle itself), kind, place, generation. All of the bits for
// calls stand for one that lets no other in.
const USERS: usize = 0xff;
const KIND_SHIFT: u32 = 8;
const PLACE_SHIFT: u32 = 12;
const GENERATION_SHIFT: u32 = PLACE_SHIFT + SLOTS.ilog2();

/// A place whose object is being put in or taken out. No handle has this value, because there is no kind 15.
const CHANGING: usize = usize::MAX;

/// The handles of one kind: `H` is the type C sees, `T` the object.
pub(super) struct Table<H, T> {
    kind: usize,
    slots: [Slot<T>; SLOTS],
    handle: PhantomData<fn() -> H>,
}

/// A cache line of its own: a control loop that wakes up finds everything here at once, and shares it with nobody.
#[repr(align(64))]
struct Slot<T> {
    /// The handle of the object that is here, and the calls going on; 0 if the place is free.
    word: AtomicUsize,
    generation: AtomicUsize,
    poisoned: AtomicBool,
    /// The thread the object belongs to; 0 before its first call.
    thread: AtomicUsize,
    object: UnsafeCell<Option<Box<T>>>,
}

// SAFETY: an object is reached through `word` alone: by one call at a time, or by several if it is Sync (see `shared`).
unsafe impl<H, T: Send> Sync for Table<H, T> {}

/// The right to use an object, until it is dropped. A panic meanwhile poisons the object.
pub(super) struct Use<'a, T> {
    slot: &'a Slot<T>,
    /// Its share of the count in the word.
    users: usize,
}

/// The right to change an object.
pub(super) struct Exclusive<'a, T>(Use<'a, T>);

impl<H, T: Send> Table<H, T> {
    /// A table for handles of `kind`, a number below 15 that no other table has.
    pub(super) const fn new(kind: usize) -> Self {
        assert!(kind < 15);
        let slots = [const {
            Slot {
                word: AtomicUsize::new(0),
                generation: AtomicUsize::new(0),
                poisoned: AtomicBool::new(false),
                thread: AtomicUsize::new(0),
                object: UnsafeCell::new(None),
            }
        }; SLOTS];
        Table { kind, slots, handle: PhantomData }
    }

    /// Puts an object in and returns its handle.
    pub(super) fn insert(&self, object: T) -> Result<*mut H> {
        self.insert_with(|| Ok(object))
    }

    /// As [`insert`](Self::insert), with the object made once there is a place for it.
    pub(super) fn insert_with(&self, object: impl FnOnce() -> Result<T>) -> Result<*mut H> {
        watch_for_forks();
        not_forked()?;
        let claim = |slot: &&Slot<T>| {
            // Acquire pairs with the Release that freed the place: the object before is out completely.
            slot.word.compare_exchange(0, CHANGING, Ordering::Acquire, Ordering::Relaxed).is_ok()
        };
        let Some((place, slot)) = self.slots.iter().enumerate().find(|(_, slot)| claim(slot)) else {
            return Err(Fail::new(PI0_ERR_LIMIT, format!("there are {SLOTS} handles of this kind already")));
        };
        // Release, so that the next object finds the place empty.
        let object = object().inspect_err(|_| slot.word.store(0, Ordering::Release))?;
        // Relaxed, all of these: the place is this call's alone until the word is stored. Generations start at 1,
        // so that no handle is NULL.
        let generation = slot.generation.load(Ordering::Relaxed).wrapping_add(1);
        let generation = if generation << GENERATION_SHIFT == 0 { 1 } else { generation };
        slot.generation.store(generation, Ordering::Relaxed);
        slot.poisoned.store(false, Ordering::Relaxed);
        slot.thread.store(0, Ordering::Relaxed);
        // SAFETY: CHANGING keeps everybody else out.
        unsafe { *slot.object.get() = Some(Box::new(object)) };
        let handle = generation << GENERATION_SHIFT | place << PLACE_SHIFT | self.kind << KIND_SHIFT;
        // Release, so that whoever finds the handle here finds the object too.
        slot.word.store(handle, Ordering::Release);
        Ok(std::ptr::without_provenance_mut(handle))
    }

    /// Takes an object out; its handle is none from now on. Refused while a call with it is going on.
    pub(super) fn remove(&self, handle: *const H) -> Result<Box<T>> {
        let (slot, handle) = self.find(handle)?;
        slot.take(handle, CHANGING)?;
        // SAFETY: CHANGING keeps everybody else out.
        let object = unsafe { (*slot.object.get()).take() };
        // Release, so that the next object finds the place empty.
        slot.word.store(0, Ordering::Release);
        object.ok_or_else(gone)
    }

    /// As [`remove`](Self::remove), but only an object that can still be used.
    pub(super) fn take(&self, handle: *const H) -> Result<Box<T>> {
        drop(self.exclusive(handle)?);
        self.remove(handle)
    }

    /// Takes an object out and drops it. No object: nothing to do.
    pub(super) fn free(&self, handle: *const H) -> Result {
        if !handle.is_null() {
            drop(self.remove(handle)?);
        }
        Ok(())
    }

    /// The object, for one call at a time.
    #[inline]
    pub(super) fn exclusive(&self, handle: *const H) -> Result<Exclusive<'_, T>> {
        let (slot, handle) = self.find(handle)?;
        slot.take(handle, handle | USERS)?;
        Use { slot, users: USERS }.checked().map(Exclusive)
    }

    /// The object, for one call at a time and calls of one thread only: the first that called.
    #[inline]
    pub(super) fn owned(&self, handle: *const H) -> Result<Exclusive<'_, T>> {
        let used = self.exclusive(handle)?;
        let (thread, this) = (&used.0.slot.thread, this_thread());
        // Relaxed, because only one call at a time comes here.
        match thread.load(Ordering::Relaxed) {
            0 => thread.store(this, Ordering::Relaxed),
            owner if owner == this => {}
            _ => return Err(Fail::new(PI0_ERR_THREAD, "the handle belongs to the thread that called first")),
        }
        Ok(used)
    }

    /// Makes the calling thread the one the object belongs to.
    pub(super) fn attach(&self, handle: *const H) -> Result {
        let used = self.exclusive(handle)?;
        // Relaxed, as in `owned`.
        used.0.slot.thread.store(this_thread(), Ordering::Relaxed);
        Ok(())
    }

    /// The object, together with other calls.
    pub(super) fn shared(&self, handle: *const H) -> Result<Use<'_, T>>
    where
        T: Sync,
    {
        let (slot, handle) = self.find(handle)?;
        // Relaxed: the exchange below looks again.
        let mut word = slot.word.load(Ordering::Relaxed);
        loop {
            if word & !USERS != handle || word == CHANGING {
                return Err(gone());
            }
            if word & USERS >= USERS - 1 {
                return Err(busy());
            }
            // Acquire, as in `take`.
            match slot.word.compare_exchange_weak(word, word + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Use { slot, users: 1 }.checked(),
                Err(now) => word = now,
            }
        }
    }

    /// The handles that are alive. By the time one is used it may not be any more.
    pub(super) fn handles(&self) -> impl Iterator<Item = *const H> {
        // Relaxed: whoever uses one looks again.
        let words = self.slots.iter().map(|slot| slot.word.load(Ordering::Relaxed));
        words
            .filter(|&word| word != 0 && word != CHANGING)
            .map(|word| std::ptr::without_provenance(word & !USERS))
    }

    /// Finds the slot of a handle's object.
    #[inline]
    fn find(&self, handle: *const H) -> Result<(&Slot<T>, usize)> {
        not_forked()?;
        let handle = handle.addr();
        if handle == 0 {
            return Err(Fail::new(PI0_ERR_NULL, "the handle is NULL"));
        }
        if handle & USERS != 0 || handle >> KIND_SHIFT & 0xf != self.kind {
            return Err(gone());
        }
        Ok((&self.slots[handle >> PLACE_SHIFT & (SLOTS - 1)], handle))
    }
}

fn gone() -> Fail {
    Fail::new(
        PI0_ERR_HANDLE,
        "the handle is not one of this kind that is alive: freed, taken over, or never one",
    )
}

fn busy() -> Fail {
    Fail::new(PI0_ERR_BUSY, "another call with this handle is going on")
}

impl<T> Slot<T> {
    /// Sets the word from `handle`, which no call is using, to `word`.
    #[inline]
    fn take(&self, handle: usize, word: usize) -> Result {
        // Acquire pairs with the Release at the end of the call before, and with that of `insert`.
        match self.word.compare_exchange(handle, word, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Ok(()),
            Err(now) if now != CHANGING && now & !USERS == handle => Err(busy()),
            Err(_) => Err(gone()),
        }
    }
}

impl<T> Use<'_, T> {
    #[inline]
    fn checked(self) -> Result<Self> {
        // Relaxed: a panic's end of use, which stored it, was before this use began.
        if self.slot.poisoned.load(Ordering::Relaxed) {
            return Err(Fail::new(PI0_ERR_POISONED, "an earlier call with this handle hit a bug; free it"));
        }
        #[cfg(test)]
        super::tests::panics::planted();
        Ok(self)
    }
}

impl<T> Deref for Use<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the use is counted, so the object is there, and nobody changes it but an exclusive user.
        let object = unsafe { &*self.slot.object.get() };
        object.as_deref().expect("a place with a handle has an object")
    }
}

impl<T> Deref for Exclusive<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Exclusive<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: nobody used the object when this use began, and nobody can before it ends.
        let object = unsafe { &mut *self.0.slot.object.get() };
        object.as_deref_mut().expect("a place with a handle has an object")
    }
}

impl<T> Drop for Use<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Relaxed, because the word's Release below carries it.
            self.slot.poisoned.store(true, Ordering::Relaxed);
        }
        // Release, so that the next user sees all that this one did.
        self.slot.word.fetch_sub(self.users, Ordering::Release);
    }
}

/// A number that no other living thread has. No system call, no allocation, and no thread-local of ours, whose first
/// use in a library loaded late would allocate.
#[inline]
fn this_thread() -> usize {
    // SAFETY: pthread_self has no requirements.
    let this = unsafe { libc::pthread_self() };
    this as usize
}

/// The process that handles are used in: 1 there, and 0 in a child, which has none of the threads that handles rely on.
/// On a page that the kernel wipes in every child, also in one that `_Fork` or `clone` made and no handler was told of.
static HERE: AtomicPtr<AtomicU8> = AtomicPtr::new(&raw const NOWHERE as *mut _);
static NOWHERE: AtomicU8 = AtomicU8::new(1);

pub(super) fn forked() -> bool {
    // SAFETY: it points to a static, or to a page that stays mapped for ever. Acquire pairs with the Release in
    // `watch_for_forks`; Relaxed, because a child begins with one thread.
    unsafe { (*HERE.load(Ordering::Acquire)).load(Ordering::Relaxed) == 0 }
}

#[inline]
pub(super) fn not_forked() -> Result {
    if forked() {
        return Err(Fail::new(
            PI0_ERR_FORKED,
            "the process was forked, and this is the child; handles are the parent's",
        ));
    }
    Ok(())
}

fn watch_for_forks() {
    static ONCE: Once = Once::new();
    extern "C" fn in_child() {
        // SAFETY: as in `forked`. Relaxed, as there.
        unsafe { (*HERE.load(Ordering::Relaxed)).store(0, Ordering::Relaxed) };
    }
    // SAFETY: the page is this function's own until it is published, writable, and large enough for a byte. The handler
    // only stores to memory that is there for ever, as it is itself: the library is never unloaded.
    ONCE.call_once(|| unsafe {
        let (size, flags) =
            (libc::sysconf(libc::_SC_PAGESIZE) as usize, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let page = libc::mmap(std::ptr::null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        if page != libc::MAP_FAILED {
            // A kernel that cannot wipe leaves it to the handler, which fork calls.
            libc::madvise(page, size, libc::MADV_WIPEONFORK);
            let page = page.cast::<AtomicU8>();
            (*page).store(1, Ordering::Relaxed);
            HERE.store(page, Ordering::Release);
        }
        libc::pthread_atfork(None, None, Some(in_child));
    });
}
