//! Waiting until the latency no longer changes: then the machine has its working clocks and temperature.

use serde::Serialize;

use crate::figures::{Figures, median};

/// Chunks of one window, at least.
const WINDOW_CHUNKS: usize = 5;
/// Seconds of one window, at least. Clock governors decide some ten times a second.
const WINDOW_SECONDS: f64 = 2.0;
/// Windows in a row that must agree.
const WINDOWS: usize = 3;
/// Share by which their medians may differ.
const TOLERANCE: f64 = 0.03;

/// Watches chunks until their latency has settled.
#[derive(Debug, Default)]
pub struct Settling {
    window: Vec<f64>,
    began: Option<f64>,
    medians: Vec<f64>,
    chunks: usize,
}

/// The outcome.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Settled {
    /// True if the latency settled before the time was up.
    pub settled: bool,
    /// Seconds it took.
    pub seconds: f64,
    /// Chunks computed meanwhile.
    pub chunks: usize,
    /// Median of the first window and of the last one, in ms.
    pub from_ms: Option<f64>,
    pub to_ms: Option<f64>,
}

impl Settling {
    /// Takes a chunk that took `ms` and was done at the time `at`, in seconds. True once the latency has settled.
    pub fn push(&mut self, at: f64, ms: f64) -> bool {
        let began = *self.began.get_or_insert(at - ms * 1e-3);
        self.chunks += 1;
        self.window.push(ms);
        if self.window.len() < WINDOW_CHUNKS || at - began < WINDOW_SECONDS {
            return false;
        }
        self.medians.extend(median(&self.window));
        self.window.clear();
        self.began = Some(at);
        let Some(last) = self.medians.len().checked_sub(WINDOWS).map(|n| &self.medians[n..]) else {
            return false;
        };
        Figures::of(last.iter().copied()).is_some_and(|f| f.max - f.min <= TOLERANCE * f.min)
    }

    /// The outcome after `seconds`.
    pub fn outcome(self, settled: bool, seconds: f64) -> Settled {
        let from_ms = self.medians.first().copied().or_else(|| median(&self.window));
        let to_ms = self.medians.last().copied().or(from_ms);
        Settled { settled, seconds, chunks: self.chunks, from_ms, to_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs chunks whose latency is `ms(time)` and returns when they settled.
    fn settles(ms: impl Fn(f64) -> f64, limit: f64) -> Option<f64> {
        let (mut settling, mut at) = (Settling::default(), 0.0);
        while at < limit {
            let took = ms(at);
            at += took * 1e-3;
            if settling.push(at, took) {
                return Some(at);
            }
        }
        None
    }

    #[test]
    fn a_steady_machine_settles_after_three_windows() {
        let at = settles(|_| 10.0, 60.0).unwrap();
        assert!((6.0..6.1).contains(&at), "{at}");
        // Slow chunks: five a window.
        let at = settles(|_| 3000.0, 100.0).unwrap();
        assert!((45.0..45.1).contains(&at), "{at}");
    }

    #[test]
    fn rising_clocks_are_waited_for() {
        let at = settles(|t| if t < 20.0 { 30.0 - t } else { 10.0 }, 100.0).unwrap();
        assert!((24.0..30.0).contains(&at), "{at}");
    }

    #[test]
    fn a_machine_that_swings_never_settles() {
        assert_eq!(settles(|t| if ((t / 2.0) as u64).is_multiple_of(2) { 10.0 } else { 13.0 }, 200.0), None);
    }
}
