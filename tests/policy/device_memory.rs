//! The way of a chunk through memory that is not the host's, tried with two parts of the host's own: every tensor that
//! a GPU would need copied is copied, and the results are the same to the bit.

use crate::common::{self, Scene, load_tiny, tiny, tiny_pi05};
use pi0_edge::rtc::{Guidance, PrefixSchedule, prefix_weights};
use pi0_edge::{
    DeviceMemory, InferOptions, MAX_CAMERAS, MAX_NUM_STEPS, Noise, Policy, PolicyOptions, Stage, StageOutput,
    Transfers,
};

fn load(bundle: &std::path::Path, device_memory: DeviceMemory) -> Policy {
    Policy::load(bundle, &PolicyOptions { threads: 2, device_memory, ..PolicyOptions::default() }).unwrap()
}

/// Every intermediate result of two scenes, with and without guidance, and the chunks.
fn everything(policy: &mut Policy) -> (Vec<StageOutput>, Vec<f32>) {
    let (mut stages, mut actions) = (Vec::new(), Vec::new());
    let (horizon, dim) = (policy.manifest().dimensions.action_horizon, policy.manifest().action.dim);
    let previous: Vec<f32> = (0..dim * 3).map(|i| 0.05 * i as f32).collect();
    let mut weights = vec![0.0; horizon];
    prefix_weights(PrefixSchedule::Linear, 1, 3, &mut weights);
    let guidance = Guidance {
        previous: &previous,
        prefix_weights: &weights,
        max_guidance_weight: 10.0,
        inference_delay: 1,
    };
    for (cameras, prompt) in
        [(&[0, 1][..], "pick up the cube"), (&[0, 1, 2], "put the red cube into the box")]
    {
        let scene = Scene::new(policy, cameras, prompt);
        for (num_steps, guidance) in [(4, None), (4, Some(guidance)), (7, None)] {
            let options =
                InferOptions { noise: Noise::Seed(num_steps as u64), num_steps: Some(num_steps), guidance };
            let mut keep = |stage| {
                stages.push(stage);
                Ok(())
            };
            let chunk =
                scene.with(|o| policy.inspect_mut().infer_observed(o, &options, &mut keep).cloned()).unwrap();
            actions.extend_from_slice(chunk.as_slice());
        }
    }
    (stages, actions)
}

#[test]
fn separate_memory_changes_no_bit() {
    for bundle in [tiny(), tiny_pi05()] {
        let expected = everything(&mut load(&bundle, DeviceMemory::Unified));
        let found = everything(&mut load(&bundle, DeviceMemory::Separate));
        assert!(expected == found, "{}", bundle.display());
    }
}

#[test]
fn nothing_stale_is_read_from_either_side() {
    let mut policy = load(&tiny(), DeviceMemory::Separate);
    let expected = everything(&mut policy);
    policy.inspect_mut().poison().unwrap();
    assert!(everything(&mut policy) == expected);
}

#[test]
fn a_chunk_moves_images_state_prompt_and_noise_in_and_actions_out() {
    let mut policy = load(&tiny(), DeviceMemory::Separate);
    let scene = Scene::new(&policy, &[0, 1], "pick up the cube");
    scene.with(|o| policy.infer(o, &InferOptions::default()).map(|_| ())).unwrap();
    scene.with(|o| policy.infer(o, &InferOptions::default()).map(|_| ())).unwrap();
    let m = policy.manifest();
    let d = &m.dimensions;
    let pixels = 2 * 3 * d.image_height * d.image_width;
    let prompt = (policy.inspect().prefix_len() - 2 * d.tokens_per_view) * d.prefix_width;
    let chunk = d.action_horizon * m.action.padded_dim;
    let to_device = 4 * (pixels + prompt + m.state.padded_dim + chunk);
    let expected = Transfers { to_device: to_device as u64, from_device: 4 * chunk as u64 };
    assert_eq!(policy.inspect().transfers(), expected, "tables are there since the first chunk");
}

#[test]
fn one_memory_moves_nothing() {
    let mut policy = load_tiny();
    let scene = Scene::new(&policy, &[0, 1], "pick up the cube");
    scene.with(|o| policy.infer(o, &InferOptions::default()).map(|_| ())).unwrap();
    assert_eq!(policy.inspect().transfers(), Transfers::default());
    assert_eq!(policy.inspect().device_memory_use().unwrap(), None);
}

#[test]
fn the_largest_bundle_that_opens_also_runs() {
    let bundle = common::copy_of_tiny();
    let path = bundle.path().join("manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let camera = |i| serde_json::json!({"name": format!("observation.images.{i}"), "required": false});
    manifest["cameras"] = (0..MAX_CAMERAS).map(camera).collect();
    manifest["flow"]["num_steps"] = MAX_NUM_STEPS.into();
    std::fs::write(&path, manifest.to_string()).unwrap();
    let mut policy = common::load(bundle.path()).unwrap();
    let cameras: Vec<usize> = (0..MAX_CAMERAS).collect();
    let scene = Scene::new(&policy, &cameras, "pick up the cube");
    scene.with(|o| policy.infer(o, &InferOptions::default()).map(|_| ())).unwrap();
    assert_eq!(policy.timing().steps.len(), MAX_NUM_STEPS);
    assert!(policy.inspect().prefix_len() > MAX_CAMERAS * policy.manifest().dimensions.tokens_per_view);
}

#[test]
fn every_node_is_known_to_run_on_the_cpu() {
    let policy = load_tiny();
    let inspector = policy.inspect();
    let placement: Vec<_> = inspector.placement().collect();
    assert_eq!(placement.len(), 4, "one provider for each of the four graphs: {placement:?}");
    assert!(placement.iter().all(|(_, provider, nodes)| *provider == "CPUExecutionProvider" && *nodes > 0));
}

#[test]
fn without_a_gpu_there_is_nothing_to_capture_and_a_smoke_run_harms_nothing() {
    let mut policy = load_tiny();
    policy.capture_graphs().unwrap();
    let scene = Scene::new(&policy, &[0, 1], "pick up the cube");
    let options = InferOptions { noise: Noise::Seed(3), ..InferOptions::default() };
    let first = scene.with(|o| policy.infer(o, &options).cloned()).unwrap();
    policy.capture_graphs().unwrap();
    policy.inspect_mut().smoke().unwrap();
    assert_eq!(policy.inspect().replayed_graphs().count(), 0);
    let second = scene.with(|o| policy.infer(o, &options).cloned()).unwrap();
    assert_eq!(first.as_slice(), second.as_slice());
}

#[test]
fn stages_can_be_timed_alone() {
    let mut policy = load(&tiny(), DeviceMemory::Separate);
    let scene = Scene::new(&policy, &[0, 1], "pick up the cube");
    scene.with(|o| policy.infer(o, &InferOptions::default()).map(|_| ())).unwrap();
    assert_eq!(policy.timing().steps.len(), policy.manifest().flow.num_steps);
    for stage in [Stage::Vision, Stage::Prefix, Stage::DenoiseStep, Stage::DenoiseLoop] {
        assert!(policy.inspect_mut().run_stage(stage).unwrap() > std::time::Duration::ZERO, "{stage:?}");
    }
}
