//! The splice rules, through the timeline and over simulated time.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::realtime::clock::Timestamp;
use crate::realtime::reading::{Flags, Reading, Status};
use crate::realtime::timeline::{Progress, Timeline};
use crate::realtime::timeline_config::TimelineConfig;

const MS: u64 = 1_000_000;
const TICK: u64 = 5 * MS;

/// The time of a tick; late enough for observations before the first.
fn at(tick: u64) -> Timestamp {
    Timestamp::from_nanos(1_000_000 * MS + tick * TICK)
}

/// A chunk with these rows, answering an observation captured at a tick, with row 0 as the state in it.
fn chunk<const D: usize>(number: u64, captured: u64, rows: &[[f32; D]]) -> StampedChunk {
    let mut chunk = StampedChunk::new(rows.len(), D);
    chunk.actions.as_mut_slice().copy_from_slice(rows.as_flattened());
    chunk.state.copy_from_slice(&rows[0]);
    (chunk.info.number, chunk.info.captured) = (number, at(captured));
    chunk
}

/// Rows of `per_row` ticks.
fn timeline(splice: Splice, interpolation: Interpolation, per_row: u64, dim: usize) -> Timeline {
    let config = TimelineConfig {
        control_period: Duration::from_nanos(TICK),
        action_period: Duration::from_nanos(TICK * per_row),
        interpolation,
        splice,
        max_age: Duration::from_secs(1000),
        hold_after: Duration::from_secs(1000),
        ..TimelineConfig::default()
    };
    Timeline::new(&config, dim).unwrap()
}

/// The reading and the action at `due` ticks after `new` was observed, when one row takes one tick and `old` was followed
/// before. The state is handed in, if given.
fn takes_over<const D: usize>(
    timeline: &mut Timeline,
    old: [f32; D],
    new: &[[f32; D]],
    due: u64,
    state: Option<&[f32]>,
) -> (Reading, Vec<f32>) {
    let old = chunk(1, 0, &[old; 100]);
    (0..20 + due).for_each(|tick| _ = timeline.read(at(tick), &old, Flags::empty()));
    if let Some(state) = state {
        assert!(timeline.set_state(state));
    }
    let reading = timeline.read(at(20 + due), &chunk(2, 20, new), Flags::empty());
    assert_eq!(reading.age_ns, due * TICK, "the age is the observation's by every rule");
    (reading, timeline.action().unwrap().to_vec())
}

fn row(splice: Splice, old: f32, new: &[f32], due: u64, state: Option<f32>) -> u32 {
    let mut timeline = timeline(splice, Interpolation::None, 1, 1);
    let new: Vec<[f32; 1]> = new.iter().map(|v| [*v]).collect();
    takes_over(&mut timeline, [old], &new, due, state.as_ref().map(std::slice::from_ref)).0.row
}

const RAMP: [f32; 10] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];

#[test]
fn by_command_the_row_after_the_last_action_takes_over() {
    for (last, due, want) in [
        (3.0, 6, 4),
        (3.4, 6, 4),
        (3.6, 6, 5),
        (7.0, 6, 6),
        (100.0, 6, 6),
        (-1.0, 6, 0),
        (-50.0, 6, 0),
        (0.0, 6, 1),
        (3.0, 0, 0),
        (3.0, 50, 4),
        (100.0, 50, 9),
    ] {
        assert_eq!(
            row(Splice::Command, last, &RAMP, due, None),
            want,
            "last action {last}, row {due} is due"
        );
    }
}

#[test]
fn by_state_the_row_that_was_reached_takes_over() {
    // The state in the observation is row 0's value, so the chunk expects the robot at row k's in row k.
    for (last, due, want) in [(3.0, 6, 3), (3.4, 6, 3), (7.0, 6, 6), (-50.0, 6, 0), (3.0, 50, 3)] {
        assert_eq!(
            row(Splice::State, -9.0, &RAMP, due, Some(last)),
            want,
            "measured {last}, row {due} is due"
        );
    }
}

#[test]
fn while_the_chunk_dwells_time_decides() {
    let dwells = [0.0, 1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 4.0, 5.0, 3.0];
    for (due, command, state) in [(3, 3, 3), (5, 5, 5), (6, 6, 6), (7, 7, 6), (8, 7, 6), (9, 7, 9)] {
        assert_eq!(row(Splice::Command, 3.0, &dwells, due, None), command, "row {due} is due");
        assert_eq!(row(Splice::State, 3.0, &dwells, due, Some(3.0)), state, "row {due} is due");
    }
    // A little noise is no motion.
    let noisy = dwells.map(|v| v + if v == 3.0 { 0.004 } else { 0.0 });
    assert_eq!(row(Splice::Command, 3.002, &noisy, 6, None), 6);
}

#[test]
fn on_arrival_row_0_takes_over_and_progress_says_so() {
    let mut timeline = timeline(Splice::Arrival, Interpolation::None, 1, 1);
    let (reading, action) = takes_over(&mut timeline, [50.0], &RAMP.map(|v| [v]), 6, None);
    assert_eq!((reading.row, action), (0, vec![0.0]));
    let want = Progress { chunk: 2, at: at(26), position_ns: 0, moving: true };
    assert_eq!(timeline.progress(at(26)), want);
    let new = chunk(2, 20, &RAMP.map(|v| [v]));
    for tick in 27..36 {
        let reading = timeline.read(at(tick), &new, Flags::empty());
        assert_eq!((u64::from(reading.row), reading.status), (tick - 26, Status::Ok));
        assert_eq!(timeline.progress(at(tick)).position_ns, ((tick - 26) * TICK) as i64);
    }
    assert!(timeline.read(at(36), &new, Flags::empty()).flags.contains(Flags::UNDERRUN), "used up");
}

#[test]
fn a_joint_counts_by_its_scale() {
    // The first joint closes a gripper at row 4, the second dwells from row 3 on.
    let new: [[f32; 2]; 8] = std::array::from_fn(|i| [f32::from(i >= 4), i.min(3) as f32]);
    for (scales, want) in [([0.5, 1.0], 4), ([0.0, 1.0], 6), ([1e-9, 1.0], 6), ([1e9, 1e9], 6)] {
        let mut timeline = timeline(Splice::Command, Interpolation::None, 1, 2);
        timeline.set_joint_scales(&scales);
        assert_eq!(takes_over(&mut timeline, [0.0, 3.0], &new, 6, None).0.row, want, "{scales:?}");
    }
}

#[test]
fn joints_that_are_not_measured_do_not_count() {
    let new: [[f32; 2]; 8] = std::array::from_fn(|i| [i as f32, 7.0 - i as f32]);
    for (state, want) in [([2.0, f32::NAN], 2), ([f32::NAN, 4.0], 3)] {
        let mut timeline = timeline(Splice::State, Interpolation::None, 1, 2);
        let (reading, _) = takes_over(&mut timeline, [0.0, 7.0], &new, 6, Some(&state));
        assert_eq!((reading.row, reading.flags), (want, Flags::NEW_CHUNK));
    }
}

#[test]
fn without_a_measured_state_time_decides_and_the_read_says_so() {
    let unmeasured = Flags::NEW_CHUNK | Flags::UNMEASURED;
    let new = RAMP.map(|v| [v]);
    let mut timeline = timeline(Splice::State, Interpolation::None, 1, 1);
    for nothing in [&[f32::NAN][..], &[f32::INFINITY], &[], &[1.0, 2.0]] {
        assert!(!timeline.set_state(nothing), "{nothing:?}");
    }
    let (reading, _) = takes_over(&mut timeline, [3.0], &new, 6, None);
    assert_eq!((reading.row, reading.flags), (6, unmeasured));
    // A state is that of one tick.
    assert!(timeline.set_state(&[3.0]));
    assert_eq!(timeline.read(at(27), &chunk(2, 20, &new), Flags::empty()).flags, Flags::empty());
    assert_eq!(timeline.read(at(28), &chunk(3, 20, &new), Flags::empty()).flags, unmeasured);
    // An observation without one has nothing to compare it with.
    let mut blind = chunk(4, 20, &new);
    blind.state.fill(f32::NAN);
    assert!(timeline.set_state(&[3.0]));
    assert_eq!(timeline.read(at(29), &blind, Flags::empty()).flags, unmeasured);
}

#[test]
fn a_robot_that_stood_still_begins_at_the_beginning_by_every_rule() {
    for splice in Splice::ALL {
        let mut timeline = timeline(splice, Interpolation::Linear, 4, 1);
        timeline.set_reference(&[5.0]);
        let none = StampedChunk::new(1, 1);
        (0..40).for_each(|tick| _ = timeline.read(at(tick), &none, Flags::empty()));
        timeline.set_state(&[5.0]);
        let reading = timeline.read(at(40), &chunk(1, 0, &RAMP.map(|v| [v])), Flags::empty());
        assert_eq!((reading.row, reading.flags), (0, Flags::NEW_CHUNK), "{splice}");
    }
}

#[test]
fn names_are_those_of_files_and_of_the_command_line() {
    for splice in Splice::ALL {
        assert_eq!(splice.as_str().parse::<Splice>().unwrap(), splice);
        assert_eq!(serde_json::to_string(&splice).unwrap(), format!("\"{splice}\""), "in a recording");
    }
}

fn interpolation() -> impl Strategy<Value = Interpolation> {
    prop_oneof![Just(Interpolation::None), Just(Interpolation::Linear)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// A chunk that says what was executed anyway takes over where time says, at the same place within a row, by either
    /// progress and at every ratio of the two rates: nothing is lost at a seam between chunks that agree.
    #[test]
    fn chunks_that_agree_take_over_as_by_time(
        per_row in 1u64..6,
        captured_row in 0u64..20,
        captured_tick in 0u64..6,
        due in 0u64..60,
        speed in prop_oneof![-3.0f32..-0.1, 0.1f32..3.0],
        interpolation in interpolation(),
    ) {
        // Where rows are not joined, two chunks agree only if their rows begin together.
        let within = if interpolation == Interpolation::None { 0 } else { captured_tick % per_row };
        let captured = captured_row * per_row + within;
        let path = |ticks: u64| ticks as f32 / per_row as f32 * speed;
        let rows = |from: u64| (0..100).map(|i| [path(from + i * per_row)]).collect::<Vec<_>>();
        let (old, mut new) = (chunk(1, 0, &rows(0)), chunk(2, captured, &rows(captured)));
        // The robot is where it was told to be a tick before.
        let reached = |tick: u64| match interpolation {
            Interpolation::None => path(tick / per_row * per_row),
            Interpolation::Linear => path(tick),
        };
        new.state[0] = reached(captured);
        let mut timelines = [Splice::Time, Splice::Command, Splice::State]
            .map(|splice| timeline(splice, interpolation, per_row, 1));
        for tick in 0..captured + due + 20 {
            let newest = if tick < captured + due { &old } else { &new };
            let [by_time, others @ ..] = timelines.each_mut().map(|timeline| {
                timeline.set_state(&[reached(tick)]);
                (timeline.read(at(tick), newest, Flags::empty()), timeline.action().unwrap()[0])
            });
            for other in others {
                prop_assert_eq!(other, by_time, "tick {}", tick);
            }
        }
    }

    /// Whatever the chunks are: by progress none begins after the row that is due, each keeps its place within a row, and
    /// no row up to the due one is nearer by more than what counts as dwelling.
    #[test]
    fn no_row_that_is_due_is_nearer(
        rows in proptest::collection::vec([-3.0f32..3.0, -3.0f32..3.0], 1..20),
        last in [-3.0f32..3.0, -3.0f32..3.0],
        scales in [0.1f32..10.0, 0.1f32..10.0],
        due in 0u64..30,
        state in any::<bool>(),
    ) {
        let splice = if state { Splice::State } else { Splice::Command };
        let mut timeline = timeline(splice, Interpolation::None, 1, 2);
        timeline.set_joint_scales(&scales);
        let (reading, _) = takes_over(&mut timeline, last, &rows, due, Some(&last));
        let (taken, limit) = (reading.row as usize, (due as usize).min(rows.len() - 1));
        prop_assert!(taken <= limit);
        let expected = |row: usize, joint: usize| match (splice, row.checked_sub(1)) {
            (Splice::State, _) => rows[row][joint],
            (_, Some(before)) => rows[before][joint],
            (_, None) => 2.0 * rows[0][joint] - rows[1.min(rows.len() - 1)][joint],
        };
        let distance = |row: usize| {
            (0..2).map(|joint| ((expected(row, joint) - last[joint]) / scales[joint]).powi(2)).sum::<f32>().sqrt()
        };
        let least = (0..=limit).map(distance).fold(f32::INFINITY, f32::min);
        prop_assert!(distance(taken) <= least + DWELL + 1e-4, "row {}: {} but {}", taken, distance(taken), least);
        prop_assert_eq!(timeline.progress(at(20 + due)).position_ns, (taken as u64 * TICK) as i64);
    }
}
