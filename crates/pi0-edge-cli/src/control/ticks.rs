//! The control loop that is measured: wakes up on a fixed schedule, reads, and does nothing else.
//!
//! Every tick has its time on the schedule, whatever became of the one before, so that a tick that comes late counts
//! with all its lateness (no coordinated omission).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pi0_edge::Result;
use pi0_edge::runtime::{Controller, Obtained, Status, ThreadConfig, Timestamp};
use pi0_edge::stats::Histogram;
use pi0_edge_probe::{allocations, page_faults, system_calls, thread_id};

use super::self_check::Known;

/// The loop and its settings.
pub struct Loop {
    pub controller: Controller,
    pub known: Arc<Known>,
    pub subject: system_calls::Subject,
    pub thread: ThreadConfig,
    pub period: Duration,
    pub ticks: u64,
    /// Rows of the wake-up histogram, in microseconds.
    pub histogram: usize,
}

/// The measurements of the loop.
pub struct Ticks {
    pub thread: u32,
    pub obtained: Obtained,
    /// The reason why system calls were not counted, if so.
    pub not_counted: Option<String>,
    pub count: u64,
    pub allocations: u64,
    pub page_faults: u64,
    /// From waking up to having the action.
    pub read: Histogram,
    /// From the tick's time on the schedule to waking up.
    pub wake: Histogram,
    /// From the tick's time on the schedule to having the action.
    pub response: Histogram,
    /// Lateness of the wake-ups, by the microsecond.
    pub wake_us: WakeHistogram,
    pub statuses: [u64; Status::ALL.len()],
    /// Actions compared with the chunk they are said to be of, and those that were not what they were said to be.
    pub checked: u64,
    pub torn: u64,
    /// Ticks whose action came later than the next tick was due.
    pub late: u64,
    /// The chunk of the first tick and of the last.
    chunks: Option<(u64, u64)>,
}

/// Wake-up latencies by the microsecond, as cyclictest counts them.
pub struct WakeHistogram {
    pub rows: Box<[u64]>,
    pub overflows: u64,
    pub last_us: u64,
}

impl WakeHistogram {
    fn new(rows: usize) -> Self {
        let mut rows: Box<[u64]> = vec![0; rows].into();
        // Zeroed memory is not there before it is written to.
        rows.fill(std::hint::black_box(0));
        WakeHistogram { rows, overflows: 0, last_us: 0 }
    }

    fn record(&mut self, nanos: u64) {
        self.last_us = nanos / 1000;
        match self.rows.get_mut(self.last_us as usize) {
            Some(row) => *row += 1,
            None => self.overflows += 1,
        }
    }
}

impl Ticks {
    fn new(thread: u32, obtained: Obtained, rows: usize) -> Self {
        Ticks {
            thread,
            obtained,
            not_counted: None,
            count: 0,
            allocations: 0,
            page_faults: 0,
            read: Histogram::new(),
            wake: Histogram::new(),
            response: Histogram::new(),
            wake_us: WakeHistogram::new(rows),
            statuses: [0; Status::ALL.len()],
            checked: 0,
            torn: 0,
            late: 0,
            chunks: None,
        }
    }

    /// Returns true if any action came from a chunk.
    pub fn followed(&self) -> bool {
        self.statuses[Status::Ok as usize] + self.statuses[Status::Stale as usize] > 0
    }

    /// Counts the chunks between the first tick and the last.
    pub fn chunks_published(&self) -> u64 {
        self.chunks.map_or(0, |(first, last)| last - first)
    }
}

impl Loop {
    /// Waits for the first chunk, then ticks. None if it is `over` before the first chunk came.
    pub fn run(mut self, over: &AtomicBool) -> Result<Option<Ticks>> {
        let obtained = self.thread.apply()?;
        let thread = thread_id();
        let period = self.period.as_nanos() as u64;
        // Whatever the loop will touch is touched here.
        let mut warm_up = Ticks::new(thread, obtained.clone(), self.histogram);
        // Not until it is followed: one that took longer than the age at which actions are held never is, and that is to be
        // measured too.
        let unheeded = AtomicBool::new(false);
        while self.run_ticks(&mut warm_up, period, 10, &unheeded) == 0 {
            // Relaxed: nothing is handed over by it.
            if over.load(Ordering::Relaxed) {
                return Ok(None);
            }
        }
        self.run_ticks(&mut warm_up, period, 200, over);

        let mut ticks = Ticks::new(thread, obtained, self.histogram);
        ticks.not_counted = self.subject.install().err().map(|e| e.to_string());
        let (faults, allocated) = (page_faults(), allocations::on_this_thread());
        self.subject.start();
        self.run_ticks(&mut ticks, period, self.ticks, over);
        self.subject.stop();
        ticks.allocations = allocations::on_this_thread() - allocated;
        ticks.page_faults = page_faults() - faults;
        Ok(Some(ticks))
    }

    /// Ticks `count` times from now on, `period` nanoseconds apart, or until it is `over`. The chunk that was there at the last, 0 if none was.
    fn run_ticks(&mut self, ticks: &mut Ticks, period: u64, count: u64, over: &AtomicBool) -> u64 {
        let start = Timestamp::now();
        let mut last = 0;
        for tick in 1..=count {
            if over.load(Ordering::Relaxed) {
                break;
            }
            let due = start.plus(tick * period);
            due.sleep_until();
            let awake = Timestamp::now();
            let reading = self.controller.read();
            let done = Timestamp::now();

            ticks.count += 1;
            ticks.wake.record(awake.since(due));
            ticks.wake_us.record(awake.since(due));
            ticks.read.record(done.since(awake));
            ticks.response.record(done.since(due));
            ticks.late += u64::from(done.since(due) > period);
            ticks.statuses[reading.status as usize] += 1;
            // In HOLD the action may be on its way to rest, and before the first chunk there is none.
            if matches!(reading.status, Status::Ok | Status::Stale) {
                let action = self.controller.action().unwrap_or_default();
                if let Some(same) = self.known.is(action, reading.chunk, reading.row as usize) {
                    ticks.checked += 1;
                    ticks.torn += u64::from(!same);
                }
            }
            ticks.chunks.get_or_insert((reading.chunk, 0)).1 = reading.chunk;
            last = reading.chunk;
        }
        last
    }
}
