//! Inference that freezes on its real thread at random moments: when the control loop is told.
//!
//! `PI0_FREEZES` sets how often (default 40; the published figure is for a thousand).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::fake::{Behaviour, Fake};
use pi0_edge::runtime::{
    Flags, Replan, Runtime, RuntimeConfig, Status, ThreadConfig, TimelineConfig, Timestamp,
};
use pi0_edge::stats::Histogram;

const MS: u64 = 1_000_000;
const TICK: u64 = MS;
const MAX_AGE: u64 = 25 * MS;
const HOLD_AFTER: u64 = 45 * MS;

/// Steps of half a millisecond, none of which ends while it is frozen.
struct Freezing(Arc<AtomicBool>);

impl Behaviour for Freezing {
    fn step(&mut self) {
        std::thread::sleep(Duration::from_micros(500));
        while self.0.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    fn value(&self) -> f32 {
        0.5
    }
}

/// Every read of every freeze has the status that its age demands: OK up to `max_age`, STALE from the first tick past
/// it, HOLD from the first past `hold_after`, and OK again once inference goes on.
#[test]
fn every_freeze_is_told_on_the_first_tick_past_the_limit() {
    let _alone = crate::alone();
    let freezes: u64 = std::env::var("PI0_FREEZES").ok().and_then(|v| v.parse().ok()).unwrap_or(40);
    let frozen = Arc::new(AtomicBool::new(false));
    let nanos = Duration::from_nanos;
    let config = RuntimeConfig {
        timeline: TimelineConfig {
            control_period: nanos(TICK),
            max_age: nanos(MAX_AGE),
            hold_after: nanos(HOLD_AFTER),
            ..TimelineConfig::default()
        },
        replan: Replan::Period(Duration::ZERO),
        // Age alone is looked at here.
        watchdog: Duration::from_secs(3600),
        thread: ThreadConfig::off(),
        ..RuntimeConfig::default()
    };
    let inference = Fake { rows: 50, dim: 7, num_steps: 4, behaviour: Freezing(Arc::clone(&frozen)) };
    let (runtime, mut sensors, mut controller) = Runtime::start(inference, &config).unwrap();
    let (told_stale, told_hold) = (Histogram::new(), Histogram::new());
    let (mut random, mut reads) = (1u64, 0u64);
    let mut next = Timestamp::now();
    let mut tick = || {
        next = next.plus(TICK);
        next.sleep_until();
        _ = sensors.publish(Timestamp::now());
        let now = Timestamp::now();
        (now, controller.read_at(now))
    };
    for freeze in 0..freezes {
        while tick().1.status != Status::Ok {}
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // At any moment of a chunk, and of a tick.
        std::thread::sleep(nanos((random >> 33) % (4 * MS)));
        frozen.store(true, Ordering::Release);
        let mut before = Status::Ok;
        while before != Status::Hold {
            let (_, reading) = tick();
            reads += 1;
            let (want, limit, told) = match reading.age_ns {
                ..=MAX_AGE => (Status::Ok, 0, None),
                age if age <= HOLD_AFTER => (Status::Stale, MAX_AGE, Some(&told_stale)),
                _ => (Status::Hold, HOLD_AFTER, Some(&told_hold)),
            };
            assert_eq!(reading.status, want, "freeze {freeze}: {reading:?}");
            assert!(!reading.flags.contains(Flags::STOPPED | Flags::HUNG));
            if let Some(told) = told.filter(|_| before != want) {
                told.record(reading.age_ns - limit);
            }
            before = want;
        }
        frozen.store(false, Ordering::Release);
    }
    for (status, told) in [("STALE", &told_stale), ("HOLD", &told_hold)] {
        let s = told.snapshot().summary();
        println!(
            "{status}: told {} times of {freezes} on the first tick past the limit; past it by p50 {:?} ns, \
             p99 {:?} ns, at most {:?} ns, the machine's own lateness included (a tick is {TICK} ns)",
            s.count, s.p50, s.p99, s.max
        );
    }
    println!("{reads} reads while frozen, every one with the status of its age");
    assert_eq!(told_hold.snapshot().count(), freezes);
    runtime.stop().unwrap();
}
