//! Resizing held against what lerobot 0.6.1 computed with torch 2.11 on a CPU for the same frames.

use crate::bundle_support::{Fixture, noise_frame};
use pi0_edge::bundle::Manifest;
use pi0_edge::internals::Preprocessor;
use pi0_edge::{Frame, Observation};

/// Twelve of the values that `resize_with_pad_torch(frame / 255) * 2 - 1` has, channels first: size of the frame, size
/// of the view, values at the places that [`place`] gives. Sizes are (height, width).
type Case = ((usize, usize), (usize, usize), [f32; 12]);
#[rustfmt::skip]
#[allow(clippy::excessive_precision, reason = "digits as torch printed them")]
const TORCH: &[Case] = &[
    ((480, 640), (224, 224), [-0.36934853, -0.19836515, 0.6435381, 0.18290615, 0.048869133, -1.0, -1.0, -0.022679985, 0.36438787, 0.20580256, 0.19992435, 0.6004435]),
    ((720, 1280), (224, 224), [-0.471587, -0.57749444, -0.16251427, -0.7817943, -1.0, -1.0, -1.0, -1.0, 0.10272169, 0.16270566, -0.22221625, -0.008006752]),
    ((376, 672), (224, 224), [0.37898338, -0.2837603, 0.27542531, -0.09394914, -1.0, -1.0, -1.0, -1.0, 0.46710587, 0.5488051, -0.20336068, -0.8755132]),
    ((100, 116), (224, 224), [0.63425756, -0.44019902, 0.32014048, 0.38505387, -0.08507025, -1.0, -1.0, 0.52801824, -0.5870837, 0.32581043, 0.6604693, 0.025686264]),
    ((64, 48), (56, 56), [-1.0, 0.06750667, 0.34761894, -0.57547295, 0.5177655, -0.17150718, -1.0, -1.0, 0.253384, -1.0, -1.0, -0.84961665]),
    ((33, 57), (56, 56), [0.76967347, -1.0, -0.07477754, 0.024714231, -1.0, -0.3033198, -1.0, 0.08855593, -1.0, -0.10609347, -1.0, -0.13770133]),
    ((20, 30), (56, 56), [-0.028934002, -1.0, 0.036124825, 0.24334896, -0.3214286, -0.039085507, -1.0, -0.7823008, -1.0, 0.728493, -1.0, 0.2588483]),
    ((224, 224), (224, 224), [0.52156866, 0.3411765, -0.9137255, -0.6156863, 0.7254902, 0.427451, -0.60784316, -0.15294117, 0.20784318, 0.8352941, 0.41176474, 0.64705884]),
    ((7, 5), (56, 84), [-1.0, -1.0, -0.1730392, -1.0, 0.5492035, -1.0, -1.0, 0.5749388, -1.0, -0.20606613, -1.0, -1.0]),
    ((640, 480), (224, 224), [-1.0, 0.009651184, -0.24446082, 0.043417692, -0.477543, 0.18872786, -1.0, 0.0013973713, -0.14718032, -1.0, -1.0, 0.2516291]),
    ((1, 1), (28, 28), [0.33333337, 0.30196083, 0.33333337, 0.30196083, -0.8666667, 0.30196083, -0.8666667, 0.33333337, 0.30196083, -0.8666667, 0.33333337, 0.30196083]),
    ((300, 301), (56, 40), [0.5402298, -0.2143138, -1.0, -0.357907, 0.87860894, 0.3523717, -0.31690365, -0.13435167, -1.0, -1.0, 0.08849549, 0.7271613]),
    ((1080, 1920), (224, 224), [-0.25253856, 0.12527192, -0.21316415, 0.38231945, -1.0, -1.0, -1.0, -1.0, 0.1255753, 0.49074388, 0.57660615, -0.16894054]),
    ((112, 224), (224, 224), [-0.6, -0.24705881, -0.99215686, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -0.7254902, 0.45882356, 0.2313726]),
];

fn place(k: usize, len: usize) -> usize {
    (k * 104_729 + len / 2 + 17 * k * k) % len
}

#[test]
fn views_are_those_of_torch_within_f32_rounding() {
    for &((height, width), (view_height, view_width), torch) in TORCH {
        let mut manifest = Manifest::parse(Fixture::new().manifest_json().to_string().as_bytes()).unwrap();
        manifest.dimensions.image_height = view_height;
        manifest.dimensions.image_width = view_width;
        let mut preprocessor = Preprocessor::new(&manifest);
        let data = noise_frame(height, width);
        let images = [("observation.images.base", Frame::new(&data, width as u32, height as u32).unwrap())];
        let mut view = vec![f32::NAN; preprocessor.view_len()];
        preprocessor.write_pixels(&Observation { images: &images, ..Default::default() }, &mut view).unwrap();
        for (k, torch) in torch.into_iter().enumerate() {
            let ours = view[place(k, view.len())];
            // torch fuses some products with their sums; which ones is up to its compiler.
            assert!((ours - torch).abs() <= 5e-7, "{height}x{width}, value {k}: {ours}, torch {torch}");
        }
    }
}
