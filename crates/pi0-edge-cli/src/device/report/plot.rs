//! Plots as inline SVG, coloured by the page's style sheet. Nothing is loaded and nothing runs.

use std::fmt::Write;

use crate::axis::marks;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 34.0;
/// Columns that a curve is reduced to: more than a screen shows makes a page of megabytes.
const COLUMNS: usize = 300;

/// Curves over the same axes. The n-th has the n-th colour.
pub struct Plot {
    pub title: String,
    pub x_label: &'static str,
    pub y_label: &'static str,
    pub curves: Vec<Curve>,
    /// Whether the y axis begins at zero.
    pub from_zero: bool,
}

/// A curve by its points, in the order of x.
pub struct Curve {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Counts by value: how often a value fell into each of equally wide bins.
pub struct Histogram {
    pub title: String,
    pub x_label: &'static str,
    /// What is counted.
    pub y_label: &'static str,
    /// Values, and how often each occurred.
    pub values: Vec<(f64, u64)>,
    /// Values marked by a line, with what they are.
    pub marks: Vec<(String, f64)>,
}

/// Where values lie on the paper.
struct Scale {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
}

impl Scale {
    fn at(&self, value: f64) -> f64 {
        let span = self.to - self.from;
        let share = if span > 0.0 { (value - self.from) / span } else { 0.5 };
        self.start + share * (self.end - self.start)
    }

    fn x(from: f64, to: f64) -> Self {
        Scale { from, to, start: LEFT, end: WIDTH - RIGHT }
    }

    fn y(from: f64, to: f64) -> Self {
        Scale { from, to, start: HEIGHT - BOTTOM, end: TOP }
    }
}

/// As many decimals as tell neighbouring ticks apart.
fn decimals(ticks: &[f64]) -> usize {
    let step = ticks.windows(2).map(|w| w[1] - w[0]).next().unwrap_or(1.0);
    (0..=6).find(|&d| (step * 10f64.powi(d) - (step * 10f64.powi(d)).round()).abs() < 1e-6).unwrap_or(3)
        as usize
}

fn axes(svg: &mut String, x: &Scale, y: &Scale, x_label: &str, y_label: &str, y_ticks: &[(f64, String)]) {
    let xs = marks(x.from, x.to, 8);
    let places = decimals(&xs);
    for value in xs {
        let at = x.at(value);
        let _ = write!(
            svg,
            r#"<line class="grid" x1="{at:.1}" x2="{at:.1}" y1="{TOP}" y2="{}"/><text x="{at:.1}" y="{}" text-anchor="middle">{value:.places$}</text>"#,
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 14.0
        );
    }
    for (value, text) in y_ticks {
        let at = y.at(*value);
        let _ = write!(
            svg,
            r#"<line class="grid" x1="{LEFT}" x2="{}" y1="{at:.1}" y2="{at:.1}"/><text x="{}" y="{:.1}" text-anchor="end">{text}</text>"#,
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0
        );
    }
    let _ = write!(
        svg,
        r#"<text x="{}" y="{}" text-anchor="middle">{x_label}</text><text transform="translate(12 {}) rotate(-90)" text-anchor="middle">{y_label}</text>"#,
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 4.0,
        (TOP + HEIGHT - BOTTOM) / 2.0
    );
}

fn linear_ticks(from: f64, to: f64) -> Vec<(f64, String)> {
    let values = marks(from, to, 5);
    let places = decimals(&values);
    values.into_iter().map(|v| (v, format!("{v:.places$}"))).collect()
}

fn open(title: &str) -> String {
    format!(
        r#"<div class="plot"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">"#,
        crate::output::escape(title)
    )
}

/// The curve's points, reduced to the lowest, the middle and the highest of each column where there are too many.
fn columns(points: &[(f64, f64)]) -> Option<Vec<[(f64, f64); 3]>> {
    if points.len() <= COLUMNS * 2 {
        return None;
    }
    let column = |some: &[(f64, f64)]| {
        let x = some.iter().map(|p| p.0).sum::<f64>() / some.len() as f64;
        let mut ys: Vec<f64> = some.iter().map(|p| p.1).collect();
        ys.sort_unstable_by(f64::total_cmp);
        [(x, ys[0]), (x, ys[ys.len() / 2]), (x, ys[ys.len() - 1])]
    };
    Some(points.chunks(points.len().div_ceil(COLUMNS)).map(column).collect())
}

impl Plot {
    /// Title, legend and drawing; nothing without points.
    pub fn html(&self) -> String {
        let all = || self.curves.iter().flat_map(|c| c.points.iter());
        let bounds = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)))
        };
        let ((x0, x1), (mut y0, mut y1)) = (bounds(&mut all().map(|p| p.0)), bounds(&mut all().map(|p| p.1)));
        if x0 > x1 {
            return String::new();
        }
        let space = if y1 > y0 { (y1 - y0) * 0.05 } else { y1.abs() * 0.05 + 0.5 };
        (y0, y1) = (if self.from_zero { 0.0 } else { y0 - space }, y1 + space);
        let (x, y) = (Scale::x(x0, x1), Scale::y(y0, y1));
        let mut svg = open(&self.title);
        axes(&mut svg, &x, &y, self.x_label, self.y_label, &linear_ticks(y0, y1));
        for (i, curve) in self.curves.iter().enumerate() {
            curve.draw(&mut svg, &x, &y, i);
        }
        let keys = self.curves.iter().enumerate().filter(|_| self.curves.len() > 1).map(|(i, c)| {
            format!(r#"<span><i class="key c{i}"></i>{}</span>"#, crate::output::escape(&c.name))
        });
        let legend: String = keys.collect();
        format!(
            "<h3>{}</h3><p class=\"legend\">{legend}</p>{svg}</svg></div>\n",
            crate::output::escape(&self.title)
        )
    }
}

impl Curve {
    fn draw(&self, svg: &mut String, x: &Scale, y: &Scale, colour: usize) {
        let place = |(px, py): &(f64, f64)| format!("{:.1},{:.1}", x.at(*px), y.at(*py));
        let path = |points: Vec<String>| points.join(" ");
        let Some(columns) = columns(&self.points) else {
            let points = path(self.points.iter().map(place).collect());
            let _ = write!(svg, r#"<polyline class="line c{colour}" points="{points}"/>"#);
            return;
        };
        let area = columns.iter().map(|c| place(&c[0])).chain(columns.iter().rev().map(|c| place(&c[2])));
        let _ = write!(svg, r#"<polygon class="area c{colour}" points="{}"/>"#, path(area.collect()));
        let middle = columns.iter().map(|c| place(&c[1])).collect();
        let _ = write!(svg, r#"<polyline class="line c{colour}" points="{}"/>"#, path(middle));
    }
}

impl Histogram {
    const BINS: usize = 60;

    /// Title and drawing, counts on a logarithmic axis so that the tail is seen; nothing without values.
    pub fn html(&self) -> String {
        let marked = self.marks.iter().map(|m| m.1);
        let (low, high) = self
            .values
            .iter()
            .map(|v| v.0)
            .chain(marked)
            .fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
        if self.values.is_empty() {
            return String::new();
        }
        let space = ((high - low) * 0.02).max(low.abs() * 1e-3).max(1e-9);
        let (from, to) = (low - space, high + space);
        let width = (to - from) / Self::BINS as f64;
        let mut bins = [0u64; Self::BINS];
        for (value, n) in &self.values {
            bins[(((value - from) / width) as usize).min(Self::BINS - 1)] += n;
        }
        let most = bins.iter().copied().max().unwrap_or(1) as f64;
        // Half a decade below one, so that a single value is a bar that one can see.
        let decade = |n: f64| n.log10();
        let (x, y) = (Scale::x(from, to), Scale::y(-0.5, decade(most).max(0.3) + 0.1));
        let labels: Vec<_> =
            (0..=decade(most) as i32).map(|d| (f64::from(d), 10i64.pow(d as u32).to_string())).collect();
        let mut svg = open(&self.title);
        axes(&mut svg, &x, &y, self.x_label, self.y_label, &labels);
        for (i, &n) in bins.iter().enumerate().filter(|(_, n)| **n > 0) {
            let (left, right) = (x.at(from + i as f64 * width), x.at(from + (i + 1) as f64 * width));
            let top = y.at(decade(n as f64));
            let _ = write!(
                svg,
                r#"<rect class="bar" x="{left:.1}" y="{top:.1}" width="{:.1}" height="{:.1}"/>"#,
                (right - left - 1.0).max(0.5),
                HEIGHT - BOTTOM - top
            );
        }
        for (i, (name, value)) in self.marks.iter().enumerate() {
            let at = x.at(*value);
            // Text stays on the paper, and names of neighbours do not cover each other.
            let anchor = if at > WIDTH * 0.8 { "end" } else { "start" };
            let dx = if anchor == "end" { -4.0 } else { 4.0 };
            let _ = write!(
                svg,
                r#"<line class="mark" x1="{at:.1}" x2="{at:.1}" y1="{TOP}" y2="{}"/><text class="mark" x="{:.1}" y="{}" text-anchor="{anchor}">{}</text>"#,
                HEIGHT - BOTTOM,
                at + dx,
                TOP + 12.0 + 14.0 * i as f64,
                crate::output::escape(name)
            );
        }
        format!("<h3>{}</h3>{svg}</svg></div>\n", crate::output::escape(&self.title))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_marks_are_told_apart() {
        assert_eq!(decimals(&marks(0.13, 0.52, 4)), 1);
    }

    #[test]
    fn a_long_curve_keeps_its_extremes() {
        let mut points: Vec<_> = (0..100_000).map(|i| (f64::from(i), 1.0)).collect();
        points[54_321].1 = 9.0;
        let columns = columns(&points).unwrap();
        assert!(columns.len() <= COLUMNS);
        assert_eq!(columns.iter().map(|c| c[2].1).fold(0.0, f64::max), 9.0);
        assert!(super::columns(&points[..100]).is_none());
    }

    #[test]
    fn every_value_is_in_a_bar() {
        let histogram = Histogram {
            title: "t".into(),
            x_label: "ms",
            y_label: "chunks",
            values: vec![(1.0, 2), (2.0, 1)],
            marks: vec![("p50".into(), 1.0)],
        };
        assert_eq!(histogram.html().matches("class=\"bar\"").count(), 2);
        let none = Histogram { values: vec![], ..histogram };
        assert_eq!(none.html(), "");
    }
}
