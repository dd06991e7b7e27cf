//! The timeline against a naive model, and its promises under random everything.

use super::*;

/// The same, the slow way: a list of which ticks were executed.
struct Naive {
    per_row: u64,
    executed: Vec<bool>,
    current: Option<(u64, u64, u64)>,
    position: u64,
    running: bool,
    arrivals: Vec<u64>,
}

impl Naive {
    /// Returns true if the timeline remembers for sure when it stood still since `tick`. Each chunk makes it go and stop once at
    /// the most, and one stop may have come before.
    fn is_remembered(&self, tick: u64) -> bool {
        let chunks = self.arrivals.iter().filter(|arrival| **arrival >= tick).count();
        2 * chunks + 1 < crate::realtime::plan::KNOTS
    }

    /// The tick's (chunk, row), if there is anything.
    fn tick(&mut self, tick: u64, arrival: Option<(u64, u64, u64)>) -> Option<(u64, u64)> {
        self.executed.push(self.running);
        self.position += u64::from(self.running);
        if let Some(chunk) = arrival {
            self.arrivals.push(tick);
            let since = self.executed[chunk.1 as usize + 1..=tick as usize].iter();
            self.position = since.filter(|executed| **executed).count() as u64;
            self.current = Some(chunk);
            self.running = true;
        }
        let (number, _, rows) = self.current?;
        self.running &= self.position < rows * self.per_row;
        Some((number, (self.position / self.per_row).min(rows - 1)))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever chunks come, whenever, and however late: the row executed is the naive model's.
    #[test]
    fn rows_agree_with_a_list_of_executed_ticks(
        per_row in 1u64..5,
        chunks in proptest::collection::vec((1u64..40, 0u64..60, 1u64..30), 1..20),
    ) {
        let control_period = Duration::from_millis(4);
        let mut timeline = timeline(TimelineConfig {
            control_period,
            action_period: control_period * per_row as u32,
            max_age: Duration::from_secs(1000),
            hold_after: Duration::from_secs(1000),
            ..config()
        });
        let mut naive =
            Naive { per_row, executed: vec![], current: None, position: 0, running: false, arrivals: vec![] };
        let (mut tick, mut held, mut newest) = (0u64, none(), 0u64);
        for (number, (gap, delay, rows)) in chunks.into_iter().enumerate() {
            for i in 0..gap {
                let arrival = (i == gap - 1).then(|| {
                    // Captured up to `delay` ticks ago, but never before the one before.
                    newest = newest.max(tick.saturating_sub(delay));
                    (number as u64 + 1, newest, rows)
                });
                if let Some((number, captured, rows)) = arrival {
                    held = chunk(number, captured * 4, rows as usize, 1000.0 * number as f32);
                }
                let want = naive.tick(tick, arrival);
                let (reading, value) = timeline.value_at(tick * 4, &held);
                if !naive.is_remembered(newest) {
                    // What it has forgotten it takes as time at rest: it may begin too early in the plan, never too late.
                    let row = want.map_or(0, |(_, row)| row);
                    prop_assert!(u64::from(reading.row) <= row, "tick {}: {} is beyond {}", tick, reading.row, row);
                    return Ok(());
                }
                match want {
                    None => prop_assert_eq!(reading.status, Status::Empty),
                    Some((number, row)) => {
                        prop_assert_eq!((reading.chunk, u64::from(reading.row)), (number, row), "tick {}", tick);
                        if reading.status == Status::Ok {
                            prop_assert_eq!(value, 1000.0 * number as f32 + row as f32);
                        }
                        prop_assert_eq!(reading.status == Status::Ok, naive.running);
                    }
                }
                tick += 1;
            }
        }
    }

    /// Whatever happens: no step above the limit, no value outside what chunks and reference span, no status that
    /// the age belies, no time going back.
    #[test]
    fn promises_hold_under_random_everything(
        ramp in proptest::option::of(0u64..300),
        flag_only in any::<bool>(),
        linear in any::<bool>(),
        trip_after in 0u32..20,
        splice in proptest::sample::select(Splice::ALL.to_vec()),
        step in 0.01f32..5.0,
        reads in proptest::collection::vec(
            (0u64..60_000_000, proptest::option::weighted(0.15, (0u64..900, 1usize..30, -50f32..50.0)), 0u32..20),
            1..300,
        ),
    ) {
        let mut timeline = timeline(TimelineConfig {
            control_period: Duration::from_millis(10),
            interpolation: if linear { Interpolation::Linear } else { Interpolation::None },
            on_underrun: match (flag_only, ramp) {
                (true, _) => Underrun::FlagOnly,
                (_, Some(ms)) => Underrun::RampToHold(Duration::from_millis(ms)),
                _ => Underrun::HoldLast,
            },
            splice,
            step_limits: Some(vec![step]),
            trip_after,
            ..config()
        });
        timeline.set_reference(&[0.0]);
        let (mut now, mut held, mut value, mut number) = (at(0), none(), 0.0f32, 0);
        let (mut low, mut high, mut newest, mut tick) = (0.0f32, 0.0f32, 0u64, 0);
        for (gap, arrival, odd) in reads {
            now = now.plus(gap);
            if let Some((age_ms, rows, first)) = arrival {
                number += 1;
                newest = newest.max(now.as_nanos() - age_ms * MS);
                held = chunk(number, 0, rows, first);
                held.info.captured = Timestamp::from_nanos(newest);
                low = low.min(first);
                high = high.max(first + (rows - 1) as f32);
            }
            if odd == 0 {
                timeline.clear_trip();
            }
            if odd > 10 {
                timeline.set_state(&[value + odd as f32 - 15.0]);
            }
            let fault = if odd == 1 { Flags::HUNG } else { Flags::empty() };
            let reading = timeline.read(now, &held, fault);
            let next = timeline.action().unwrap()[0];
            prop_assert!((f64::from(next) - f64::from(value)).abs() <= f64::from(step));
            prop_assert!(low <= next && next <= high, "{} left [{}, {}]", next, low, high);
            prop_assert!(reading.tick >= tick);
            prop_assert!(number - reading.chunk <= u64::from(reading.flags.contains(Flags::REPEATED)) * number);
            if reading.status == Status::Ok {
                prop_assert!(reading.age_ns <= 500 * MS && fault.is_empty());
                prop_assert!(!reading.flags.contains(Flags::TRIPPED));
            }
            if reading.status == Status::Stale {
                prop_assert!(reading.age_ns > 500 * MS && reading.age_ns <= 1000 * MS);
            }
            if reading.age_ns > 1000 * MS {
                prop_assert!(matches!(reading.status, Status::Hold | Status::Empty));
            }
            if reading.flags.contains(Flags::TRIPPED) && !reading.flags.contains(Flags::CLAMPED) {
                prop_assert_eq!(next, value, "tripped is held");
            }
            (value, tick) = (next, reading.tick);
        }
    }
}
