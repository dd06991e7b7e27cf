//! After the first chunk, an inference allocates nothing of ours. One test alone in this crate: the counter is the
//! process's.

mod common;

use common::{Scene, every_precision, load, load_tiny, tiny_pi05};
use pi0_edge::rtc::Guidance;
use pi0_edge::{InferOptions, Noise, Policy};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

#[test]
fn the_steady_state_allocates_nothing() {
    every_precision().iter().for_each(|bundle| the_same_observation_allocates_nothing(load(bundle).unwrap()));
    let mut policy = load_tiny();
    let two = Scene::new(&policy, &[0, 1], "pick up the cube");
    let three = Scene::new(&policy, &[0, 1, 2], "pick up the cube");
    let options = |seed| InferOptions { noise: Noise::Seed(seed), num_steps: Some(4), guidance: None };
    two.with(|o| policy.infer(o, &options(0)).map(|_| ())).unwrap();
    // A camera that comes and goes costs a rebinding, still without an allocation once its frame size is known.
    three.with(|o| policy.infer(o, &options(0)).map(|_| ())).unwrap();
    two.with(|two| {
        three.with(|three| {
            let region = Region::new(&INSTRUMENTED_SYSTEM);
            for seed in 1..10 {
                policy.infer(two, &options(seed)).unwrap();
                policy.infer(three, &options(seed)).unwrap();
            }
            let used = region.change();
            assert_eq!((used.allocations, used.reallocations), (0, 0), "cameras that come and go");
        });
    });
    let tasks = ["open the drawer", "pick up the cube", "wipe the table, slowly"];
    let scenes = tasks.map(|task| Scene::new(&policy, &[0, 1], task));
    let region = Region::new(&INSTRUMENTED_SYSTEM);
    // Scenes lend their frames in a list that they make anew.
    let lists = scenes.len();
    for scene in &scenes {
        scene.with(|o| policy.infer(o, &options(0)).map(|_| ())).unwrap();
    }
    assert_eq!(region.change().allocations, lists, "a new task; and the counter is alive");
    drop(policy);
    for name in ["pi05-tiny", "pi05-openpi", "pi05-trained-rtc"] {
        a_new_state_and_a_previous_chunk_allocate_nothing(name);
    }
}

fn the_same_observation_allocates_nothing(mut policy: Policy) {
    let scene = Scene::new(&policy, &[0, 1], "pick up the cube");
    let options = |seed| InferOptions { noise: Noise::Seed(seed), num_steps: Some(4), guidance: None };
    scene.with(|o| {
        policy.infer(o, &options(0)).unwrap();
        let region = Region::new(&INSTRUMENTED_SYSTEM);
        for seed in 1..20 {
            policy.infer(o, &options(seed)).unwrap();
        }
        let used = region.change();
        let precision = policy.manifest().precision;
        assert_eq!(
            (used.allocations, used.reallocations),
            (0, 0),
            "{precision:?}: same cameras, same prompt"
        );
    });
}

/// PI0.5 has a new prompt in every inference, of a length of its own; here also a chunk to join on to.
fn a_new_state_and_a_previous_chunk_allocate_nothing(name: &str) {
    let mut policy = load(&tiny_pi05().with_file_name(name)).unwrap();
    let scene = Scene::new(&policy, &[0, 1], "pick up the cube");
    let (previous, weights) = (vec![0.5; 4 * policy.manifest().action.dim], vec![0.5; 10]);
    scene.with(|o| {
        let guidance = Guidance {
            previous: &previous,
            prefix_weights: &weights,
            max_guidance_weight: 5.0,
            inference_delay: 3,
        };
        let options = InferOptions { noise: Noise::Seed(0), num_steps: Some(4), guidance: Some(guidance) };
        policy.infer(o, &options).unwrap();
        let mut state = scene.state.clone();
        let mut lengths = [usize::MAX, 0];
        let region = Region::new(&INSTRUMENTED_SYSTEM);
        for i in 0..20 {
            for (k, value) in state.iter_mut().enumerate() {
                *value = (i as f32 * 0.37 + k as f32).sin() * 3.0;
            }
            let observation = pi0_edge::Observation { state: &state, ..*o };
            policy.infer(&observation, &options).unwrap();
            lengths = [
                lengths[0].min(policy.inspect().prefix_len()),
                lengths[1].max(policy.inspect().prefix_len()),
            ];
        }
        let used = region.change();
        assert_eq!(
            (used.allocations, used.reallocations),
            (0, 0),
            "{name}: a new state in the prompt every time"
        );
        assert!(lengths[0] < lengths[1], "prompts of one length only: {lengths:?}");
    });
}
