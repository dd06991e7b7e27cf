//! A chunk of actions on its way to the control loop.

use serde::{Serialize, Serializer};

use super::clock::Timestamp;
use crate::action::ActionChunk;

/// The origin of a chunk. The same for every action read from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ChunkInfo {
    /// The chunk's number, from 1; 0 means there has been none.
    pub number: u64,
    /// The episode it belongs to, from 0.
    pub episode: u64,
    /// The capture time of the observation that the chunk answers. Row 0 is the action for that moment.
    #[serde(rename = "captured_ns", serialize_with = "as_nanos")]
    pub captured: Timestamp,
    /// The time its inference began.
    #[serde(rename = "begun_ns", serialize_with = "as_nanos")]
    pub begun: Timestamp,
    /// The time it was published to the control loop; 0: it was not.
    #[serde(rename = "published_ns", serialize_with = "as_nanos")]
    pub published: Timestamp,
    /// Rows of the chunk before it that guided it, counted from its row 0; 0 without real-time chunking.
    pub guided_rows: u32,
    /// RTC's `inference_delay`: the rows expected to have passed by the time it is first used.
    pub inference_delay: u32,
    /// The time from `captured` to its publication as expected when it was begun, in nanoseconds: what had passed,
    /// and the delay estimate.
    pub expected_ns: u64,
    /// The time at which the control loop last told its place in the plan, as known when the chunk was begun; 0:
    /// never yet.
    #[serde(rename = "progress_at_ns", serialize_with = "as_nanos")]
    pub progress_at: Timestamp,
}

fn as_nanos<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(time.as_nanos())
}

/// A chunk and its origin, in memory that is made once.
#[derive(Debug, Clone)]
pub struct StampedChunk {
    /// Its origin.
    pub info: ChunkInfo,
    /// The actions.
    pub actions: ActionChunk,
    /// The state in the observation that it answers, in robot units: entry i is the position of the joint that entry i
    /// of an action moves. NaN where the observation has none.
    pub state: Box<[f32]>,
}

impl StampedChunk {
    /// Creates a chunk of number 0 with room for `rows` actions of `dim` values.
    ///
    /// # Panics
    /// If either is zero.
    pub fn new(rows: usize, dim: usize) -> Self {
        let (actions, state) = (ActionChunk::new(rows, dim), vec![f32::NAN; dim].into());
        StampedChunk { info: ChunkInfo::default(), actions, state }
    }

    /// Takes over another chunk of the same shape without allocating.
    ///
    /// # Panics
    /// If the shapes differ.
    pub(crate) fn copy_from(&mut self, other: &StampedChunk) {
        self.info = other.info;
        self.actions.as_mut_slice().copy_from_slice(other.actions.as_slice());
        self.state.copy_from_slice(&other.state);
    }

    /// Writes what will be executed from `from_rows` rows into this chunk on: one action a row of `out`, joined as
    /// `interpolation` says, the last one held past the end. Returns how many of them were really planned.
    ///
    /// # Panics
    /// If `out` is not made of whole rows.
    pub fn leftover_into(&self, from_rows: f64, interpolation: Interpolation, out: &mut [f32]) -> usize {
        let (rows, dim) = (self.actions.action_horizon(), self.actions.action_dim());
        assert!(out.len().is_multiple_of(dim));
        // An observation older than the plan starts at the plan's beginning. The cast below saturates.
        let from_rows = from_rows.max(0.0);
        let fraction = match interpolation {
            Interpolation::None => 0.0,
            Interpolation::Linear => from_rows.fract() as f32,
        };
        let first = from_rows as usize;
        for (i, row) in out.chunks_exact_mut(dim).enumerate() {
            self.actions.interpolate(first.saturating_add(i), fraction, row);
        }
        rows.saturating_sub(first).min(out.len() / dim)
    }
}

/// The way from one row of a chunk to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Interpolation {
    /// Each row stands for a whole action period.
    #[default]
    None,
    /// The action moves evenly from one row to the next.
    Linear,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(rows: usize) -> StampedChunk {
        let mut chunk = StampedChunk::new(rows, 2);
        let values: Vec<f32> = (0..rows).flat_map(|i| [i as f32, -(i as f32)]).collect();
        chunk.actions.as_mut_slice().copy_from_slice(&values);
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
}
