//! Tokenising PI0.5's prompt, which holds the state and so is a new one for every inference: in our own buffers, and by
//! the `tokenizers` library.
//!
//!     cargo bench --bench prompt_tokens
//!
//! With the small policy's tokenizer, and with one of PaliGemma's size (257 152 tokens, random merges), whose tables do
//! not fit into a cache. Both are checked to give the same ids before they are timed.

use std::collections::HashSet;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use pi0_edge::bundle::Manifest;
use pi0_edge::internals::PromptTokenizer;
use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokenizers::Tokenizer;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

const TASK: &str = "pick up the red cube and place it into the blue bin on the left";
const JOINTS: usize = 14;
const ROUNDS: usize = 500;
const RELEASED_VOCABULARY: usize = 257_152;

fn main() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/pi05-tiny");
    let read = |name: &str| std::fs::read(directory.join(name)).expect("models/pi05-tiny is there");
    let mut manifest: Value = serde_json::from_slice(&read("manifest.json")).expect("a manifest");
    manifest["prompt"]["max_tokens"] = json!(2000);
    manifest["state"]["dim"] = json!(JOINTS);
    manifest["state"]["normalization"] = json!({"mode": "identity", "eps": 1e-8});
    let manifest = Manifest::parse(manifest.to_string().as_bytes()).expect("a valid manifest");
    let small: Value = serde_json::from_slice(&read("tokenizer.json")).expect("a tokenizer");
    println!("| tokenizer | load | ids | ours, median (max) | allocations | library, median | allocations |");
    println!("|---|---|---|---|---|---|---|");
    measure("512 tokens", &small, &manifest);
    measure("257152 tokens", &enlarged(small), &manifest);
}

fn measure(name: &str, tokenizer: &Value, manifest: &Manifest) {
    let json = tokenizer.to_string();
    let start = Instant::now();
    let mut ours = PromptTokenizer::new(json.as_bytes(), manifest).expect("a tokenizer");
    let load = start.elapsed();
    let theirs = Tokenizer::from_bytes(json.as_bytes()).expect("a tokenizer");

    let mut state = vec![0.0f32; manifest.state.padded_dim];
    let mut times = [Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS)];
    let (mut allocations, mut count) = ([0, 0], 0);
    for round in 0..ROUNDS {
        for (k, value) in state[..JOINTS].iter_mut().enumerate() {
            *value = ((round * 31 + k * 7) as f32).sin();
        }
        let region = Region::new(&INSTRUMENTED_SYSTEM);
        let start = Instant::now();
        count = black_box(ours.encode(Some(TASK), &state).expect("tokens")).len();
        times[0].push(start.elapsed());
        allocations[0] += region.change().allocations;
        let text = text(&state[..JOINTS]);
        let region = Region::new(&INSTRUMENTED_SYSTEM);
        let start = Instant::now();
        let encoding = black_box(theirs.encode_fast(text, true).expect("tokens"));
        times[1].push(start.elapsed());
        allocations[1] += region.change().allocations;
        assert_eq!(encoding.get_ids(), ours.ids());
    }
    let [mine, library] = times.map(|mut list| {
        list.sort();
        (list[ROUNDS / 2], list[ROUNDS - 1])
    });
    let micros = |d: Duration| format!("{:.1} µs", d.as_secs_f64() * 1e6);
    println!(
        "| {name} | {load:.0?} | {count} | {} ({}) | {} | {} | {} |",
        micros(mine.0),
        micros(mine.1),
        allocations[0] / ROUNDS,
        micros(library.0),
        allocations[1] / ROUNDS
    );
}

fn text(state: &[f32]) -> String {
    let bins: Vec<String> =
        state.iter().map(|x| (((x + 1.0) * 128.0).floor() as i32).min(255).to_string()).collect();
    format!("Task: {TASK}, State: {};\nAction: ", bins.join(" "))
}

/// The tokenizer with random merges up to the released vocabulary's size.
fn enlarged(mut tokenizer: Value) -> Value {
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) as usize % below
    };
    let vocab = tokenizer["model"]["vocab"].as_object_mut().expect("a vocabulary");
    let first = vocab.iter().position(|(piece, _)| piece == "a").expect("letters");
    let mut pieces: Vec<String> = vocab.keys().skip(first).filter(|p| !p.contains('<')).cloned().collect();
    let mut known: HashSet<String> = vocab.keys().cloned().collect();
    let mut merges = Vec::new();
    while vocab.len() < RELEASED_VOCABULARY {
        let pair = [pieces[random(pieces.len())].clone(), pieces[random(pieces.len())].clone()];
        let joined = pair.concat();
        if joined.len() <= 16 && known.insert(joined.clone()) {
            vocab.insert(joined.clone(), json!(vocab.len()));
            merges.push(json!(pair));
            pieces.push(joined);
        }
    }
    tokenizer["model"]["merges"].as_array_mut().expect("merges").extend(merges);
    tokenizer
}
