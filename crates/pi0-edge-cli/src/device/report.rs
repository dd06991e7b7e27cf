//! The report, and its forms: for people, to paste, for programs, and as a page with plots.

mod html;
mod markdown;
mod plots;
mod text;
mod times;

use std::path::Path;

use pi0_edge::Result;
use pi0_edge_doctor::sensors::Sample;
use serde::Serialize;
use serde_json::{Value, json};

use super::environment::Environment;
use super::jitter;
use super::sampler::Series;
use super::summary::Summary;
use super::verdict::Verdict;
use crate::control;
use crate::figures::{Chunk, Stage};
use crate::interrupt::{self, Begun};
use crate::output::{NewFile, cannot};
use crate::row;

pub use html::render as html;
pub use markdown::render as markdown;
pub use text::render as text;
pub use times::times_json;

/// Everything that is reported.
pub struct Report {
    pub environment: Environment,
    pub policy: PolicyFacts,
    pub summary: Summary,
    /// The control loop beside inference.
    pub jitter: Option<control::Report>,
    pub verdict: Verdict,
    pub chunks: Vec<Chunk>,
    pub series: Series,
    /// Date and time, in UTC.
    pub when: String,
}

/// The policy and its observation.
#[derive(Serialize)]
pub struct PolicyFacts {
    pub kind: String,
    pub bundle: String,
    pub precision: String,
    /// `checkpoint`, or `random`: made up, so that the actions mean nothing; the times are those of trained ones.
    pub weights: &'static str,
    pub num_steps: usize,
    pub action_horizon: usize,
    pub action_dim: usize,
    pub cameras: usize,
    pub prefix_len: usize,
}

impl Report {
    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "format": "pi0-edge bench device 1",
            "when": self.when,
            "interrupted": interrupt::requested(),
            "weights": self.policy.weights,
            "policy": self.policy,
            "figures": self.summary,
            "control": self.jitter.as_ref().map(control::Report::json),
            "verdict": self.verdict,
            "environment": self.environment.json(),
            "series": self.series_json(),
        })
    }

    fn series_json(&self) -> Value {
        let Series { names, rows } = &self.series;
        let columns = |count: usize, value: fn(&Sample, usize) -> Option<f64>| -> Vec<Vec<Option<f64>>> {
            (0..count).map(|i| rows.iter().map(|(_, sample)| value(sample, i)).collect()).collect()
        };
        json!({
            "names": names,
            "at_s": rows.iter().map(|r| r.0).collect::<Vec<_>>(),
            "total_w": rows.iter().map(|r| r.1.total).collect::<Vec<_>>(),
            "rails_w": columns(names.rails.len(), |s, i| s.rails[i]),
            "zones_c": columns(names.zones.len(), |s, i| s.zones[i]),
            "clocks_hz": columns(names.clocks.len(), |s, i| s.clocks[i]),
        })
    }
}

/// The forms of the report.
pub const FILES: [&str; 5] = ["bench.json", "bench.md", "trtexec.txt", "times.json", "report.html"];

/// The files of the report, begun before anything is measured.
pub struct Files {
    files: Vec<NewFile>,
    /// The directory if there was none.
    directory: Option<Begun>,
}

impl Files {
    /// Begins them in `directory`, which is created.
    pub fn create(directory: &Path) -> Result<Self> {
        let create = || Begun::create(directory.to_owned(), |path| std::fs::create_dir_all(path));
        let begun = (!directory.exists()).then(create).transpose().map_err(cannot("write", directory))?;
        let files = FILES.iter().map(|name| NewFile::create(&directory.join(name)));
        Ok(Files { files: files.collect::<Result<_>>()?, directory: begun.map(|(directory, ())| directory) })
    }

    /// Writes them all.
    pub fn write(self, report: &Report) -> Result<()> {
        let json = format!("{:#}\n", report.json());
        let contents =
            [json, markdown(report), times::trtexec(report), times_json(&report.chunks), html(report)];
        if let Some(directory) = self.directory {
            directory.keep();
        }
        self.files.into_iter().zip(contents).try_for_each(|(file, content)| file.write_bytes(content))
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

/// A row for each stage: its name, n, and then in ms the minimum, the percentiles and the maximum.
fn stage_rows(report: &Report) -> impl Iterator<Item = Vec<String>> {
    report.summary.stages.iter().map(|Stage { name, figures: f }| {
        let [p50, p90, p99, p99_9] = [f.p50, f.p90, f.p99, f.p99_9].map(some_ms);
        row![name, f.n, ms(f.min), p50, p90, p99, p99_9, ms(f.max)]
    })
}

/// Nanoseconds as µs, where they may be hidden for want of values.
fn us(nanos: Option<u64>) -> String {
    nanos.map_or("–".into(), |ns| format!("{:.1}", ns as f64 / 1e3))
}

/// The verdict's words, then what the numbers do not say by themselves.
fn words(report: &Report) -> Vec<String> {
    let mut out = report.verdict.words.clone();
    out.extend(report.jitter.iter().flat_map(jitter::words));
    out.extend(caveats(report));
    out
}

/// Lists what the numbers do not say by themselves.
fn caveats(report: &Report) -> Vec<String> {
    let settling = &report.summary.settling;
    let throttled = report.summary.drift.as_ref().and_then(|d| d.throttled).unwrap_or_default();
    let caveats = [
        (
            report.policy.weights == "random",
            "Weights are random (weights=random): the times are those of a trained policy, its actions mean nothing."
                .into(),
        ),
        (
            report.environment.recorded,
            "The machine's files were read from a recorded tree, not from the machine that ran the policy."
                .into(),
        ),
        (cfg!(debug_assertions), "This is a debug build: its figures say nothing.".into()),
        (
            !settling.settled,
            format!("The latency had not settled after {:.0} s: figures may not repeat.", settling.seconds),
        ),
        (
            report.series.names.rails.is_empty(),
            "No power monitor was found: no power and no energy.".to_owned(),
        ),
        (
            throttled > 0,
            format!("The module throttled itself {throttled} times for its current or voltage."),
        ),
    ];
    caveats.into_iter().filter(|(applies, _)| *applies).map(|(_, words)| words).collect()
}
