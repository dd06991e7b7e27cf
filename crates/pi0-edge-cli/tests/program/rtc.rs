//! Guided real-time chunking equals lerobot's, for every schedule, through the command line.

use std::path::Path;
use std::process::Command;

use crate::common::npy::{read_npy, write_npy};
use crate::common::project::project;
use crate::common::{in_robot_units, load_tiny, observation_dir, tiny};
use ndarray::{Array1, Array2};
use pi0_edge::InferOptions;
use pi0_edge::rtc::{Guidance, PrefixSchedule, prefix_weights};

fn recorded(name: &str) -> std::path::PathBuf {
    project().join("tests/rtc").join(name)
}

fn guided(previous: &Path, output: &Path, more: &[&str]) -> std::process::Output {
    let noise = observation_dir().join("noise.npy");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pi0-edge"));
    command.arg("run").arg(tiny()).arg("--observation").arg(observation_dir());
    command.arg("--noise").arg(noise).args(["--num-steps", "10", "--threads", "2"]);
    command.arg("--previous").arg(previous).arg("--output").arg(output).args(more);
    command.output().expect("the program starts")
}

#[test]
fn every_schedule_gives_the_references_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let (previous, output) = (dir.path().join("previous.npy"), dir.path().join("actions.npy"));
    in_robot_units(&tiny(), &recorded("prev_actions.npy"), &previous);
    let plain: Array2<f32> = read_npy(observation_dir().join("actions.npy")).unwrap();
    for schedule in ["zeros", "ones", "linear", "exp"] {
        let more = ["--inference-delay", "2", "--execution-horizon", "6", "--rtc-schedule", schedule];
        let run = guided(&previous, &output, &more);
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let got: Array2<f32> = read_npy(&output).unwrap();
        let want: Array2<f32> = read_npy(recorded(&format!("{schedule}_actions.npy"))).unwrap();
        let largest = want.iter().fold(0f32, |m, v| m.max(v.abs()));
        let error = (&got - &want).iter().fold(0f32, |m, v| m.max(v.abs()));
        assert!(error <= 1e-5 * largest, "{schedule}: {error} of {largest}");
        let moved = (&got - &plain).iter().fold(0f32, |m, v| m.max(v.abs()));
        assert!(moved > 1e-2 * largest, "{schedule}: guidance changed nothing");
    }
}

#[test]
fn weights_are_the_references() {
    for (name, schedule) in [
        ("zeros", PrefixSchedule::Zeros),
        ("ones", PrefixSchedule::Ones),
        ("linear", PrefixSchedule::Linear),
        ("exp", PrefixSchedule::Exp),
    ] {
        let want: Array1<f32> = read_npy(recorded(&format!("{name}_prefix_weights.npy"))).unwrap();
        let mut got = vec![0.0; want.len()];
        prefix_weights(schedule, 2, 6, &mut got);
        for (g, w) in got.iter().zip(&want) {
            assert!((g - w).abs() <= 1e-6, "{name}: {g} {w}");
        }
    }
}

#[test]
fn a_previous_chunk_of_the_wrong_shape_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (previous, output) = (dir.path().join("previous.npy"), dir.path().join("actions.npy"));
    for shape in [(0, 7), (3, 6), (11, 7)] {
        write_npy(&previous, &Array2::<f32>::zeros(shape)).unwrap();
        let run = guided(&previous, &output, &[]);
        let words = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(1), "{words}");
        assert!(words.contains("previous.npy") && words.contains("shape"), "{words}");
        assert!(!output.exists());
    }
    let mut bad = Array2::<f32>::zeros((3, 7));
    bad[[1, 2]] = f32::NAN;
    write_npy(&previous, &bad).unwrap();
    let run = guided(&previous, &output, &[]);
    assert_eq!(run.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&run.stderr).contains("finite"));
}

/// A policy whose actions are offsets from the state sees the leftover as offsets from the *new* state: where the robot
/// has moved by some distance, the same places are that much nearer.
#[test]
fn the_leftover_of_a_relative_policy_is_anchored_to_the_new_state() {
    let bundle = crate::common::copy_of_tiny();
    let manifest = bundle.path().join("manifest.json");
    let mut edited: serde_json::Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    let mask = [true, true, false, true, true, true, false];
    edited["action"]["relative_mask"] = serde_json::json!(mask);
    std::fs::write(&manifest, edited.to_string()).unwrap();
    let (mut absolute, mut relative) = (load_tiny(), crate::common::load(bundle.path()).unwrap());
    for moved in [0.0, 0.7] {
        let mut scene = crate::common::Scene::new(&absolute, &[0, 1], "pick up the cube");
        scene.state.iter_mut().for_each(|s| *s += moved);
        let offset = |i: usize| if mask[i % 7] { scene.state[i % 7] } else { 0.0 };
        let offsets: Vec<f32> = (0..10 * 7).map(|i| (i as f32 * 0.7).sin()).collect();
        let places: Vec<f32> = offsets.iter().enumerate().map(|(i, v)| v + offset(i)).collect();
        let chunk = |policy: &mut pi0_edge::Policy, previous: &[f32]| -> Vec<f32> {
            let guidance = Guidance {
                previous,
                prefix_weights: &[1.0; 10],
                max_guidance_weight: 10.0,
                inference_delay: 2,
            };
            let options = InferOptions { guidance: Some(guidance), ..InferOptions::default() };
            scene.with(|o| policy.infer(o, &options).unwrap().as_slice().to_vec())
        };
        // In model units the two are the same problem, so they differ by the state alone.
        let (want, got) = (chunk(&mut absolute, &offsets), chunk(&mut relative, &places));
        for (i, (want, got)) in want.iter().zip(&got).enumerate() {
            assert!(
                (want + offset(i) - got).abs() <= 2e-5,
                "moved {moved}, value {i}: {got}, not {want} and the state"
            );
        }
    }
}
