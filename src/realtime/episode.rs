//! The episode that observations, chunks and reads belong to: a number that only grows.
//!
//! An observation takes the number as it is published and a chunk takes its observation's, each handed on through a
//! [`cell`](super::cell). So who has taken a chunk and then asks for the number sees that chunk's or a later one, and
//! a chunk of an earlier one is not followed, whenever its inference began or ended.

use super::clock::Timestamp;
use super::primitive::{AtomicU64, Ordering};

/// The number of the episode, from 0, and the time it was begun. Begun by any thread, asked by any.
#[derive(Debug)]
pub struct Episode {
    number: AtomicU64,
    begun: AtomicU64,
}

impl Episode {
    /// Creates the first one, begun at the clock's origin.
    pub fn new() -> Self {
        Episode { number: AtomicU64::new(0), begun: AtomicU64::new(0) }
    }

    /// Begins the next one.
    ///
    /// RT-safe: yes, two atomic writes. Thread: any.
    #[inline]
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn begin(&self, now: Timestamp) {
        // Relaxed, because the number's Release carries it.
        self.begun.store(now.as_nanos(), Ordering::Relaxed);
        // Release, so that whoever sees the number sees the time too.
        self.number.fetch_add(1, Ordering::Release);
    }

    /// Returns its number.
    ///
    /// RT-safe: yes, one atomic load. Thread: any.
    #[inline]
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn number(&self) -> u64 {
        // Acquire pairs with the Release above.
        self.number.load(Ordering::Acquire)
    }

    /// Returns the number of the episode of an observation that is being published: this one, or an earlier one if it
    /// was captured before this began.
    ///
    /// RT-safe: yes, two atomic loads. Thread: any.
    #[inline]
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn of(&self, captured: Timestamp) -> u64 {
        let number = self.number();
        // Relaxed, as in `begin`.
        let begun = self.begun.load(Ordering::Relaxed);
        if captured.as_nanos() < begun { number.saturating_sub(1) } else { number }
    }
}

impl Default for Episode {
    fn default() -> Self {
        Episode::new()
    }
}

#[cfg(all(test, pi0_loom))]
mod loom_model {
    use super::*;
    use crate::realtime::cell::cell;
    use loom::sync::Arc;

    /// Sensors, inference and control loop while somebody begins an episode: what the loop takes is of no later episode
    /// than it then sees, and after the beginning nothing from before is of the episode.
    #[test]
    fn a_chunk_is_of_the_episode_that_is_seen_after_it_or_of_an_earlier_one() {
        loom::model(|| {
            let episode = Arc::new(Episode::new());
            let (mut observations, mut seen) = cell(|| 0u64);
            let (mut chunks, mut taken) = cell(|| 0u64);
            let captured = Timestamp::from_nanos(7);
            let sensors = {
                let episode = Arc::clone(&episode);
                loom::thread::spawn(move || {
                    let number = episode.of(captured);
                    observations.write_with(|slot| *slot = number);
                    observations.publish();
                })
            };
            let inference = loom::thread::spawn(move || {
                seen.update();
                let number = seen.read_with(|o| *o);
                chunks.write_with(|slot| *slot = number);
                chunks.publish();
            });
            episode.begin(captured);
            taken.update();
            let chunk = taken.read_with(|c| *c);
            let now = episode.number();
            assert_eq!(now, 1, "begun before, by this thread");
            assert!(chunk <= now);
            sensors.join().unwrap();
            inference.join().unwrap();
            // Captured before a later beginning: of none but an earlier one.
            episode.begin(Timestamp::from_nanos(8));
            assert_eq!((episode.of(captured), episode.number()), (1, 2));
        });
    }

    #[test]
    fn whoever_sees_the_number_sees_the_time() {
        loom::model(|| {
            let episode = Arc::new(Episode::new());
            let other = Arc::clone(&episode);
            let beginning = loom::thread::spawn(move || other.begin(Timestamp::from_nanos(5)));
            assert_eq!(episode.of(Timestamp::from_nanos(4)), 0, "captured before it in any case");
            beginning.join().unwrap();
        });
    }
}
