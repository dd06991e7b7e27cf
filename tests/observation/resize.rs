//! Resizing held against a plain, slow version of its definition in f64, over sizes of all proportions.

use crate::bundle_support::Fixture;
use pi0_edge::bundle::Manifest;
use pi0_edge::internals::Preprocessor;
use pi0_edge::{Frame, Observation};
use proptest::prelude::*;

const CAMERA: &str = "observation.images.base";

fn preprocessor(height: usize, width: usize, pad: f32) -> Preprocessor {
    let mut manifest = Manifest::parse(Fixture::new().manifest_json().to_string().as_bytes()).unwrap();
    manifest.dimensions.image_height = height;
    manifest.dimensions.image_width = width;
    manifest.image.pad_value = pad;
    Preprocessor::new(&manifest)
}

/// One line's source position of a target index: f32 as the policy computes it, the rest of the oracle is f64.
fn position(i: usize, source: usize, target: usize) -> f64 {
    let scale = f64::from(source as f32 / target as f32);
    f64::from((scale * (i as f64 + 0.5) - 0.5).max(0.0) as f32)
}

fn oracle(data: &[u8], source: (usize, usize), target: (usize, usize), pad: f64) -> Option<Vec<f64>> {
    let pixel = |y: usize, x: usize, c: usize| f64::from(data[(y * source.1 + x) * 3 + c]) / 255.0;
    let (height, width) = if source == target {
        target
    } else {
        let ratio = (source.1 as f64 / target.1 as f64).max(source.0 as f64 / target.0 as f64);
        ((source.0 as f64 / ratio).trunc() as usize, (source.1 as f64 / ratio).trunc() as usize)
    };
    if height == 0 || width == 0 {
        return None;
    }
    let (top, left) = ((target.0 - height) / 2, (target.1 - width) / 2);
    let mut view = vec![pad; 3 * target.0 * target.1];
    for c in 0..3 {
        for y in 0..height {
            for x in 0..width {
                let (sy, sx) = (position(y, source.0, height), position(x, source.1, width));
                let (y0, x0) = (sy.floor() as usize, sx.floor() as usize);
                let (y1, x1) = ((y0 + 1).min(source.0 - 1), (x0 + 1).min(source.1 - 1));
                let (fy, fx) = (sy - y0 as f64, sx - x0 as f64);
                let above = pixel(y0, x0, c) * (1.0 - fx) + pixel(y0, x1, c) * fx;
                let below = pixel(y1, x0, c) * (1.0 - fx) + pixel(y1, x1, c) * fx;
                let value = (above * (1.0 - fy) + below * fy).clamp(0.0, 1.0) * 2.0 - 1.0;
                view[(c * target.0 + top + y) * target.1 + left + x] = value;
            }
        }
    }
    Some(view)
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

fn check(
    preprocessor: &mut Preprocessor,
    source: (usize, usize),
    target: (usize, usize),
    pad: f32,
    seed: u64,
) {
    let data = noise(source.0 * source.1 * 3, seed);
    let images = [(CAMERA, Frame::new(&data, source.1 as u32, source.0 as u32).unwrap())];
    let observation = Observation { images: &images, ..Default::default() };
    let mut view = vec![f32::NAN; preprocessor.view_len()];
    let written = preprocessor.write_pixels(&observation, &mut view);
    match oracle(&data, source, target, f64::from(pad)) {
        None => assert!(written.unwrap_err().to_string().contains("too narrow")),
        Some(expected) => {
            written.unwrap();
            for (i, (ours, expected)) in view.iter().zip(expected).enumerate() {
                assert!(
                    (f64::from(*ours) - expected).abs() <= 5e-7,
                    "{source:?} to {target:?}, element {i}: {ours}, oracle {expected}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_size_to_any_size(
        source in (1..150usize, 1..150usize),
        target in (1..80usize, 1..80usize),
        pad in prop_oneof![Just(-1f32), Just(-3f32)],
        seed in any::<u64>(),
    ) {
        check(&mut preprocessor(target.0, target.1, pad), source, target, pad, seed);
    }

    /// The same preprocessor over frames that change size: nothing of the frame before may be left.
    #[test]
    fn sizes_may_change_between_frames(sources in proptest::collection::vec((1..90usize, 1..90usize), 1..6), seed in any::<u64>()) {
        let mut preprocessor = preprocessor(28, 42, -1.0);
        for source in sources {
            check(&mut preprocessor, source, (28, 42), -1.0, seed);
        }
    }
}

#[test]
fn cameras_of_the_field() {
    for source in [(480, 640), (100, 116), (720, 1280), (376, 672), (1080, 1920)] {
        check(&mut preprocessor(224, 224, -1.0), source, (224, 224), -1.0, 7);
    }
}
