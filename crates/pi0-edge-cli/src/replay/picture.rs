//! A picture of the executed trajectory: one panel a joint, with the seams between chunks marked.

use std::fmt::Write;

use pi0_edge::runtime::{Flags, Status};

use super::report::Run;
use super::trace::Trace;
use crate::axis::marks;
use crate::output::escape;

const WIDTH: f64 = 1000.0;
/// Left of the panels, for the names and values.
const LEFT: f64 = 120.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 76.0;
const PANEL: f64 = 96.0;
const GAP: f64 = 14.0;
const BOTTOM: f64 = 44.0;
/// Without RTC, and with it: distinguishable in print and without red and green.
const COLOURS: [&str; 2] = ["#7a7a7a", "#1565c0"];
/// Columns that ticks are gathered in where there are more of them: each keeps its lowest and its highest value.
const COLUMNS: usize = 1720;

/// Draws the runs over each other as an SVG document.
pub fn draw(runs: &[Run], joints: &[String]) -> String {
    let drawn: Vec<(&Run, &Trace)> =
        runs.iter().filter_map(|run| Some((run, run.outcome.trace.as_ref()?))).collect();
    let end = drawn.iter().map(|(_, trace)| seconds(trace, trace.ticks.len())).fold(0.0, f64::max).max(1e-3);
    let height = TOP + joints.len() as f64 * (PANEL + GAP) - GAP + BOTTOM;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    legend(&mut out, &drawn);
    let x = |t: f64| LEFT + t / end * (WIDTH - LEFT - RIGHT);
    for (joint, name) in joints.iter().enumerate() {
        let top = TOP + joint as f64 * (PANEL + GAP);
        panel(&mut out, &drawn, joint, name, top, &x);
        let bottom = top + PANEL;
        for t in marks(0.0, end, 10) {
            let _ =
                writeln!(out, "<path d=\"M{0:.1} {1:.1}v4\" stroke=\"#888\" fill=\"none\"/>", x(t), bottom);
            if joint + 1 == joints.len() {
                let (x, y) = (x(t), bottom + 18.0);
                let _ = writeln!(
                    out,
                    "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{}</text>",
                    plain(t)
                );
            }
        }
    }
    let (x, y) = ((LEFT + WIDTH - RIGHT) / 2.0, height - 8.0);
    let _ = writeln!(out, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">time (s)</text>");
    let (x, y) = (14.0, (TOP + height - BOTTOM) / 2.0);
    let _ = writeln!(
        out,
        "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\" transform=\"rotate(-90 {x} {y})\">action (robot units)</text>"
    );
    out.push_str("</svg>\n");
    out
}

/// Seconds from the first tick to tick `index`, or to the last.
fn seconds(trace: &Trace, index: usize) -> f64 {
    let (Some(first), Some(last)) = (trace.ticks.first(), trace.ticks.last()) else { return 0.0 };
    trace.ticks.get(index).unwrap_or(last).now.since(first.now) as f64 / 1e9
}

fn legend(out: &mut String, drawn: &[(&Run, &Trace)]) {
    let rate = drawn.first().map_or(0.0, |(run, _)| run.settings.rate_hz);
    let latency = drawn.first().map_or(0.0, |(run, _)| run.settings.latency_ms);
    let added = if latency > 0.0 { format!(", {latency} ms of latency added") } else { String::new() };
    let _ = writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"24\" font-size=\"15\" font-weight=\"bold\">Executed actions at {rate} Hz{added}</text>"
    );
    let mut x = LEFT;
    let mut item = |mark: String, text: &str| {
        let _ = writeln!(
            out,
            "<g transform=\"translate({x} 48)\">{mark}<text x=\"30\" y=\"4\">{text}</text></g>"
        );
        x += 44.0 + text.chars().count() as f64 * 6.4;
    };
    for (run, _) in drawn {
        let (colour, rtc) = style(run);
        let seams = run.outcome.control.seams.count();
        item(
            format!("<path d=\"M0 0h24\" stroke=\"{colour}\" stroke-width=\"2\"/>"),
            &format!("{rtc}, {seams} seams"),
        );
    }
    item(
        "<circle cx=\"12\" r=\"3\" fill=\"#fff\" stroke=\"#222\"/>".into(),
        "seam: first action of a new chunk",
    );
    item(
        "<rect y=\"-7\" width=\"24\" height=\"14\" fill=\"#f6d8c8\"/>".into(),
        "held, or nothing to follow yet",
    );
}

fn style(run: &Run) -> (&'static str, &'static str) {
    match run.settings.rtc {
        None => (COLOURS[0], "without RTC"),
        Some(_) => (COLOURS[1], "with RTC"),
    }
}

fn panel(
    out: &mut String,
    drawn: &[(&Run, &Trace)],
    joint: usize,
    name: &str,
    top: f64,
    x: &dyn Fn(f64) -> f64,
) {
    let values =
        || drawn.iter().flat_map(|(_, t)| (0..t.ticks.len()).filter_map(|i| Some(t.action(i)?[joint])));
    let low = f64::from(values().fold(f32::INFINITY, f32::min));
    let high = f64::from(values().fold(f32::NEG_INFINITY, f32::max));
    let (low, high) = if low <= high { (low, high) } else { (0.0, 0.0) };
    let room = ((high - low) * 0.08).max(1e-3);
    let (low, high) = (low - room, high + room);
    let y = |v: f64| top + (high - v) / (high - low) * PANEL;
    for (i, (_, trace)) in drawn.iter().enumerate() {
        // Each run has its own share of the height for the times it held.
        let (share, offset) = (PANEL / drawn.len() as f64, i as f64 * PANEL / drawn.len() as f64);
        for (from, to) in held(trace) {
            let (a, b) = (x(seconds(trace, from)), x(seconds(trace, to)));
            let _ = writeln!(
                out,
                "<rect x=\"{a:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{share:.1}\" fill=\"#f6d8c8\"/>",
                top + offset,
                (b - a).max(0.5)
            );
        }
    }
    let _ = writeln!(
        out,
        "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{}\" height=\"{PANEL}\" fill=\"none\" stroke=\"#bbb\"/>\n\
         <text x=\"28\" y=\"{:.1}\" font-size=\"11\">{}</text>",
        WIDTH - LEFT - RIGHT,
        top + PANEL / 2.0 - 26.0,
        escape(name)
    );
    for v in marks(low, high, 4) {
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {0:.1}h{1}\" stroke=\"#e6e6e6\"/><text x=\"{2}\" y=\"{3:.1}\" font-size=\"10\" \
             text-anchor=\"end\">{4}</text>",
            y(v),
            WIDTH - LEFT - RIGHT,
            LEFT - 6.0,
            y(v) + 3.5,
            plain(v)
        );
    }
    for (run, trace) in drawn {
        let (colour, _) = style(run);
        let mut path = String::new();
        for i in outline(trace, joint) {
            if let Some(action) = trace.action(i) {
                let command = if path.is_empty() { 'M' } else { 'L' };
                let _ =
                    write!(path, "{command}{:.1} {:.1}", x(seconds(trace, i)), y(f64::from(action[joint])));
            }
        }
        let _ = writeln!(out, "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.3\"/>");
        for i in seams(trace) {
            if let Some(action) = trace.action(i) {
                let (x, y) = (x(seconds(trace, i)), y(f64::from(action[joint])));
                let _ = writeln!(
                    out,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\" fill=\"#fff\" stroke=\"{colour}\"/>"
                );
            }
        }
    }
}

/// The ticks that a line through a joint's actions needs: all of them, or the extremes of each column.
fn outline(trace: &Trace, joint: usize) -> Vec<usize> {
    let n = trace.ticks.len();
    if n <= 2 * COLUMNS {
        return (0..n).collect();
    }
    let value = |i: &usize| trace.action(*i).map_or(f32::NAN, |action| action[joint]);
    let mut kept: Vec<usize> = (0..COLUMNS)
        .flat_map(|column| {
            let ticks = column * n / COLUMNS..(column + 1) * n / COLUMNS;
            let low = ticks.clone().min_by(|a, b| value(a).total_cmp(&value(b)));
            let high = ticks.max_by(|a, b| value(a).total_cmp(&value(b)));
            low.into_iter().chain(high)
        })
        .collect();
    kept.sort_unstable();
    kept.dedup();
    kept
}

/// The ticks at which a chunk took over from another.
fn seams(trace: &Trace) -> impl Iterator<Item = usize> + '_ {
    let joins = |i: &usize| {
        let reading = &trace.ticks[*i].reading;
        trace.ticks[*i - 1].known
            && reading.status != Status::Hold
            && (reading.flags.contains(Flags::NEW_CHUNK) || reading.seam_jump > 0.0)
    };
    (1..trace.ticks.len()).filter(joins)
}

/// The stretches in which the robot had nothing to follow: from one tick to another.
fn held(trace: &Trace) -> Vec<(usize, usize)> {
    let still = |i: usize| matches!(trace.ticks[i].reading.status, Status::Hold | Status::Empty);
    let mut stretches: Vec<(usize, usize)> = Vec::new();
    for i in (0..trace.ticks.len()).filter(|&i| still(i)) {
        match stretches.last_mut() {
            Some((_, to)) if *to == i => *to = i + 1,
            _ => stretches.push((i, i + 1)),
        }
    }
    stretches
}

/// A number without the noise of binary fractions.
fn plain(v: f64) -> String {
    let text = format!("{v:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_the_document() {
        assert_eq!(escape("a<b & c"), "a&lt;b &amp; c");
    }
}
