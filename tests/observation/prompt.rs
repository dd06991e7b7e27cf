//! Task texts to tokens.

use std::path::Path;

use crate::bundle_support::{Fixture, assert_refused, tokenizer};
use pi0_edge::ErrorKind;
use pi0_edge::bundle::Manifest;
use pi0_edge::internals::PromptTokenizer;
use serde_json::{Value, json};

fn with_default(default: Option<&str>) -> pi0_edge::Result<PromptTokenizer> {
    let mut json = Fixture::new().manifest_json();
    json["prompt"]["default"] = json!(default);
    let manifest = Manifest::parse(json.to_string().as_bytes()).unwrap();
    PromptTokenizer::new(tokenizer().to_string().as_bytes(), &manifest)
}

#[test]
fn a_prompt_is_bos_its_words_and_a_newline() {
    // The tokenizer's file asks for truncation to 3 and padding to 8 tokens; neither may happen.
    let mut prompts = PromptTokenizer::load(&Fixture::new().write().open().unwrap()).unwrap();
    assert_eq!(prompts.encode(Some("pick up the cube"), &[]).unwrap(), [2, 5, 6, 7, 8, 4]);
    assert_eq!(prompts.encode(Some("pick"), &[]).unwrap(), [2, 5, 4]);
    assert_eq!(prompts.encode(Some("pick\n"), &[]).unwrap(), [2, 5, 4]);
    assert_eq!(prompts.encode(Some("pick\n\n"), &[]).unwrap(), [2, 5, 4, 4]);
    // What is no token is spelt in bytes, which follow the words.
    assert_eq!(prompts.encode(Some("pick_"), &[]).unwrap(), [2, 5, 9 + u32::from(b'_'), 4]);
    assert_eq!(prompts.encode(Some("pick"), &[]).unwrap(), [2, 5, 4]);
}

#[test]
fn the_default_stands_in_for_no_prompt() {
    let mut prompts = with_default(Some(" up")).unwrap();
    for _ in 0..2 {
        assert_eq!(prompts.encode(None, &[]).unwrap(), [2, 6, 4]);
        assert_eq!(prompts.encode(Some(""), &[]).unwrap(), [2, 6, 4]);
        assert_eq!(prompts.encode(Some(" cube"), &[]).unwrap(), [2, 8, 4]);
    }
    let mut prompts = with_default(None).unwrap();
    for none in [None, Some("")] {
        assert_refused(prompts.encode(none, &[]), ErrorKind::Observation, &["has no prompt", "no default"]);
    }
}

#[test]
fn a_prompt_too_long_is_an_error_and_not_a_shorter_prompt() {
    let mut prompts = with_default(None).unwrap();
    assert_refused(
        prompts.encode(Some("pick up the cube up"), &[]),
        ErrorKind::Observation,
        &["the prompt has 7 tokens", "from 1 to 6"],
    );
    let long = "a".repeat(16 * 1024 + 1);
    assert_refused(
        prompts.encode(Some(&long), &[]),
        ErrorKind::Observation,
        &["16385 bytes", "at most 16384"],
    );
    // A refused prompt leaves nothing behind that the next one could be taken for.
    assert_refused(prompts.encode(Some(&long), &[]), ErrorKind::Observation, &["16385 bytes"]);
    assert_eq!(prompts.encode(Some(" up"), &[]).unwrap(), [2, 6, 4]);
    assert_refused(
        with_default(Some(" up up up up up")),
        ErrorKind::Integrity,
        &["prompt.default", "7 tokens"],
    );
}

#[test]
fn a_file_that_is_no_tokenizer_is_refused() {
    let manifest = Manifest::parse(Fixture::new().manifest_json().to_string().as_bytes()).unwrap();
    for bytes in [&b""[..], b"{}", b"\x00\x01"] {
        assert_refused(
            PromptTokenizer::new(bytes, &manifest),
            ErrorKind::Integrity,
            &["tokenizer.json is not a tokenizer"],
        );
    }
}

/// A tokenizer of the small PI0.5 policy, in the given format.
fn with_state(format: &str) -> PromptTokenizer {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/pi05-tiny");
    let read = |name| std::fs::read(directory.join(name)).unwrap();
    let mut manifest: Value = serde_json::from_slice(&read("manifest.json")).unwrap();
    manifest["prompt"]["format"] = json!(format);
    manifest["source"]["conventions"]["pad_state_in_prompt"] = json!(format == "pi05_padded_state");
    let manifest = Manifest::parse(manifest.to_string().as_bytes()).unwrap();
    PromptTokenizer::new(&read("tokenizer.json"), &manifest).unwrap()
}

#[test]
fn the_state_is_part_of_the_prompt() {
    let (mut plain, mut padded) = (with_state("pi05_state"), with_state("pi05_padded_state"));
    let mut state = [0.0; 32];
    let ids =
        |prompts: &mut PromptTokenizer, state: &[f32]| prompts.encode(Some("pick"), state).unwrap().to_vec();
    let (short, long) = (ids(&mut plain, &state), ids(&mut padded, &state));
    // 26 values more, each of at least a space and a digit.
    assert!(long.len() >= short.len() + 52, "{} {}", short.len(), long.len());
    state[31] = 0.5;
    assert_eq!(ids(&mut plain, &state), short, "beyond the true width");
    assert_ne!(ids(&mut padded, &state), long);
    state[5] = 0.5;
    let other = ids(&mut plain, &state);
    assert_ne!(other, short);
    // A change within a bin changes nothing.
    state[5] = 0.505;
    assert_eq!(ids(&mut plain, &state), other);

    assert_refused(
        plain.encode(Some("pick"), &state[..6]),
        ErrorKind::InvalidArgument,
        &["the model's state has 32 entries, 6 were given"],
    );
    let task = "pick up the cube ".repeat(30);
    assert_refused(
        plain.encode(Some(&task), &state),
        ErrorKind::Observation,
        &["tokens, those of the state among them", "from 1 to 200"],
    );
    assert_eq!(ids(&mut plain, &state), other, "after an error");
}
