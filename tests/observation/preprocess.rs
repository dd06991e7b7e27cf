//! Which images become which views, and what becomes of the state.

use crate::bundle_support::{Fixture, assert_refused};
use pi0_edge::bundle::Manifest;
use pi0_edge::internals::Preprocessor;
use pi0_edge::{ErrorKind, Frame, Observation};
use serde_json::json;

const BASE: &str = "observation.images.base";
const WRIST: &str = "observation.images.wrist";
const SIDE: &str = "observation.images.side";
const TOP: &str = "observation.images.top";

fn manifest() -> serde_json::Value {
    Fixture::new().manifest_json()
}

fn preprocessor(manifest: &serde_json::Value) -> Preprocessor {
    Preprocessor::new(&Manifest::parse(manifest.to_string().as_bytes()).unwrap())
}

/// A frame of the view's own size and one grey.
fn grey(level: u8) -> Vec<u8> {
    vec![level; 28 * 42 * 3]
}

fn select(preprocessor: &mut Preprocessor, keys: &[&str]) -> pi0_edge::Result<usize> {
    let data = grey(0);
    let frame = Frame::new(&data, 42, 28).unwrap();
    let images: Vec<_> = keys.iter().map(|&key| (key, frame)).collect();
    preprocessor.select_views(&Observation { images: &images, ..Default::default() })
}

#[test]
fn views_are_packed_in_policy_order() {
    let (black, white) = (grey(0), grey(255));
    let images = [(SIDE, Frame::new(&white, 42, 28).unwrap()), (TOP, Frame::new(&black, 42, 28).unwrap())];
    let observation = Observation { images: &images, ..Default::default() };
    let mut p = preprocessor(&manifest());
    assert_eq!(p.select_views(&observation).unwrap(), 2);
    let mut pixels = vec![f32::NAN; 2 * p.view_len()];
    p.write_pixels(&observation, &mut pixels).unwrap();
    let (base, side) = pixels.split_at(p.view_len());
    assert!(base.iter().all(|&v| v == -1.0) && side.iter().all(|&v| v == 1.0));
}

#[test]
fn a_buffer_of_another_length_is_refused() {
    let data = grey(0);
    let images = [(BASE, Frame::new(&data, 42, 28).unwrap())];
    let observation = Observation { images: &images, ..Default::default() };
    let mut p = preprocessor(&manifest());
    let mut pixels = vec![0.0; 2 * p.view_len()];
    assert_refused(
        p.write_pixels(&observation, &mut pixels),
        ErrorKind::InvalidArgument,
        &["1 views are 3528 elements, the buffer has 7056"],
    );
}

#[test]
fn any_set_of_cameras_with_the_required_ones_will_do() {
    let mut p = preprocessor(&manifest());
    for (keys, views) in [
        (vec![BASE], 1),
        (vec![TOP], 1),
        (vec![WRIST, BASE], 2),
        (vec![SIDE, WRIST, TOP], 3),
        // And again, after one with more.
        (vec![BASE], 1),
    ] {
        assert_eq!(select(&mut p, &keys).unwrap(), views, "{keys:?}");
    }
    let mut json = manifest();
    json["cameras"][0]["required"] = json!(false);
    assert_eq!(select(&mut preprocessor(&json), &[SIDE]).unwrap(), 1);
}

#[test]
fn images_that_do_not_fit_the_policy_are_refused() {
    let mut p = preprocessor(&manifest());
    for (keys, words) in [
        (vec![], vec!["\"observation.images.base\" is required and missing", "the observation has none"]),
        (vec![WRIST], vec!["\"observation.images.base\" is required", "has observation.images.wrist"]),
        (
            vec![BASE, "observation.images.rear"],
            vec!["\"observation.images.rear\" is no camera", BASE, WRIST, SIDE, TOP],
        ),
        (vec![BASE, "base"], vec!["\"base\" is no camera"]),
        (vec![BASE, BASE], vec!["\"observation.images.base\" is given twice"]),
        (
            vec![BASE, TOP],
            vec!["is given twice, as \"observation.images.base\" and as \"observation.images.top\""],
        ),
        (vec![BASE, "observation.joints"], vec!["\"observation.joints\" is no camera"]),
    ] {
        assert_refused(select(&mut p, &keys), ErrorKind::Observation, &words);
    }
    let mut json = manifest();
    json["cameras"][0]["required"] = json!(false);
    assert_refused(
        select(&mut preprocessor(&json), &[]),
        ErrorKind::Observation,
        &["there is no image", BASE, SIDE],
    );
}

#[test]
fn a_rename_that_swaps_two_cameras_swaps_them() {
    let mut json = manifest();
    json["rename"] = json!({BASE: WRIST, WRIST: BASE});
    let (black, white) = (grey(0), grey(255));
    let images = [(BASE, Frame::new(&black, 42, 28).unwrap()), (WRIST, Frame::new(&white, 42, 28).unwrap())];
    let mut p = preprocessor(&json);
    let mut pixels = vec![f32::NAN; 2 * p.view_len()];
    p.write_pixels(&Observation { images: &images, ..Default::default() }, &mut pixels).unwrap();
    assert_eq!((pixels[0], pixels[p.view_len()]), (1.0, -1.0));
}

#[test]
fn a_frame_that_cannot_be_scaled_is_named() {
    let data = vec![0; 2000 * 3];
    let images = [(BASE, Frame::new(&data, 1, 2000).unwrap())];
    let mut p = preprocessor(&manifest());
    let mut pixels = vec![0.0; p.view_len()];
    assert_refused(
        p.write_pixels(&Observation { images: &images, ..Default::default() }, &mut pixels),
        ErrorKind::Observation,
        &["camera observation.images.base", "1x2000 pixels is too narrow"],
    );
}

#[test]
fn the_state_is_normalised_and_padded_with_zeros() {
    let p = preprocessor(&manifest());
    let mut dst = [f32::NAN; 9];
    assert_eq!(p.state_len(), 9);
    p.write_state(&[2.5, -1.0, 0.5], &mut dst).unwrap();
    assert_eq!(dst, [1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
}

#[test]
fn a_state_that_is_not_one_is_refused() {
    let p = preprocessor(&manifest());
    let mut dst = [0.0; 9];
    for len in [0, 2, 4, 9] {
        let words = format!("the state has {len} entries, the bundle's has 3");
        assert_refused(p.write_state(&vec![0.0; len], &mut dst), ErrorKind::Observation, &[&words]);
    }
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_refused(p.write_state(&[0.0, bad, 0.0], &mut dst), ErrorKind::NonFinite, &["state[1] is"]);
    }
    // Finite before, not after: the division by a deviation of 0.25 leaves the range of f32.
    let huge = [0.0, f32::MAX, 0.0];
    assert_refused(p.write_state(&huge, &mut dst), ErrorKind::NonFinite, &["state[1] = ", "becomes inf"]);
    assert_refused(
        p.write_state(&[0.0; 3], &mut [0.0; 8]),
        ErrorKind::InvalidArgument,
        &["9 entries", "has 8"],
    );
}

#[test]
fn a_state_that_training_padded_is_padded_before_it_is_normalised() {
    let mut json = manifest();
    json["state"]["normalized_dim"] = json!(5);
    json["state"]["normalization"] = json!({
        "mode": "quantile_range", "eps": 1e-6, "q01": [0, 0, 0, 0, 0], "q99": [2, 4, 8, 0, 0]
    });
    let p = preprocessor(&json);
    let mut state = [f32::NAN; 9];
    p.write_state(&[1.0, 1.0, 8.0], &mut state).unwrap();
    for (value, expected) in state.iter().zip([0.0, -0.5, 1.0, -1.0, -1.0, 0.0, 0.0, 0.0, 0.0]) {
        assert!((value - expected).abs() < 2e-6, "{state:?}");
    }
    assert_refused(p.write_state(&[0.0; 5], &mut state), ErrorKind::Observation, &["5 entries", "has 3"]);
}

#[test]
fn a_state_of_aloha_is_converted_before_it_is_normalised() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/pi0-openpi/manifest.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    json["adapt_to_pi"] = json!(true);
    for feature in ["state", "action"] {
        json[feature]["dim"] = json!(14);
        json[feature]["names"] = json!(null);
        json[feature]["normalization"] =
            json!({"mode": "z_score", "eps": 0, "mean": vec![0.0; 14], "std": vec![0.5; 14]});
    }
    json["action"]["relative_mask"] = json!(null);
    let mut state = [f32::NAN; 32];
    preprocessor(&json).write_state(&[0.5; 14], &mut state).unwrap();
    let arm = [1.0, -1.0, -1.0, 1.0, 1.0, 1.0, -0.280_111_84];
    for (value, expected) in state.iter().zip(arm.iter().chain(&arm).chain(&[0.0; 18])) {
        assert!((value - expected).abs() < 1e-6, "{state:?}");
    }
}
