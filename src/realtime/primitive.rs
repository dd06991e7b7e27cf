//! The atomics and cells the lock-free parts are built from, replaced by a model checker's in its builds.

#[cfg(all(test, pi0_loom))]
mod imp {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, fence};
}

#[cfg(all(test, pi0_shuttle))]
mod imp {
    pub(crate) use super::PlainCell as UnsafeCell;
    pub(crate) use shuttle::sync::Arc;
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, fence};
}

#[cfg(not(all(test, any(pi0_loom, pi0_shuttle))))]
mod imp {
    pub(crate) use super::PlainCell as UnsafeCell;
    pub(crate) use std::sync::Arc;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, fence};
}

pub(crate) use imp::*;
pub(crate) use std::sync::atomic::Ordering;

/// `std`'s `UnsafeCell` with the access functions of loom's, so that loom can check every access.
#[cfg(not(all(test, pi0_loom)))]
#[derive(Debug)]
pub(crate) struct PlainCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(all(test, pi0_loom)))]
impl<T> PlainCell<T> {
    pub(crate) fn new(value: T) -> Self {
        PlainCell(std::cell::UnsafeCell::new(value))
    }

    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    #[inline]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}
