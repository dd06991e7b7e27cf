//! The row of a new chunk at which it takes over from the one being executed.
//!
//! A chunk assumes that its own first rows were executed while it was computed. The old chunk's were, so time alone says
//! too much: events come by the clock, and the rows that would correct the motion are always the ones that are skipped.

use serde::{Deserialize, Serialize};

use super::chunk::{Interpolation, StampedChunk};

/// The rule for the row at which a new chunk takes over.
///
/// No rule begins later in the chunk than time does, and none changes the age of an action: it is its observation's.
/// [`Command`](Self::Command) and [`State`](Self::State) are for actions that are positions, absolute or relative to the
/// state; a velocity says nothing about where the robot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Splice {
    /// The row that is due: as many rows in as were executed since the observation.
    #[default]
    Time,
    /// By progress: the row, of those due, that follows on the last action most closely.
    Command,
    /// By progress: the row, of those due, for which the chunk expects the robot to be where it was measured to be. The
    /// control loop has to hand in the measured state before each read; without, time decides, and the read has
    /// [`Flags::UNMEASURED`](super::reading::Flags::UNMEASURED).
    State,
    /// Row 0, whenever the chunk comes. The plan falls behind by the whole delay.
    Arrival,
}

words!(Splice, "splice rule", str::eq_ignore_ascii_case, {
    Time => "time", Command => "command", State => "state", Arrival => "arrival",
});

/// Actions that are no further apart than this, in units of the joints' scales, are the same place: while the chunk
/// dwells in one, time decides.
const DWELL: f32 = 0.01;

/// Joints with less than this share of the largest scale do not count: in f32 such a scale is rounding.
const LEAST_SCALE: f32 = 1e-6;

/// Finds the row by a rule. Fixed memory; every call takes at most a few times rows × joints steps.
#[derive(Debug, Clone)]
pub(super) struct Splicer {
    rule: Splice,
    interpolation: Interpolation,
    /// One over each joint's scale; 0 for joints that do not count.
    weights: Box<[f32]>,
    measured: Box<[f32]>,
    /// The state was handed in since the last tick.
    fresh: bool,
}

/// The moment at which a chunk takes over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seam<'a> {
    /// The last action; none before the first.
    pub(super) last: Option<&'a [f32]>,
    /// The row that is due.
    pub(super) due: usize,
    /// The distance into a row, in rows from 0 to 1.
    pub(super) phase: f64,
    /// The rows executed since the last action.
    pub(super) since: f64,
}

impl Splicer {
    pub(super) fn new(rule: Splice, interpolation: Interpolation, dim: usize) -> Self {
        let (weights, measured) = (vec![1.0; dim].into(), vec![f32::NAN; dim].into());
        Splicer { rule, interpolation, weights, measured, fresh: false }
    }

    /// Sets the scale on which each joint's distances are compared.
    ///
    /// # Panics
    /// If there is not one scale a joint.
    pub(super) fn set_scales(&mut self, scales: &[f32]) {
        assert_eq!(scales.len(), self.weights.len());
        let least = scales.iter().copied().fold(0.0, f32::max) * LEAST_SCALE;
        let weight = |&scale: &f32| if scale > least { 1.0 / scale } else { 0.0 };
        self.weights = scales.iter().map(weight).collect();
    }

    /// Takes the measured state, NaN for joints that are not measured. False, and nothing done, if the number is wrong,
    /// a value infinite, or nothing measured.
    pub(super) fn measure(&mut self, state: &[f32]) -> bool {
        let fits = state.len() == self.measured.len()
            && state.iter().all(|v| !v.is_infinite())
            && state.iter().any(|v| v.is_finite());
        if fits {
            self.measured.copy_from_slice(state);
            self.fresh = true;
        }
        fits
    }

    /// Forgets the measured state, which was that of one tick.
    #[inline]
    pub(super) fn end_tick(&mut self) {
        self.fresh = false;
    }

    /// Returns true if the rule needs a measured state and has none that it can compare with the chunk's.
    pub(super) fn lacks_state(&self, chunk: &StampedChunk) -> bool {
        let comparable = |(a, b): (&f32, &f32)| (a - b).is_finite();
        self.rule == Splice::State && !(self.fresh && self.measured.iter().zip(&chunk.state).any(comparable))
    }

    /// Returns the row at which `chunk` takes over, none after `seam.due`. It is one of the chunk's rows, unless time
    /// decides, which may be past its end.
    pub(super) fn row(&self, chunk: &StampedChunk, seam: &Seam<'_>) -> usize {
        match (self.rule, seam.last) {
            (Splice::Arrival, _) => 0,
            (Splice::Command, Some(last)) => {
                let difference = |(asked, given): (f32, &f32)| asked - given;
                self.nearest(chunk, seam.due, seam.phase - seam.since, |place| {
                    self.length(self.actions(chunk, place).zip(last).map(difference))
                })
            }
            (Splice::State, _) if !self.lacks_state(chunk) => {
                let first = chunk.actions.action(0).iter().zip(&chunk.state).zip(&self.measured);
                self.nearest(chunk, seam.due, seam.phase, |place| {
                    let pairs = self.actions(chunk, place).zip(first.clone());
                    self.length(pairs.map(|(asked, ((first, was), is))| was + (asked - first) - is))
                })
            }
            _ => seam.due,
        }
    }

    /// Returns the row up to `due` with the least distance, where `distance` is that at `row + offset`; if the chunk
    /// dwells there, the last row of that.
    fn nearest(&self, chunk: &StampedChunk, due: usize, offset: f64, distance: impl Fn(f64) -> f32) -> usize {
        let place = |row: usize| row as f64 + offset;
        let last = due.min(chunk.actions.action_horizon() - 1);
        let (mut least, mut nearest) = (f32::INFINITY, last);
        for row in (0..=last).rev() {
            let distance = distance(place(row));
            if distance < least {
                (least, nearest) = (distance, row);
            }
        }
        let dwells = |row: usize| {
            let pairs = self.actions(chunk, place(nearest)).zip(self.actions(chunk, place(row)));
            self.length(pairs.map(|(a, b)| a - b)) <= DWELL
        };
        (nearest..=last).take_while(|&row| dwells(row)).last().unwrap_or(nearest)
    }

    /// Returns the action that the chunk asks for at `place`, in rows. Up to one row before its first it is taken to have
    /// moved as it does after that.
    #[inline]
    fn actions<'a>(&self, chunk: &'a StampedChunk, place: f64) -> impl Iterator<Item = f32> + 'a {
        let place = match self.interpolation {
            Interpolation::None => place.floor(),
            Interpolation::Linear => place,
        };
        let (place, last) = (place.max(-1.0), chunk.actions.action_horizon() - 1);
        let row = (place.max(0.0) as usize).min(last);
        let share = if row == last { 0.0 } else { (place - row as f64) as f32 };
        let next = chunk.actions.action((row + 1).min(last));
        chunk.actions.action(row).iter().zip(next).map(move |(a, b)| a + (b - a) * share)
    }

    /// Returns the length of a vector with one value a joint, in units of their scales. What is not known does not
    /// count.
    #[inline]
    fn length(&self, values: impl Iterator<Item = f32>) -> f32 {
        let scaled = values.zip(&self.weights).map(|(value, weight)| value * weight);
        scaled.filter(|value| !value.is_nan()).map(|value| value * value).sum::<f32>().sqrt()
    }
}

#[cfg(test)]
#[path = "splice_tests.rs"]
mod tests;
