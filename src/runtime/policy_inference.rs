//! A loaded policy as the runtime drives it.

use std::time::{Duration, Instant};

use super::Inference;
use crate::action::ActionLimits;
use crate::aloha;
use crate::bundle::Manifest;
use crate::limits::MAX_CAMERAS;
use crate::observation::{CameraFrame, Frame, FrameError, MAX_FRAME_SIDE, Observation};
use crate::policy::rtc::Guidance;
use crate::policy::{InferOptions, Noise, Policy};
use crate::{Error, ErrorKind, Result};

/// The options of a policy that the runtime drives.
#[derive(Debug, Clone)]
pub struct PolicyInferenceOptions {
    /// The task; the bundle's default when absent.
    pub prompt: Option<String>,
    /// Seed of the noise; every chunk draws its own from it and the chunk's number.
    pub seed: u64,
    /// Widest and highest frame a camera slot has room for, in pixels.
    pub max_frame: (u32, u32),
}

impl Default for PolicyInferenceOptions {
    /// Returns the defaults: the bundle's prompt, seed 0, frames of up to 1280 × 720.
    fn default() -> Self {
        PolicyInferenceOptions { prompt: None, seed: 0, max_frame: (1280, 720) }
    }
}

/// The inference of a [`Policy`], as the runtime drives it.
#[derive(Debug)]
pub struct PolicyInference {
    policy: Policy,
    prompt: Option<String>,
    seed: u64,
    num_steps: usize,
    max_frame: (u32, u32),
    warm_chunk: Option<Duration>,
}

impl PolicyInference {
    /// Takes a policy over. Load it with [`PolicyOptions::no_spin`](crate::PolicyOptions::no_spin): threads that spin
    /// while they wait for their share of the work would take CPUs from the control loop.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for frames of no or too large a size, or when neither
    /// `options` nor the bundle has a prompt.
    pub fn new(policy: Policy, options: PolicyInferenceOptions) -> Result<Self> {
        let bad = |what: String| Err(Error::new(ErrorKind::InvalidArgument, what));
        let manifest = policy.manifest();
        let (width, height) = options.max_frame;
        if !(1..=MAX_FRAME_SIDE).contains(&width) || !(1..=MAX_FRAME_SIDE).contains(&height) {
            return bad(format!("room for frames of {width}x{height}; sides are from 1 to {MAX_FRAME_SIDE}"));
        }
        if options.prompt.is_none() && manifest.prompt.default.is_none() {
            return bad("the bundle has no default prompt; give one in PolicyInferenceOptions".into());
        }
        let num_steps = manifest.flow.num_steps;
        let PolicyInferenceOptions { prompt, seed, max_frame } = options;
        Ok(PolicyInference { policy, prompt, seed, num_steps, max_frame, warm_chunk: None })
    }

    /// Returns the policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Gives the policy up, to be used on its own or with other options.
    pub fn into_policy(self) -> Policy {
        self.policy
    }
}

/// One camera's place in an observation.
#[derive(Debug, Clone)]
struct CameraSlot {
    name: String,
    data: Vec<u8>,
    /// Width and height of the frame that is there; none when the camera is absent.
    size: Option<(u32, u32)>,
}

/// An observation to fill in place: one place for each of the bundle's cameras, and the state. Filling it allocates
/// nothing.
#[derive(Debug, Clone)]
pub struct ObservationSlot {
    cameras: Vec<CameraSlot>,
    state: Vec<f32>,
}

impl ObservationSlot {
    /// Returns the names of the bundle's cameras, in the order that `camera` counts.
    pub fn cameras(&self) -> impl Iterator<Item = &str> {
        self.cameras.iter().map(|c| c.name.as_str())
    }

    /// Returns the pixels of `camera`'s frame to fill, RGB, `[height, width, 3]`. The camera is present from now on.
    ///
    /// None, and nothing changed, if there is no such camera or the frame is larger than the slot has room for.
    pub fn frame_mut(&mut self, camera: usize, width: u32, height: u32) -> Option<&mut [u8]> {
        let slot = self.cameras.get_mut(camera)?;
        let bytes = (width as usize).checked_mul(height as usize)?.checked_mul(3)?;
        let frame = slot.data.get_mut(..bytes).filter(|f| !f.is_empty())?;
        slot.size = Some((width, height));
        Some(frame)
    }

    /// Writes a frame that is in a driver's memory, in whatever layout, into `camera`'s place as RGB. The camera is present
    /// from now on. Allocates nothing and copies nothing in between.
    ///
    /// # Errors
    /// Every [`FrameError`]; nothing changes then.
    pub fn convert_frame(&mut self, camera: usize, frame: &CameraFrame<'_>) -> Result<(), FrameError> {
        let slot = self.cameras.get_mut(camera).ok_or(FrameError::NoCamera)?;
        let room = slot.data.get_mut(..frame.rgb_len()?).ok_or(FrameError::Room)?;
        frame.write_rgb(room)?;
        slot.size = Some((frame.width, frame.height));
        Ok(())
    }

    /// Marks a camera as absent.
    pub fn clear_frame(&mut self, camera: usize) {
        if let Some(slot) = self.cameras.get_mut(camera) {
            slot.size = None;
        }
    }

    /// Returns the state to fill, in robot units, without padding.
    pub fn state_mut(&mut self) -> &mut [f32] {
        &mut self.state
    }
}

/// Returns the spread of each joint's actions in training. In a policy of relative actions the absolute ones do not count:
/// grippers, as a rule, which jump from one end to the other and say nothing about how far along its path the robot is.
fn joint_scales(manifest: &Manifest) -> Vec<f32> {
    let action = &manifest.action;
    let mut scales = action.normalization.scales().unwrap_or_else(|| vec![1.0; action.dim]);
    if manifest.adapt_to_pi {
        scales = aloha::scales_to_robot(scales);
    }
    let relative = action.relative_mask.iter().flatten();
    scales.iter_mut().zip(relative).filter(|(_, relative)| !**relative).for_each(|(scale, _)| *scale = 0.0);
    scales
}

/// Makes room for a frame, written to once: zeroed memory is not there before that, and no sensor is to wait for it.
fn present(bytes: usize) -> Vec<u8> {
    let mut room = vec![0; bytes];
    room.fill(std::hint::black_box(0));
    room
}

/// Returns the seed of one chunk's noise, a function of the seed and the chunk's number (a step of SplitMix64).
fn chunk_seed(seed: u64, chunk: u64) -> u64 {
    let mut z = seed.wrapping_add(chunk.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Inference for PolicyInference {
    type Observation = ObservationSlot;

    fn new_observation(&self) -> ObservationSlot {
        let (width, height) = self.max_frame;
        let room = width as usize * height as usize * 3;
        let manifest = self.policy.manifest();
        let cameras = manifest.cameras.iter();
        ObservationSlot {
            cameras: cameras
                .map(|c| CameraSlot { name: c.name.clone(), data: present(room), size: None })
                .collect(),
            state: vec![0.0; manifest.state.dim],
        }
    }

    fn action_horizon(&self) -> usize {
        self.policy.manifest().dimensions.action_horizon
    }

    fn action_dim(&self) -> usize {
        self.policy.manifest().action.dim
    }

    fn num_steps(&self) -> usize {
        self.num_steps
    }

    fn max_inference_delay(&self) -> Option<usize> {
        self.policy.manifest().flow.rtc_training_max_delay
    }

    fn set_num_steps(&mut self, num_steps: usize) -> Result<()> {
        self.policy.prepare_num_steps(num_steps)?;
        self.num_steps = num_steps;
        Ok(())
    }

    fn set_prompt(&mut self, prompt: &str) -> Result<()> {
        self.policy.check_prompt(prompt)?;
        self.prompt = Some(prompt.to_owned());
        Ok(())
    }

    fn limits(&self) -> Option<ActionLimits> {
        self.policy.manifest().action.limits.clone()
    }

    fn joint_scales(&self) -> Option<Vec<f32>> {
        Some(joint_scales(self.policy.manifest()))
    }

    fn state<'a>(&self, observation: &'a ObservationSlot) -> &'a [f32] {
        &observation.state
    }

    fn worker_threads(&self) -> Vec<i32> {
        self.policy.worker_threads()
    }

    fn warm_up(&mut self) -> Result<()> {
        let mut observation = self.new_observation();
        let (width, height) = self.max_frame;
        for camera in 0..observation.cameras.len() {
            observation.frame_mut(camera, width, height);
        }
        // Twice: the first run makes ONNX Runtime's arenas and what a GPU replays afterwards, the second shows that it
        // all suffices.
        for chunk in 0..2 {
            let begun = Instant::now();
            self.begin(&observation, None, chunk)?;
            for step in 0..self.num_steps {
                self.step(step)?;
            }
            self.policy.synchronize()?;
            self.warm_chunk = Some(begun.elapsed());
            self.policy.capture_graphs()?;
        }
        Ok(())
    }

    fn warm_chunk(&self) -> Option<Duration> {
        self.warm_chunk
    }

    fn begin(
        &mut self,
        observation: &ObservationSlot,
        guidance: Option<Guidance<'_>>,
        chunk: u64,
    ) -> Result<()> {
        const NO_FRAME: Frame<'static> = Frame::EMPTY;
        let mut images = [("", NO_FRAME); MAX_CAMERAS];
        let mut present = 0;
        for camera in &observation.cameras {
            if let Some((width, height)) = camera.size {
                let bytes = width as usize * height as usize * 3;
                images[present] = (&camera.name, Frame::new(&camera.data[..bytes], width, height)?);
                present += 1;
            }
        }
        let observation = Observation {
            images: &images[..present],
            state: &observation.state,
            prompt: self.prompt.as_deref(),
        };
        let options = InferOptions {
            noise: Noise::Seed(chunk_seed(self.seed, chunk)),
            num_steps: Some(self.num_steps),
            guidance,
        };
        self.policy.begin(&observation, &options).map(|_| ())
    }

    fn step(&mut self, k: usize) -> Result<()> {
        self.policy.denoise_step(k)
    }

    fn finish(&mut self, actions: &mut [f32]) -> Result<usize> {
        // A bad value is for the runtime to find: it rejects the chunk, where an error would count as one of
        // inference.
        self.policy.finish_unchecked(actions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Normalization;
    use crate::observation::{Pixels, Plane};

    #[test]
    fn chunks_draw_different_noise_from_one_seed() {
        let seeds: Vec<u64> = (0..100).map(|c| chunk_seed(7, c)).collect();
        let mut unique = seeds.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), seeds.len());
        assert_ne!(chunk_seed(8, 3), chunk_seed(7, 3));
    }

    #[test]
    fn joints_count_by_their_statistics_and_absolute_ones_beside_relative_ones_do_not() {
        let mut manifest = Manifest::parse(include_bytes!("../../models/pi0-tiny/manifest.json")).unwrap();
        let std: Vec<f32> = (1..8).map(|joint| joint as f32).collect();
        manifest.action.normalization =
            Normalization::MeanStd { eps: 0.0, mean: vec![0.0; 7], std: std.clone() };
        manifest.action.relative_mask = None;
        assert_eq!(joint_scales(&manifest), std);
        manifest.action.relative_mask = Some((0..7).map(|joint| joint < 6).collect());
        assert_eq!(joint_scales(&manifest), [&std[..6], &[0.0]].concat());
        manifest.action.normalization = Normalization::Quantiles {
            eps: 0.0,
            q01: std.iter().map(|v| -v).collect(),
            q99: std.iter().map(|v| 3.0 * v).collect(),
        };
        assert_eq!(joint_scales(&manifest), [2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 0.0]);
        manifest.action.normalization = Normalization::Identity { eps: 0.0 };
        assert_eq!(joint_scales(&manifest), [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]);
    }

    #[test]
    fn a_slot_takes_what_it_has_room_for() {
        let camera = |name: &str| CameraSlot { name: name.into(), data: vec![0; 24], size: None };
        let mut slot = ObservationSlot { cameras: vec![camera("a"), camera("b")], state: vec![0.0; 2] };
        assert_eq!(slot.frame_mut(1, 4, 2).map(|f| f.len()), Some(24));
        assert!(slot.frame_mut(0, 4, 3).is_none() && slot.frame_mut(0, 0, 2).is_none());
        assert!(slot.frame_mut(2, 1, 1).is_none() && slot.frame_mut(0, u32::MAX, u32::MAX).is_none());
        assert_eq!(slot.cameras.iter().map(|c| c.size).collect::<Vec<_>>(), [None, Some((4, 2))]);
        slot.clear_frame(1);
        assert_eq!(slot.cameras[1].size, None);
    }

    #[test]
    fn a_slot_converts_what_it_has_room_for() {
        let camera = CameraSlot { name: "a".into(), data: vec![0; 24], size: None };
        let mut slot = ObservationSlot { cameras: vec![camera], state: vec![] };
        let data: Vec<u8> = (0..48).collect();
        let frame = |row_bytes, width, height| CameraFrame {
            pixels: Pixels::Bgr(Plane { data: &data, row_bytes }),
            width,
            height,
        };
        for (camera, frame, error) in [
            (1, frame(6, 2, 2), FrameError::NoCamera),
            (0, frame(6, 2, 5), FrameError::Room),
            (0, frame(6, 0, 2), FrameError::Side),
            (0, frame(5, 2, 2), FrameError::RowBytes),
        ] {
            assert_eq!(slot.convert_frame(camera, &frame), Err(error));
            assert_eq!((slot.cameras[0].size, &slot.cameras[0].data), (None, &vec![0; 24]));
        }
        slot.convert_frame(0, &frame(7, 2, 2)).unwrap();
        assert_eq!(slot.cameras[0].size, Some((2, 2)));
        assert_eq!(slot.cameras[0].data[..13], [2, 1, 0, 5, 4, 3, 9, 8, 7, 12, 11, 10, 0]);
    }
}
