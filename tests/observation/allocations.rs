//! After the first observation, preparing another one and finishing its chunk allocates nothing.

use crate::bundle_support::Fixture;
use pi0_edge::internals::{Postprocessor, Preprocessor, PromptTokenizer, TokenTable};
use pi0_edge::{ActionChunk, Frame, Observation};
use pi0_edge_probe::allocations::{CountingAllocator, on_this_thread};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn the_counter_counts() {
    let before = on_this_thread();
    let kept = std::hint::black_box(vec![1u8; 100]);
    assert_eq!(on_this_thread(), before + 1);
    drop(kept);
}

#[test]
fn a_steady_observation_allocates_nothing() {
    let mut fixture = Fixture::new();
    fixture.manifest["prompt"]["default"] = json!(" up");
    let bundle = fixture.write();
    let bundle = bundle.open().unwrap();
    let manifest = bundle.manifest();
    let mut preprocessor = Preprocessor::new(manifest);
    let mut prompts = PromptTokenizer::load(&bundle).unwrap();
    let table =
        TokenTable::new(bundle.read_file("token_embedding.bin", 1 << 20).unwrap(), &manifest.token_embedding)
            .unwrap();
    let mut post = Postprocessor::new(manifest);
    let mut chunk = ActionChunk::new(manifest.dimensions.action_horizon, manifest.action.dim);

    let (large, small, exact) = (vec![9; 60 * 80 * 3], vec![80; 20 * 20 * 3], vec![200; 28 * 42 * 3]);
    let images = [
        ("observation.images.wrist", Frame::new(&small, 20, 20).unwrap()),
        ("observation.images.top", Frame::new(&large, 80, 60).unwrap()),
        ("observation.images.side", Frame::new(&exact, 42, 28).unwrap()),
    ];
    let two = [images[0], ("observation.images.base", Frame::new(&small, 20, 20).unwrap())];
    let mut pixels = vec![0.0; 3 * preprocessor.view_len()];
    let mut state = [0.0; 9];
    let mut rows = vec![0; 6 * table.row_bytes()];
    let x = [0.25; 35];

    let mut run = |images: &[(&str, Frame<'_>)], prompt: Option<&str>| {
        let observation = Observation { images, state: &[0.0, 1.0, 2.0], prompt };
        let views = preprocessor.select_views(&observation).unwrap();
        let pixels = &mut pixels[..views * preprocessor.view_len()];
        preprocessor.write_pixels(&observation, pixels).unwrap();
        preprocessor.write_state(observation.state, &mut state).unwrap();
        let ids = prompts.encode(observation.prompt, &[]).unwrap();
        table.gather(ids, &mut rows[..ids.len() * table.row_bytes()]).unwrap();
        post.fill(&x, observation.state, &mut chunk).unwrap();
    };
    for (images, prompt) in [(&images[..], Some("pick up the cube")), (&two[..], None)] {
        run(images, prompt);
        let before = on_this_thread();
        for _ in 0..10 {
            run(images, prompt);
        }
        assert_eq!(on_this_thread() - before, 0, "with {} images", images.len());
    }
    // Nor do frames of a size that was never seen before.
    let before = on_this_thread();
    run(&images, None);
    run(&two, None);
    assert_eq!(on_this_thread() - before, 0);
}
