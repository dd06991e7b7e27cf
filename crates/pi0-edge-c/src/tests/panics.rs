//! A panic in any function becomes PI0_ERR_PANIC, its handle can only be freed after it, and everything else goes on.

use std::cell::Cell;
use std::ptr::{null, null_mut};

use super::super::boundary::{guard_with, pi0_error};
use super::super::controller::*;
use super::super::observation::*;
use super::super::policy::*;
use super::super::runtime::*;
use super::super::status::*;
use super::World;

thread_local! {
    static PLANTED: Cell<bool> = const { Cell::new(false) };
}

/// Panics if a panic was planted on this thread. Called wherever a handle has just been found good.
pub(crate) fn planted() {
    if PLANTED.take() {
        panic!("planted");
    }
}

type Call = (&'static str, fn(&World) -> pi0_status);

/// Names each function once and calls it with the world's handle of its kind and nothing else of use: the handle is
/// looked at first.
macro_rules! calls {
    ($($handle:ident: $($name:ident($($argument:expr),*))+;)+) => {
        // SAFETY: handles are never followed, and the calls do not get beyond them.
        &[$($((stringify!($name), |world| unsafe { $name(world.$handle $(, $argument)*) })),+),+]
    };
}

const CALLS: &[Call] = calls! {
    policy:
        pi0_policy_info(null_mut())
        pi0_policy_camera(0, null_mut(), 0, null_mut())
        pi0_policy_infer(null(), null(), null_mut(), 0, null_mut())
        pi0_policy_timing(null_mut())
        pi0_runtime_start(null(), null_mut(), null_mut(), null_mut(), null_mut());
    runtime:
        pi0_runtime_stop(null_mut())
        pi0_runtime_info(null_mut())
        pi0_runtime_realtime(null_mut())
        pi0_runtime_notify_systemd(null_mut(), null_mut())
        pi0_runtime_set_prompt(null())
        pi0_runtime_set_num_steps(1)
        pi0_runtime_set_limits(null())
        pi0_runtime_set_rtc(null())
        pi0_runtime_stats(null_mut())
        pi0_runtime_next_event(0, null_mut())
        pi0_runtime_write_flight_record(null(), null_mut())
        pi0_runtime_begin_episode()
        pi0_runtime_take_policy(null_mut(), null_mut());
    writer:
        pi0_observation_writer_camera(null(), null_mut())
        pi0_observation_writer_frame(0, 1, 1, null_mut())
        pi0_observation_writer_set_frame(0, 1, 1, null(), 3)
        pi0_observation_writer_convert_frame(0, null(), null_mut())
        pi0_observation_writer_clear_frame(0)
        pi0_observation_writer_set_state(null(), 0)
        pi0_observation_writer_publish(0, null_mut())
        pi0_observation_writer_attach();
    controller:
        pi0_controller_read(null_mut(), 0, null_mut())
        pi0_controller_set_reference(null(), 0)
        pi0_controller_set_step_limits(null(), 0)
        pi0_controller_set_state(null(), 0)
        pi0_controller_clear_trip()
        pi0_controller_attach();
};

#[test]
fn every_function_that_takes_a_handle_stops_a_panic() {
    let header = include_str!("../../include/pi0_edge.h");
    let freeing =
        header.lines().filter(|line| line.starts_with("pi0_status") && line.contains("_free(")).count();
    let takes = |line: &&str| {
        line.starts_with("pi0_status pi0_")
            && ["_policy *", "_runtime *", "_writer *", "_controller *"].iter().any(|h| line.contains(h))
    };
    assert_eq!(header.lines().filter(takes).count(), CALLS.len() + freeing, "a function is missing in CALLS");

    for (name, call) in CALLS {
        let world = World::new();
        PLANTED.set(true);
        assert_eq!(call(&world), PI0_ERR_PANIC, "{name}");
        assert!(!PLANTED.get(), "{name} did not come to where the panic was");
        assert_eq!(call(&world), PI0_ERR_POISONED, "{name}");
        // The other handles are none the worse for it.
        let sound = CALLS.iter().filter(|(other, _)| {
            ["pi0_controller_clear_trip", "pi0_runtime_set_rtc", "pi0_observation_writer_clear_frame"]
                .contains(other)
        });
        let statuses: Vec<_> = sound.map(|(_, call)| call(&world)).collect();
        assert!(statuses.iter().filter(|status| **status == PI0_OK).count() >= 2, "{name}: {statuses:?}");
    }
}

#[test]
fn a_panic_says_what_it_said() {
    let mut error = pi0_error { message: [0; _] };
    // SAFETY: the error is a local's.
    let status = unsafe { guard_with::<()>(&mut error, || panic!("at {}", 7)) };
    assert_eq!(status, PI0_ERR_PANIC);
    // SAFETY: a failing call ends it with a NUL.
    let words = unsafe { std::ffi::CStr::from_ptr(error.message.as_ptr()) };
    assert_eq!(words, c"at 7");
}
