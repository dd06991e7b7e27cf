//! The timeline over simulated time, by scenario. `properties` has the naive model and random everything.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::ErrorKind;
use crate::realtime::splice::Splice;

#[path = "timeline_properties.rs"]
mod properties;

const MS: u64 = 1_000_000;
/// The tests' time zero, in ms: late enough for observations before it.
const ZERO: u64 = 1_000_000;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_nanos((ZERO + ms) * MS)
}

/// A chunk of one joint whose row i is `first + i`, answering an observation captured at `captured_ms`.
fn chunk(number: u64, captured_ms: u64, rows: usize, first: f32) -> StampedChunk {
    let mut chunk = StampedChunk::new(rows, 1);
    chunk.actions.as_mut_slice().iter_mut().enumerate().for_each(|(i, v)| *v = first + i as f32);
    chunk.info = ChunkInfo { number, captured: at(captured_ms), ..ChunkInfo::default() };
    chunk
}

fn none() -> StampedChunk {
    StampedChunk::new(1, 1)
}

/// Control and actions at the same rate: 20 ms.
fn config() -> TimelineConfig {
    TimelineConfig {
        control_period: Duration::from_millis(20),
        action_period: Duration::from_millis(20),
        interpolation: Interpolation::None,
        splice: Splice::Time,
        max_age: Duration::from_millis(500),
        hold_after: Duration::from_secs(1),
        ..TimelineConfig::default()
    }
}

fn timeline(config: TimelineConfig) -> Timeline {
    Timeline::new(&config, 1).unwrap()
}

impl Timeline {
    /// One read, and the action's one value.
    fn value_at(&mut self, ms: u64, chunk: &StampedChunk) -> (Reading, f32) {
        let reading = self.read(at(ms), chunk, Flags::empty());
        (reading, self.action().map_or(f32::NAN, |a| a[0]))
    }
}

#[test]
fn before_the_first_chunk_there_is_no_action() {
    let mut timeline = timeline(config());
    let reading = timeline.read(at(0), &none(), Flags::empty());
    assert_eq!((reading.status, reading.chunk, reading.age_ns), (Status::Empty, 0, 0));
    assert_eq!(timeline.action(), None);
    assert!(!timeline.set_reference(&[1.0, 2.0]), "one value too many");
    assert!(!timeline.set_reference(&[f32::NAN]));
    assert!(timeline.set_reference(&[7.0]));
    let reading = timeline.read(at(20), &none(), Flags::STOPPED);
    assert_eq!((reading.status, reading.flags), (Status::Empty, Flags::STOPPED));
    assert_eq!(timeline.action(), Some(&[7.0][..]), "the reference, for want of better");
}

#[test]
fn one_row_a_tick_at_the_policys_own_rate() {
    let mut timeline = timeline(config());
    let chunk = chunk(1, 0, 10, 100.0);
    for tick in 0..10 {
        let (reading, value) = timeline.value_at(tick * 20, &chunk);
        assert_eq!(value, 100.0 + tick as f32);
        let expected = (Status::Ok, 1, tick, tick as u32, 9 - tick as u32, tick * 20 * MS);
        let got =
            (reading.status, reading.chunk, reading.tick, reading.row, reading.remaining, reading.age_ns);
        assert_eq!(got, expected);
        assert_eq!(reading.flags.contains(Flags::NEW_CHUNK), tick == 0);
    }
}

#[test]
fn a_fast_loop_repeats_or_interpolates_the_rows() {
    for (interpolation, want) in [
        (Interpolation::None, [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]),
        (Interpolation::Linear, [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.0, 2.0, 2.0]),
    ] {
        let mut timeline =
            timeline(TimelineConfig { control_period: Duration::from_millis(5), interpolation, ..config() });
        let chunk = chunk(1, 0, 3, 0.0);
        let got: Vec<f32> = (0..12).map(|i| timeline.value_at(i * 5, &chunk).1).collect();
        assert_eq!(got, want, "{interpolation:?}");
    }
}

#[test]
fn a_new_chunk_begins_at_the_row_for_the_time_since_its_observation() {
    let mut timeline = timeline(config());
    let (first, second) = (chunk(1, 0, 20, 100.0), chunk(2, 200, 20, 500.0));
    (0..13).for_each(|tick| _ = timeline.value_at(tick * 20, &first));
    // Observed at 200 ms, ready at 260 ms: three actions were executed meanwhile.
    let (reading, value) = timeline.value_at(260, &second);
    assert_eq!((value, reading.chunk, reading.row, reading.age_ns), (503.0, 2, 3, 60 * MS));
    assert!(reading.flags.contains(Flags::NEW_CHUNK));
    assert_eq!(reading.seam_jump, 503.0 - 112.0);
    let (reading, value) = timeline.value_at(280, &second);
    assert_eq!((value, reading.seam_jump), (504.0, 0.0));
}

/// lerobot#4223: 30 Hz, 30 rows, 0.7 s for the first inference. lerobot skipped the 21 rows that the time stood for,
/// and sent an arm at rest to a place 0.7 s into the movement. Nothing was executed, so nothing is skipped.
#[test]
fn lerobot_4223_the_first_chunk_begins_at_its_first_row() {
    let period = Duration::from_nanos(33_333_333);
    let hold_after = Duration::from_secs(10);
    let mut timeline =
        timeline(TimelineConfig { control_period: period, action_period: period, hold_after, ..config() });
    let first = chunk(1, 0, 30, 0.0);
    let tick = |i: u64| at(0).plus(i * 33_333_333);
    (0..21).for_each(|i| assert_eq!(timeline.read(tick(i), &none(), Flags::empty()).status, Status::Empty));
    let reading = timeline.read(tick(21), &first, Flags::empty());
    assert_eq!((reading.row, timeline.action()), (0, Some(&[0.0][..])));
    // Steady state: what is skipped is what was executed, to the row.
    let second = chunk(2, 23 * 100 / 3, 30, 1000.0);
    (22..32).for_each(|i| _ = timeline.read(tick(i), &first, Flags::empty()));
    assert_eq!(timeline.read(tick(32), &second, Flags::empty()).row, 9);
}

/// lerobot#4454: where the plan ran out during inference, only what was executed before that may be skipped.
#[test]
fn lerobot_4454_an_underrun_during_inference_does_not_skip_rows() {
    let mut timeline = timeline(config());
    let (first, second) = (chunk(1, 0, 10, 0.0), chunk(2, 160, 10, 100.0));
    for tick in 0..20 {
        let (reading, value) = timeline.value_at(tick * 20, &first);
        assert_eq!(value, tick.min(9) as f32);
        assert_eq!(reading.flags.contains(Flags::UNDERRUN), tick >= 10, "tick {tick}");
        assert_eq!(reading.status, if tick < 10 { Status::Ok } else { Status::Hold });
    }
    // Observed at tick 8; ticks 8 and 9 were executed, then the arm stood still until tick 20.
    let (reading, value) = timeline.value_at(400, &second);
    assert_eq!((reading.row, value, reading.status), (2, 102.0, Status::Ok));
}

#[test]
fn a_chunk_that_comes_after_its_own_end_is_an_underrun_at_once() {
    let mut timeline = timeline(config());
    let (long, late) = (chunk(1, 0, 50, 0.0), chunk(2, 20, 3, 900.0));
    (0..10).for_each(|tick| _ = timeline.value_at(tick * 20, &long));
    let (reading, value) = timeline.value_at(200, &late);
    assert_eq!((reading.status, value), (Status::Hold, 9.0), "held where it was");
    assert!(reading.flags.contains(Flags::UNDERRUN | Flags::NEW_CHUNK));
    // The next one joins where the robot really is: ticks up to 10 were executed.
    let (reading, value) = timeline.value_at(220, &chunk(3, 180, 50, 0.0));
    assert_eq!((reading.status, value), (Status::Ok, 1.0));
}

/// 1 000 freezes at random moments: STALE on the first tick past `max_age` and not before, HOLD likewise.
#[test]
fn staleness_is_flagged_within_one_tick_of_the_limit() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(1000));
    let strategy = (1u64..40, 1u64..20_000_000, 100u64..600, 0u64..600, any::<bool>());
    runner
        .run(&strategy, |(control_ms, phase_ns, max_age, more, ramp)| {
            let limits = (max_age * MS, (max_age + more) * MS);
            let mut timeline = timeline(TimelineConfig {
                control_period: Duration::from_millis(control_ms),
                max_age: Duration::from_nanos(limits.0),
                hold_after: Duration::from_nanos(limits.1),
                on_underrun: if ramp {
                    Underrun::RampToHold(Duration::from_millis(100))
                } else {
                    Underrun::HoldLast
                },
                ..config()
            });
            // A chunk long enough not to run out; the inference is frozen after it.
            let only = chunk(1, 0, 1000, 0.0);
            let mut held = None;
            for tick in 0..=(max_age + more) / control_ms + 5 {
                let age = phase_ns + tick * control_ms * MS;
                let reading = timeline.read(at(0).plus(age), &only, Flags::empty());
                let want = match age {
                    age if age > limits.1 => Status::Hold,
                    age if age > limits.0 => Status::Stale,
                    _ => Status::Ok,
                };
                prop_assert_eq!((reading.status, reading.age_ns), (want, age));
                let value = timeline.action().unwrap()[0];
                if want == Status::Hold && !reading.flags.contains(Flags::RAMPING) {
                    prop_assert_eq!(*held.get_or_insert(value), value, "held means held");
                }
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_ramp_comes_to_rest_on_the_last_row_without_a_step_in_pace() {
    let mut timeline = timeline(TimelineConfig {
        control_period: Duration::from_millis(1),
        interpolation: Interpolation::Linear,
        on_underrun: Underrun::RampToHold(Duration::from_millis(100)),
        ..config()
    });
    let only = chunk(1, 0, 11, 0.0);
    let mut values = vec![];
    for ms in 0..400 {
        let (reading, value) = timeline.value_at(ms, &only);
        values.push(value);
        // The last row is due at 200 ms; slowing down begins 50 ms before and takes 100 ms.
        assert_eq!(reading.flags.contains(Flags::RAMPING), (150..250).contains(&ms), "{ms} ms");
        assert_eq!(reading.status, if ms < 150 { Status::Ok } else { Status::Hold });
    }
    let steps: Vec<f32> = values.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(steps[..149].iter().all(|s| (s - 0.05).abs() < 1e-4), "full pace");
    assert!(steps[149..].windows(2).all(|w| w[1] <= w[0] + 1e-4), "slower and slower");
    assert!(steps.windows(2).all(|w| (w[0] - w[1]).abs() < 0.002), "never abruptly");
    assert_eq!(values[399], 10.0, "on the last row");
}

#[test]
fn flag_only_follows_the_plan_to_its_end() {
    let mut timeline = timeline(TimelineConfig {
        on_underrun: Underrun::FlagOnly,
        max_age: Duration::from_millis(100),
        hold_after: Duration::from_millis(200),
        ..config()
    });
    let only = chunk(1, 0, 15, 0.0);
    for tick in 0..30u64 {
        let (reading, value) = timeline.value_at(tick * 20, &only);
        assert_eq!(value, tick.min(14) as f32);
        let want = [Status::Ok, Status::Stale, Status::Hold][usize::from(tick > 5) + usize::from(tick > 10)];
        assert_eq!(reading.status, want, "tick {tick}");
        assert_eq!(reading.flags.contains(Flags::UNDERRUN), tick >= 15);
    }
}

#[test]
fn a_fault_from_outside_holds_until_it_is_gone() {
    let mut timeline = timeline(config());
    let only = chunk(1, 0, 50, 0.0);
    timeline.value_at(0, &only);
    timeline.value_at(20, &only);
    for tick in 2..5 {
        let reading = timeline.read(at(tick * 20), &only, Flags::HUNG);
        assert_eq!((reading.status, reading.flags), (Status::Hold, Flags::HUNG));
        assert_eq!(timeline.action(), Some(&[1.0][..]));
    }
    // Repeated reads follow the fault at once, without moving.
    assert_eq!(timeline.read(at(80), &only, Flags::empty()).flags, Flags::REPEATED);
    assert_eq!(timeline.value_at(100, &only).1, 2.0, "from where it stood");
}

#[test]
fn the_step_limit_bounds_the_seam_and_the_first_step() {
    let limits = Some(vec![2.0]);
    let mut timeline = timeline(TimelineConfig { step_limits: limits, trip_after: 50, ..config() });
    timeline.set_reference(&[-5.0]);
    let first = chunk(1, 0, 50, 0.0);
    let got: Vec<f32> = (0..6).map(|tick| timeline.value_at(tick * 20, &first).1).collect();
    assert_eq!(got, [-3.0, -1.0, 1.0, 3.0, 4.0, 5.0], "catching up with 0, 1, 2, 3, 4, 5");
    let (reading, value) = timeline.value_at(120, &chunk(2, 100, 50, 100.0));
    assert_eq!((value, reading.seam_jump), (7.0, 96.0));
    assert!(reading.flags.contains(Flags::CLAMPED));
}

#[test]
fn too_many_limited_steps_in_a_row_trip_to_hold_until_cleared() {
    let limits = Some(vec![2.0]);
    let mut timeline = timeline(TimelineConfig { step_limits: limits, trip_after: 3, ..config() });
    timeline.value_at(0, &chunk(1, 0, 50, 0.0));
    let far = chunk(2, 0, 50, 1000.0);
    let statuses: Vec<Status> = (1..5).map(|tick| timeline.value_at(tick * 20, &far).0.status).collect();
    assert_eq!(statuses, [Status::Ok, Status::Ok, Status::Hold, Status::Hold]);
    assert_eq!(timeline.action(), Some(&[6.0][..]));
    // A fresh chunk, even one nearby, does not end it.
    let near = chunk(3, 100, 50, 6.0);
    let (reading, value) = timeline.value_at(120, &near);
    assert_eq!((reading.status, value), (Status::Hold, 6.0));
    assert!(reading.flags.contains(Flags::TRIPPED | Flags::NEW_CHUNK));
    timeline.value_at(140, &near);
    timeline.clear_trip();
    // Nothing of it was executed while tripped, so it begins at its beginning.
    let (reading, value) = timeline.value_at(160, &near);
    assert_eq!((reading.status, value, reading.flags), (Status::Ok, 6.0, Flags::empty()));
    assert_eq!(timeline.value_at(180, &near).1, 7.0);
}

#[test]
fn reading_twice_in_a_tick_moves_nothing() {
    let limits = Some(vec![0.5]);
    let mut timeline = timeline(TimelineConfig { step_limits: limits, ..config() });
    let (first, second) = (chunk(1, 0, 50, 0.0), chunk(2, 0, 50, 100.0));
    timeline.value_at(0, &first);
    let (_, value) = timeline.value_at(20, &first);
    for ms in [21, 25, 29] {
        let (reading, same) = timeline.value_at(ms, &second);
        assert_eq!((same, reading.chunk, reading.tick), (value, 1, 1), "action and chunk stay together");
        assert_eq!(reading.age_ns, ms * MS, "the age is now's");
        assert!(reading.flags.contains(Flags::REPEATED));
    }
    assert_eq!(timeline.value_at(40, &second).0.chunk, 2);
}

#[test]
fn missed_ticks_are_counted_and_a_long_pause_stops_the_plan() {
    let mut timeline = timeline(TimelineConfig { max_missed_ticks: 3, ..config() });
    let only = chunk(1, 0, 100, 0.0);
    timeline.value_at(0, &only);
    let (reading, value) = timeline.value_at(60, &only);
    assert_eq!((reading.missed, value, reading.tick), (2, 3.0, 3), "a few: the plan goes on");
    assert!(reading.flags.contains(Flags::MISSED_TICKS));
    let (reading, value) = timeline.value_at(260, &only);
    assert_eq!((reading.missed, value, reading.tick), (9, 4.0, 13), "many: the plan waited");
    let (reading, value) = timeline.value_at(280, &only);
    assert_eq!((reading.missed, value, reading.flags), (0, 5.0, Flags::empty()));
}

#[test]
fn progress_says_where_the_next_chunk_will_join() {
    let mut timeline = timeline(config());
    assert_eq!(timeline.progress(at(0)), Progress { at: at(0), ..Progress::default() });
    let only = chunk(1, 0, 5, 0.0);
    (0..4).for_each(|tick| _ = timeline.value_at(tick * 20, &only));
    let want = Progress { chunk: 1, at: at(60), position_ns: 60_000_000, moving: true };
    assert_eq!(timeline.progress(at(60)), want);
    (4..9).for_each(|tick| _ = timeline.value_at(tick * 20, &only));
    let want = Progress { chunk: 1, at: at(160), position_ns: 100_000_000, moving: false };
    assert_eq!(timeline.progress(at(160)), want, "used up");
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let broken: [fn(&mut TimelineConfig); 8] = [
        |c| c.control_period = Duration::ZERO,
        |c| c.action_period = Duration::from_secs(7200),
        |c| c.max_age = Duration::from_secs(2),
        |c| c.hold_after = Duration::MAX,
        |c| c.on_underrun = Underrun::RampToHold(Duration::MAX),
        |c| c.step_limits = Some(vec![1.0, 1.0]),
        |c| c.step_limits = Some(vec![0.0]),
        |c| c.step_limits = Some(vec![f32::NAN]),
    ];
    for (i, break_it) in broken.into_iter().enumerate() {
        let mut config = config();
        break_it(&mut config);
        assert_eq!(
            Timeline::new(&config, 1).err().map(|e| e.kind()),
            Some(ErrorKind::InvalidArgument),
            "case {i}"
        );
    }
    TimelineConfig::default().validate(7).unwrap();
}
