//! The page's charts, made from the report's numbers.

use super::{Report, ms};
use crate::device::jitter;
use crate::draw::{self, Axis, Chart, Mark, Point, plain};
use crate::output::escape;

const BINS: usize = 60;

/// A histogram: how often each value occurred, counted in bins on a logarithmic axis so that the tail is seen, with
/// some values marked. Nothing without values.
fn histogram(
    title: &str,
    unit: &str,
    counted: &str,
    values: &[(f64, u64)],
    marked: &[(&str, f64)],
) -> String {
    let all = || values.iter().map(|v| v.0).chain(marked.iter().map(|m| m.1));
    let least = all().fold(1e-9, |least, v| f64::max(least, v.abs() * 1e-3));
    let Some((from, to)) = draw::range(all(), 0.02, least).filter(|_| !values.is_empty()) else {
        return String::new();
    };
    let width = (to - from) / BINS as f64;
    let mut bins = [0u64; BINS];
    for (value, n) in values {
        bins[(((value - from) / width) as usize).min(BINS - 1)] += n;
    }
    // Half a decade below one, so that a single value is a bar that one can see.
    let (floor, most) = (-0.5, bins.into_iter().max().unwrap_or(1) as f64);
    let bar = |(i, n): (usize, u64)| {
        let left = from + i as f64 * width;
        Mark::Bar(0, (left + 0.05 * width, floor), (left + 0.95 * width, (n as f64).log10()))
    };
    let bars = bins.into_iter().enumerate().filter(|(_, n)| *n > 0).map(bar);
    let rules = marked.iter().map(|(name, v)| Mark::Rule(format!("{name} {} {unit}", ms(*v)), *v));
    let decade = |d: f64| if d >= 0.0 && d.fract() == 0.0 { plain(10f64.powf(d)) } else { String::new() };
    let chart = Chart {
        x: Axis { label: unit, range: (from, to), marks: 9, write: plain },
        y: Axis { label: counted, range: (floor, most.log10().max(0.3) + 0.1), marks: 6, write: decade },
        marks: bars.chain(rules).collect(),
    };
    let title = escape(title);
    format!("<h3>{title}</h3><div class=\"plot\">{}</div>\n", draw::inline(&title, &chart))
}

/// Curves over the time of the bench, with a legend where there are several. Nothing without points.
fn over_time(title: &str, unit: &str, from_zero: bool, curves: Vec<(String, Vec<Point>)>) -> String {
    let all = || curves.iter().flat_map(|(_, points)| points.iter());
    let least = all().fold(0.0, |least, p| f64::max(least, p.1.abs() * 1e-3));
    let y = draw::range(all().map(|p| p.1), 0.05, least);
    let (Some(x), Some(y)) = (draw::range(all().map(|p| p.0), 0.0, 1e-3), y) else { return String::new() };
    let keys = curves.iter().enumerate().filter(|_| curves.len() > 1);
    let keys = keys.map(|(i, (name, _))| format!("<span><i class=\"key c{i}\"></i>{}</span>", escape(name)));
    let keys: String = keys.collect();
    let chart = Chart {
        x: Axis { label: "seconds since the bench began", range: x, marks: 9, write: plain },
        y: Axis { label: unit, range: (if from_zero { 0.0 } else { y.0 }, y.1), marks: 6, write: plain },
        marks: curves.into_iter().enumerate().flat_map(|(i, (_, points))| draw::curve(i, points)).collect(),
    };
    let svg = draw::inline(title, &chart);
    format!("<h3>{title}</h3><p class=\"legend\">{keys}</p><div class=\"plot\">{svg}</div>\n")
}

/// Wake-ups of the control loop beside inference; nothing if it did not run.
pub fn wake_ups(report: &Report) -> String {
    let Some(jitter) = &report.jitter else { return String::new() };
    let title = match jitter.ticks.wake_us.overflows {
        0 => "Wake-ups by their lateness".to_owned(),
        n => format!("Wake-ups by their lateness, and {n} beyond"),
    };
    histogram(&title, "µs", "wake-ups", &jitter::wake_us(jitter), &[])
}

/// Latency, and what the sensors read meanwhile.
pub fn all(report: &Report) -> String {
    let (chunks, rows, names) = (&report.chunks, &report.series.rows, &report.series.names);
    let values: Vec<_> = chunks.iter().map(|c| (c.total, 1)).collect();
    let marked = report.summary.stage("chunk").map(|f| [("p50", f.p50), ("p99", f.p99), ("p99.9", f.p99_9)]);
    let marked = marked.into_iter().flatten().filter_map(|(name, v)| Some((name, v?)));
    let title = format!("Latency of {} chunks", chunks.len());
    let mut out = histogram(&title, "ms", "chunks", &values, &marked.collect::<Vec<_>>());
    let latency = chunks.iter().map(|c| (c.at_s, c.total)).collect();
    out += &over_time("Latency over time", "ms", false, vec![("chunk".into(), latency)]);
    // The value of each sensor at each reading; eight sensors have a colour.
    let sensors = |names: &[String],
                   value: &dyn Fn(usize, usize) -> Option<f64>|
     -> Vec<(String, Vec<Point>)> {
        let points = |i| (0..rows.len()).filter_map(|r| Some((rows[r].0, value(i, r)?))).collect::<Vec<_>>();
        let curves = names.iter().enumerate().map(|(i, name)| (name.clone(), points(i)));
        curves.filter(|(_, points)| !points.is_empty()).take(8).collect()
    };
    let total = (names.total.len() > 1).then(|| "total".to_owned());
    let added = usize::from(total.is_some());
    let rails: Vec<String> = total.into_iter().chain(names.rails.iter().cloned()).collect();
    let watts = |i: usize, r: usize| match i.checked_sub(added) {
        Some(rail) => rows[r].1.rails[rail],
        None => rows[r].1.total,
    };
    out += &over_time("Power", "W", true, sensors(&rails, &watts));
    out += &over_time("Temperature", "°C", false, sensors(&names.zones, &|i, r| rows[r].1.zones[i]));
    let megahertz = |i: usize, r: usize| rows[r].1.clocks[i].map(|hz| hz / 1e6);
    out + &over_time("Clocks", "MHz", true, sensors(&names.clocks, &megahertz))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_a_bar() {
        let page = histogram("t", "ms", "chunks", &[(1.0, 2), (2.0, 1)], &[("p50", 1.0)]);
        assert_eq!(page.matches("fill=\"var(--c0)\"").count(), 2, "{page}");
        assert!(page.contains("p50 1.00 ms"));
        assert_eq!(histogram("t", "ms", "chunks", &[], &[("p50", 1.0)]), "");
    }
}
