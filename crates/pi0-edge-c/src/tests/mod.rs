//! Tests that only work from within: bugs stopped at the border, the table of handles, what is RT-safe.

mod handles;
pub(super) mod panics;
mod rt_safe;

use std::ffi::CString;
use std::ptr::null_mut;

use super::boundary::pi0_error;
use super::config::{PI0_REALTIME_OFF, pi0_runtime_config, pi0_thread_config};
use super::controller::{pi0_controller, pi0_controller_free};
use super::observation::{pi0_observation_writer, pi0_observation_writer_free};
use super::policy::{pi0_policy, pi0_policy_free, pi0_policy_new, pi0_policy_options};
use super::runtime::{pi0_runtime, pi0_runtime_free, pi0_runtime_start};
use super::status::{PI0_ERR_HANDLE, PI0_OK};

/// A runtime's handles, and a policy that is not taken over yet.
pub(super) struct World {
    pub(super) policy: *mut pi0_policy,
    pub(super) runtime: *mut pi0_runtime,
    pub(super) writer: *mut pi0_observation_writer,
    pub(super) controller: *mut pi0_controller,
}

fn open() -> *mut pi0_policy {
    let bundle = CString::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/pi0-tiny")).unwrap();
    let options = pi0_policy_options { threads: 1, no_spin: 1, ..Default::default() };
    let (mut policy, mut error) = (null_mut(), pi0_error { message: [0; _] });
    // SAFETY: every pointer is that of a local.
    let status = unsafe { pi0_policy_new(bundle.as_ptr(), &options, &mut policy, &mut error) };
    assert_eq!(status, PI0_OK);
    policy
}

impl World {
    pub(super) fn new() -> World {
        let thread = pi0_thread_config { realtime: PI0_REALTIME_OFF, ..Default::default() };
        let config = pi0_runtime_config {
            prompt: c"pick up the cube".as_ptr(),
            max_frame_width: 32,
            max_frame_height: 32,
            thread: &thread,
            ..Default::default()
        };
        let (mut runtime, mut writer, mut controller) = (null_mut(), null_mut(), null_mut());
        // SAFETY: every pointer is that of a local.
        let status = unsafe {
            pi0_runtime_start(open(), &config, &mut runtime, &mut writer, &mut controller, null_mut())
        };
        assert_eq!(status, PI0_OK);
        World { policy: open(), runtime, writer, controller }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // SAFETY: handles are never followed.
        let statuses = unsafe {
            [
                pi0_runtime_free(self.runtime),
                pi0_observation_writer_free(self.writer),
                pi0_controller_free(self.controller),
            ]
        };
        assert_eq!(statuses, [PI0_OK; 3], "a poisoned handle can be freed");
        // SAFETY: as above.
        let policy = unsafe { pi0_policy_free(self.policy) };
        assert!([PI0_OK, PI0_ERR_HANDLE].contains(&policy));
    }
}
