//! The sensor side: filling an observation in place and handing it over.

use std::fmt;
use std::sync::Arc;

use super::shared::Shared;
use crate::realtime::cell::Writer;
use crate::realtime::clock::Timestamp;
use crate::realtime::wake::Waker;

/// An observation in its slot.
#[derive(Debug)]
pub(super) struct Observed<O> {
    pub(super) data: O,
    pub(super) captured: Timestamp,
    pub(super) episode: u64,
}

/// The outcome of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The observation before this one was never looked at.
    pub overwrote: bool,
    /// The inference thread slept and was woken, which cost one system call.
    pub woke: bool,
}

/// The reason why an observation was refused. Taking it would make the age of an action a lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishError {
    /// It claims to have been captured later than now. Capture times are CLOCK_MONOTONIC, not wall time.
    FromTheFuture {
        /// The difference in nanoseconds.
        by_ns: u64,
    },
    /// It was captured before the one published last.
    OutOfOrder {
        /// The difference in nanoseconds.
        by_ns: u64,
    },
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::FromTheFuture { by_ns } => {
                write!(
                    f,
                    "the capture time is {by_ns} ns ahead of CLOCK_MONOTONIC; is it from another clock?"
                )
            }
            PublishError::OutOfOrder { by_ns } => {
                write!(f, "the capture time is {by_ns} ns before that of the observation published last")
            }
        }
    }
}

impl std::error::Error for PublishError {}

/// The sensor side's handle. Any one thread: it can be sent, not shared.
///
/// Publishing takes no lock and allocates nothing; it costs one system call if the inference thread sleeps, and none
/// otherwise.
///
/// ```no_run
/// use pi0_edge::ObservationWriter;
/// use pi0_edge::runtime::{ObservationSlot, PublishError, Timestamp};
///
/// /// Publishes one RGB frame of 640 × 480 pixels, captured at `captured`, and the joint positions.
/// fn publish(
///     sensors: &mut ObservationWriter<ObservationSlot>,
///     frame: &[u8],
///     joints: &[f32],
///     captured: Timestamp,
/// ) -> Result<(), PublishError> {
///     let slot = sensors.slot();
///     slot.frame_mut(0, 640, 480).expect("a first camera with room for the frame").copy_from_slice(frame);
///     slot.state_mut().copy_from_slice(joints);
///     sensors.publish(captured)?;
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct ObservationWriter<O> {
    cell: Writer<Observed<O>>,
    waker: Waker,
    shared: Arc<Shared>,
    newest: Timestamp,
}

impl<O> ObservationWriter<O> {
    pub(super) fn new(cell: Writer<Observed<O>>, waker: Waker, shared: Arc<Shared>) -> Self {
        ObservationWriter { cell, waker, shared, newest: Timestamp::default() }
    }

    /// Returns the observation to fill before [`publish`](Self::publish). It holds some earlier observation, not the last:
    /// fill all of it.
    #[inline]
    pub fn slot(&mut self) -> &mut O {
        &mut self.cell.slot().data
    }

    /// Hands the filled observation over. `captured` is the time its oldest part was captured, on CLOCK_MONOTONIC.
    ///
    /// # Errors
    /// A capture time ahead of now, or before that of the observation published last; nothing is handed over.
    pub fn publish(&mut self, captured: Timestamp) -> Result<Published, PublishError> {
        self.publish_at(Timestamp::now(), captured)
    }

    /// Hands the filled observation over, as of recorded time.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_at(&mut self, now: Timestamp, captured: Timestamp) -> Result<Published, PublishError> {
        let counts = &self.shared.observations;
        if captured > now {
            counts.refused.add(1);
            return Err(PublishError::FromTheFuture { by_ns: captured.since(now) });
        }
        if captured < self.newest {
            counts.refused.add(1);
            return Err(PublishError::OutOfOrder { by_ns: self.newest.since(captured) });
        }
        self.newest = captured;
        let slot = self.cell.slot();
        slot.captured = captured;
        slot.episode = self.shared.episode.of(captured);
        let overwrote = self.cell.publish();
        let woke = self.waker.notify();
        counts.published.add(1);
        counts.overwritten.add(u64::from(overwrote));
        counts.wakes.add(u64::from(woke));
        Ok(Published { overwrote, woke })
    }

    /// Returns false once the inference thread has ended and nobody looks at observations any more.
    pub fn runtime_alive(&self) -> bool {
        self.cell.reader_alive()
    }
}
