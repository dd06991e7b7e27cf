//! Bilinear resampling with antialiasing, as Pillow does it on 8-bit images: what openpi's policies were trained on.
//!
//! Each output sample averages the source samples under a triangle that is as wide as the shrinking asks for. Weights
//! are whole numbers of 2^-22; rows are resampled first and rounded to bytes, columns of those bytes after, and the
//! other way round for frames a hundred times higher than wide. Equal to Pillow to the last bit, because the rounding
//! is.
//!
//! Source: `Resample.c` and `Image.resize` of Pillow, for their rules.

use super::{Frame, MAX_FRAME_SIDE};

/// Bits behind the binary point of a weight: a byte times a weight, summed, stays below 2^31.
const PRECISION: u32 = 22;
const HALF: i32 = 1 << (PRECISION - 1);
/// A frame this many times higher than wide has its columns resampled first.
const TALL: usize = 100;

/// The source samples that make one output sample, and where their weights begin.
#[derive(Debug, Clone, Copy)]
struct Window {
    first: usize,
    len: usize,
    weights: usize,
}

/// The windows of one axis. Reserved for the longest side a frame may have, so that no plan allocates.
#[derive(Debug)]
struct Axis {
    windows: Vec<Window>,
    weights: Vec<i32>,
    /// The length of the longest window.
    longest: usize,
}

impl Axis {
    fn new(target: usize) -> Self {
        // A window has at most 2 · source / target + 3 samples.
        let room = 2 * MAX_FRAME_SIDE as usize + 3 * target;
        Axis { windows: Vec::with_capacity(target), weights: Vec::with_capacity(room), longest: 0 }
    }

    fn plan(&mut self, source: usize, target: usize) {
        self.windows.clear();
        self.weights.clear();
        self.longest = 0;
        let scale = source as f64 / target as f64;
        // Enlarging interpolates between two samples; only shrinking widens the triangle.
        let reach = scale.max(1.0);
        for i in 0..target {
            let center = (i as f64 + 0.5) * scale;
            let first = ((center - reach + 0.5) as isize).max(0) as usize;
            let end = ((center + reach + 0.5) as usize).min(source);
            let triangle = |k: usize| (1.0 - ((k as f64 - center + 0.5) * (1.0 / reach)).abs()).max(0.0);
            let sum: f64 = (first..end).map(triangle).sum();
            let window = Window { first, len: end - first, weights: self.weights.len() };
            let fixed = |k| (0.5 + triangle(k) / sum * f64::from(1 << PRECISION)) as i32;
            self.weights.extend((first..end).map(fixed));
            self.longest = self.longest.max(window.len);
            self.windows.push(window);
        }
    }

    fn weights(&self, window: Window) -> &[i32] {
        &self.weights[window.weights..][..window.len]
    }
}

/// Resamples a frame row by row, from the top. Allocates only when it is made.
#[derive(Debug)]
pub(super) struct Antialiased {
    columns: Axis,
    rows: Axis,
    /// The target's width.
    width: usize,
    /// The source rows that the current output row needs, resampled to `width` RGB pixels: row `r` is line
    /// `r % rows.longest`.
    lines: Vec<u8>,
    /// The first source row that is not among the lines.
    next: usize,
    sums: Vec<i32>,
    columns_first: bool,
}

impl Antialiased {
    /// For images of at most `height` x `width` pixels after resampling.
    pub(super) fn new(height: usize, width: usize) -> Self {
        // The longest window times the width: the shorter side of a fitted image is rounded down, by half at most.
        let room = 12 * MAX_FRAME_SIDE as usize + 9 * width;
        Antialiased {
            columns: Axis::new(width),
            rows: Axis::new(height),
            width: 0,
            lines: Vec::with_capacity(room),
            next: 0,
            sums: Vec::with_capacity(3 * width.max(MAX_FRAME_SIDE as usize / TALL)),
            columns_first: false,
        }
    }

    /// Prepares for frames of `source` pixels resampled to `target`, both (height, width).
    pub(super) fn plan(&mut self, source: (usize, usize), target: (usize, usize)) {
        self.rows.plan(source.0, target.0);
        self.columns.plan(source.1, target.1);
        self.width = target.1;
        self.columns_first = source.0 > TALL * source.1 && target.0 < source.0;
        let (lines, width) = if self.columns_first { (2, source.1) } else { (self.rows.longest, target.1) };
        self.lines.resize(lines * 3 * width, 0);
        self.sums.resize(3 * width, 0);
    }

    /// Before the first row of a frame: forgets the frame before.
    pub(super) fn begin(&mut self) {
        self.next = 0;
    }

    /// Hands each channel of output row `y` to `put(channel, column, byte)`. Rows come in order.
    pub(super) fn row(&mut self, frame: &Frame<'_>, y: usize, mut put: impl FnMut(usize, usize, u8)) {
        let window = self.rows.windows[y];
        if self.columns_first {
            let bytes = frame.width as usize * 3;
            self.sums.fill(HALF);
            for (row, weight) in (window.first..).zip(self.rows.weights(window)) {
                add(&mut self.sums, &frame.data[row * bytes..][..bytes], *weight);
            }
            let (narrow, line) = self.lines.split_at_mut(bytes);
            for (out, sum) in narrow.iter_mut().zip(&self.sums) {
                *out = byte(*sum);
            }
            let line = &mut line[..3 * self.width];
            resample_line(narrow, &self.columns, line);
            for (i, byte) in line.iter().enumerate() {
                put(i % 3, i / 3, *byte);
            }
            return;
        }
        let stride = 3 * self.width;
        for row in self.next.max(window.first)..window.first + window.len {
            let bytes = frame.width as usize * 3;
            let line = &mut self.lines[row % self.rows.longest * stride..][..stride];
            resample_line(&frame.data[row * bytes..][..bytes], &self.columns, line);
        }
        self.next = window.first + window.len;
        self.sums.fill(HALF);
        for (row, weight) in (window.first..).zip(self.rows.weights(window)) {
            let line = &self.lines[row % self.rows.longest * stride..][..stride];
            add(&mut self.sums, line, *weight);
        }
        for (x, pixel) in self.sums.chunks_exact(3).enumerate() {
            for (channel, sum) in pixel.iter().enumerate() {
                put(channel, x, byte(*sum));
            }
        }
    }
}

fn add(sums: &mut [i32], bytes: &[u8], weight: i32) {
    for (sum, byte) in sums.iter_mut().zip(bytes) {
        *sum += i32::from(*byte) * weight;
    }
}

fn resample_line(source: &[u8], columns: &Axis, line: &mut [u8]) {
    for (window, pixel) in columns.windows.iter().zip(line.chunks_exact_mut(3)) {
        let mut sums = [HALF; 3];
        let samples = source[3 * window.first..][..3 * window.len].chunks_exact(3);
        for (sample, weight) in samples.zip(columns.weights(*window)) {
            for (sum, byte) in sums.iter_mut().zip(sample) {
                *sum += i32::from(*byte) * weight;
            }
        }
        for (out, sum) in pixel.iter_mut().zip(sums) {
            *out = byte(sum);
        }
    }
}

/// A rounded sum as a byte. Weights may add up to a little more than one.
fn byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}
