//! Everything before and after the graphs, held against what lerobot recorded in the small bundle.

// Frames are PNG files, which only the command line's dependencies can read.

use pi0_edge::bundle::{Bundle, Verify};
use pi0_edge::internals::{Postprocessor, Preprocessor, PromptTokenizer};
use pi0_edge::{ActionChunk, Frame, Observation};
use pi0_edge_golden::{Case, Golden, compare};
use serde_json::Value;

fn bundles() -> impl Iterator<Item = Bundle> {
    let open = |path| Bundle::open(path, Verify::Full, &mut |_, _| {}).unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models");
    ["pi0-tiny", "pi05-tiny"].into_iter().map(move |name| open(std::path::Path::new(path).join(name)))
}

fn observation(bundle: &Bundle, case: &Case) -> Value {
    serde_json::from_slice(&bundle.read_file(&case.observation_path(bundle).unwrap(), 1 << 20).unwrap())
        .unwrap()
}

fn state(observation: &Value) -> Vec<f32> {
    observation["state"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

#[test]
fn pixels_and_tokens_are_those_of_the_reference() {
    bundles().for_each(|bundle| check_inputs(&bundle));
}

fn check_inputs(bundle: &Bundle) {
    let mut preprocessor = Preprocessor::new(bundle.manifest());
    let mut prompts = PromptTokenizer::load(bundle).unwrap();
    let golden = Golden::load(bundle).unwrap().unwrap();
    for case in &golden.cases {
        let recorded = observation(bundle, case);
        let directory = bundle.path(&case.observation_path(bundle).unwrap()).parent().unwrap().to_owned();
        let decoded: Vec<_> = recorded["images"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(key, file)| (key, image::open(directory.join(file.as_str().unwrap())).unwrap().to_rgb8()))
            .collect();
        let images: Vec<_> = decoded
            .iter()
            .map(|(key, image)| {
                (key.as_str(), Frame::new(image.as_raw(), image.width(), image.height()).unwrap())
            })
            .collect();
        let state = state(&recorded);
        let observation = Observation { images: &images, state: &state, prompt: recorded["prompt"].as_str() };

        let views = preprocessor.select_views(&observation).unwrap();
        let mut pixels = vec![f32::NAN; views * preprocessor.view_len()];
        preprocessor.write_pixels(&observation, &mut pixels).unwrap();
        let expected = &case.expected.pixel_values;
        let deviation = compare(&pixels, &expected.read(bundle).unwrap(), expected.stride).unwrap();
        assert!(deviation.is_within(5e-7), "{}: {deviation:?}", case.name);

        let mut normalized = vec![f32::NAN; preprocessor.state_len()];
        preprocessor.write_state(&state, &mut normalized).unwrap();
        let tokens = prompts.encode(observation.prompt, &normalized).unwrap();
        assert_eq!(tokens, case.expected.tokens, "{}", case.name);
    }
}

#[test]
fn actions_are_those_of_the_reference_bit_for_bit() {
    bundles().for_each(|bundle| check_actions(&bundle));
}

fn check_actions(bundle: &Bundle) {
    let manifest = bundle.manifest();
    let mut post = Postprocessor::new(manifest);
    let mut chunk = ActionChunk::new(manifest.dimensions.action_horizon, manifest.action.dim);
    for case in &Golden::load(bundle).unwrap().unwrap().cases {
        let normalized = case.expected.actions_normalized.read(bundle).unwrap();
        post.fill(&normalized, &state(&observation(bundle, case)), &mut chunk).unwrap();
        assert_eq!(chunk.as_slice(), case.expected.actions.read(bundle).unwrap(), "{}", case.name);
    }
}
