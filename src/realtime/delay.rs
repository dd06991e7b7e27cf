//! The time that the next inference will take, estimated from the latest ones.
//!
//! The estimate comes from a window of the latest latencies, so one slow inference is forgotten again: lerobot's
//! running maximum never was (lerobot#4223), and a first inference that took seconds kept the robot seconds ahead
//! of itself for the whole session. The first inferences are left out altogether (lerobot#4454), because a cold
//! start says nothing about the next one.

use super::clock::nanos;
use crate::{Error, ErrorKind, Result};
use std::time::Duration;

/// The longest window there is.
pub const MAX_WINDOW: usize = 64;

/// The rule by which the latencies of the window give the next one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DelayRule {
    /// The largest: the delay is rarely underestimated.
    Max,
    /// The value that this share (0 to 1) of the window does not exceed: an outlier in the window does not count.
    Quantile(f64),
}

/// The settings of the estimate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DelayConfig {
    /// The number of latencies that are remembered, at most 64.
    pub window: usize,
    /// The rule by which they give the estimate.
    pub rule: DelayRule,
    /// The number of inferences after the start that are not counted at all.
    pub warm_up: usize,
    /// The estimate until one has been counted.
    pub initial: Duration,
}

impl Default for DelayConfig {
    /// Returns the defaults: the largest of the last ten, the first one left out.
    fn default() -> Self {
        DelayConfig { window: 10, rule: DelayRule::Max, warm_up: 1, initial: Duration::ZERO }
    }
}

/// A windowed estimate of the next latency. Fixed memory; every call takes a bounded number of steps.
#[derive(Debug, Clone)]
pub struct DelayEstimator {
    config: DelayConfig,
    latencies: [u64; MAX_WINDOW],
    /// The number of latencies given, those left out included.
    seen: usize,
}

impl DelayEstimator {
    /// Creates an estimator that has seen nothing yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a window or quantile that makes no sense.
    pub fn new(config: DelayConfig) -> Result<Self> {
        let bad =
            |what: String| Err(Error::new(ErrorKind::InvalidArgument, format!("delay estimate: {what}")));
        if config.window == 0 || config.window > MAX_WINDOW {
            return bad(format!("a window of {} latencies; use 1 to {MAX_WINDOW}", config.window));
        }
        if let DelayRule::Quantile(q) = config.rule
            && !(0.0..=1.0).contains(&q)
        {
            return bad(format!("quantile {q}; use a share between 0 and 1"));
        }
        Ok(DelayEstimator { config, latencies: [0; MAX_WINDOW], seen: 0 })
    }

    /// Takes in the latency of one inference, in nanoseconds.
    pub fn record(&mut self, latency: u64) {
        if let Some(counted) = self.seen.checked_sub(self.config.warm_up) {
            self.latencies[counted % self.config.window] = latency;
        }
        self.seen = self.seen.saturating_add(1);
    }

    /// Returns the latency that is expected of the next inference, in nanoseconds.
    pub fn estimate(&self) -> u64 {
        let filled = self.seen.saturating_sub(self.config.warm_up).min(self.config.window);
        if filled == 0 {
            return nanos(self.config.initial);
        }
        let mut sorted = self.latencies;
        let sorted = &mut sorted[..filled];
        sorted.sort_unstable();
        let rank = match self.config.rule {
            DelayRule::Max => filled,
            DelayRule::Quantile(q) => (q * filled as f64).ceil() as usize,
        };
        sorted[rank.clamp(1, filled) - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    fn estimator(window: usize, rule: DelayRule, warm_up: usize) -> DelayEstimator {
        DelayEstimator::new(DelayConfig { window, rule, warm_up, initial: Duration::ZERO }).unwrap()
    }

    /// In control ticks, rounded up, as RTC wants it.
    fn ticks(estimator: &DelayEstimator, hz: f64) -> u64 {
        (estimator.estimate() as f64 * hz / 1e9).ceil() as u64
    }

    /// lerobot#4223 as it happened: 30 Hz, 0.7 s for the first inference, 0.3 s from then on. With the running
    /// maximum the delay stayed at 21 ticks for ever; it must be 9 from the first real one.
    #[test]
    fn lerobot_4223_the_first_inference_does_not_pin_the_delay() {
        let mut delay = estimator(10, DelayRule::Max, 1);
        let mut running_max = 0;
        for (i, latency) in [700, 300, 295, 298, 300].into_iter().enumerate() {
            delay.record(latency * MS);
            running_max = running_max.max(latency * MS);
            if i > 0 {
                assert_eq!(ticks(&delay, 30.0), 9, "after inference {i}");
            }
        }
        assert_eq!((running_max as f64 * 30.0 / 1e9).ceil() as u64, 21, "what the running maximum says");
    }

    /// The other half of lerobot#4223: a spike in mid-session leaves the window again.
    #[test]
    fn a_spike_is_forgotten_after_one_window() {
        let mut delay = estimator(10, DelayRule::Max, 1);
        (0..20).for_each(|_| delay.record(150 * MS));
        delay.record(2_000 * MS);
        for after in 0..10 {
            assert_eq!(delay.estimate(), 2_000 * MS, "{after} inferences after the spike");
            delay.record(150 * MS);
        }
        assert_eq!(delay.estimate(), 150 * MS);
    }

    /// lerobot#4454: the cold start was fed into the percentile that sizes the delay.
    #[test]
    fn lerobot_4454_a_cold_start_of_ten_seconds_has_no_effect() {
        for rule in [DelayRule::Max, DelayRule::Quantile(0.95)] {
            let mut delay = estimator(20, rule, 1);
            assert_eq!(delay.estimate(), 0, "nothing known yet");
            delay.record(10_000 * MS);
            assert_eq!(delay.estimate(), 0, "a cold start is not knowledge");
            for i in 0..50 {
                delay.record((150 + i % 3) * MS);
                assert!((150 * MS..=152 * MS).contains(&delay.estimate()), "{rule:?}");
            }
        }
    }

    #[test]
    fn a_quantile_ignores_outliers_that_the_maximum_does_not() {
        let mut quantile = estimator(20, DelayRule::Quantile(0.9), 0);
        let mut max = estimator(20, DelayRule::Max, 0);
        for i in 0..100 {
            // Bimodal: every twentieth takes four times as long.
            let latency = if i % 20 == 19 { 400 * MS } else { 100 * MS };
            quantile.record(latency);
            max.record(latency);
        }
        assert_eq!(quantile.estimate(), 100 * MS);
        assert_eq!(max.estimate(), 400 * MS);
    }

    #[test]
    fn a_step_in_latency_is_followed_at_once_upwards_and_after_a_window_downwards() {
        let mut delay = estimator(5, DelayRule::Max, 0);
        (0..5).for_each(|_| delay.record(100 * MS));
        delay.record(200 * MS);
        assert_eq!(delay.estimate(), 200 * MS);
        (0..5).for_each(|_| delay.record(120 * MS));
        assert_eq!(delay.estimate(), 120 * MS);
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let with = |window, rule| DelayConfig { window, rule, ..DelayConfig::default() };
        for config in [
            with(0, DelayRule::Max),
            with(MAX_WINDOW + 1, DelayRule::Max),
            with(5, DelayRule::Quantile(1.5)),
            with(5, DelayRule::Quantile(f64::NAN)),
        ] {
            assert!(DelayEstimator::new(config).is_err(), "{config:?}");
        }
        let initial = DelayConfig { initial: Duration::from_millis(80), ..DelayConfig::default() };
        assert_eq!(DelayEstimator::new(initial).unwrap().estimate(), 80 * MS);
    }

    proptest! {
        /// Against a list that is never forgotten.
        #[test]
        fn the_estimate_is_the_rules_value_of_the_last_window(
            latencies in proptest::collection::vec(0u64..1000, 0..200),
            window in 1usize..=MAX_WINDOW,
            warm_up in 0usize..5,
            quantile in proptest::option::of(0.0f64..=1.0),
        ) {
            let rule = quantile.map_or(DelayRule::Max, DelayRule::Quantile);
            let mut delay = estimator(window, rule, warm_up);
            for n in 0..=latencies.len() {
                let counted = &latencies[warm_up.min(n)..n];
                let mut last: Vec<u64> = counted[counted.len().saturating_sub(window)..].to_vec();
                last.sort_unstable();
                let want = match (last.len(), quantile) {
                    (0, _) => 0,
                    (n, None) => last[n - 1],
                    (n, Some(q)) => last[((q * n as f64).ceil() as usize).clamp(1, n) - 1],
                };
                prop_assert_eq!(delay.estimate(), want);
                if n < latencies.len() {
                    delay.record(latencies[n]);
                }
            }
        }
    }
}
