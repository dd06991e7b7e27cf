//! Charts as SVG, drawn by `plotters` from numbers: for a page, in the page's colours, and as documents of their own.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Units of the drawing in a CSS pixel: plotters has whole units alone, and curves are to be smooth.
const UNIT: f64 = 8.0;
/// Columns that a curve with more points than a page should hold is reduced to.
const COLUMNS: usize = 600;

const INK: RGBColor = RGBColor(0x1b, 0x1f, 0x24);
const SOFT: RGBColor = RGBColor(0x59, 0x63, 0x6e);
const RULE: RGBColor = RGBColor(0xd8, 0xde, 0xe4);
/// The curves' colours, told apart in print and without red and green.
const CURVES: [RGBColor; 8] = [
    RGBColor(0x1f, 0x6f, 0xc0),
    RGBColor(0xc4, 0x54, 0x0f),
    RGBColor(0x2d, 0x7d, 0x46),
    RGBColor(0x87, 0x47, 0xa8),
    RGBColor(0xb0, 0x30, 0x3f),
    RGBColor(0x66, 0x70, 0x7b),
    RGBColor(0x0f, 0x7d, 0x86),
    RGBColor(0x8a, 0x6d, 0x00),
];

/// The colours of a document where dark ones are preferred; those of style.css.
const DARK: [(RGBColor, &str); 12] = [
    (WHITE, "#14171b"),
    (INK, "#e3e7eb"),
    (SOFT, "#9aa4ae"),
    (RULE, "#343a41"),
    (CURVES[0], "#6cb0f5"),
    (CURVES[1], "#f0915a"),
    (CURVES[2], "#6cc58a"),
    (CURVES[3], "#c79be0"),
    (CURVES[4], "#ef7f8b"),
    (CURVES[5], "#a6b0ba"),
    (CURVES[6], "#5fc9d2"),
    (CURVES[7], "#d9bd4f"),
];

/// A place in the coordinates of a chart.
pub type Point = (f64, f64);

/// One thing on a chart. A `usize` is the number of a curve's colour.
pub enum Mark {
    Line(usize, Vec<Point>),
    /// A translucent area, by its outline.
    Area(usize, Vec<Point>),
    /// A box between two opposite corners.
    Bar(usize, Point, Point),
    Ring(usize, Point),
    /// A dashed vertical line at a value of x, with its name.
    Rule(String, f64),
}

/// An axis from its lowest to its highest value.
pub struct Axis<'a> {
    pub label: &'a str,
    pub range: (f64, f64),
    /// Marks there is room for.
    pub marks: usize,
    /// Writes the value at a mark.
    pub write: fn(f64) -> String,
}

/// A pair of axes and what is drawn on them, the first at the bottom.
pub struct Chart<'a> {
    pub x: Axis<'a>,
    pub y: Axis<'a>,
    pub marks: Vec<Mark>,
}

type Paper<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error + Send + Sync>>;

fn px(pixels: f64) -> i32 {
    (pixels * UNIT) as i32
}

fn colour(n: usize) -> RGBColor {
    CURVES[n % CURVES.len()]
}

/// A colour as SVG has it.
fn hex(RGBColor(r, g, b): RGBColor) -> String {
    format!("#{r:02X}{g:02X}{b:02X}")
}

fn stroke(colour: RGBColor, pixels: f64) -> ShapeStyle {
    colour.stroke_width(px(pixels) as u32)
}

fn font(pixels: f64, colour: RGBColor) -> TextStyle<'static> {
    // plotters takes the height of a line, which is 1.24 times the size of its letters.
    ("sans-serif", pixels * UNIT * 1.24).into_font().color(&colour)
}

/// A number without the noise of binary fractions.
pub fn plain(v: f64) -> String {
    let text = format!("{v:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

/// The lowest and the highest of some values, with `share` of their span and at least `least` beyond them; none of
/// no values.
pub fn range(values: impl Iterator<Item = f64>, share: f64, least: f64) -> Option<(f64, f64)> {
    let low_high = |(low, high): (f64, f64), v: f64| (low.min(v), high.max(v));
    let (low, high) = values.fold((f64::MAX, f64::MIN), low_high);
    let space = ((high - low) * share).max(least);
    (low <= high).then_some((low - space, high + space))
}

/// A line through the points, in the order of x. Where they are too many, each column of the chart has its middle
/// value on the line and its lowest and highest value at the edges of an area.
pub fn curve(n: usize, points: Vec<Point>) -> Vec<Mark> {
    if points.len() <= COLUMNS * 2 {
        return vec![Mark::Line(n, points)];
    }
    let column = |some: &[Point]| {
        let x = some.iter().map(|p| p.0).sum::<f64>() / some.len() as f64;
        let mut ys: Vec<f64> = some.iter().map(|p| p.1).collect();
        ys.sort_unstable_by(f64::total_cmp);
        [(x, ys[0]), (x, ys[ys.len() / 2]), (x, ys[ys.len() - 1])]
    };
    let columns: Vec<_> = points.chunks(points.len().div_ceil(COLUMNS)).map(column).collect();
    let outline = columns.iter().map(|c| c[0]).chain(columns.iter().rev().map(|c| c[2]));
    vec![Mark::Area(n, outline.collect()), Mark::Line(n, columns.iter().map(|c| c[1]).collect())]
}

impl Chart<'_> {
    /// Draws the chart with room for labels at its left and its bottom edge; without room there are none.
    fn draw(&self, paper: &Paper<'_>, left: f64, bottom: f64, top: f64) -> Drawn {
        let (x, y) = (&self.x, &self.y);
        let mut chart = ChartBuilder::on(paper)
            .margin_top(px(top))
            .margin_right(px(14.0))
            .set_label_area_size(LabelAreaPosition::Left, px(left))
            .set_label_area_size(LabelAreaPosition::Bottom, px(bottom))
            .build_cartesian_2d(x.range.0..x.range.1, y.range.0..y.range.1)?;
        let (write_x, write_y) = (|v: &f64| (x.write)(*v), |v: &f64| (y.write)(*v));
        let mut mesh = chart.configure_mesh();
        mesh.light_line_style(TRANSPARENT).bold_line_style(stroke(RULE, 1.0)).axis_style(stroke(RULE, 1.0));
        mesh.set_all_tick_mark_size(px(4.0)).label_style(font(11.0, SOFT));
        mesh.x_labels(x.marks).x_label_formatter(&write_x).x_desc(x.label);
        mesh.y_labels(y.marks).y_label_formatter(&write_y).y_desc(y.label);
        mesh.draw()?;
        let mut line = 0.0;
        for mark in &self.marks {
            match mark {
                Mark::Line(n, points) => {
                    chart.draw_series([PathElement::new(points.as_slice(), stroke(colour(*n), 1.5))])?;
                }
                Mark::Area(n, outline) => {
                    chart.draw_series([Polygon::new(outline.as_slice(), colour(*n).mix(0.25))])?;
                }
                Mark::Bar(n, from, to) => {
                    chart.draw_series([Rectangle::new([*from, *to], colour(*n).filled())])?;
                }
                Mark::Ring(n, at) => {
                    chart.draw_series([Circle::new(*at, px(2.6), stroke(colour(*n), 1.2))])?;
                }
                Mark::Rule(name, at) => {
                    let ends = [(*at, y.range.0), (*at, y.range.1)];
                    chart.draw_series(DashedLineSeries::new(ends, px(4.0), px(3.0), stroke(INK, 1.0)))?;
                    // The name stays on the paper, and those of neighbours do not cover each other.
                    let right = *at > x.range.0 + 0.75 * (x.range.1 - x.range.0);
                    let (side, gap) = if right { (HPos::Right, -4.0) } else { (HPos::Left, 4.0) };
                    let style = font(11.0, INK).pos(Pos::new(side, VPos::Top));
                    let text = Text::new(name.clone(), (px(gap), px(2.0 + 14.0 * line)), style);
                    chart.draw_series([EmptyElement::at((*at, y.range.1)) + text])?;
                    line += 1.0;
                }
            }
        }
        Ok(())
    }
}

/// An SVG of so many CSS pixels.
fn svg(width: f64, height: f64, draw: impl FnOnce(&Paper<'_>) -> Drawn) -> String {
    let (mut svg, size) = (String::new(), (px(width) as u32, px(height) as u32));
    let paper = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    // A string takes everything that is written.
    if let Err(e) = draw(&paper).and_then(|()| Ok(paper.present()?)) {
        log::error!("a chart could not be drawn: {e}");
    }
    drop(paper);
    let units = format!("width=\"{}\" height=\"{}\"", size.0, size.1);
    svg.replacen(&units, &format!("width=\"{width}\" height=\"{height}\""), 1)
}

/// A chart for a page whose style sheet has the colours `--ink`, `--soft`, `--rule` and `--c0` to `--c7`. `name` is
/// what it is called where it cannot be seen.
pub fn inline(name: &str, chart: &Chart<'_>) -> String {
    let svg = svg(720.0, 240.0, |paper| chart.draw(paper, 56.0, 34.0, 10.0));
    let named = [(INK, "ink".into()), (SOFT, "soft".into()), (RULE, "rule".into())];
    let curves = CURVES.into_iter().enumerate().map(|(i, c)| (c, format!("c{i}")));
    let svg = named.into_iter().chain(curves).fold(svg, |svg, (colour, name)| {
        svg.replace(&format!("\"{}\"", hex(colour)), &format!("\"var(--{name})\""))
    });
    // A part of a page has the page's name space.
    let svg = svg.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1);
    svg.replacen("<svg", &format!("<svg role=\"img\" aria-label=\"{}\"", crate::output::escape(name)), 1)
}

/// Looks of a legend's entries.
pub enum Key {
    Line(usize),
    Area(usize),
    Ring,
}

/// Charts one above the other, each with its name, as a document with a title and a legend.
pub fn document(title: &str, legend: &[(Key, String)], charts: &[(&str, Chart<'_>)]) -> String {
    const LEFT: f64 = 56.0;
    const HEAD: f64 = 64.0;
    const CHART: f64 = 114.0;
    const FOOT: f64 = 36.0;
    let drawn = svg(1000.0, HEAD + CHART * charts.len() as f64 + FOOT, |paper| {
        paper.fill(&WHITE)?;
        let at = |x: f64, y: f64| (px(x), px(y));
        paper.draw(&Text::new(title, at(LEFT, 10.0), font(15.0, INK)))?;
        let mut x = LEFT;
        for (key, words) in legend {
            let corners = [at(x, 36.0), at(x + 24.0, 50.0)];
            match key {
                Key::Line(n) => paper
                    .draw(&PathElement::new([at(x, 43.0), at(x + 24.0, 43.0)], stroke(colour(*n), 2.0)))?,
                Key::Area(n) => paper.draw(&Rectangle::new(corners, colour(*n).mix(0.25).filled()))?,
                Key::Ring => paper.draw(&Circle::new(at(x + 12.0, 43.0), px(3.0), stroke(INK, 1.2)))?,
            }
            paper.draw(&Text::new(words.as_str(), at(x + 30.0, 37.0), font(12.0, INK)))?;
            x += 46.0 + words.chars().count() as f64 * 6.4;
        }
        let (_, mut rest) = paper.split_vertically(px(HEAD));
        for (i, (name, chart)) in charts.iter().enumerate() {
            let last = i + 1 == charts.len();
            let bottom = if last { FOOT } else { 0.0 };
            let (this, below) = rest.split_vertically(px(CHART + bottom));
            this.draw(&Text::new(*name, at(LEFT, 0.0), font(11.0, INK)))?;
            chart.draw(&this, LEFT, bottom, 16.0)?;
            rest = below;
        }
        Ok(())
    });
    // What does not know about preferences shows the colours that are drawn.
    let rule = |(light, dark): (RGBColor, &str)| {
        let light = hex(light);
        format!("[fill=\"{light}\"]{{fill:{dark}}}[stroke=\"{light}\"]{{stroke:{dark}}}")
    };
    let dark = DARK.map(rule).concat();
    drawn.replacen(">\n", &format!(">\n<style>@media (prefers-color-scheme: dark){{{dark}}}</style>\n"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_curve_keeps_its_extremes() {
        let mut points: Vec<_> = (0..100_000).map(|i| (f64::from(i), 1.0)).collect();
        points[54_321].1 = 9.0;
        let marks = curve(0, points.clone());
        let [Mark::Area(_, outline), Mark::Line(_, middle)] = &marks[..] else {
            panic!("an area and a line")
        };
        assert!(middle.len() <= COLUMNS);
        assert_eq!(outline.iter().map(|p| p.1).fold(0.0, f64::max), 9.0);
        assert!(matches!(&curve(0, points[..100].to_vec())[..], [Mark::Line(_, all)] if all.len() == 100));
    }

    #[test]
    fn numbers_and_ranges_read_well() {
        assert_eq!([0.30000000000000004, 5.0, -0.0, -2.5].map(plain), ["0.3", "5", "0", "-2.5"]);
        assert_eq!(range([3.0, 1.0].into_iter(), 0.5, 0.0), Some((0.0, 4.0)));
        assert_eq!(range([5.0].into_iter(), 0.5, 1.0), Some((4.0, 6.0)));
        assert_eq!(range(std::iter::empty(), 0.5, 1.0), None);
    }

    #[test]
    fn a_page_has_its_own_colours_and_names_cannot_break_it() {
        let axis = || Axis { label: "a<b & c", range: (0.0, 1.0), marks: 4, write: plain };
        let chart = Chart { x: axis(), y: axis(), marks: vec![Mark::Bar(1, (0.1, 0.0), (0.2, 1.0))] };
        let page = inline("\"<", &chart);
        assert!(
            page.starts_with("<svg role=\"img\" aria-label=\"&quot;&lt;\"") && page.contains("var(--c1)")
        );
        assert!(page.contains("a&lt;b &amp; c") && !page.contains("a<b") && !page.contains("\"#"), "{page}");
        let alone = document("t", &[(Key::Ring, "ring".into())], &[("joint", chart)]);
        assert!(
            alone.contains("fill=\"#FFFFFF\"") && alone.contains("[fill=\"#FFFFFF\"]{fill:#14171b}"),
            "white paper, dark where that is preferred: {alone}"
        );
        assert!(
            alone.contains("\"#C4540F\"") && alone.contains("joint") && !alone.contains("var("),
            "{alone}"
        );
    }
}
