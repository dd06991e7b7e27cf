//! The four graphs over one set of preallocated tensors.
//!
//! ```text
//! pixel_values ─▶ vision_encoder ─▶ prefix rows 0..V·T ┐
//! token table ───── gather ───────▶ prefix rows V·T..P ┴▶ prefix_prefill ─▶ K, V ─▶ denoise_step ⟲ x_t
//! ```
//!
//! The arrows between graphs are shared addresses, not copies. On a device with memory of its own, what the host fills
//! is sent there in order with the runs, and only the finished actions are waited for.

mod inspect;
mod tables;

use std::time::Duration;

use crate::bundle::{Bundle, FlowTimes, GraphName};
use crate::error::Result;
use crate::limits::MAX_NUM_STEPS;
use crate::policy::flow::SCHEDULE_COLUMNS;
use crate::policy::layout::{Ids, Mark, Ports, Sizes, allocate};
use crate::policy::rope;
use crate::policy::tensorrt::EngineFiles;
use crate::session::{Device, Environment, Graph, GraphOptions, TensorId, Tensors};

pub use inspect::Inspector;

/// Added to the scores of a row that is not to be seen. Its exponential is zero, and it is a number in f16 too.
const MASKED: f32 = -30000.0;

/// The loaded graphs and everything they read and write.
pub(super) struct Pipeline {
    sizes: Sizes,
    device: Device,
    tensors: Tensors,
    ids: Ids,
    ports: Ports,
    vision: Graph,
    prefill: Graph,
    time_conditioning: Graph,
    denoise: Graph,
    /// Views and (padded) prefix length the graphs are bound for.
    bound: Option<(usize, usize)>,
    /// Rows of the prefix that count, and its padded length, which the padding was made for.
    valid: Option<(usize, usize)>,
    /// Step count the tables hold.
    num_steps: Option<usize>,
    /// The schedule as the graphs have it.
    schedule: Vec<f32>,
    periods: (f64, f64),
    times: FlowTimes,
    /// Rows of the action prefix, as the graphs have it.
    action_prefix: usize,
}

impl Pipeline {
    /// Loads the graphs, or the EP context models that name their engines if there are any, and makes every tensor.
    ///
    /// # Errors
    /// As [`Graph::load`]; [`ErrorKind::Provider`](crate::ErrorKind::Provider) when the device has no room for the
    /// tensors.
    pub fn load(
        environment: &Environment,
        device: &Device,
        bundle: &Bundle,
        engines: Option<&EngineFiles>,
        options: impl Fn(GraphName) -> GraphOptions,
    ) -> Result<Self> {
        let manifest = bundle.manifest();
        let load = |name: GraphName| {
            let spec = manifest.graph(name);
            let path = match engines {
                Some(engines) => engines.context_model(name)?,
                None => bundle.path(&spec.file),
            };
            Graph::load(environment, device, name.as_str(), &path, spec, &options(name))
        };
        let sizes = Sizes::new(manifest);
        let mut tensors = device.tensors();
        let ids = allocate(&mut tensors, manifest, &sizes, device.in_place())?;
        let (mut cos, mut sin) = (vec![0.0; sizes.rope()], vec![0.0; sizes.rope()]);
        rope::write_tables(&manifest.rope, sizes.head_dim, &mut cos, &mut sin);
        tensors.write_once(ids.rope_cos, &cos)?;
        tensors.write_once(ids.rope_sin, &sin)?;
        let steps: [i64; MAX_NUM_STEPS] = std::array::from_fn(|step| step as i64);
        tensors.write_once(ids.steps, &steps)?;
        let (vision, prefill) = (load(GraphName::VisionEncoder)?, load(GraphName::PrefixPrefill)?);
        let (denoise, time) = (load(GraphName::DenoiseStep)?, load(GraphName::TimeConditioning)?);
        let mut pipeline = Pipeline {
            sizes,
            device: device.clone(),
            ports: Ports::new(&vision, &prefill, &time, &denoise, sizes.layers)?,
            vision,
            prefill,
            time_conditioning: time,
            denoise,
            tensors,
            ids,
            bound: None,
            valid: None,
            num_steps: None,
            schedule: vec![0.0; MAX_NUM_STEPS * SCHEDULE_COLUMNS],
            periods: (manifest.flow.min_period, manifest.flow.max_period),
            times: manifest.flow.times,
            action_prefix: 0,
        };
        pipeline.bind_fixed()?;
        pipeline.make_action_prefix_time()?;
        Ok(pipeline)
    }

    /// Binds what never moves: the denoise loop's own tensors. `x_t` is both input and output where the device allows
    /// it. Tables are bound for all the steps there can be, so that their number changes no shape.
    fn bind_fixed(&mut self) -> Result<()> {
        let Sizes { horizon, actions, state, time_row, .. } = self.sizes;
        let (ids, tensors, graph) = (&self.ids, &self.tensors, &mut self.denoise);
        let chunk: &[usize] = &[1, horizon, actions];
        let inputs: [(&str, TensorId, &[usize]); 6] = [
            ("x_t", ids.x_t, chunk),
            ("time_table", ids.time_table, &[MAX_NUM_STEPS, time_row]),
            ("schedule", ids.schedule, &[MAX_NUM_STEPS, SCHEDULE_COLUMNS]),
            ("step", ids.step, &[1]),
            ("prev_actions", ids.prev_actions, chunk),
            ("prefix_weights", ids.prefix_weights, &[1, horizon, 1]),
        ];
        for (name, tensor, shape) in inputs {
            graph.bind(graph.input(name)?, tensors, (tensor, 0), shape)?;
        }
        // PI0.5 has the state in its prompt.
        for graph in [&mut *graph, &mut self.prefill] {
            if let Some(port) = graph.find_input("state") {
                graph.bind(port, tensors, (ids.state, 0), &[1, state])?;
            }
        }
        if let Some(prefix) = ids.action_prefix {
            graph.bind(graph.input("clean_rows")?, tensors, (prefix.len, 0), &[1])?;
            graph.bind(graph.input("clean_time")?, tensors, (prefix.time, 0), &[1, time_row])?;
        }
        graph.bind(graph.output("x_next")?, tensors, (ids.x_next.unwrap_or(ids.x_t), 0), chunk)?;
        graph.bind(graph.output("v_t")?, tensors, (ids.v_t, 0), chunk)
    }

    /// Binds for `views` present cameras and a prefix of `prefix_len` rows, which a bundle with a padded prefix runs at
    /// the next length of its buckets. Free when nothing changed; otherwise a few microseconds, and still no
    /// allocation of ours.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when the sizes exceed the bundle's.
    pub fn prepare(&mut self, views: usize, prefix_len: usize) -> Result<()> {
        let s = self.sizes;
        ensure!(
            (1..=s.max_views).contains(&views) && prefix_len <= s.max_prefix,
            InvalidArgument,
            "{views} views and {prefix_len} prefix rows; this bundle has room for {} and {}",
            s.max_views,
            s.max_prefix
        );
        let padded = s.padded(prefix_len);
        if self.bound != Some((views, padded)) {
            self.bound = None;
            self.bind(views, padded)?;
            self.bound = Some((views, padded));
        }
        if self.valid != Some((prefix_len, padded)) {
            self.valid = None;
            self.pad(prefix_len, padded)?;
            self.valid = Some((prefix_len, padded));
        }
        Ok(())
    }

    fn bind(&mut self, views: usize, p: usize) -> Result<()> {
        let s = self.sizes;
        let Pipeline { ids, tensors, ports, vision, prefill, denoise, .. } = self;
        vision.bind(ports.pixel_values, tensors, (ids.pixel_values, 0), &[views, 3, s.height, s.width])?;
        // The encoder's output *is* the first rows of the prefix.
        let embeds = [views, s.tokens_per_view, s.prefix_width];
        vision.bind(ports.image_embeds, tensors, (ids.prefix, 0), &embeds)?;
        prefill.bind(ports.prefix_embeds, tensors, (ids.prefix, 0), &[1, p, s.prefix_width])?;
        // Positions continue after the prefix: the same tables, further on. After a padded one they are copied to where
        // they do not move, see `pad`.
        let (start, suffix_tables) = match ids.padding {
            Some(padding) => (0, [padding.rope_cos, padding.rope_sin]),
            None => (p * s.half_head, [ids.rope_cos, ids.rope_sin]),
        };
        let tables = [(ports.rope_cos, ids.rope_cos), (ports.rope_sin, ids.rope_sin)];
        for (([of_prefill, of_denoise], table), suffix_table) in tables.into_iter().zip(suffix_tables) {
            prefill.bind(of_prefill, tensors, (table, 0), &[p, s.half_head])?;
            let after_state = start + s.cached_state * s.half_head;
            denoise.bind(of_denoise, tensors, (suffix_table, after_state), &[s.suffix, s.half_head])?;
        }
        for (port, table) in ports.state_rope.into_iter().flatten().zip(suffix_tables) {
            prefill.bind(port, tensors, (table, start), &[1, s.half_head])?;
        }
        if let (Some(padding), Some([of_prefill, of_denoise])) = (ids.padding, ports.mark) {
            let (mark, shape): (_, &[usize]) = match padding.mark {
                Mark::Bias(bias) => (bias, &[1, p]),
                Mark::Count(count) => (count, &[1]),
            };
            prefill.bind(of_prefill, tensors, (mark, 0), shape)?;
            denoise.bind(of_denoise, tensors, (mark, 0), shape)?;
        }
        let cached = [1, s.cached_state + p, s.head_dim];
        for ((outputs, inputs), pair) in ports.kv_outputs.iter().zip(&ports.kv_inputs).zip(&ids.kv_cache) {
            for side in 0..2 {
                prefill.bind(outputs[side], tensors, (pair[side], 0), &cached)?;
                denoise.bind(inputs[side], tensors, (pair[side], 0), &cached)?;
            }
        }
        vision.set_shape(views as u32);
        prefill.set_shape(p as u32);
        denoise.set_shape(p as u32);
        Ok(())
    }

    /// Marks the rows from `valid` to `padded` as ones that count for nothing, and makes them zero: even a weight of
    /// nothing makes a NaN of a NaN.
    fn pad(&mut self, valid: usize, padded: usize) -> Result<()> {
        let Some(padding) = self.ids.padding else { return Ok(()) };
        let (s, tensors) = (self.sizes, &mut self.tensors);
        tensors.clear(self.ids.prefix, valid * s.prefix_width..padded * s.prefix_width)?;
        match padding.mark {
            Mark::Bias(bias) => {
                tensors.fill_floats(bias, 0..valid, 0.0)?;
                tensors.fill_floats(bias, valid..padded, MASKED)?;
                tensors.upload(bias, 0..padded)?;
            }
            Mark::Count(count) => {
                tensors.bytes_mut(count)?.copy_from_slice(&(valid as i64).to_ne_bytes());
                tensors.upload(count, 0..1)?;
            }
        }
        let (start, elements) = (valid * s.half_head, s.rope_after_prefix());
        tensors.copy((self.ids.rope_cos, start), padding.rope_cos, elements)?;
        tensors.copy((self.ids.rope_sin, start), padding.rope_sin, elements)
    }

    /// An f32 input to fill, the whole of it; `which` names it.
    pub fn input_mut(&mut self, which: impl FnOnce(&Ids) -> TensorId) -> Result<&mut [f32]> {
        self.tensors.f32_mut(which(&self.ids))
    }

    /// Sends what was filled on its way to the graphs. What is sent is not to be filled again before the chunk is
    /// done: filling waits for it.
    pub fn send(&mut self, what: Filled) -> Result<()> {
        let s = self.sizes;
        let (id, range) = match what {
            Filled::Pixels(views) => (self.ids.pixel_values, 0..views * s.view()),
            Filled::State => (self.ids.state, 0..s.state),
            Filled::PrefixRows(rows) => {
                (self.ids.prefix, rows.start * s.prefix_width..rows.end * s.prefix_width)
            }
            Filled::Noise => (self.ids.x_t, 0..s.chunk()),
            Filled::Guidance => {
                self.tensors.upload(self.ids.prefix_weights, 0..s.horizon)?;
                (self.ids.prev_actions, 0..s.chunk())
            }
        };
        self.tensors.upload(id, range)
    }

    /// Runs the vision encoder over the bound views.
    pub fn encode_views(&mut self) -> Result<()> {
        self.vision.run(&mut self.tensors)
    }

    /// Runs the prefill over the bound prefix.
    pub fn prefill(&mut self) -> Result<()> {
        self.prefill.run(&mut self.tensors)
    }

    /// Runs Euler step `step` on `x_t`.
    pub fn denoise_step(&mut self, step: usize) -> Result<()> {
        debug_assert!(self.num_steps.is_some_and(|n| step < n));
        let (ids, tensors) = (&self.ids, &mut self.tensors);
        tensors.copy((ids.steps, step), ids.step, 1)?;
        self.denoise.run(tensors)?;
        match ids.x_next {
            Some(x_next) => tensors.copy((x_next, 0), ids.x_t, tensors.capacity(x_next)),
            None => Ok(()),
        }
    }

    /// Brings the finished actions to the host, where [`x_t`](Self::x_t) reads them. The one wait of a chunk.
    pub fn fetch_actions(&mut self) -> Result<()> {
        self.tensors.download(self.ids.x_t, 0..self.tensors.capacity(self.ids.x_t))?;
        self.tensors.synchronize()
    }

    /// Waits until everything that was queued is done, and says what of it failed.
    pub fn synchronize(&mut self) -> Result<()> {
        self.tensors.synchronize()
    }

    /// Begins to count anew: times of runs and bytes sent.
    pub fn restart(&mut self) {
        self.tensors.restart();
    }

    /// Returns the time that each run since [`restart`](Self::restart) took. Waits for them.
    pub fn run_times(&mut self) -> Result<&[Duration]> {
        self.tensors.run_times()
    }

    /// Returns ONNX Runtime's own threads of all graphs.
    pub fn worker_threads(&self) -> Vec<i32> {
        [&self.vision, &self.prefill, &self.denoise].into_iter().flat_map(Graph::worker_threads).collect()
    }

    /// Captures the CUDA graphs of the shapes that are bound, on the calling thread. Spoils `x_t`.
    pub fn capture(&mut self) -> Result<()> {
        if self.bound.is_none() || self.num_steps.is_none() {
            return Ok(());
        }
        self.tensors.copy((self.ids.steps, 0), self.ids.step, 1)?;
        self.vision.capture(&mut self.tensors)?;
        self.prefill.capture(&mut self.tensors)?;
        self.denoise.capture(&mut self.tensors)
    }

    /// Runs every graph once over all there is room for, on whatever the tensors hold.
    pub fn smoke(&mut self, num_steps: usize) -> Result<()> {
        self.set_num_steps(num_steps)?;
        self.prepare(self.sizes.max_views, self.sizes.max_prefix)?;
        self.encode_views()?;
        self.prefill()?;
        self.denoise_step(0)?;
        self.synchronize()
    }

    /// The pixels of `views` views to fill, `[views, 3, height, width]` f32.
    pub fn pixel_values_mut(&mut self, views: usize) -> Result<&mut [f32]> {
        let elements = views * self.sizes.view();
        Ok(&mut self.input_mut(|ids| ids.pixel_values)?[..elements])
    }

    /// The flow's variable as [`fetch_actions`](Self::fetch_actions) brought it.
    pub fn x_t(&self) -> &[f32] {
        self.tensors.f32(self.ids.x_t)
    }

    /// The bytes of prefix row `row` and on, for token rows to be gathered into.
    pub fn prefix_rows_mut(&mut self, row: usize, rows: usize) -> Result<&mut [u8]> {
        let bytes = self.sizes.prefix_width * self.tensors.dtype(self.ids.prefix).size();
        Ok(&mut self.tensors.bytes_mut(self.ids.prefix)?[row * bytes..(row + rows) * bytes])
    }

    /// Rows one view fills in the prefix.
    pub fn tokens_per_view(&self) -> usize {
        self.sizes.tokens_per_view
    }
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("bound", &self.bound).finish_non_exhaustive()
    }
}

/// A part that the host fills for one chunk.
#[derive(Debug, Clone)]
pub(super) enum Filled {
    /// The pixels of so many views.
    Pixels(usize),
    State,
    /// These rows of the prefix.
    PrefixRows(std::ops::Range<usize>),
    Noise,
    /// The previous actions, and the weights of their rows.
    Guidance,
}

#[cfg(test)]
#[path = "pipeline/provider_tests.rs"]
mod provider_tests;
