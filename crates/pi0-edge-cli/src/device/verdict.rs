//! The action rates that a latency allows, in words.

use serde::Serialize;

/// Action rates that policies are trained at, in rows of a chunk a second.
const RATES: [u32; 8] = [10, 15, 20, 30, 50, 100, 200, 500];

/// One action rate, judged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rate {
    pub hz: u32,
    /// Rows from an observation to the first action made from it.
    pub inference_delay: u64,
    /// The best that is possible there.
    pub mode: Mode,
}

/// Ways of running the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The next chunk is computed while this one is executed, and continues it: the delay fits twice into the horizon.
    RealTimeChunking,
    /// The next chunk is there before this one ends, and too late to overlap with it.
    BackToBack,
    /// The robot stands still and waits for every chunk.
    StopAndGo,
}

/// The verdict.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// Latency that it was made from, in ms, and what that is.
    pub latency_ms: f64,
    pub latency_is: &'static str,
    pub action_horizon: usize,
    /// Highest rates for each way of running, in Hz.
    pub fastest_real_time_chunking_hz: f64,
    pub fastest_back_to_back_hz: f64,
    pub rates: Vec<Rate>,
    pub words: Vec<String>,
}

fn mode(delay: u64, horizon: usize) -> Mode {
    // Executing s rows of a chunk must leave the delay d time: d ≤ s ≤ horizon − d.
    match horizon as u64 {
        horizon if 2 * delay <= horizon => Mode::RealTimeChunking,
        horizon if delay <= horizon => Mode::BackToBack,
        _ => Mode::StopAndGo,
    }
}

impl Mode {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Mode::RealTimeChunking => "smooth: real-time chunking",
            Mode::BackToBack => "chunks back to back, no overlap",
            Mode::StopAndGo => "stop and go",
        }
    }
}

impl Verdict {
    /// Judges a latency of `latency_ms` (`latency_is` says which) for chunks of `horizon` actions, at `hz` in words.
    pub fn of(latency_ms: f64, latency_is: &'static str, horizon: usize, hz: f64) -> Self {
        let seconds = latency_ms * 1e-3;
        let delay = |hz: f64| ((seconds * hz).ceil() as u64).max(1);
        let rates = RATES.map(|hz| {
            let inference_delay = delay(f64::from(hz));
            Rate { hz, inference_delay, mode: mode(inference_delay, horizon) }
        });
        let fastest_real_time_chunking_hz = (horizon / 2) as f64 / seconds;
        let fastest_back_to_back_hz = horizon as f64 / seconds;
        let d = delay(hz);
        let (span, rows) = (horizon as f64 / hz, if d == 1 { "row" } else { "rows" });
        let reacts = format!("{seconds:.2} to {:.2} s", 2.0 * d as f64 / hz);
        let words = vec![
            format!(
                "At an action rate of {hz} Hz with {horizon} rows a chunk ({span:.2} s of motion), inference takes \
                 {latency_ms:.1} ms ({latency_is}): {d} {rows}."
            ),
            match mode(d, horizon) {
                Mode::RealTimeChunking => format!(
                    "This robot can run it smoothly: by real-time chunking, with a new chunk every {d} to {} rows. \
                     It reacts to what it sees within {reacts}.",
                    horizon as u64 - d
                ),
                Mode::BackToBack => format!(
                    "This robot can run it without standing still, each chunk nearly to its end, but not smoothly: \
                     the delay does not fit twice into the horizon, so that chunks cannot overlap. It reacts to what \
                     it sees only after {reacts}."
                ),
                Mode::StopAndGo => format!(
                    "This robot would stand still: a chunk lasts {span:.2} s and takes {seconds:.2} s to compute, so \
                     that it waits {:.2} s between chunks.",
                    seconds - span
                ),
            },
            format!(
                "The highest action rate with real-time chunking is {}, and without standing still {}.",
                rate(fastest_real_time_chunking_hz),
                rate(fastest_back_to_back_hz)
            ),
        ];
        Verdict {
            latency_ms,
            latency_is,
            action_horizon: horizon,
            fastest_real_time_chunking_hz,
            fastest_back_to_back_hz,
            rates: rates.to_vec(),
            words,
        }
    }
}

/// Rounded down: a promise.
fn rate(hz: f64) -> String {
    if hz >= 10.0 { format!("{:.0} Hz", hz.floor()) } else { format!("{:.1} Hz", (hz * 10.0).floor() / 10.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modes(latency_ms: f64, horizon: usize) -> Vec<(u32, u64, Mode)> {
        let verdict = Verdict::of(latency_ms, "p99", horizon, 50.0);
        verdict.rates.iter().map(|r| (r.hz, r.inference_delay, r.mode)).collect()
    }

    #[test]
    fn the_delay_must_fit_twice_into_the_horizon() {
        let modes = modes(250.0, 50);
        assert_eq!(modes[0], (10, 3, Mode::RealTimeChunking));
        assert_eq!(modes[4], (50, 13, Mode::RealTimeChunking));
        assert_eq!(modes[5], (100, 25, Mode::RealTimeChunking));
        assert_eq!(modes[6], (200, 50, Mode::BackToBack));
        assert_eq!(modes[7], (500, 125, Mode::StopAndGo));
    }

    #[test]
    fn the_fastest_rates_are_the_last_ones_that_work() {
        let verdict = Verdict::of(250.0, "p99", 50, 50.0);
        assert_eq!(verdict.fastest_real_time_chunking_hz, 100.0);
        assert_eq!(verdict.fastest_back_to_back_hz, 200.0);
        // An odd horizon: half of it, rounded down.
        assert_eq!(Verdict::of(100.0, "p99", 11, 50.0).fastest_real_time_chunking_hz, 50.0);
    }

    #[test]
    fn the_words_say_what_the_robot_can_do() {
        let words = |ms| Verdict::of(ms, "maximum", 50, 50.0).words.join(" ");
        assert!(
            words(100.0).contains("smoothly: by real-time chunking, with a new chunk every 5 to 45 rows")
        );
        assert!(words(600.0).contains("each chunk nearly to its end"), "{}", words(600.0));
        assert!(words(25_000.0).contains("waits 24.00 s between chunks"), "{}", words(25_000.0));
        assert!(words(25_000.0).contains("1.0 Hz, and without standing still 2.0 Hz"), "{}", words(25_000.0));
        assert!(words(0.5).contains("(maximum): 1 row."), "{}", words(0.5));
    }
}
