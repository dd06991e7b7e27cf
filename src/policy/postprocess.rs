//! The way from the model's last x_t to actions in robot units.

use crate::action::{ActionChunk, ActionLimits, Reject};
use crate::aloha;
use crate::bundle::Manifest;
use crate::error::{Error, ErrorKind, Result};
use crate::observation::Normalizer;

/// Turns the model's last x_t into actions in robot units, and refuses a chunk with a value that no robot should get.
#[derive(Debug, Clone)]
pub struct Postprocessor {
    dim: usize,
    padded_dim: usize,
    normalizer: Normalizer,
    /// The actions are of a policy of other joints than the robot's, which is an ALOHA.
    adapt_to_pi: bool,
    /// 1 where the action is an offset from the raw state, else 0; `None` for a policy of absolute actions.
    relative: Option<Vec<f32>>,
    limits: ActionLimits,
    /// Room for a chunk until it has been checked, so that a rejected one leaves the last good one as it was.
    unchecked: Vec<f32>,
}

impl Postprocessor {
    /// Creates the post-processing of a bundle's actions.
    pub fn new(manifest: &Manifest) -> Self {
        let action = &manifest.action;
        let relative = action.relative_mask.as_ref();
        Postprocessor {
            dim: action.dim,
            padded_dim: action.padded_dim,
            normalizer: Normalizer::new(&action.normalization),
            adapt_to_pi: manifest.adapt_to_pi,
            relative: relative.map(|mask| mask.iter().map(|&on| if on { 1.0 } else { 0.0 }).collect()),
            limits: action.limits.clone().unwrap_or_else(|| ActionLimits::unlimited(action.dim)),
            unchecked: Vec::with_capacity(manifest.dimensions.action_horizon * action.dim),
        }
    }

    /// Returns the entries of an action in robot units.
    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    /// Returns the width that the model computes actions with.
    pub(super) fn padded_dim(&self) -> usize {
        self.padded_dim
    }

    /// Fills `chunk` from the model's last x_t (`[action_horizon, padded_dim]`, model units): drops the padding,
    /// un-normalises, adds the raw state where the policy's actions are relative, and checks every value. Does not
    /// allocate unless it fails.
    ///
    /// `raw_state` is the state of the observation that the chunk was computed from, in robot units.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NonFinite`] for a NaN or an infinity, naming row and column; [`ErrorKind::OutOfLimits`] for a
    /// value outside of the bundle's limits; [`ErrorKind::InvalidArgument`] for an argument of the wrong length. The
    /// chunk is unchanged.
    pub fn fill(&mut self, x: &[f32], raw_state: &[f32], chunk: &mut ActionChunk) -> Result<()> {
        let (horizon, dim) = (chunk.action_horizon(), chunk.action_dim());
        if dim != self.dim || x.len() != horizon * self.padded_dim {
            let (n, width) = (x.len(), self.padded_dim);
            let what =
                format!("{n} values of actions {width} wide do not make a chunk of [{horizon}, {dim}]");
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        let mut unchecked = std::mem::take(&mut self.unchecked);
        unchecked.resize(horizon * dim, 0.0);
        let outcome = self.actions(x, raw_state, &mut unchecked).and_then(|()| self.check(&unchecked));
        if outcome.is_ok() {
            chunk.as_mut_slice().copy_from_slice(&unchecked);
        }
        self.unchecked = unchecked;
        outcome
    }

    /// Writes all actions of `x` (`[rows, padded_dim]`, model units) in robot units, unchecked: `[rows, dim]` into
    /// `dst`, of which rows without a counterpart are left alone.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when the state is too short for the actions that are relative to it.
    pub(super) fn actions(&self, x: &[f32], raw_state: &[f32], dst: &mut [f32]) -> Result<()> {
        if let Some(needed) = self.relative.as_ref().and_then(|mask| mask.iter().rposition(|&on| on != 0.0))
            && raw_state.len() <= needed
        {
            let n = raw_state.len();
            let what = format!("the actions are relative to state entries up to {needed}, the state has {n}");
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        for (src, dst) in x.chunks_exact(self.padded_dim).zip(dst.chunks_exact_mut(self.dim)) {
            self.normalizer.inverse(&src[..self.dim], dst);
            self.add_state(1.0, raw_state, dst);
            if self.adapt_to_pi {
                aloha::action_to_robot(dst);
            }
        }
        Ok(())
    }

    /// Goes the way back, for what guides a chunk: one action in robot units (`dim` entries) to model units, zero
    /// beyond `dim` (`padded_dim` entries). A relative policy's action becomes the offset from `raw_state`.
    pub(super) fn normalize(&self, action: &[f32], raw_state: &[f32], dst: &mut [f32]) {
        let (values, padding) = dst.split_at_mut(self.dim);
        values.copy_from_slice(action);
        if self.adapt_to_pi {
            aloha::action_to_policy(values);
        }
        self.add_state(-1.0, raw_state, values);
        self.normalizer.forward(values);
        padding.fill(0.0);
    }

    /// Adds the state, `sign` times, to those entries of an action that are relative to it.
    fn add_state(&self, sign: f32, raw_state: &[f32], action: &mut [f32]) {
        for ((value, state), on) in action.iter_mut().zip(raw_state).zip(self.relative.iter().flatten()) {
            *value += state * (sign * on);
        }
    }

    fn check(&self, values: &[f32]) -> Result<()> {
        let place = |index: usize| (index / self.dim, index % self.dim);
        let (kind, what) = match self.limits.check(values) {
            Ok(()) => return Ok(()),
            Err(Reject::NonFinite { index }) => {
                let (row, column) = place(index);
                (ErrorKind::NonFinite, format!("action[{row}][{column}] is {}", values[index]))
            }
            Err(Reject::OutOfLimits { index, value }) => {
                let (row, column) = place(index);
                let (min, max) = (self.limits.min[column], self.limits.max[column]);
                let what =
                    format!("action[{row}][{column}] = {value} is outside of its limits {min} to {max}");
                (ErrorKind::OutOfLimits, what)
            }
            Err(reject @ Reject::WrongLength { .. }) => (ErrorKind::InvalidArgument, reject.to_string()),
        };
        Err(Error::new(kind, format!("{what}; the chunk is discarded")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Normalization;

    fn post(relative: Option<Vec<f32>>, limits: Option<ActionLimits>) -> Postprocessor {
        let rule = Normalization::MeanStd { eps: 1e-8, mean: vec![1.0, -2.0], std: vec![0.5, 4.0] };
        Postprocessor {
            dim: 2,
            padded_dim: 3,
            normalizer: Normalizer::new(&rule),
            adapt_to_pi: false,
            relative,
            limits: limits.unwrap_or_else(|| ActionLimits::unlimited(2)),
            unchecked: vec![],
        }
    }

    fn chunk() -> ActionChunk {
        ActionChunk::new(2, 2)
    }

    const X: [f32; 6] = [2.0, 0.5, f32::NAN, -2.0, 0.25, f32::INFINITY];

    #[test]
    fn padding_is_dropped_and_the_rest_unnormalised() {
        let mut chunk = chunk();
        post(None, None).fill(&X, &[], &mut chunk).unwrap();
        assert_eq!(chunk.as_slice(), [2.0, 0.0, 0.0, -1.0]);
        assert_eq!(chunk.action(1), [0.0, -1.0]);
        assert_eq!(chunk.view()[[1, 1]], -1.0);
        assert_eq!(chunk.view().shape(), [2, 2]);
    }

    #[test]
    fn masked_entries_are_offsets_from_the_raw_state() {
        let mut chunk = chunk();
        post(Some(vec![0.0, 1.0]), None).fill(&X, &[100.0, 10.0, 7.0], &mut chunk).unwrap();
        assert_eq!(chunk.as_slice(), [2.0, 10.0, 0.0, 9.0]);
        // The state may be shorter than the action as long as no masked entry needs more of it.
        post(Some(vec![1.0, 0.0]), None).fill(&X, &[100.0], &mut chunk).unwrap();
        assert_eq!(chunk.as_slice(), [102.0, 0.0, 100.0, -1.0]);
        let error = post(Some(vec![0.0, 1.0]), None).fill(&X, &[100.0], &mut chunk).unwrap_err();
        assert!(error.to_string().contains("relative to state entries up to 1"), "{error}");
    }

    #[test]
    fn a_bad_value_is_named_and_nothing_of_its_chunk_is_published() {
        let mut chunk = chunk();
        post(None, None).fill(&X, &[], &mut chunk).unwrap();
        let before = chunk.as_slice().to_vec();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            let x = [9.0, 9.0, 0.0, 9.0, bad, 0.0];
            let error = post(None, None).fill(&x, &[], &mut chunk).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NonFinite);
            assert!(error.to_string().contains("action[1][1] is"), "{error}");
            assert_eq!(chunk.as_slice(), before);
        }
    }

    #[test]
    fn actions_for_aloha_are_converted_last() {
        let rule = Normalization::MeanStd { eps: 0.0, mean: vec![0.0; 14], std: vec![0.5; 14] };
        let mut relative = vec![1.0; 14];
        (relative[6], relative[13]) = (0.0, 0.0);
        let mut post = Postprocessor {
            dim: 14,
            padded_dim: 16,
            adapt_to_pi: true,
            normalizer: Normalizer::new(&rule),
            limits: ActionLimits::unlimited(14),
            ..post(Some(relative), None)
        };
        let mut chunk = ActionChunk::new(1, 14);
        post.fill(&[2.0; 16], &[3.0; 14], &mut chunk).unwrap();
        // A delta of 1 from the policy's 3, and a gripper at 1 of the policy's range.
        let arm = [4.0, -4.0, -4.0, 4.0, 4.0, 4.0, (1.0 + 0.5476 + 0.6213) / 2.1123];
        for (value, expected) in chunk.as_slice().iter().zip(arm.iter().chain(&arm)) {
            assert!((value - expected).abs() < 1e-6, "{:?}", chunk.as_slice());
        }
        let mut back = [f32::NAN; 16];
        post.normalize(chunk.as_slice(), &[3.0; 14], &mut back);
        assert!(back[..14].iter().all(|v| (v - 2.0).abs() < 1e-5) && back[14..] == [0.0; 2], "{back:?}");
    }

    #[test]
    fn limits_are_inclusive() {
        let limits = |top| Some(ActionLimits { min: vec![0.0, -1.0], max: vec![top, 0.0] });
        let mut chunk = chunk();
        post(None, limits(2.0)).fill(&X, &[], &mut chunk).unwrap();
        let error = post(None, limits(1.5)).fill(&X, &[], &mut chunk).unwrap_err();
        assert_eq!(
            error.to_string(),
            "action[0][0] = 2 is outside of its limits 0 to 1.5; the chunk is discarded"
        );
    }

    #[test]
    fn wrong_lengths_are_errors() {
        for len in [0, 4, 5, 7] {
            let error = post(None, None).fill(&vec![0.0; len], &[], &mut chunk()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
    }
}
