//! Parts that the integration tests share: the small bundle and copies of it to spoil.

#![allow(dead_code)] // each test crate uses its part

pub mod exports;
pub mod gpu_build;
pub mod npy;
pub mod project;

use std::path::{Path, PathBuf};

use ndarray::Array2;
use npy::{read_npy, write_npy};
use pi0_edge::internals::Normalizer;
use pi0_edge::runtime::ObservationSlot;
use pi0_edge::{Frame, Observation, Policy, PolicyOptions, Result};
use project::project;

/// The small bundle that lives in the repository.
pub fn tiny() -> PathBuf {
    project().join("models/pi0-tiny")
}

/// One of its recorded observations.
pub fn observation_dir() -> PathBuf {
    tiny().join("golden/two_cameras_10_steps")
}

/// The small PI0.5 bundle.
pub fn tiny_pi05() -> PathBuf {
    project().join("models/pi05-tiny")
}

/// A small bundle of every precision that the CPU provider runs and the repository has.
pub fn every_precision() -> [PathBuf; 2] {
    [tiny(), project().join("models/pi0-openpi-int8")]
}

/// The small policy on two threads.
pub fn load_tiny() -> Policy {
    load(&tiny()).expect("models/pi0-tiny loads; scripts/fetch_onnxruntime.sh fetches the library it needs")
}

/// A policy on two threads.
pub fn load(path: &Path) -> Result<Policy> {
    Policy::load(path, &PolicyOptions { threads: 2, ..PolicyOptions::default() })
}

/// A frame with some structure.
pub fn pixels(width: usize, height: usize, seed: usize) -> Vec<u8> {
    (0..width * height * 3).map(|i| ((i * 13 + i / 97 + seed * 41) % 256) as u8).collect()
}

/// Fills a slot of the tiny policy's: frames of that size for its first two cameras, and a state.
pub fn fill(slot: &mut ObservationSlot, width: u32, height: u32) {
    for camera in 0..2 {
        let frame = slot.frame_mut(camera, width, height).unwrap();
        frame.copy_from_slice(&pixels(width as usize, height as usize, camera));
    }
    slot.state_mut().fill(0.1);
}

/// An owned observation over the tiny policy's first cameras.
pub struct Scene {
    frames: Vec<(String, Vec<u8>, u32, u32)>,
    pub state: Vec<f32>,
    pub prompt: String,
}

impl Scene {
    /// Frames for the cameras at `indices`, of different sizes.
    pub fn new(policy: &Policy, indices: &[usize], prompt: &str) -> Self {
        let cameras = &policy.manifest().cameras;
        let frames = indices
            .iter()
            .map(|&i| {
                let (w, h) = (96 + 16 * i, 72);
                (cameras[i].name.clone(), pixels(w, h, i), w as u32, h as u32)
            })
            .collect();
        let state = (0..policy.manifest().state.dim).map(|i| 0.1 * i as f32 - 0.2).collect();
        Scene { frames, state, prompt: prompt.to_owned() }
    }

    pub fn with<T>(&self, f: impl FnOnce(&Observation<'_>) -> T) -> T {
        let images: Vec<_> = self
            .frames
            .iter()
            .map(|(name, data, w, h)| {
                (name.as_str(), Frame::new(data, *w, *h).expect("frame of the right size"))
            })
            .collect();
        f(&Observation { images: &images, state: &self.state, prompt: Some(&self.prompt) })
    }
}

/// A copy of the tiny bundle in a directory of its own.
pub fn copy_of_tiny() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    copy_tree(&tiny(), dir.path());
    dir
}

/// Copies a directory's contents.
pub fn copy_tree(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("readable directory") {
        let entry = entry.expect("readable entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir_all(&target).expect("new directory");
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied file");
        }
    }
}

/// Writes the recorded actions in `recorded`, which are in the model's units, to `file` as the robot of `bundle` would
/// know them.
pub fn in_robot_units(bundle: &Path, recorded: &Path, file: &Path) -> Array2<f32> {
    let model: Array2<f32> = read_npy(recorded).unwrap();
    let normalizer = Normalizer::new(&load(bundle).unwrap().manifest().action.normalization);
    let mut robot = Array2::zeros(model.dim());
    for (from, mut to) in model.rows().into_iter().zip(robot.rows_mut()) {
        normalizer.inverse(from.as_slice().unwrap(), to.as_slice_mut().unwrap());
    }
    write_npy(file, &robot).unwrap();
    robot
}
