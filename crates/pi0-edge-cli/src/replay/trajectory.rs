//! The executed trajectory as a drawing: one chart a joint, with the seams between chunks marked.

use pi0_edge::runtime::{Flags, Status};

use super::report::Run;
use super::trace::Trace;
use crate::draw::{self, Axis, Chart, Key, Mark, Point, plain};

/// Draws the runs over each other as an SVG document.
pub fn draw(runs: &[Run], joints: &[String]) -> String {
    let traced = runs.iter().filter_map(|run| Some((run, run.outcome.trace.as_ref()?)));
    let drawn: Vec<(&Run, &Trace)> = traced.collect();
    let settings = drawn.first().map(|(run, _)| &run.settings);
    let rate = settings.map_or(0.0, |s| s.rate_hz);
    let added = settings.map_or(0.0, |s| s.latency_ms);
    let added = if added > 0.0 { format!(", {added} ms of latency added") } else { String::new() };
    let end = drawn.iter().map(|(_, trace)| seconds(trace, trace.ticks.len())).fold(1e-3, f64::max);
    let mut legend: Vec<_> = drawn.iter().map(|(run, _)| (Key::Line(style(run).0), words(run))).collect();
    legend.push((Key::Ring, "seam: first action of a new chunk".into()));
    legend.push((Key::Area(1), "held, or nothing to follow yet".into()));
    let charts: Vec<_> =
        joints.iter().enumerate().map(|(joint, name)| (name.as_str(), chart(&drawn, joint, end))).collect();
    draw::document(&format!("Executed actions at {rate} Hz{added}, in robot units"), &legend, &charts)
}

fn words(run: &Run) -> String {
    format!("{}, {} seams", style(run).1, run.outcome.control.seams.count())
}

/// The number of a run's colour, and its name.
fn style(run: &Run) -> (usize, &'static str) {
    match run.settings.rtc {
        None => (5, "without RTC"),
        Some(_) => (0, "with RTC"),
    }
}

/// Seconds from the first tick to tick `index`, or to the last.
fn seconds(trace: &Trace, index: usize) -> f64 {
    let (Some(first), Some(last)) = (trace.ticks.first(), trace.ticks.last()) else { return 0.0 };
    trace.ticks.get(index).unwrap_or(last).now.since(first.now) as f64 / 1e9
}

fn chart(drawn: &[(&Run, &Trace)], joint: usize, end: f64) -> Chart<'static> {
    let point = |trace: &Trace, i: usize| -> Option<Point> {
        Some((seconds(trace, i), f64::from(trace.action(i)?[joint])))
    };
    let values = |trace: &Trace| (0..trace.ticks.len()).filter_map(|i| point(trace, i)).collect::<Vec<_>>();
    let all = drawn.iter().flat_map(|(_, trace)| values(trace)).map(|p| p.1);
    let (low, high) = draw::range(all, 0.08, 1e-3).unwrap_or((-1e-3, 1e-3));
    let mut marks = Vec::new();
    for (i, (_, trace)) in drawn.iter().enumerate() {
        // Each run has its own share of the height for the times it held.
        let share = (high - low) / drawn.len() as f64;
        let (top, bottom) = (high - i as f64 * share, high - (i + 1) as f64 * share);
        marks.extend(held(trace).into_iter().map(|(from, to)| {
            let (a, b) = (seconds(trace, from), seconds(trace, to).max(seconds(trace, from) + end * 5e-4));
            Mark::Area(1, vec![(a, top), (b, top), (b, bottom), (a, bottom)])
        }));
    }
    for (run, trace) in drawn {
        let (colour, _) = style(run);
        marks.extend(draw::curve(colour, values(trace)));
        marks.extend(seams(trace).filter_map(|i| Some(Mark::Ring(colour, point(trace, i)?))));
    }
    let y = Axis { label: "", range: (low, high), marks: 6, write: plain };
    Chart { x: Axis { label: "time (s)", range: (0.0, end), marks: 11, write: plain }, y, marks }
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
