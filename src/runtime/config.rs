//! The settings of a runtime.

use std::path::PathBuf;
use std::time::Duration;

use super::Inference;
use crate::action::ActionLimits;
use crate::policy::rtc::RtcConfig;
use crate::realtime::delay::{DelayConfig, DelayEstimator};
use crate::realtime::thread::ThreadConfig;
use crate::realtime::timeline_config::TimelineConfig;
use crate::{Error, ErrorKind, Result};

/// The rule for beginning the next chunk. In every case an observation newer than the last one used is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replan {
    /// Begin when this many rows of the chunk being executed have not begun, or fewer; and at once while the robot holds.
    Remaining(usize),
    /// Begin when this time has passed since the last chunk was begun. Zero: always.
    Period(Duration),
}

/// The settings of a runtime.
#[derive(Debug, Clone, PartialEq)]
pub struct RuntimeConfig {
    /// The way from control ticks to actions.
    pub timeline: TimelineConfig,
    /// A chunk with a value outside these, or outside the policy's own limits, is not published. None: the policy's
    /// own limits, if it has any.
    pub limits: Option<ActionLimits>,
    /// The rule for beginning the next chunk.
    pub replan: Replan,
    /// Real-time chunking. None: chunks are computed without regard to each other.
    pub rtc: Option<RtcConfig>,
    /// The estimate of RTC's inference delay.
    pub delay: DelayConfig,
    /// A chunk that has not been finished this long after it was begun is dropped between two denoise steps.
    pub deadline: Option<Duration>,
    /// Inference that has not come back from one step for this long counts as hung: HOLD.
    pub watchdog: Duration,
    /// After this many errors in a row the inference thread gives up: HOLD until the policy is started again. An
    /// observation that the policy cannot use is no error of inference.
    pub max_errors: u32,
    /// The wait after an error before inference is tried again.
    pub retry_after: Duration,
    /// Scheduling, CPUs and memory of the inference thread.
    pub thread: ThreadConfig,
    /// The number of events kept until somebody takes them; further ones are counted and dropped.
    pub event_capacity: usize,
    /// The file that the flight record is written to when the step limit trips, or the inference hangs or gives up.
    pub flight_record: Option<PathBuf>,
    /// The time that stopping waits for the inference thread to come back before it is left behind.
    pub stop_timeout: Duration,
}

impl Default for RuntimeConfig {
    /// Returns the defaults: replanning when 25 rows remain, no RTC, no deadline, a watchdog of a second, ten errors in a row.
    fn default() -> Self {
        RuntimeConfig {
            timeline: TimelineConfig::default(),
            limits: None,
            replan: Replan::Remaining(25),
            rtc: None,
            delay: DelayConfig::default(),
            deadline: None,
            watchdog: Duration::from_secs(1),
            max_errors: 10,
            retry_after: Duration::from_millis(100),
            thread: ThreadConfig::default(),
            event_capacity: 256,
            flight_record: None,
            stop_timeout: Duration::from_secs(2),
        }
    }
}

impl RuntimeConfig {
    /// Checks everything for chunks of `rows` actions of `dim` values.
    pub(super) fn validate(&self, rows: usize, dim: usize) -> Result<()> {
        let bad = |what: String| Err(Error::new(ErrorKind::InvalidArgument, what));
        if rows == 0 || dim == 0 {
            return bad(format!("the policy gives chunks of {rows} actions of {dim} values"));
        }
        if self.watchdog.is_zero() || self.max_errors == 0 || self.event_capacity == 0 {
            return bad("watchdog, max_errors and event_capacity must be more than zero".into());
        }
        DelayEstimator::new(self.delay)?;
        self.timeline.validate(dim)?;
        self.rtc.map_or(Ok(()), |rtc| check_rtc(&rtc, rows))
    }
}

/// Returns the limits that a chunk must keep to: those given, and those that the policy brings.
pub(super) fn limits(given: Option<&ActionLimits>, inference: &impl Inference) -> Result<ActionLimits> {
    let unlimited = ActionLimits::unlimited(inference.action_dim());
    let own = inference.limits();
    given.into_iter().chain(&own).try_fold(unlimited, |all, limits| all.and(limits))
}

/// Checks RTC's settings for chunks of `rows` actions.
pub(super) fn check_rtc(rtc: &RtcConfig, rows: usize) -> Result<()> {
    let bad = |what: String| Err(Error::new(ErrorKind::InvalidArgument, what));
    let (horizon, weight) = (rtc.execution_horizon, rtc.max_guidance_weight);
    if !(1..=rows).contains(&horizon) {
        return bad(format!("RTC execution horizon {horizon}; use 1 to {rows}, the action horizon"));
    }
    if !(weight >= 0.0 && weight.is_finite()) {
        return bad(format!("RTC guidance weight {weight}; use a number from 0"));
    }
    Ok(())
}
