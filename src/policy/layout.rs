//! What the pipeline's tensors and ports are: roles, sizes, and where each graph takes them.

use crate::bundle::{Bundle, Dim, Dtype, GraphName, Manifest, PREFIX_BIAS, TensorSpec, VALID_ROWS};
use crate::error::{Error, ErrorKind, Result};
use crate::policy::MAX_NUM_STEPS;
use crate::policy::flow::SCHEDULE_COLUMNS;
use crate::session::{Access, Graph, TensorId, Tensors};

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
    /// The numbers of all steps, and the one that is on: the device advances without being told a number.
    pub(super) steps: TensorId,
    pub(super) step: TensorId,
    pub(super) state: TensorId,
    pub(super) prev_actions: TensorId,
    pub(super) prefix_weights: TensorId,
    pub(super) x_t: TensorId,
    /// Where the denoise step writes what becomes `x_t`, on a device that may not write what it reads.
    pub(super) x_next: Option<TensorId>,
    pub(super) v_t: TensorId,
    /// Of a policy trained for real-time chunking: how many rows are a clean prefix, and the time table's row for them.
    pub(super) clean: Option<Clean>,
    /// What a padded prefix needs beside it.
    pub(super) padding: Option<Padding>,
}

/// What tells the rows of a padded prefix from those that only fill it up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Padding {
    pub(super) marks: Marks,
    /// Rotary tables of the state token, if that is cached, and the suffix, whose positions follow the rows that count: at one address for every prefix.
    pub(super) rope_cos: TensorId,
    pub(super) rope_sin: TensorId,
}

/// How a graph is told which rows of a padded prefix count.
#[derive(Debug, Clone, Copy)]
pub(super) enum Marks {
    /// Added to the scores of every prefix row: nothing, or what makes the row weigh nothing.
    Bias(TensorId),
    /// The number of those that count.
    Count(TensorId),
}

#[derive(Debug, Clone, Copy)]
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
    /// The state token's rotary tables, where the prefill computes it.
    pub(super) state_rope: Option<[usize; 2]>,
    /// Of the prefill and the denoise step, in a bundle with a padded prefix.
    pub(super) padding: Option<[usize; 2]>,
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
            state_rope: prefill
                .input("state_rope_cos")
                .zip(prefill.input("state_rope_sin"))
                .map(|(cos, sin)| [cos, sin]),
            padding: [PREFIX_BIAS, VALID_ROWS]
                .into_iter()
                .find_map(|name| prefill.input(name).zip(denoise.input(name)))
                .map(|(of_prefill, of_denoise)| [of_prefill, of_denoise]),
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
    /// Rows of the cache before those of the prefix: the state token's, if it is cached.
    pub(super) cached_state: i64,
    pub(super) horizon: i64,
    pub(super) actions: i64,
    pub(super) state: i64,
    pub(super) max_views: usize,
    pub(super) max_prefix: usize,
    /// What the prefix's length is padded to a multiple of, if it is.
    pub(super) bucket: Option<usize>,
}

impl Sizes {
    /// The length that a prefix of `valid` rows is run at.
    pub(super) fn padded(&self, valid: usize) -> usize {
        self.bucket.map_or(valid, |bucket| valid.next_multiple_of(bucket))
    }

    pub(super) fn new(manifest: &Manifest) -> Self {
        let d = &manifest.dimensions;
        let max_views = manifest.cameras.len();
        let longest = max_views * d.tokens_per_view + manifest.prompt.max_tokens;
        let bucket = manifest.prefix_bucket;
        Sizes {
            height: d.image_height as i64,
            width: d.image_width as i64,
            tokens_per_view: d.tokens_per_view as i64,
            prefix_width: d.prefix_width as i64,
            half_head: (d.head_dim / 2) as i64,
            head_dim: d.head_dim as i64,
            expert_width: d.expert_width as i64,
            suffix: manifest.suffix_len() as i64,
            cached_state: i64::from(manifest.state_in_prefill),
            horizon: d.action_horizon as i64,
            actions: manifest.action.padded_dim as i64,
            state: manifest.state.padded_dim as i64,
            max_views,
            max_prefix: bucket.map_or(longest, |bucket| longest.next_multiple_of(bucket)),
            bucket,
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

pub(super) fn allocate(
    tensors: &mut Tensors,
    bundle: &Bundle,
    s: &Sizes,
    time_row: &[i64],
    in_place: bool,
) -> Result<Ids> {
    let embeds = dtype_of(bundle, GraphName::PrefixPrefill, "prefix_embeds");
    let cache = dtype_of(bundle, GraphName::PrefixPrefill, "present.0.key");
    let after_prefix = (s.cached_state + s.suffix) as usize;
    let positions = s.max_prefix + after_prefix;
    let rope = positions * s.half_head as usize;
    let suffix_rope = after_prefix * s.half_head as usize;
    let chunk = (s.horizon * s.actions) as usize;
    let time_row: i64 = time_row.iter().product();
    let f32 = Dtype::F32;
    let layers = bundle.manifest().dimensions.layers;
    let mut host = |name, dtype, elements| tensors.add(name, dtype, elements, Access::Host);
    let (pixel_values, prefix) = (
        host("pixel_values", f32, s.max_views * (3 * s.height * s.width) as usize)?,
        host("prefix_embeds", embeds, s.max_prefix * s.prefix_width as usize)?,
    );
    let (time_embedding, schedule) = (
        host("time_embedding", f32, MAX_NUM_STEPS * s.expert_width as usize)?,
        host("schedule", f32, MAX_NUM_STEPS * SCHEDULE_COLUMNS)?,
    );
    let state = host("state", f32, s.state as usize)?;
    let prev_actions = host("prev_actions", f32, chunk)?;
    let prefix_weights = host("prefix_weights", f32, s.horizon as usize)?;
    let x_t = host("x_t", f32, chunk)?;
    let counted =
        bundle.manifest().graph(GraphName::PrefixPrefill).inputs.iter().any(|t| t.name == VALID_ROWS);
    let marks = match s.bucket {
        None => None,
        Some(_) if counted => Some(Marks::Count(host(VALID_ROWS, Dtype::I64, 1)?)),
        Some(_) => Some(Marks::Bias(host(PREFIX_BIAS, embeds, s.max_prefix)?)),
    };
    let trained = bundle.manifest().flow.rtc_training_max_delay;
    let clean_rows = trained.map(|_| host("clean_rows", Dtype::I64, 1)).transpose()?;
    let mut device = |name, dtype, elements| tensors.add(name, dtype, elements, Access::Graphs);
    let rows = (s.max_prefix + s.cached_state as usize) * s.head_dim as usize;
    Ok(Ids {
        pixel_values,
        prefix,
        time_embedding,
        schedule,
        state,
        prev_actions,
        prefix_weights,
        x_t,
        x_next: if in_place { None } else { Some(device("x_next", f32, chunk)?) },
        rope_cos: device("rope_cos", f32, rope)?,
        rope_sin: device("rope_sin", f32, rope)?,
        kv_cache: (0..layers)
            .map(|_| Ok([device("key", cache, rows)?, device("value", cache, rows)?]))
            .collect::<Result<_>>()?,
        time_table: device("time_table", f32, MAX_NUM_STEPS * time_row as usize)?,
        steps: device("steps", Dtype::I64, MAX_NUM_STEPS)?,
        step: device("step", Dtype::I64, 1)?,
        v_t: device("v_t", f32, chunk)?,
        clean: match clean_rows {
            None => None,
            Some(rows) => Some(Clean { rows, time: device("clean_time", f32, time_row as usize)? }),
        },
        padding: match marks {
            None => None,
            Some(marks) => Some(Padding {
                marks,
                rope_cos: device("suffix_rope_cos", f32, suffix_rope)?,
                rope_sin: device("suffix_rope_sin", f32, suffix_rope)?,
            }),
        },
    })
}
