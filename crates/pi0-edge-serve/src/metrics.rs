//! Figures of a server, for a line now and then.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use pi0_edge::stats::Histogram;

/// Counts since the start. Counters are relaxed throughout: they order nothing.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Connections that have a thread now, those that are being opened included.
    pub(crate) connections: AtomicUsize,
    /// Clients served now.
    pub(crate) clients: AtomicUsize,
    refused: AtomicU64,
    dropped: AtomicU64,
    /// Written by the inference thread alone.
    infer: Histogram,
    queue: Histogram,
}

impl Metrics {
    /// Counts a chunk. Thread: inference.
    pub(crate) fn computed(&self, queue: Duration, infer: Duration) {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.queue.record(nanos(queue));
        self.infer.record(nanos(infer));
    }

    /// Counts a message that was answered with an error.
    pub(crate) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a client that was dropped for what it did or did not do.
    pub(crate) fn drop_client(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (infer, queue) = (self.infer.snapshot(), self.queue.snapshot());
        write!(
            f,
            "{} clients, {} chunks, {} requests refused, {} clients dropped",
            self.clients.load(Ordering::Relaxed),
            infer.count(),
            count(&self.refused),
            count(&self.dropped),
        )?;
        for (name, times) in [("infer", infer), ("queue", queue)] {
            let percentile = |p: f64| times.percentile(p).map(|ns| format!(", p{p} {:.3}", ns as f64 / 1e6));
            if let (Some(mean), Some(max)) = (times.mean(), times.max()) {
                let percentiles: String = [50.0, 99.0].into_iter().filter_map(percentile).collect();
                write!(f, "; {name} ms: mean {:.3}{percentiles}, max {:.3}", mean / 1e6, max as f64 / 1e6)?;
            }
        }
        Ok(())
    }
}
