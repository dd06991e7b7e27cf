//! Calls every C function that is marked RT-safe, rightly and wrongly: under RealtimeSanitizer the first allocation, lock
//! or system call in one of them ends the test.

use std::ffi::CStr;
use std::ptr::null_mut;

use super::super::boundary::{PI0_ERROR_SIZE, pi0_error};
use super::super::config::*;
use super::super::controller::*;
use super::super::frame::*;
use super::super::inference::*;
use super::super::observation::*;
use super::super::policy::*;
use super::super::rtc::*;
use super::super::runtime::pi0_runtime_begin_episode;
use super::super::status::*;
use super::super::version::*;
use super::World;

/// Fills settings rightly, and not at all with a wrong size.
macro_rules! fill {
    ($($function:ident($settings:ty)),+) => {
        $({
            let mut settings = <$settings>::default();
            let size = size_of::<$settings>();
            // SAFETY: the structure is a local's, and larger than the wrong size.
            let statuses = unsafe {
                [$function(&mut settings, size), $function(&mut settings, 3), $function(null_mut(), size)]
            };
            assert_eq!(statuses, [PI0_OK, PI0_ERR_STRUCT_SIZE, PI0_ERR_NULL]);
        })+
    };
}

#[test]
fn what_is_marked_rt_safe_allocates_locks_and_waits_for_nothing() {
    assert!(pi0_now_ns() > 0);
    // SAFETY: both are static strings.
    let texts = unsafe { [CStr::from_ptr(pi0_version()), CStr::from_ptr(pi0_status_str(PI0_HOLD))] };
    assert!(texts.iter().all(|text| !text.is_empty()));
    fill!(
        pi0_policy_options_default(pi0_policy_options),
        pi0_infer_options_default(pi0_infer_options),
        pi0_rtc_config_default(pi0_rtc_config),
        pi0_thread_config_default(pi0_thread_config)
    );

    let world = World::new();
    let (writer, controller) = (world.writer, world.controller);
    let (state, pixels, mut frame) = ([0f32; 6], [0u8; 12], null_mut());
    let nv12 = pi0_camera_frame {
        format: PI0_PIXELS_NV12,
        width: 2,
        height: 2,
        data: pixels.as_ptr(),
        data_size: 4,
        row_bytes: 2,
        chroma: pixels.as_ptr(),
        chroma_size: 2,
        chroma_row_bytes: 2,
        ..Default::default()
    };
    let cut_off = pi0_camera_frame { chroma_size: 1, ..nv12 };
    let mut rgb = [0u8; 12];
    let mut error = pi0_error { message: [0; PI0_ERROR_SIZE] };
    // SAFETY: handles are never followed, and every other pointer is that of a local of the size said.
    let statuses = unsafe {
        [
            pi0_observation_writer_attach(writer),
            pi0_observation_writer_frame(writer, 0, 2, 2, &mut frame),
            pi0_observation_writer_set_frame(writer, 1, 2, 2, pixels.as_ptr(), 6),
            pi0_observation_writer_convert_frame(writer, 1, &nv12, null_mut()),
            pi0_camera_frame_to_rgb(&nv12, rgb.as_mut_ptr(), 12, null_mut()),
            pi0_observation_writer_clear_frame(writer, 1),
            pi0_observation_writer_set_state(writer, state.as_ptr(), 6),
            pi0_controller_attach(controller),
            pi0_controller_set_reference(controller, [0f32; 7].as_ptr(), 7),
            pi0_controller_set_step_limits(controller, [f32::INFINITY; 7].as_ptr(), 7),
            pi0_controller_set_state(controller, [0f32; 7].as_ptr(), 7),
            pi0_controller_clear_trip(controller),
            // Forgets the reference again, unless it is told after it.
            pi0_runtime_begin_episode(world.runtime),
            pi0_controller_set_reference(controller, [0f32; 7].as_ptr(), 7),
        ]
    };
    assert_eq!(statuses, [PI0_OK; 14]);
    let mut action = [1f32; 7];
    // SAFETY: any bits are a reading.
    let mut reading: pi0_reading = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let statuses = unsafe {
        [
            pi0_observation_writer_convert_frame(writer, 0, &cut_off, &mut error),
            pi0_controller_read(controller, action.as_mut_ptr(), 7, &mut reading),
            pi0_controller_read(controller, action.as_mut_ptr(), 6, null_mut()),
            pi0_controller_read(controller, null_mut(), 7, null_mut()),
            pi0_controller_read(std::ptr::without_provenance_mut(7), action.as_mut_ptr(), 7, null_mut()),
        ]
    };
    assert_eq!(statuses, [PI0_ERR_SIZE, PI0_ERR_STRUCT_SIZE, PI0_ERR_SIZE, PI0_ERR_NULL, PI0_ERR_HANDLE]);
    // SAFETY: a failing call ends it with a NUL.
    let words = unsafe { CStr::from_ptr(error.message.as_ptr()) };
    assert!(words.to_string_lossy().contains("cut off"), "{words:?}");
    reading.struct_size = size_of::<pi0_reading>();
    // SAFETY: as above.
    let status = unsafe { pi0_controller_read(controller, action.as_mut_ptr(), 7, &mut reading) };
    assert_eq!(
        (status, reading.has_action, action),
        (PI0_EMPTY, 1, [0.0; 7]),
        "the reference, and no chunk yet"
    );
}
