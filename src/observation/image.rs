//! A frame to one view of `pixel_values`: resize with padding.
//!
//! As lerobot does it with torch, in f32: bytes / 255; bilinear with half-pixel centres and without antialiasing to the
//! largest size that fits; clamp to [0, 1]; `x * 2 - 1`. As openpi does it with Pillow: [`antialias`](super::antialias)
//! on bytes, then bytes / 255 and `x * 2 - 1`. Both are centred between bars, channels first, and an image that already
//! has the right size is not resampled.

use super::Frame;
use super::antialias::Antialiased;
use crate::bundle::{ImageRule, PadSide};
use crate::error::Result;

/// The size an image is scaled to, so that it fits into `target` and keeps its shape: (height, width).
///
/// In f64 and truncated: where rounding of the quotient falls below a whole number, the side is one pixel short, and
/// that pixel is padding in the policy's training data as well.
fn fitted(source: (u32, u32), target: (usize, usize)) -> (usize, usize) {
    let ratio = f64::max(
        f64::from(source.1) / target.1 as f64, //
        f64::from(source.0) / target.0 as f64,
    );
    let side = |n: u32, max: usize| ((f64::from(n) / ratio) as usize).min(max);
    (side(source.0, target.0), side(source.1, target.1))
}

/// Two neighbouring source samples and the weight of each.
#[derive(Debug, Clone, Copy)]
struct Tap {
    first: usize,
    second: usize,
    weights: [f32; 2],
}

/// Fills `taps` with those of a `source` samples long line resampled to `target` samples. `step` is the distance of
/// two samples in the source slice.
fn fill_taps(taps: &mut Vec<Tap>, source: usize, target: usize, step: usize) {
    taps.clear();
    let scale = source as f32 / target as f32;
    taps.extend((0..target).map(|i| {
        if source == target {
            return Tap { first: i * step, second: i * step, weights: [1.0, 0.0] };
        }
        // In torch this compiles to one fused operation, so the product is not rounded before the subtraction. It fits
        // into f64 exactly, which gives the same f32 on every processor.
        let position = (f64::from(scale) * (i as f64 + 0.5) - 0.5).max(0.0) as f32;
        let first = (position as usize).min(source - 1);
        let second = (first + 1).min(source - 1);
        let weight = (position - first as f32).clamp(0.0, 1.0);
        Tap { first: first * step, second: second * step, weights: [1.0 - weight, weight] }
    }));
}

/// Two source rows, resampled to the target's width, by channel.
#[derive(Debug)]
struct Line {
    row: Option<usize>,
    /// `[3, width]`.
    pixels: Vec<f32>,
}

/// Resamples a frame row by row without antialiasing.
#[derive(Debug)]
struct Bilinear {
    columns: Vec<Tap>,
    rows: Vec<Tap>,
    lines: [Line; 2],
}

#[derive(Debug)]
enum Resampler {
    Bilinear(Bilinear),
    Antialiased(Antialiased),
}

/// Resamples frames to views of one size. Works out where samples come from anew when the source size changes;
/// allocates only when it is made.
#[derive(Debug)]
pub(super) struct Resizer {
    height: usize,
    width: usize,
    pad: f32,
    pad_side: PadSide,
    /// The size that the resampler is prepared for, and what it makes of it: (height, width).
    source: (u32, u32),
    resized: (usize, usize),
    resampler: Resampler,
}

/// A channel's byte as a share of 255, divided as torch divides: a product with 1/255 would round elsewhere.
static UNIT: [f32; 256] = {
    let mut table = [0.0; 256];
    let mut i = 0;
    while i < 256 {
        table[i] = i as f32 / 255.0;
        i += 1;
    }
    table
};

impl Resizer {
    /// Creates a resizer for views of `height` x `width` pixels.
    pub fn new(height: usize, width: usize, rule: &ImageRule) -> Self {
        let resampler = if rule.antialias {
            Resampler::Antialiased(Antialiased::new(height, width))
        } else {
            Resampler::Bilinear(Bilinear::new(height, width))
        };
        let (pad, pad_side) = (rule.pad_value, rule.pad_side);
        Resizer { height, width, pad, pad_side, source: (0, 0), resized: (0, 0), resampler }
    }

    /// Writes the view of `frame`: `[3, height, width]`, which is the length of `dst`.
    pub fn write(&mut self, frame: &Frame<'_>, dst: &mut [f32]) -> Result<()> {
        debug_assert_eq!(dst.len(), 3 * self.height * self.width);
        if (frame.height as usize, frame.width as usize) == (self.height, self.width) {
            copy(frame.data, dst, self.height * self.width);
            return Ok(());
        }
        self.plan_for(frame)?;
        self.resample(frame, dst);
        Ok(())
    }

    fn plan_for(&mut self, frame: &Frame<'_>) -> Result<()> {
        let source = (frame.height, frame.width);
        if self.source == source {
            return Ok(());
        }
        let resized = fitted(source, (self.height, self.width));
        if resized.0 == 0 || resized.1 == 0 {
            bail!(
                Observation,
                "a frame of {}x{} pixels is too narrow: scaled to fit {}x{}, nothing is left of its short side",
                frame.width,
                frame.height,
                self.width,
                self.height
            );
        }
        let sides = (frame.height as usize, frame.width as usize);
        match &mut self.resampler {
            Resampler::Bilinear(bilinear) => bilinear.plan(sides, resized),
            Resampler::Antialiased(antialiased) => antialiased.plan(sides, resized),
        }
        self.source = source;
        self.resized = resized;
        Ok(())
    }

    fn resample(&mut self, frame: &Frame<'_>, dst: &mut [f32]) {
        let (height, width) = self.resized;
        let (rows, columns) = (self.height - height, self.width - width);
        let (top, left) = match self.pad_side {
            PadSide::Center => (rows / 2, columns / 2),
            PadSide::TopLeft => (rows, columns),
        };
        let plane = self.height * self.width;
        for channel in dst.chunks_exact_mut(plane) {
            channel[..top * self.width].fill(self.pad);
            channel[(top + height) * self.width..].fill(self.pad);
            for row in channel[top * self.width..][..height * self.width].chunks_exact_mut(self.width) {
                row[..left].fill(self.pad);
                row[left + width..].fill(self.pad);
            }
        }
        // Where pixel (y, 0) of a channel goes.
        let place = |channel: usize, y: usize| channel * plane + (top + y) * self.width + left;
        match &mut self.resampler {
            Resampler::Bilinear(bilinear) => {
                bilinear.begin();
                for y in 0..height {
                    bilinear.row(frame, y, width, dst, |channel| place(channel, y));
                }
            }
            Resampler::Antialiased(antialiased) => {
                antialiased.begin();
                for y in 0..height {
                    antialiased.row(frame, y, |channel, x, byte| dst[place(channel, y) + x] = signed(byte));
                }
            }
        }
    }
}

impl Bilinear {
    fn new(height: usize, width: usize) -> Self {
        let line = || Line { row: None, pixels: vec![0.0; 3 * width] };
        Bilinear {
            columns: Vec::with_capacity(width),
            rows: Vec::with_capacity(height),
            lines: [line(), line()],
        }
    }

    fn plan(&mut self, source: (usize, usize), target: (usize, usize)) {
        fill_taps(&mut self.rows, source.0, target.0, 1);
        fill_taps(&mut self.columns, source.1, target.1, 3);
    }

    fn begin(&mut self) {
        for line in &mut self.lines {
            line.row = None;
        }
    }

    /// Writes row `y`, `width` pixels of each channel, to the places in `dst` that `start` gives for a channel.
    fn row(
        &mut self,
        frame: &Frame<'_>,
        y: usize,
        width: usize,
        dst: &mut [f32],
        start: impl Fn(usize) -> usize,
    ) {
        let tap = self.rows[y];
        let (row_bytes, plane) = (frame.width as usize * 3, self.lines[0].pixels.len() / 3);
        // Rows are visited downwards, so the first one needed is often the second one of the row before.
        if self.lines[1].row == Some(tap.first) {
            self.lines.swap(0, 1);
        }
        for (line, row) in self.lines.iter_mut().zip([tap.first, tap.second]) {
            if line.row != Some(row) {
                let source = &frame.data[row * row_bytes..][..row_bytes];
                resample_row(source, &self.columns, &mut line.pixels, plane);
                line.row = Some(row);
            }
        }
        let [wa, wb] = tap.weights;
        for channel in 0..3 {
            let [above, below] = self.lines.each_ref().map(|line| &line.pixels[channel * plane..][..width]);
            let out = &mut dst[start(channel)..][..width];
            for ((out, a), b) in out.iter_mut().zip(above).zip(below) {
                *out = (a * wa + b * wb).clamp(0.0, 1.0) * 2.0 - 1.0;
            }
        }
    }
}

/// A byte in the model's range, [-1, 1].
fn signed(byte: u8) -> f32 {
    UNIT[byte as usize] * 2.0 - 1.0
}

/// Resamples one row of RGB pixels into three planes that lie `width` apart.
fn resample_row(source: &[u8], taps: &[Tap], planes: &mut [f32], width: usize) {
    let (red, rest) = planes.split_at_mut(width);
    let (green, blue) = rest.split_at_mut(width);
    for (((tap, red), green), blue) in taps.iter().zip(red).zip(green).zip(blue) {
        let [w0, w1] = tap.weights;
        let (a, b) = (&source[tap.first..tap.first + 3], &source[tap.second..tap.second + 3]);
        let mix = |a: u8, b: u8| UNIT[a as usize] * w0 + UNIT[b as usize] * w1;
        *red = mix(a[0], b[0]);
        *green = mix(a[1], b[1]);
        *blue = mix(a[2], b[2]);
    }
}

/// A frame of the right size: no resampling, only the range and the order of channels.
fn copy(source: &[u8], dst: &mut [f32], plane: usize) {
    let (red, rest) = dst.split_at_mut(plane);
    let (green, blue) = rest.split_at_mut(plane);
    for (((pixel, red), green), blue) in source.chunks_exact(3).zip(red).zip(green).zip(blue) {
        *red = signed(pixel[0]);
        *green = signed(pixel[1]);
        *blue = signed(pixel[2]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Resize;
    use crate::error::ErrorKind;

    fn rule(pad_value: f32, antialias: bool) -> ImageRule {
        ImageRule { resize: Resize::Bilinear, antialias, pad_value, pad_side: PadSide::Center }
    }

    #[test]
    fn fitted_sizes_are_those_of_the_policy() {
        // (height, width) of the source, and of the resized image inside 224 x 224.
        for (source, resized) in [
            ((480, 640), (168, 224)),
            ((720, 1280), (126, 224)),
            ((1080, 1920), (126, 224)),
            ((376, 672), (125, 224)),
            ((640, 480), (224, 168)),
            ((224, 224), (224, 224)),
            ((1, 1), (224, 224)),
            ((10_000, 1), (223, 0)),
        ] {
            assert_eq!(fitted(source, (224, 224)), resized, "{source:?}");
        }
        // 116 / (116 / 224) is a hair below 224 in f64.
        assert_eq!(fitted((100, 116), (224, 224)), (193, 223));
    }

    #[test]
    fn taps_stay_inside_and_weigh_one() {
        let mut taps = Vec::new();
        for source in [1, 2, 3, 56, 223, 224, 225, 640, 4000] {
            fill_taps(&mut taps, source, 224, 1);
            for tap in &taps {
                assert!(tap.first <= tap.second && tap.second < source && tap.second - tap.first <= 1);
                assert!((tap.weights[0] + tap.weights[1] - 1.0).abs() <= f32::EPSILON);
            }
        }
    }

    #[test]
    fn every_byte_has_its_quotient() {
        for byte in 0..=255u8 {
            assert_eq!(UNIT[byte as usize], f32::from(byte) / 255.0);
        }
    }

    #[test]
    fn bars_are_where_the_policy_saw_them() {
        let data = vec![255; 480 * 640 * 3];
        let frame = Frame::new(&data, 640, 480).unwrap();
        for (pad, antialias) in [(-1.0, false), (-3.0, false), (-1.0, true)] {
            let mut view = vec![f32::NAN; 3 * 224 * 224];
            Resizer::new(224, 224, &rule(pad, antialias)).write(&frame, &mut view).unwrap();
            for (i, v) in view.iter().enumerate() {
                let row = i / 224 % 224;
                assert_eq!(*v, if (28..196).contains(&row) { 1.0 } else { pad }, "row {row}");
            }
        }
    }

    #[test]
    fn the_odd_pixel_of_padding_is_at_the_end() {
        let data = vec![0; 376 * 672 * 3];
        let mut view = vec![f32::NAN; 3 * 224 * 224];
        Resizer::new(224, 224, &rule(-3.0, false))
            .write(&Frame::new(&data, 672, 376).unwrap(), &mut view)
            .unwrap();
        let image: Vec<usize> = (0..224).filter(|y| view[y * 224] == -1.0).collect();
        assert_eq!((image[0], image.len()), (49, 125));
    }

    #[test]
    fn bars_may_all_be_at_the_top_and_the_left() {
        for (width, height, inside) in [(672, 376, (99..224, 0..224)), (100, 200, (0..224, 112..224))] {
            let data = vec![255; width * height * 3];
            let frame = Frame::new(&data, width as u32, height as u32).unwrap();
            let mut view = vec![f32::NAN; 3 * 224 * 224];
            let rule = ImageRule { pad_side: PadSide::TopLeft, ..rule(-1.0, false) };
            Resizer::new(224, 224, &rule).write(&frame, &mut view).unwrap();
            for (i, v) in view.iter().enumerate() {
                let (y, x) = (i / 224 % 224, i % 224);
                let image = inside.0.contains(&y) && inside.1.contains(&x);
                assert_eq!(*v, if image { 1.0 } else { -1.0 }, "row {y}, column {x}");
            }
        }
    }

    #[test]
    fn a_frame_of_the_right_size_is_not_resampled() {
        let data: Vec<u8> = (0..2 * 3 * 3).map(|i| (i * 14) as u8).collect();
        for antialias in [false, true] {
            let mut view = vec![0.0; 18];
            Resizer::new(2, 3, &rule(-1.0, antialias))
                .write(&Frame::new(&data, 3, 2).unwrap(), &mut view)
                .unwrap();
            for (i, v) in view.iter().enumerate() {
                let (channel, pixel) = (i / 6, i % 6);
                assert_eq!(*v, f32::from(data[pixel * 3 + channel]) / 255.0 * 2.0 - 1.0);
            }
        }
    }

    #[test]
    fn a_frame_too_narrow_to_fit_is_an_error() {
        let data = vec![0; 3000 * 3];
        let error = Resizer::new(224, 224, &rule(-1.0, false))
            .write(&Frame::new(&data, 1, 3000).unwrap(), &mut vec![0.0; 3 * 224 * 224])
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Observation);
        assert!(error.to_string().contains("1x3000 pixels is too narrow"), "{error}");
    }
}
