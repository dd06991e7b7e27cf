//! No tensor between two graphs is copied: shown by address, and by poisoning everything an inference must write.

use std::collections::HashMap;

use crate::common::{Scene, every_precision, load, load_tiny};
use pi0_edge::{InferOptions, Noise, Policy, Stage};

fn addresses(policy: &Policy) -> HashMap<(String, String), (usize, usize)> {
    policy.inspect().bound_ports().map(|(g, p, a, n)| ((g.to_owned(), p.to_owned()), (a, n))).collect()
}

#[test]
fn producers_and_consumers_share_addresses() {
    every_precision().iter().for_each(|bundle| share_addresses(load(bundle).unwrap()));
}

fn share_addresses(mut policy: Policy) {
    let scene = Scene::new(&policy, &[0, 1], "pick up the cube");
    scene.with(|o| policy.infer(o, &InferOptions::default()).map(|_| ())).unwrap();
    let bound = addresses(&policy);
    let at = |graph: &str, port: &str| bound[&(graph.to_owned(), port.to_owned())];
    let d = &policy.manifest().dimensions;

    let (embeds, embeds_bytes) = at("vision_encoder", "image_embeds");
    let (prefix, prefix_bytes) = at("prefix_prefill", "prefix_embeds");
    assert_eq!(embeds, prefix, "the vision encoder writes the first rows of the prefix");
    assert_eq!(embeds_bytes, 2 * d.tokens_per_view * d.prefix_width * 4, "two views, contiguous");
    assert_eq!(
        prefix_bytes,
        policy.inspect().prefix_len() * d.prefix_width * 4,
        "the exact prefix, no padding"
    );

    for layer in 0..d.layers {
        for part in ["key", "value"] {
            let written = at("prefix_prefill", &format!("present.{layer}.{part}"));
            let read = at("denoise_step", &format!("past_key_values.{layer}.{part}"));
            assert_eq!(written, read, "layer {layer} {part}");
        }
    }
    assert_eq!(at("denoise_step", "x_t"), at("denoise_step", "x_next"), "the Euler update is in place");

    // Suffix positions go on where the prefix ends, in the same table.
    let (prefix_cos, prefix_cos_bytes) = at("prefix_prefill", "rope_cos");
    assert_eq!(at("denoise_step", "rope_cos").0, prefix_cos + prefix_cos_bytes);
}

#[test]
fn addresses_stay_when_cameras_and_prompt_change() {
    let mut policy = load_tiny();
    let options = InferOptions::default();
    let two = Scene::new(&policy, &[0, 1], "pick up the cube");
    let three = Scene::new(&policy, &[0, 1, 2], "put the red cube into the box");
    two.with(|o| policy.infer(o, &options).map(|_| ())).unwrap();
    let before = addresses(&policy);
    three.with(|o| policy.infer(o, &options).map(|_| ())).unwrap();
    for (port, (address, _)) in addresses(&policy) {
        if port.0 == "denoise_step" && port.1.starts_with("rope_") {
            continue; // moves along the table with the prefix length
        }
        assert_eq!(address, before[&port].0, "{port:?}");
    }
}

#[test]
fn nothing_stale_is_read() {
    every_precision().iter().for_each(|bundle| read_nothing_stale(load(bundle).unwrap()));
}

fn read_nothing_stale(mut policy: Policy) {
    let options = InferOptions { noise: Noise::Seed(3), num_steps: Some(4), guidance: None };
    let scene = Scene::new(&policy, &[0, 1], "pick up the cube");
    let clean = scene.with(|o| policy.infer(o, &options).cloned()).unwrap();
    policy.inspect_mut().poison().unwrap();
    let poisoned = scene.with(|o| policy.infer(o, &options).cloned()).unwrap();
    assert_eq!(clean.as_slice(), poisoned.as_slice());
}

#[test]
fn poison_reaches_the_graphs() {
    // The negative control of the test above: a step run on poison shows it.
    let mut policy = load_tiny();
    let scene = Scene::new(&policy, &[0, 1], "pick up the cube");
    scene.with(|o| policy.infer(o, &InferOptions::default()).map(|_| ())).unwrap();
    assert!(policy.inspect().last_velocity().unwrap().iter().all(|v| v.is_finite()));
    policy.inspect_mut().poison().unwrap();
    policy.inspect_mut().run_stage(Stage::DenoiseStep).unwrap();
    assert!(policy.inspect().last_velocity().unwrap().iter().all(|v| v.is_nan()));
}

#[test]
fn a_bigger_scene_leaves_nothing_behind_in_a_smaller_one() {
    let options = InferOptions { noise: Noise::Seed(5), num_steps: Some(4), guidance: None };
    let mut fresh = load_tiny();
    let two = Scene::new(&fresh, &[0, 1], "pick up the cube");
    let three = Scene::new(&fresh, &[0, 1, 2], "put the red cube into the box on the left");
    let expected = two.with(|o| fresh.infer(o, &options).cloned()).unwrap();
    let mut used = load_tiny();
    three.with(|o| used.infer(o, &options).map(|_| ())).unwrap();
    let after = two.with(|o| used.infer(o, &options).cloned()).unwrap();
    assert_eq!(expected.as_slice(), after.as_slice());
}
