//! Antialiased resizing equals Pillow's to the last bit, over sizes of all proportions.

use std::collections::HashMap;

use crate::bundle_support::{Fixture, noise_frame};
use pi0_edge::bundle::Manifest;
use pi0_edge::internals::Preprocessor;
use pi0_edge::{Frame, Observation};
use sha2::{Digest, Sha256};

fn preprocessor(height: usize, width: usize) -> Preprocessor {
    let mut manifest = Manifest::parse(Fixture::new().manifest_json().to_string().as_bytes()).unwrap();
    manifest.dimensions.image_height = height;
    manifest.dimensions.image_width = width;
    manifest.image.antialias = true;
    Preprocessor::new(&manifest)
}

/// Sizes and hashes as `scripts/tests_reference/pillow_sizes.py` writes them; `PI0_PILLOW_SIZES` names a longer list.
#[test]
fn views_are_pillows_to_the_last_bit() {
    let list = match std::env::var_os("PI0_PILLOW_SIZES") {
        Some(path) => std::fs::read_to_string(path).expect("the list that PI0_PILLOW_SIZES names"),
        None => include_str!("pillow_sizes.txt").to_owned(),
    };
    let bytes: HashMap<u32, u8> =
        (0..=255u8).map(|byte| ((f32::from(byte) / 255.0 * 2.0 - 1.0).to_bits(), byte)).collect();
    // One preprocessor for all frames of a view's size: nothing of the frame before may be left.
    let mut preprocessors = HashMap::new();
    let mut count = 0;
    for line in list.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [height, width, view_height, view_width] =
            std::array::from_fn(|i| fields[i].parse::<usize>().expect("a size"));
        let preprocessor = preprocessors
            .entry((view_height, view_width))
            .or_insert_with(|| preprocessor(view_height, view_width));
        let data = noise_frame(height, width);
        let images = [("observation.images.base", Frame::new(&data, width as u32, height as u32).unwrap())];
        let mut view = vec![f32::NAN; preprocessor.view_len()];
        preprocessor.write_pixels(&Observation { images: &images, ..Default::default() }, &mut view).unwrap();
        let mut hash = Sha256::new();
        let plane = view_height * view_width;
        for pixel in 0..plane {
            hash.update([0, 1, 2].map(|channel| bytes[&view[channel * plane + pixel].to_bits()]));
        }
        let hash: String = hash.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect();
        assert_eq!(hash, fields[4], "{height}x{width} in {view_height}x{view_width}");
        count += 1;
    }
    assert!(count >= 300, "{count} sizes only");
}

/// A frame's short side comes out the same with and without antialiasing.
#[test]
fn a_frame_too_narrow_is_an_error() {
    let data = vec![0; 3 * 3000];
    let images = [("observation.images.base", Frame::new(&data, 1, 3000).unwrap())];
    let mut preprocessor = preprocessor(224, 224);
    let mut view = vec![0.0; preprocessor.view_len()];
    let error = preprocessor.write_pixels(&Observation { images: &images, ..Default::default() }, &mut view);
    assert!(error.unwrap_err().to_string().contains("too narrow"));
}
