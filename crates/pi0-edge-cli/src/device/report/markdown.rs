//! Tables to paste: in the form of the PI0 paper's Table I, then by stage.

use std::fmt::Write;

use super::{Report, ms, some_ms, words};

pub fn render(report: &Report) -> String {
    let (p, s) = (&report.policy, &report.summary);
    let mut out = String::from(
        "| device | policy | precision | weights | image encoders | observation forward pass | ×N action forward pass (flow) | total | n |\n|---|---|---|---|--:|--:|--:|--:|--:|\n",
    );
    let typical = |stage: &str| s.stage(stage).map_or("–".into(), |f| ms(f.p50.unwrap_or(f.mean)));
    let n = s.stage("chunk").map_or(0, |f| f.n);
    let _ = writeln!(
        out,
        "| {} | {}, {} cameras | {} | {} | {} ms | {} ms | {} ms (×{}) | {} ms | {n} |",
        report.environment.device(),
        p.kind,
        p.cameras,
        p.precision,
        p.weights(),
        typical("vision"),
        typical("prefix"),
        typical("denoise"),
        p.num_steps,
        typical("chunk"),
    );
    let which = if n >= 20 { "Medians" } else { "Means (too few chunks for a median)" };
    let _ = writeln!(
        out,
        "\n{which}; observations of {} prefix rows. Beside it, the PI0 paper's Table I: RTX 4090, 3 cameras, trained: 14 ms, 32 ms, 27 ms (×10), 73 ms on board.\n",
        p.prefix_len
    );
    out.push_str("| stage | n | min ms | p50 ms | p90 ms | p99 ms | p99.9 ms | max ms |\n|---|--:|--:|--:|--:|--:|--:|--:|\n");
    for stage in &s.stages {
        let f = &stage.figures;
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            stage.name,
            f.n,
            ms(f.min),
            some_ms(f.p50),
            some_ms(f.p90),
            some_ms(f.p99),
            some_ms(f.p99_9),
            ms(f.max)
        );
    }
    out.push_str(
        "\n| start | verify s | sessions s | first chunk ms | read from storage |\n|---|--:|--:|--:|--:|\n",
    );
    for (name, start) in [("cold", &s.cold), ("warm", &s.warm)] {
        let read = start.read_bytes.map_or("–".into(), |b| format!("{:.2} GB", b as f64 / 1e9));
        let _ = writeln!(
            out,
            "| {name} | {:.2} | {:.2} | {} | {read} |",
            start.verify_s,
            start.sessions_s,
            ms(start.first_chunk_ms)
        );
    }
    if let Some(idle) = &s.after_idle {
        let _ = writeln!(out, "\nAfter idleness: {} ms at most (n = {}).", ms(idle.max), idle.n);
    }
    if let Some(power) = &s.power {
        let _ = writeln!(
            out,
            "\nPower: {:.1} W mean, {:.2} J a chunk ({}; n = {} readings).",
            power.mean_w,
            power.joule_per_chunk,
            power.rails.join(" + "),
            power.n
        );
    }
    if let Some(jitter) = &report.jitter {
        out.push_str("\n| control loop, µs | n | p50 | p99 | p99.9 | max |\n|---|--:|--:|--:|--:|--:|\n");
        for (name, s) in &jitter.rows {
            let values = [s.p50, s.p99, s.p99_9, s.max].map(super::us);
            let _ = writeln!(out, "| {name} | {} | {} |", s.count, values.join(" | "));
        }
    }
    out.push('\n');
    for words in words(report) {
        let _ = writeln!(out, "{words}");
    }
    let _ = writeln!(out, "\nEnvironment {} ({}):\n", &report.environment.sha256[..12], report.when);
    for (block, lines) in &report.environment.blocks {
        for (name, value) in lines {
            let _ = writeln!(out, "- {block}: {name}: {value}");
        }
    }
    out
}
