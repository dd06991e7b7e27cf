//! Our tokenising gives the ids that the `tokenizers` library gives, for any text and any tokenizer of the family.

use std::path::Path;

use pi0_edge::ErrorKind;
use pi0_edge::bundle::Manifest;
use pi0_edge::internals::PromptTokenizer;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokenizers::{Tokenizer, TruncationParams};

/// Both, for the same file.
struct Pair {
    ours: PromptTokenizer,
    theirs: Tokenizer,
}

fn tiny(file: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/pi0-tiny").join(file)).unwrap()
}

impl Pair {
    fn new(tokenizer: &[u8]) -> Self {
        let mut manifest: Value = serde_json::from_slice(&tiny("manifest.json")).unwrap();
        manifest["prompt"]["max_tokens"] = json!(9 << 10);
        // As many tokens want much memory in attention, which is not done here.
        manifest["dimensions"]["query_heads"] = json!(1);
        let manifest = Manifest::parse(manifest.to_string().as_bytes()).unwrap();
        let ours = PromptTokenizer::new(tokenizer, &manifest).unwrap();
        Pair { ours, theirs: Tokenizer::from_bytes(tokenizer).unwrap() }
    }

    fn check(&mut self, task: &str) -> Result<(), TestCaseError> {
        if task.is_empty() {
            return Ok(());
        }
        let newline = if task.ends_with('\n') { "" } else { "\n" };
        let want = self.theirs.encode_fast(format!("{task}{newline}"), true).unwrap();
        prop_assert_eq!(self.ours.encode(Some(task), &[]).unwrap(), want.get_ids(), "{:?}", task);
        Ok(())
    }
}

/// A tokenizer of the family with random merges over few characters, so that they compete for every text: some spell
/// the same token, some pairs are listed twice, some tokens can only be reached in one order.
fn tokenizer(seed: u64) -> Value {
    let mut state = seed;
    let mut random = |below: usize| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) as usize % below
    };
    let mut pieces: Vec<String> = ["<pad>", "<eos>", "<bos>", "<unk>"].map(String::from).to_vec();
    pieces.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    let first = pieces.len();
    pieces.extend(["\u{2581}", "a", "b", "c", "1", "2", "\n", "é"].map(String::from));
    let mut merges: Vec<[String; 2]> = Vec::new();
    while merges.len() < 60 {
        // Now and then a byte takes part.
        let from = if random(8) == 0 { 4 } else { first };
        let mut pick = || pieces[from + random(pieces.len() - from)].clone();
        let pair = [pick(), pick()];
        let joined = pair.concat();
        if joined.len() <= 24 {
            if !pieces.contains(&joined) {
                pieces.push(joined);
            }
            merges.push(pair);
        }
    }
    let added = ["\n\n", "\u{2581}\u{2581}", "\u{2581}\u{2581}\u{2581}", "<loc>", "<loc", "ab", "1 2", "é\n"];
    let mut next = pieces.len();
    let mut tokens: Vec<Value> = Vec::new();
    for content in added {
        if random(2) == 0 {
            continue;
        }
        let id = pieces.iter().position(|p| p == content).unwrap_or_else(|| {
            next += 1;
            next - 1
        });
        tokens.push(json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": random(2) == 0, "special": false
        }));
    }
    let merges: Vec<Value> = match random(2) {
        0 => merges.iter().map(|pair| json!(pair)).collect(),
        _ => merges.iter().map(|pair| json!(pair.join(" "))).collect(),
    };
    let vocab: serde_json::Map<String, Value> =
        pieces.iter().enumerate().map(|(i, p)| (p.clone(), json!(i))).collect();
    let mut file: Value = serde_json::from_slice(&tiny("tokenizer.json")).unwrap();
    file["added_tokens"] = json!(tokens);
    file["model"]["vocab"] = Value::Object(vocab);
    file["model"]["merges"] = json!(merges);
    if random(4) == 0 {
        file["pre_tokenizer"] = Value::Null;
    }
    file
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_text_with_the_tokenizer_of_the_small_policy(texts in proptest::collection::vec("\\PC{0,60}|[ -~\\n\\t]{0,300}", 1..8)) {
        let mut pair = Pair::new(&tiny("tokenizer.json"));
        for text in texts {
            pair.check(&text)?;
        }
    }

    #[test]
    fn any_tokenizer_of_the_family(seed in any::<u64>(), texts in proptest::collection::vec("[abc12 \\né\u{2581}<>loc€]{1,120}", 1..12)) {
        let mut pair = Pair::new(tokenizer(seed).to_string().as_bytes());
        for text in texts {
            pair.check(&text)?;
        }
    }
}

#[test]
fn every_character_and_what_prompts_are_made_of() {
    let mut pair = Pair::new(&tiny("tokenizer.json"));
    for start in (1..0x11_0000u32).step_by(4096) {
        let text: String = (start..start + 4096).step_by(17).filter_map(char::from_u32).collect();
        pair.check(&text).unwrap();
    }
    for text in [
        "Task: pick up the cube, State: -1 0 255 128;\nAction: ",
        "  two  spaces   three ",
        "\u{2581}\u{2581} as written",
        "<bos>pick<eos> <unk><pad>x<0x41>",
        "\0\u{fffd}\u{feff}",
    ] {
        pair.check(text).unwrap();
    }
    pair.check(&"stack the red cube on the blue block 0123456789 ".repeat(300)).unwrap();
}

#[test]
fn a_long_prompt_is_cut_as_the_library_cuts_it() {
    let mut json: Value = serde_json::from_slice(&tiny("tokenizer.json")).unwrap();
    let end = json!({"SpecialToken": {"id": "<eos>", "type_id": 0}});
    for closed in [false, true] {
        if closed {
            json["post_processor"]["single"].as_array_mut().unwrap().push(end.clone());
            json["post_processor"]["special_tokens"]["<eos>"] =
                json!({"id": "<eos>", "ids": [1], "tokens": ["<eos>"]});
        }
        let bytes = json.to_string().into_bytes();
        let mut theirs = Tokenizer::from_bytes(&bytes).unwrap();
        for max_tokens in [2, 3, 7, 20] {
            let mut manifest: Value = serde_json::from_slice(&tiny("manifest.json")).unwrap();
            manifest["prompt"]["max_tokens"] = json!(max_tokens);
            manifest["prompt"]["truncation"] = json!(true);
            let manifest = Manifest::parse(manifest.to_string().as_bytes()).unwrap();
            let mut ours = PromptTokenizer::new(&bytes, &manifest).unwrap();
            let truncation = TruncationParams { max_length: max_tokens, ..Default::default() };
            theirs.with_truncation(Some(truncation)).unwrap();
            for task in
                ["pick", "pick up the cube and stack it slowly, then open the drawer", "1234567890123"]
            {
                let want = theirs.encode_fast(format!("{task}\n"), true).unwrap();
                assert!(want.get_ids().len() <= max_tokens);
                assert_eq!(
                    ours.encode(Some(task), &[]).unwrap(),
                    want.get_ids(),
                    "{task} {max_tokens} {closed}"
                );
            }
        }
    }
}

#[test]
fn other_tokenizers_are_refused_in_words() {
    let manifest = Manifest::parse(&tiny("manifest.json")).unwrap();
    let original: Value = serde_json::from_slice(&tiny("tokenizer.json")).unwrap();
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let unigram =
        json!({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a".repeat(200_000), 0.0]]});
    let charsmap = json!({"type": "Precompiled", "precompiled_charsmap": "AAAAAAAAAAA"});
    let changes: [(&str, Value, &str); 15] = [
        ("/version", json!("2.0"), "version 2.0"),
        ("/model/type", json!("Unigram"), "model Unigram"),
        ("/model", unigram, "expected a map"),
        ("/normalizer", json!({"type": "Lowercase"}), "its normalizer"),
        ("/normalizer", charsmap, "its normalizer"),
        ("/normalizer", Value::Null, "its normalizer"),
        ("/normalizer/content", json!("_"), "its normalizer"),
        ("/pre_tokenizer", json!({"type": "WhitespaceSplit"}), "words of its own kind"),
        ("/post_processor", byte_level, "other than fixed tokens"),
        ("/model/dropout", json!(0.1), "merges at random"),
        ("/model/ignore_merges", json!(true), "merges at random, or not at all"),
        ("/model/byte_fallback", json!(false), "unknown characters in bytes"),
        ("/model/end_of_word_suffix", json!("</w>"), "insides or ends of words"),
        ("/added_tokens/2/lstrip", json!(true), "depends on what is around it"),
        ("/added_tokens/2/single_word", json!(true), "depends on what is around it"),
    ];
    for (place, value, words) in changes {
        let mut changed = original.clone();
        *changed.pointer_mut(place).unwrap() = value;
        let error = PromptTokenizer::new(&changed.to_string().into_bytes(), &manifest).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity, "{place}");
        let text = error.to_string();
        assert!(text.starts_with("tokenizer.json is not a tokenizer of PaliGemma's kind"), "{place}: {text}");
        assert!(text.contains(words) && text.len() < 300, "{place}: {text}");
    }
}
