//! Noise and guidance: what a chunk starts from and what it is pulled towards, besides the observation.

use super::pipeline::Filled;
use super::rtc::{self, Guidance};
use super::{Noise, Policy, noise};
use crate::error::{Error, ErrorKind, Result};

impl Policy {
    pub(super) fn write_noise(&mut self, noise: Noise<'_>) -> Result<()> {
        let x_t = self.pipeline.x_t_mut()?;
        match noise {
            Noise::Seed(seed) => noise::fill(seed, x_t),
            Noise::Given(values) => {
                if values.len() != x_t.len() {
                    let (horizon, width) =
                        (self.manifest().dimensions.action_horizon, self.manifest().action.padded_dim);
                    let text =
                        format!("noise holds {} values; it must be [{horizon}, {width}]", values.len());
                    return Err(Error::new(ErrorKind::InvalidArgument, text));
                }
                if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                    let text = format!("noise value {i} is {}; every value must be finite", values[i]);
                    return Err(Error::new(ErrorKind::NonFinite, text));
                }
                x_t.copy_from_slice(values);
            }
        }
        self.pipeline.send(Filled::Noise)
    }

    pub(super) fn write_guidance(&mut self, guidance: Option<Guidance<'_>>) -> Result<()> {
        let Some(guidance) = guidance else {
            self.pipeline.set_clean_rows(0)?;
            return self.pipeline.set_guidance(|_| 0.0);
        };
        let (dim, padded) = (self.manifest().action.dim, self.manifest().action.padded_dim);
        let bad = |what: String| Err(Error::new(ErrorKind::InvalidArgument, what));
        let rows = guidance.previous.len() / dim;
        if rows == 0 || guidance.previous.len() % dim != 0 {
            let n = guidance.previous.len();
            return bad(format!(
                "previous actions hold {n} values; they must be rows of {dim}, at least one"
            ));
        }
        let weights = self.pipeline.prefix_weights_mut()?;
        if guidance.prefix_weights.len() != weights.len() {
            let (n, horizon) = (guidance.prefix_weights.len(), weights.len());
            return bad(format!("{n} prefix weights; a chunk has {horizon} rows"));
        }
        let max = guidance.max_guidance_weight;
        let values = guidance.previous.iter().chain(guidance.prefix_weights).chain([&max]);
        if !values.into_iter().all(|v| v.is_finite()) {
            let text = "previous actions, prefix weights and the guidance weight must be finite";
            return Err(Error::new(ErrorKind::NonFinite, text));
        }
        weights.copy_from_slice(guidance.prefix_weights);
        for (i, target) in self.pipeline.prev_actions_mut()?.chunks_exact_mut(padded).enumerate() {
            // Held, never zeros: in model units a zero is the data set's mean.
            let row = &guidance.previous[i.min(rows - 1) * dim..][..dim];
            self.post.normalize(row, &self.raw_state, &mut self.row, target);
        }
        self.pipeline.send(Filled::Guidance)?;
        match self.manifest().flow.rtc_training_max_delay {
            Some(trained) => {
                let clean = rtc::clean_rows(guidance.inference_delay, rows, trained)?;
                self.pipeline.set_clean_rows(clean)?;
                self.pipeline.set_guidance(|_| 0.0)
            }
            None => self.pipeline.set_guidance(|time| rtc::guidance_weight(time, max)),
        }
    }
}
