//! The jitter of a control loop while the policy computes: `bench control`, in the figures of this report.

use std::path::PathBuf;

use pi0_edge::stats::Summary;
use pi0_edge::{Result, Verify};

use crate::control::{Args, Report, examine};
use crate::options::LoadOptions;

/// Measures for `seconds`. The bundle was verified before.
pub fn measure(load: &LoadOptions, observation: Option<PathBuf>, seconds: u32) -> Result<Report> {
    let load = LoadOptions { verify: Verify::Size, ..load.clone() };
    examine(&Args::beside_inference(load, observation, seconds))
}

/// Wake-up, read and both together, in ns.
pub fn rows(report: &Report) -> [(&'static str, Summary); 3] {
    let ticks = &report.ticks;
    [("wake-up", &ticks.wake), ("read", &ticks.read), ("both", &ticks.response)]
        .map(|(name, histogram)| (name, histogram.snapshot().summary()))
}

/// Wake-ups by their lateness in µs.
pub fn wake_us(report: &Report) -> Vec<(f64, u64)> {
    let rows = report.ticks.wake_us.rows.iter().enumerate();
    rows.filter(|(_, n)| **n > 0).map(|(us, n)| (us as f64, *n)).collect()
}

/// Describes the jitter in sentences.
pub fn words(report: &Report) -> Vec<String> {
    let us = |ns: Option<u64>| ns.map_or("an unknown time".into(), |ns| format!("{:.0} µs", ns as f64 / 1e3));
    let (ticks, both) = (&report.ticks, report.ticks.response.snapshot().summary());
    let (max, p99, reads, late) = (us(both.max), us(both.p99), ticks.count, ticks.late);
    let mut words = vec![format!(
        "Beside inference, a control loop at 1 kHz had its action {max} after the tick at most (p99 {p99}, n = {reads})."
    )];
    if late > 0 {
        words.push(format!("{late} of its {reads} ticks came too late for 1 kHz."));
    }
    words.extend(report.broken_promises().iter().map(|b| format!("READING BROKE ITS PROMISES: {b}.")));
    words.extend(report.not_followed());
    let threads = [("control", &ticks.obtained), ("inference", &report.measured.inference)];
    let missing = threads.iter().flat_map(|(thread, obtained)| {
        obtained.missing.iter().map(move |m| format!("{thread} thread: {}: {}", m.what, m.why))
    });
    let mut missing: Vec<String> = missing.collect();
    // Every worker says the same.
    missing.dedup();
    words.extend(missing.iter().map(|m| format!("Without real-time rights: {m}.")));
    words
}
