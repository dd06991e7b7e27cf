//! What a runtime is told at its start.

use std::path::PathBuf;
use std::time::Duration;

use crate::policy::rtc::RtcConfig;
use crate::realtime::chunk::Gate;
use crate::realtime::delay::{DelayConfig, DelayEstimator};
use crate::realtime::engine::Engine;
use crate::realtime::thread::ThreadConfig;
use crate::realtime::timeline::TimelineConfig;
use crate::{Error, ErrorKind, Result};

/// When the next chunk is begun. In every case an observation newer than the last one used is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replan {
    /// When this many rows of the chunk being executed have not begun, or fewer; and at once while the robot holds.
    Remaining(usize),
    /// When this time has passed since the last chunk was begun. Zero: always.
    Period(Duration),
}

/// Per-joint limits of an action, in robot units.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// The lowest value allowed.
    pub min: Vec<f32>,
    /// The highest value allowed.
    pub max: Vec<f32>,
}

/// What a runtime is told at its start.
#[derive(Debug, Clone, PartialEq)]
pub struct RuntimeConfig {
    /// How ticks become actions.
    pub timeline: TimelineConfig,
    /// A chunk with a value outside these, or outside the policy's own limits, is not published. None: the policy's
    /// own limits, if it has any.
    pub limits: Option<Limits>,
    /// When the next chunk is begun.
    pub replan: Replan,
    /// Real-time chunking. None: chunks are computed without regard to each other.
    pub rtc: Option<RtcConfig>,
    /// How RTC's inference delay is estimated.
    pub delay: DelayConfig,
    /// A chunk that has not been finished this long after it was begun is dropped between two denoise steps.
    pub deadline: Option<Duration>,
    /// Inference that has not come back from one step for this long counts as hung: HOLD.
    pub watchdog: Duration,
    /// After this many errors in a row the inference thread gives up: HOLD for good.
    pub max_errors: u32,
    /// How long after an error inference is tried again.
    pub retry_after: Duration,
    /// What the inference thread is to have.
    pub thread: ThreadConfig,
    /// How many events are kept until somebody takes them; further ones are counted and dropped.
    pub event_capacity: usize,
    /// Where the flight record is written when the step limit trips, or the inference hangs or gives up.
    pub flight_record: Option<PathBuf>,
    /// How long stopping waits for the inference thread to come back before it is left behind.
    pub stop_timeout: Duration,
}

impl Default for RuntimeConfig {
    /// Replanning when 25 rows remain, no RTC, no deadline, a watchdog of a second, ten errors in a row.
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
    /// Checks everything for chunks of `rows` actions of `dim` values, and makes the gate.
    pub(super) fn validate(&self, rows: usize, dim: usize) -> Result<DelayEstimator> {
        let bad = |what: String| Err(Error::new(ErrorKind::InvalidArgument, what));
        if rows == 0 || dim == 0 {
            return bad(format!("the policy gives chunks of {rows} actions of {dim} values"));
        }
        self.timeline.validate(dim)?;
        if let Some(rtc) = &self.rtc {
            check_rtc(rtc, rows)?;
        }
        if self.watchdog.is_zero() || self.max_errors == 0 || self.event_capacity == 0 {
            return bad("watchdog, max_errors and event_capacity must be more than zero".into());
        }
        DelayEstimator::new(self.delay)
    }
}

/// The gate for `limits` and those that the engine brings.
pub(super) fn gate(limits: Option<&Limits>, engine: &impl Engine) -> Result<Gate> {
    let given = limits.map(|limits| Gate::with_limits(&limits.min, &limits.max)).transpose()?;
    let own = engine.limits();
    given.iter().chain(&own).try_fold(Gate::finite(engine.action_dim()), |gate, other| gate.and(other))
}

/// Checks RTC's settings for chunks of `rows` actions.
pub(super) fn check_rtc(rtc: &RtcConfig, rows: usize) -> Result<()> {
    let bad = |what: String| Err(Error::new(ErrorKind::InvalidArgument, what));
    if rtc.execution_horizon == 0 || rtc.execution_horizon > rows {
        return bad(format!(
            "RTC execution horizon {}; use 1 to {rows}, the action horizon",
            rtc.execution_horizon
        ));
    }
    if !(rtc.max_guidance_weight >= 0.0 && rtc.max_guidance_weight.is_finite()) {
        return bad(format!("RTC guidance weight {}; use a number from 0", rtc.max_guidance_weight));
    }
    Ok(())
}
