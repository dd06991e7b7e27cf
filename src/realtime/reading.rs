//! The words of one read of the control loop about the action it gives.

use bitflags::bitflags;
use serde::Serialize;

/// The degree to which an action can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Status {
    /// It follows an observation no older than `max_age`.
    Ok = 0,
    /// The observation is older than `max_age`; the plan is still followed.
    Stale = 1,
    /// The plan is not followed any more: the last action is held, or motion is coming to rest.
    Hold = 2,
    /// There has been nothing to execute yet.
    #[default]
    Empty = 3,
}

words!(Status { Ok => "ok", Stale => "stale", Hold => "hold", Empty => "empty" });

impl Status {
    /// Returns the status with this number.
    pub(crate) fn from_number(number: u32) -> Status {
        Status::ALL[(number as usize).min(3)]
    }
}

bitflags! {
    /// Conditions that came with a read; any number of them at once.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
    pub struct Flags: u32 {
        /// The first read from a chunk.
        const NEW_CHUNK = 1;
        /// The chunk was used up before the next one came.
        const UNDERRUN = 1 << 1;
        /// At least one joint was kept from moving further than its step limit.
        const CLAMPED = 1 << 2;
        /// The step limit tripped: held until the trip is cleared.
        const TRIPPED = 1 << 3;
        /// Motion is coming to rest along the plan.
        const RAMPING = 1 << 4;
        /// Control ticks were missed since the read before.
        const MISSED_TICKS = 1 << 5;
        /// This control tick was read before; the action is the same.
        const REPEATED = 1 << 6;
        /// The inference has been in one step for longer than the watchdog allows.
        const HUNG = 1 << 7;
        /// The inference thread has given up or gone.
        const STOPPED = 1 << 8;
        /// A chunk took over by time, because the splice rule is by state and no state was handed in for this tick.
        const UNMEASURED = 1 << 9;
    }
}

impl Flags {
    /// Returns the names of the conditions that are there, as in JSON.
    pub fn names(self) -> impl Iterator<Item = String> {
        self.iter_names().map(|(name, _)| name.to_ascii_lowercase())
    }
}

impl Serialize for Flags {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}

/// Everything a read says beside the action itself.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Reading {
    /// The degree to which the action can be relied on.
    pub status: Status,
    /// Conditions that came with it.
    pub flags: Flags,
    /// The chunk the action comes from, from 1; 0 before the first.
    pub chunk: u64,
    /// Nanoseconds from the capture of the chunk's observation to now, those included that the machine slept; 0 before the
    /// first chunk.
    pub age_ns: u64,
    /// The control tick, from 0 at the first read.
    pub tick: u64,
    /// The row of the chunk that is being executed.
    pub row: u32,
    /// Rows of the chunk that have not begun.
    pub remaining: u32,
    /// Control ticks missed since the read before.
    pub missed: u32,
    /// On the first action followed from a chunk: the largest distance of any joint from the action before to the one
    /// the new chunk asks for, before the step limit, in robot units. 0 otherwise.
    pub seam_jump: f32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_keep_their_bits_and_their_names() {
        let flags = [
            (Flags::NEW_CHUNK, 1, "new_chunk"),
            (Flags::UNDERRUN, 2, "underrun"),
            (Flags::CLAMPED, 4, "clamped"),
            (Flags::TRIPPED, 8, "tripped"),
            (Flags::RAMPING, 16, "ramping"),
            (Flags::MISSED_TICKS, 32, "missed_ticks"),
            (Flags::REPEATED, 64, "repeated"),
            (Flags::HUNG, 128, "hung"),
            (Flags::STOPPED, 256, "stopped"),
            (Flags::UNMEASURED, 512, "unmeasured"),
        ];
        for (flag, bits, name) in flags {
            assert_eq!(flag.bits(), bits, "numbers are part of the C interface and never change");
            assert_eq!(flag.names().collect::<Vec<_>>(), [name]);
        }
        let two = Flags::CLAMPED | Flags::HUNG;
        assert!(two.contains(Flags::HUNG) && !two.contains(Flags::HUNG | Flags::STOPPED));
        assert_eq!(serde_json::to_string(&two).unwrap(), r#"["clamped","hung"]"#);
        assert_eq!(Flags::from_bits_truncate(u32::MAX).names().count(), 10);
    }

    #[test]
    fn statuses_keep_their_numbers() {
        assert_eq!(Status::ALL.map(|s| s as u8), [0, 1, 2, 3]);
        assert_eq!(Status::ALL.map(|s| Status::from_number(s as u32)), Status::ALL);
        assert_eq!(Status::default(), Status::Empty);
    }
}
