//! The recorded robot's state, handed in as the measured one: for the splice rule by state.

use std::time::Duration;

use pi0_edge::runtime::{Controller, Splice, Timestamp};

use super::episode::Episode;

/// Hands in the state that the episode has for each read: a function of the reads' times alone, so that a recording
/// needs no more.
pub struct Measured<'a> {
    episode: &'a Episode,
    /// One value for each joint of an action.
    state: Vec<f32>,
    /// The time of the first read, when the episode begins.
    begun: Option<Timestamp>,
}

impl<'a> Measured<'a> {
    /// Creates one for actions of `dim` values; none if the rule does without.
    pub fn new(splice: Splice, episode: &'a Episode, dim: usize) -> Option<Self> {
        (splice == Splice::State).then(|| Measured { episode, state: vec![f32::NAN; dim], begun: None })
    }

    /// Hands in the state for the read at `now`.
    pub fn tell(&mut self, controller: &mut Controller, now: Timestamp) {
        let begun = *self.begun.get_or_insert(now);
        self.episode.state_at(Duration::from_nanos(now.since(begun)), &mut self.state);
        controller.set_state(&self.state);
    }
}
