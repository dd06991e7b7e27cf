//! The pipeline's tensors and ports: their roles, their sizes, and the graphs that take them.

use crate::bundle::{Dtype, Manifest, PREFIX_BIAS, VALID_ROWS};
use crate::error::Result;
use crate::limits::MAX_NUM_STEPS;
use crate::policy::flow::SCHEDULE_COLUMNS;
use crate::session::{Access, Graph, Port, TensorId, Tensors};

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
    /// Takes what the denoise step computes and becomes `x_t`, on a device that may not write what it reads.
    pub(super) x_next: Option<TensorId>,
    pub(super) v_t: TensorId,
    pub(super) action_prefix: Option<ActionPrefix>,
    pub(super) padding: Option<Padding>,
}

/// Tells the rows of a padded prefix from those that only fill it up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Padding {
    pub(super) mark: Mark,
    /// Rotary tables of the state token, if that is cached, and the suffix, whose positions follow the rows that count: at one address for every prefix.
    pub(super) rope_cos: TensorId,
    pub(super) rope_sin: TensorId,
}

/// Tells a graph which rows of a padded prefix count.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mark {
    /// Added to the scores of every prefix row: nothing, or what makes the row weigh nothing.
    Bias(TensorId),
    /// The number of those that count.
    Count(TensorId),
}

/// Of a policy trained for real-time chunking: the length of the action prefix, and the time table's row for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ActionPrefix {
    pub(super) len: TensorId,
    pub(super) time: TensorId,
}

/// The ports that are bound anew when the prefix changes, and those of the time tables.
pub(super) struct Ports {
    pub(super) pixel_values: Port,
    pub(super) image_embeds: Port,
    pub(super) prefix_embeds: Port,
    pub(super) time_embedding: Port,
    pub(super) time_table: Port,
    /// Of the prefill, then of the denoise step.
    pub(super) rope_cos: [Port; 2],
    pub(super) rope_sin: [Port; 2],
    /// Key and value of each layer: the prefill's outputs, and the denoise step's inputs.
    pub(super) kv_outputs: Vec<[Port; 2]>,
    pub(super) kv_inputs: Vec<[Port; 2]>,
    /// The prefill's rotary tables of the state token, where it computes that.
    pub(super) state_rope: Option<[Port; 2]>,
    /// Of the prefill and the denoise step, in a bundle with a padded prefix.
    pub(super) mark: Option<[Port; 2]>,
}

impl Ports {
    pub(super) fn new(
        vision: &Graph,
        prefill: &Graph,
        time: &Graph,
        denoise: &Graph,
        layers: usize,
    ) -> Result<Self> {
        let both = |name: &str| Ok([prefill.input(name)?, denoise.input(name)?]);
        let pairs = |find: &dyn Fn(&str) -> Result<Port>, cache: &str| {
            let pair = |i| Ok([find(&format!("{cache}.{i}.key"))?, find(&format!("{cache}.{i}.value"))?]);
            (0..layers).map(pair).collect::<Result<_>>()
        };
        Ok(Ports {
            pixel_values: vision.input("pixel_values")?,
            image_embeds: vision.output("image_embeds")?,
            prefix_embeds: prefill.input("prefix_embeds")?,
            time_embedding: time.input("time_embedding")?,
            time_table: time.output("time_table")?,
            rope_cos: both("rope_cos")?,
            rope_sin: both("rope_sin")?,
            kv_outputs: pairs(&|name| prefill.output(name), "present")?,
            kv_inputs: pairs(&|name| denoise.input(name), "past_key_values")?,
            state_rope: prefill
                .find_input("state_rope_cos")
                .map(|cos| Ok([cos, prefill.input("state_rope_sin")?]))
                .transpose()?,
            mark: [PREFIX_BIAS, VALID_ROWS]
                .into_iter()
                .find(|name| prefill.find_input(name).is_some())
                .map(both)
                .transpose()?,
        })
    }
}

/// The sizes that binding needs, in elements, taken from the manifest once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) tokens_per_view: usize,
    pub(super) prefix_width: usize,
    pub(super) half_head: usize,
    pub(super) head_dim: usize,
    pub(super) layers: usize,
    pub(super) expert_width: usize,
    /// One row of the time table.
    pub(super) time_row: usize,
    /// Rows of the cache before those of the prefix: the state token's, where the prefill computes it.
    pub(super) cached_state: usize,
    pub(super) suffix: usize,
    pub(super) horizon: usize,
    pub(super) actions: usize,
    pub(super) state: usize,
    pub(super) max_views: usize,
    pub(super) max_prefix: usize,
    /// The prefix's length is padded to a multiple of this, if it is.
    pub(super) bucket: Option<usize>,
}

impl Sizes {
    pub(super) fn new(manifest: &Manifest) -> Self {
        let d = &manifest.dimensions;
        let max_views = manifest.cameras.len();
        let longest = max_views * d.tokens_per_view + manifest.prompt.max_tokens;
        let sizes = Sizes {
            height: d.image_height,
            width: d.image_width,
            tokens_per_view: d.tokens_per_view,
            prefix_width: d.prefix_width,
            half_head: d.head_dim / 2,
            head_dim: d.head_dim,
            layers: d.layers,
            expert_width: d.expert_width,
            time_row: manifest.time_row_len(),
            cached_state: manifest.state_in_prefill.into(),
            suffix: manifest.suffix_len(),
            horizon: d.action_horizon,
            actions: manifest.action.padded_dim,
            state: manifest.state.padded_dim,
            max_views,
            max_prefix: longest,
            bucket: manifest.prefix_bucket,
        };
        Sizes { max_prefix: sizes.padded(longest), ..sizes }
    }

    /// Returns the length that a prefix of `valid` rows is run at.
    pub(super) fn padded(&self, valid: usize) -> usize {
        self.bucket.map_or(valid, |bucket| valid.next_multiple_of(bucket))
    }

    /// Returns the elements of one view's pixels.
    pub(super) fn view(&self) -> usize {
        3 * self.height * self.width
    }

    /// Returns the elements of a chunk in model units.
    pub(super) fn chunk(&self) -> usize {
        self.horizon * self.actions
    }

    /// Returns the elements of the rotary tables, which have a row for every position there can be.
    pub(super) fn rope(&self) -> usize {
        self.max_prefix * self.half_head + self.rope_after_prefix()
    }

    /// Returns the elements of the rotary tables of all that comes after the prefix.
    pub(super) fn rope_after_prefix(&self) -> usize {
        (self.cached_state + self.suffix) * self.half_head
    }
}

/// Makes every tensor. `in_place`: whether the denoise step may write `x_t` while it reads it.
pub(super) fn allocate(tensors: &mut Tensors, manifest: &Manifest, s: &Sizes, in_place: bool) -> Result<Ids> {
    use Access::{Graphs, Host};
    use Dtype::{F32, I64};
    let embedding = manifest.embedding_dtype();
    let mut add = |name, access, dtype, elements| tensors.add(name, dtype, elements, access);
    Ok(Ids {
        pixel_values: add("pixel_values", Host, F32, s.max_views * s.view())?,
        prefix: add("prefix_embeds", Host, embedding, s.max_prefix * s.prefix_width)?,
        time_embedding: add("time_embedding", Host, F32, MAX_NUM_STEPS * s.expert_width)?,
        schedule: add("schedule", Host, F32, MAX_NUM_STEPS * SCHEDULE_COLUMNS)?,
        state: add("state", Host, F32, s.state)?,
        prev_actions: add("prev_actions", Host, F32, s.chunk())?,
        prefix_weights: add("prefix_weights", Host, F32, s.horizon)?,
        x_t: add("x_t", Host, F32, s.chunk())?,
        x_next: if in_place { None } else { Some(add("x_next", Graphs, F32, s.chunk())?) },
        rope_cos: add("rope_cos", Graphs, F32, s.rope())?,
        rope_sin: add("rope_sin", Graphs, F32, s.rope())?,
        kv_cache: (0..s.layers)
            .map(|_| {
                let elements = (s.cached_state + s.max_prefix) * s.head_dim;
                Ok([add("key", Graphs, embedding, elements)?, add("value", Graphs, embedding, elements)?])
            })
            .collect::<Result<_>>()?,
        time_table: add("time_table", Graphs, F32, MAX_NUM_STEPS * s.time_row)?,
        steps: add("steps", Graphs, I64, MAX_NUM_STEPS)?,
        step: add("step", Graphs, I64, 1)?,
        v_t: add("v_t", Graphs, F32, s.chunk())?,
        action_prefix: match manifest.flow.rtc_training_max_delay {
            None => None,
            Some(_) => Some(ActionPrefix {
                len: add("clean_rows", Host, I64, 1)?,
                time: add("clean_time", Graphs, F32, s.time_row)?,
            }),
        },
        padding: match s.bucket {
            None => None,
            Some(_) => Some(Padding {
                mark: match manifest.counts_valid_rows() {
                    true => Mark::Count(add(VALID_ROWS, Host, I64, 1)?),
                    false => Mark::Bias(add(PREFIX_BIAS, Host, embedding, s.max_prefix)?),
                },
                rope_cos: add("suffix_rope_cos", Graphs, F32, s.rope_after_prefix())?,
                rope_sin: add("suffix_rope_sin", Graphs, F32, s.rope_after_prefix())?,
            }),
        },
    })
}
