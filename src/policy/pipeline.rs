//! The four graphs over one set of preallocated tensors.
//!
//! ```text
//! pixel_values ─▶ vision_encoder ─▶ prefix rows 0..V·T ┐
//! token table ───── gather ───────▶ prefix rows V·T..P ┴▶ prefix_prefill ─▶ K, V ─▶ denoise_step ⟲ x_t
//! ```
//!
//! The arrows between graphs are shared addresses, not copies. On a device with memory of its own, what the host fills
//! is sent there in order with the runs, and only the finished actions are waited for.

mod checks;
mod tables;

use std::time::Duration;

use crate::bundle::{Bundle, FlowTimes, GraphName};
use crate::error::{Error, ErrorKind, Result};
use crate::policy::engines::Engines;
use crate::policy::flow::SCHEDULE_COLUMNS;
use crate::policy::layout::{Clean, Ids, Marks, Ports, Sizes, allocate, missing_port, row_shape};
use crate::policy::rope;
use crate::session::{
    Device, DeviceMemoryUse, Environment, Graph, GraphOptions, TensorId, Tensors, Transfers,
};

pub use checks::Intermediate;

/// Most Euler steps a chunk can have; tables are made for this many.
pub const MAX_NUM_STEPS: usize = 64;

/// Added to the scores of a row that is not to be seen. Its exponential is zero, and it is a number in f16 too.
const MASKED: f32 = -30000.0;

/// The loaded graphs and everything they read and write.
pub struct Pipeline {
    sizes: Sizes,
    time_row: Vec<i64>,
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
    /// Rows that are a clean prefix, as the graphs have it.
    clean_rows: usize,
}

impl Pipeline {
    /// Loads the graphs, or what stands for them if there are engines, and makes every tensor.
    ///
    /// # Errors
    /// As [`Graph::load`]; [`ErrorKind::Provider`] when the device has no room for the tensors.
    pub fn load(
        environment: &Environment,
        device: &Device,
        bundle: &Bundle,
        engines: Option<&Engines>,
        options: impl Fn(GraphName) -> GraphOptions,
    ) -> Result<Self> {
        let manifest = bundle.manifest();
        let load = |name: GraphName| {
            let spec = manifest.graph(name);
            let path = match engines {
                Some(engines) => engines.stand_in(name)?,
                None => bundle.path(&spec.file),
            };
            Graph::load(environment, device, name.as_str(), &path, spec, &options(name))
        };
        let sizes = Sizes::new(manifest);
        let mut tensors = device.tensors();
        let time_spec = &manifest.graph(GraphName::TimeConditioning).outputs[0];
        let time_row = row_shape(time_spec);
        let ids = allocate(&mut tensors, bundle, &sizes, &time_row, device.in_place())?;
        let positions = sizes.max_prefix + (sizes.cached_state + sizes.suffix) as usize;
        let (mut cos, mut sin) = (
            vec![0.0; positions * sizes.half_head as usize],
            vec![0.0; positions * sizes.half_head as usize],
        );
        rope::write_tables(&manifest.rope, sizes.head_dim as usize, &mut cos, &mut sin);
        tensors.write_once(ids.rope_cos, &cos)?;
        tensors.write_once(ids.rope_sin, &sin)?;
        let steps: [i64; MAX_NUM_STEPS] = std::array::from_fn(|step| step as i64);
        tensors.write_once(ids.steps, &steps)?;
        let vision = load(GraphName::VisionEncoder)?;
        let prefill = load(GraphName::PrefixPrefill)?;
        let denoise = load(GraphName::DenoiseStep)?;
        let mut pipeline = Pipeline {
            sizes,
            time_row,
            device: device.clone(),
            ports: Ports::new(&vision, &prefill, &denoise, manifest.dimensions.layers)?,
            vision,
            prefill,
            time_conditioning: load(GraphName::TimeConditioning)?,
            denoise,
            tensors,
            ids,
            bound: None,
            valid: None,
            num_steps: None,
            schedule: vec![0.0; MAX_NUM_STEPS * SCHEDULE_COLUMNS],
            periods: (manifest.flow.min_period, manifest.flow.max_period),
            times: manifest.flow.times,
            clean_rows: 0,
        };
        pipeline.bind_fixed()?;
        pipeline.make_clean_time()?;
        Ok(pipeline)
    }

    /// Binds what never moves: the denoise loop's own tensors. `x_t` is both input and output where the device allows
    /// it. Tables are bound for all the steps there can be, so that their number changes no shape.
    fn bind_fixed(&mut self) -> Result<()> {
        let Sizes { horizon, actions, state, .. } = self.sizes;
        let (ids, tensors, graph) = (&self.ids, &self.tensors, &mut self.denoise);
        let chunk: &[i64] = &[1, horizon, actions];
        let all = MAX_NUM_STEPS as i64;
        let mut table = vec![all];
        table.extend(&self.time_row);
        let inputs: [(&str, TensorId, &[i64]); 6] = [
            ("x_t", ids.x_t, chunk),
            ("time_table", ids.time_table, &table),
            ("schedule", ids.schedule, &[all, SCHEDULE_COLUMNS as i64]),
            ("step", ids.step, &[1]),
            ("prev_actions", ids.prev_actions, chunk),
            ("prefix_weights", ids.prefix_weights, &[1, horizon, 1]),
        ];
        for (name, tensor, shape) in inputs {
            let port = graph.input(name).ok_or_else(|| missing_port(graph.name(), name))?;
            graph.bind_input(port, tensors, tensor, 0, shape)?;
        }
        // PI0.5 has the state in its prompt.
        for graph in [&mut self.prefill, &mut *graph] {
            if let Some(port) = graph.input("state") {
                graph.bind_input(port, tensors, ids.state, 0, &[1, state])?;
            }
        }
        if let Some(Clean { rows, time }) = ids.clean {
            let row: &[i64] = &[1, self.time_row.iter().product()];
            for (name, tensor, shape) in [("clean_rows", rows, &[1][..]), ("clean_time", time, row)] {
                let port = graph.input(name).ok_or_else(|| missing_port(graph.name(), name))?;
                graph.bind_input(port, tensors, tensor, 0, shape)?;
            }
        }
        for (name, tensor) in [("x_next", ids.x_next.unwrap_or(ids.x_t)), ("v_t", ids.v_t)] {
            let port = graph.output(name).ok_or_else(|| missing_port(graph.name(), name))?;
            graph.bind_output(port, tensors, tensor, 0, chunk)?;
        }
        Ok(())
    }

    /// Binds for `views` present cameras and a prefix of `prefix_len` rows, which a bundle with a padded prefix runs at
    /// the next length of its buckets. Free when nothing changed; otherwise a few microseconds, and still no
    /// allocation of ours.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when the sizes exceed the bundle's.
    pub fn prepare(&mut self, views: usize, prefix_len: usize) -> Result<()> {
        let s = self.sizes;
        if views == 0 || views > s.max_views || prefix_len > s.max_prefix {
            let text = format!(
                "{views} views and {prefix_len} prefix rows; this bundle has room for {} and {}",
                s.max_views, s.max_prefix
            );
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
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

    fn bind(&mut self, views: usize, prefix_len: usize) -> Result<()> {
        let s = self.sizes;
        let (v, p) = (views as i64, prefix_len as i64);
        let Pipeline { ids, tensors, ports, vision, prefill, denoise, .. } = self;
        let pixels = [v, 3, s.height, s.width];
        vision.bind_input(ports.pixel_values, tensors, ids.pixel_values, 0, &pixels)?;
        // The encoder's output *is* the first rows of the prefix.
        let embeds = [v, s.tokens_per_view, s.prefix_width];
        vision.bind_output(ports.image_embeds, tensors, ids.prefix, 0, &embeds)?;
        prefill.bind_input(ports.prefix_embeds, tensors, ids.prefix, 0, &[1, p, s.prefix_width])?;
        for (port, table) in [(ports.rope_cos, ids.rope_cos), (ports.rope_sin, ids.rope_sin)] {
            prefill.bind_input(port[0], tensors, table, 0, &[p, s.half_head])?;
        }
        // Positions continue after the prefix: the same tables, further on. After a padded one they are copied to where
        // they do not move, see `pad`.
        let (start, tables) = match ids.padding {
            Some(padding) => (0, [padding.rope_cos, padding.rope_sin]),
            None => (prefix_len * s.half_head as usize, [ids.rope_cos, ids.rope_sin]),
        };
        for (port, table) in ports.state_rope.into_iter().flatten().zip(tables) {
            prefill.bind_input(port, tensors, table, start, &[1, s.half_head])?;
        }
        let start = start + (s.cached_state * s.half_head) as usize;
        for (port, table) in [ports.rope_cos[1], ports.rope_sin[1]].into_iter().zip(tables) {
            denoise.bind_input(port, tensors, table, start, &[s.suffix, s.half_head])?;
        }
        if let (Some(padding), Some([of_prefill, of_denoise])) = (ids.padding, ports.padding) {
            let (tensor, shape): (_, &[i64]) = match padding.marks {
                Marks::Bias(bias) => (bias, &[1, p]),
                Marks::Count(count) => (count, &[1]),
            };
            prefill.bind_input(of_prefill, tensors, tensor, 0, shape)?;
            denoise.bind_input(of_denoise, tensors, tensor, 0, shape)?;
        }
        let cached = [1, s.cached_state + p, s.head_dim];
        for ((outputs, inputs), pair) in ports.kv_outputs.iter().zip(&ports.kv_inputs).zip(&ids.kv_cache) {
            for side in 0..2 {
                prefill.bind_output(outputs[side], tensors, pair[side], 0, &cached)?;
                denoise.bind_input(inputs[side], tensors, pair[side], 0, &cached)?;
            }
        }
        vision.set_shape(views as u32);
        prefill.set_shape(prefix_len as u32);
        denoise.set_shape(prefix_len as u32);
        Ok(())
    }

    /// Marks the rows from `valid` to `padded` as ones that count for nothing, and makes them zero: even a weight of
    /// nothing makes a NaN of a NaN.
    fn pad(&mut self, valid: usize, padded: usize) -> Result<()> {
        let Some(padding) = self.ids.padding else { return Ok(()) };
        let s = self.sizes;
        let width = s.prefix_width as usize;
        let tensors = &mut self.tensors;
        tensors.clear(self.ids.prefix, valid * width..padded * width)?;
        match padding.marks {
            Marks::Bias(bias) => {
                tensors.fill_floats(bias, 0..valid, 0.0)?;
                tensors.fill_floats(bias, valid..padded, MASKED)?;
                tensors.upload(bias, 0..padded)?;
            }
            Marks::Count(count) => {
                tensors.bytes_mut(count)?.copy_from_slice(&(valid as i64).to_ne_bytes());
                tensors.upload(count, 0..1)?;
            }
        }
        let after_prefix = s.cached_state + s.suffix;
        let (start, elements) = (valid * s.half_head as usize, (after_prefix * s.half_head) as usize);
        tensors.copy((self.ids.rope_cos, start), padding.rope_cos, elements)?;
        tensors.copy((self.ids.rope_sin, start), padding.rope_sin, elements)
    }

    /// What guidance pulls towards, `[action_horizon, padded action width]` in model units, to fill.
    pub fn prev_actions_mut(&mut self) -> Result<&mut [f32]> {
        self.tensors.f32_mut(self.ids.prev_actions)
    }

    /// Guidance's weight of each row, to fill.
    pub fn prefix_weights_mut(&mut self) -> Result<&mut [f32]> {
        self.tensors.f32_mut(self.ids.prefix_weights)
    }

    /// Sends what was filled on its way to the graphs. What is sent is not to be filled again before the chunk is
    /// done: filling waits for it.
    pub fn send(&mut self, what: Filled) -> Result<()> {
        let s = self.sizes;
        let (id, range) = match what {
            Filled::Pixels(views) => (self.ids.pixel_values, 0..views * (3 * s.height * s.width) as usize),
            Filled::State => (self.ids.state, 0..s.state as usize),
            Filled::PrefixRows(rows) => {
                let width = s.prefix_width as usize;
                (self.ids.prefix, rows.start * width..rows.end * width)
            }
            Filled::Noise => (self.ids.x_t, 0..(s.horizon * s.actions) as usize),
            Filled::Guidance => {
                self.tensors.upload(self.ids.prefix_weights, 0..s.horizon as usize)?;
                (self.ids.prev_actions, 0..(s.horizon * s.actions) as usize)
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
    pub fn settle(&mut self) -> Result<()> {
        self.tensors.synchronize()
    }

    /// Begins to count anew: times of runs and bytes sent.
    pub fn restart(&mut self) {
        self.tensors.restart();
    }

    /// How long each run since [`restart`](Self::restart) took. Waits for them.
    pub fn laps(&mut self) -> Result<&[Duration]> {
        self.tensors.laps()
    }

    /// Bytes sent between host and device since [`restart`](Self::restart).
    pub fn transfers(&self) -> Transfers {
        self.tensors.transfers()
    }

    /// What the device's memory has left, where it has one of its own.
    pub fn memory_use(&self) -> Result<Option<DeviceMemoryUse>> {
        self.device.memory_use()
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
        self.settle()
    }

    /// The pixels of `views` views to fill, `[views, 3, height, width]` f32.
    pub fn pixel_values_mut(&mut self, views: usize) -> Result<&mut [f32]> {
        let per_view = (3 * self.sizes.height * self.sizes.width) as usize;
        Ok(&mut self.tensors.f32_mut(self.ids.pixel_values)?[..views * per_view])
    }

    /// The padded, normalised state to fill.
    pub fn state_mut(&mut self) -> Result<&mut [f32]> {
        self.tensors.f32_mut(self.ids.state)
    }

    /// The flow's variable, `[action_horizon, padded action width]`, to be filled with noise.
    pub fn x_t_mut(&mut self) -> Result<&mut [f32]> {
        self.tensors.f32_mut(self.ids.x_t)
    }

    /// The flow's variable as [`fetch_actions`](Self::fetch_actions) brought it.
    pub fn x_t(&self) -> &[f32] {
        self.tensors.f32(self.ids.x_t)
    }

    /// The bytes of prefix row `row` and on, for token rows to be gathered into.
    pub fn prefix_rows_mut(&mut self, row: usize, rows: usize) -> Result<&mut [u8]> {
        let bytes = self.sizes.prefix_width as usize * self.tensors.dtype(self.ids.prefix).size();
        Ok(&mut self.tensors.bytes_mut(self.ids.prefix)?[row * bytes..(row + rows) * bytes])
    }

    /// Rows one view fills in the prefix.
    pub fn tokens_per_view(&self) -> usize {
        self.sizes.tokens_per_view as usize
    }
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("bound", &self.bound).finish_non_exhaustive()
    }
}

/// What the host fills for one chunk.
#[derive(Debug, Clone)]
pub enum Filled {
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
