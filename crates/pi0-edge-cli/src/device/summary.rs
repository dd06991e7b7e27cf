//! The measurements turned into figures.

use serde::Serialize;

use super::phases::{Measured, Start};
use super::sampler::Series;
use super::settle::Settled;
use crate::figures::{Figures, Stage, median, stages};

/// Electrical power over the steady run.
#[derive(Debug, Serialize)]
pub struct Power {
    /// The rails that were added up.
    pub rails: Vec<String>,
    /// W, mean over the steady run and over the times of idleness.
    pub mean_w: f64,
    pub idle_w: Option<f64>,
    /// Readings behind the mean.
    pub n: usize,
    /// J for each chunk.
    pub joule_per_chunk: f64,
    /// W on each rail, mean over the steady run.
    pub by_rail: Vec<(String, f64)>,
}

/// The change of the machine over the steady run.
#[derive(Debug, Serialize)]
pub struct Drift {
    /// Seconds at either end that were compared.
    pub seconds: f64,
    /// Median latency at the beginning and at the end, in ms, and by how many per cent it rose.
    pub from_ms: f64,
    pub to_ms: f64,
    pub percent: f64,
    /// The thermal zone that became hottest, and its °C at the beginning, at the end and at most.
    pub hottest: Option<(String, f64, f64, f64)>,
    /// Times that the module throttled itself for its current or voltage, where it counts them.
    pub throttled: Option<u64>,
}

/// All figures.
#[derive(Debug, Serialize)]
pub struct Summary {
    pub cold: Start,
    pub warm: Start,
    pub settling: Settled,
    pub after_idle: Option<Figures>,
    pub stages: Vec<Stage>,
    pub seconds: f64,
    pub power: Option<Power>,
    pub drift: Option<Drift>,
}

impl Summary {
    /// Evaluates what was measured.
    pub fn of(m: &Measured, series: &Series) -> Self {
        const STAGES: [&str; 7] =
            ["preprocess", "vision", "prefix", "denoise_step", "denoise", "overhead", "chunk"];
        Summary {
            cold: m.cold,
            warm: m.warm,
            settling: m.settled,
            after_idle: Figures::of(m.after_idle.iter().copied()),
            stages: stages(&m.steady.chunks, &m.steady.steps, &STAGES),
            seconds: m.steady.span.1 - m.steady.span.0,
            power: power(m, series),
            drift: drift(m, series),
        }
    }

    /// A stage by its name.
    pub fn stage(&self, name: &str) -> Option<&Figures> {
        self.stages.iter().find(|s| s.name == name).map(|s| &s.figures)
    }
}

fn power(m: &Measured, series: &Series) -> Option<Power> {
    let (from, to) = m.steady.span;
    let (mean_w, n) = series.mean(from, to, |s| s.total)?;
    let idle: Vec<f64> =
        m.idle_spans.iter().filter_map(|&(f, t)| Some(series.mean(f, t, |s| s.total)?.0)).collect();
    let by_rail = series.names.rails.iter().enumerate().filter_map(|(i, name)| {
        Some((name.clone(), series.mean(from, to, |s| s.rails.get(i).copied().flatten())?.0))
    });
    Some(Power {
        rails: series.names.total.clone(),
        mean_w,
        idle_w: (!idle.is_empty()).then(|| idle.iter().sum::<f64>() / idle.len() as f64),
        n,
        joule_per_chunk: mean_w * (to - from) / m.steady.chunks.len() as f64,
        by_rail: by_rail.collect(),
    })
}

fn drift(m: &Measured, series: &Series) -> Option<Drift> {
    let (from, to) = m.steady.span;
    // The first and the last tenth; of a few chunks, no drift is told.
    let seconds = (to - from) / 10.0;
    let between = |from: f64, to: f64| -> Vec<f64> {
        m.steady.chunks.iter().filter(|c| (from..to).contains(&c.at_s)).map(|c| c.total).collect()
    };
    let (first, last) = (between(from, from + seconds), between(to - seconds, to));
    if first.len().min(last.len()) < 3 {
        return None;
    }
    let (from_ms, to_ms) = (median(&first)?, median(&last)?);
    let hottest = series.names.zones.iter().enumerate().filter_map(|(i, name)| {
        let zone = |s: &pi0_edge_doctor::sensors::Sample| s.zones.get(i).copied().flatten();
        let most = series.between(from, to).filter_map(|(_, s)| zone(s)).reduce(f64::max)?;
        let start = series.mean(from, from + seconds, zone)?.0;
        let end = series.mean(to - seconds, to, zone)?.0;
        Some((name.clone(), start, end, most))
    });
    Some(Drift {
        seconds,
        from_ms,
        to_ms,
        percent: (to_ms / from_ms - 1.0) * 100.0,
        hottest: hottest.max_by(|a, b| a.3.total_cmp(&b.3)),
        throttled: series.throttled(from, to),
    })
}

#[cfg(test)]
mod tests {
    use pi0_edge_doctor::sensors::{Sample, SensorNames};

    use super::*;
    use crate::device::phases::Steady;
    use crate::figures::Chunk;

    fn chunk(at_s: f64, total: f64) -> Chunk {
        Chunk { at_s, preprocess: 0.0, vision: 1.0, prefix: 2.0, denoise: 3.0, overhead: 0.5, total }
    }

    fn measured(steady: Vec<Chunk>, span: (f64, f64)) -> Measured {
        let start = Start { verify_s: 1.0, sessions_s: 2.0, first_chunk_ms: 3.0, read_bytes: None };
        Measured {
            cold: start,
            warm: start,
            settled: Settled { settled: true, seconds: 6.0, chunks: 10, from_ms: None, to_ms: None },
            after_idle: vec![],
            idle_spans: vec![(0.0, 9.95)],
            steady: Steady { chunks: steady, steps: vec![1.0; 40], span },
        }
    }

    /// 4 W while idle, then 10 W and a zone that warms up by a tenth of a degree a second.
    fn series() -> Series {
        let names = SensorNames {
            rails: vec!["VDD_IN".into()],
            total: vec!["VDD_IN".into()],
            zones: vec!["cpu".into(), "gpu".into()],
            clocks: vec![],
        };
        let rows = (0..1100).map(|i| {
            let at = f64::from(i) * 0.1;
            let watts = if at < 10.0 { 4.0 } else { 10.0 };
            let sample = Sample {
                rails: vec![Some(watts)],
                total: Some(watts),
                zones: vec![Some(30.0), Some(40.0 + at * 0.1)],
                clocks: vec![],
                throttled: Some(if at > 50.0 { 3 } else { 1 }),
            };
            (at, sample)
        });
        Series { names, rows: rows.collect() }
    }

    #[test]
    fn energy_is_power_times_the_time_of_a_chunk() {
        let chunks = (0..200).map(|i| chunk(10.0 + f64::from(i) * 0.5, 499.0)).collect();
        let summary = Summary::of(&measured(chunks, (10.0, 110.0)), &series());
        let power = summary.power.unwrap();
        assert_eq!((power.mean_w, power.idle_w, power.n), (10.0, Some(4.0), 1000));
        assert!((power.joule_per_chunk - 5.0).abs() < 1e-9);
        assert_eq!(power.by_rail, [("VDD_IN".to_owned(), 10.0)]);
    }

    #[test]
    fn drift_compares_both_ends() {
        let chunks = (0..200).map(|i| chunk(10.0 + f64::from(i) * 0.5, 100.0 + f64::from(i) * 0.1)).collect();
        let drift = Summary::of(&measured(chunks, (10.0, 110.0)), &series()).drift.unwrap();
        assert!((drift.percent - 18.0).abs() < 0.5, "{drift:?}");
        let (zone, start, end, most) = drift.hottest.unwrap();
        assert_eq!(zone, "gpu");
        assert!(start < 42.0 && end > 50.0 && most >= end);
        assert_eq!(drift.throttled, Some(2));
    }

    #[test]
    fn a_handful_of_chunks_tells_no_drift_and_no_percentile() {
        let summary = Summary::of(
            &measured(vec![chunk(10.0, 25_000.0), chunk(35.0, 26_000.0)], (10.0, 61.0)),
            &series(),
        );
        assert!(summary.drift.is_none());
        let chunk = summary.stage("chunk").unwrap();
        assert_eq!((chunk.n, chunk.p50, chunk.max), (2, None, 26_000.0));
        assert_eq!(summary.stage("denoise_step").unwrap().n, 40);
    }
}
