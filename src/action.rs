//! Action chunks: what the policy hands to the robot.

use ndarray::ArrayView2;

use crate::bundle::{Limits, Manifest};
use crate::error::{Error, ErrorKind, Result};
use crate::observation::Normalizer;

/// From the model's last x_t to actions in robot units.
#[derive(Debug, Clone)]
pub struct Postprocessor {
    dim: usize,
    padded_dim: usize,
    normalizer: Normalizer,
    /// 1 where the action is an offset from the raw state, else 0; `None` for a policy of absolute actions.
    relative: Option<Vec<f32>>,
    limits: Option<Limits>,
}

impl Postprocessor {
    /// The post-processing of a bundle's actions.
    pub fn new(manifest: &Manifest) -> Self {
        let action = &manifest.action;
        Postprocessor {
            dim: action.dim,
            padded_dim: action.padded_dim,
            normalizer: Normalizer::new(&action.normalization),
            relative: action
                .relative_mask
                .as_ref()
                .map(|mask| mask.iter().map(|&on| if on { 1.0 } else { 0.0 }).collect()),
            limits: action.limits.clone(),
        }
    }

    /// Returns the width that the model computes actions with.
    pub(crate) fn padded_dim(&self) -> usize {
        self.padded_dim
    }

    /// One action: `dst` (`dim` entries) from `src` (`dim` entries, without the padding).
    fn apply(&self, src: &[f32], raw_state: &[f32], dst: &mut [f32]) {
        self.normalizer.inverse(src, dst);
        if let Some(relative) = &self.relative {
            for ((action, state), on) in dst.iter_mut().zip(raw_state).zip(relative) {
                *action += state * on;
            }
        }
    }

    /// All actions of `x` (`[rows, padded_dim]`, model units) in robot units, unchecked: `[rows, dim]` into `dst`, of
    /// which rows without a counterpart are left alone.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when the state is too short for the actions that are relative to it.
    pub(crate) fn actions(&self, x: &[f32], raw_state: &[f32], dst: &mut [f32]) -> Result<()> {
        if let Some(needed) = self.relative.as_ref().and_then(|mask| mask.iter().rposition(|&on| on != 0.0))
            && raw_state.len() <= needed
        {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "the actions are relative to state entries up to {needed}, the state has {}",
                    raw_state.len()
                ),
            ));
        }
        let rows = x.chunks_exact(self.padded_dim).zip(dst.chunks_exact_mut(self.dim));
        rows.for_each(|(src, dst)| self.apply(&src[..self.dim], raw_state, dst));
        Ok(())
    }

    /// The way back, for what guides a chunk: one action in robot units (`dim` entries) to model units, zero beyond
    /// `dim` (`padded_dim` entries). A relative policy's action becomes the offset from `raw_state`. `scratch` has
    /// `dim` entries.
    pub(crate) fn normalize(&self, action: &[f32], raw_state: &[f32], scratch: &mut [f32], dst: &mut [f32]) {
        scratch.copy_from_slice(action);
        if let Some(relative) = &self.relative {
            for ((offset, state), on) in scratch.iter_mut().zip(raw_state).zip(relative) {
                *offset -= state * on;
            }
        }
        let (values, padding) = dst.split_at_mut(self.dim);
        self.normalizer.forward(scratch, values);
        padding.fill(0.0);
    }

    /// The first entry that is NaN, infinite or outside of the limits, as an error.
    fn check(&self, row: usize, action: &[f32]) -> Result<()> {
        if let Some(column) = action.iter().position(|v| !v.is_finite()) {
            return Err(Error::new(
                ErrorKind::NonFinite,
                format!("action[{row}][{column}] is {}; the chunk is discarded", action[column]),
            ));
        }
        let Some(limits) = &self.limits else {
            return Ok(());
        };
        let outside = action
            .iter()
            .zip(limits.min.iter().zip(&limits.max))
            .position(|(value, (min, max))| value < min || value > max);
        match outside {
            Some(column) => Err(Error::new(
                ErrorKind::OutOfLimits,
                format!(
                    "action[{row}][{column}] = {} is outside of its limits {} to {}; the chunk is discarded",
                    action[column], limits.min[column], limits.max[column]
                ),
            )),
            None => Ok(()),
        }
    }
}

/// The actions of one inference: `[action_horizon, action_dim]` f32 in robot units, first action first.
///
/// Its size is that of the bundle and never changes. Holds zeros until it is filled.
#[derive(Debug, Clone)]
pub struct ActionChunk {
    horizon: usize,
    dim: usize,
    values: Vec<f32>,
    /// Where a new chunk is made, so that a rejected one leaves `values` as they were.
    next: Vec<f32>,
}

impl ActionChunk {
    /// A chunk of zeros for a bundle's horizon and true action width.
    pub fn new(manifest: &Manifest) -> Self {
        let (horizon, dim) = (manifest.dimensions.action_horizon, manifest.action.dim);
        ActionChunk { horizon, dim, values: vec![0.0; horizon * dim], next: vec![0.0; horizon * dim] }
    }

    /// Actions in the chunk.
    pub fn action_horizon(&self) -> usize {
        self.horizon
    }

    /// Entries of one action.
    pub fn action_dim(&self) -> usize {
        self.dim
    }

    /// All values: `[action_horizon, action_dim]`, row-major.
    pub fn as_slice(&self) -> &[f32] {
        &self.values
    }

    /// The action at `index`, `action_dim` entries.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`action_horizon`](Self::action_horizon).
    pub fn action(&self, index: usize) -> &[f32] {
        &self.values[index * self.dim..][..self.dim]
    }

    /// The chunk as an array, `[action_horizon, action_dim]`.
    pub fn view(&self) -> ArrayView2<'_, f32> {
        // Both sides of the shape are fixed with the vector's length when the chunk is made.
        ArrayView2::from_shape((self.horizon, self.dim), &self.values)
            .expect("the shape is the vector's length")
    }

    /// Fills the chunk from the model's last x_t (`[action_horizon, padded_dim]`, model units): drops the padding,
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
    pub fn fill_from_normalized(&mut self, x: &[f32], post: &Postprocessor, raw_state: &[f32]) -> Result<()> {
        if post.dim != self.dim || x.len() != self.horizon * post.padded_dim {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "{} values of actions {} wide do not make a chunk of [{}, {}]",
                    x.len(),
                    post.padded_dim,
                    self.horizon,
                    self.dim
                ),
            ));
        }
        post.actions(x, raw_state, &mut self.next)?;
        for (row, action) in self.next.chunks_exact(self.dim).enumerate() {
            post.check(row, action)?;
        }
        std::mem::swap(&mut self.values, &mut self.next);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Normalization;

    fn post(relative: Option<Vec<f32>>, limits: Option<Limits>) -> Postprocessor {
        let rule = Normalization::MeanStd { eps: 1e-8, mean: vec![1.0, -2.0], std: vec![0.5, 4.0] };
        Postprocessor { dim: 2, padded_dim: 3, normalizer: Normalizer::new(&rule), relative, limits }
    }

    fn chunk() -> ActionChunk {
        ActionChunk { horizon: 2, dim: 2, values: vec![0.0; 4], next: vec![0.0; 4] }
    }

    const X: [f32; 6] = [2.0, 0.5, f32::NAN, -2.0, 0.25, f32::INFINITY];

    #[test]
    fn padding_is_dropped_and_the_rest_unnormalised() {
        let mut chunk = chunk();
        chunk.fill_from_normalized(&X, &post(None, None), &[]).unwrap();
        assert_eq!(chunk.as_slice(), [2.0, 0.0, 0.0, -1.0]);
        assert_eq!(chunk.action(1), [0.0, -1.0]);
        assert_eq!(chunk.view()[[1, 1]], -1.0);
        assert_eq!(chunk.view().shape(), [2, 2]);
    }

    #[test]
    fn masked_entries_are_offsets_from_the_raw_state() {
        let mut chunk = chunk();
        chunk.fill_from_normalized(&X, &post(Some(vec![0.0, 1.0]), None), &[100.0, 10.0, 7.0]).unwrap();
        assert_eq!(chunk.as_slice(), [2.0, 10.0, 0.0, 9.0]);
        // The state may be shorter than the action as long as no masked entry needs more of it.
        chunk.fill_from_normalized(&X, &post(Some(vec![1.0, 0.0]), None), &[100.0]).unwrap();
        assert_eq!(chunk.as_slice(), [102.0, 0.0, 100.0, -1.0]);
        let error = chunk.fill_from_normalized(&X, &post(Some(vec![0.0, 1.0]), None), &[100.0]).unwrap_err();
        assert!(error.to_string().contains("relative to state entries up to 1"), "{error}");
    }

    #[test]
    fn a_bad_value_is_named_and_nothing_of_its_chunk_is_published() {
        let mut chunk = chunk();
        chunk.fill_from_normalized(&X, &post(None, None), &[]).unwrap();
        let before = chunk.as_slice().to_vec();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            let x = [9.0, 9.0, 0.0, 9.0, bad, 0.0];
            let error = chunk.fill_from_normalized(&x, &post(None, None), &[]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NonFinite);
            assert!(error.to_string().contains("action[1][1] is"), "{error}");
            assert_eq!(chunk.as_slice(), before);
        }
    }

    #[test]
    fn limits_are_inclusive() {
        let limits = |top| Some(Limits { min: vec![0.0, -1.0], max: vec![top, 0.0] });
        let mut chunk = chunk();
        chunk.fill_from_normalized(&X, &post(None, limits(2.0)), &[]).unwrap();
        let error = chunk.fill_from_normalized(&X, &post(None, limits(1.5)), &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "action[0][0] = 2 is outside of its limits 0 to 1.5; the chunk is discarded"
        );
    }

    #[test]
    fn wrong_lengths_are_errors() {
        for len in [0, 4, 5, 7] {
            let error = chunk().fill_from_normalized(&vec![0.0; len], &post(None, None), &[]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
    }
}
