//! The runtime on a real policy: actions come out live, and a replay gives the same bits.

use std::time::{Duration, Instant};

use crate::common::{copy_of_tiny, load, load_tiny, pixels};
use pi0_edge::rtc::RtcConfig;
use pi0_edge::runtime::{
    Lockstep, MemoryLock, ObservationSlot, Phase, PolicyInference, PolicyInferenceOptions, Realtime, Replan,
    Runtime, RuntimeConfig, SimulatedClock, Status, ThreadConfig, Timestamp,
};

fn inference(seed: u64) -> PolicyInference {
    let prompt = Some("pick up the cube".to_owned());
    PolicyInference::new(load_tiny(), PolicyInferenceOptions { prompt, seed, max_frame: (128, 96) }).unwrap()
}

fn config(rtc: bool) -> RuntimeConfig {
    RuntimeConfig {
        thread: ThreadConfig { realtime: Realtime::Off, ..ThreadConfig::default() },
        rtc: rtc.then(|| RtcConfig { execution_horizon: 6, ..RtcConfig::default() }),
        replan: Replan::Remaining(6),
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
    let (runtime, mut observations, mut controller) = Runtime::start(inference(1), &config(true)).unwrap();
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
        Lockstep::new(inference(seed), &config, clock.clone()).unwrap();
    let mut actions = Vec::new();
    for tick in 0..200 {
        let now = Timestamp::from_nanos(1_000_000_000 + tick * 10_000_000);
        clock.set(now);
        if tick % 3 == 0 {
            look(observations.slot(), tick as usize);
            observations.publish_at(now, now).unwrap();
            lockstep.run_until_idle();
        }
        controller.read_at(now);
        actions.push(controller.action().map(<[f32]>::to_vec).unwrap_or_default());
    }
    assert!(lockstep.runtime().stats().inference.published >= 2, "{:?}", lockstep.runtime().stats());
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

/// One operator's work is shared between the inference thread and ONNX Runtime's own threads: the inference thread waits
/// for them, so they have its priority, on CPUs that can be chosen.
#[test]
fn onnx_runtimes_threads_have_the_priority_of_the_inference_thread_and_cpus_of_their_own() {
    let cpu = std::thread::available_parallelism().unwrap().get() - 1;
    let thread = ThreadConfig {
        realtime: Realtime::Try,
        priority: Some(5),
        worker_cpus: vec![cpu],
        lock_memory: MemoryLock::Off,
        prefault_stack: 0,
        keep_heap: false,
        ..ThreadConfig::default()
    };
    let (runtime, ..) = Runtime::start(inference(1), &RuntimeConfig { thread, ..config(false) }).unwrap();
    let obtained = runtime.realtime();
    assert_eq!(obtained.workers.len(), 3, "one beside the inference thread in each of three graphs");
    let denied = obtained.missing.iter().any(|m| m.what == "worker scheduling");
    for worker in &obtained.workers {
        let of =
            |file: &str| std::fs::read_to_string(format!("/proc/self/task/{}/{file}", worker.id)).unwrap();
        assert_eq!(of("comm").trim(), "pi0-worker");
        assert_eq!(worker.cpus, [cpu]);
        assert!(
            of("status").lines().any(|l| l.trim() == format!("Cpus_allowed_list:\t{cpu}")),
            "{}",
            of("status")
        );
        if !denied {
            assert_eq!((worker.scheduler, worker.priority), ("fifo", 5));
            let stat = of("stat");
            let after_name: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
            assert_eq!((after_name[37], after_name[38]), ("5", "1"), "rt_priority and policy in {stat}");
        }
    }
}

/// A chunk out of the bundle's limits is one rejected chunk, however often it comes: inference is not at fault.
#[test]
fn chunks_out_of_the_bundles_limits_are_rejected_and_counted_and_inference_goes_on() {
    let bundle = copy_of_tiny();
    let manifest = bundle.path().join("manifest.json");
    let mut edited: serde_json::Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    edited["action"]["limits"] = serde_json::json!({"min": vec![-1e-6; 7], "max": vec![1e-6; 7]});
    std::fs::write(&manifest, edited.to_string()).unwrap();
    let prompt = Some("pick up the cube".to_owned());
    let options = PolicyInferenceOptions { prompt, seed: 1, max_frame: (128, 96) };
    let inference = PolicyInference::new(load(bundle.path()).unwrap(), options).unwrap();
    let clock = SimulatedClock::default();
    let (mut lockstep, mut observations, mut controller) =
        Lockstep::new(inference, &config(false), clock.clone()).unwrap();
    for tick in 1..=15u64 {
        let now = Timestamp::from_nanos(tick * 100_000_000);
        clock.set(now);
        look(observations.slot(), tick as usize);
        observations.publish_at(now, now).unwrap();
        lockstep.run_until_idle();
        assert_eq!(controller.read_at(now).status, Status::Empty);
    }
    let stats = lockstep.runtime().stats();
    assert_eq!((stats.inference.rejected_limits, stats.inference.errors), (15, 0));
    assert_eq!(stats.phase, Phase::Ready);
    assert!(
        lockstep.runtime().flight_record().chunks[0].rejected.as_ref().unwrap().contains("out of limits")
    );
}
