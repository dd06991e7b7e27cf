//! Observations, and their way into the model's inputs, in place.
//!
//! An [`Observation`] borrows the robot's own buffers. A [`Preprocessor`] writes pixels and state, a
//! [`PromptTokenizer`] gives the prompt's tokens; after start-up neither allocates.

mod antialias;
mod bpe;
mod camera_frame;
mod image;
mod normalization;
mod preprocess;
mod prompt;
mod state_text;
mod tokenizer_file;

pub use camera_frame::{CameraFrame, FrameError, Pixels, Plane, Yuv};
pub use normalization::Normalizer;
pub use preprocess::Preprocessor;
pub use prompt::PromptTokenizer;

use crate::error::Result;

/// The longest side a frame may have, in pixels.
pub const MAX_FRAME_SIDE: u32 = 1 << 14;

/// One camera image: RGB, 8 bits a channel, rows from the top, `[height, width, 3]` without gaps.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    data: &'a [u8],
    width: u32,
    height: u32,
}

impl<'a> Frame<'a> {
    /// No frame: what fills a list's unused places. It is never looked at.
    pub(crate) const EMPTY: Frame<'static> = Frame { data: &[], width: 0, height: 0 };

    /// A frame over `data`, which holds `height * width * 3` bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Observation`](crate::ErrorKind::Observation) if the length is another, or a side is 0 or above
    /// [`MAX_FRAME_SIDE`].
    pub fn new(data: &'a [u8], width: u32, height: u32) -> Result<Self> {
        if !(1..=MAX_FRAME_SIDE).contains(&width) || !(1..=MAX_FRAME_SIDE).contains(&height) {
            bail!(
                Observation,
                "a frame of {width}x{height} pixels; each side must be from 1 to {MAX_FRAME_SIDE}"
            );
        }
        let expected = width as usize * height as usize * 3;
        ensure!(
            data.len() == expected,
            Observation,
            "a frame of {width}x{height} RGB pixels has {expected} bytes, {} were given; rows must be \
             tightly packed and without alpha",
            data.len()
        );
        Ok(Frame { data, width, height })
    }

    /// The pixels: `[height, width, 3]`.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Pixels in a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }
}

/// The robot's knowledge at one moment. Borrows everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Observation<'a> {
    /// Frames by camera key, in any order: the policy's keys, or the robot's where the bundle renames them.
    pub images: &'a [(&'a str, Frame<'a>)],
    /// The robot's state in robot units, without padding.
    pub state: &'a [f32],
    /// The task; `None` or empty for the bundle's default.
    pub prompt: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_frame_has_exactly_its_pixels() {
        assert!(Frame::new(&[0; 24], 4, 2).is_ok());
        for (len, width, height) in [(23, 4, 2), (32, 4, 2), (0, 0, 2), (0, 4, 0), (0, 1 << 31, 1 << 31)] {
            let error = Frame::new(&vec![0; len], width, height).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Observation);
        }
        let error = Frame::new(&[0; 32], 4, 2).unwrap_err().to_string();
        assert!(error.contains("4x2 RGB pixels has 24 bytes, 32 were given"), "{error}");
    }
}
