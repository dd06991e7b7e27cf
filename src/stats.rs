//! Counters and latency histograms that other threads read while they are written.
//!
//! Every field is an atomic, so a snapshot takes no lock and never holds up the thread that counts. Each counter and
//! histogram has one writing thread: an increment is then a load and a store, which needs no bus lock and no retry
//! loop on any processor. Two writers would lose counts, never more.
//!
//! Crates that were weighed: `hdrhistogram` records through `&mut`, and its synchronised form takes locks and allocates
//! on the reading side's schedule; `histogram` has atomic buckets, but no exact minimum, maximum and mean beside them. The bucket layout here is the same idea (a power of two divided evenly), fixed.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// A count of events. One thread counts, any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `n` events.
    ///
    /// RT-safe: yes. Thread: the one that counts.
    #[inline]
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn add(&self, n: u64) {
        // Relaxed, because a count orders nothing else; not a read-modify-write, because there is one writer.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Returns the number of events.
    #[inline]
    pub fn count(&self) -> u64 {
        // Relaxed, as in `add`.
        self.0.load(Ordering::Relaxed)
    }
}

/// Buckets per power of two: values are kept to within 1/32, about 3 %.
const PER_OCTAVE: u64 = 32;
/// Values of 2^40 ns (18 minutes) and more share the last bucket; the maximum is kept exactly all the same.
const OCTAVES: u64 = 40;
const BUCKETS: usize = ((OCTAVES - 5 + 1) * PER_OCTAVE) as usize + 1;

/// A histogram of durations in nanoseconds. One thread records, any thread reads.
///
/// Values below 32 are exact; above that, each power of two is divided into 32 buckets. Ten kilobytes, made once.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

fn bucket_of(value: u64) -> usize {
    if value < PER_OCTAVE {
        return value as usize;
    }
    let octave = u64::from(value.ilog2());
    if octave >= OCTAVES {
        return BUCKETS - 1;
    }
    let within = (value >> (octave - 5)) - PER_OCTAVE;
    ((octave - 5 + 1) * PER_OCTAVE + within) as usize
}

/// Returns the largest value that falls into bucket `index`.
fn upper_bound(index: usize) -> u64 {
    let index = index as u64;
    if index < PER_OCTAVE {
        return index;
    }
    let (octave, within) = (index / PER_OCTAVE + 4, index % PER_OCTAVE);
    ((PER_OCTAVE + within + 1) << (octave - 5)) - 1
}

impl Histogram {
    /// Creates an empty histogram.
    pub fn new() -> Self {
        Histogram {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
            min: AtomicU64::new(u64::MAX),
            max: AtomicU64::new(0),
        }
    }

    /// Records one duration.
    ///
    /// RT-safe: yes. Thread: the one that records.
    #[inline]
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn record(&self, nanos: u64) {
        // Relaxed throughout, and load-and-store rather than read-modify-write, as in `Counter`: a reader may see a
        // value counted in one place and not yet in another, which moves a percentile by at most that one value.
        let add = |cell: &AtomicU64, n: u64| {
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        };
        add(&self.buckets[bucket_of(nanos)], 1);
        add(&self.sum, nanos);
        if nanos < self.min.load(Ordering::Relaxed) {
            self.min.store(nanos, Ordering::Relaxed);
        }
        if nanos > self.max.load(Ordering::Relaxed) {
            self.max.store(nanos, Ordering::Relaxed);
        }
    }

    /// Returns a copy to take percentiles from.
    ///
    /// RT-safe: no, it allocates. Thread: any.
    pub fn snapshot(&self) -> HistogramSnapshot {
        // Relaxed, as in `record`. The count is summed from the buckets, so that percentiles always add up.
        let buckets: Vec<u64> = self.buckets.iter().map(|b| b.load(Ordering::Relaxed)).collect();
        HistogramSnapshot {
            count: buckets.iter().sum(),
            sum: self.sum.load(Ordering::Relaxed),
            min: self.min.load(Ordering::Relaxed),
            max: self.max.load(Ordering::Relaxed),
            buckets,
        }
    }
}

/// A histogram as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistogramSnapshot {
    buckets: Vec<u64>,
    count: u64,
    sum: u64,
    min: u64,
    max: u64,
}

impl HistogramSnapshot {
    /// Returns the number of values recorded.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the smallest value, exactly.
    pub fn min(&self) -> Option<u64> {
        (self.count > 0).then_some(self.min)
    }

    /// Returns the largest value, exactly.
    pub fn max(&self) -> Option<u64> {
        (self.count > 0).then_some(self.max)
    }

    /// Returns the mean, exactly.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / self.count as f64)
    }

    /// Returns the value that `percent` per cent of the recorded ones do not exceed, rounded up by at most 1/32.
    ///
    /// None if there are too few values to say: fewer than ten beyond it would be above by chance. So the median
    /// needs 20 values, p99 needs 1 000 and p99.99 needs 100 000.
    pub fn percentile(&self, percent: f64) -> Option<u64> {
        let beyond = 1.0 - percent / 100.0;
        // A hair below ten, because 1 − 0.999 is not a round number in binary.
        if !(0.0..100.0).contains(&percent) || (self.count as f64) * beyond < 10.0 - 1e-6 {
            return None;
        }
        let rank = ((percent / 100.0 * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        let index = self.buckets.iter().position(|&n| {
            seen += n;
            seen >= rank
        })?;
        Some(upper_bound(index).clamp(self.min, self.max))
    }

    /// Returns the filled buckets: the largest value of each, and the number of values in it.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let last = BUCKETS - 1;
        let bound = move |i| if i == last { u64::MAX } else { upper_bound(i) };
        self.buckets.iter().enumerate().filter(|(_, n)| **n > 0).map(move |(i, n)| (bound(i), *n))
    }

    /// Returns the usual figures, for output.
    pub fn summary(&self) -> Summary {
        Summary {
            count: self.count,
            min: self.min(),
            mean: self.mean(),
            p50: self.percentile(50.0),
            p90: self.percentile(90.0),
            p99: self.percentile(99.0),
            p99_9: self.percentile(99.9),
            p99_99: self.percentile(99.99),
            max: self.max(),
        }
    }
}

/// A histogram's usual figures, in nanoseconds; a percentile is missing where too few values were recorded.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[expect(missing_docs, reason = "each field is the figure its name says")]
pub struct Summary {
    pub count: u64,
    pub min: Option<u64>,
    pub mean: Option<f64>,
    pub p50: Option<u64>,
    pub p90: Option<u64>,
    pub p99: Option<u64>,
    pub p99_9: Option<u64>,
    pub p99_99: Option<u64>,
    pub max: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_cover_every_value_without_gap_or_overlap() {
        assert_eq!(bucket_of(0), 0);
        for index in 0..BUCKETS - 1 {
            let bound = upper_bound(index);
            assert_eq!(bucket_of(bound), index);
            assert_eq!(bucket_of(bound + 1), index + 1, "after {bound}");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket_of(1 << OCTAVES), BUCKETS - 1);
    }

    proptest! {
        /// Against sorting the values.
        #[test]
        fn percentiles_agree_with_sorting(
            mut values in proptest::collection::vec(0u64..1 << 45, 20..400),
            shift in 0u32..30,
            percent in 0.0..50.0f64,
        ) {
            values.iter_mut().for_each(|v| *v >>= shift);
            let histogram = Histogram::new();
            values.iter().for_each(|&v| histogram.record(v));
            values.sort_unstable();
            let snapshot = histogram.snapshot();
            prop_assert_eq!(snapshot.count(), values.len() as u64);
            prop_assert_eq!(snapshot.min(), values.first().copied());
            prop_assert_eq!(snapshot.max(), values.last().copied());
            let mean = values.iter().map(|&v| v as f64).sum::<f64>() / values.len() as f64;
            prop_assert!((snapshot.mean().unwrap() - mean).abs() <= mean * 1e-9);
            let rank = ((percent / 100.0 * values.len() as f64).ceil() as usize).max(1);
            let exact = values[rank - 1];
            let got = snapshot.percentile(percent).unwrap();
            prop_assert!(got >= exact.min((1 << OCTAVES) - 1));
            if exact < 1 << OCTAVES {
                prop_assert!(got <= exact + exact / 32, "{} for {}", got, exact);
            }
        }
    }

    #[test]
    fn a_percentile_is_hidden_until_there_are_enough_values() {
        for (percent, needed) in [(50.0, 20), (90.0, 100), (99.0, 1000), (99.9, 10_000), (99.99, 100_000)] {
            let histogram = Histogram::new();
            for i in 1..needed {
                histogram.record(i);
            }
            assert_eq!(histogram.snapshot().percentile(percent), None, "p{percent} of {}", needed - 1);
            histogram.record(needed);
            let got = histogram.snapshot().percentile(percent).expect("enough now");
            let exact = needed as f64 * percent / 100.0;
            assert!(got as f64 >= exact && got as f64 <= exact * 33.0 / 32.0 + 1.0, "p{percent}: {got}");
        }
        let none = Histogram::new().snapshot();
        assert_eq!((none.percentile(50.0), none.max(), none.mean()), (None, None, None));
        let full = Histogram::new();
        (0..1000).for_each(|v| full.record(v));
        assert_eq!(full.snapshot().percentile(100.0), None, "the maximum is not a percentile");
        assert_eq!(full.snapshot().percentile(-1.0), None);
        assert_eq!(full.snapshot().percentile(f64::NAN), None);
    }

    #[test]
    fn other_threads_read_while_one_counts() {
        let (counter, histogram) = (Counter::default(), Histogram::new());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for i in 0..100_000 {
                    counter.add(1);
                    histogram.record(i % 1000);
                }
            });
            let mut last = 0;
            while last < 100_000 {
                let now = histogram.snapshot().count();
                assert!(now >= last, "{now} after {last}");
                last = now;
                std::thread::yield_now();
            }
        });
        assert_eq!(counter.count(), 100_000);
        assert_eq!(histogram.snapshot().summary().max, Some(999));
    }
}
