//! A thread of its own that reads the machine's sensors ten times a second while others work.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pi0_edge::{Error, ErrorKind, Result};
use pi0_edge_doctor::sensors::{Sample, SensorNames, Sensors};

const PERIOD: Duration = Duration::from_millis(100);

/// The thread.
pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Series>,
}

/// The readings, in the order of time.
#[derive(Debug)]
pub struct Series {
    pub names: SensorNames,
    /// Seconds since the bench began, and what was read then.
    pub rows: Vec<(f64, Sample)>,
}

impl Sampler {
    /// Starts to read the sensors below `root`; times count from `origin`.
    pub fn start(root: &Path, origin: Instant) -> Result<Self> {
        let sensors = Sensors::find(root);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let sample = move || {
            let mut rows = Vec::new();
            let mut next = Instant::now();
            // Relaxed: nothing is handed over by it; joining does that.
            while !stopped.load(Ordering::Relaxed) {
                let at = origin.elapsed().as_secs_f64();
                rows.push((at, sensors.read()));
                // A reading that took longer than a period is followed by the next at once, not by several.
                next = (next + PERIOD).max(Instant::now());
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            Series { names: sensors.names(), rows }
        };
        let failed = |e| Error::with_source(ErrorKind::Io, "cannot start a thread for the sensors", e);
        let thread = std::thread::Builder::new().name("pi0-sensors".into()).spawn(sample).map_err(failed)?;
        Ok(Sampler { stop, thread })
    }

    /// Stops, and returns what was read.
    pub fn stop(self) -> Result<Series> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| Error::new(ErrorKind::Io, "the thread of the sensors panicked"))
    }
}

impl Series {
    /// The readings between two times.
    pub fn between(&self, from: f64, to: f64) -> impl Iterator<Item = &(f64, Sample)> {
        self.rows.iter().filter(move |(at, _)| (from..=to).contains(at))
    }

    /// The mean of a value between two times, and of how many readings.
    pub fn mean(&self, from: f64, to: f64, value: impl Fn(&Sample) -> Option<f64>) -> Option<(f64, usize)> {
        let values: Vec<f64> = self.between(from, to).filter_map(|(_, s)| value(s)).collect();
        (!values.is_empty()).then(|| (values.iter().sum::<f64>() / values.len() as f64, values.len()))
    }

    /// Times that the module was throttled between two times.
    pub fn throttled(&self, from: f64, to: f64) -> Option<u64> {
        let counts: Vec<u64> = self.between(from, to).filter_map(|(_, s)| s.throttled).collect();
        counts.first().zip(counts.last()).map(|(first, last)| last.saturating_sub(*first))
    }
}
