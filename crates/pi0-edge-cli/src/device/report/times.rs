//! Forms that tools for trtexec read: its summary lines, and times of every chunk.

use std::fmt::Write;

use serde_json::json;

use super::Report;
use crate::figures::{Chunk, Figures};

/// A line of trtexec's form. A percentile that too few values tell is left out; what is added comes last.
fn line(name: &str, f: &Figures) -> String {
    let mut out = format!("{name}: min = {:.6} ms, max = {:.6} ms, mean = {:.6} ms", f.min, f.max, f.mean);
    for (what, value) in [
        ("median", f.p50),
        ("percentile(90%)", f.p90),
        ("percentile(95%)", f.p95),
        ("percentile(99%)", f.p99),
        ("percentile(99.9%)", f.p99_9),
    ] {
        if let Some(value) = value {
            let _ = write!(out, ", {what} = {value:.6} ms");
        }
    }
    let _ = writeln!(out, ", n = {}", f.n);
    out
}

/// Throughput and latency by stage.
pub fn trtexec(report: &Report) -> String {
    let stages = [
        ("Latency", "chunk"),
        ("Preprocess", "preprocess"),
        ("Vision", "vision"),
        ("Prefix", "prefix"),
        ("Denoise Step", "denoise_step"),
        ("Denoise", "denoise"),
    ];
    let mut out = format!("Weights: {}\n", report.policy.weights);
    let _ = writeln!(out, "Throughput: {:.6} qps", report.chunks.len() as f64 / report.summary.seconds);
    for (name, stage) in stages {
        if let Some(figures) = report.summary.stage(stage) {
            out.push_str(&line(name, figures));
        }
    }
    let _ = writeln!(out, "Total Host Walltime: {:.6} s", report.summary.seconds);
    out
}

/// One record a chunk, as `trtexec --exportTimes` writes them.
pub fn times_json(chunks: &[Chunk]) -> String {
    let record = |c: &Chunk| {
        json!({
            "startMs": c.at_s * 1e3,
            "endMs": c.at_s * 1e3 + c.total,
            "preprocessMs": c.preprocess,
            "visionMs": c.vision,
            "prefixMs": c.prefix,
            "denoiseMs": c.denoise,
            "overheadMs": c.overhead,
            "latencyMs": c.total,
        })
    };
    let lines: Vec<String> = chunks.iter().map(|c| record(c).to_string()).collect();
    format!("[\n{}\n]\n", lines.join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_like_trtexecs() {
        let figures = Figures::of((1..=1000).map(f64::from)).unwrap();
        let line = line("Latency", &figures);
        assert!(line.starts_with("Latency: min = 1.000000 ms, max = 1000.000000 ms, mean = 500.500000 ms, median = 500.000000 ms, percentile(90%) = 900.000000 ms, percentile(95%) = 950.000000 ms, percentile(99%) = 990.000000 ms"), "{line}");
        assert!(line.ends_with(", n = 1000\n"));
        let few = super::line("Latency", &Figures::of([1.0, 2.0]).unwrap());
        assert_eq!(few, "Latency: min = 1.000000 ms, max = 2.000000 ms, mean = 1.500000 ms, n = 2\n");
    }

    #[test]
    fn records_of_chunks_are_json() {
        let chunk = Chunk {
            at_s: 1.5,
            preprocess: 0.1,
            vision: 1.0,
            prefix: 2.0,
            denoise: 3.0,
            overhead: 0.2,
            total: 6.3,
        };
        let records: serde_json::Value = serde_json::from_str(&times_json(&[chunk, chunk])).unwrap();
        assert_eq!(records.as_array().unwrap().len(), 2);
        assert_eq!((&records[0]["startMs"], &records[0]["latencyMs"]), (&1500.0.into(), &6.3.into()));
    }
}
