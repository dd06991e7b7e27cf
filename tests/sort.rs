//! Sorting from a moving belt: the runtime in closed loop, with the scripted expert's chunks and with a policy that was
//! trained for it. The example `sort` is the same loop; its parts are compiled in here.

#![allow(dead_code)]

#[path = "../examples/sort/camera.rs"]
mod camera;
#[path = "../examples/sort/closed_loop.rs"]
mod closed_loop;
#[path = "../examples/sort/demonstrations.rs"]
mod demonstrations;
#[path = "../examples/sort/expert.rs"]
mod expert;
#[path = "../examples/sort/gif.rs"]
mod gif;
#[path = "../examples/sort/random.rs"]
mod random;
#[path = "../examples/sort/report.rs"]
mod report;
#[path = "../examples/sort/sorter.rs"]
mod sorter;
#[path = "../examples/sort/world.rs"]
mod world;

use std::time::Duration;

use pi0_edge::RuntimeConfig;
use pi0_edge::runtime::Replan;

use closed_loop::{Loop, PERIOD};
use report::Report;
use sorter::{Expert, Sorter, load};
use world::Goal;

fn config() -> RuntimeConfig {
    let mut config = RuntimeConfig { replan: Replan::Period(5 * PERIOD), ..RuntimeConfig::default() };
    config.timeline.control_period = PERIOD;
    config.timeline.action_period = PERIOD;
    config
}

/// Runs the episodes, and returns what came of them and the bits of every action.
fn run<I: Sorter + 'static>(sorter: I, episodes: u64, ask: fn(Goal) -> Goal) -> (Report, Vec<u32>)
where
    I::Observation: 'static,
{
    let mut run = Loop::in_virtual_time(sorter, &config(), Duration::ZERO).unwrap();
    let (mut report, mut bits) = (Report::default(), vec![]);
    for seed in 0..episodes {
        let episode = run.run(seed, ask, |_, moment| bits.extend(moment.action.map(f32::to_bits)));
        report.add(episode.unwrap());
    }
    (report, bits)
}

#[test]
fn the_expert_sorts_everything() {
    let (report, _) = run(Expert::default(), 300, |goal| goal);
    assert_eq!(report.success(), 1.0, "{}", report.text());
}

fn policy() -> impl Sorter<Observation: 'static> + 'static {
    load(concat!(env!("CARGO_MANIFEST_DIR"), "/models/pi0-sort"), None).unwrap()
}

#[test]
fn the_policy_sorts_and_gives_the_same_bits_each_time() {
    let (report, bits) = run(policy(), 50, |goal| goal);
    assert!(report.success() >= 0.9, "{}", report.text());
    let (_, again) = run(policy(), 5, |goal| goal);
    assert!(again == bits[..again.len()], "the same seeds gave other actions");
}

#[test]
fn the_policy_does_what_the_prompt_says() {
    let (report, _) = run(policy(), 20, Goal::swapped);
    assert!(report.success() <= 0.05, "asked for the other block: {}", report.text());
}

#[test]
fn intervals_are_wilsons() {
    // The textbook's: 1 of 10 and 10 of 10.
    for (sorted, want) in [(1, [0.0179, 0.4042]), (10, [0.7225, 1.0])] {
        let got = report::wilson(sorted, 10);
        assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-4), "{sorted} of 10: {got:?}");
    }
}

/// Undoes the compression of a GIF, as its specification says.
fn decompress(bytes: &[u8]) -> Vec<u8> {
    let bit = |i: usize| usize::from(bytes[i / 8] >> (i % 8) & 1);
    let (mut at, mut bits, mut out) = (0, 9, vec![]);
    let (mut table, mut last): (Vec<Vec<u8>>, Vec<u8>) = (vec![], vec![]);
    loop {
        let code: usize = (0..bits).map(|i| bit(at + i) << i).sum();
        at += bits;
        match code {
            256 => {
                table = (0..258u16).map(|i| vec![i as u8]).collect();
                (bits, last) = (9, vec![]);
                continue;
            }
            257 => return out,
            _ => {}
        }
        let entry = table.get(code).cloned().unwrap_or_else(|| [&last[..], &last[..1]].concat());
        if !last.is_empty() {
            last.push(entry[0]);
            table.push(last);
        }
        if table.len() == 1 << bits && bits < 12 {
            bits += 1;
        }
        out.extend(&entry);
        last = entry;
    }
}

#[test]
fn gifs_hold_what_was_put_in() {
    let mut random = random::Random::new(7);
    for length in [1, 2, 300, 511, 513, 5000, 40_000] {
        for colours in [1, 2, 200] {
            let pixels: Vec<u8> = (0..length).map(|_| random.below(colours) as u8).collect();
            assert!(decompress(&gif::compress(&pixels)) == pixels, "{length} pixels of {colours} colours");
        }
    }
}
