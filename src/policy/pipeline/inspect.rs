//! Looking into a policy: for checks and reports, not for a control loop.

use std::ops::Deref;
use std::time::{Duration, Instant};

use super::Pipeline;
use crate::action::ActionChunk;
use crate::error::{Error, Result};
use crate::observation::Observation;
use crate::policy::layout::Ids;
use crate::policy::{InferOptions, Observer, Policy, Stage, StageOutput};
use crate::session::{DeviceMemoryUse, Environment, Graph, TensorId, Transfers};

/// Shows what is inside a [`Policy`] and, over a `&mut Policy`, runs parts of it: for checks, measurements and reports.
#[derive(Debug)]
pub struct Inspector<P> {
    policy: P,
}

impl<P: Deref<Target = Policy>> Inspector<P> {
    pub(crate) fn new(policy: P) -> Self {
        Inspector { policy }
    }

    fn pipeline(&self) -> &Pipeline {
        &self.policy.pipeline
    }

    fn graphs(&self) -> [&Graph; 3] {
        let Pipeline { vision, prefill, denoise, .. } = self.pipeline();
        [vision, prefill, denoise]
    }

    /// Returns the ONNX Runtime in use.
    pub fn environment(&self) -> &'static Environment {
        self.policy.library
    }

    /// Lists the nodes of each graph by what runs them: graph, provider in ONNX Runtime's words, number of nodes.
    pub fn placement(&self) -> impl Iterator<Item = (&'static str, &str, usize)> {
        let [vision, prefill, denoise] = self.graphs();
        [vision, prefill, &self.pipeline().time_conditioning, denoise]
            .into_iter()
            .flat_map(|g| g.placement().map(|(provider, nodes)| (g.name(), provider, nodes)))
    }

    /// Lists the address that each graph's port is bound to: graph, port, address, bytes. Shows that no tensor between
    /// two graphs is ever copied: the producer's output and the consumer's input have one address.
    pub fn bound_ports(&self) -> impl Iterator<Item = (&'static str, &str, usize, usize)> {
        let graphs = self.graphs().into_iter();
        graphs.flat_map(|g| g.bound().map(|(port, address, bytes)| (g.name(), port, address, bytes)))
    }

    /// Names the graphs that an inference of the last one's shape replays on this thread as CUDA graphs.
    pub fn replayed_graphs(&self) -> impl Iterator<Item = &'static str> {
        self.graphs().into_iter().filter(|g| g.replays()).map(Graph::name)
    }

    /// Returns the bytes that the last inference sent between host and device; none where both have one memory.
    pub fn transfers(&self) -> Transfers {
        self.pipeline().tensors.transfers()
    }

    /// Asks what the device's memory has left; none where it is the host's.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`](crate::ErrorKind::Provider) when the device does not answer.
    pub fn device_memory_use(&self) -> Result<Option<DeviceMemoryUse>> {
        self.pipeline().device.memory_use()
    }

    /// Returns the rows of the last chunk's prefix: views × tokens per view, and the prompt's tokens.
    pub fn prefix_len(&self) -> usize {
        self.policy.prefix_len
    }

    /// Returns the bytes of the preallocated tensors.
    pub fn tensor_bytes(&self) -> usize {
        self.pipeline().tensors.total_bytes()
    }

    /// Lists ONNX Runtime's own threads that share this policy's work, by Linux thread id: one fewer a graph than
    /// [`PolicyOptions::threads`](crate::PolicyOptions::threads). The thread that calls does the rest.
    pub fn worker_threads(&self) -> Vec<i32> {
        self.pipeline().worker_threads()
    }

    /// Copies the velocity that the last Euler step computed, `[action_horizon, padded action width]`.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`](crate::ErrorKind::Provider) when the device fails.
    pub fn last_velocity(&self) -> Result<Vec<f32>> {
        self.read(self.pipeline().ids.v_t, self.pipeline().sizes.chunk())
    }

    fn report_prefix(&self, observer: &mut Observer<'_>) -> Result<()> {
        let Pipeline { ids, sizes: s, bound, valid, .. } = self.pipeline();
        let (views, prefix) = (bound.unwrap_or_default().0, valid.unwrap_or_default().0);
        observer(StageOutput::Tokens(self.policy.tokenizer.ids().to_vec()))?;
        observer(StageOutput::PixelValues(self.read(ids.pixel_values, views * s.view())?))?;
        let embeds = views * s.tokens_per_view * s.prefix_width;
        observer(StageOutput::ImageEmbeds(self.read(ids.prefix, embeds)?))?;
        for (layer, [key, value]) in ids.kv_cache.iter().enumerate() {
            // Where the state token's row is cached, it comes first.
            let (first, end) = (s.cached_state * s.head_dim, (s.cached_state + prefix) * s.head_dim);
            let prefix_rows = |id| Ok::<_, Error>(self.read(id, end)?.split_off(first));
            observer(StageOutput::Keys(layer, prefix_rows(*key)?))?;
            observer(StageOutput::Values(layer, prefix_rows(*value)?))?;
        }
        Ok(())
    }

    fn read(&self, id: TensorId, elements: usize) -> Result<Vec<f32>> {
        self.pipeline().tensors.read_f32(id, 0..elements)
    }
}

impl<'a> Inspector<&'a mut Policy> {
    /// Infers as [`Policy::infer`] does, handing every intermediate result to `observer`. Allocates.
    ///
    /// # Errors
    /// As [`Policy::infer`], and whatever `observer` returns.
    pub fn infer_observed(
        self,
        observation: &Observation<'_>,
        options: &InferOptions<'_>,
        observer: &mut Observer<'_>,
    ) -> Result<&'a ActionChunk> {
        let start = Instant::now();
        let num_steps = self.policy.begin(observation, options)?;
        self.report_prefix(observer)?;
        for step in 0..num_steps {
            self.policy.denoise_step(step)?;
            observer(StageOutput::Velocity(step, self.last_velocity()?))?;
        }
        let pipeline = self.pipeline();
        observer(StageOutput::ActionsNormalized(self.read(pipeline.ids.x_t, pipeline.sizes.chunk())?))?;
        self.policy.finish()?;
        self.policy.timing.total = start.elapsed();
        Ok(self.policy.chunk())
    }

    /// Runs one stage again on what its tensors hold since the last inference, and returns the time it took, on the
    /// device if there is one. The chunk is not touched, and the next [`Policy::infer`] starts afresh.
    ///
    /// # Errors
    /// [`ErrorKind::Graph`](crate::ErrorKind::Graph) when nothing was inferred before, or ONNX Runtime fails.
    pub fn run_stage(self, stage: Stage) -> Result<Duration> {
        let (pipeline, num_steps) = (&mut self.policy.pipeline, self.policy.num_steps);
        pipeline.restart();
        match stage {
            Stage::Vision => pipeline.encode_views(),
            Stage::Prefix => pipeline.prefill(),
            Stage::DenoiseStep => pipeline.denoise_step(0),
            Stage::DenoiseLoop => {
                pipeline.set_num_steps(num_steps)?;
                (0..num_steps).try_for_each(|step| pipeline.denoise_step(step))
            }
        }?;
        Ok(pipeline.run_times()?.iter().sum())
    }

    /// Runs every graph once, over all cameras and the longest prompt, on whatever the tensors hold. Shows that the
    /// provider can run what it took; done by [`Policy::load`] for every provider but the CPU's.
    ///
    /// # Errors
    /// [`ErrorKind::Graph`](crate::ErrorKind::Graph) or [`ErrorKind::Provider`](crate::ErrorKind::Provider), saying
    /// which graph failed and how.
    pub fn smoke(self) -> Result<()> {
        let (provider, num_steps) = (self.policy.provider, self.policy.num_steps);
        self.policy.pipeline.smoke(num_steps).map_err(|e| {
            let text = format!(
                "smoke run on {provider} failed; pi0-edge doctor --provider {provider} says what may be missing"
            );
            Error::with_source(e.kind(), text, e)
        })
    }

    /// Fills every tensor that an inference must write before reading it with NaN. An inference that still gives the
    /// same chunk read nothing stale.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`](crate::ErrorKind::Provider) when the device fails.
    pub fn poison(self) -> Result<()> {
        let Pipeline { ids, tensors, valid, .. } = &mut self.policy.pipeline;
        // With the rows that fill the prefix up; they are made anew.
        *valid = None;
        let Ids { pixel_values, prefix, step, state, x_t, v_t, .. } = *ids;
        let single = [pixel_values, prefix, step, state, x_t, v_t].into_iter().chain(ids.x_next);
        single.chain(ids.kv_cache.iter().flatten().copied()).try_for_each(|id| tensors.poison(id))
    }
}
