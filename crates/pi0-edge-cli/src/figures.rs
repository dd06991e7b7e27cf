//! Statistics of measurements: the usual percentiles, each only where there are enough values to speak of it.

use std::time::Duration;

use pi0_edge::Timing;
use serde::Serialize;

/// The usual figures, in the unit of the values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figures {
    /// Number of values.
    pub n: usize,
    pub min: f64,
    pub mean: f64,
    pub p50: Option<f64>,
    pub p90: Option<f64>,
    pub p95: Option<f64>,
    pub p99: Option<f64>,
    pub p99_9: Option<f64>,
    pub max: f64,
    /// The median of however few values there are.
    #[serde(skip)]
    pub median: f64,
}

impl Figures {
    /// Evaluates finite values in any order; none of no values.
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
            median: sorted[nearest_rank(sorted.len(), 0.5)],
        })
    }

    /// The value to plan with, and its name: the highest percentile that is known from p99 down, else the maximum.
    pub fn planning(&self) -> (f64, &'static str) {
        match self.p99 {
            Some(p99) => (p99, "p99"),
            None => (self.max, "maximum"),
        }
    }
}

/// The index of the nearest-rank percentile among `n` sorted values.
fn nearest_rank(n: usize, p: f64) -> usize {
    ((p * n as f64).ceil() as usize).clamp(1, n.max(1)) - 1
}

/// The nearest-rank percentile of sorted values; none while fewer than ten values are expected to lie beyond it, so
/// that the median needs 20 values, p99 1 000 and p99.9 10 000.
fn percentile(sorted: &[f64], p: f64) -> Option<f64> {
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

/// The times of one chunk, in ms but for the time it began.
#[derive(Debug, Clone, Copy)]
pub struct Chunk {
    /// Seconds since the bench began.
    pub at_s: f64,
    pub preprocess: f64,
    pub vision: f64,
    pub prefix: f64,
    pub denoise: f64,
    /// The rest: the runtime's own part.
    pub overhead: f64,
    pub total: f64,
}

impl Chunk {
    /// The times of a chunk that began at `at_s`.
    pub fn new(at_s: f64, t: &Timing) -> Self {
        Chunk {
            at_s,
            preprocess: ms(t.preprocess),
            vision: ms(t.vision),
            prefix: ms(t.prefix),
            denoise: ms(t.denoise()),
            overhead: ms(t.overhead()),
            total: ms(t.total),
        }
    }
}

/// A duration in milliseconds.
pub fn ms(d: Duration) -> f64 {
    d.as_secs_f64() * 1e3
}

/// A stage's statistics, in ms.
#[derive(Debug, Serialize)]
pub struct Stage {
    pub name: &'static str,
    #[serde(flatten)]
    pub figures: Figures,
}

/// The named stages, in that order, of chunks and of the denoise steps in them; what has no values is left out.
pub fn stages(chunks: &[Chunk], steps: &[f64], names: &[&'static str]) -> Vec<Stage> {
    let values = |name: &str| -> Vec<f64> {
        let of = |value: fn(&Chunk) -> f64| chunks.iter().map(value).collect();
        match name {
            "preprocess" => of(|c| c.preprocess),
            "vision" => of(|c| c.vision),
            "prefix" => of(|c| c.prefix),
            "denoise_step" => steps.to_vec(),
            "denoise" => of(|c| c.denoise),
            "overhead" => of(|c| c.overhead),
            _ => of(|c| c.total),
        }
    };
    let stage = |&name: &&'static str| Some(Stage { name, figures: Figures::of(values(name))? });
    names.iter().filter_map(stage).collect()
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
