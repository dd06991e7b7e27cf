//! A run, tick by tick and chunk by chunk.

use pi0_edge::runtime::{ChunkInfo, Reading, Timestamp};

/// An observation that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The time it was published at.
    pub now: Timestamp,
    /// The capture time it was given.
    pub captured: Timestamp,
    /// Its number in the episode.
    pub index: usize,
}

/// A control tick.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tick {
    /// The time of the read.
    pub now: Timestamp,
    /// The outcome of the read.
    pub reading: Reading,
    /// True if there was an action.
    pub known: bool,
}

/// A chunk that was finished.
#[derive(Debug, Clone, PartialEq)]
pub struct Computed {
    /// Its origin.
    pub info: ChunkInfo,
    /// It was not published.
    pub rejected: bool,
    /// Its actions, row after row.
    pub values: Vec<f32>,
}

/// Everything that went into a run, and everything that came out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Trace {
    /// Values in an action.
    pub dim: usize,
    /// The observations, in the order they were published.
    pub observations: Vec<Seen>,
    /// The control ticks, in order.
    pub ticks: Vec<Tick>,
    /// Their actions, one after the other; zeros where there was none.
    pub actions: Vec<f32>,
    /// The chunks, in order.
    pub chunks: Vec<Computed>,
}

impl Trace {
    /// The action of tick `index`.
    pub fn action(&self, index: usize) -> Option<&[f32]> {
        self.ticks[index].known.then(|| &self.actions[index * self.dim..][..self.dim])
    }

    /// Adds a control tick.
    pub fn push(&mut self, now: Timestamp, reading: Reading, action: Option<&[f32]>) {
        self.ticks.push(Tick { now, reading, known: action.is_some() });
        match action {
            Some(action) => self.actions.extend_from_slice(action),
            None => self.actions.resize(self.actions.len() + self.dim, 0.0),
        }
    }
}
