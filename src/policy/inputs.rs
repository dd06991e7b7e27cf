//! Noise and guidance: what a chunk starts from and what it is pulled towards, besides the observation.

use super::pipeline::Filled;
use super::postprocess::Postprocessor;
use super::rtc::{self, Guidance};
use super::{Noise, Policy, noise};
use crate::error::Result;

impl Policy {
    pub(super) fn write_noise(&mut self, noise: Noise<'_>) -> Result<()> {
        let (horizon, width) = (self.manifest().dimensions.action_horizon, self.manifest().action.padded_dim);
        let x_t = self.pipeline.input_mut(|ids| ids.x_t)?;
        match noise {
            Noise::Seed(seed) => noise::fill(seed, x_t),
            Noise::Given(values) => {
                let n = values.len();
                ensure!(
                    n == x_t.len(),
                    InvalidArgument,
                    "noise holds {n} values; it must be [{horizon}, {width}]"
                );
                if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                    bail!(NonFinite, "noise value {i} is {}; every value must be finite", values[i]);
                }
                x_t.copy_from_slice(values);
            }
        }
        self.pipeline.send(Filled::Noise)
    }

    pub(super) fn write_guidance(&mut self, guidance: Option<Guidance<'_>>) -> Result<()> {
        let Some(guidance) = guidance else {
            self.pipeline.set_action_prefix(0)?;
            return self.pipeline.set_guidance(|_| 0.0);
        };
        let (n, dim, max) =
            (guidance.previous.len(), self.manifest().action.dim, guidance.max_guidance_weight);
        ensure!(
            n > 0 && n.is_multiple_of(dim),
            InvalidArgument,
            "previous actions hold {n} values; they must be rows of {dim}, at least one"
        );
        let weights = self.pipeline.input_mut(|ids| ids.prefix_weights)?;
        let (given, horizon) = (guidance.prefix_weights.len(), weights.len());
        ensure!(given == horizon, InvalidArgument, "{given} prefix weights; a chunk has {horizon} rows");
        let mut values = guidance.previous.iter().chain(guidance.prefix_weights).chain([&max]);
        ensure!(
            values.all(|v| v.is_finite()),
            NonFinite,
            "previous actions, prefix weights and the guidance weight must be finite"
        );
        weights.copy_from_slice(guidance.prefix_weights);
        let target = self.pipeline.input_mut(|ids| ids.prev_actions)?;
        write_target(guidance.previous, &self.post, &self.raw_state, target);
        self.pipeline.send(Filled::Guidance)?;
        match self.manifest().flow.rtc_training_max_delay {
            Some(trained) => {
                let rows = rtc::action_prefix_len(guidance.inference_delay, n / dim, trained)?;
                self.pipeline.set_action_prefix(rows)?;
                self.pipeline.set_guidance(|_| 0.0)
            }
            None => self.pipeline.set_guidance(|time| rtc::guidance_weight(time, max)),
        }
    }
}

/// Writes the rows of `previous`, robot units, to the rows of `target` in model units, and holds the last to the end.
///
/// Held, never zeros: in model units a zero is the data set's mean, and guidance would pull towards it.
fn write_target(previous: &[f32], post: &Postprocessor, raw_state: &[f32], target: &mut [f32]) {
    let mut rows = previous.chunks_exact(post.dim());
    let mut held = rows.next().unwrap_or_default();
    for target in target.chunks_exact_mut(post.padded_dim()) {
        post.normalize(held, raw_state, target);
        held = rows.next().unwrap_or(held);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::bundle::{Manifest, Normalization};
    use crate::policy::rtc::{PrefixSchedule, prefix_weights};

    /// A post-processor of actions with these means and deviations, four values wide in the model.
    fn post(mean: &[f32], std: &[f32]) -> Postprocessor {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/pi0-tiny/manifest.json");
        let mut manifest = Manifest::read(&tiny).unwrap();
        manifest.action.dim = mean.len();
        manifest.action.padded_dim = 4;
        manifest.action.relative_mask = None;
        manifest.action.normalization =
            Normalization::MeanStd { eps: 0.0, mean: mean.to_vec(), std: std.to_vec() };
        Postprocessor::new(&manifest)
    }

    #[test]
    fn a_short_leftover_is_held_and_a_long_one_is_cut() {
        let post = post(&[0.0; 2], &[1.0; 2]);
        let leftover = [1.0, -1.0, 2.0, -2.0];
        let mut target = [f32::NAN; 16];
        write_target(&leftover, &post, &[], &mut target);
        let held = [2.0, -2.0, 0.0, 0.0];
        assert_eq!(target.chunks_exact(4).collect::<Vec<_>>(), [&[1.0, -1.0, 0.0, 0.0], &held, &held, &held]);
        let mut target = [f32::NAN; 4];
        write_target(&leftover, &post, &[], &mut target);
        assert_eq!(target, [1.0, -1.0, 0.0, 0.0]);
    }

    /// lerobot#4454: zeros behind a short leftover lay inside the guided rows and decoded to the data set's mean, so
    /// an arm at 95 was sent to 103 and back. Held rows keep it at 95, and rows never planned carry no weight at all.
    #[test]
    fn lerobot_4454_a_short_leftover_does_not_pull_towards_the_mean() {
        let (mean, std) = (103.0f32, 4.0f32);
        let mut target = [f32::NAN; 40];
        write_target(&[95.0; 2], &post(&[mean], &[std]), &[], &mut target);
        let mut weights = [f32::NAN; 10];
        prefix_weights(PrefixSchedule::Linear, 4, 2, &mut weights);
        // One guided correction of a chunk that already lies at 95, in model units.
        for (row, (target, weight)) in target.chunks_exact(4).zip(&weights).enumerate() {
            let x0 = (95.0 - mean) / std;
            assert_eq!(weight * (target[0] - x0), 0.0, "row {row}");
            assert_eq!(target[0], x0, "row {row}");
            assert_eq!(*weight > 0.0, row < 2);
        }
    }
}
