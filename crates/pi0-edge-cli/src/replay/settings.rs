//! Settings of a replay: everything that decides which actions come out, apart from the inputs.

use std::ops::RangeInclusive;
use std::time::Duration;

use pi0_edge::Result;
use pi0_edge::rtc::RtcConfig;
use pi0_edge::runtime::{Interpolation, Replan, RuntimeConfig, Splice, ThreadConfig, TimelineConfig};
use serde::{Deserialize, Serialize};

/// The settings of one replay. A recording carries them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Control ticks per second.
    pub rate_hz: f64,
    /// Rows of a chunk per second.
    pub action_rate_hz: f64,
    /// True if the action moves evenly from row to row; else each row stands for its whole period.
    pub interpolate: bool,
    /// The rule for the row at which a chunk takes over. Recordings that do not say were made by time.
    #[serde(default = "by_time")]
    pub splice: Splice,
    /// Rows left when the next chunk is begun; none: always, as fast as inference goes.
    pub replan_remaining: Option<usize>,
    /// Guidance by the chunk being executed.
    pub rtc: Option<Rtc>,
    /// Time added to each chunk.
    pub latency_ms: f64,
    /// An action older than this is STALE.
    pub max_age_ms: u64,
    /// An action older than this is HOLD.
    pub hold_after_ms: u64,
    /// The distance that each joint may move in a tick, in robot units.
    pub step_limit: Option<f32>,
    /// Ticks in a row at the step limit after which the robot holds for good; 0: never.
    pub trip_after: u32,
    /// The task; the bundle's default when absent.
    pub prompt: Option<String>,
    /// Seed of the noise.
    pub seed: u64,
    /// Euler steps.
    pub num_steps: usize,
}

fn by_time() -> Splice {
    Splice::Time
}

/// [`RtcConfig`] in words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rtc {
    /// zeros, ones, linear or exp.
    pub schedule: String,
    /// The row where guidance ends.
    pub execution_horizon: usize,
    /// The upper bound of the guidance weight.
    pub max_guidance_weight: f32,
}

impl Rtc {
    fn config(&self) -> Result<RtcConfig> {
        let schedule = self.schedule.parse()?;
        let Rtc { execution_horizon, max_guidance_weight, .. } = *self;
        Ok(RtcConfig { schedule, execution_horizon, max_guidance_weight })
    }
}

/// Control ticks or rows of a chunk per second.
pub const RATES: RangeInclusive<f64> = 0.1..=10_000.0;
/// Time added to a chunk, in milliseconds.
pub const LATENCIES: RangeInclusive<f64> = 0.0..=60_000.0;

impl Settings {
    /// Checks what comes from a recording: the command line's own ranges. Says what is out of them.
    pub fn check(&self) -> std::result::Result<(), String> {
        for (what, value, range) in [
            ("rate_hz", self.rate_hz, RATES),
            ("action_rate_hz", self.action_rate_hz, RATES),
            ("latency_ms", self.latency_ms, LATENCIES),
        ] {
            if !range.contains(&value) {
                return Err(format!("{what} is {value}; it is from {} to {}", range.start(), range.end()));
            }
        }
        Ok(())
    }

    /// The control loop's period in nanoseconds.
    pub fn period_ns(&self) -> u64 {
        (1e9 / self.rate_hz) as u64
    }

    /// Returns the runtime's settings for actions of `dim` values.
    pub fn runtime(&self, dim: usize, thread: ThreadConfig) -> Result<RuntimeConfig> {
        Ok(RuntimeConfig {
            timeline: TimelineConfig {
                control_period: Duration::from_nanos(self.period_ns()),
                action_period: Duration::from_secs_f64(1.0 / self.action_rate_hz),
                interpolation: if self.interpolate { Interpolation::Linear } else { Interpolation::None },
                splice: self.splice,
                max_age: Duration::from_millis(self.max_age_ms),
                hold_after: Duration::from_millis(self.hold_after_ms),
                step_limits: self.step_limit.map(|limit| vec![limit; dim]),
                trip_after: self.trip_after,
                ..TimelineConfig::default()
            },
            replan: self.replan_remaining.map_or(Replan::Period(Duration::ZERO), Replan::Remaining),
            rtc: self.rtc.as_ref().map(Rtc::config).transpose()?,
            // A step may take as long as an action stays valid.
            watchdog: Duration::from_millis(self.hold_after_ms.max(1)),
            // Emptied every few milliseconds; chunks may come by the hundred.
            event_capacity: 4096,
            thread,
            ..RuntimeConfig::default()
        })
    }

    /// Names a run among others of the same episode.
    pub fn heading(&self) -> String {
        let rtc = if self.rtc.is_some() { "RTC" } else { "no RTC" };
        match self.latency_ms {
            0.0 => rtc.into(),
            latency => format!("{rtc} +{latency} ms"),
        }
    }
}
