//! The beginning of an episode: nothing of the one before is left.

use std::time::Duration;

use super::fake::{Call, Fake};
use super::lockstep::{MS, Rig, config};
use crate::policy::rtc::RtcConfig;
use crate::realtime::clock::{Clock, Timestamp};
use crate::realtime::reading::{Flags, Status};
use crate::realtime::timeline_config::Underrun;
use crate::runtime::*;

fn with_rtc() -> RuntimeConfig {
    RuntimeConfig { rtc: Some(RtcConfig::default()), ..config() }
}

/// Returns which of the chunks begun were guided.
fn guided(rig: &Rig) -> Vec<bool> {
    let calls = rig.calls();
    let guided = calls.iter().filter_map(|call| match call {
        Call::Begin { guided, .. } => Some(guided.is_some()),
        _ => None,
    });
    guided.collect()
}

#[test]
fn reads_are_empty_until_the_first_chunk_of_the_new_episode_which_is_unguided() {
    for on_underrun in [Underrun::HoldLast, Underrun::RampToHold(100 * MS), Underrun::FlagOnly] {
        let mut config = with_rtc();
        config.timeline.on_underrun = on_underrun;
        config.timeline.step_limits = Some(vec![0.6]);
        let mut rig = Rig::new(Fake::new(20, 1), &config);
        rig.script.lock().unwrap().step_time = 5 * MS;
        rig.run(200, |_, _| {});
        assert!(guided(&rig).iter().skip(1).all(|guided| *guided), "the test must have something to show");
        let (before, abandoned) = (guided(&rig).len(), rig.runtime().stats().inference.abandoned);

        rig.lockstep.begin_episode_at(rig.clock.now());
        let (reading, value) = rig.read();
        assert_eq!((reading.status, value), (Status::Empty, None), "{on_underrun:?}");
        assert_eq!((reading.chunk, reading.age_ns, reading.flags), (0, 0, reading.flags & Flags::REPEATED));
        // What is computed, and what is published from before, is not followed.
        let old = rig.clock.now();
        rig.clock.advance(10 * MS);
        let late = rig.sensors.publish_at(rig.clock.now(), old.max(Timestamp::from_nanos(1)));
        assert!(late.is_ok());
        let mut empty = 0;
        rig.run(40, |reading, value| match reading.status {
            Status::Empty => empty += usize::from(value.is_none()),
            // Half a unit a tick from where it was seen: no step from where the old plan was.
            status => assert_eq!(status, Status::Ok),
        });
        assert!((1..20).contains(&empty), "{on_underrun:?}: {empty} empty reads");
        let begun = guided(&rig);
        assert!(!begun[before] && begun[before + 1], "{on_underrun:?}: {:?}", &begun[before..]);
        assert!(rig.runtime().stats().inference.abandoned <= abandoned + 1);
        let record = rig.runtime().flight_record();
        assert_eq!(record.chunks.last().unwrap().info.episode, 1);
    }
}

/// At every turn of the inference thread in turn: what is being computed when an episode begins never lands in it, and
/// neither does the observation at hand.
#[test]
fn inference_in_flight_never_lands_in_the_new_episode() {
    let mut compared = 0;
    for turns in 0..40 {
        let mut rig = Rig::new(Fake::new(20, 1), &with_rtc());
        rig.script.lock().unwrap().step_time = MS;
        rig.run(30, |_, _| {});
        rig.observe();
        for _ in 0..turns {
            rig.lockstep.turn();
        }
        rig.clock.set(rig.inference.now().max(rig.clock.now()) + MS);
        let begun = rig.clock.now();
        rig.lockstep.begin_episode_at(begun);
        rig.inference.set(begun);
        for tick in 0..50 {
            rig.run_until_idle();
            if tick == 20 {
                rig.clock.advance(10 * MS);
                rig.observe();
            }
            let (reading, value) = rig.read();
            if reading.status == Status::Empty {
                assert_eq!(value, None, "turn {turns}");
                assert!(tick <= 21, "turn {turns}: nothing came of the first observation");
            } else {
                let record = rig.runtime().flight_record();
                let chunk = record.chunks.iter().find(|c| c.info.number == reading.chunk).unwrap();
                assert!(chunk.info.captured > begun, "turn {turns}: a chunk of the old episode");
                assert_eq!(chunk.info.guided_rows, 0, "turn {turns}");
                compared += 1;
            }
            rig.clock.advance(10 * MS);
        }
    }
    assert!(compared > 40 * 20, "{compared}");
}

/// An observation that was captured before the episode began is not used, though it is published after; begun again
/// and again without a read or an observation in between, episodes do not add up.
#[test]
fn observations_belong_to_the_episode_they_were_captured_in() {
    let mut rig = Rig::new(Fake::new(20, 1), &config());
    rig.run(50, |_, _| {});
    let captured = rig.clock.now();
    rig.clock.advance(5 * MS);
    (0..3).for_each(|_| rig.lockstep.begin_episode_at(rig.clock.now()));
    let published = rig.runtime().stats().inference.published;
    rig.sensors.publish_at(rig.clock.now(), captured).unwrap();
    rig.run_until_idle();
    let stats = rig.runtime().stats().inference;
    assert_eq!((stats.published, stats.stale_observations), (published, 1));
    assert_eq!(rig.tick(1).status, Status::Empty);
    rig.observe();
    rig.run_until_idle();
    assert_eq!(rig.tick(1).status, Status::Ok);
}

#[test]
fn a_reference_told_after_the_beginning_limits_the_first_step_and_a_trip_stays() {
    let mut config = config();
    config.timeline.step_limits = Some(vec![0.25]);
    config.timeline.trip_after = 5;
    let mut rig = Rig::new(Fake::new(20, 1), &config);
    rig.run(30, |_, _| {});
    assert!(rig.tick(1).flags.contains(Flags::TRIPPED), "half a unit a tick is too fast");
    rig.lockstep.begin_episode_at(rig.clock.now());
    assert!(rig.controller.set_reference(&[100.0]));
    let (reading, value) = rig.read();
    assert_eq!((reading.status, value), (Status::Empty, Some(100.0)), "it is the action until there is one");
    assert!(reading.flags.contains(Flags::TRIPPED));
    rig.controller.clear_trip();
    rig.clock.advance(10 * MS);
    rig.observe();
    rig.run_until_idle();
    let (reading, value) = rig.read();
    assert_eq!((reading.status, value), (Status::Ok, Some(99.75)), "one step from the reference");
}

/// The loop does not read for three seconds while observations go on: the next chunk is guided by none that nobody has
/// executed.
#[test]
fn a_plan_that_nobody_reads_does_not_guide() {
    let mut rig = Rig::new(Fake::new(20, 1), &with_rtc());
    rig.run(100, |_, _| {});
    let before = guided(&rig).len();
    for _ in 0..150 {
        rig.observe();
        rig.run_until_idle();
        rig.clock.advance(20 * MS);
    }
    let pause = guided(&rig)[before..].to_vec();
    // The one that follows what was read last may be guided, and none after it.
    let first_unguided = pause.iter().position(|guided| !guided).expect("an unguided chunk");
    assert!(
        pause.len() > 5 && first_unguided <= 1 && pause[first_unguided..].iter().all(|guided| !guided),
        "{pause:?}"
    );
    let before = guided(&rig).len();
    rig.run(100, |_, _| {});
    assert!(guided(&rig)[before + 1..].iter().any(|guided| *guided), "reads bring guidance back");
}

/// A machine that slept between two reads: what was captured before is as old as the clock on the wall says.
#[test]
fn the_time_a_machine_slept_counts_towards_the_age() {
    let hour = 3_600_000_000_000;
    let mut rig = Rig::new(Fake::new(20, 1), &config());
    rig.run(50, |_, _| {});
    assert_eq!(rig.read().0.status, Status::Ok);
    let in_flight = rig.clock.now();
    rig.observe();
    rig.clock.advance(10 * MS);
    let awake = rig.controller.slept;
    rig.controller.notice_sleep(rig.clock.now(), awake + hour);
    let (reading, _) = rig.read();
    assert_eq!(reading.status, Status::Hold, "it was fresh ten milliseconds of CLOCK_MONOTONIC ago");
    assert!((hour..hour + 1_000_000_000).contains(&reading.age_ns), "{}", reading.age_ns);
    // A chunk of what was seen before the sleep is no better.
    rig.run_until_idle();
    rig.clock.advance(10 * MS);
    let (reading, _) = rig.read();
    let record = rig.runtime().flight_record();
    assert_eq!(
        record.chunks.last().unwrap().info.captured,
        in_flight,
        "the test must have something to show"
    );
    assert_eq!(reading.status, Status::Hold);
    assert!(reading.age_ns > hour, "{}", reading.age_ns);
    // Once more, shorter, before anything new: both count.
    rig.controller.notice_sleep(rig.clock.now(), awake + hour + 5_000_000_000);
    rig.clock.advance(10 * MS);
    assert!(rig.read().0.age_ns > hour + 5_000_000_000);
    // What two readings of the clocks differ by is no sleep.
    rig.controller.notice_sleep(rig.clock.now(), awake + hour + 5_000_900_000);
    rig.controller.notice_sleep(rig.clock.now(), awake);
    rig.observe();
    rig.run_until_idle();
    rig.clock.advance(10 * MS);
    let (reading, _) = rig.read();
    assert_eq!(reading.status, Status::Ok, "seen after the sleep");
    assert!(reading.age_ns < Duration::from_millis(100).as_nanos() as u64, "{}", reading.age_ns);
}
