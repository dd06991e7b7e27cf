//! A frame in the layout that a camera's driver has it in, to RGB.

use std::fmt;

use super::MAX_FRAME_SIDE;

/// One plane of a frame: rows from the top, each `row_bytes` after the one before. The last row need not be followed by a
/// gap.
#[derive(Debug, Clone, Copy)]
pub struct Plane<'a> {
    /// The bytes, from the first row's first.
    pub data: &'a [u8],
    /// From one row to the next, at least as many bytes as a row has.
    pub row_bytes: usize,
}

/// The matrix and the range that a frame's Y, Cb and Cr were made with.
///
/// Limited range has Y from 16 to 235 and Cb and Cr from 16 to 240; full range has all of them from 0 to 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Yuv {
    /// ITU-R BT.601, limited range: USB cameras, unless they say otherwise.
    #[default]
    Bt601Limited,
    /// ITU-R BT.601, full range: JPEG.
    Bt601Full,
    /// ITU-R BT.709, limited range: video of 720 rows and more.
    Bt709Limited,
    /// ITU-R BT.709, full range.
    Bt709Full,
}

/// A frame's pixels, 8 bits a value. Pixels that share one pair of Cb and Cr, two or four of them, each get that pair.
#[derive(Debug, Clone, Copy)]
pub enum Pixels<'a> {
    /// R, G, B.
    Rgb(Plane<'a>),
    /// B, G, R.
    Bgr(Plane<'a>),
    /// R, G, B and a byte that is left out.
    Rgba(Plane<'a>),
    /// B, G, R and a byte that is left out.
    Bgra(Plane<'a>),
    /// One byte that is R, G and B.
    Grey(Plane<'a>),
    /// Y, Cb, Y, Cr for two pixels, also called YUY2. The width is even.
    Yuyv(Plane<'a>, Yuv),
    /// Cb, Y, Cr, Y for two pixels. The width is even.
    Uyvy(Plane<'a>, Yuv),
    /// A plane of Y, and one of half as many rows with Cb, Cr for two by two pixels. Width and height are even.
    Nv12 {
        /// Y, a byte a pixel.
        luma: Plane<'a>,
        /// Cb and Cr, as many bytes in a row as `luma` has.
        chroma: Plane<'a>,
        /// What they were made with.
        yuv: Yuv,
    },
}

/// A camera's frame as its driver has it. Borrows the pixels.
#[derive(Debug, Clone, Copy)]
pub struct CameraFrame<'a> {
    /// The pixels.
    pub pixels: Pixels<'a>,
    /// Pixels in a row, 1 to [`MAX_FRAME_SIDE`].
    pub width: u32,
    /// Rows, 1 to [`MAX_FRAME_SIDE`].
    pub height: u32,
}

/// The reason why a camera's frame was refused. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// The policy has no camera of that number.
    NoCamera,
    /// A side is 0 or above [`MAX_FRAME_SIDE`].
    Side,
    /// The RGB pixels do not fit into the slot, or are not the size of the buffer.
    Room,
    /// YUYV and UYVY have an even width, NV12 an even width and height.
    Odd,
    /// `row_bytes` is less than a row has.
    RowBytes,
    /// A plane ends before its last row does.
    Short,
}

impl FrameError {
    /// Returns the reason in words.
    pub fn as_str(self) -> &'static str {
        match self {
            FrameError::NoCamera => "the policy has no camera of that number",
            FrameError::Side => "a side of the frame is 0 or above 16384 pixels",
            FrameError::Room => {
                "as RGB the frame is larger than the slot has room for, or not the size of the buffer"
            }
            FrameError::Odd => {
                "a side is odd: YUYV and UYVY have an even width, NV12 an even width and height"
            }
            FrameError::RowBytes => "row_bytes is less than a row has",
            FrameError::Short => {
                "the plane ends before its last row does: the frame was cut off, or its size, format or row_bytes is another"
            }
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for FrameError {}

impl CameraFrame<'_> {
    /// Returns the bytes that the frame has as RGB: `height * width * 3`.
    ///
    /// # Errors
    /// [`FrameError::Side`].
    pub fn rgb_len(&self) -> Result<usize, FrameError> {
        let sides = [self.width, self.height];
        if sides.iter().any(|side| !(1..=MAX_FRAME_SIDE).contains(side)) {
            return Err(FrameError::Side);
        }
        Ok(self.width as usize * self.height as usize * 3)
    }

    /// Writes the frame as RGB, `[height, width, 3]` without gaps, which is the length of `rgb`. Allocates nothing.
    ///
    /// # Errors
    /// Every [`FrameError`] but [`NoCamera`](FrameError::NoCamera); nothing is written then.
    pub fn write_rgb(&self, rgb: &mut [u8]) -> Result<(), FrameError> {
        if rgb.len() != self.rgb_len()? {
            return Err(FrameError::Room);
        }
        let (width, height) = (self.width as usize, self.height as usize);
        let out = rgb.chunks_exact_mut(3 * width);
        match self.pixels {
            Pixels::Rgb(plane) => {
                out.zip(plane.rows(height, 3 * width)?).for_each(|(out, row)| out.copy_from_slice(row));
            }
            Pixels::Bgr(plane) => write_rows(out, plane.rows(height, 3 * width)?, |[b, g, r]| [r, g, b]),
            Pixels::Rgba(plane) => write_rows(out, plane.rows(height, 4 * width)?, |[r, g, b, _]| [r, g, b]),
            Pixels::Bgra(plane) => write_rows(out, plane.rows(height, 4 * width)?, |[b, g, r, _]| [r, g, b]),
            Pixels::Grey(plane) => write_rows(out, plane.rows(height, width)?, |[y]| [y; 3]),
            Pixels::Yuyv(plane, yuv) => {
                even(width)?;
                let matrix = Matrix::new(yuv);
                write_rows(out, plane.rows(height, 2 * width)?, |[a, u, b, v]| matrix.two([a, b], [u, v]));
            }
            Pixels::Uyvy(plane, yuv) => {
                even(width)?;
                let matrix = Matrix::new(yuv);
                write_rows(out, plane.rows(height, 2 * width)?, |[u, a, v, b]| matrix.two([a, b], [u, v]));
            }
            Pixels::Nv12 { luma, chroma, yuv } => {
                even(width)?;
                even(height)?;
                let matrix = Matrix::new(yuv);
                let (luma, chroma) = (luma.rows(height, width)?, chroma.rows(height / 2, width)?);
                for ((out, luma), chroma) in out.zip(luma).zip(chroma.flat_map(|row| [row, row])) {
                    let (out, luma, chroma) =
                        (out.as_chunks_mut().0, luma.as_chunks().0, chroma.as_chunks().0);
                    for ((out, luma), chroma) in out.iter_mut().zip(luma).zip(chroma) {
                        *out = matrix.two(*luma, *chroma);
                    }
                }
            }
        }
        Ok(())
    }
}

impl<'a> Plane<'a> {
    /// Returns `height` rows of `bytes` each; neither is 0.
    fn rows(self, height: usize, bytes: usize) -> Result<impl Iterator<Item = &'a [u8]>, FrameError> {
        if self.row_bytes < bytes {
            return Err(FrameError::RowBytes);
        }
        let gaps = (height - 1).checked_mul(self.row_bytes);
        let end = gaps.and_then(|gaps| gaps.checked_add(bytes)).ok_or(FrameError::Short)?;
        let data = self.data.get(..end).ok_or(FrameError::Short)?;
        Ok(data.chunks(self.row_bytes).map(move |row| &row[..bytes]))
    }
}

fn even(side: usize) -> Result<(), FrameError> {
    if side.is_multiple_of(2) { Ok(()) } else { Err(FrameError::Odd) }
}

/// Writes rows of groups of `N` bytes as groups of `M` bytes of RGB.
fn write_rows<'a, const N: usize, const M: usize>(
    out: impl Iterator<Item = &'a mut [u8]>,
    rows: impl Iterator<Item = &'a [u8]>,
    rgb: impl Fn([u8; N]) -> [u8; M],
) {
    for (out, row) in out.zip(rows) {
        for (out, group) in out.as_chunks_mut().0.iter_mut().zip(row.as_chunks().0) {
            *out = rgb(*group);
        }
    }
}

/// Bits after the point of a factor. An error of half the last one in each of three factors is less than a thousandth of a
/// level in the sum, and the largest sum fits.
const FRACTION: i32 = 20;

/// The way from Y, Cb and Cr to RGB, in fixed point.
struct Matrix {
    /// The Y of black.
    black: i32,
    y: i32,
    red: i32,
    /// Of Cb and of Cr.
    green: [i32; 2],
    blue: i32,
}

impl Matrix {
    fn new(yuv: Yuv) -> Self {
        let (red, blue, full) = match yuv {
            Yuv::Bt601Limited => (0.299, 0.114, false),
            Yuv::Bt601Full => (0.299, 0.114, true),
            Yuv::Bt709Limited => (0.2126, 0.0722, false),
            Yuv::Bt709Full => (0.2126, 0.0722, true),
        };
        let green = 1.0 - red - blue;
        let (y, c) = if full { (1.0, 2.0) } else { (255.0 / 219.0, 2.0 * 255.0 / 224.0) };
        let fixed = |factor: f64| (factor * f64::from(1 << FRACTION)).round() as i32;
        Matrix {
            black: if full { 0 } else { 16 },
            y: fixed(y),
            red: fixed(c * (1.0 - red)),
            green: [fixed(-c * blue * (1.0 - blue) / green), fixed(-c * red * (1.0 - red) / green)],
            blue: fixed(c * (1.0 - blue)),
        }
    }

    /// Returns two pixels that share Cb and Cr, each value rounded to the nearest.
    fn two(&self, luma: [u8; 2], chroma: [u8; 2]) -> [u8; 6] {
        let [cb, cr] = chroma.map(|c| i32::from(c) - 128);
        let shares = [self.red * cr, self.green[0] * cb + self.green[1] * cr, self.blue * cb];
        let [[a, b, c], [d, e, f]] = luma.map(|y| {
            let y = (i32::from(y) - self.black) * self.y + (1 << (FRACTION - 1));
            shares.map(|share| ((y + share) >> FRACTION).clamp(0, 255) as u8)
        });
        [a, b, c, d, e, f]
    }
}
