//! Ordinary operation over simulated time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::fake::{Call, Fake, Script};
use crate::realtime::chunk::Interpolation;
use crate::realtime::clock::{Clock, SimulatedClock, Timestamp};
use crate::realtime::reading::{Flags, Reading, Status};
use crate::realtime::timeline_config::TimelineConfig;
use crate::runtime::*;

pub(super) const MS: Duration = Duration::from_millis(1);

/// 50 Hz actions in a 100 Hz loop, 20 rows a chunk.
pub(super) fn config() -> RuntimeConfig {
    RuntimeConfig {
        timeline: TimelineConfig {
            control_period: 10 * MS,
            action_period: 20 * MS,
            interpolation: Interpolation::None,
            splice: Splice::Time,
            max_age: 500 * MS,
            hold_after: 1000 * MS,
            ..TimelineConfig::default()
        },
        replan: Replan::Remaining(10),
        ..RuntimeConfig::default()
    }
}

/// A runtime in simulated time, and everything around it.
pub(super) struct Rig {
    pub(super) lockstep: Lockstep<Fake>,
    pub(super) sensors: ObservationWriter<f32>,
    pub(super) controller: Controller,
    /// The time of the control loop and the sensors.
    pub(super) clock: SimulatedClock,
    /// The inference thread's time: ahead while it computes, so that the others go on meanwhile.
    pub(super) inference: SimulatedClock,
    pub(super) script: Arc<Mutex<Script>>,
    started: Timestamp,
}

impl Rig {
    pub(super) fn new(mut fake: Fake, config: &RuntimeConfig) -> Self {
        let started = Timestamp::from_nanos(5_000_000_000);
        let (clock, inference) = (SimulatedClock::new(started), SimulatedClock::new(started));
        fake.clock = Some(inference.clone());
        let script = fake.script.clone();
        let (lockstep, sensors, controller) = Lockstep::new(fake, config, inference.clone()).unwrap();
        script.lock().unwrap().calls.clear();
        Rig { lockstep, sensors, controller, clock, inference, script, started }
    }

    pub(super) fn runtime(&self) -> &Runtime<Fake> {
        self.lockstep.runtime()
    }

    /// Milliseconds since the start.
    pub(super) fn ms(&self) -> u64 {
        self.clock.now().since(self.started) / 1_000_000
    }

    /// Publishes what the sensors see now: how far a robot that follows the policy ought to be, one unit every
    /// 20 ms.
    pub(super) fn observe(&mut self) {
        let now = self.clock.now();
        *self.sensors.slot() = self.ms() as f32 / 20.0;
        self.sensors.publish_at(now, now).unwrap();
    }

    pub(super) fn read(&mut self) -> (Reading, Option<f32>) {
        let reading = self.controller.read_at(self.clock.now());
        (reading, self.controller.action().map(|a| a[0]))
    }

    /// Some ticks of 10 ms of the control loop alone.
    pub(super) fn tick(&mut self, ticks: usize) -> Reading {
        let mut last = Reading::default();
        for _ in 0..ticks {
            last = self.read().0;
            self.clock.advance(10 * MS);
        }
        last
    }

    /// Lets inference do what it can do now, and waits for it.
    pub(super) fn run_until_idle(&mut self) -> Turn {
        self.inference.set(self.clock.now().max(self.inference.now()));
        let turn = self.lockstep.run_until_idle();
        self.clock.set(self.inference.now());
        turn
    }

    /// Runs everything for some ticks of 10 ms: the control loop in every one, the sensors in every other, and
    /// inference in its own time.
    pub(super) fn run(&mut self, ticks: usize, mut each: impl FnMut(Reading, Option<f32>)) {
        for _ in 0..ticks {
            let now = self.clock.now();
            // What was done by now.
            while self.inference.now() < now && self.lockstep.turn() == Turn::Worked {}
            self.inference.set(now.max(self.inference.now()));
            if self.ms().is_multiple_of(20) {
                self.observe();
            }
            let (reading, value) = self.read();
            each(reading, value);
            while self.inference.now() <= now && self.lockstep.turn() == Turn::Worked {}
            self.lockstep.watch_at(now);
            self.clock.advance(10 * MS);
        }
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.runtime().events().try_iter().collect()
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.script.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).calls.clone()
    }
}

#[test]
fn chunks_follow_each_other_without_a_gap() {
    let mut rig = Rig::new(Fake::new(20, 2), &config());
    rig.script.lock().unwrap().step_time = MS;
    let mut seen = vec![];
    rig.run(500, |reading, value| seen.push((reading, value)));
    assert_eq!(seen[0].0.status, Status::Empty);
    assert_eq!(seen[0].1, None);
    for (tick, (reading, value)) in seen.iter().enumerate().skip(1) {
        assert_eq!(reading.status, Status::Ok, "tick {tick}");
        // The fake's plan is one unit a row from where the robot was seen, so it advances half a unit a tick.
        let value = value.unwrap();
        assert!((value - (tick as f32 - 1.0) / 2.0).abs() <= 1.01, "tick {tick}: {value}");
    }
    let jumps: Vec<f32> = seen.iter().map(|(r, _)| r.seam_jump).filter(|j| *j > 0.0).collect();
    assert!(jumps.iter().all(|j| *j < 1.01), "{jumps:?}");
    let stats = rig.runtime().stats();
    assert_eq!((stats.control.reads, stats.control.empty, stats.control.ok), (500, 1, 499));
    assert_eq!((stats.control.underruns, stats.control.missed_ticks, stats.inference.errors), (0, 0, 0));
    // A new chunk every ten rows of 20 ms or so: five seconds are some 25 chunks.
    assert!((20..=28).contains(&stats.inference.published), "{}", stats.inference.published);
    assert_eq!(stats.control.chunks, stats.inference.published);
    assert_eq!(stats.inference.latency_ns.count, stats.inference.published);
}

#[test]
fn replanning_waits_for_remaining_rows_and_a_fresh_observation() {
    let mut rig = Rig::new(Fake::new(20, 1), &config());
    assert_eq!(rig.run_until_idle(), Turn::Wait(None), "nothing seen yet");
    rig.observe();
    assert_eq!(rig.run_until_idle(), Turn::Wait(None), "one chunk, and now a newer observation is needed");
    assert_eq!(rig.runtime().stats().inference.published, 1);
    rig.observe();
    // Ten rows remain once row 9 begins, 180 ms after the capture of the observation.
    let due = rig.clock.now() + 180 * MS;
    assert_eq!(rig.run_until_idle(), Turn::Wait(Some(due)), "as time goes");
    for _ in 0..18 {
        rig.tick(1);
        assert_eq!(rig.lockstep.turn(), Turn::Wait(Some(due)), "as the control loop says");
    }
    assert_eq!((rig.clock.now(), rig.run_until_idle()), (due, Turn::Wait(None)));
    assert_eq!(rig.runtime().stats().inference.published, 2);
}

#[test]
fn a_robot_that_holds_gets_a_new_chunk_at_once() {
    let mut rig = Rig::new(Fake::new(20, 1), &RuntimeConfig { replan: Replan::Remaining(0), ..config() });
    rig.observe();
    rig.run_until_idle();
    assert_eq!(rig.tick(45).status, Status::Hold);
    rig.read();
    rig.observe();
    rig.run_until_idle();
    assert_eq!(rig.runtime().stats().inference.published, 2);
    assert_eq!(rig.read().0.status, Status::Hold, "the same tick");
    rig.clock.advance(10 * MS);
    assert_eq!(rig.read().0.status, Status::Ok);
}

#[test]
fn replanning_by_period_begins_that_often() {
    let replan = Replan::Period(100 * MS);
    let mut rig = Rig::new(Fake::new(20, 1), &RuntimeConfig { replan, ..config() });
    rig.run(200, |_, _| {});
    assert_eq!(rig.runtime().stats().inference.begun, 20, "two seconds");
}

#[test]
fn a_new_prompt_restarts_the_chunk_between_two_steps() {
    let mut rig = Rig::new(Fake::new(20, 1), &config());
    rig.observe();
    assert_eq!(rig.lockstep.turn(), Turn::Worked);
    assert_eq!(rig.lockstep.turn(), Turn::Worked);
    rig.runtime().set_prompt("the other one").unwrap();
    rig.run_until_idle();
    let begin = |chunk| Call::Begin { chunk, seen: 0.0, guided: None };
    let mut want = vec![begin(1), Call::Step(0), Call::Prompt("the other one".into()), begin(2)];
    want.extend((0..4).map(Call::Step).chain([Call::Finish]));
    assert_eq!(rig.calls(), want);
    let stats = rig.runtime().stats();
    assert_eq!((stats.inference.abandoned, stats.inference.published), (1, 1));
    rig.runtime().set_num_steps(2).unwrap();
    rig.clock.advance(400 * MS);
    rig.observe();
    rig.run_until_idle();
    assert_eq!(
        rig.calls()[want.len()..],
        [Call::NumSteps(2), begin_at(3, 20.0), Call::Step(0), Call::Step(1), Call::Finish]
    );
    rig.runtime().set_num_steps(0).unwrap();
    rig.run_until_idle();
    let failed =
        rig.events().into_iter().any(|e| matches!(e, Event::CommandFailed { error } if error == "no steps"));
    assert!(failed, "and the runtime goes on");
}

fn begin_at(chunk: u64, seen: f32) -> Call {
    Call::Begin { chunk, seen, guided: None }
}

#[test]
fn a_chunk_past_its_deadline_is_dropped_between_two_steps() {
    let mut rig = Rig::new(Fake::new(20, 1), &RuntimeConfig { deadline: Some(25 * MS), ..config() });
    rig.script.lock().unwrap().step_time = 10 * MS;
    rig.observe();
    rig.run_until_idle();
    let missed = Event::DeadlineMiss { chunk: 1, steps: 3, after_ns: 30_000_000 };
    assert_eq!(rig.events(), [missed]);
    assert_eq!(rig.runtime().stats().inference.deadline_misses, 1);
    rig.script.lock().unwrap().step_time = 5 * MS;
    rig.observe();
    rig.run_until_idle();
    assert_eq!(rig.runtime().stats().inference.published, 1);
}

#[test]
fn an_observation_too_old_to_act_on_is_not_computed_from() {
    let mut rig = Rig::new(Fake::new(20, 1), &config());
    rig.observe();
    rig.clock.advance(1001 * MS);
    assert_eq!(rig.run_until_idle(), Turn::Wait(None));
    assert_eq!(rig.runtime().stats().inference.stale_observations, 1);
    assert_eq!(rig.calls(), []);
}

#[test]
fn observations_with_impossible_times_are_refused() {
    let mut rig = Rig::new(Fake::new(20, 1), &config());
    let now = rig.clock.now();
    let later = rig.sensors.publish_at(now, now.plus(1)).unwrap_err();
    assert_eq!(later, PublishError::FromTheFuture { by_ns: 1 });
    // Wall time is the usual mistake, and it looks like the far future.
    assert!(matches!(
        rig.sensors.publish(Timestamp::from_nanos(1_790_000_000 << 30)),
        Err(PublishError::FromTheFuture { .. })
    ));
    rig.observe();
    let earlier = Timestamp::from_nanos(now.as_nanos() - 7);
    assert_eq!(rig.sensors.publish_at(now, earlier), Err(PublishError::OutOfOrder { by_ns: 7 }));
    let again = rig.sensors.publish_at(now, now).unwrap();
    assert_eq!(again, Published { overwrote: true, woke: false });
    let stats = rig.runtime().stats().observations;
    assert_eq!((stats.published, stats.overwritten, stats.refused), (2, 1, 3));
}

#[test]
fn limits_can_be_changed_while_it_runs() {
    let mut rig = Rig::new(Fake::new(20, 1), &config());
    rig.run(20, |_, _| {});
    assert_eq!(rig.runtime().stats().inference.rejected_limits, 0);
    rig.runtime().set_limits(Some(ActionLimits { min: vec![-1.0], max: vec![10.0] })).unwrap();
    rig.run(200, |_, _| {});
    let stats = rig.runtime().stats();
    assert!(stats.inference.rejected_limits > 0);
    assert!(rig.controller.action().unwrap()[0] < 30.0, "nothing past the limit was followed");
    rig.runtime().set_limits(Some(ActionLimits { min: vec![-1.0; 2], max: vec![10.0; 2] })).unwrap();
    rig.run_until_idle();
    assert!(rig.events().iter().any(|e| matches!(e, Event::CommandFailed { .. })));
}

#[test]
fn too_many_commands_are_refused_and_too_many_events_counted() {
    let mut rig = Rig::new(Fake::new(20, 1), &RuntimeConfig { event_capacity: 5, ..config() });
    for i in 0..16 {
        rig.runtime().set_prompt(format!("{i}")).unwrap();
    }
    let error = rig.runtime().set_prompt("one too many").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Runtime);
    rig.run_until_idle();
    let prompts: Vec<Call> = (0..16).map(|i| Call::Prompt(format!("{i}"))).collect();
    assert_eq!(rig.calls(), prompts, "in order, none lost");
    rig.runtime().set_prompt("room again").unwrap();
    rig.run(300, |_, _| {});
    let (published, lost) = (rig.runtime().stats().inference.published, rig.runtime().stats().events_lost);
    assert!(published > 10);
    assert_eq!((rig.events().len() as u64, lost), (5, published - 5));
}

#[test]
fn stopping_ends_turns_and_holds_reads() {
    let mut rig = Rig::new(Fake::new(20, 1), &config());
    rig.run(10, |_, _| {});
    rig.lockstep.ask_to_stop();
    assert_eq!(rig.lockstep.turn(), Turn::Stopped);
    let Rig { lockstep, mut controller, clock, mut sensors, .. } = rig;
    drop(lockstep);
    let reading = controller.read_at(clock.now());
    assert_eq!((reading.status, reading.flags & Flags::STOPPED), (Status::Hold, Flags::STOPPED));
    assert!(!sensors.runtime_alive());
    sensors.publish_at(clock.now(), clock.now()).unwrap();
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    let run = || {
        let mut fake = Fake::new(20, 3);
        fake.spread = 0.3;
        let mut rig = Rig::new(
            fake,
            &RuntimeConfig { rtc: Some(crate::policy::rtc::RtcConfig::default()), ..config() },
        );
        rig.script.lock().unwrap().step_time = 7 * MS;
        let mut bits = vec![];
        rig.run(300, |reading, value| bits.push((reading, value.map(f32::to_bits))));
        (bits, rig.runtime().flight_record())
    };
    let (first, second) = (run(), run());
    assert_eq!(first, second);
    assert!(first.0.iter().filter(|(r, _)| r.flags.contains(Flags::NEW_CHUNK)).count() > 10);
}

#[test]
fn settings_that_do_not_fit_the_policy_are_refused() {
    let broken: [fn(&mut RuntimeConfig); 6] = [
        |c| c.limits = Some(ActionLimits { min: vec![0.0; 3], max: vec![1.0; 3] }),
        |c| c.rtc = Some(RtcConfig { execution_horizon: 21, ..RtcConfig::default() }),
        |c| c.rtc = Some(RtcConfig { max_guidance_weight: f32::NAN, ..RtcConfig::default() }),
        |c| c.watchdog = Duration::ZERO,
        |c| c.delay.window = 0,
        |c| c.timeline.step_limits = Some(vec![1.0; 3]),
    ];
    for (i, break_it) in broken.into_iter().enumerate() {
        let mut config = config();
        break_it(&mut config);
        let error =
            Lockstep::new(Fake::new(20, 2), &config, SimulatedClock::default()).err().map(|e| e.kind());
        assert_eq!(error, Some(ErrorKind::InvalidArgument), "case {i}");
    }
    assert!(Lockstep::new(Fake::new(0, 2), &config(), SimulatedClock::default()).is_err());
}

#[test]
fn a_hang_that_a_recording_saw_can_be_shown_again() {
    let mut rig = Rig::new(Fake::new(20, 1), &config());
    rig.observe();
    rig.run_until_idle();
    rig.tick(2);
    rig.lockstep.set_hung(true);
    let (reading, _) = rig.read();
    assert_eq!((reading.status, reading.flags & Flags::HUNG), (Status::Hold, Flags::HUNG));
    rig.lockstep.set_hung(false);
    rig.clock.advance(10 * MS);
    assert_eq!(rig.read().0.status, Status::Ok);
}

#[test]
fn a_chunk_may_be_begun_between_the_two_halves_of_a_read() {
    let mut rig = Rig::new(Fake::new(20, 1), &config());
    rig.observe();
    rig.run_until_idle();
    rig.tick(30);
    let before = rig.clock.now().as_nanos() - 10_000_000;
    let now = rig.clock.now();
    assert_eq!(rig.controller.look_at(now).status, Status::Ok);
    rig.observe();
    rig.run_until_idle();
    rig.controller.tell_at(now);
    let chunks = rig.runtime().flight_record().chunks;
    assert_eq!(chunks.last().unwrap().info.progress_at.as_nanos(), before, "not told then");
}
