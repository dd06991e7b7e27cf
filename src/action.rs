//! Chunks of actions, and the limits that every value of one must keep to.

use std::fmt;

use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// The actions of one inference: `[action_horizon, action_dim]` f32 in robot units, first action first.
///
/// Its size never changes. Holds zeros until it is filled.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionChunk {
    values: Box<[f32]>,
    dim: usize,
}

impl ActionChunk {
    /// Creates a chunk of zeros: `action_horizon` actions of `action_dim` values.
    ///
    /// # Panics
    ///
    /// If either is zero.
    pub fn new(action_horizon: usize, action_dim: usize) -> Self {
        assert!(
            action_horizon > 0 && action_dim > 0,
            "a chunk of {action_horizon} actions of {action_dim} values"
        );
        ActionChunk { values: vec![0.0; action_horizon * action_dim].into(), dim: action_dim }
    }

    /// Returns the number of actions.
    #[inline]
    pub fn action_horizon(&self) -> usize {
        self.values.len() / self.dim
    }

    /// Returns the number of values in an action: the robot's, not the policy's padded width.
    #[inline]
    pub fn action_dim(&self) -> usize {
        self.dim
    }

    /// Returns all values: `[action_horizon, action_dim]`, row-major.
    #[inline]
    pub fn as_slice(&self) -> &[f32] {
        &self.values
    }

    /// Returns all values, to be filled in.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// Returns the action at `index`, `action_dim` values.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`action_horizon`](Self::action_horizon).
    pub fn action(&self, index: usize) -> &[f32] {
        &self.values[index * self.dim..][..self.dim]
    }

    /// Returns the chunk as an array, `[action_horizon, action_dim]`.
    pub fn view(&self) -> ArrayView2<'_, f32> {
        // Both sides of the shape are fixed with the vector's length when the chunk is made.
        ArrayView2::from_shape((self.action_horizon(), self.dim), &self.values)
            .expect("the shape is the vector's length")
    }

    /// Writes the action that is `fraction` of the way from row `row` to the next. The last row is held past the end.
    #[inline]
    pub(crate) fn interpolate(&self, row: usize, fraction: f32, action: &mut [f32]) {
        let held = |row: usize| self.action(row.min(self.action_horizon() - 1));
        let (a, b) = (held(row), held(row.saturating_add(1)));
        action.iter_mut().zip(a).zip(b).for_each(|((value, &a), &b)| *value = lerp(a, b, fraction));
    }
}

/// Returns the value `fraction` of the way from `a` to `b`; never outside the two, exact at both ends and where they agree.
#[inline]
fn lerp(a: f32, b: f32, fraction: f32) -> f32 {
    // Not a + (b − a)·f, which overflows for large values of unlike sign; rounding may leave the interval, so clamp.
    // min and max rather than clamp(), which panics on NaN.
    (a * (1.0 - fraction) + b * fraction).max(a.min(b)).min(a.max(b))
}

/// The reason why a chunk was not published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reject {
    /// A value is NaN or infinite.
    NonFinite {
        /// Its place, `row · action_dim + joint`.
        index: usize,
    },
    /// A value is outside its joint's limits.
    OutOfLimits {
        /// Its place, `row · action_dim + joint`.
        index: usize,
        /// The value, in robot units.
        value: f32,
    },
    /// Inference gave a number of values that is no whole chunk.
    WrongLength {
        /// The number of values.
        got: usize,
    },
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reject::NonFinite { index } => write!(f, "value {index} of the chunk is NaN or infinite"),
            Reject::OutOfLimits { index, value } => {
                write!(f, "value {index} of the chunk, {value}, is out of limits")
            }
            Reject::WrongLength { got } => write!(f, "inference gave {got} values, which is no whole chunk"),
        }
    }
}

/// The least and the greatest value that each joint's actions may have, inclusive, in robot units.
///
/// A chunk with one value outside, or one that is not finite, is rejected as a whole. Nothing is clamped: a policy that
/// leaves its limits is not to be trusted with the rest of that chunk either.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionLimits {
    /// The least values allowed, one a joint.
    pub min: Vec<f32>,
    /// The greatest values allowed, one a joint.
    pub max: Vec<f32>,
}

impl ActionLimits {
    /// Creates limits that every finite action of `dim` values keeps to.
    pub fn unlimited(dim: usize) -> Self {
        ActionLimits { min: vec![f32::NEG_INFINITY; dim], max: vec![f32::INFINITY; dim] }
    }

    /// Checks that each of `dim` joints has a lower limit and an upper one that is not below it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], naming the joint.
    pub fn validate(&self, dim: usize) -> Result<()> {
        let bad =
            |what: String| Err(Error::new(ErrorKind::InvalidArgument, format!("action limits: {what}")));
        let (min, max) = (&self.min, &self.max);
        if dim == 0 || min.len() != dim || max.len() != dim {
            let (lower, upper) = (min.len(), max.len());
            return bad(format!("{lower} lower and {upper} upper ones; each of {dim} joints needs both"));
        }
        // NaN has no order, so it fails too.
        let disordered = |&i: &usize| min[i].partial_cmp(&max[i]).is_none_or(|order| order.is_gt());
        match (0..dim).find(disordered) {
            Some(joint) => bad(format!("joint {joint} has lower {} and upper {}", min[joint], max[joint])),
            None => Ok(()),
        }
    }

    /// Returns the limits that allow what both these and `other` do.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if they are for other numbers of joints, or some joint has no value left.
    pub fn and(&self, other: &ActionLimits) -> Result<ActionLimits> {
        let dim = self.min.len();
        other.validate(dim)?;
        let pick = |a: &[f32], b: &[f32], pick: fn(f32, f32) -> f32| {
            a.iter().zip(b).map(|(&a, &b)| pick(a, b)).collect()
        };
        let both = ActionLimits {
            min: pick(&self.min, &other.min, f32::max),
            max: pick(&self.max, &other.max, f32::min),
        };
        both.validate(dim).map(|()| both)
    }

    /// Checks whole rows of actions: all values finite, all within limits. Allocates nothing.
    ///
    /// # Errors
    /// The first value that is not finite, else the first that is out of limits.
    pub fn check(&self, values: &[f32]) -> std::result::Result<(), Reject> {
        let dim = self.min.len();
        if !values.len().is_multiple_of(dim) || values.is_empty() {
            return Err(Reject::WrongLength { got: values.len() });
        }
        let good = |((v, min), max): ((&f32, &f32), &f32)| v.is_finite() & (min <= v) & (v <= max);
        // First one pass without branches, which is all that a chunk without a bad value costs.
        let all_good = values.chunks_exact(dim).fold(true, |all, row| {
            all & row.iter().zip(&self.min).zip(&self.max).fold(true, |all, v| all & good(v))
        });
        if all_good {
            return Ok(());
        }
        match values.iter().position(|v| !v.is_finite()) {
            Some(index) => Err(Reject::NonFinite { index }),
            None => {
                let bad = |&i: &usize| !good(((&values[i], &self.min[i % dim]), &self.max[i % dim]));
                let index = (0..values.len()).find(bad).unwrap_or(0);
                Err(Reject::OutOfLimits { index, value: values[index] })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Limits that were found to be sound.
    fn limits(min: &[f32], max: &[f32]) -> Result<ActionLimits> {
        let limits = ActionLimits { min: min.to_vec(), max: max.to_vec() };
        limits.validate(min.len()).map(|()| limits)
    }

    #[test]
    fn every_bad_value_at_every_place_is_caught_and_named() {
        let limits = limits(&[-10.0, -20.0, -30.0], &[10.0, 20.0, 30.0]).unwrap();
        let mut values = [1.0f32; 50 * 3];
        assert_eq!(limits.check(&values), Ok(()));
        for index in 0..values.len() {
            for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                values[index] = bad;
                assert_eq!(limits.check(&values), Err(Reject::NonFinite { index }));
                assert_eq!(ActionLimits::unlimited(3).check(&values), Err(Reject::NonFinite { index }));
            }
            let limit = [10.0, 20.0, 30.0][index % 3];
            for value in [1e30, -1e30, f32::MAX, f32::next_up(limit), f32::next_down(-limit)] {
                values[index] = value;
                assert_eq!(limits.check(&values), Err(Reject::OutOfLimits { index, value }));
                assert_eq!(ActionLimits::unlimited(3).check(&values), Ok(()));
            }
            for good in [limit, -limit, 0.0, -0.0, f32::MIN_POSITIVE / 2.0] {
                values[index] = good;
                assert_eq!(limits.check(&values), Ok(()), "{good} is allowed");
            }
        }
    }

    #[test]
    fn chunks_of_the_wrong_length_do_not_pass() {
        let limits = ActionLimits::unlimited(3);
        for length in [0, 1, 2, 4, 149] {
            assert_eq!(limits.check(&vec![0.0; length]), Err(Reject::WrongLength { got: length }));
        }
    }

    #[test]
    fn two_limits_together_let_through_what_both_do() {
        let wide = limits(&[-2.0, -1.0], &[1.0, 2.0]).unwrap();
        let both = wide.and(&limits(&[-1.0, -2.0], &[2.0, 1.0]).unwrap()).unwrap();
        assert_eq!(both.check(&[1.0, -1.0]), Ok(()));
        for (index, values) in [(0, [-1.5, 0.0]), (0, [1.5, 0.0]), (1, [0.0, -1.5]), (1, [0.0, 1.5])] {
            assert_eq!(both.check(&values), Err(Reject::OutOfLimits { index, value: values[index] }));
        }
        assert!(wide.and(&ActionLimits::unlimited(3)).is_err());
        let apart = limits(&[1.5, 0.0], &[2.0, 0.0]).unwrap();
        assert!(wide.and(&apart).unwrap_err().to_string().contains("joint 0"));
    }

    #[test]
    fn limits_that_no_value_can_meet_are_refused() {
        for (min, max) in [(1.0, 0.0), (f32::NAN, 1.0), (0.0, f32::NAN)] {
            assert!(limits(&[0.0, min], &[1.0, max]).unwrap_err().to_string().contains("joint 1"));
        }
        assert!(limits(&[0.0], &[1.0, 2.0]).is_err());
        assert!(limits(&[], &[]).is_err());
        // Infinite limits mean "finite only".
        let limits = limits(&[f32::NEG_INFINITY], &[f32::INFINITY]).unwrap();
        assert_eq!(limits.check(&[f32::MAX]), Ok(()));
        assert_eq!(limits.check(&[f32::INFINITY]), Err(Reject::NonFinite { index: 0 }));
    }

    proptest! {
        #[test]
        fn interpolation_stays_between_its_ends(a in -3e38f32..3e38, b in -3e38f32..3e38, f in 0.0f32..=1.0) {
            let v = lerp(a, b, f);
            prop_assert!(v >= a.min(b) && v <= a.max(b));
            prop_assert_eq!(lerp(a, b, 0.0), a);
            prop_assert_eq!(lerp(a, b, 1.0), b);
            prop_assert_eq!(lerp(a, a, f), a);
        }
    }
}
