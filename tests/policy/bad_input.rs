//! Observations that a real policy cannot use, through the runtime: each is refused once and told once, none counts as
//! an error of inference, and the next good one brings an action.

use std::path::Path;
use std::time::Duration;

use crate::common::{fill, load, pixels, tiny, tiny_pi05};
use pi0_edge::runtime::{
    Event, Lockstep, ObservationSlot, Phase, PolicyInference, PolicyInferenceOptions, RuntimeConfig,
    SimulatedClock, Status, Timestamp,
};
use pi0_edge::{Controller, Frame, InferOptions, Observation, ObservationWriter, Policy};

/// A runtime on a bundle, over simulated time.
struct Rig {
    lockstep: Lockstep<PolicyInference>,
    sensors: ObservationWriter<ObservationSlot>,
    controller: Controller,
    clock: SimulatedClock,
    now: Timestamp,
}

impl Rig {
    fn new(policy: Policy) -> Rig {
        let now = Timestamp::from_nanos(1_000_000_000);
        let clock = SimulatedClock::new(now);
        let prompt = Some("pick up the cube".to_owned());
        let options = PolicyInferenceOptions { prompt, seed: 1, max_frame: (128, 96) };
        let inference = PolicyInference::new(policy, options).unwrap();
        let config = RuntimeConfig { max_errors: 3, ..RuntimeConfig::default() };
        let (lockstep, sensors, controller) = Lockstep::new(inference, &config, clock.clone()).unwrap();
        Rig { lockstep, sensors, controller, clock, now }
    }

    /// Publishes a good observation that was changed a little, and returns the status and events that come of it.
    fn observe(&mut self, change: impl FnOnce(&mut ObservationSlot)) -> (Status, Vec<Event>) {
        let now = self.now + Duration::from_secs(2);
        self.now = now;
        self.clock.set(now);
        let slot = self.sensors.slot();
        fill(slot, 96, 72);
        slot.clear_frame(2);
        change(slot);
        self.sensors.publish_at(now, now).unwrap();
        // As often as it likes.
        for _ in 0..20 {
            self.lockstep.run_until_idle();
        }
        let status = self.controller.read_at(now).status;
        (status, self.lockstep.runtime().events().try_iter().collect())
    }

    fn good(&mut self) {
        let (status, events) = self.observe(|_| {});
        assert_eq!(status, Status::Ok, "{events:?}");
        assert!(matches!(events[..], [Event::Chunk(_)]), "{events:?}");
    }

    fn bad(&mut self, words: &str, change: impl FnOnce(&mut ObservationSlot)) {
        let (status, events) = self.observe(change);
        assert_eq!(status, Status::Hold, "{words}");
        let [Event::ObservationRefused { error }] = &events[..] else { panic!("{words}: {events:?}") };
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn one_bad_observation_of_every_kind_and_then_a_good_one() {
    for bundle in [tiny(), tiny_pi05()] {
        let mut rig = Rig::new(load(&bundle).unwrap());
        rig.good();
        for round in 0..20 {
            rig.bad("state[3] is NaN", |slot| slot.state_mut()[3] = f32::NAN);
            rig.bad("state[0] is inf", |slot| slot.state_mut()[0] = f32::INFINITY);
            rig.bad("wrist", |slot| slot.clear_frame(1));
            rig.bad("too narrow", |slot| slot.frame_mut(0, 1, 4000).unwrap().fill(0));
            // Many in a row change nothing.
            if round % 2 == 0 {
                rig.good();
            }
        }
        rig.good();
        let stats = rig.lockstep.runtime().stats();
        assert_eq!((stats.phase, stats.inference.errors), (Phase::Ready, 0));
        assert_eq!(stats.inference.refused_observations, 80);
    }
}

/// The task and the state share PI0.5's prompt: what fits in one pose may not fit in another.
#[test]
fn a_prompt_that_is_too_long_for_one_pose_is_used_in_the_next() {
    let (short, long) = (-1e6f32, 1e6f32);
    let task = |words: usize| vec!["go"; words].join(" ");
    let mut policy = load(&tiny_pi05()).unwrap();
    let mut fits = |words: usize, value: f32| {
        let frame = pixels(96, 72, 0);
        let names: Vec<String> = policy.manifest().cameras.iter().map(|c| c.name.clone()).collect();
        let images: Vec<_> =
            names[..2].iter().map(|name| (name.as_str(), Frame::new(&frame, 96, 72).unwrap())).collect();
        let state = vec![value; policy.manifest().state.dim];
        let observation = Observation { images: &images, state: &state, prompt: Some(&task(words)) };
        policy.infer(&observation, &InferOptions::default()).is_ok()
    };
    let (mut most, mut too_many) = (1, 400);
    assert!(fits(most, long) && !fits(too_many, short));
    while too_many - most > 1 {
        let words = (most + too_many) / 2;
        *(if fits(words, long) { &mut most } else { &mut too_many }) = words;
    }
    assert!(fits(too_many, short), "the test must have something to show");

    let mut rig = Rig::new(policy);
    let (status, _) = rig.observe(|slot| slot.state_mut().fill(short));
    assert_eq!(status, Status::Ok);
    rig.lockstep.runtime().set_prompt(task(too_many)).unwrap();
    for _ in 0..5 {
        rig.bad("shorten the task", |slot| slot.state_mut().fill(long));
        let (status, events) = rig.observe(|slot| slot.state_mut().fill(short));
        assert_eq!(status, Status::Ok, "{events:?}");
    }
    assert_eq!(rig.lockstep.runtime().stats().inference.errors, 0);
}

/// A runtime that stopped gives its policy back, which computes what it computed before.
#[test]
fn a_policy_comes_back_from_its_runtime_as_good_as_before() {
    use pi0_edge::Runtime;
    use pi0_edge::runtime::{Realtime, ThreadConfig};
    fn chunk(policy: &mut Policy, bundle: &Path) -> Vec<f32> {
        let frame = pixels(96, 72, 0);
        let names: Vec<String> = policy.manifest().cameras.iter().map(|c| c.name.clone()).collect();
        let images: Vec<_> =
            names[..2].iter().map(|name| (name.as_str(), Frame::new(&frame, 96, 72).unwrap())).collect();
        let state = vec![0.1; policy.manifest().state.dim];
        let observation = Observation { images: &images, state: &state, prompt: Some("pick up the cube") };
        let chunk = policy.infer(&observation, &InferOptions::default());
        chunk.unwrap_or_else(|e| panic!("{}: {e}", bundle.display())).as_slice().to_vec()
    }
    let bundle = tiny();
    let mut policy = load(&bundle).unwrap();
    let before = chunk(&mut policy, &bundle);
    let thread = ThreadConfig { realtime: Realtime::Off, ..ThreadConfig::default() };
    let config = RuntimeConfig { thread, ..RuntimeConfig::default() };
    for _ in 0..3 {
        let prompt = Some("open the drawer".to_owned());
        let options = PolicyInferenceOptions { prompt, seed: 1, max_frame: (128, 96) };
        let inference = PolicyInference::new(policy, options).unwrap();
        let (runtime, _sensors, _controller) = Runtime::start(inference, &config).unwrap();
        policy = runtime.stop().unwrap().into_policy();
        assert_eq!(chunk(&mut policy, &bundle), before);
    }
}
