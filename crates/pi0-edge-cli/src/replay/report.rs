//! The results of the runs, side by side.

use std::fmt::Write;

use pi0_edge::stats::Summary;
use serde_json::{Map, Value, json};

use super::live::{MILLIONTHS, Outcome};
use super::settings::Settings;
use crate::row;
use crate::table::Table;

/// One run.
pub struct Run {
    /// Its settings.
    pub settings: Settings,
    /// Its results.
    pub outcome: Outcome,
}

/// A histogram of millionths of a robot unit, in robot units.
fn units(summary: &Summary) -> Value {
    let scaled = |v: Option<u64>| v.map(|v| v as f64 / MILLIONTHS);
    json!({
        "n": summary.count, "mean": summary.mean.map(|v| v / MILLIONTHS), "p50": scaled(summary.p50),
        "p90": scaled(summary.p90), "p99": scaled(summary.p99), "max": scaled(summary.max),
    })
}

impl Run {
    /// Everything, for programs. `names` are the joints'.
    pub fn json(&self, names: &[String]) -> Value {
        let Outcome { stats, inference, control, delay, soak, .. } = &self.outcome;
        let joints: Map<_, _> = names.iter().cloned().zip(control.joints.iter().map(|j| json!(j))).collect();
        let (short, over) = (delay.short_ns.snapshot().summary(), delay.over_ns.snapshot().summary());
        json!({
            "latency_ms": self.settings.latency_ms,
            "rtc": self.settings.rtc,
            "seconds": control.seconds,
            "rate_hz": control.reads as f64 / control.seconds,
            "deadline_misses": control.deadline_misses,
            "wake_late_ns": control.late_ns.summary(),
            "underruns": stats.control.underruns,
            "age_ns": stats.control.age_ns,
            "seam_jump": units(&control.seams.summary()),
            "step_between_seams": units(&control.steps.summary()),
            "joints": joints,
            "delay_estimate": {
                "n": short.count + over.count, "short": short.count, "short_ns": short, "over_ns": over,
            },
            "runtime": stats,
            "realtime": {"inference": inference, "control": control.obtained},
            "soak": soak,
        })
    }
}

/// A figure of a summary in other units; a dash where there are too few values to say.
fn figure(value: Option<f64>, digits: usize) -> String {
    // Adding zero takes the sign off a negative one.
    value.map_or("–".into(), |v| format!("{:.digits$}", v + 0.0))
}

/// A table with one column a run, and one of the joints for each run, for people.
pub fn table(runs: &[Run], names: &[String]) -> String {
    let width = runs.iter().map(|run| run.settings.heading().chars().count()).max().unwrap_or(0).max(17) + 2;
    let mut out = String::new();
    let mut row = |name: &str, cells: &dyn Fn(&Run) -> String| {
        let _ = write!(out, "{name:<38}");
        runs.iter().for_each(|run| _ = write!(out, "{:>width$}", cells(run)));
        out.push('\n');
    };
    let ms = |v: Option<u64>| figure(v.map(|ns| ns as f64 / 1e6), 2);
    let us = |v: Option<u64>| figure(v.map(|ns| ns as f64 / 1e3), 1);
    let unit = |v: Option<u64>| figure(v.map(|v| v as f64 / MILLIONTHS), 4);
    row("", &|r| r.settings.heading());
    row("control ticks", &|r| r.outcome.control.reads.to_string());
    row("control rate (Hz)", &|r| {
        format!("{:.2}", r.outcome.control.reads as f64 / r.outcome.control.seconds)
    });
    row("deadline misses (ticks)", &|r| r.outcome.control.deadline_misses.to_string());
    row("woken late p50 (µs)", &|r| us(r.outcome.control.late_ns.summary().p50));
    row("           p99 (µs)", &|r| us(r.outcome.control.late_ns.summary().p99));
    row("           max (µs)", &|r| us(r.outcome.control.late_ns.max()));
    row("ok / stale / hold / empty", &|r| {
        let c = &r.outcome.stats.control;
        format!("{}/{}/{}/{}", c.ok, c.stale, c.hold, c.empty)
    });
    row("underruns", &|r| r.outcome.stats.control.underruns.to_string());
    row("clamped ticks", &|r| r.outcome.stats.control.clamped.to_string());
    row("chunks published", &|r| r.outcome.stats.inference.published.to_string());
    row("       guided", &|r| r.outcome.stats.inference.guided.to_string());
    row("       rejected", &|r| {
        let i = &r.outcome.stats.inference;
        (i.rejected_limits + i.rejected_length + i.rejected_non_finite + i.errors).to_string()
    });
    row("chunk time p50 (ms)", &|r| ms(r.outcome.stats.inference.chunk_ns.p50));
    row("           p99 (ms)", &|r| ms(r.outcome.stats.inference.chunk_ns.p99));
    row("           max (ms)", &|r| ms(r.outcome.stats.inference.chunk_ns.max));
    row("age of the observation p50 (ms)", &|r| ms(r.outcome.stats.control.age_ns.p50));
    row("                       p90 (ms)", &|r| ms(r.outcome.stats.control.age_ns.p90));
    row("                       p99 (ms)", &|r| ms(r.outcome.stats.control.age_ns.p99));
    row("                       max (ms)", &|r| ms(r.outcome.stats.control.age_ns.max));
    row("seam jumps", &|r| r.outcome.control.seams.count().to_string());
    row("seam jump mean (robot units)", &|r| {
        figure(r.outcome.control.seams.mean().map(|v| v / MILLIONTHS), 4)
    });
    row("          p50 (robot units)", &|r| unit(r.outcome.control.seams.summary().p50));
    row("          p90 (robot units)", &|r| unit(r.outcome.control.seams.summary().p90));
    row("          p99 (robot units)", &|r| unit(r.outcome.control.seams.summary().p99));
    row("          max (robot units)", &|r| unit(r.outcome.control.seams.max()));
    row("step between seams p50 (robot units)", &|r| unit(r.outcome.control.steps.summary().p50));
    row("                   p99 (robot units)", &|r| unit(r.outcome.control.steps.summary().p99));
    row("delay estimates", &|r| {
        let d = &r.outcome.delay;
        (d.short_ns.snapshot().count() + d.over_ns.snapshot().count()).to_string()
    });
    row("delay estimate too short (times)", &|r| r.outcome.delay.short_ns.snapshot().count().to_string());
    row("               too short by max (ms)", &|r| ms(r.outcome.delay.short_ns.snapshot().max()));
    row("               too long by p50 (ms)", &|r| ms(r.outcome.delay.over_ns.snapshot().summary().p50));
    row("               too long by max (ms)", &|r| ms(r.outcome.delay.over_ns.snapshot().max()));
    out.push_str("\nA dash: too few values for that percentile.\n");
    for run in runs {
        joints(run, names, &mut out);
        extras(run, &mut out);
    }
    out
}

/// Adds what each joint did.
fn joints(run: &Run, names: &[String], out: &mut String) {
    let rows = names.iter().zip(&run.outcome.control.joints).filter(|(_, j)| j.lowest <= j.highest);
    let rows = rows.map(|(name, j)| {
        let [low, high, step, seam] =
            [j.lowest, j.highest, j.largest_step, j.largest_at_seam].map(|v| format!("{v:.4}"));
        row![name, low, high, step, seam]
    });
    let head = format!("joint, {}", run.settings.heading());
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(head.len()) + 2;
    let table = Table::new(&[&head, "lowest", "highest", "largest step", "largest at seam"]).rows(rows);
    let _ = write!(out, "\n{}", table.text(&[width, 12, 12, 14, 17]));
}

/// Adds what the threads did not get, and the soak.
fn extras(run: &Run, out: &mut String) {
    let Outcome { inference, control, soak, .. } = &run.outcome;
    for (thread, obtained) in [("inference", inference), ("control", &control.obtained)] {
        for missing in &obtained.missing {
            let _ = writeln!(
                out,
                "{}: {thread} thread: no {}: {}",
                run.settings.heading(),
                missing.what,
                missing.why
            );
        }
    }
    let Some(soak) = soak else { return };
    let rows = soak.trends.iter().map(|t| {
        let (slope, error) = (figure(t.slope_per_hour, 2), figure(t.standard_error, 2));
        row![t.name, t.first, t.last, t.min, t.max, slope, error]
    });
    let table = Table::new(&["", "first", "last", "min", "max", "slope / h", "std. error"]).rows(rows);
    let (heading, n, seconds) = (run.settings.heading(), soak.n, soak.seconds);
    let _ = writeln!(out, "\nsoak, {heading}: {n} samples over {seconds:.0} s");
    out.push_str(&table.text(&[18, 12, 12, 12, 12, 14, 14]));
}
