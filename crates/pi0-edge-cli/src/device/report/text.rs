//! The report at a terminal.

use std::fmt::Write;

use super::{Report, ms, some_ms, stage_rows, words};
use crate::table::Table;

/// Writes the report in words and tables.
pub fn render(report: &Report) -> String {
    let (p, s) = (&report.policy, &report.summary);
    let mut out = format!(
        "{}\n{} {}, weights={}, {} cameras, prefix of {} rows, {} steps, {} actions a chunk\n\n",
        report.environment.device(),
        p.kind,
        p.precision,
        p.weights,
        p.cameras,
        p.prefix_len,
        p.num_steps,
        p.action_horizon
    );
    let rows = stage_rows(report).map(|mut row| {
        // A terminal is narrow: without the minimum.
        row.remove(2);
        row
    });
    let head = ["stage", "n", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms"];
    out += &Table::new(&head).rows(rows).text(&[14, 8, 10, 10, 10, 10, 10]);
    out.push('\n');
    // Writing to a string cannot fail, here and below.
    for (name, start) in [("cold start", &s.cold), ("warm start", &s.warm)] {
        let (verify, sessions, first) = (start.verify_s, start.sessions_s, ms(start.first_chunk_ms));
        let read = start.read_bytes.map(|b| format!(", {:.2} GB read from storage", b as f64 / 1e9));
        let read = read.unwrap_or_default();
        _ = writeln!(
            out,
            "{name}: verify {verify:.2} s, sessions {sessions:.2} s, first chunk {first} ms{read}"
        );
    }
    let settling = &s.settling;
    let state = if settling.settled { "settled after" } else { "NOT settled after" };
    let (from, to) = (some_ms(settling.from_ms), some_ms(settling.to_ms));
    _ = writeln!(out, "{state} {:.1} s: {from} to {to} ms", settling.seconds);
    if let Some(idle) = &s.after_idle {
        _ = writeln!(out, "after idleness: {} to {} ms, n = {}", ms(idle.min), ms(idle.max), idle.n);
    }
    if let Some(power) = &s.power {
        let idle = power.idle_w.map(|w| format!(", {w:.2} W idle")).unwrap_or_default();
        let (mean, joule, rails) = (power.mean_w, power.joule_per_chunk, power.rails.join(" + "));
        _ = writeln!(out, "power: {mean:.2} W mean{idle}, {joule:.3} J a chunk ({rails}, n = {})", power.n);
    }
    if let Some(d) = &s.drift {
        let zone = d
            .hottest
            .as_ref()
            .map(|(zone, start, end, most)| format!("; {zone} {start:.1} to {end:.1} °C, {most:.1} at most"));
        let (from, to, zone) = (ms(d.from_ms), ms(d.to_ms), zone.unwrap_or_default());
        let minutes = s.seconds / 60.0;
        _ = writeln!(out, "drift over {minutes:.1} min: {from} to {to} ms, {:+.1} %{zone}", d.percent);
    }
    out.extend(report.jitter.iter().map(|jitter| jitter.cyclictest_line()));
    out + "\n" + &words(report).join("\n") + "\n"
}
