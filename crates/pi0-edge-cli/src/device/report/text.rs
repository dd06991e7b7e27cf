//! The report at a terminal.

use std::fmt::Write;

use super::{Report, ms, some_ms, words};

pub fn render(report: &Report) -> String {
    let (p, s) = (&report.policy, &report.summary);
    let mut out = String::new();
    let _ = writeln!(out, "{}", report.environment.device());
    let _ = writeln!(
        out,
        "{} {}, weights={}, {} cameras, prefix of {} rows, {} steps, {} actions a chunk\n",
        p.kind,
        p.precision,
        p.weights(),
        p.cameras,
        p.prefix_len,
        p.num_steps,
        p.action_horizon
    );
    let _ = writeln!(
        out,
        "{:<14}{:>8}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "stage", "n", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms"
    );
    for stage in &s.stages {
        let f = &stage.figures;
        let _ = writeln!(
            out,
            "{:<14}{:>8}{:>10}{:>10}{:>10}{:>10}{:>10}",
            stage.name,
            f.n,
            some_ms(f.p50),
            some_ms(f.p90),
            some_ms(f.p99),
            some_ms(f.p99_9),
            ms(f.max)
        );
    }
    out.push('\n');
    for (name, start) in [("cold start", &s.cold), ("warm start", &s.warm)] {
        let read = start.read_bytes.map(|b| format!(", {:.2} GB read from storage", b as f64 / 1e9));
        let _ = writeln!(
            out,
            "{name}: verify {:.2} s, sessions {:.2} s, first chunk {} ms{}",
            start.verify_s,
            start.sessions_s,
            ms(start.first_chunk_ms),
            read.unwrap_or_default()
        );
    }
    let settling = &s.settling;
    let state = if settling.settled { "settled after" } else { "NOT settled after" };
    let _ = writeln!(
        out,
        "{state} {:.1} s: {} to {} ms",
        settling.seconds,
        some_ms(settling.from_ms),
        some_ms(settling.to_ms)
    );
    if let Some(idle) = &s.after_idle {
        let _ = writeln!(out, "after idleness: {} to {} ms, n = {}", ms(idle.min), ms(idle.max), idle.n);
    }
    if let Some(power) = &s.power {
        let idle = power.idle_w.map(|w| format!(", {w:.2} W idle")).unwrap_or_default();
        let _ = writeln!(
            out,
            "power: {:.2} W mean{idle}, {:.3} J a chunk ({}, n = {})",
            power.mean_w,
            power.joule_per_chunk,
            power.rails.join(" + "),
            power.n
        );
    }
    if let Some(drift) = &s.drift {
        let _ = write!(
            out,
            "drift over {:.1} min: {} to {} ms, {:+.1} %",
            s.seconds / 60.0,
            ms(drift.from_ms),
            ms(drift.to_ms),
            drift.percent
        );
        if let Some((zone, start, end, most)) = &drift.hottest {
            let _ = write!(out, "; {zone} {start:.1} to {end:.1} °C, {most:.1} at most");
        }
        out.push('\n');
    }
    if let Some(jitter) = &report.jitter {
        out.push_str(&jitter.line);
    }
    out.push('\n');
    for words in words(report) {
        let _ = writeln!(out, "{words}");
    }
    out
}
