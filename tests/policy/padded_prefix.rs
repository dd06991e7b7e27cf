//! A bundle whose prefix is padded to a few lengths gives what the one with the exact prefix gives, stage by stage.

use std::path::Path;

use crate::common::Scene;
use crate::common::exports::Exports;
use pi0_edge::{DeviceMemory, InferOptions, Noise, Policy, PolicyOptions, StageOutput};

fn load(bundle: &Path, device_memory: DeviceMemory) -> Policy {
    Policy::load(bundle, &PolicyOptions { threads: 2, device_memory, ..PolicyOptions::default() }).unwrap()
}

/// Every stage and the chunk of scenes with prefixes of several lengths, longer and shorter in turn.
fn everything(policy: &mut Policy) -> Vec<(String, Vec<f32>)> {
    let mut all = Vec::new();
    let scenes = [
        (&[0, 1][..], "pick up the cube"),
        (&[0, 1, 2], "put the red cube into the box on the left"),
        (&[0, 1], "wipe"),
        (&[0, 1, 2], "open the drawer"),
    ];
    for (number, (cameras, prompt)) in scenes.into_iter().enumerate() {
        let mut scene = Scene::new(policy, cameras, prompt);
        // In PI0.5's prompt, so that lengths differ there too.
        scene.state.iter_mut().for_each(|s| *s *= 1.0 + number as f32);
        let options = InferOptions { noise: Noise::Seed(number as u64), num_steps: Some(4), guidance: None };
        let mut keep = |stage| {
            let (name, values) = match stage {
                StageOutput::ImageEmbeds(v) => ("image embeddings".to_owned(), v),
                StageOutput::Keys(layer, v) => (format!("keys {layer}"), v),
                StageOutput::Values(layer, v) => (format!("values {layer}"), v),
                StageOutput::Velocity(step, v) => (format!("velocity {step}"), v),
                _ => return Ok(()),
            };
            all.push((format!("scene {number} {name}"), values));
            Ok(())
        };
        let chunk =
            scene.with(|o| policy.inspect_mut().infer_observed(o, &options, &mut keep).cloned()).unwrap();
        all.push((format!("scene {number} actions"), chunk.as_slice().to_vec()));
    }
    all
}

fn assert_equal(found: &[(String, Vec<f32>)], expected: &[(String, Vec<f32>)], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for ((name, found), (other, expected)) in found.iter().zip(expected) {
        assert_eq!((name, found.len()), (other, expected.len()));
        let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() <= tolerance * largest, "{name}: {f} instead of {e}");
        }
    }
}

#[test]
fn padding_changes_nothing() {
    for policy in ["pi0", "pi05"] {
        let exports = Exports::of(policy, "tiny");
        let expected = everything(&mut load(&exports.bundle("exact", &[]), DeviceMemory::Auto));
        // A few lengths, and one for all.
        for bucket in ["16", "512"] {
            let bundle = exports.bundle(bucket, &["--prefix-bucket", bucket]);
            let mut padded = load(&bundle, DeviceMemory::Auto);
            let found = everything(&mut padded);
            assert_equal(&found, &expected, 1e-6);
            // The rows that fill it up are never taken from what was there before.
            padded.inspect_mut().poison().unwrap();
            assert!(everything(&mut padded) == found, "{policy} {bucket}");
            let mut separate = load(&bundle, DeviceMemory::Separate);
            assert!(everything(&mut separate) == found, "{policy} {bucket}, separate memory");
        }
    }
}

#[test]
fn padding_changes_nothing_in_half_precision() {
    let exports = Exports::of("pi0", "tiny");
    let exact = exports.bundle("exact", &["--precision", "fp16"]);
    let padded = exports.bundle("padded", &["--precision", "fp16", "--prefix-bucket", "64"]);
    let expected = everything(&mut load(&exact, DeviceMemory::Auto));
    assert_equal(&everything(&mut load(&padded, DeviceMemory::Auto)), &expected, 2e-3);
}

#[test]
fn within_a_bucket_nothing_moves_and_no_shape_changes() {
    let exports = Exports::of("pi05", "tiny");
    let mut policy = load(&exports.bundle("padded", &["--prefix-bucket", "512"]), DeviceMemory::Auto);
    let mut bound = Vec::new();
    let mut lengths = Vec::new();
    for prompt in ["pick up the cube", "put the red cube into the box on the left"] {
        let scene = Scene::new(&policy, &[0, 1], prompt);
        scene.with(|o| policy.infer(o, &InferOptions::default()).map(|_| ())).unwrap();
        lengths.push(policy.inspect().prefix_len());
        bound.push(
            policy.inspect().bound_ports().map(|(g, p, a, n)| (g, p.to_owned(), a, n)).collect::<Vec<_>>(),
        );
    }
    assert_ne!(lengths[0], lengths[1], "prompts of two lengths");
    assert_eq!(bound[0], bound[1]);
}

#[test]
fn a_bucket_without_its_input_is_refused() {
    let exports = Exports::of("pi0", "tiny");
    let bundle = exports.bundle("exact", &[]);
    let manifest = bundle.join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replacen('{', "{\"prefix_bucket\": 16,", 1)).unwrap();
    let error = Policy::load(&bundle, &PolicyOptions::default()).unwrap_err().to_string();
    assert!(error.contains("prefix_bias"), "{error}");
}
