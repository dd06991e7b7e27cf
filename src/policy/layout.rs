//! What the pipeline's tensors and ports are: roles, sizes, and where each graph takes them.

use crate::bundle::{Bundle, Dim, Dtype, GraphName, Manifest, TensorSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::policy::MAX_NUM_STEPS;
use crate::policy::flow::SCHEDULE_COLUMNS;
use crate::session::{Graph, TensorId, Tensors};

/// The tensors, by role. Capacities are for every camera present and the longest prompt.
pub(super) struct Ids {
    pub(super) pixel_values: TensorId,
    pub(super) prefix: TensorId,
    pub(super) rope_cos: TensorId,
    pub(super) rope_sin: TensorId,
    pub(super) kv_cache: Vec<[TensorId; 2]>,
    pub(super) time_embedding: TensorId,
    pub(super) time_table: TensorId,
    pub(super) schedule: TensorId,
    pub(super) step: TensorId,
    pub(super) state: TensorId,
    pub(super) prev_actions: TensorId,
    pub(super) prefix_weights: TensorId,
    pub(super) x_t: TensorId,
    pub(super) v_t: TensorId,
    /// Of a policy trained for real-time chunking: how many rows are a clean prefix, and the time table's row for them.
    pub(super) clean: Option<Clean>,
}

#[derive(Clone, Copy)]
pub(super) struct Clean {
    pub(super) rows: TensorId,
    pub(super) time: TensorId,
}

/// Ports that are bound anew when the prefix changes, resolved once so that this costs no look-up by name.
pub(super) struct Ports {
    pub(super) pixel_values: usize,
    pub(super) image_embeds: usize,
    pub(super) prefix_embeds: usize,
    /// Of the prefill, then of the denoise step.
    pub(super) rope_cos: [usize; 2],
    pub(super) rope_sin: [usize; 2],
    /// Key and value of each layer: the prefill's outputs, and the denoise step's inputs.
    pub(super) kv_outputs: Vec<[usize; 2]>,
    pub(super) kv_inputs: Vec<[usize; 2]>,
    pub(super) time_table: usize,
    pub(super) schedule: usize,
}

impl Ports {
    pub(super) fn new(vision: &Graph, prefill: &Graph, denoise: &Graph, layers: usize) -> Result<Self> {
        let input = |g: &Graph, n: &str| g.input(n).ok_or_else(|| missing_port(g.name(), n));
        let output = |g: &Graph, n: &str| g.output(n).ok_or_else(|| missing_port(g.name(), n));
        let both = |f: &dyn Fn(&str) -> Result<usize>, cache: &str, layer: usize| {
            Ok([f(&format!("{cache}.{layer}.key"))?, f(&format!("{cache}.{layer}.value"))?])
        };
        Ok(Ports {
            pixel_values: input(vision, "pixel_values")?,
            image_embeds: output(vision, "image_embeds")?,
            prefix_embeds: input(prefill, "prefix_embeds")?,
            rope_cos: [input(prefill, "rope_cos")?, input(denoise, "rope_cos")?],
            rope_sin: [input(prefill, "rope_sin")?, input(denoise, "rope_sin")?],
            kv_outputs: (0..layers)
                .map(|i| both(&|n| output(prefill, n), "present", i))
                .collect::<Result<_>>()?,
            kv_inputs: (0..layers)
                .map(|i| both(&|n| input(denoise, n), "past_key_values", i))
                .collect::<Result<_>>()?,
            time_table: input(denoise, "time_table")?,
            schedule: input(denoise, "schedule")?,
        })
    }
}

/// Sizes that binding needs, taken from the manifest once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) height: i64,
    pub(super) width: i64,
    pub(super) tokens_per_view: i64,
    pub(super) prefix_width: i64,
    pub(super) half_head: i64,
    pub(super) head_dim: i64,
    pub(super) expert_width: i64,
    pub(super) suffix: i64,
    pub(super) horizon: i64,
    pub(super) actions: i64,
    pub(super) state: i64,
    pub(super) max_views: usize,
    pub(super) max_prefix: usize,
}

impl Sizes {
    pub(super) fn new(manifest: &Manifest) -> Self {
        let d = &manifest.dimensions;
        let max_views = manifest.cameras.len();
        Sizes {
            height: d.image_height as i64,
            width: d.image_width as i64,
            tokens_per_view: d.tokens_per_view as i64,
            prefix_width: d.prefix_width as i64,
            half_head: (d.head_dim / 2) as i64,
            head_dim: d.head_dim as i64,
            expert_width: d.expert_width as i64,
            suffix: manifest.suffix_len() as i64,
            horizon: d.action_horizon as i64,
            actions: manifest.action.padded_dim as i64,
            state: manifest.state.padded_dim as i64,
            max_views,
            max_prefix: max_views * d.tokens_per_view + manifest.prompt.max_tokens,
        }
    }
}

/// The row shape of the time table: whatever the manifest says follows the `steps` dimension.
pub(super) fn row_shape(spec: &TensorSpec) -> Vec<i64> {
    let fixed = |d: &Dim| if let Dim::Fixed(n) = d { *n as i64 } else { 1 };
    spec.shape.iter().skip(1).map(fixed).collect()
}

fn dtype_of(bundle: &Bundle, graph: GraphName, output: &str) -> Dtype {
    let spec = bundle.manifest().graph(graph);
    let found = spec.inputs.iter().chain(&spec.outputs).find(|t| t.name == output);
    found.map_or(Dtype::F32, |t| t.dtype)
}

pub(super) fn missing_port(graph: &str, port: &str) -> Error {
    Error::new(ErrorKind::Graph, format!("{graph} has no port named {port}; export the bundle again"))
}

pub(super) fn allocate(tensors: &mut Tensors, bundle: &Bundle, s: &Sizes, time_row: &[i64]) -> Ids {
    let embeds = dtype_of(bundle, GraphName::PrefixPrefill, "prefix_embeds");
    let cache = dtype_of(bundle, GraphName::PrefixPrefill, "present.0.key");
    let positions = s.max_prefix + s.suffix as usize;
    let rope = positions * s.half_head as usize;
    let chunk = (s.horizon * s.actions) as usize;
    let time_row: i64 = time_row.iter().product();
    let f32 = Dtype::F32;
    let clean = bundle.manifest().flow.rtc_training_max_delay.map(|_| Clean {
        rows: tensors.add("clean_rows", Dtype::I64, 1),
        time: tensors.add("clean_time", f32, time_row as usize),
    });
    Ids {
        clean,
        pixel_values: tensors.add("pixel_values", f32, s.max_views * (3 * s.height * s.width) as usize),
        prefix: tensors.add("prefix_embeds", embeds, s.max_prefix * s.prefix_width as usize),
        rope_cos: tensors.add("rope_cos", f32, rope),
        rope_sin: tensors.add("rope_sin", f32, rope),
        kv_cache: (0..bundle.manifest().dimensions.layers)
            .map(|_| ["key", "value"].map(|n| tensors.add(n, cache, s.max_prefix * s.head_dim as usize)))
            .collect(),
        time_embedding: tensors.add("time_embedding", f32, MAX_NUM_STEPS * s.expert_width as usize),
        time_table: tensors.add("time_table", f32, MAX_NUM_STEPS * time_row as usize),
        schedule: tensors.add("schedule", f32, MAX_NUM_STEPS * SCHEDULE_COLUMNS),
        step: tensors.add("step", Dtype::I64, 1),
        state: tensors.add("state", f32, s.state as usize),
        prev_actions: tensors.add("prev_actions", f32, chunk),
        prefix_weights: tensors.add("prefix_weights", f32, s.horizon as usize),
        x_t: tensors.add("x_t", f32, chunk),
        v_t: tensors.add("v_t", f32, chunk),
    }
}
