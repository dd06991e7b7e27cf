//! Looking into the pipeline: for checks and reports, not for the loop.

use super::Pipeline;
use crate::error::Result;
use crate::policy::layout::Ids;
use crate::session::Graph;

/// A result between graphs, for checks.
#[derive(Debug, Clone, Copy)]
pub enum Intermediate {
    PixelValues,
    ImageEmbeds,
    Key(usize),
    Value(usize),
    Velocity,
    Actions,
}

impl Pipeline {
    /// Copies of intermediate results as f32, for checks.
    pub fn read(&self, what: Intermediate) -> Result<Vec<f32>> {
        let s = self.sizes;
        let views = self.bound.unwrap_or_default().0;
        let prefix = self.valid.unwrap_or_default().0;
        let per_view = (3 * s.height * s.width) as usize;
        let (id, len) = match what {
            Intermediate::PixelValues => (self.ids.pixel_values, views * per_view),
            Intermediate::ImageEmbeds => {
                (self.ids.prefix, views * (s.tokens_per_view * s.prefix_width) as usize)
            }
            Intermediate::Key(layer) => (self.ids.kv_cache[layer][0], prefix * s.head_dim as usize),
            Intermediate::Value(layer) => (self.ids.kv_cache[layer][1], prefix * s.head_dim as usize),
            Intermediate::Velocity => (self.ids.v_t, (s.horizon * s.actions) as usize),
            Intermediate::Actions => (self.ids.x_t, (s.horizon * s.actions) as usize),
        };
        // Of the cache, the prefix's rows: where the state token's are cached, they come first.
        let first = match what {
            Intermediate::Key(_) | Intermediate::Value(_) => (s.cached_state * s.head_dim) as usize,
            _ => 0,
        };
        self.tensors.read_f32(id, first..first + len)
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
    pub fn poison(&mut self) -> Result<()> {
        // With the rows that fill the prefix up; they are made anew.
        self.valid = None;
        let Ids { pixel_values, prefix, step, state, x_t, v_t, .. } = self.ids;
        for id in [pixel_values, prefix, step, state, x_t, v_t] {
            self.tensors.poison(id)?;
        }
        self.ids.x_next.map_or(Ok(()), |id| self.tensors.poison(id))?;
        self.ids.kv_cache.iter().flatten().try_for_each(|id| self.tensors.poison(*id))
    }

    /// Graph, provider and number of nodes of every graph.
    pub fn placement(&self) -> impl Iterator<Item = (&'static str, &str, usize)> {
        [&self.vision, &self.prefill, &self.time_conditioning, &self.denoise]
            .into_iter()
            .flat_map(|g| g.placement().map(|(provider, nodes)| (g.name(), provider, nodes)))
    }

    /// The names of the graphs whose next run on this thread replays a CUDA graph.
    pub fn replaying(&self) -> impl Iterator<Item = &'static str> {
        [&self.vision, &self.prefill, &self.denoise].into_iter().filter(|g| g.replays()).map(Graph::name)
    }
}
