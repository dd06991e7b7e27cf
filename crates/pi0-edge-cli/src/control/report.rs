//! The output of `bench control`.

use std::fmt::Write;

use pi0_edge::runtime::{Obtained, Status};
use pi0_edge::stats::{Histogram, Summary};
use serde_json::{Value, json};

use super::ticks::{Ticks, WakeHistogram};
use super::{Args, Measured};
use crate::table::Table;
use crate::{environment, row};

/// Everything there is to say.
pub struct Report {
    pub args: Args,
    pub ticks: Ticks,
    pub measured: Measured,
    pub environment: Value,
}

fn latencies(histogram: &Histogram) -> Value {
    let s = histogram.snapshot().summary();
    json!({"p50": s.p50, "p99": s.p99, "p99_9": s.p99_9, "p99_99": s.p99_99, "max": s.max})
}

impl Report {
    /// System calls that waited for a lock, and others; none if they were not counted.
    fn calls(&self) -> Option<(u64, u64)> {
        let calls = self.measured.calls.as_ref().ok()?;
        let sum = |locks| calls.iter().filter(|c| c.is_lock() == locks).map(|c| c.times).sum();
        Some((sum(true), sum(false)))
    }

    /// Promises about a read that were seen to be broken.
    pub fn broken_promises(&self) -> Vec<String> {
        let ticks = &self.ticks;
        let (locks, others) = self.calls().unwrap_or_default();
        let counts = [
            (ticks.torn, "torn reads"),
            (ticks.allocations, "allocations"),
            (locks, "waits for a lock"),
            (others, "system calls"),
        ];
        counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect()
    }

    pub fn json(&self) -> Value {
        let (ticks, measured) = (&self.ticks, &self.measured);
        let statuses: serde_json::Map<_, _> = Status::ALL
            .iter()
            .zip(ticks.statuses)
            .map(|(status, n)| (status.as_str().to_lowercase(), json!(n)))
            .collect();
        let filled = ticks.wake_us.rows.iter().enumerate().filter(|(_, n)| **n > 0);
        let calls = self.calls();
        json!({
            "reads": ticks.count,
            "read_ns": latencies(&ticks.read),
            "wake_ns": latencies(&ticks.wake),
            "response_ns": latencies(&ticks.response),
            "allocations": ticks.allocations,
            "syscalls": calls.map(|(locks, others)| locks + others),
            "lock_waits": calls.map(|(locks, _)| locks),
            "page_faults": ticks.page_faults,
            "torn": ticks.torn,
            "checked": ticks.checked,
            "late": ticks.late,
            "statuses": statuses,
            "realtime": {"control": ticks.obtained, "inference": measured.inference},
            "wake_histogram_us": filled.map(|(us, n)| (us.to_string(), json!(n))).collect::<serde_json::Map<_, _>>(),
            "wake_histogram_overflows": ticks.wake_us.overflows,
            "rate_hz": self.args.rate,
            "duration_s": self.args.duration,
            "load": measured.load,
            "chunks": measured.published,
            "chunk_ns": measured.chunks,
            "environment": self.environment,
        })
    }

    pub fn text(&self) -> String {
        let (args, ticks, measured) = (&self.args, &self.ticks, &self.measured);
        let mut out = format!(
            "{}: control rate {} Hz for {} s against a live runtime",
            args.policy.bundle.display(),
            args.rate,
            args.duration
        );
        // Writing to a string cannot fail, here and below.
        _ = match &measured.load {
            None => writeln!(out, ", no load beside it"),
            Some(load) => writeln!(
                out,
                "; beside it {} threads computing, {:.1} GB/s copied, {:.0} MB/s to the disk",
                load.cpu_threads, load.memory_gb_s, load.disk_mb_s
            ),
        };
        out += &self.cyclictest_line();
        let rows = [("read", &ticks.read), ("wake", &ticks.wake), ("response", &ticks.response)];
        let rows = rows.map(|(name, histogram)| {
            let s = histogram.snapshot().summary();
            let cell = |v: Option<u64>| v.map_or("-".into(), |v| v.to_string());
            let [p50, p99, p99_9, p99_99, max] = [s.p50, s.p99, s.p99_9, s.p99_99, s.max].map(cell);
            row![name, s.count, p50, p99, p99_9, p99_99, max]
        });
        let table = Table::new(&["ns", "n", "p50", "p99", "p99.9", "p99.99", "max"]).rows(rows);
        _ = writeln!(out, "\n{}", table.text(&[8, 8, 11, 11, 11, 11, 11]).trim_end_matches('\n'));
        out += "read: from waking up to having the action, reading the clock included. wake: from the time on the\n\
                schedule to waking up. response: both. A percentile with fewer than ten values beyond it is not shown.\n\n";
        out += &self.costs();
        let takes = milliseconds(&measured.chunks);
        _ = writeln!(out, "chunks: {} followed, one takes {takes}", measured.published);
        out += &thread_line("control", &ticks.obtained);
        out += &thread_line("inference", &measured.inference);
        out += &self.verdict();
        if args.histogram.is_some() {
            out.push('\n');
            out += &histogram_text(&ticks.wake_us, &ticks.wake.snapshot().summary());
        }
        out + "\n" + &environment::lines(&self.environment, "")
    }

    /// The line that cyclictest prints of a thread, in microseconds.
    pub fn cyclictest_line(&self) -> String {
        let s = self.ticks.wake.snapshot().summary();
        let us = |ns: Option<u64>| ns.unwrap_or_default() / 1000;
        format!(
            "T: 0 ({:5}) P:{:2} I:{} C:{:7} Min:{:7} Act:{:5} Avg:{:5} Max:{:8}\n",
            self.ticks.thread,
            self.ticks.obtained.priority,
            self.args.period().as_micros(),
            self.ticks.count,
            us(s.min),
            self.ticks.wake_us.last_us,
            s.mean.unwrap_or_default() as u64 / 1000,
            us(s.max),
        )
    }

    /// Describes what the control thread did beside reading and sleeping.
    fn costs(&self) -> String {
        let ticks = &self.ticks;
        let calls = match &self.measured.calls {
            Ok(calls) => {
                let (locks, others) = self.calls().unwrap_or_default();
                let numbers = calls.iter().map(|c| format!(" ({} times number {})", c.times, c.number));
                format!("{others} system calls, {locks} waits for a lock{}", numbers.collect::<String>())
            }
            Err(why) => format!("system calls not counted ({why})"),
        };
        let statuses: Vec<_> =
            Status::ALL.iter().zip(ticks.statuses).map(|(s, n)| format!("{} {n}", s.as_str())).collect();
        format!(
            "control thread: {} allocations, {calls}, {} page faults; its {} sleeps are not among the calls\n\
             reads: {}; {} torn of {} compared with the row of the chunk they name; {} later than the next tick\n",
            ticks.allocations,
            ticks.page_faults,
            ticks.count,
            statuses.join(", "),
            ticks.torn,
            ticks.checked,
            ticks.late,
        )
    }

    fn verdict(&self) -> String {
        let broken = self.broken_promises();
        let read = match broken.is_empty() {
            true => "reading kept its promises".to_owned(),
            false => format!("READING BROKE ITS PROMISES: {}", broken.join(", ")),
        };
        let machine = match self.ticks.late {
            0 => format!("this machine kept a control rate of {} Hz", self.args.rate),
            n => format!(
                "THIS MACHINE DID NOT KEEP A CONTROL RATE OF {} Hz: {n} actions were late",
                self.args.rate
            ),
        };
        let not_followed = self.not_followed().map(|words| words + "\n").unwrap_or_default();
        format!("{read}; {machine}\n{not_followed}")
    }

    /// In words, if no action came from a chunk.
    pub fn not_followed(&self) -> Option<String> {
        let hold_after = self.args.runtime().timeline.hold_after.as_secs_f64();
        (!self.ticks.followed()).then(|| {
            format!(
                "No chunk was followed: one takes {}, and actions older than {hold_after} s are held.",
                milliseconds(&self.measured.chunks)
            )
        })
    }
}

fn milliseconds(chunks: &Summary) -> String {
    let ms = |ns: f64| format!("{:.3} ms", ns / 1e6);
    match (chunks.p50, chunks.mean) {
        (Some(median), _) => format!("{} (median)", ms(median as f64)),
        (None, Some(mean)) => format!("{} (mean)", ms(mean)),
        (None, None) => "an unknown time".into(),
    }
}

fn thread_line(name: &str, got: &Obtained) -> String {
    let cpus: Vec<_> = got.cpus.iter().map(usize::to_string).collect();
    let mut out = format!(
        "{name} thread: {} {}, CPUs {}, {} MiB locked\n",
        got.scheduler,
        got.priority,
        cpus.join(","),
        got.locked_kib >> 10
    );
    for missing in &got.missing {
        _ = writeln!(out, "  not obtained: {}: {}", missing.what, missing.why);
    }
    out
}

/// The histogram as cyclictest prints it for one thread, for the scripts that draw it.
fn histogram_text(wake: &WakeHistogram, s: &Summary) -> String {
    let mut out = "# Histogram\n".to_owned();
    for (us, n) in wake.rows.iter().enumerate() {
        _ = writeln!(out, "{us:06} {n:06}");
    }
    _ = writeln!(out, "# Total: {:09}", wake.rows.iter().sum::<u64>());
    for (name, ns) in [("Min", s.min), ("Avg", s.mean.map(|mean| mean as u64)), ("Max", s.max)] {
        _ = writeln!(out, "# {name} Latencies: {:05}", ns.unwrap_or_default() / 1000);
    }
    _ = writeln!(out, "# Histogram Overflows: {:05}", wake.overflows);
    out
}
