//! The runtime on its real threads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::fake::{Call, Fake, Fault};
use super::lockstep::{MS, config};
use crate::realtime::clock::Timestamp;
use crate::realtime::reading::{Flags, Status};
use crate::realtime::thread::{MemoryLock, Realtime, ThreadConfig};
use crate::runtime::*;

/// No rights asked for: other tests share the process.
fn plain() -> RuntimeConfig {
    RuntimeConfig { thread: ThreadConfig::off(), ..config() }
}

/// Waits for something that must happen; how long is the machine's business.
fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let begun = Timestamp::now();
    while !happened() {
        std::thread::sleep(MS);
        assert!(Timestamp::now().since(begun) < 60_000_000_000, "{what} never happened");
    }
}

fn observe(sensors: &mut ObservationWriter<f32>, value: f32) {
    *sensors.slot() = value;
    sensors.publish(Timestamp::now()).unwrap();
}

#[test]
fn warm_up_comes_first_and_on_the_inference_thread() {
    let fake = Fake::new(20, 1);
    let script = fake.script.clone();
    let (runtime, ..) = Runtime::start(fake, &plain()).unwrap();
    assert_eq!(script.lock().unwrap().calls, [Call::WarmUp]);
    assert_eq!(runtime.stats().phase, Phase::Ready);
    assert_eq!(runtime.realtime().realtime, Realtime::Off);
    runtime.stop().unwrap();
}

#[test]
fn failing_to_warm_up_fails_to_start() {
    for (fault, words) in [(Fault::Error, "told to fail"), (Fault::Panic, "told to panic")] {
        let fake = Fake::new(20, 1);
        fake.script.lock().unwrap().faults.insert(0, fault);
        let error = Runtime::start(fake, &plain()).unwrap_err().to_string();
        assert!(error.contains("warming up") && error.contains(words), "{error}");
    }
}

#[test]
fn a_missing_right_that_is_enforced_fails_to_start() {
    let thread = ThreadConfig {
        realtime: Realtime::Enforce,
        priority: None,
        cpus: vec![1023],
        worker_cpus: vec![],
        lock_memory: MemoryLock::Off,
        prefault_stack: 0,
        keep_heap: false,
    };
    let error =
        Runtime::start(Fake::new(20, 1), &RuntimeConfig { thread: thread.clone(), ..plain() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RealtimeDenied);
    let tried = RuntimeConfig { thread: ThreadConfig { realtime: Realtime::Try, ..thread }, ..plain() };
    let (runtime, ..) = Runtime::start(Fake::new(20, 1), &tried).unwrap();
    assert_eq!(runtime.realtime().missing[0].what, "CPU affinity");
}

#[test]
fn an_observation_becomes_an_action_and_stopping_becomes_hold() {
    let (runtime, mut sensors, mut controller) = Runtime::start(Fake::new(20, 2), &plain()).unwrap();
    assert_eq!(controller.read().status, Status::Empty);
    observe(&mut sensors, 3.0);
    eventually("an action", || controller.read().status == Status::Ok);
    assert_eq!(controller.action().unwrap(), [3.0, 3.0]);
    let chunk = runtime.events().recv().unwrap();
    assert!(matches!(chunk, Event::Chunk(info) if info.number == 1), "{chunk:?}");
    runtime.set_prompt("again").unwrap();
    runtime.stop().unwrap();
    let reading = controller.read();
    assert_eq!((reading.status, reading.flags & Flags::STOPPED), (Status::Hold, Flags::STOPPED));
    assert!(!sensors.runtime_alive());
}

#[test]
fn a_panic_on_the_inference_thread_is_hold_and_nothing_more() {
    let fake = Fake::new(20, 1);
    let script = fake.script.clone();
    let replan = Replan::Period(Duration::ZERO);
    let (runtime, mut sensors, mut controller) =
        Runtime::start(fake, &RuntimeConfig { replan, ..plain() }).unwrap();
    eventually("an action", || {
        observe(&mut sensors, 1.0);
        controller.read().status == Status::Ok
    });
    {
        let mut script = script.lock().unwrap();
        let soon = script.calls.len() + 8;
        script.faults.insert(soon, Fault::Panic);
    }
    eventually("giving up", || {
        observe(&mut sensors, 1.0);
        runtime.stats().phase == Phase::Failed
    });
    eventually("hold", || controller.read().status == Status::Hold);
    assert_eq!(controller.action().unwrap().len(), 1, "the last action is still there");
    assert!(runtime.set_num_steps(3).unwrap_err().to_string().contains("given up"));
    let error = runtime.stop().unwrap_err();
    assert!(error.to_string().contains("load the policy anew"), "{error}");
}

#[test]
fn a_policy_that_was_stopped_or_gave_up_is_started_again_without_loading() {
    let mut inference = Fake::new(20, 1);
    let script = inference.script.clone();
    let config = RuntimeConfig { max_errors: 2, retry_after: MS, ..plain() };
    for life in 0..4 {
        let (runtime, mut sensors, mut controller) = Runtime::start(inference, &config).unwrap();
        assert_eq!(controller.read().status, Status::Empty, "life {life}: nothing is left of the one before");
        observe(&mut sensors, life as f32);
        eventually("an action", || controller.read().status == Status::Ok);
        assert_eq!(controller.action().unwrap(), [life as f32]);
        if life % 2 == 0 {
            {
                let mut script = script.lock().unwrap();
                let next = script.calls.len();
                script.faults.extend((next..next + 10).map(|call| (call, Fault::Error)));
            }
            eventually("giving up", || {
                observe(&mut sensors, 9.0);
                controller.read();
                runtime.stats().phase == Phase::Failed
            });
            script.lock().unwrap().faults.clear();
        }
        inference = runtime.stop().unwrap();
        assert!(controller.read().flags.contains(Flags::STOPPED), "life {life}");
    }
    assert_eq!(script.lock().unwrap().calls.iter().filter(|c| **c == Call::WarmUp).count(), 4);
}

/// Everybody may end it, ask it and command it at the same time; each waits, none for the other.
#[test]
fn ending_from_many_threads_at_once_while_others_ask() {
    for _ in 0..20 {
        let (runtime, mut sensors, mut controller) = Runtime::start(Fake::new(20, 1), &plain()).unwrap();
        observe(&mut sensors, 1.0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| runtime.end().unwrap());
                scope.spawn(|| {
                    for _ in 0..50 {
                        runtime.begin_episode();
                        _ = (runtime.stats(), runtime.flight_record(), runtime.set_prompt("more"));
                    }
                });
            }
        });
        assert_eq!(runtime.stats().phase, Phase::Stopped);
        assert!(controller.read().flags.contains(Flags::STOPPED));
        assert!(runtime.take().is_some() && runtime.take().is_none());
    }
}

#[test]
fn a_hang_is_hold_while_it_lasts_and_does_not_keep_stopping_for_ever() {
    let fake = Fake::new(20, 1);
    let script = fake.script.clone();
    script.lock().unwrap().faults.insert(1 + 6 + 1, Fault::Slow(Duration::from_millis(1500)));
    let config = RuntimeConfig {
        replan: Replan::Period(Duration::ZERO),
        watchdog: 30 * MS,
        stop_timeout: 20 * MS,
        ..plain()
    };
    let (runtime, mut sensors, mut controller) = Runtime::start(fake, &config).unwrap();
    eventually("hanging", || {
        observe(&mut sensors, 1.0);
        let reading = controller.read();
        reading.flags.contains(Flags::HUNG) && reading.status == Status::Hold
    });
    let hung = |e: Event| matches!(e, Event::Hung { .. });
    eventually("the watch's event", || runtime.events().try_iter().any(hung));
    let error = runtime.stop().unwrap_err();
    assert!(error.to_string().contains("left behind"), "{error}");
    assert_eq!(controller.read().status, Status::Hold);
}

#[test]
fn publishing_while_inference_is_busy_costs_no_system_call() {
    let fake = Fake::new(20, 1);
    fake.script.lock().unwrap().begin_time = 50 * MS;
    let (runtime, mut sensors, _controller) = Runtime::start(fake, &plain()).unwrap();
    observe(&mut sensors, 0.0);
    eventually("beginning", || runtime.stats().quantum_age_ns.is_some());
    let woken = (0..100).filter(|i| {
        *sensors.slot() = *i as f32;
        sensors.publish(Timestamp::now()).unwrap().woke
    });
    // At most the one that finds inference asleep after it is done, if the machine was slow.
    assert!(woken.count() <= 2);
    runtime.stop().unwrap();
}

/// Control loop, sensors, commands and statistics all at once, for as long as it takes to see some chunks.
#[test]
fn everything_at_once() {
    let mut fake = Fake::new(20, 7);
    fake.spread = 0.1;
    fake.script.lock().unwrap().step_time = Duration::from_micros(200);
    let config = RuntimeConfig {
        rtc: Some(crate::policy::rtc::RtcConfig::default()),
        replan: Replan::Period(Duration::ZERO),
        ..plain()
    };
    let (runtime, mut sensors, mut controller) = Runtime::start(fake, &config).unwrap();
    let done = AtomicBool::new(false);
    /// Ends the other threads when one has failed.
    struct Ends<'a>(&'a AtomicBool);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let sensing = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                observe(&mut sensors, 5.0);
                std::thread::sleep(MS);
            }
        });
        let controlling = scope.spawn(|| {
            let _ends = Ends(&done);
            while !done.load(Ordering::Relaxed) {
                let reading = controller.read();
                if let Some(action) = controller.action() {
                    assert_eq!(action.len(), 7);
                    assert!(action.iter().all(|v| *v == action[0]), "torn: {action:?}");
                    assert!(reading.chunk > 0 || reading.status == Status::Empty);
                }
                std::thread::sleep(Duration::from_micros(500));
            }
        });
        let ends = Ends(&done);
        let mut events = 0;
        eventually("fifty chunks", || {
            _ = runtime.set_limits(None);
            events += runtime.events().try_iter().count();
            let record = runtime.flight_record();
            assert!(record.chunks.iter().all(|c| c.actions.iter().all(|a| a.iter().all(|v| *v == a[0]))));
            runtime.stats().inference.published >= 50
        });
        assert!(events > 0);
        drop(ends);
        // Joined one by one, because ThreadSanitizer does not see how the end of a scope waits.
        sensing.join().unwrap();
        controlling.join().unwrap();
    });
    let stats = runtime.stats();
    assert!(stats.inference.guided > 0 && stats.control.chunks > 0);
    runtime.stop().unwrap();
}
