//! The report, and its forms: for people, to paste, for programs, and as a page with plots.

mod html;
mod markdown;
mod plot;
mod text;
mod times;

use std::path::Path;

use pi0_edge::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use super::environment::Environment;
use super::jitter::Jitter;
use super::phases::Chunk;
use super::sampler::Series;
use super::summary::Summary;
use super::verdict::Verdict;

pub use times::times_json;

/// Everything that is reported.
pub struct Report {
    pub environment: Environment,
    pub policy: PolicyFacts,
    pub summary: Summary,
    pub jitter: Option<Jitter>,
    pub verdict: Verdict,
    pub chunks: Vec<Chunk>,
    pub series: Series,
    /// Date and time, in UTC.
    pub when: String,
}

/// What ran.
pub struct PolicyFacts {
    pub kind: String,
    pub precision: String,
    pub num_steps: usize,
    pub action_horizon: usize,
    pub action_dim: usize,
    pub cameras: usize,
    pub prefix_len: usize,
    pub bundle: String,
    /// The weights are made up, so that the actions mean nothing; the times are those of real ones.
    pub random_weights: bool,
}

impl PolicyFacts {
    /// `trained` or `random`.
    pub fn weights(&self) -> &'static str {
        if self.random_weights { "random" } else { "trained" }
    }
}

impl Report {
    /// For programs.
    pub fn json(&self) -> Value {
        let p = &self.policy;
        json!({
            "format": "pi0-edge bench device 1",
            "when": self.when,
            "weights": p.weights(),
            "policy": {
                "kind": p.kind, "bundle": p.bundle, "precision": p.precision, "weights": p.weights(),
                "num_steps": p.num_steps, "action_horizon": p.action_horizon, "action_dim": p.action_dim,
                "cameras": p.cameras, "prefix_len": p.prefix_len,
            },
            "figures": self.summary,
            "control": self.jitter.as_ref().map(|j| &j.json),
            "verdict": self.verdict,
            "environment": self.environment.json(),
            "series": self.series_json(),
        })
    }

    fn series_json(&self) -> Value {
        let rows = &self.series.rows;
        let column = |count: usize, value: &dyn Fn(usize, usize) -> Option<f64>| -> Vec<Vec<Option<f64>>> {
            (0..count).map(|i| (0..rows.len()).map(|row| value(i, row)).collect()).collect()
        };
        json!({
            "names": self.series.names,
            "at_s": rows.iter().map(|r| r.0).collect::<Vec<_>>(),
            "total_w": rows.iter().map(|r| r.1.total).collect::<Vec<_>>(),
            "rails_w": column(self.series.names.rails.len(), &|i, r| rows[r].1.rails[i]),
            "zones_c": column(self.series.names.zones.len(), &|i, r| rows[r].1.zones[i]),
            "clocks_hz": column(self.series.names.clocks.len(), &|i, r| rows[r].1.clocks[i]),
        })
    }

    /// The measurements in trtexec's words.
    pub fn trtexec(&self) -> String {
        times::trtexec(self)
    }

    /// A table to paste.
    pub fn markdown(&self) -> String {
        markdown::render(self)
    }

    /// For people, at a terminal.
    pub fn text(&self) -> String {
        text::render(self)
    }

    /// A page that needs nothing else.
    pub fn html(&self) -> String {
        html::render(self)
    }

    /// Writes every form into `directory`, which is created.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let cannot =
            |what: &Path, e| Error::with_source(ErrorKind::Io, format!("cannot write {}", what.display()), e);
        std::fs::create_dir_all(directory).map_err(|e| cannot(directory, e))?;
        for (name, content) in [
            ("bench.json", format!("{:#}\n", self.json())),
            ("bench.md", self.markdown()),
            ("trtexec.txt", self.trtexec()),
            ("times.json", times_json(&self.chunks)),
            ("report.html", self.html()),
        ] {
            let path = directory.join(name);
            std::fs::write(&path, content).map_err(|e| cannot(&path, e))?;
        }
        Ok(())
    }
}

/// A duration in ms, with the digits that matter.
fn ms(value: f64) -> String {
    match value {
        v if v >= 1000.0 => format!("{v:.0}"),
        v if v >= 100.0 => format!("{v:.1}"),
        v if v >= 1.0 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}

/// The same, where it may be hidden for want of values.
fn some_ms(value: Option<f64>) -> String {
    value.map_or("–".into(), ms)
}

/// Nanoseconds as µs, where they may be hidden for want of values.
fn us(nanos: Option<u64>) -> String {
    nanos.map_or("–".into(), |ns| format!("{:.1}", ns as f64 / 1e3))
}

/// The verdict's words, then what the numbers do not say by themselves.
fn words(report: &Report) -> Vec<String> {
    let mut out = report.verdict.words.clone();
    out.extend(report.jitter.iter().flat_map(Jitter::words));
    out.extend(caveats(report));
    out
}

/// What the numbers do not say by themselves.
fn caveats(report: &Report) -> Vec<String> {
    let mut out = Vec::new();
    let settling = &report.summary.settling;
    if report.policy.random_weights {
        out.push("Weights are random (weights=random): the times are those of a trained policy, its actions mean nothing.".into());
    }
    if report.environment.recorded {
        out.push(
            "The machine's files were read from a recorded tree, not from the machine that ran the policy."
                .into(),
        );
    }
    if cfg!(debug_assertions) {
        out.push("This is a debug build: its figures say nothing.".into());
    }
    if !settling.settled {
        out.push(format!(
            "The latency had not settled after {:.0} s: figures may not repeat.",
            settling.seconds
        ));
    }
    if report.series.names.rails.is_empty() {
        out.push("No power monitor was found: no power and no energy.".into());
    }
    if let Some(n) = report.summary.drift.as_ref().and_then(|d| d.throttled).filter(|n| *n > 0) {
        out.push(format!("The module throttled itself {n} times for its current or voltage."));
    }
    out
}
