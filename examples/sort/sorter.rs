//! What computes chunks in the loop, and how it is shown the scene.

use std::time::Duration;

use pi0_edge::rtc::Guidance;
use pi0_edge::runtime::{Inference, ObservationSlot, PolicyInference, PolicyInferenceOptions, Timestamp};
use pi0_edge::{Error, ErrorKind, Policy, PolicyOptions, Result};

use crate::camera::{Camera, FRAME};
use crate::demonstrations::{ROWS, rollout};
use crate::world::{Goal, World};

/// A world and what is to be done in it. `bin` is where an expert puts a block that may go in either.
#[derive(Clone)]
pub struct Scene {
    pub world: World,
    pub goal: Goal,
    pub bin: usize,
}

/// Inference that can be shown a scene.
pub trait Sorter: Inference {
    fn show(observation: &mut Self::Observation, scene: &Scene, cameras: &[Camera; 2]);
}

impl Sorter for PolicyInference {
    fn show(observation: &mut ObservationSlot, scene: &Scene, cameras: &[Camera; 2]) {
        let side = FRAME as u32;
        for (i, camera) in cameras.iter().enumerate() {
            camera.draw(
                &scene.world,
                observation.frame_mut(i, side, side).expect("checked when it was loaded"),
            );
        }
        observation.state_mut().copy_from_slice(&scene.world.state());
    }
}

/// Loads the policy of a bundle that was trained for this task.
///
/// # Errors
/// A bundle that does not load, or that is of another task.
pub fn load(bundle: &str, num_steps: Option<usize>) -> Result<PolicyInference> {
    let policy =
        Policy::load(bundle, &PolicyOptions { threads: 1, no_spin: true, ..PolicyOptions::default() })?;
    let manifest = policy.manifest();
    let cameras = manifest.cameras.iter().map(|camera| camera.name.as_str());
    let shape = (manifest.state.dim, manifest.action.dim, manifest.dimensions.action_horizon);
    if !cameras.clone().eq(["observation.images.base", "observation.images.wrist"]) || shape != (5, 4, ROWS) {
        let cameras: Vec<_> = cameras.collect();
        let what = format!(
            "{bundle} was not trained to sort: it has the cameras {cameras:?}, {} values of state, chunks of {} actions \
             of {}; sorting has base and wrist, 5, {ROWS} and 4",
            shape.0, shape.2, shape.1
        );
        return Err(Error::new(ErrorKind::InvalidArgument, what));
    }
    let side = FRAME as u32;
    let prompt = Some(Goal::ALL[0].prompt());
    let options =
        PolicyInferenceOptions { prompt, max_frame: (side, side), ..PolicyInferenceOptions::default() };
    let mut inference = PolicyInference::new(policy, options)?;
    num_steps.map_or(Ok(()), |n| inference.set_num_steps(n))?;
    Ok(inference)
}

/// A policy without errors: the expert's chunks, computed from the world itself.
#[derive(Default)]
pub struct Expert([[f32; 4]; ROWS]);

impl Sorter for Expert {
    fn show(observation: &mut Option<Scene>, scene: &Scene, _: &[Camera; 2]) {
        *observation = Some(scene.clone());
    }
}

impl Inference for Expert {
    type Observation = Option<Scene>;

    fn new_observation(&self) -> Option<Scene> {
        None
    }

    fn action_horizon(&self) -> usize {
        ROWS
    }

    fn action_dim(&self) -> usize {
        4
    }

    fn num_steps(&self) -> usize {
        1
    }

    fn set_num_steps(&mut self, _: usize) -> Result<()> {
        Ok(())
    }

    fn set_prompt(&mut self, _: &str) -> Result<()> {
        Ok(())
    }

    fn joint_scales(&self) -> Option<Vec<f32>> {
        Some(vec![0.08, 0.08, 0.05, 0.5])
    }

    fn state<'a>(&self, observation: &'a Option<Scene>) -> &'a [f32] {
        observation.as_ref().map_or(&[], |scene| &scene.world.tool)
    }

    fn warm_up(&mut self) -> Result<()> {
        Ok(())
    }

    fn begin(&mut self, observation: &Option<Scene>, _: Option<Guidance<'_>>, _: u64) -> Result<()> {
        if let Some(scene) = observation {
            self.0 = rollout(&scene.world, scene.goal, scene.bin);
        }
        Ok(())
    }

    fn step(&mut self, _: usize) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self, actions: &mut [f32]) -> Result<usize> {
        actions.copy_from_slice(self.0.as_flattened());
        Ok(actions.len())
    }
}

/// Inference that takes at least `delay` for a chunk.
pub struct Delayed<I> {
    pub inner: I,
    pub delay: Duration,
    begun: Timestamp,
}

impl<I> Delayed<I> {
    pub fn new(inner: I, delay: Duration) -> Self {
        Delayed { inner, delay, begun: Timestamp::default() }
    }
}

impl<I: Inference> Inference for Delayed<I> {
    type Observation = I::Observation;

    fn new_observation(&self) -> I::Observation {
        self.inner.new_observation()
    }

    fn action_horizon(&self) -> usize {
        self.inner.action_horizon()
    }

    fn action_dim(&self) -> usize {
        self.inner.action_dim()
    }

    fn num_steps(&self) -> usize {
        self.inner.num_steps()
    }

    fn max_inference_delay(&self) -> Option<usize> {
        self.inner.max_inference_delay()
    }

    fn set_num_steps(&mut self, num_steps: usize) -> Result<()> {
        self.inner.set_num_steps(num_steps)
    }

    fn set_prompt(&mut self, prompt: &str) -> Result<()> {
        self.inner.set_prompt(prompt)
    }

    fn joint_scales(&self) -> Option<Vec<f32>> {
        self.inner.joint_scales()
    }

    fn state<'a>(&self, observation: &'a I::Observation) -> &'a [f32] {
        self.inner.state(observation)
    }

    fn warm_up(&mut self) -> Result<()> {
        self.inner.warm_up()
    }

    fn begin(
        &mut self,
        observation: &I::Observation,
        guidance: Option<Guidance<'_>>,
        chunk: u64,
    ) -> Result<()> {
        self.begun = Timestamp::now();
        self.inner.begin(observation, guidance, chunk)
    }

    fn step(&mut self, k: usize) -> Result<()> {
        self.inner.step(k)
    }

    fn finish(&mut self, actions: &mut [f32]) -> Result<usize> {
        (self.begun + self.delay).sleep_until();
        self.inner.finish(actions)
    }
}
