//! Figures of a set of measurements: the usual percentiles, each only where there are enough values to speak of it.

use serde::Serialize;

/// The usual figures, in the unit of the values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figures {
    /// How many values.
    pub n: usize,
    pub min: f64,
    pub mean: f64,
    pub p50: Option<f64>,
    pub p90: Option<f64>,
    pub p95: Option<f64>,
    pub p99: Option<f64>,
    pub p99_9: Option<f64>,
    pub max: f64,
}

impl Figures {
    /// Of finite values in any order; none of no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let (&min, &max) = sorted.first().zip(sorted.last())?;
        Some(Figures {
            n: sorted.len(),
            min,
            mean: sorted.iter().sum::<f64>() / sorted.len() as f64,
            p50: percentile(&sorted, 0.5),
            p90: percentile(&sorted, 0.9),
            p95: percentile(&sorted, 0.95),
            p99: percentile(&sorted, 0.99),
            p99_9: percentile(&sorted, 0.999),
            max,
        })
    }

    /// The value to plan with, and what it is: the highest percentile that is known from p99 down, else the maximum.
    pub fn planning(&self) -> (f64, &'static str) {
        match self.p99 {
            Some(p99) => (p99, "p99"),
            None => (self.max, "maximum"),
        }
    }
}

/// The index of the nearest-rank percentile among `n` sorted values.
pub fn nearest_rank(n: usize, p: f64) -> usize {
    ((p * n as f64).ceil() as usize).clamp(1, n.max(1)) - 1
}

/// The nearest-rank percentile of sorted values; none while fewer than ten values are expected to lie beyond it, so
/// that the median needs 20 values, p99 1 000 and p99.9 10 000.
pub fn percentile<T: Copy>(sorted: &[T], p: f64) -> Option<T> {
    let n = sorted.len() as f64;
    // A hair below ten, because 1 − 0.999 is not a round number in binary.
    if n * (1.0 - p) < 10.0 - 1e-6 {
        return None;
    }
    sorted.get(nearest_rank(sorted.len(), p)).copied()
}

/// The middle value, of however few there are; for decisions, not for reports.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_appear_with_enough_values() {
        let known = |n: usize| {
            let f = Figures::of((1..=n).map(|v| v as f64)).unwrap();
            [f.p50, f.p90, f.p95, f.p99, f.p99_9].map(|p| p.is_some())
        };
        assert_eq!(known(19), [false; 5]);
        assert_eq!(known(20), [true, false, false, false, false]);
        assert_eq!(known(999), [true, true, true, false, false]);
        assert_eq!(known(1000), [true, true, true, true, false]);
        assert_eq!(known(10_000), [true; 5]);
        let f = Figures::of((1..=1000).rev().map(f64::from)).unwrap();
        assert_eq!((f.p50, f.p99, f.max, f.planning()), (Some(500.0), Some(990.0), 1000.0, (990.0, "p99")));
        assert_eq!(Figures::of([3.0, 1.0]).unwrap().planning(), (3.0, "maximum"));
        assert!(Figures::of([]).is_none());
    }
}
