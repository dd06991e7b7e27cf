//! Monotonic time: one newtype, and the smallest clock abstraction that simulated time needs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::{ClockId, clock_nanosleep_absolute};
use rustix::time::{Timespec, clock_gettime};

/// A point on `CLOCK_MONOTONIC`, in nanoseconds.
///
/// The number is the one `clock_gettime(CLOCK_MONOTONIC)` gives, so a capture time stamped by C, C++ or a driver on
/// the same machine can be handed over as it is. Other clocks (wall time, another machine's) must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Returns the time now, read in user space through the vDSO: no system call.
    ///
    /// RT-safe: yes. Thread: any.
    #[inline]
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn now() -> Self {
        let t = clock_gettime(ClockId::Monotonic);
        Timestamp(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
    }

    /// Returns the time now, and the nanoseconds that the machine has slept since it was started, or a little less:
    /// CLOCK_BOOTTIME goes on meanwhile where CLOCK_MONOTONIC stands still.
    ///
    /// RT-safe: yes. Thread: any.
    #[inline]
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub(crate) fn now_and_slept() -> (Self, u64) {
        // First, so that whatever comes between the two takes away from the difference.
        let t = clock_gettime(ClockId::Boottime);
        let now = Timestamp::now();
        (now, Timestamp(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64).since(now))
    }

    /// Sleeps until this point, or not at all if it has passed: how a loop keeps an absolute schedule.
    ///
    /// RT-safe: no, it is the wait between two ticks. Thread: any.
    pub fn sleep_until(self) {
        let until = self.timespec();
        // A signal ends the sleep early.
        while clock_nanosleep_absolute(ClockId::Monotonic, &until) == Err(Errno::INTR) {}
    }

    /// The point as the kernel takes it.
    pub(super) fn timespec(self) -> Timespec {
        Timespec { tv_sec: (self.0 / 1_000_000_000) as i64, tv_nsec: (self.0 % 1_000_000_000) as i64 }
    }

    /// Returns the point `nanos` nanoseconds after the clock's origin.
    #[inline]
    pub const fn from_nanos(nanos: u64) -> Self {
        Timestamp(nanos)
    }

    /// Returns the nanoseconds since the clock's origin.
    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the nanoseconds from `earlier` to this point; zero if `earlier` is not earlier.
    #[inline]
    pub const fn since(self, earlier: Timestamp) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Returns the point `nanos` nanoseconds later, or the end of time.
    #[inline]
    pub const fn plus(self, nanos: u64) -> Self {
        Timestamp(self.0.saturating_add(nanos))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Timestamp;
    fn add(self, duration: Duration) -> Timestamp {
        self.plus(nanos(duration))
    }
}

/// Returns a duration in whole nanoseconds; anything above 584 years is 584 years.
#[doc(hidden)]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The inference thread's source of time.
pub trait Clock: Send {
    /// Returns the time now.
    fn now(&self) -> Timestamp;
}

/// The machine's monotonic clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct Monotonic;

impl Clock for Monotonic {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that stands still until it is told to move: for replays and tests. Clones show the same time.
#[derive(Debug, Clone, Default)]
pub struct SimulatedClock(Arc<AtomicU64>);

impl SimulatedClock {
    /// Creates a clock that shows `start`.
    pub fn new(start: Timestamp) -> Self {
        SimulatedClock(Arc::new(AtomicU64::new(start.0)))
    }

    /// Moves the clock forward.
    pub fn advance(&self, duration: Duration) {
        // Relaxed, because the clock orders nothing: who must see the new time was told to look in some other way.
        self.0.fetch_add(nanos(duration), Ordering::Relaxed);
    }

    /// Sets the clock to `now`, which must not be earlier than what it shows.
    pub fn set(&self, now: Timestamp) {
        // Relaxed, as in `advance`.
        let before = self.0.fetch_max(now.0, Ordering::Relaxed);
        debug_assert!(before <= now.0, "a monotonic clock does not go back");
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        // Relaxed, as in `advance`.
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_is_clock_monotonic_and_does_not_go_back() {
        // std's Instant is the same clock: two readings of ours must enclose the one it makes between them.
        let (a, start) = (Timestamp::now(), std::time::Instant::now());
        std::thread::sleep(Duration::from_millis(5));
        let inner = start.elapsed();
        let b = Timestamp::now();
        assert!(u128::from(b.since(a)) >= inner.as_nanos());
        let readings: Vec<_> = (0..10_000).map(|_| Timestamp::now()).collect();
        assert!(readings.windows(2).all(|w| w[0] <= w[1]));
    }

    #[test]
    fn sleeping_ends_no_earlier_than_asked_and_not_at_all_in_the_past() {
        let begun = Timestamp::now();
        begun.plus(3_000_000).sleep_until();
        assert!(Timestamp::now().since(begun) >= 3_000_000);
        begun.sleep_until();
        Timestamp::default().sleep_until();
    }

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let (early, late) = (Timestamp::from_nanos(5), Timestamp::from_nanos(u64::MAX - 5));
        assert_eq!(early.since(late), 0);
        assert_eq!(late.since(early), u64::MAX - 10);
        assert_eq!(late.plus(100), Timestamp::from_nanos(u64::MAX));
        assert_eq!(late + Duration::MAX, Timestamp::from_nanos(u64::MAX));
    }

    #[test]
    fn a_simulated_clock_moves_only_when_told() {
        let clock = SimulatedClock::new(Timestamp::from_nanos(100));
        let same = clock.clone();
        assert_eq!(clock.now(), same.now());
        same.advance(Duration::from_nanos(7));
        assert_eq!(clock.now().as_nanos(), 107);
        clock.set(Timestamp::from_nanos(200));
        assert_eq!(same.now().as_nanos(), 200);
    }
}
