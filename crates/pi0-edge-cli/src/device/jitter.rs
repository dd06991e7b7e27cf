//! What a control loop sees while the policy computes: `bench control`, in the figures of this report.

use std::path::PathBuf;

use pi0_edge::Result;
use pi0_edge::runtime::Status;
use pi0_edge::stats::Summary;
use serde_json::Value;

use crate::control;
use crate::options::{LoadOptions, VerifyOption};

/// The control loop's side.
pub struct Jitter {
    /// All of `bench control`'s report.
    pub json: Value,
    /// cyclictest's line.
    pub line: String,
    /// Wake-up, read and both together, in ns.
    pub rows: [(&'static str, Summary); 3],
    /// How often a wake-up was so many µs late.
    pub wake_us: Vec<(f64, u64)>,
    /// Wake-ups that were later than any of these.
    pub later: u64,
    pub reads: u64,
    /// Reads whose action came later than the next tick was due.
    pub late: u64,
    /// Reads by what they were told, such as `OK`.
    pub statuses: Vec<(&'static str, u64)>,
    /// What was promised of reads and not kept, if anything.
    pub broken: Vec<String>,
    /// In words, if no chunk came in time to be followed.
    pub not_followed: Option<String>,
    /// Real-time rights that the threads did not get.
    pub missing: Vec<String>,
}

/// Measures for `seconds`. The bundle was verified before.
pub fn measure(load: &LoadOptions, observation: Option<PathBuf>, seconds: u32) -> Result<Jitter> {
    let load = LoadOptions { verify: VerifyOption::Size, ..load.clone() };
    let args = control::Args::beside_inference(load, observation, seconds);
    let report = control::examine(&args)?;
    let ticks = &report.ticks;
    let counted = ticks.wake_us.rows.iter().enumerate().filter(|(_, n)| **n > 0);
    let mut missing: Vec<String> =
        ticks.obtained.missing.iter().map(|m| format!("control thread: {}: {}", m.what, m.why)).collect();
    missing.extend(
        report.measured.inference.missing.iter().map(|m| format!("inference thread: {}: {}", m.what, m.why)),
    );
    // Every worker says the same.
    missing.dedup();
    Ok(Jitter {
        json: report.json(),
        line: report.cyclictest_line(),
        rows: [
            ("wake-up", ticks.wake.snapshot().summary()),
            ("read", ticks.read.snapshot().summary()),
            ("both", ticks.response.snapshot().summary()),
        ],
        wake_us: counted.map(|(us, n)| (us as f64, *n)).collect(),
        later: ticks.wake_us.overflows,
        reads: ticks.count,
        late: ticks.late,
        statuses: Status::ALL
            .iter()
            .map(|s| s.as_str())
            .zip(ticks.statuses)
            .filter(|(_, n)| *n > 0)
            .collect(),
        broken: report.broken_promises(),
        not_followed: report.not_followed(),
        missing,
    })
}

impl Jitter {
    /// What to think of it.
    pub fn words(&self) -> Vec<String> {
        let us =
            |ns: Option<u64>| ns.map_or("an unknown time".into(), |ns| format!("{:.0} µs", ns as f64 / 1e3));
        let both = &self.rows[2].1;
        let mut words = vec![format!(
            "Beside inference, a control loop at 1 kHz had its action {} after the tick at most (p99 {}, n = {}).",
            us(both.max),
            us(both.p99),
            self.reads
        )];
        if self.late > 0 {
            words.push(format!("{} of its {} ticks came too late for 1 kHz.", self.late, self.reads));
        }
        words.extend(self.broken.iter().map(|b| format!("READING BROKE ITS PROMISES: {b}.")));
        words.extend(self.not_followed.clone());
        words.extend(self.missing.iter().map(|m| format!("Without real-time rights: {m}.")));
        words
    }
}
