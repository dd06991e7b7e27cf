//! Growth of the process: memory, threads and file descriptors, sampled while it runs.

use std::time::Duration;

use pi0_edge::{Error, ErrorKind, Result};
use serde::Serialize;

/// The share of the samples at the start that counts as settling in.
const SETTLING: f64 = 0.1;

/// One look at this process.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Seconds since the run began.
    seconds: f64,
    /// Resident memory in KiB; its anonymous part; threads; open file descriptors.
    values: [f64; 4],
}

const NAMES: [&str; 4] = ["resident_kib", "anonymous_kib", "threads", "file_descriptors"];

impl Sample {
    /// Reads `/proc` now.
    pub fn take(since_start: Duration) -> Result<Self> {
        let failed = |what: &str, e| Error::with_source(ErrorKind::Io, format!("cannot read {what}"), e);
        let status =
            std::fs::read_to_string("/proc/self/status").map_err(|e| failed("/proc/self/status", e))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<f64>().ok()).unwrap_or(f64::NAN)
        };
        let open = std::fs::read_dir("/proc/self/fd").map_err(|e| failed("/proc/self/fd", e))?.count();
        // One of them is the directory being read.
        let values = [field("VmRSS:"), field("RssAnon:"), field("Threads:"), open as f64 - 1.0];
        Ok(Sample { seconds: since_start.as_secs_f64(), values })
    }
}

/// The change of one figure, from when the process had settled.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trend {
    /// The name of the figure.
    pub name: &'static str,
    /// The first value.
    pub first: f64,
    /// The last value.
    pub last: f64,
    /// The lowest value.
    pub min: f64,
    /// The highest value.
    pub max: f64,
    /// Growth per hour, by least squares; none if all samples came at one moment.
    pub slope_per_hour: Option<f64>,
    /// The slope's standard error.
    pub standard_error: Option<f64>,
}

/// The changes of all figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Soak {
    /// Samples counted: the first tenth of the run is settling in.
    pub n: usize,
    /// From the first counted sample to the last.
    pub seconds: f64,
    /// One figure each.
    pub trends: Vec<Trend>,
}

/// Evaluates samples in the order they were taken; none if there are fewer than three after settling in.
pub fn evaluate(samples: &[Sample]) -> Option<Soak> {
    let counted = &samples[(samples.len() as f64 * SETTLING).ceil() as usize..];
    let [first, _, .., last] = counted else { return None };
    let trend = |i: usize| {
        let points = || counted.iter().map(|s| (s.seconds, s.values[i]));
        let line = least_squares(points());
        Trend {
            name: NAMES[i],
            first: first.values[i],
            last: last.values[i],
            min: points().fold(f64::INFINITY, |low, (_, v)| low.min(v)),
            max: points().fold(f64::NEG_INFINITY, |high, (_, v)| high.max(v)),
            slope_per_hour: line.map(|(slope, _)| slope * 3600.0),
            standard_error: line.and_then(|(_, error)| error).map(|error| error * 3600.0),
        }
    };
    let seconds = last.seconds - first.seconds;
    Some(Soak { n: counted.len(), seconds, trends: (0..4).map(trend).collect() })
}

/// The slope of the line through `points`, and its standard error if there are more than two.
fn least_squares(points: impl Iterator<Item = (f64, f64)> + Clone) -> Option<(f64, Option<f64>)> {
    let n = points.clone().count() as f64;
    let (mean_x, mean_y) = points.clone().fold((0.0, 0.0), |(x, y), p| (x + p.0 / n, y + p.1 / n));
    let (xx, xy) = points.clone().fold((0.0, 0.0), |(xx, xy), (x, y)| {
        (xx + (x - mean_x) * (x - mean_x), xy + (x - mean_x) * (y - mean_y))
    });
    if xx <= 0.0 {
        return None;
    }
    let slope = xy / xx;
    let residuals: f64 = points.map(|(x, y)| (y - mean_y - slope * (x - mean_x)).powi(2)).sum();
    Some((slope, (n > 2.0).then(|| (residuals / (n - 2.0) / xx).sqrt())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(value: impl Fn(usize) -> f64) -> Vec<Sample> {
        (0..100).map(|i| Sample { seconds: i as f64 * 36.0, values: [value(i), 5.0, 7.0, 9.0] }).collect()
    }

    #[test]
    fn the_slope_is_per_hour_and_settling_in_does_not_count() {
        // A jump while settling, then a unit every sample: a hundred an hour.
        let soak = evaluate(&samples(|i| if i < 10 { 1e6 } else { i as f64 })).unwrap();
        assert_eq!((soak.n, soak.seconds), (90, 89.0 * 36.0));
        let resident = &soak.trends[0];
        assert_eq!((resident.first, resident.last, resident.min, resident.max), (10.0, 99.0, 10.0, 99.0));
        assert!((resident.slope_per_hour.unwrap() - 100.0).abs() < 1e-9);
        assert!(resident.standard_error.unwrap() < 1e-9);
        assert_eq!(soak.trends[2].slope_per_hour, Some(0.0));
    }

    #[test]
    fn noise_shows_in_the_standard_error() {
        let soak = evaluate(&samples(|i| if i % 2 == 0 { 10.0 } else { -10.0 })).unwrap();
        let (slope, error) = (soak.trends[0].slope_per_hour.unwrap(), soak.trends[0].standard_error.unwrap());
        assert!(slope.abs() < 3.0 * error && error > 1.0, "{slope} ± {error}");
    }

    #[test]
    fn too_few_samples_say_nothing() {
        assert!(evaluate(&[]).is_none() && evaluate(&samples(|_| 0.0)[..3]).is_none());
    }

    #[test]
    fn a_sample_of_this_process_makes_sense() {
        let sample = Sample::take(Duration::ZERO).unwrap();
        let [resident, anonymous, threads, files] = sample.values;
        assert!(resident > anonymous && anonymous > 0.0 && threads >= 1.0 && files >= 1.0, "{sample:?}");
    }
}
