//! Frames in files: PNG and JPEG as Pillow's `Image.open(file).convert("RGB")` reads them, and lerobot with it.
//!
//! So transparency is dropped, of 16 bits the upper 8 are kept, grey of 16 bits is cut off at 255, an animation is its
//! first picture, and neither a gamma nor the orientation that a camera noted is applied. A file that is cut short is
//! an error. PNG is read exactly; of a JPEG, whose decoders round differently, a byte may differ by up to 3.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};
use pi0_edge::MAX_FRAME_SIDE;

/// Largest file of a frame, in bytes.
pub const MAX_IMAGE_BYTES: u64 = 64 << 20;
/// Most pixels of a frame: those of an 8K camera.
const MAX_PIXELS: u64 = 1 << 25;

/// Decodes a file's content to RGB; says in what it is not such an image.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, String> {
    let format = match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg)) => format,
        Ok(other) => return Err(format!("it is a {other:?} image; a frame is a PNG or a JPEG")),
        Err(_) if bytes.is_empty() => return Err("it is empty".into()),
        Err(_) => return Err("it is neither a PNG nor a JPEG".into()),
    };
    if format == ImageFormat::Jpeg && !has_end(bytes) {
        return Err("it is cut short: a JPEG without its end".into());
    }
    let fail = |e: image::ImageError| e.to_string();
    let decoder = ImageReader::with_format(Cursor::new(bytes), format).into_decoder().map_err(fail)?;
    // Looked at before room is made for the pixels.
    let (width, height) = decoder.dimensions();
    if width.max(height) > MAX_FRAME_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!(
            "it has {width} × {height} pixels; at most {MAX_FRAME_SIDE} a side and {MAX_PIXELS} in all"
        ));
    }
    let image = DynamicImage::from_decoder(decoder).map_err(fail)?;
    // Bit depth and colour type of a PNG's header: grey alone.
    let clips = format == ImageFormat::Png && bytes.get(24..26) == Some(&[16, 0]);
    Ok(match image.color().bits_per_pixel() / u16::from(image.color().channel_count()) {
        8 => image.into_rgb8(),
        _ => narrow(image, |sample| if clips { sample.min(255) as u8 } else { (sample >> 8) as u8 }),
    })
}

fn narrow(image: DynamicImage, narrow: impl Fn(u16) -> u8) -> RgbImage {
    let image = image.into_rgb16();
    RgbImage::from_fn(image.width(), image.height(), |x, y| image::Rgb(image.get_pixel(x, y).0.map(&narrow)))
}

/// Tells whether a JPEG has the marker at its end: the decoder fills with grey what a file cut short lacks.
fn has_end(jpeg: &[u8]) -> bool {
    let mut rest = jpeg;
    while let Some(at) = rest.iter().position(|&byte| byte == 0xff) {
        rest = match rest[at + 1..] {
            [0xd9, ..] => return true,
            // A byte of data that is no marker, and markers without a length.
            [0 | 1 | 0xd0..=0xd8, ref rest @ ..] => rest,
            [0xff, ..] => &rest[at + 1..],
            [_, ref segment @ ..] => {
                let length = segment.first_chunk().map_or(usize::MAX, |n| u16::from_be_bytes(*n).into());
                segment.get(length..).unwrap_or_default()
            }
            [] => return false,
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    fn images(extension: &str) -> Vec<PathBuf> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images");
        let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let files: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
        assert!(files.len() > 8, "{files:?}");
        files
    }

    /// Returns the largest difference of a byte from what Pillow reads.
    fn difference(file: &Path) -> u8 {
        let image = decode(&std::fs::read(file).unwrap()).unwrap();
        assert_eq!(image.dimensions(), (17, 13), "{}", file.display());
        let pillow = std::fs::read(file.with_extension("rgb")).unwrap();
        assert_eq!(image.len(), pillow.len());
        image.iter().zip(&pillow).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
    }

    #[test]
    fn png_is_what_pillow_reads() {
        images("png").iter().for_each(|file| assert_eq!(difference(file), 0, "{}", file.display()));
    }

    #[test]
    fn jpeg_is_what_pillow_reads_but_for_rounding() {
        images("jpg").iter().for_each(|file| assert!(difference(file) <= 3, "{}", file.display()));
    }

    #[test]
    fn a_file_cut_short_is_refused_wherever_it_is_cut() {
        for file in images("jpg").into_iter().chain(images("png")) {
            let whole = std::fs::read(&file).unwrap();
            // Of a PNG, the end may be missing, which has no pixels.
            let needed = whole.len() - if file.extension().is_some_and(|e| e == "png") { 16 } else { 0 };
            for length in 0..needed {
                assert!(decode(&whole[..length]).is_err(), "{} {length}", file.display());
            }
        }
    }

    #[test]
    fn other_formats_are_named() {
        for (bytes, words) in [
            (&b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0"[..], "it is a Bmp image; a frame is a PNG or a JPEG"),
            (b"RIFF\x3e\0\0\0WEBPVP8 ", "it is a WebP image"),
            (b"GIF89a\x01\0\x01\0", "it is a Gif image"),
            (b"", "it is empty"),
            (b"<svg>", "neither a PNG nor a JPEG"),
        ] {
            let error = decode(bytes).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_picture_too_large_is_refused_by_its_header() {
        let mut bytes = std::fs::read(&images("png")[0]).unwrap();
        for (width, height) in [(16_385u32, 1u32), (16_384, 16_384), (u32::MAX, 1)] {
            bytes[16..20].copy_from_slice(&width.to_be_bytes());
            bytes[20..24].copy_from_slice(&height.to_be_bytes());
            let crc = crc32(&bytes[12..29]).to_be_bytes();
            bytes[29..33].copy_from_slice(&crc);
            let error = decode(&bytes).unwrap_err();
            assert!(error.contains("pixels; at most 16384") || error.contains("limit"), "{error}");
        }
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
        })
    }
}
