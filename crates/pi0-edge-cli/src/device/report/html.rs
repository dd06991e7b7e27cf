//! The report as one page: no script, nothing from the net, light and dark as the reader's system has it.

use std::fmt::Write;

use super::plot::{Curve, Histogram, Plot};
use super::{Report, caveats, ms, some_ms, us};
use crate::output::escape;

const STYLE: &str = include_str!("style.css");

pub fn render(report: &Report) -> String {
    let p = &report.policy;
    let title = format!("{} {} on {}", p.kind, p.precision, report.environment.device());
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>{0}</title>\n<style>\n{STYLE}</style></head><body>\n\
         <h1>{0}</h1>\n<p class=\"soft\">weights={1} · {2} cameras, prefix of {3} rows · {4} steps · {5} actions a \
         chunk · {6}</p>\n",
        escape(&title),
        p.weights(),
        p.cameras,
        p.prefix_len,
        p.num_steps,
        p.action_horizon,
        report.when
    );
    verdict(&mut out, report);
    stages(&mut out, report);
    starts(&mut out, report);
    rates(&mut out, report);
    control_loop(&mut out, report);
    plots(&mut out, report);
    environment(&mut out, report);
    out.push_str("</body></html>\n");
    out
}

fn verdict(out: &mut String, report: &Report) {
    out.push_str("<div class=\"verdict\">");
    for words in report.verdict.words.iter().cloned().chain(report.jitter.iter().flat_map(|j| j.words())) {
        let _ = write!(out, "<p>{}</p>", escape(&words));
    }
    out.push_str("</div>\n");
    for caveat in caveats(report) {
        let _ = writeln!(out, "<p class=\"warn\">{}</p>", escape(&caveat));
    }
}

/// A table in a frame of its own that scrolls where the page is narrow.
fn table(out: &mut String, class: &str, head: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let cells = |tag: &str, cells: &mut dyn Iterator<Item = String>| -> String {
        cells.map(|c| format!("<{tag}>{}</{tag}>", escape(&c))).collect()
    };
    let _ = write!(
        out,
        "<div class=\"wide\"><table class=\"{class}\"><tr>{}</tr>",
        cells("th", &mut head.iter().map(|h| h.to_string()))
    );
    for row in rows {
        let _ = write!(out, "<tr>{}</tr>", cells("td", &mut row.into_iter()));
    }
    out.push_str("</table></div>\n");
}

fn stages(out: &mut String, report: &Report) {
    let _ = write!(
        out,
        "<h2>Where the time goes</h2><p class=\"soft\">Steady run of {:.1} minutes, in ms. A percentile \
        is shown where at least ten values are expected beyond it.</p>",
        report.summary.seconds / 60.0
    );
    let rows = report.summary.stages.iter().map(|s| {
        let f = &s.figures;
        vec![
            s.name.replace('_', " "),
            f.n.to_string(),
            ms(f.min),
            some_ms(f.p50),
            some_ms(f.p90),
            some_ms(f.p99),
            some_ms(f.p99_9),
            ms(f.max),
        ]
    });
    table(out, "", &["stage", "n", "min", "p50", "p90", "p99", "p99.9", "max"], rows);
}

fn starts(out: &mut String, report: &Report) {
    let s = &report.summary;
    out.push_str("<h2>Starts, idleness, drift</h2>");
    let rows = [("cold start", &s.cold), ("warm start", &s.warm)].into_iter().map(|(name, start)| {
        vec![
            name.into(),
            format!("{:.2}", start.verify_s),
            format!("{:.2}", start.sessions_s),
            ms(start.first_chunk_ms),
            start.read_bytes.map_or("–".into(), |b| format!("{:.2}", b as f64 / 1e9)),
        ]
    });
    table(out, "", &["", "verify s", "sessions s", "first chunk ms", "from storage GB"], rows);
    let settling = &s.settling;
    let _ = write!(
        out,
        "<p>{} after {:.1} s ({} chunks): from {} to {} ms.</p>",
        if settling.settled { "Settled" } else { "Not settled" },
        settling.seconds,
        settling.chunks,
        some_ms(settling.from_ms),
        some_ms(settling.to_ms)
    );
    if let Some(idle) = &s.after_idle {
        let _ =
            write!(out, "<p>After idleness: {} to {} ms (n = {}).</p>", ms(idle.min), ms(idle.max), idle.n);
    }
    if let Some(d) = &s.drift {
        let _ = write!(
            out,
            "<p>Over the steady run: {} to {} ms, {:+.1} %",
            ms(d.from_ms),
            ms(d.to_ms),
            d.percent
        );
        if let Some((zone, start, end, most)) = &d.hottest {
            let _ = write!(out, "; {} from {start:.1} to {end:.1} °C, {most:.1} °C at most", escape(zone));
        }
        out.push_str(".</p>");
    }
    if let Some(power) = &s.power {
        let idle = power.idle_w.map(|w| format!(", {w:.1} W while idle")).unwrap_or_default();
        let _ = writeln!(
            out,
            "<p>Power: {:.1} W mean{idle}; {:.2} J a chunk ({}, n = {} readings).</p>",
            power.mean_w,
            power.joule_per_chunk,
            escape(&power.rails.join(" + ")),
            power.n
        );
    }
}

fn rates(out: &mut String, report: &Report) {
    let v = &report.verdict;
    let _ = write!(
        out,
        "<h2>Control rates</h2><p class=\"soft\">From a latency of {} ms ({}) and {} actions a chunk.</p>",
        ms(v.latency_ms),
        v.latency_is,
        v.action_horizon
    );
    let rows = v
        .rates
        .iter()
        .map(|r| vec![format!("{} Hz", r.hz), r.inference_delay.to_string(), r.mode.words().to_owned()]);
    table(out, "words", &["control rate", "delay in ticks", "how it runs"], rows);
}

fn control_loop(out: &mut String, report: &Report) {
    let Some(jitter) = &report.jitter else { return };
    let statuses: Vec<_> = jitter.statuses.iter().map(|(status, n)| format!("{status} {n}")).collect();
    let _ = write!(
        out,
        "<h2>Control loop beside inference</h2><p class=\"soft\">{} reads at 1 kHz on a fixed schedule, in µs. {} \
         late. Status: {}.</p>",
        jitter.reads,
        jitter.late,
        statuses.join(", ")
    );
    let rows = jitter.rows.iter().map(|(name, s)| {
        let figures = [s.min, s.p50, s.p99, s.p99_9, s.p99_99, s.max].map(us);
        [vec![(*name).to_owned(), s.count.to_string()], figures.to_vec()].concat()
    });
    table(out, "", &["", "n", "min", "p50", "p99", "p99.9", "p99.99", "max"], rows);
    let histogram = Histogram {
        title: match jitter.later {
            0 => "Wake-ups by their lateness".into(),
            n => format!("Wake-ups by their lateness, and {n} beyond"),
        },
        x_label: "µs",
        y_label: "wake-ups",
        values: jitter.wake_us.clone(),
        marks: Vec::new(),
    };
    out.push_str(&histogram.html());
}

fn plots(out: &mut String, report: &Report) {
    let chunks = &report.chunks;
    let marks = report.summary.stage("chunk").map(|f| {
        [("p50", f.p50), ("p99", f.p99), ("p99.9", f.p99_9)]
            .into_iter()
            .filter_map(|(name, v)| v.map(|v| (format!("{name} {} ms", ms(v)), v)))
            .collect()
    });
    out.push_str("<h2>Plots</h2>\n");
    let histogram = Histogram {
        title: format!("Latency of {} chunks", chunks.len()),
        x_label: "ms",
        y_label: "chunks",
        values: chunks.iter().map(|c| (c.total, 1)).collect(),
        marks: marks.unwrap_or_default(),
    };
    out.push_str(&histogram.html());
    let latency = Plot {
        title: "Latency over time".into(),
        x_label: "seconds since the bench began",
        y_label: "ms",
        curves: vec![Curve {
            name: "chunk".into(),
            points: chunks.iter().map(|c| (c.at_s, c.total)).collect(),
        }],
        from_zero: false,
    };
    out.push_str(&latency.html());
    let rows = &report.series.rows;
    let names = &report.series.names;
    let sensor =
        |title: &str, y_label, from_zero, names: &[String], value: &dyn Fn(usize, usize) -> Option<f64>| {
            Plot {
                title: title.into(),
                x_label: "seconds since the bench began",
                y_label,
                curves: names
                    .iter()
                    .enumerate()
                    .map(|(i, name)| Curve {
                        name: name.clone(),
                        points: (0..rows.len()).filter_map(|r| Some((rows[r].0, value(i, r)?))).collect(),
                    })
                    .filter(|c| !c.points.is_empty())
                    .take(8)
                    .collect(),
                from_zero,
            }
        };
    let mut rails = names.rails.clone();
    let total = names.total.len() > 1;
    if total {
        rails.insert(0, "total".into());
    }
    let power = sensor("Power", "W", true, &rails, &|i, r| match (total, i) {
        (true, 0) => rows[r].1.total,
        (true, i) => rows[r].1.rails[i - 1],
        (false, i) => rows[r].1.rails[i],
    });
    out.push_str(&power.html());
    out.push_str(&sensor("Temperature", "°C", false, &names.zones, &|i, r| rows[r].1.zones[i]).html());
    out.push_str(
        &sensor("Clocks", "MHz", true, &names.clocks, &|i, r| rows[r].1.clocks[i].map(|hz| hz / 1e6)).html(),
    );
}

fn environment(out: &mut String, report: &Report) {
    let e = &report.environment;
    let _ = write!(
        out,
        "<h2>Environment</h2><p class=\"soft\">Compare only with reports of the same environment: {}</p>",
        &e.sha256[..12]
    );
    for finding in &e.findings {
        let _ = write!(out, "<p class=\"warn\">{}</p>", escape(finding));
    }
    for (block, lines) in &e.blocks {
        let _ = write!(out, "<h3>{}</h3><table class=\"facts\">", escape(block));
        for (name, value) in lines {
            let _ = write!(out, "<tr><td>{}</td><td>{}</td></tr>", escape(name), escape(value));
        }
        out.push_str("</table>\n");
    }
}
