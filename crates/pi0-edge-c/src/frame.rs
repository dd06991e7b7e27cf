//! A camera's frame in the layout that its driver has it in.

use super::boundary::{grows, guard_with, pi0_error, read_settings, slice, slice_mut, zeroed};
use super::status::{Fail, PI0_ERR_ARGUMENT, PI0_ERR_SIZE, Result, pi0_status};
use pi0_edge::{CameraFrame, FrameError, Pixels, Plane, Yuv};

/// R, G, B.
pub const PI0_PIXELS_RGB: u32 = 0;
/// B, G, R.
pub const PI0_PIXELS_BGR: u32 = 1;
/// R, G, B and a byte that is left out.
pub const PI0_PIXELS_RGBA: u32 = 2;
/// B, G, R and a byte that is left out.
pub const PI0_PIXELS_BGRA: u32 = 3;
/// One byte that is R, G and B.
pub const PI0_PIXELS_GREY: u32 = 4;
/// Y, Cb, Y, Cr for two pixels, also called YUY2. The width is even.
pub const PI0_PIXELS_YUYV: u32 = 5;
/// Cb, Y, Cr, Y for two pixels. The width is even.
pub const PI0_PIXELS_UYVY: u32 = 6;
/// A plane of Y, and one of half as many rows with Cb, Cr for two by two pixels. Width and height are even.
pub const PI0_PIXELS_NV12: u32 = 7;

/// ITU-R BT.601, Y from 16 to 235 and Cb, Cr from 16 to 240: USB cameras, unless they say otherwise.
pub const PI0_YUV_BT601_LIMITED: u32 = 0;
/// ITU-R BT.601, all from 0 to 255: JPEG.
pub const PI0_YUV_BT601_FULL: u32 = 1;
/// ITU-R BT.709, Y from 16 to 235 and Cb, Cr from 16 to 240: video of 720 rows and more.
pub const PI0_YUV_BT709_LIMITED: u32 = 2;
/// ITU-R BT.709, all from 0 to 255.
pub const PI0_YUV_BT709_FULL: u32 = 3;

/// A camera's frame as its driver has it: 8 bits a value, rows from the top, each `row_bytes` after the one before. The
/// last row need not be followed by a gap. Borrows the pixels for as long as a call takes.
///
/// Pixels that share one pair of Cb and Cr, two or four of them, each get that pair.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pi0_camera_frame {
    /// `sizeof(pi0_camera_frame)`.
    pub struct_size: usize,
    /// `PI0_PIXELS_...`
    pub format: u32,
    /// `PI0_YUV_...`, what Y, Cb and Cr were made with; other formats have no use for it.
    pub yuv: u32,
    /// Pixels in a row, 1 to 16384.
    pub width: u32,
    /// Rows, 1 to 16384.
    pub height: u32,
    /// The pixels; of NV12, the plane of Y.
    pub data: *const u8,
    /// Bytes that are there. A frame that ends before its last row does is refused.
    pub data_size: usize,
    /// From one row to the next.
    pub row_bytes: usize,
    /// Of NV12, the plane of Cb and Cr: often `data + height * row_bytes`. NULL for other formats.
    pub chroma: *const u8,
    /// Bytes that are there.
    pub chroma_size: usize,
    /// From one row of it to the next.
    pub chroma_row_bytes: usize,
}
grows!(pi0_camera_frame, chroma_row_bytes);

impl Default for pi0_camera_frame {
    fn default() -> Self {
        zeroed()
    }
}

impl From<FrameError> for Fail {
    fn from(error: FrameError) -> Self {
        let status = if error == FrameError::NoCamera { PI0_ERR_ARGUMENT } else { PI0_ERR_SIZE };
        Fail::new(status, error.as_str())
    }
}

/// The caller's frame, as Rust has it.
///
/// # Safety
/// `frame` and its pointers are as the structure's documentation says.
pub(super) unsafe fn camera_frame<'a>(frame: *const pi0_camera_frame) -> Result<CameraFrame<'a>> {
    // SAFETY: as the caller promises.
    let given = unsafe { read_settings(frame, "frame is NULL") }?;
    let yuv = match given.yuv {
        PI0_YUV_BT601_LIMITED => Yuv::Bt601Limited,
        PI0_YUV_BT601_FULL => Yuv::Bt601Full,
        PI0_YUV_BT709_LIMITED => Yuv::Bt709Limited,
        PI0_YUV_BT709_FULL => Yuv::Bt709Full,
        _ => return Err(Fail::argument("the frame's yuv is none of PI0_YUV_...")),
    };
    // SAFETY: as the caller promises.
    let data = unsafe { slice(given.data, given.data_size, "the frame's data is NULL or too large") }?;
    let data = Plane { data, row_bytes: given.row_bytes };
    if given.format != PI0_PIXELS_NV12 && !given.chroma.is_null() {
        return Err(Fail::argument("the frame has a plane of chroma, and its format has none"));
    }
    let pixels = match given.format {
        PI0_PIXELS_RGB => Pixels::Rgb(data),
        PI0_PIXELS_BGR => Pixels::Bgr(data),
        PI0_PIXELS_RGBA => Pixels::Rgba(data),
        PI0_PIXELS_BGRA => Pixels::Bgra(data),
        PI0_PIXELS_GREY => Pixels::Grey(data),
        PI0_PIXELS_YUYV => Pixels::Yuyv(data, yuv),
        PI0_PIXELS_UYVY => Pixels::Uyvy(data, yuv),
        PI0_PIXELS_NV12 => {
            let what = "the frame's chroma is NULL or too large";
            // SAFETY: as the caller promises.
            let chroma = unsafe { slice(given.chroma, given.chroma_size, what) }?;
            let chroma = Plane { data: chroma, row_bytes: given.chroma_row_bytes };
            Pixels::Nv12 { luma: data, chroma, yuv }
        }
        _ => return Err(Fail::argument("the frame's format is none of PI0_PIXELS_...")),
    };
    Ok(CameraFrame { pixels, width: given.width, height: given.height })
}

/// Writes a camera's frame as RGB, `height * width * 3` bytes without gaps, which `rgb_size` must be: for
/// `pi0_policy_infer`. The runtime's slots have `pi0_observation_writer_convert_frame`. `rgb` is no part of the frame;
/// `error` may be NULL.
///
/// RT-safe: yes. Thread: any.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_STRUCT_SIZE, PI0_ERR_ARGUMENT (no such format or matrix, or a plane too many),
/// PI0_ERR_SIZE (a side is 0, above 16384 or odd where it must be even, rows overlap, or a plane ends before its last row
/// does), PI0_ERR_PANIC.
#[unsafe(no_mangle)]
#[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
pub unsafe extern "C" fn pi0_camera_frame_to_rgb(
    frame: *const pi0_camera_frame,
    rgb: *mut u8,
    rgb_size: usize,
    error: *mut pi0_error,
) -> pi0_status {
    let body = || {
        // SAFETY: `frame` is NULL or as the structure's documentation says.
        let frame = unsafe { camera_frame(frame) }?;
        // SAFETY: `rgb` has `rgb_size` bytes, as documented.
        let rgb = unsafe { slice_mut(rgb, rgb_size, "rgb") }?;
        Ok(frame.write_rgb(rgb)?)
    };
    // SAFETY: `error` is NULL or a structure, as documented.
    unsafe { guard_with(error, body) }
}
