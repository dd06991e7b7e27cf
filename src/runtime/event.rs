//! Events: the runtime's words to its owner, off the real-time path.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::shared::Shared;
use crate::action::Reject;
use crate::realtime::chunk::ChunkInfo;

/// Something the owner of a runtime may want to know.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A chunk was published.
    Chunk(ChunkInfo),
    /// A chunk was not published.
    Rejected {
        /// Its number.
        chunk: u64,
        /// The reason.
        reason: Reject,
    },
    /// A chunk was dropped because it was not finished in time.
    DeadlineMiss {
        /// Its number.
        chunk: u64,
        /// The denoise steps that had been done.
        steps: usize,
        /// The time it had taken, in nanoseconds.
        after_ns: u64,
    },
    /// The policy cannot use an observation: a value that is not finite, a camera that is missing, a prompt that is too
    /// long for its state. It is not tried again; the next one is.
    ObservationRefused {
        /// The reason, in words.
        error: String,
    },
    /// Inference failed; it is tried again.
    InferenceError {
        /// The error, in words.
        error: String,
        /// The number of errors in a row, this one included.
        in_a_row: u32,
    },
    /// A command could not be carried out; everything is as before it.
    CommandFailed {
        /// The error, in words.
        error: String,
    },
    /// The inference thread has given up: HOLD until the policy is started again.
    GaveUp {
        /// The reason, in words.
        error: String,
    },
    /// Inference has not come back from one step for longer than the watchdog allows: HOLD.
    Hung {
        /// The time so far, in nanoseconds.
        for_ns: u64,
    },
    /// Inference that counted as hung has come back.
    Recovered,
    /// The step limit tripped: HOLD until cleared.
    Tripped,
    /// The flight record was written, or could not be.
    FlightRecord {
        /// The file, or the reason why not.
        outcome: Result<std::path::PathBuf, String>,
    },
}

/// Sends events without ever waiting.
///
/// A bounded channel spins while the slot it wants is being emptied by a receiver that was preempted half-way. That
/// slot can only be the wanted one when the channel is full, so the last places are never used.
#[derive(Debug, Clone)]
pub(super) struct EventSender {
    sender: Sender<Event>,
    shared: Arc<Shared>,
    capacity: usize,
}

/// Places that are never used: one for each thread that sends, and one that may be in the middle of being emptied.
const SPARE: usize = 3;

/// Creates a channel that keeps up to `capacity` events.
pub(super) fn events(capacity: usize, shared: Arc<Shared>) -> (EventSender, Receiver<Event>) {
    let (sender, receiver) = bounded(capacity.saturating_add(SPARE));
    (EventSender { sender, shared, capacity }, receiver)
}

impl EventSender {
    pub(super) fn send(&self, event: Event) {
        if self.sender.len() >= self.capacity || self.sender.try_send(event).is_err() {
            // Relaxed: a count. A read-modify-write, because two threads send.
            self.shared.events_lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}
