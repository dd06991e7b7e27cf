//! The runtime on a real policy: actions come out live, and a replay gives the same bits.

mod common;

use std::time::{Duration, Instant};

use common::{load_tiny, pixels};
use pi0_edge::policy::rtc::RtcConfig;
use pi0_edge::realtime::clock::{SimulatedClock, Timestamp};
use pi0_edge::realtime::reading::Status;
use pi0_edge::realtime::thread::{Realtime, ThreadConfig};
use pi0_edge::runtime::{EngineOptions, Lockstep, ObservationSlot, PolicyEngine, Runtime, RuntimeConfig};

fn engine(seed: u64) -> PolicyEngine {
    let prompt = Some("pick up the cube".to_owned());
    PolicyEngine::new(load_tiny(), EngineOptions { prompt, seed, max_frame: (128, 96) }).unwrap()
}

fn config(rtc: bool) -> RuntimeConfig {
    RuntimeConfig {
        thread: ThreadConfig { realtime: Realtime::Off, ..ThreadConfig::default() },
        rtc: rtc.then(|| RtcConfig { execution_horizon: 6, ..RtcConfig::default() }),
        replan: pi0_edge::runtime::Replan::Remaining(6),
        ..RuntimeConfig::default()
    }
}

fn look(slot: &mut ObservationSlot, moment: usize) {
    for camera in 0..2 {
        let frame = slot.frame_mut(camera, 96, 72).expect("room for the frame");
        frame.copy_from_slice(&pixels(96, 72, moment + camera));
    }
    slot.clear_frame(2);
    for (i, s) in slot.state_mut().iter_mut().enumerate() {
        *s = 0.1 * i as f32 + 0.01 * moment as f32;
    }
}

#[test]
fn live_actions_are_fresh_and_finite() {
    let (runtime, mut observations, mut controller) = Runtime::start(engine(1), &config(true)).unwrap();
    assert_eq!(controller.read().status, Status::Empty);
    let (mut newest, mut followed) = (0, 0);
    let give_up = Instant::now() + Duration::from_secs(60);
    for moment in 0.. {
        if moment % 20 == 0 {
            look(observations.slot(), moment);
            observations.publish(Timestamp::now()).unwrap();
        }
        let reading = controller.read();
        if reading.status == Status::Ok {
            followed += 1;
            let action = controller.action().expect("a chunk's action");
            assert_eq!(action.len(), 7);
            assert!(action.iter().all(|v| v.is_finite()));
        }
        newest = newest.max(reading.chunk);
        if newest >= 5 && followed >= 100 {
            break;
        }
        assert!(Instant::now() < give_up, "{newest} chunks, {followed} actions: {:?}", runtime.stats());
        std::thread::sleep(Duration::from_millis(1));
    }
    runtime.stop().unwrap();
    assert_eq!(controller.read().status, Status::Hold, "after the end the robot is told to hold");
}

/// Ten seconds of control at 100 Hz on recorded time, computing taken to need 30 ms.
fn replay(seed: u64, rtc: bool) -> Vec<Vec<f32>> {
    let clock = SimulatedClock::new(Timestamp::from_nanos(1_000_000_000));
    let mut config = config(rtc);
    config.timeline.control_period = Duration::from_millis(10);
    let (mut lockstep, mut observations, mut controller) =
        Lockstep::new(engine(seed), &config, clock.clone()).unwrap();
    let mut actions = Vec::new();
    for tick in 0..200 {
        let now = Timestamp::from_nanos(1_000_000_000 + tick * 10_000_000);
        clock.set(now);
        if tick % 3 == 0 {
            look(observations.slot(), tick as usize);
            observations.publish_at(now, now).unwrap();
            lockstep.settle();
        }
        controller.read_at(now);
        actions.push(controller.action().map(<[f32]>::to_vec).unwrap_or_default());
    }
    assert!(lockstep.stats().inference.published >= 2, "{:?}", lockstep.stats());
    actions
}

#[test]
fn a_replay_gives_the_same_bits() {
    for rtc in [false, true] {
        let first = replay(7, rtc);
        assert_eq!(first, replay(7, rtc), "rtc {rtc}");
        assert_ne!(first, replay(8, rtc), "another seed is another noise");
    }
}
