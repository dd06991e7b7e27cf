//! Everything inference can do wrong, at every place it can do it.

use std::time::Duration;

use super::fake::{Call, Fake, Fault};
use super::lockstep::{MS, Rig, config};
use crate::Reject;
use crate::realtime::clock::{Clock, Timestamp};
use crate::realtime::reading::{Flags, Status};
use crate::runtime::*;

const ROWS: usize = 6;
const DIM: usize = 3;
/// Calls of one chunk: begin, four steps, finish.
const CALLS: usize = 6;

/// Panics that are on purpose need no report.
fn quietly<R>(f: impl FnOnce() -> R) -> R {
    use std::sync::Once;
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&"told to panic") {
                report(info);
            }
        }));
    });
    f()
}

fn faulty(faults: impl IntoIterator<Item = (usize, Fault)>, config: &RuntimeConfig) -> Rig {
    let rig = Rig::new(Fake::new(ROWS, DIM), config);
    rig.script.lock().unwrap().faults = faults.into_iter().collect();
    rig
}

/// Runs seven seconds and checks what must hold whatever inference does: a defined status, finite actions, no row
/// beyond what was planned. Returns the last reading's status and flags.
fn survive(rig: &mut Rig, what: &str) -> (Status, Flags) {
    let mut last = (Status::Empty, Flags::empty());
    rig.run(700, |reading, value| {
        assert!(value.is_none_or(f32::is_finite), "{what}: {value:?}");
        assert!(value.is_none_or(|v| v.abs() < 1e6), "{what}: {value:?} escaped");
        assert!(reading.status != Status::Ok || reading.age_ns <= 500_000_000, "{what}");
        assert!(value.is_some() || reading.status == Status::Empty, "{what}");
        last = (reading.status, reading.flags);
    });
    last
}

fn limited() -> RuntimeConfig {
    RuntimeConfig {
        limits: Some(ActionLimits { min: vec![-1000.0; DIM], max: vec![1000.0; DIM] }),
        replan: Replan::Remaining(3),
        retry_after: 20 * MS,
        ..config()
    }
}

#[test]
fn a_bad_value_at_any_place_in_any_step_never_comes_out() {
    let mut injected = 0;
    let mut escaped_the_flow = 0;
    for call in 1..CALLS {
        for index in 0..ROWS * DIM {
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30] {
                let what = format!("{value} at {index} in call {call}");
                // The third chunk goes wrong.
                let mut rig = faulty([(2 * CALLS + call, Fault::Value(index, value))], &limited());
                let last = survive(&mut rig, &what);
                assert_eq!(last.0, Status::Ok, "{what}: recovered");
                let stats = rig.runtime().stats().inference;
                let rejected = stats.rejected_non_finite + stats.rejected_limits;
                // What is put in before the last step may be healed by the flow: 1e30 is then as good as gone.
                assert!(rejected == 1 || call < CALLS - 1, "{what}: {stats:?}");
                if value.is_nan() || call == CALLS - 1 {
                    assert_eq!(rejected, 1, "{what}");
                }
                escaped_the_flow += rejected;
                let begun = stats.begun;
                assert_eq!(
                    stats.published + rejected,
                    begun - u64::from(stats.published + rejected != begun),
                    "{what}"
                );
                injected += 1;
            }
        }
    }
    println!("{injected} bad values put in, {escaped_the_flow} chunks rejected, 0 escapes");
}

#[test]
fn rejection_names_the_value_and_is_kept_in_the_flight_record() {
    let mut rig = faulty([(CALLS - 1, Fault::Value(7, f32::NAN))], &limited());
    rig.observe();
    rig.run_until_idle();
    assert_eq!(rig.events(), [Event::Rejected { chunk: 1, reason: Reject::NonFinite { index: 7 } }]);
    let record = rig.runtime().flight_record();
    assert!(record.chunks[0].rejected.as_ref().unwrap().contains("value 7"));
    assert!(record.chunks[0].actions[2][1].is_nan());
    assert_eq!(rig.read().0.status, Status::Empty, "it never reached the control loop");
}

#[test]
fn every_fault_at_every_call_ends_in_a_defined_status() {
    let faults = [
        Fault::Error,
        Fault::Panic,
        Fault::Slow(30 * MS),
        Fault::Slow(Duration::from_secs(5)),
        Fault::Length(0),
        Fault::Length(ROWS * DIM - 1),
        Fault::Length(usize::MAX),
    ];
    let mut points = 0;
    for call in 0..3 * CALLS {
        for fault in &faults {
            let what = format!("{fault:?} in call {call}");
            let mut rig = faulty([(call, fault.clone())], &limited());
            let (status, flags) = quietly(|| survive(&mut rig, &what));
            let stats = rig.runtime().stats();
            match fault {
                Fault::Panic => {
                    assert_eq!((stats.phase, stats.inference.panics), (Phase::Failed, 1), "{what}");
                    assert!(flags.contains(Flags::STOPPED), "{what}");
                    assert!(matches!(status, Status::Hold | Status::Empty), "{what}: {status:?}");
                    assert_eq!(rig.calls().len(), call + 1, "{what}: inference that panicked is left alone");
                    let gave_up =
                        |e: &Event| matches!(e, Event::GaveUp { error } if error.contains("told to panic"));
                    assert!(rig.events().iter().any(gave_up), "{what}");
                    assert!(rig.runtime().set_prompt("more").is_err(), "{what}");
                }
                _ => assert_eq!((stats.phase, status), (Phase::Ready, Status::Ok), "{what}: recovered"),
            }
            if matches!(fault, Fault::Error) {
                assert_eq!(stats.inference.errors, 1, "{what}");
            }
            points += 1;
        }
    }
    println!("{points} faults put in, every one ended in a defined status");
}

#[test]
fn errors_in_a_row_end_in_giving_up_and_hold_for_good() {
    let always = (3 * CALLS..1000).map(|call| (call, Fault::Error));
    let mut rig = faulty(always, &RuntimeConfig { max_errors: 5, ..limited() });
    let (status, flags) = survive(&mut rig, "failing for ever");
    assert_eq!((status, flags & Flags::STOPPED), (Status::Hold, Flags::STOPPED));
    let stats = rig.runtime().stats();
    assert_eq!((stats.phase, stats.inference.errors), (Phase::Failed, 5));
    let events = rig.events();
    let last = events.iter().rev().find(|e| !matches!(e, Event::FlightRecord { .. })).unwrap();
    assert!(matches!(last, Event::GaveUp { error } if error.contains("5 errors in a row")), "{last:?}");
    // Errors with a success in between are not in a row.
    let now_and_then = (0..200).map(|i| (i * 10, Fault::Error));
    let mut rig = faulty(now_and_then, &RuntimeConfig { max_errors: 2, ..limited() });
    survive(&mut rig, "failing now and then");
    assert_eq!(rig.runtime().stats().phase, Phase::Ready);
    assert!(rig.runtime().stats().inference.errors > 2);
}

/// An observation that the policy cannot use is told once and not tried again, however long nothing better comes; the
/// first good one brings an action.
#[test]
fn observations_that_cannot_be_used_are_refused_once_each_and_for_hours() {
    for (kind, replan) in
        [(ErrorKind::NonFinite, Replan::Remaining(3)), (ErrorKind::Observation, Replan::Period(40 * MS))]
    {
        // Without limits, because the robot goes far in two hours.
        let config = RuntimeConfig { max_errors: 2, replan, limits: None, ..limited() };
        let mut rig = faulty([], &config);
        survive(&mut rig, "before");
        let begun = |rig: &Rig| rig.calls().iter().filter(|c| matches!(c, Call::Begin { .. })).count();
        let refused = |rig: &Rig| rig.runtime().stats().inference.refused_observations;
        rig.events();

        // One, and then nothing for a second and a half.
        let next = rig.calls().len();
        rig.script.lock().unwrap().faults.insert(next, Fault::Refuse(kind));
        let before = begun(&rig);
        rig.observe();
        rig.clock.advance(50 * MS);
        for _ in 0..150 {
            rig.run_until_idle();
            rig.clock.advance(10 * MS);
        }
        assert_eq!((begun(&rig), refused(&rig)), (before + 1, 1), "{kind:?}: tried once");
        assert_eq!(rig.events(), [Event::ObservationRefused { error: "told to refuse".into() }], "told once");
        assert_eq!(rig.tick(1).status, Status::Hold, "{kind:?}: by its age");
        rig.observe();
        rig.run_until_idle();
        assert_eq!(rig.tick(1).status, Status::Ok, "{kind:?}: the first good one");

        // Two hours of them, ten a second.
        let next = rig.calls().len();
        rig.script
            .lock()
            .unwrap()
            .faults
            .extend((next..next + 72_000).map(|call| (call, Fault::Refuse(kind))));
        while refused(&rig) < 72_001 {
            rig.clock.advance(100 * MS);
            rig.observe();
            rig.run_until_idle();
        }
        let stats = rig.runtime().stats();
        assert_eq!((stats.phase, stats.inference.errors), (Phase::Ready, 0), "{kind:?}");
        assert_eq!(rig.tick(1).status, Status::Hold);
        rig.clock.advance(100 * MS);
        rig.observe();
        rig.run_until_idle();
        assert_eq!(rig.tick(1).status, Status::Ok, "{kind:?}: the first good one after two hours");
    }
}

/// Errors of the input and of inference do not add up, and the first do not forgive the second.
#[test]
fn refused_observations_neither_count_as_errors_in_a_row_nor_end_the_row() {
    let refuse = |call| (call, Fault::Refuse(ErrorKind::NonFinite));
    let fail = |call| (call, Fault::Error);
    let mut rig = faulty(
        [fail(0), refuse(1), refuse(2), fail(3), refuse(4)],
        &RuntimeConfig { max_errors: 2, ..limited() },
    );
    survive(&mut rig, "mixed");
    let stats = rig.runtime().stats();
    assert_eq!((stats.phase, stats.inference.errors), (Phase::Failed, 2));
    assert_eq!(stats.inference.refused_observations, 2);
}

/// Frozen for good at 1 000 random moments: STALE on the first tick past `max_age`, HOLD on the first past
/// `hold_after`, every time.
#[test]
fn frozen_inference_is_stale_then_hold_in_time_every_time() {
    let mut random = 12345u64;
    let mut hold_at_most = 0;
    for freeze in 0..1000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Long chunks, so that nothing else ends in HOLD.
        let mut rig =
            Rig::new(Fake::new(100, 1), &RuntimeConfig { replan: Replan::Remaining(90), ..config() });
        rig.script.lock().unwrap().step_time = MS;
        let ticks = 20 + (random >> 33) as usize % 100;
        rig.run(ticks, |reading, _| assert!(matches!(reading.status, Status::Ok | Status::Empty)));
        // From here on nobody turns the worker.
        for _ in 0..120 {
            let (reading, _) = rig.read();
            let want = match reading.age_ns / 1_000_000 {
                ..=500 => Status::Ok,
                501..=1000 => Status::Stale,
                _ => Status::Hold,
            };
            assert_eq!(reading.status, want, "freeze {freeze}, age {} ns", reading.age_ns);
            if want == Status::Hold && hold_at_most < reading.age_ns {
                hold_at_most = hold_at_most.max(reading.age_ns.min(1_010_000_000));
            }
            rig.clock.advance(10 * MS);
        }
        assert_eq!(rig.read().0.status, Status::Hold);
    }
    assert!(hold_at_most <= 1_010_000_000, "one tick past the limit");
}

#[test]
fn a_hung_step_is_seen_by_the_control_loop_and_by_the_watch() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flight.json");
    let config = RuntimeConfig { watchdog: 100 * MS, flight_record: Some(path.clone()), ..config() };
    let mut rig = Rig::new(Fake::new(20, 1), &config);
    rig.run(30, |_, _| {});
    let now = rig.clock.now();
    // The heartbeat as the worker leaves it while inference does not come back.
    rig.lockstep.runtime.shared.quantum_begins(now);
    let read_after = |rig: &mut Rig, ms: u32| {
        rig.clock.set(now + ms * MS);
        rig.lockstep.watch_at(now + ms * MS);
        rig.read().0
    };
    assert_eq!(read_after(&mut rig, 100).status, Status::Ok);
    let reading = read_after(&mut rig, 110);
    assert_eq!((reading.status, reading.flags & Flags::HUNG), (Status::Hold, Flags::HUNG));
    read_after(&mut rig, 120);
    rig.lockstep.runtime.shared.quantum_ends();
    let reading = read_after(&mut rig, 130);
    assert_eq!((reading.status, reading.flags & Flags::HUNG), (Status::Ok, Flags::empty()));
    let events: Vec<_> = rig.events().into_iter().filter(|e| !matches!(e, Event::Chunk(_))).collect();
    let written = Event::FlightRecord { outcome: Ok(path.clone()) };
    assert_eq!(events, [Event::Hung { for_ns: 110_000_000 }, written, Event::Recovered]);
    assert!(std::fs::read_to_string(&path).unwrap().contains("\"ticks\""));
}

#[test]
fn a_trip_is_reported_and_the_flight_record_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flight.json");
    let base = config();
    let mut config = RuntimeConfig { flight_record: Some(path.clone()), ..base };
    config.timeline.step_limits = Some(vec![0.01]);
    config.timeline.trip_after = 5;
    let mut rig = Rig::new(Fake::new(20, 1), &config);
    rig.run(60, |_, _| {});
    assert_eq!(rig.read().0.status, Status::Hold);
    assert_eq!(rig.runtime().stats().control.trips, 1);
    let events = rig.events();
    assert!(events.contains(&Event::Tripped));
    assert!(events.contains(&Event::FlightRecord { outcome: Ok(path.clone()) }));
    let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let flags: Vec<_> = json["ticks"].as_array().unwrap().iter().map(|t| t["flags"].to_string()).collect();
    assert!(flags.iter().any(|f| f.contains("tripped")), "{flags:?}");
    rig.controller.clear_trip();
    rig.clock.advance(10 * MS);
    assert_ne!(rig.read().0.status, Status::Hold);
    // A place that cannot be written to is an event, not a failure.
    config.flight_record = Some(folder.path().join("no/such/folder/flight.json"));
    let mut rig = Rig::new(Fake::new(20, 1), &config);
    rig.run(60, |_, _| {});
    assert!(rig.events().iter().any(|e| matches!(e, Event::FlightRecord { outcome: Err(_) })));
}

/// 10^5 clean chunks, some of them at the very limits: none rejected. Prints what checking one costs.
#[test]
fn clean_chunks_raise_no_false_alarm() {
    let (rows, dim) = (50, 32);
    let limits = ActionLimits { min: vec![-10.0; 32], max: vec![10.0; 32] };
    let mut values = vec![0.0f32; rows * dim];
    let (mut random, mut spent) = (1u64, 0u64);
    for chunk in 0..100_000 {
        for value in values.iter_mut().step_by(7) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *value = (random >> 40) as f32 / (1u64 << 24) as f32 * 20.0 - 10.0;
        }
        values[chunk % (rows * dim)] = if chunk % 2 == 0 { 10.0 } else { -10.0 };
        let begun = Timestamp::now();
        assert_eq!(limits.check(&values), Ok(()), "chunk {chunk}");
        spent += Timestamp::now().since(begun);
    }
    println!("100000 clean chunks of {rows}x{dim}: 0 false alarms, {:.2} µs each", spent as f64 / 1e8);
}

#[test]
fn a_call_log_shows_one_chunk_at_a_time() {
    let mut rig = Rig::new(Fake::new(20, 1), &config());
    rig.run(100, |_, _| {});
    let calls = rig.calls();
    let whole = [0, 1, 2, 3].map(Call::Step);
    for chunk in calls.chunks_exact(CALLS) {
        assert!(matches!(chunk[0], Call::Begin { .. }));
        assert_eq!((&chunk[1..5], &chunk[5]), (&whole[..], &Call::Finish));
    }
}
