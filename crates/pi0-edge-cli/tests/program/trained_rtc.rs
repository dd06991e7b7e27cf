//! A policy trained for real-time chunking takes a clean prefix over, through the command line.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::in_robot_units;
use crate::common::npy::{read_npy, write_npy};
use crate::common::project::project;
use ndarray::{Array2, s};

fn bundle() -> PathBuf {
    project().join("models/pi05-trained-rtc")
}

/// The recorded previous actions as the robot would know them.
fn previous(file: &Path) -> Array2<f32> {
    in_robot_units(&bundle(), &project().join("tests/trained_rtc/prev_actions.npy"), file)
}

fn joined(previous: &Path, output: &Path, delay: usize) -> Output {
    let observation = bundle().join("golden/two_cameras_4_steps");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pi0-edge"));
    command.arg("run").arg(bundle()).arg("--observation").arg(&observation);
    command.arg("--noise").arg(observation.join("noise.npy")).args(["--num-steps", "4", "--threads", "2"]);
    command.arg("--previous").arg(previous).arg("--output").arg(output);
    command.arg("--inference-delay").arg(delay.to_string());
    command.output().expect("the program starts")
}

fn largest(values: &Array2<f32>) -> f32 {
    values.iter().fold(0f32, |m, v| m.max(v.abs()))
}

#[test]
fn every_trained_delay_gives_the_references_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let (file, output) = (dir.path().join("previous.npy"), dir.path().join("actions.npy"));
    let previous = previous(&file);
    let mut before: Option<Array2<f32>> = None;
    for delay in [0, 1, 2, 4] {
        let run = joined(&file, &output, delay);
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let got: Array2<f32> = read_npy(&output).unwrap();
        let recorded = project().join(format!("tests/trained_rtc/delay_{delay}_actions.npy"));
        let want: Array2<f32> = read_npy(recorded).unwrap();
        let error = largest(&(&got - &want));
        assert!(error <= 1e-5 * largest(&want), "delay {delay}: {error} of {}", largest(&want));
        // What will be executed meanwhile stands; there and back through model units costs some rounding.
        let kept = &got.slice(s![..delay, ..]) - &previous.slice(s![..delay, ..]);
        assert!(kept.iter().all(|d| d.abs() <= 1e-6 * largest(&want)), "delay {delay}: {kept}");
        if let Some(before) = before.replace(got.clone()) {
            assert!(largest(&(&got - &before)) > 1e-3 * largest(&want), "delay {delay} changed nothing");
        }
    }
    let plain: Array2<f32> = read_npy(bundle().join("golden/two_cameras_4_steps/actions.npy")).unwrap();
    let none: Array2<f32> = read_npy(project().join("tests/trained_rtc/delay_0_actions.npy")).unwrap();
    assert!(largest(&(&plain - &none)) <= 1e-6 * largest(&plain), "a delay of no rows is no delay");
}

#[test]
fn a_delay_beyond_the_training_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let (file, output) = (dir.path().join("previous.npy"), dir.path().join("actions.npy"));
    let rows = previous(&file);
    let run = joined(&file, &output, 5);
    let words = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{words}");
    assert!(words.contains("inference delay is 5 rows") && words.contains("at most 4"), "{words}");
    assert!(!output.exists());

    write_npy(&file, &rows.slice(s![..2, ..]).to_owned()).unwrap();
    let run = joined(&file, &output, 3);
    let words = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{words}");
    assert!(words.contains("only 2 previous actions"), "{words}");
}
