//! Waiting for work, at the price of at most one futex wake to whoever brings it.
//!
//! [`wake`] returns a [`Waker`] (any number of threads) and a [`Waiter`] (one thread). A notification is a permit
//! that is kept until the waiter takes it, so one that comes just before the waiter goes to sleep is not lost;
//! several before it looks count once. While the waiter is busy, notifying is one atomic exchange; only when it
//! sleeps does it cost a system call, and of many notifiers only the first makes it.
//!
//! `std::thread::park` would not do: the algorithm is the same, but a park permit belongs to
//! the thread and is shared with everything else that parks there (a blocking channel, for one), the waker would
//! have to learn which thread waits, and a deadline on the monotonic clock would become a relative time-out that is
//! late by whatever happens before the call. An eventfd would cost a system call each time, asleep or not.

use std::cell::Cell;
use std::marker::PhantomData;

use super::clock::Timestamp;
use super::primitive::{Arc, Ordering};

/// Nothing to tell, nobody waits.
const IDLE: u32 = 0;
/// The waiter sleeps, or is about to.
const WAITING: u32 = 1;
/// There is news the waiter has not taken.
const NOTIFIED: u32 = 2;

/// The half that notifies.
#[derive(Debug, Clone)]
pub struct Waker(Arc<futex::Futex>);

/// The half that waits. One thread at a time: it can be sent, not shared.
#[derive(Debug)]
pub struct Waiter {
    futex: Arc<futex::Futex>,
    not_sync: PhantomData<Cell<()>>,
}

/// Creates a waker and the waiter it wakes.
pub fn wake() -> (Waker, Waiter) {
    let futex = Arc::new(futex::Futex::new(IDLE));
    (Waker(Arc::clone(&futex)), Waiter { futex, not_sync: PhantomData })
}

impl Waker {
    /// Tells the waiter that there is work. Returns true if it slept, which cost one system call.
    #[inline]
    pub fn notify(&self) -> bool {
        // Release, so that the waiter, taking this permit with Acquire, sees the work it stands for.
        if self.0.word.swap(NOTIFIED, Ordering::Release) != WAITING {
            return false;
        }
        self.0.wake_one();
        true
    }
}

impl Waiter {
    /// Sleeps until notified or until `deadline`; true if notified. Returns at once if a notification is pending.
    pub fn wait(&mut self, deadline: Option<Timestamp>) -> bool {
        loop {
            // Relaxed both ways, because nothing is taken here: a permit that makes this fail is taken below.
            let asleep =
                self.futex.word.compare_exchange(IDLE, WAITING, Ordering::Relaxed, Ordering::Relaxed);
            if asleep.is_ok() {
                // The kernel compares the word under its own lock before it puts the thread to sleep, so a notify
                // between the exchange above and this call is seen here.
                self.futex.wait_while(WAITING, deadline);
            }
            // Acquire, because this may take a permit. An exchange rather than a store, so that a permit given at
            // this very moment is either taken here or stays.
            if self.futex.word.swap(IDLE, Ordering::Acquire) == NOTIFIED {
                return true;
            }
            if deadline.is_some_and(|deadline| Timestamp::now() >= deadline) {
                return false;
            }
        }
    }
}

#[cfg(not(all(test, any(pi0_loom, pi0_shuttle))))]
mod futex {
    use super::Timestamp;
    use rustix::thread::futex;
    use std::num::NonZeroU32;
    use std::sync::atomic::AtomicU32;

    /// A word that a thread can sleep on.
    #[derive(Debug)]
    pub(super) struct Futex {
        pub(super) word: AtomicU32,
    }

    impl Futex {
        pub(super) fn new(value: u32) -> Self {
            Futex { word: AtomicU32::new(value) }
        }

        /// Wakes one sleeper.
        #[cold]
        pub(super) fn wake_one(&self) {
            _ = futex::wake(&self.word, futex::Flags::PRIVATE, 1);
        }

        /// Sleeps while the word is `expected`, until `deadline`. May return early for no reason.
        pub(super) fn wait_while(&self, expected: u32, deadline: Option<Timestamp>) {
            let until = deadline.map(Timestamp::timespec);
            // FUTEX_WAIT_BITSET takes an absolute time on CLOCK_MONOTONIC, where FUTEX_WAIT takes a relative one. The
            // result is not looked at: woken, timed out, interrupted and "the word had changed" all mean looking again.
            _ = futex::wait_bitset(
                &self.word,
                futex::Flags::PRIVATE,
                expected,
                until.as_ref(),
                NonZeroU32::MAX,
            );
        }
    }
}

/// The kernel's futex as the model checkers can see it: comparing and going to sleep is one step under the bucket's
/// lock, and waking takes the same lock.
#[cfg(all(test, any(pi0_loom, pi0_shuttle)))]
mod futex {
    use super::{Ordering, Timestamp};
    use crate::realtime::primitive::AtomicU32;
    #[cfg(pi0_loom)]
    use loom::sync::{Condvar, Mutex};
    #[cfg(pi0_shuttle)]
    use shuttle::sync::{Condvar, Mutex};

    #[derive(Debug)]
    pub(super) struct Futex {
        pub(super) word: AtomicU32,
        bucket: Mutex<()>,
        sleepers: Condvar,
    }

    impl Futex {
        pub(super) fn new(value: u32) -> Self {
            Futex { word: AtomicU32::new(value), bucket: Mutex::new(()), sleepers: Condvar::new() }
        }

        pub(super) fn wake_one(&self) {
            let _bucket = self.bucket.lock().unwrap();
            self.sleepers.notify_one();
        }

        pub(super) fn wait_while(&self, expected: u32, deadline: Option<Timestamp>) {
            assert!(deadline.is_none(), "the models have no clock");
            let bucket = self.bucket.lock().unwrap();
            if self.word.load(Ordering::Relaxed) == expected {
                drop(self.sleepers.wait(bucket).unwrap());
            }
        }
    }
}

#[cfg(all(test, not(any(pi0_loom, pi0_shuttle))))]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_notification_before_the_wait_is_kept_and_several_count_once() {
        let (waker, mut waiter) = wake();
        assert!(!waker.notify());
        assert!(!waker.notify());
        assert!(waiter.wait(None), "would sleep for ever if the permit were lost");
        assert!(!waiter.wait(Some(Timestamp::now())), "one permit for two notifications");
    }

    #[test]
    fn a_deadline_is_absolute_and_not_early() {
        let (_waker, mut waiter) = wake();
        let deadline = Timestamp::now() + Duration::from_millis(20);
        assert!(!waiter.wait(Some(deadline)));
        assert!(Timestamp::now() >= deadline);
        assert!(!waiter.wait(Some(deadline)), "passed long ago");
        assert!(!waiter.wait(Some(Timestamp::default())));
    }

    #[test]
    fn after_a_time_out_notifying_costs_no_system_call() {
        let (waker, mut waiter) = wake();
        assert!(!waiter.wait(Some(Timestamp::now() + Duration::from_millis(1))));
        assert!(!waker.notify(), "nobody sleeps");
        assert!(waiter.wait(None));
    }

    #[test]
    fn only_the_first_of_many_notifications_makes_the_system_call() {
        let (waker, mut waiter) = wake();
        let sleeper = std::thread::spawn(move || waiter.wait(None));
        while waker.0.word.load(Ordering::Relaxed) != WAITING {
            std::thread::yield_now();
        }
        // The sleeper cannot take the permit before it has been woken, so the second notify finds NOTIFIED or IDLE.
        assert!(waker.notify());
        assert!(!waker.notify());
        assert!(sleeper.join().unwrap());
    }

    #[test]
    fn no_work_is_lost_between_many_notifiers_and_one_waiter() {
        use std::sync::atomic::AtomicU64;
        const EACH: u64 = 20_000;
        let (waker, mut waiter) = wake();
        let work = std::sync::Arc::new(AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let (waker, work) = (waker.clone(), work.clone());
                scope.spawn(move || {
                    for _ in 0..EACH {
                        work.fetch_add(1, Ordering::Relaxed);
                        waker.notify();
                    }
                });
            }
            while work.load(Ordering::Relaxed) < 2 * EACH {
                assert!(waiter.wait(None));
            }
        });
    }
}

#[cfg(all(test, pi0_loom))]
mod loom_model {
    use super::*;
    use loom::sync::atomic::AtomicU32;

    /// Each of some threads does `each` pieces of work and notifies after each; the waiter sleeps until it has seen
    /// all. A lost wake-up is a deadlock, which loom reports.
    fn explore(threads: u32, each: u32, preemptions: Option<usize>) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = preemptions;
        model.check(move || {
            let (waker, mut waiter) = wake();
            let work = Arc::new(AtomicU32::new(0));
            let spawn = |_| {
                let (waker, work) = (waker.clone(), Arc::clone(&work));
                loom::thread::spawn(move || {
                    for _ in 0..each {
                        // Relaxed on purpose: the permit alone must carry the work to the waiter.
                        work.fetch_add(1, Ordering::Relaxed);
                        waker.notify();
                    }
                })
            };
            let handles: Vec<_> = (0..threads).map(spawn).collect();
            let mut waits = 0;
            while work.load(Ordering::Relaxed) != threads * each {
                assert!(waiter.wait(None));
                waits += 1;
            }
            assert!(waits <= threads * each, "one wake-up for each notification at most");
            handles.into_iter().for_each(|handle| handle.join().unwrap());
        });
    }

    #[test]
    fn no_wake_up_is_lost_from_one_notifier() {
        explore(1, 2, None);
    }

    /// Three threads with a mutex and a condition variable each way are too many for every interleaving; all those
    /// with at most two preemptions.
    #[test]
    fn no_wake_up_is_lost_from_two_notifiers() {
        explore(2, 1, Some(2));
    }

    #[test]
    fn what_was_done_before_the_notification_is_visible_after_the_wait() {
        loom::model(|| {
            let (waker, mut waiter) = wake();
            let data = Arc::new(loom::cell::UnsafeCell::new(0));
            let writer = {
                let data = Arc::clone(&data);
                loom::thread::spawn(move || {
                    // SAFETY: the reader looks only after the notification below.
                    data.with_mut(|p| unsafe { *p = 42 });
                    waker.notify();
                })
            };
            assert!(waiter.wait(None));
            // SAFETY: the writer is done with it once it has notified; loom checks exactly that.
            data.with(|p| assert_eq!(unsafe { *p }, 42));
            writer.join().unwrap();
        });
    }
}
