//! A chunk of actions on its way to the control loop, and the gate it must pass.

use super::clock::Timestamp;
use crate::{Error, ErrorKind, Result};

/// Where a chunk comes from. The same for every action read from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChunkInfo {
    /// The chunk's number, from 1; 0 means there has been none.
    pub number: u64,
    /// When the observation was captured that the chunk answers. Row 0 is the action for that moment.
    pub captured: Timestamp,
    /// When its inference began.
    pub begun: Timestamp,
    /// When it was published to the control loop.
    pub published: Timestamp,
    /// How many rows of the chunk before it guided it, counted from its row 0; 0 without real-time chunking.
    pub guided_rows: u32,
    /// RTC's `inference_delay`: the rows expected to have passed by the time it is first used.
    pub inference_delay: u32,
    /// How long after `captured` its publication was expected when it was begun, in nanoseconds: what had passed, and
    /// the delay estimate.
    pub expected_ns: u64,
    /// When the control loop last said where in its plan it is, as known when the chunk was begun; 0: never yet.
    pub progress_at: Timestamp,
}

/// A chunk: `rows` actions of `dim` values each, in robot units, in memory that is made once.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// Where it comes from.
    pub info: ChunkInfo,
    values: Box<[f32]>,
    dim: usize,
}

impl Chunk {
    /// An empty chunk (number 0) with room for `rows` actions of `dim` values.
    ///
    /// # Panics
    /// If either is zero.
    pub fn new(rows: usize, dim: usize) -> Self {
        assert!(rows > 0 && dim > 0, "a chunk of {rows} actions of {dim} values");
        Chunk { info: ChunkInfo::default(), values: vec![0.0; rows * dim].into(), dim }
    }

    /// How many actions it holds: the policy's `action_horizon`.
    #[inline]
    pub fn rows(&self) -> usize {
        self.values.len() / self.dim
    }

    /// How many values an action has: the robot's, not the policy's padded width.
    #[inline]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// One action. Rows past the end are the last row.
    #[inline]
    pub fn row(&self, index: usize) -> &[f32] {
        let index = index.min(self.rows() - 1);
        &self.values[index * self.dim..][..self.dim]
    }

    /// All actions, row after row.
    #[inline]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All actions, to be filled in.
    #[inline]
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// Takes over another chunk of the same shape without allocating.
    ///
    /// # Panics
    /// If the shapes differ.
    pub(crate) fn copy_from(&mut self, other: &Chunk) {
        assert_eq!((self.rows(), self.dim), (other.rows(), other.dim));
        self.info = other.info;
        self.values.copy_from_slice(&other.values);
    }

    /// Writes what will be executed from `from_rows` rows into this chunk on: one action a row of `out`, joined as
    /// `interpolation` says, the last one held past the end. Returns how many of them were really planned.
    ///
    /// # Panics
    /// If `out` is not made of whole rows.
    pub fn leftover_into(&self, from_rows: f64, interpolation: Interpolation, out: &mut [f32]) -> usize {
        assert!(out.len().is_multiple_of(self.dim));
        // An observation older than the plan starts at the plan's beginning. The cast below saturates.
        let from_rows = from_rows.max(0.0);
        let fraction = match interpolation {
            Interpolation::None => 0.0,
            Interpolation::Linear => from_rows.fract() as f32,
        };
        let first = from_rows as usize;
        for (i, row) in out.chunks_exact_mut(self.dim).enumerate() {
            let at = first.saturating_add(i);
            let (a, b) = (self.row(at), self.row(at.saturating_add(1)));
            row.iter_mut().zip(a).zip(b).for_each(|((value, &a), &b)| *value = lerp(a, b, fraction));
        }
        self.rows().saturating_sub(first).min(out.len() / self.dim)
    }
}

/// How one row of a chunk turns into the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Interpolation {
    /// Each row stands for a whole action period.
    #[default]
    None,
    /// The action moves evenly from one row to the next.
    Linear,
}

/// The value `fraction` of the way from `a` to `b`; never outside the two, exact at both ends and where they agree.
#[inline]
pub(crate) fn lerp(a: f32, b: f32, fraction: f32) -> f32 {
    // Not a + (b − a)·f, which overflows for large values of unlike sign; rounding may leave the interval, so clamp.
    // min and max rather than clamp(), which panics on NaN.
    (a * (1.0 - fraction) + b * fraction).max(a.min(b)).min(a.max(b))
}

/// Why a chunk was not published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reject {
    /// The value at this place in the chunk (row · dim + joint) is NaN or infinite.
    NonFinite {
        /// Where.
        index: usize,
    },
    /// The value at this place is outside its joint's limits.
    OutOfLimits {
        /// Where.
        index: usize,
        /// What it is, in robot units.
        value: f32,
    },
    /// The engine gave this many values instead of a whole chunk.
    WrongLength {
        /// How many.
        got: usize,
    },
}

impl std::fmt::Display for Reject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reject::NonFinite { index } => write!(f, "value {index} of the chunk is NaN or infinite"),
            Reject::OutOfLimits { index, value } => {
                write!(f, "value {index} of the chunk, {value}, is out of limits")
            }
            Reject::WrongLength { got } => write!(f, "the engine gave {got} values, which is no whole chunk"),
        }
    }
}

/// The check every chunk must pass before the control loop can see it: all values finite, all within limits.
///
/// One bad value rejects the whole chunk. Nothing is clamped here: a policy that leaves its limits is not to be
/// trusted with the rest of that chunk either.
#[derive(Debug, Clone)]
pub struct Gate {
    /// Per joint, in robot units.
    min: Box<[f32]>,
    max: Box<[f32]>,
}

impl Gate {
    /// A gate for actions of `dim` values that asks for finite values only.
    pub fn finite(dim: usize) -> Self {
        Gate { min: vec![f32::MIN; dim].into(), max: vec![f32::MAX; dim].into() }
    }

    /// A gate with inclusive limits per joint, in robot units.
    pub fn with_limits(min: &[f32], max: &[f32]) -> Result<Self> {
        let bad =
            |what: String| Err(Error::new(ErrorKind::InvalidArgument, format!("action limits: {what}")));
        if min.len() != max.len() || min.is_empty() {
            return bad(format!("{} lower and {} upper ones; each joint needs both", min.len(), max.len()));
        }
        // NaN has no order, so it fails too.
        if let Some(i) =
            (0..min.len()).find(|&i| min[i].partial_cmp(&max[i]).is_none_or(|order| order.is_gt()))
        {
            return bad(format!("joint {i} has lower {} and upper {}", min[i], max[i]));
        }
        let finite = |v: &f32| v.clamp(f32::MIN, f32::MAX);
        Ok(Gate { min: min.iter().map(finite).collect(), max: max.iter().map(finite).collect() })
    }

    /// The gate that lets through what both this and `other` do.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if they are for other numbers of joints, or some joint has no value left.
    pub fn and(&self, other: &Gate) -> Result<Self> {
        let pick = |a: &[f32], b: &[f32], pick: fn(f32, f32) -> f32| -> Vec<f32> {
            a.iter().zip(b).map(|(&a, &b)| pick(a, b)).collect()
        };
        if self.dim() != other.dim() {
            let what = format!("action limits for {} joints beside those for {}", self.dim(), other.dim());
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        Gate::with_limits(&pick(&self.min, &other.min, f32::max), &pick(&self.max, &other.max, f32::min))
    }

    /// How many values an action has.
    pub fn dim(&self) -> usize {
        self.min.len()
    }

    /// Checks whole rows of actions. Allocates nothing.
    pub fn check(&self, values: &[f32]) -> std::result::Result<(), Reject> {
        let dim = self.dim();
        if !values.len().is_multiple_of(dim) || values.is_empty() {
            return Err(Reject::WrongLength { got: values.len() });
        }
        // First one pass without branches, which is all a clean chunk costs. Limits are finite, so NaN and infinity
        // fail the comparison like any other value.
        let clean = values.chunks_exact(dim).fold(true, |clean, row| {
            let within = |((v, min), max): ((&f32, &f32), &f32)| (min <= v) & (v <= max);
            clean & row.iter().zip(&self.min).zip(&self.max).fold(true, |all, v| all & within(v))
        });
        if clean {
            return Ok(());
        }
        let within = |i: usize| self.min[i % dim] <= values[i] && values[i] <= self.max[i % dim];
        match values.iter().position(|v| !v.is_finite()) {
            Some(index) => Err(Reject::NonFinite { index }),
            None => {
                let index = (0..values.len()).find(|&i| !within(i)).unwrap_or(0);
                Err(Reject::OutOfLimits { index, value: values[index] })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counting(rows: usize) -> Chunk {
        let mut chunk = Chunk::new(rows, 2);
        let values: Vec<f32> = (0..rows).flat_map(|i| [i as f32, -(i as f32)]).collect();
        chunk.values_mut().copy_from_slice(&values);
        chunk
    }

    #[test]
    fn the_leftover_starts_at_the_first_row_not_yet_due_and_is_held_at_the_end() {
        let chunk = counting(5);
        let mut out = [f32::NAN; 8];
        assert_eq!(chunk.leftover_into(3.0, Interpolation::None, &mut out), 2);
        assert_eq!(out, [3.0, -3.0, 4.0, -4.0, 4.0, -4.0, 4.0, -4.0]);
        // Between two rows: what is executed then depends on how rows are joined.
        assert_eq!(chunk.leftover_into(2.25, Interpolation::None, &mut out), 3);
        assert_eq!(out, [2.0, -2.0, 3.0, -3.0, 4.0, -4.0, 4.0, -4.0]);
        assert_eq!(chunk.leftover_into(2.25, Interpolation::Linear, &mut out), 3);
        assert_eq!(out, [2.25, -2.25, 3.25, -3.25, 4.0, -4.0, 4.0, -4.0]);
        // Used up: nothing planned, the robot holds. Before the beginning: the beginning.
        assert_eq!(chunk.leftover_into(5.0, Interpolation::Linear, &mut out), 0);
        assert_eq!(out, [4.0, -4.0, 4.0, -4.0, 4.0, -4.0, 4.0, -4.0]);
        assert_eq!(chunk.leftover_into(f64::INFINITY, Interpolation::None, &mut out), 0);
        assert_eq!(chunk.leftover_into(-1.5, Interpolation::Linear, &mut out), 4);
        assert_eq!(out, [0.0, 0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0]);
    }

    #[test]
    fn every_bad_value_at_every_place_is_caught_and_named() {
        let gate = Gate::with_limits(&[-10.0, -20.0, -30.0], &[10.0, 20.0, 30.0]).unwrap();
        let mut values = [1.0f32; 50 * 3];
        assert_eq!(gate.check(&values), Ok(()));
        for index in 0..values.len() {
            for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                values[index] = bad;
                assert_eq!(gate.check(&values), Err(Reject::NonFinite { index }));
                assert_eq!(Gate::finite(3).check(&values), Err(Reject::NonFinite { index }));
            }
            let limit = [10.0, 20.0, 30.0][index % 3];
            for value in [1e30, -1e30, f32::MAX, f32::next_up(limit), f32::next_down(-limit)] {
                values[index] = value;
                assert_eq!(gate.check(&values), Err(Reject::OutOfLimits { index, value }));
                assert_eq!(Gate::finite(3).check(&values), Ok(()));
            }
            for good in [limit, -limit, 0.0, -0.0, f32::MIN_POSITIVE / 2.0] {
                values[index] = good;
                assert_eq!(gate.check(&values), Ok(()), "{good} is allowed");
            }
        }
    }

    #[test]
    fn chunks_of_the_wrong_length_do_not_pass() {
        let gate = Gate::finite(3);
        for length in [0, 1, 2, 4, 149] {
            assert_eq!(gate.check(&vec![0.0; length]), Err(Reject::WrongLength { got: length }));
        }
    }

    #[test]
    fn two_gates_together_let_through_what_both_do() {
        let wide = Gate::with_limits(&[-2.0, -1.0], &[1.0, 2.0]).unwrap();
        let both = wide.and(&Gate::with_limits(&[-1.0, -2.0], &[2.0, 1.0]).unwrap()).unwrap();
        assert_eq!(both.check(&[1.0, -1.0]), Ok(()));
        for (index, values) in [(0, [-1.5, 0.0]), (0, [1.5, 0.0]), (1, [0.0, -1.5]), (1, [0.0, 1.5])] {
            assert_eq!(both.check(&values), Err(Reject::OutOfLimits { index, value: values[index] }));
        }
        assert!(wide.and(&Gate::finite(3)).is_err());
        let apart = Gate::with_limits(&[1.5, 0.0], &[2.0, 0.0]).unwrap();
        assert!(wide.and(&apart).unwrap_err().to_string().contains("joint 0"));
    }

    #[test]
    fn limits_that_no_value_can_meet_are_refused() {
        for (min, max) in [(1.0, 0.0), (f32::NAN, 1.0), (0.0, f32::NAN)] {
            assert!(Gate::with_limits(&[0.0, min], &[1.0, max]).unwrap_err().to_string().contains("joint 1"));
        }
        assert!(Gate::with_limits(&[0.0], &[1.0, 2.0]).is_err());
        assert!(Gate::with_limits(&[], &[]).is_err());
        // Infinite limits mean "finite only".
        let gate = Gate::with_limits(&[f32::NEG_INFINITY], &[f32::INFINITY]).unwrap();
        assert_eq!(gate.check(&[f32::MAX]), Ok(()));
        assert_eq!(gate.check(&[f32::INFINITY]), Err(Reject::NonFinite { index: 0 }));
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
