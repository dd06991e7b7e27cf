//! The report as one page: no script, nothing from the net, light and dark as the reader's system has it.

use pi0_edge::runtime::Status;

use super::{Report, caveats, ms, plots, some_ms, stage_rows, us};
use crate::device::jitter;
use crate::output::escape;
use crate::row;
use crate::table::Table;

const STYLE: &str = include_str!("style.css");

/// Draws the page.
pub fn render(report: &Report) -> String {
    let p = &report.policy;
    let title = escape(&format!("{} {} on {}", p.kind, p.precision, report.environment.device()));
    let sections = [
        format!(
            "<h1>{title}</h1>\n<p class=\"soft\">weights={} · {} cameras, prefix of {} rows · {} steps · {} actions \
             a chunk · {}</p>\n",
            p.weights, p.cameras, p.prefix_len, p.num_steps, p.action_horizon, report.when
        ),
        verdict(report),
        stages(report),
        starts(report),
        rates(report),
        control_loop(report),
        format!("<h2>Plots</h2>\n{}", plots::all(report)),
        environment(report),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>{title}</title>\n<style>\n{STYLE}</style></head><body>\
         \n{}</body></html>\n",
        sections.concat()
    )
}

/// A paragraph of a class of the style sheet.
fn paragraph(class: &str, text: &str) -> String {
    format!("<p class=\"{class}\">{}</p>\n", escape(text))
}

/// A heading with a sentence under it.
fn heading(title: &str, text: &str) -> String {
    format!("<h2>{title}</h2>{}", paragraph("soft", text))
}

fn verdict(report: &Report) -> String {
    let words = report.verdict.words.iter().cloned().chain(report.jitter.iter().flat_map(jitter::words));
    let words: String = words.map(|words| paragraph("", &words)).collect();
    let caveats: String = caveats(report).iter().map(|caveat| paragraph("warn", caveat)).collect();
    format!("<div class=\"verdict\">{words}</div>\n{caveats}")
}

fn stages(report: &Report) -> String {
    let minutes = report.summary.seconds / 60.0;
    let text = format!(
        "Steady run of {minutes:.1} minutes, in ms. A percentile is shown where at least ten values are expected \
         beyond it."
    );
    let rows = stage_rows(report).map(|mut row| {
        row[0] = row[0].replace('_', " ");
        row
    });
    let head = ["stage", "n", "min", "p50", "p90", "p99", "p99.9", "max"];
    heading("Where the time goes", &text) + &Table::new(&head).rows(rows).html("")
}

fn starts(report: &Report) -> String {
    let s = &report.summary;
    let rows = [("cold start", &s.cold), ("warm start", &s.warm)].map(|(name, start)| {
        let (verify, sessions) = (format!("{:.2}", start.verify_s), format!("{:.2}", start.sessions_s));
        let read = start.read_bytes.map_or("–".into(), |b| format!("{:.2}", b as f64 / 1e9));
        row![name, verify, sessions, ms(start.first_chunk_ms), read]
    });
    let head = ["", "verify s", "sessions s", "first chunk ms", "from storage GB"];
    let mut out = "<h2>Starts, idleness, drift</h2>".to_owned() + &Table::new(&head).rows(rows).html("");
    let (settling, state) = (&s.settling, if s.settling.settled { "Settled" } else { "Not settled" });
    out += &paragraph(
        "",
        &format!(
            "{state} after {:.1} s ({} chunks): from {} to {} ms.",
            settling.seconds,
            settling.chunks,
            some_ms(settling.from_ms),
            some_ms(settling.to_ms)
        ),
    );
    if let Some(idle) = &s.after_idle {
        let (min, max) = (ms(idle.min), ms(idle.max));
        out += &paragraph("", &format!("After idleness: {min} to {max} ms (n = {}).", idle.n));
    }
    if let Some(d) = &s.drift {
        let zone = d.hottest.as_ref().map(|(zone, start, end, most)| {
            format!("; {zone} from {start:.1} to {end:.1} °C, {most:.1} °C at most")
        });
        let (from, to, zone) = (ms(d.from_ms), ms(d.to_ms), zone.unwrap_or_default());
        out += &paragraph("", &format!("Over the steady run: {from} to {to} ms, {:+.1} %{zone}.", d.percent));
    }
    if let Some(power) = &s.power {
        let idle = power.idle_w.map(|w| format!(", {w:.1} W while idle")).unwrap_or_default();
        let (mean, joule, rails) = (power.mean_w, power.joule_per_chunk, power.rails.join(" + "));
        let readings = format!("({rails}, n = {} readings)", power.n);
        out += &paragraph("", &format!("Power: {mean:.1} W mean{idle}; {joule:.2} J a chunk {readings}."));
    }
    out
}

fn rates(report: &Report) -> String {
    let v = &report.verdict;
    let (latency, is, horizon) = (ms(v.latency_ms), v.latency_is, v.action_horizon);
    let text = format!("From a latency of {latency} ms ({is}) and {horizon} actions a chunk.");
    let rows = v.rates.iter().map(|r| row![format!("{} Hz", r.hz), r.inference_delay, r.mode.words()]);
    let table = Table::new(&["action rate", "delay in rows", "how it runs"]).rows(rows);
    heading("Action rates", &text) + &table.html("words")
}

fn control_loop(report: &Report) -> String {
    let Some(jitter) = &report.jitter else { return String::new() };
    let (reads, late) = (jitter.ticks.count, jitter.ticks.late);
    let statuses = Status::ALL.iter().zip(jitter.ticks.statuses).filter(|(_, n)| *n > 0);
    let statuses: Vec<_> = statuses.map(|(status, n)| format!("{} {n}", status.as_str())).collect();
    let statuses = statuses.join(", ");
    let text = format!("{reads} reads at 1 kHz on a fixed schedule, in µs. {late} late. Status: {statuses}.");
    let rows = jitter::rows(jitter).into_iter().map(|(name, s)| {
        let [min, p50, p99, p99_9, p99_99, max] = [s.min, s.p50, s.p99, s.p99_9, s.p99_99, s.max].map(us);
        row![name, s.count, min, p50, p99, p99_9, p99_99, max]
    });
    let table = Table::new(&["", "n", "min", "p50", "p99", "p99.9", "p99.99", "max"]).rows(rows);
    heading("Control loop beside inference", &text) + &table.html("") + &plots::wake_ups(report)
}

fn environment(report: &Report) -> String {
    let e = &report.environment;
    let text = format!("Compare only with reports of the same environment: {}", &e.sha256[..12]);
    let mut out = heading("Environment", &text);
    out.extend(e.findings.iter().map(|finding| paragraph("warn", finding)));
    for (block, lines) in &e.blocks {
        let row = |(name, value): &(String, String)| {
            format!("<tr><td>{}</td><td>{}</td></tr>", escape(name), escape(value))
        };
        let rows: String = lines.iter().map(row).collect();
        out += &format!("<h3>{}</h3><table class=\"facts\">{rows}</table>\n", escape(block));
    }
    out
}
