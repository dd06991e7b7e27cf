//! A control loop of high priority on the same CPU as a writer of low priority that it keeps interrupting: what a
//! read costs through our cell, and through a bounded crossbeam channel.
//!
//! Ignored by default: it needs root and takes a CPU for itself for `PI0_PREEMPTION_SECONDS` (default 5) a subject.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pi0_edge::internals::cell::cell;
use pi0_edge::runtime::{MemoryLock, Realtime, ThreadConfig, Timestamp};
use pi0_edge::stats::{Histogram, HistogramSnapshot};

type Payload = [u64; 16];

fn pinned(cpu: usize, priority: Option<i32>) -> ThreadConfig {
    ThreadConfig {
        realtime: Realtime::Enforce,
        priority,
        cpus: vec![cpu],
        worker_cpus: vec![],
        lock_memory: MemoryLock::Off,
        prefault_stack: 64 << 10,
        keep_heap: false,
    }
}

/// Runs `write` for ever at the lowest priority and `read` at SCHED_FIFO 90 at random moments, both on one CPU.
/// Returns how long the reads took.
fn contend(
    seconds: u64,
    mut write: impl FnMut(u64) + Send,
    mut read: impl FnMut() -> u64 + Send,
) -> HistogramSnapshot {
    let cpu = *ThreadConfig::off().apply().unwrap().cpus.last().unwrap();
    let (stop, started) = (AtomicBool::new(false), AtomicBool::new(false));
    let histogram = Histogram::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pinned(cpu, None).apply().unwrap();
            // SAFETY: no preconditions.
            unsafe { libc::nice(19) };
            let mut i = 0;
            while !stop.load(Ordering::Relaxed) {
                i += 1;
                write(i);
                started.store(true, Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            while !started.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            pinned(cpu, Some(90)).apply().unwrap();
            let (mut random, mut last) = (1u64, 0);
            let end = Timestamp::now() + Duration::from_secs(seconds);
            while Timestamp::now() < end {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // 50 to 200 µs apart, so that the writer is interrupted anywhere.
                Timestamp::now().plus(50_000 + (random >> 33) % 150_000).sleep_until();
                let before = Timestamp::now();
                let value = read();
                histogram.record(Timestamp::now().since(before));
                assert!(value == 0 || value >= last, "{value} after {last}");
                last = last.max(value);
            }
            stop.store(true, Ordering::Relaxed);
        });
    });
    histogram.snapshot()
}

fn whole(value: &Payload) -> u64 {
    assert!(value.iter().all(|v| *v == value[0]), "torn: {value:?}");
    value[0]
}

#[test]
#[ignore = "needs root and a CPU of its own for a while; scripts/realtime_checks.sh runs it"]
fn a_preempted_writer_does_not_hold_up_the_reader() {
    let _alone = crate::alone();
    let seconds = std::env::var("PI0_PREEMPTION_SECONDS").ok().and_then(|v| v.parse().ok()).unwrap_or(5);
    let (mut writer, mut reader) = cell(|| [0u64; 16]);
    let ours = contend(
        seconds,
        move |i| {
            writer.slot().fill(i);
            writer.publish();
        },
        move || {
            reader.update();
            whole(reader.get())
        },
    );
    // The same with a channel: the latest value wins by taking the oldest out when there is no room.
    let (sender, receiver) = crossbeam_channel::bounded::<Payload>(2);
    let oldest = receiver.clone();
    let theirs = contend(
        seconds,
        move |i| {
            if let Err(full) = sender.try_send([i; 16]) {
                _ = oldest.try_recv();
                _ = sender.try_send(full.into_inner());
            }
        },
        move || receiver.try_recv().map_or(0, |value| whole(&value)),
    );
    let (our_worst, their_worst) = (ours.max().unwrap(), theirs.max().unwrap());
    let stalls =
        |h: &HistogramSnapshot| h.buckets().filter(|(ns, _)| *ns > 10_000_000).map(|(_, n)| n).sum::<u64>();
    for (name, h) in [("cell", &ours), ("crossbeam-channel", &theirs)] {
        let s = h.summary();
        println!(
            "{name}: {} reads, p50 {:?} ns, p99 {:?} ns, p99.9 {:?} ns, worst {} ns, {} above 10 ms",
            s.count,
            s.p50,
            s.p99,
            s.p99_9,
            s.max.unwrap_or(0),
            stalls(h),
        );
    }
    assert_eq!(stalls(&ours), 0, "worst read {our_worst} ns");
    if stalls(&theirs) > 0 {
        assert!(our_worst * 10 < their_worst);
    } else {
        println!(
            "the channel did not stall this time: its writer was never interrupted between claim and stamp"
        );
    }
}
