//! The settings of the way from control ticks to actions.

use std::time::Duration;

use super::chunk::Interpolation;
use super::splice::Splice;
use crate::{Error, ErrorKind, Result};

/// The course of motion when there is nothing valid to follow any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Underrun {
    /// The last action is held from one tick to the next.
    #[default]
    HoldLast,
    /// Motion slows down evenly over this time and comes to rest on the plan, never beyond it. So that there is plan
    /// left to slow down on, this begins half the time before the chunk ends.
    RampToHold(Duration),
    /// The plan is followed to its end, however old; status and flags say so, and the control loop decides. A trip
    /// of the step limit holds all the same.
    FlagOnly,
}

/// The way from control ticks to actions.
#[derive(Debug, Clone, PartialEq)]
pub struct TimelineConfig {
    /// The control loop's period: the time from one read to the next.
    pub control_period: Duration,
    /// The policy's period: the time from one row of a chunk to the next.
    pub action_period: Duration,
    /// The way from one row to the next.
    pub interpolation: Interpolation,
    /// The rule for the row at which a new chunk takes over.
    pub splice: Splice,
    /// An action whose observation is older than this is STALE.
    pub max_age: Duration,
    /// An action whose observation is older than this is not followed any more: HOLD.
    pub hold_after: Duration,
    /// The course of motion then, and when a chunk is used up.
    pub on_underrun: Underrun,
    /// If the control loop misses more ticks than this in a row, the plan waits for it.
    pub max_missed_ticks: u32,
    /// The most that each joint may move from one tick to the next, in robot units; none: no limit.
    pub step_limits: Option<Vec<f32>>,
    /// After this many ticks in a row at the step limit, HOLD until the trip is cleared; 0: never.
    pub trip_after: u32,
}

impl Default for TimelineConfig {
    /// 1 kHz control, 50 Hz actions, linear; STALE after 0.5 s, HOLD after 1 s, holding the last action.
    fn default() -> Self {
        TimelineConfig {
            control_period: Duration::from_millis(1),
            action_period: Duration::from_millis(20),
            interpolation: Interpolation::Linear,
            splice: Splice::Time,
            max_age: Duration::from_millis(500),
            hold_after: Duration::from_secs(1),
            on_underrun: Underrun::HoldLast,
            max_missed_ticks: 10,
            step_limits: None,
            trip_after: 0,
        }
    }
}

impl TimelineConfig {
    /// Checks the settings against each other, for actions of `dim` values.
    pub fn validate(&self, dim: usize) -> Result<()> {
        let bad = |what: String| Err(Error::new(ErrorKind::InvalidArgument, what));
        // An hour, so that no product of these and a chunk's length comes near the range of 64 bits.
        let sane = |d: Duration| d >= Duration::from_micros(1) && d <= Duration::from_secs(3600);
        if !sane(self.control_period) || !sane(self.action_period) {
            let (control, action) = (self.control_period, self.action_period);
            return bad(format!("control period {control:?} and action period {action:?}; use 1 µs to 1 h"));
        }
        if self.max_age > self.hold_after || !sane(self.hold_after) {
            let (stale, hold) = (self.max_age, self.hold_after);
            return bad(format!("max_age {stale:?} and hold_after {hold:?}; use max_age ≤ hold_after ≤ 1 h"));
        }
        if let Underrun::RampToHold(ramp) = self.on_underrun
            && ramp > Duration::from_secs(3600)
        {
            return bad(format!("a ramp of {ramp:?}; use at most 1 h"));
        }
        if let Some(limits) = &self.step_limits {
            if limits.len() != dim {
                return bad(format!(
                    "{} step limits for actions of {dim} values; give one a joint",
                    limits.len()
                ));
            }
            if let Some(joint) = limits.iter().position(|limit| limit.is_nan() || *limit <= 0.0) {
                return bad(format!("step limit {} of joint {joint}; use a positive number", limits[joint]));
            }
        }
        Ok(())
    }
}
