//! Tables to paste: in the form of the PI0 paper's Table I, then by stage.

use std::fmt::Write;

use super::{Report, ms, stage_rows, us, words};
use crate::device::jitter;
use crate::row;
use crate::table::Table;

/// Writes the report in Markdown.
pub fn render(report: &Report) -> String {
    let (p, s) = (&report.policy, &report.summary);
    let device = report.environment.device();
    let policy = format!("{}, {} cameras", p.kind, p.cameras);
    let typical = |stage: &str| s.stage(stage).map_or("–".into(), |f| ms(f.p50.unwrap_or(f.mean)));
    let [vision, prefix, denoise, chunk] =
        ["vision", "prefix", "denoise", "chunk"].map(|stage| format!("{} ms", typical(stage)));
    let denoise = format!("{denoise} (×{})", p.num_steps);
    let n = s.stage("chunk").map_or(0, |f| f.n);
    let mut out = Table::new(&[
        "device",
        "policy",
        "precision",
        "weights",
        "image encoders",
        "observation forward pass",
        "×N action forward pass (flow)",
        "total",
        "n",
    ])
    .rows([row![device, policy, p.precision, p.weights, vision, prefix, denoise, chunk, n]])
    .markdown(4);
    let which = if n >= 20 { "Medians" } else { "Means (too few chunks for a median)" };
    // Writing to a string cannot fail, here and below.
    _ = writeln!(
        out,
        "\n{which}; observations of {} prefix rows. Beside it, the PI0 paper's Table I: RTX 4090, 3 cameras, trained: 14 ms, 32 ms, 27 ms (×10), 73 ms on board.\n",
        p.prefix_len
    );
    let head = ["stage", "n", "min ms", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms"];
    out += &Table::new(&head).rows(stage_rows(report)).markdown(1);
    out.push('\n');
    let rows = [("cold", &s.cold), ("warm", &s.warm)].map(|(name, start)| {
        let (verify, sessions) = (format!("{:.2}", start.verify_s), format!("{:.2}", start.sessions_s));
        let read = start.read_bytes.map_or("–".into(), |b| format!("{:.2} GB", b as f64 / 1e9));
        row![name, verify, sessions, ms(start.first_chunk_ms), read]
    });
    let head = ["start", "verify s", "sessions s", "first chunk ms", "read from storage"];
    out += &Table::new(&head).rows(rows).markdown(1);
    if let Some(idle) = &s.after_idle {
        _ = writeln!(out, "\nAfter idleness: {} ms at most (n = {}).", ms(idle.max), idle.n);
    }
    if let Some(power) = &s.power {
        let (mean, joule, rails) = (power.mean_w, power.joule_per_chunk, power.rails.join(" + "));
        let n = power.n;
        _ = writeln!(out, "\nPower: {mean:.1} W mean, {joule:.2} J a chunk ({rails}; n = {n} readings).");
    }
    if let Some(jitter) = &report.jitter {
        let rows = jitter::rows(jitter).into_iter().map(|(name, s)| {
            let [p50, p99, p99_9, max] = [s.p50, s.p99, s.p99_9, s.max].map(us);
            row![name, s.count, p50, p99, p99_9, max]
        });
        let head = ["control loop, µs", "n", "p50", "p99", "p99.9", "max"];
        _ = write!(out, "\n{}", Table::new(&head).rows(rows).markdown(1));
    }
    _ = writeln!(out, "\n{}\n", words(report).join("\n"));
    _ = writeln!(out, "Environment {} ({}):\n", &report.environment.sha256[..12], report.when);
    for (block, lines) in &report.environment.blocks {
        out.extend(lines.iter().map(|(name, value)| format!("- {block}: {name}: {value}\n")));
    }
    out
}
