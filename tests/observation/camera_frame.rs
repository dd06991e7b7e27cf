//! Camera frames of every layout, against the standards' definitions in double precision.

use pi0_edge::{CameraFrame, FrameError, Pixels, Plane, Yuv};
use pi0_edge_probe::allocations::on_this_thread;

/// Red, green and blue of a Y, Cb, Cr, as ITU-R BT.601-7 and BT.709-6 define them: `Y = kr R + kg G + kb B`,
/// `Cb = (B - Y) / (2 - 2 kb)`, `Cr = (R - Y) / (2 - 2 kr)`, quantised to the range.
fn reference(yuv: Yuv, [y, cb, cr]: [u8; 3]) -> [f64; 3] {
    let (kr, kb) = match yuv {
        Yuv::Bt601Limited | Yuv::Bt601Full => (0.299, 0.114),
        Yuv::Bt709Limited | Yuv::Bt709Full => (0.2126, 0.0722),
    };
    let [y, cb, cr] = [y, cb, cr].map(f64::from);
    let (y, cb, cr) = match yuv {
        Yuv::Bt601Limited | Yuv::Bt709Limited => {
            ((y - 16.0) / 219.0, (cb - 128.0) / 224.0, (cr - 128.0) / 224.0)
        }
        Yuv::Bt601Full | Yuv::Bt709Full => (y / 255.0, (cb - 128.0) / 255.0, (cr - 128.0) / 255.0),
    };
    let red = y + cr * (2.0 - 2.0 * kr);
    let blue = y + cb * (2.0 - 2.0 * kb);
    let green = (y - kr * red - kb * blue) / (1.0 - kr - kb);
    [red, green, blue].map(|v| (v * 255.0).clamp(0.0, 255.0))
}

fn rgb(pixels: Pixels<'_>, width: u32, height: u32) -> Result<Vec<u8>, FrameError> {
    let mut out = vec![0xAB; (width * height * 3) as usize];
    let before = on_this_thread();
    let written = CameraFrame { pixels, width, height }.write_rgb(&mut out);
    assert_eq!(on_this_thread(), before, "{pixels:?}");
    if written.is_err() {
        assert!(out.iter().all(|&byte| byte == 0xAB), "{pixels:?}");
    }
    written.map(|()| out)
}

/// Rows with `gap` bytes after each but the last that no pixel is made of.
fn apart(rows: &[u8], bytes: usize, gap: usize) -> (Vec<u8>, usize) {
    let mut data = Vec::new();
    for row in rows.chunks(bytes) {
        data.extend(row);
        data.extend(vec![0xEE; gap]);
    }
    data.truncate(data.len() - gap);
    (data, bytes + gap)
}

fn plane((data, row_bytes): &(Vec<u8>, usize)) -> Plane<'_> {
    Plane { data, row_bytes: *row_bytes }
}

/// Every Y with every seventeenth Cb and Cr, both ends among them: two rows alike for each pair, 256 pixels each.
#[test]
fn yuyv_uyvy_and_nv12_are_what_the_standards_say() {
    let chroma: Vec<u8> = (0..=255).step_by(17).chain([128]).collect();
    let pairs: Vec<[u8; 2]> = chroma.iter().flat_map(|&cb| chroma.iter().map(move |&cr| [cb, cr])).collect();
    let (width, height) = (256, 2 * pairs.len() as u32);
    let rows = || pairs.iter().flat_map(|pair| [pair, pair]);
    let lumas = || (0..=254u8).step_by(2).map(|y| [y, y + 1]);
    let yuyv: Vec<u8> = rows().flat_map(|&[u, v]| lumas().flat_map(move |[a, b]| [a, u, b, v])).collect();
    let uyvy: Vec<u8> = rows().flat_map(|&[u, v]| lumas().flat_map(move |[a, b]| [u, a, v, b])).collect();
    let luma: Vec<u8> = rows().flat_map(|_| 0..=255).collect();
    let cbcr: Vec<u8> = pairs.iter().flat_map(|pair| pair.repeat(128)).collect();
    for gap in [0, 7] {
        let (yuyv, uyvy) = (apart(&yuyv, 512, gap), apart(&uyvy, 512, gap));
        let (luma, cbcr) = (apart(&luma, 256, gap), apart(&cbcr, 256, 2 * gap));
        for yuv in [Yuv::Bt601Limited, Yuv::Bt601Full, Yuv::Bt709Limited, Yuv::Bt709Full] {
            let nv12 = Pixels::Nv12 { luma: plane(&luma), chroma: plane(&cbcr), yuv };
            let out = rgb(nv12, width, height).unwrap();
            assert!(rgb(Pixels::Yuyv(plane(&yuyv), yuv), width, height).unwrap() == out, "{yuv:?}");
            assert!(rgb(Pixels::Uyvy(plane(&uyvy), yuv), width, height).unwrap() == out, "{yuv:?}");
            if gap > 0 {
                continue;
            }
            let wanted = rows().flat_map(|&[cb, cr]| (0..=255).map(move |y| [y, cb, cr]));
            for (pixel, ycc) in out.chunks_exact(3).zip(wanted) {
                // Rounded to the nearest; a tie may go either way.
                for (&got, wanted) in pixel.iter().zip(reference(yuv, ycc)) {
                    assert!((f64::from(got) - wanted).abs() < 0.501, "{yuv:?} {ycc:?}: {got}, {wanted}");
                }
            }
        }
    }
}

/// Colour bars of 100 % as the standards tabulate them: white, black, red, green and blue.
#[test]
fn pure_colours_come_back() {
    let bars = [
        (Yuv::Bt601Limited, [[235, 128, 128], [16, 128, 128], [81, 90, 240], [145, 54, 34], [41, 240, 110]]),
        (Yuv::Bt709Limited, [[235, 128, 128], [16, 128, 128], [63, 102, 240], [173, 42, 26], [32, 240, 118]]),
        (Yuv::Bt601Full, [[255, 128, 128], [0, 128, 128], [76, 85, 255], [150, 44, 21], [29, 255, 107]]),
        (Yuv::Bt709Full, [[255, 128, 128], [0, 128, 128], [54, 99, 255], [182, 30, 12], [18, 255, 116]]),
    ];
    let colours = [[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]];
    for (yuv, bars) in bars {
        for ([y, u, v], colour) in bars.into_iter().zip(colours) {
            let data = [y, u, y, v];
            let out = rgb(Pixels::Yuyv(Plane { data: &data, row_bytes: 4 }, yuv), 2, 1).unwrap();
            for (got, wanted) in out.iter().zip(colour.iter().cycle()) {
                assert!(got.abs_diff(*wanted) <= 2, "{yuv:?} {data:?}: {out:?}, {colour:?}");
            }
        }
    }
}

#[test]
fn packed_layouts_are_put_in_order() {
    let wanted: Vec<u8> = (0..5 * 3 * 3).collect();
    let packed =
        |order: &dyn Fn(&[u8]) -> Vec<u8>| wanted.chunks_exact(3).flat_map(order).collect::<Vec<u8>>();
    let bgr = packed(&|p| vec![p[2], p[1], p[0]]);
    let rgba = packed(&|p| vec![p[0], p[1], p[2], 0xCD]);
    let bgra = packed(&|p| vec![p[2], p[1], p[0], 0xCD]);
    for gap in [0, 1, 11] {
        let plane_of = |bytes: &[u8], values: usize| apart(bytes, 5 * values, gap);
        assert_eq!(rgb(Pixels::Rgb(plane(&plane_of(&wanted, 3))), 5, 3).unwrap(), wanted);
        assert_eq!(rgb(Pixels::Bgr(plane(&plane_of(&bgr, 3))), 5, 3).unwrap(), wanted);
        assert_eq!(rgb(Pixels::Rgba(plane(&plane_of(&rgba, 4))), 5, 3).unwrap(), wanted);
        assert_eq!(rgb(Pixels::Bgra(plane(&plane_of(&bgra, 4))), 5, 3).unwrap(), wanted);
        let grey: Vec<u8> = (100..115).collect();
        let wanted: Vec<u8> = grey.iter().flat_map(|&y| [y; 3]).collect();
        assert_eq!(rgb(Pixels::Grey(plane(&plane_of(&grey, 1))), 5, 3).unwrap(), wanted);
    }
}

#[test]
fn what_is_no_such_frame_is_refused_and_nothing_is_written() {
    use FrameError::{Odd, RowBytes, Short};
    let bytes = [9; 64];
    let of = |len: usize, row_bytes: usize| Plane { data: &bytes[..len], row_bytes };
    let nv12 = |luma, chroma| Pixels::Nv12 { luma, chroma, yuv: Yuv::default() };
    let yuv = Yuv::default();
    for (pixels, width, height, wanted) in [
        (Pixels::Rgb(of(24, 12)), 4, 2, None),
        (Pixels::Rgb(of(23, 12)), 4, 2, Some(Short)),
        (Pixels::Rgb(of(24, 11)), 4, 2, Some(RowBytes)),
        (Pixels::Rgb(of(24, 0)), 4, 2, Some(RowBytes)),
        (Pixels::Rgb(of(0, 12)), 4, 2, Some(Short)),
        (Pixels::Rgb(of(64, usize::MAX)), 4, 2, Some(Short)),
        (Pixels::Rgb(of(64, usize::MAX)), 4, 3, Some(Short)),
        (Pixels::Rgb(of(12, usize::MAX)), 4, 1, None),
        (Pixels::Bgra(of(31, 16)), 4, 2, Some(Short)),
        (Pixels::Grey(of(7, 4)), 4, 2, Some(Short)),
        (Pixels::Yuyv(of(64, 16), yuv), 3, 2, Some(Odd)),
        (Pixels::Uyvy(of(64, 16), yuv), 1, 2, Some(Odd)),
        (Pixels::Yuyv(of(16, 8), yuv), 4, 2, None),
        (Pixels::Yuyv(of(15, 8), yuv), 4, 2, Some(Short)),
        (Pixels::Yuyv(of(16, 7), yuv), 4, 2, Some(RowBytes)),
        (nv12(of(8, 4), of(4, 4)), 4, 2, None),
        (nv12(of(8, 4), of(3, 4)), 4, 2, Some(Short)),
        (nv12(of(7, 4), of(4, 4)), 4, 2, Some(Short)),
        (nv12(of(8, 4), of(4, 3)), 4, 2, Some(RowBytes)),
        (nv12(of(64, 4), of(64, 4)), 4, 3, Some(Odd)),
        (nv12(of(64, 4), of(64, 4)), 3, 2, Some(Odd)),
    ] {
        assert_eq!(rgb(pixels, width, height).err(), wanted, "{width}x{height} of {pixels:?}");
    }
    let error = |width, height, len: usize| {
        CameraFrame { pixels: Pixels::Rgb(of(64, 12)), width, height }
            .write_rgb(&mut vec![0; len])
            .unwrap_err()
    };
    for (width, height) in [(0, 2), (2, 0), (16385, 1), (1, 16385), (u32::MAX, u32::MAX)] {
        assert_eq!(error(width, height, 24), FrameError::Side);
    }
    for len in [0, 23, 25] {
        assert_eq!(error(4, 2, len), FrameError::Room);
    }
    assert!(error(0, 2, 0).to_string().contains("0 or above 16384"));
}
