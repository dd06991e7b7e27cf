//! The four graphs over one set of preallocated tensors.
//!
//! ```text
//! pixel_values ─▶ vision_encoder ─▶ prefix rows 0..V·T ┐
//! token table ───── gather ───────▶ prefix rows V·T..P ┴▶ prefix_prefill ─▶ K, V ─▶ denoise_step ⟲ x_t
//! ```
//!
//! The arrows between graphs are shared addresses, not copies.

use std::time::Duration;

use crate::bundle::{Bundle, FlowTimes, GraphName};
use crate::error::{Error, ErrorKind, Result};
use crate::policy::flow::{self, SCHEDULE_COLUMNS};
use crate::policy::layout::{Clean, Ids, Ports, Sizes, allocate, missing_port, row_shape};
use crate::policy::rope;
use crate::session::{Environment, Graph, GraphOptions, TensorId, Tensors};

/// Most Euler steps a chunk can have; tables are made for this many.
pub const MAX_NUM_STEPS: usize = 64;

/// The loaded graphs and everything they read and write.
pub struct Pipeline {
    sizes: Sizes,
    time_row: Vec<i64>,
    tensors: Tensors,
    ids: Ids,
    ports: Ports,
    vision: Graph,
    prefill: Graph,
    time_conditioning: Graph,
    denoise: Graph,
    /// Views and prefix length the graphs are bound for.
    bound: Option<(usize, usize)>,
    /// Step count the tables hold.
    num_steps: Option<usize>,
    periods: (f64, f64),
    times: FlowTimes,
}

impl Pipeline {
    /// Loads the graphs and makes every tensor.
    ///
    /// # Errors
    /// As [`Graph::load`].
    pub fn load(
        environment: &Environment,
        bundle: &Bundle,
        options: impl Fn(GraphName) -> GraphOptions,
    ) -> Result<Self> {
        let manifest = bundle.manifest();
        let load = |name: GraphName| {
            let spec = manifest.graph(name);
            let path = bundle.path(&spec.file);
            Graph::load(environment, name.as_str(), &path, spec, &options(name))
        };
        let sizes = Sizes::new(manifest);
        let mut tensors = Tensors::new();
        let time_spec = &manifest.graph(GraphName::TimeConditioning).outputs[0];
        let time_row = row_shape(time_spec);
        let ids = allocate(&mut tensors, bundle, &sizes, &time_row);
        let positions = sizes.max_prefix + sizes.suffix as usize;
        let (mut cos, mut sin) = (
            vec![0.0; positions * sizes.half_head as usize],
            vec![0.0; positions * sizes.half_head as usize],
        );
        rope::write_tables(&manifest.rope, sizes.head_dim as usize, &mut cos, &mut sin);
        tensors.f32_mut(ids.rope_cos).copy_from_slice(&cos);
        tensors.f32_mut(ids.rope_sin).copy_from_slice(&sin);
        let vision = load(GraphName::VisionEncoder)?;
        let prefill = load(GraphName::PrefixPrefill)?;
        let denoise = load(GraphName::DenoiseStep)?;
        let mut pipeline = Pipeline {
            sizes,
            time_row,
            ports: Ports::new(&vision, &prefill, &denoise, manifest.dimensions.layers)?,
            vision,
            prefill,
            time_conditioning: load(GraphName::TimeConditioning)?,
            denoise,
            tensors,
            ids,
            bound: None,
            num_steps: None,
            periods: (manifest.flow.min_period, manifest.flow.max_period),
            times: manifest.flow.times,
        };
        pipeline.bind_fixed()?;
        pipeline.make_clean_time()?;
        Ok(pipeline)
    }

    /// Binds what never moves: the denoise loop's own tensors. `x_t` is both input and output.
    fn bind_fixed(&mut self) -> Result<()> {
        let Sizes { horizon, actions, state, .. } = self.sizes;
        let (ids, tensors, graph) = (&self.ids, &self.tensors, &mut self.denoise);
        let chunk: &[i64] = &[1, horizon, actions];
        let inputs: [(&str, TensorId, &[i64]); 5] = [
            ("x_t", ids.x_t, chunk),
            ("step", ids.step, &[1]),
            ("state", ids.state, &[1, state]),
            ("prev_actions", ids.prev_actions, chunk),
            ("prefix_weights", ids.prefix_weights, &[1, horizon, 1]),
        ];
        for (name, tensor, shape) in inputs {
            match graph.input(name) {
                Some(port) => graph.bind_input(port, tensors, tensor, 0, shape)?,
                None if name == "state" => {} // PI0.5 has the state in its prompt
                None => return Err(missing_port(graph.name(), name)),
            }
        }
        if let Some(Clean { rows, time }) = ids.clean {
            let row: &[i64] = &[1, self.time_row.iter().product()];
            for (name, tensor, shape) in [("clean_rows", rows, &[1][..]), ("clean_time", time, row)] {
                let port = graph.input(name).ok_or_else(|| missing_port(graph.name(), name))?;
                graph.bind_input(port, tensors, tensor, 0, shape)?;
            }
        }
        for (name, tensor) in [("x_next", ids.x_t), ("v_t", ids.v_t)] {
            let port = graph.output(name).ok_or_else(|| missing_port(graph.name(), name))?;
            graph.bind_output(port, tensors, tensor, 0, chunk)?;
        }
        Ok(())
    }

    /// Binds for `views` present cameras and a prefix of `prefix_len` rows. Free when nothing changed; otherwise
    /// a few microseconds, and still no allocation of ours.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when the sizes exceed the bundle's.
    pub fn prepare(&mut self, views: usize, prefix_len: usize) -> Result<()> {
        if self.bound == Some((views, prefix_len)) {
            return Ok(());
        }
        let s = self.sizes;
        if views == 0 || views > s.max_views || prefix_len > s.max_prefix {
            let text = format!(
                "{views} views and {prefix_len} prefix rows; this bundle has room for {} and {}",
                s.max_views, s.max_prefix
            );
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        self.bound = None;
        let (v, p) = (views as i64, prefix_len as i64);
        let Pipeline { ids, tensors, ports, vision, prefill, denoise, .. } = self;
        let pixels = [v, 3, s.height, s.width];
        vision.bind_input(ports.pixel_values, tensors, ids.pixel_values, 0, &pixels)?;
        // The encoder's output *is* the first rows of the prefix.
        let embeds = [v, s.tokens_per_view, s.prefix_width];
        vision.bind_output(ports.image_embeds, tensors, ids.prefix, 0, &embeds)?;
        prefill.bind_input(ports.prefix_embeds, tensors, ids.prefix, 0, &[1, p, s.prefix_width])?;
        // Suffix positions continue after the prefix: the same tables, further on.
        let suffix_start = prefix_len * s.half_head as usize;
        for (port, table) in [(ports.rope_cos, ids.rope_cos), (ports.rope_sin, ids.rope_sin)] {
            prefill.bind_input(port[0], tensors, table, 0, &[p, s.half_head])?;
            denoise.bind_input(port[1], tensors, table, suffix_start, &[s.suffix, s.half_head])?;
        }
        let cached = [1, p, s.head_dim];
        for ((outputs, inputs), pair) in ports.kv_outputs.iter().zip(&ports.kv_inputs).zip(&ids.kv_cache) {
            for side in 0..2 {
                prefill.bind_output(outputs[side], tensors, pair[side], 0, &cached)?;
                denoise.bind_input(inputs[side], tensors, pair[side], 0, &cached)?;
            }
        }
        self.bound = Some((views, prefix_len));
        Ok(())
    }

    /// Makes the time table's row for rows that are clean, whose time is 0 in every step.
    fn make_clean_time(&mut self) -> Result<()> {
        let Some(clean) = self.ids.clean else { return Ok(()) };
        let width = self.sizes.expert_width as usize;
        let embedding = &mut self.tensors.f32_mut(self.ids.time_embedding)[..width];
        flow::write_time_embedding(0.0, self.periods.0, self.periods.1, embedding);
        let (time, tensors) = (&mut self.time_conditioning, &mut self.tensors);
        time.bind_input(0, tensors, self.ids.time_embedding, 0, &[1, width as i64])?;
        let row = [1, self.time_row.iter().product()];
        time.bind_output(0, tensors, clean.time, 0, &row)?;
        time.run(tensors).map(drop)
    }

    /// Makes the tables of `num_steps` Euler steps unless they are there already.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] outside 1..=[`MAX_NUM_STEPS`].
    pub fn set_num_steps(&mut self, num_steps: usize) -> Result<()> {
        if self.num_steps == Some(num_steps) {
            return Ok(());
        }
        if !(1..=MAX_NUM_STEPS).contains(&num_steps) {
            let text = format!("num_steps is {num_steps}; it must be from 1 to {MAX_NUM_STEPS}");
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        self.num_steps = None;
        let (ids, tensors) = (&self.ids, &mut self.tensors);
        let width = self.sizes.expert_width as usize;
        let embeddings = tensors.f32_mut(ids.time_embedding);
        for (step, row) in embeddings.chunks_exact_mut(width).take(num_steps).enumerate() {
            let time = flow::flow_time(self.times, step, num_steps) as f32;
            flow::write_time_embedding(time, self.periods.0, self.periods.1, row);
        }
        flow::write_schedule(self.times, num_steps, tensors.f32_mut(ids.schedule), |_| 0.0);
        let n = num_steps as i64;
        let mut table = vec![n];
        table.extend(&self.time_row);
        let time = &mut self.time_conditioning;
        time.bind_input(0, tensors, ids.time_embedding, 0, &[n, width as i64])?;
        time.bind_output(0, tensors, ids.time_table, 0, &table)?;
        time.run(tensors)?;
        let (ports, denoise) = (&self.ports, &mut self.denoise);
        denoise.bind_input(ports.time_table, tensors, ids.time_table, 0, &table)?;
        denoise.bind_input(ports.schedule, tensors, ids.schedule, 0, &[n, SCHEDULE_COLUMNS as i64])?;
        self.num_steps = Some(num_steps);
        Ok(())
    }

    /// Sets every step's guidance weight: `weight(flow time)`. The tables must have been made.
    pub fn set_guidance(&mut self, weight: impl Fn(f64) -> f32) {
        if let Some(num_steps) = self.num_steps {
            flow::write_schedule(self.times, num_steps, self.tensors.f32_mut(self.ids.schedule), weight);
        }
    }

    /// Sets how many rows are a clean prefix: those of the previous actions, kept as they are in every step.
    /// Nothing for a policy that was not trained for it.
    pub fn set_clean_rows(&mut self, rows: usize) {
        if let Some(clean) = self.ids.clean {
            self.tensors.i64_mut(clean.rows)[0] = rows as i64;
        }
    }

    /// What guidance pulls towards, `[action_horizon, padded action width]` in model units, to fill.
    pub fn prev_actions_mut(&mut self) -> &mut [f32] {
        self.tensors.f32_mut(self.ids.prev_actions)
    }

    /// Guidance's weight of each row, to fill.
    pub fn prefix_weights_mut(&mut self) -> &mut [f32] {
        self.tensors.f32_mut(self.ids.prefix_weights)
    }

    /// Runs the vision encoder over the bound views; returns ONNX Runtime's time.
    pub fn encode_views(&mut self) -> Result<Duration> {
        self.vision.run(&mut self.tensors)
    }

    /// Runs the prefill over the bound prefix; returns ONNX Runtime's time.
    pub fn prefill(&mut self) -> Result<Duration> {
        self.prefill.run(&mut self.tensors)
    }

    /// Runs Euler step `step` on `x_t` in place; returns ONNX Runtime's time.
    pub fn denoise_step(&mut self, step: usize) -> Result<Duration> {
        debug_assert!(self.num_steps.is_some_and(|n| step < n));
        self.tensors.i64_mut(self.ids.step)[0] = step as i64;
        self.denoise.run(&mut self.tensors)
    }

    /// The pixels of `views` views to fill, `[views, 3, height, width]` f32.
    pub fn pixel_values_mut(&mut self, views: usize) -> &mut [f32] {
        let per_view = (3 * self.sizes.height * self.sizes.width) as usize;
        &mut self.tensors.f32_mut(self.ids.pixel_values)[..views * per_view]
    }

    /// The padded, normalised state to fill.
    pub fn state_mut(&mut self) -> &mut [f32] {
        self.tensors.f32_mut(self.ids.state)
    }

    /// The flow's variable, `[action_horizon, padded action width]`: noise before the first step, actions after
    /// the last.
    pub fn x_t_mut(&mut self) -> &mut [f32] {
        self.tensors.f32_mut(self.ids.x_t)
    }

    /// As [`x_t_mut`](Self::x_t_mut), to read.
    pub fn x_t(&self) -> &[f32] {
        self.tensors.f32(self.ids.x_t)
    }

    /// The bytes of prefix row `row` and on, for token rows to be gathered into.
    pub fn prefix_rows_mut(&mut self, row: usize, rows: usize) -> &mut [u8] {
        let bytes = self.sizes.prefix_width as usize * self.tensors.dtype(self.ids.prefix).size();
        &mut self.tensors.bytes_mut(self.ids.prefix)[row * bytes..(row + rows) * bytes]
    }

    /// Rows one view fills in the prefix.
    pub fn tokens_per_view(&self) -> usize {
        self.sizes.tokens_per_view as usize
    }

    /// Copies of intermediate results as f32, for checks.
    pub fn read(&self, what: Intermediate) -> Vec<f32> {
        let s = self.sizes;
        let (views, prefix) = self.bound.unwrap_or_default();
        let per_view = (3 * s.height * s.width) as usize;
        let (id, len) = match what {
            Intermediate::PixelValues => (self.ids.pixel_values, views * per_view),
            Intermediate::ImageEmbeds => {
                (self.ids.prefix, views * (s.tokens_per_view * s.prefix_width) as usize)
            }
            Intermediate::Key(layer) => (self.ids.kv_cache[layer][0], prefix * s.head_dim as usize),
            Intermediate::Value(layer) => (self.ids.kv_cache[layer][1], prefix * s.head_dim as usize),
            Intermediate::Velocity => (self.ids.v_t, (s.horizon * s.actions) as usize),
        };
        self.tensors.read_f32(id, 0..len)
    }

    /// Layers of the KV cache.
    pub fn layers(&self) -> usize {
        self.ids.kv_cache.len()
    }

    /// ONNX Runtime's own threads of all graphs.
    pub fn worker_threads(&self) -> Vec<i32> {
        [&self.vision, &self.prefill, &self.denoise].into_iter().flat_map(Graph::worker_threads).collect()
    }

    /// Bytes of all preallocated tensors.
    pub fn tensor_bytes(&self) -> usize {
        self.tensors.total_bytes()
    }

    /// Every bound port as (graph, port, address, bytes).
    pub fn bound_ports(&self) -> impl Iterator<Item = (&'static str, &str, usize, usize)> {
        [&self.vision, &self.prefill, &self.denoise]
            .into_iter()
            .flat_map(|g| g.bound().map(|(port, address, bytes)| (g.name(), port, address, bytes)))
    }

    /// Fills everything that one inference must write before it reads with NaN.
    pub fn poison(&mut self) {
        let Ids { pixel_values, prefix, step, state, x_t, v_t, .. } = self.ids;
        for id in [pixel_values, prefix, step, state, x_t, v_t] {
            self.tensors.poison(id);
        }
        for id in self.ids.kv_cache.iter().flatten() {
            self.tensors.poison(*id);
        }
    }
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("bound", &self.bound).finish_non_exhaustive()
    }
}

/// A result between graphs, for checks.
#[derive(Debug, Clone, Copy)]
pub enum Intermediate {
    PixelValues,
    ImageEmbeds,
    Key(usize),
    Value(usize),
    Velocity,
}
