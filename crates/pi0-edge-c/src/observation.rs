//! The sensor side: filling an observation in place and handing it over.

use std::ffi::c_char;

use super::boundary::{
    grows, guard, guard_with, not_null, pi0_error, put, result_size, slice, string, write_result,
};
use super::frame::{camera_frame, pi0_camera_frame};
use super::handle::Table;
use super::status::{
    Fail, PI0_ERR_ARGUMENT, PI0_ERR_FUTURE, PI0_ERR_ORDER, PI0_ERR_RUNTIME, PI0_ERR_SIZE, Result, pi0_status,
};
use pi0_edge::runtime::{ObservationSlot, ObservationWriter, PublishError, Timestamp};

/// The sensor side of a runtime. It belongs to the first thread that calls with it.
#[derive(Debug)]
pub struct pi0_observation_writer {
    _opaque: (),
}

pub(super) static WRITERS: Table<pi0_observation_writer, ObservationWriter<ObservationSlot>> = Table::new(3);

/// The outcome of a publication.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pi0_published {
    /// `sizeof(pi0_published)`; set it before the call.
    pub struct_size: usize,
    /// 1 if the observation before this one was never looked at.
    pub overwrote: u32,
    /// 1 if the inference thread slept and was woken, which cost one system call.
    pub woke: u32,
}
grows!(pi0_published, woke);

/// The number of the camera called `name`, to be used with the other functions.
///
/// RT-safe: no. Thread: sensor.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_ARGUMENT (no such camera, or
/// not UTF-8), PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_observation_writer_camera(
    writer: *mut pi0_observation_writer,
    name: *const c_char,
    camera: *mut u32,
) -> pi0_status {
    guard(|| {
        let mut writer = WRITERS.owned(writer)?;
        // SAFETY: `name` is NULL or a string, as documented.
        let name = unsafe { string(name, "name") }?;
        let place = writer.slot().cameras().position(|camera| camera == name);
        let place = place.ok_or(Fail::new(PI0_ERR_ARGUMENT, "the policy has no camera of that name"))?;
        // SAFETY: `camera` is NULL or valid to write to, as documented.
        unsafe { put(camera, place as u32, "camera") }
    })
}

/// The pixels of a camera's frame, to be filled in place: `height * width * 3` bytes, RGB, rows from the top, without
/// gaps. The camera is present from now on. `pixels` is valid until the next `pi0_observation_writer_publish` or
/// `pi0_observation_writer_free`.
///
/// The slot holds some earlier observation, not the last: fill all of it, and clear the cameras that are absent.
///
/// RT-safe: yes. Thread: sensor.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_ARGUMENT (no such camera),
/// PI0_ERR_SIZE (a side is 0, or the frame is larger than the slot), PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
#[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
pub unsafe extern "C" fn pi0_observation_writer_frame(
    writer: *mut pi0_observation_writer,
    camera: u32,
    width: u32,
    height: u32,
    pixels: *mut *mut u8,
) -> pi0_status {
    guard(|| {
        let mut writer = WRITERS.owned(writer)?;
        not_null(pixels, "pixels is NULL")?;
        let frame = frame(writer.slot(), camera, width, height)?;
        // SAFETY: not NULL, so valid to write to as documented.
        unsafe { put(pixels, frame.as_mut_ptr(), "pixels") }
    })
}

fn frame(slot: &mut ObservationSlot, camera: u32, width: u32, height: u32) -> Result<&mut [u8]> {
    if camera as usize >= slot.cameras().count() {
        return Err(Fail::new(PI0_ERR_ARGUMENT, "the policy has no camera of that number"));
    }
    let room = slot.frame_mut(camera as usize, width, height);
    room.ok_or(Fail::new(PI0_ERR_SIZE, "a frame of no size, or larger than the slot has room for"))
}

/// Copies a camera's frame into its slot: RGB, rows from the top, each `row_bytes` after the one before, at least
/// `width * 3`. For drivers that have the frame in memory of their own. The camera is present from now on.
///
/// RT-safe: yes. Thread: sensor.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_ARGUMENT (no such camera),
/// PI0_ERR_SIZE (a side is 0, the frame is larger than the slot, or rows overlap), PI0_ERR_POISONED, PI0_ERR_FORKED,
/// PI0_ERR_PANIC.
#[unsafe(no_mangle)]
#[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
pub unsafe extern "C" fn pi0_observation_writer_set_frame(
    writer: *mut pi0_observation_writer,
    camera: u32,
    width: u32,
    height: u32,
    rgb: *const u8,
    row_bytes: usize,
) -> pi0_status {
    guard(|| {
        let mut writer = WRITERS.owned(writer)?;
        not_null(rgb, "rgb is NULL")?;
        let row = width as usize * 3;
        if row_bytes < row {
            return Err(Fail::new(PI0_ERR_SIZE, "row_bytes is less than a row has"));
        }
        // The last row need not be followed by a gap. Checked before the camera's slot is touched.
        let gaps = (height as usize).saturating_sub(1).checked_mul(row_bytes);
        let bytes = gaps.and_then(|gaps| gaps.checked_add(row));
        let bytes = bytes.ok_or(Fail::new(PI0_ERR_SIZE, "row_bytes is too large"))?;
        let frame = frame(writer.slot(), camera, width, height)?;
        // SAFETY: `rgb` has that many bytes, as documented.
        let rgb = unsafe { slice(rgb, bytes, "rgb") }?;
        for (to, from) in frame.chunks_exact_mut(row).zip(rgb.chunks(row_bytes)) {
            to.copy_from_slice(&from[..row]);
        }
        Ok(())
    })
}

/// Converts a camera's frame from the layout that its driver has it in to RGB, into its slot: no copy in between. The
/// camera is present from now on. A frame that is refused changes nothing: clear the camera, or give the next frame.
/// `error` may be NULL.
///
/// RT-safe: yes. Thread: sensor.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_STRUCT_SIZE, PI0_ERR_ARGUMENT (no
/// such camera, format or matrix, or a plane too many), PI0_ERR_SIZE (a side is 0, above 16384 or odd where it must be
/// even, the frame is larger than the slot, rows overlap, or a plane ends before its last row does), PI0_ERR_POISONED,
/// PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
#[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
pub unsafe extern "C" fn pi0_observation_writer_convert_frame(
    writer: *mut pi0_observation_writer,
    camera: u32,
    frame: *const pi0_camera_frame,
    error: *mut pi0_error,
) -> pi0_status {
    let body = || {
        let mut writer = WRITERS.owned(writer)?;
        // SAFETY: `frame` is NULL or as the structure's documentation says.
        let frame = unsafe { camera_frame(frame) }?;
        Ok(writer.slot().convert_frame(camera as usize, &frame)?)
    };
    // SAFETY: `error` is NULL or a structure, as documented.
    unsafe { guard_with(error, body) }
}

/// Marks a camera as absent.
///
/// RT-safe: yes. Thread: sensor.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_ARGUMENT (no such camera),
/// PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
#[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
pub unsafe extern "C" fn pi0_observation_writer_clear_frame(
    writer: *mut pi0_observation_writer,
    camera: u32,
) -> pi0_status {
    guard(|| {
        let mut writer = WRITERS.owned(writer)?;
        let slot = writer.slot();
        if camera as usize >= slot.cameras().count() {
            return Err(Fail::new(PI0_ERR_ARGUMENT, "the policy has no camera of that number"));
        }
        slot.clear_frame(camera as usize);
        Ok(())
    })
}

/// Copies the state into the slot: `len` values in robot units, which must be `state_dim`.
///
/// RT-safe: yes. Thread: sensor.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_SIZE, PI0_ERR_POISONED,
/// PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
#[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
pub unsafe extern "C" fn pi0_observation_writer_set_state(
    writer: *mut pi0_observation_writer,
    state: *const f32,
    len: usize,
) -> pi0_status {
    guard(|| {
        let mut writer = WRITERS.owned(writer)?;
        let slot = writer.slot().state_mut();
        not_null(state, "state is NULL")?;
        if len != slot.len() {
            return Err(Fail::new(PI0_ERR_SIZE, "the state does not have state_dim values"));
        }
        // SAFETY: not NULL, and `len` values as documented.
        slot.copy_from_slice(unsafe { slice(state, len, "state") }?);
        Ok(())
    })
}

/// Hands the filled observation over. `captured_ns` is when its oldest part was captured, on CLOCK_MONOTONIC; it must
/// not be later than now nor before that of the observation published last. `published` may be NULL.
///
/// Takes no lock and allocates nothing, but costs one system call if the inference thread sleeps.
///
/// RT-safe: no. Thread: sensor.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_STRUCT_SIZE, PI0_ERR_FUTURE,
/// PI0_ERR_ORDER, PI0_ERR_RUNTIME (inference has ended, nobody looks any more), PI0_ERR_POISONED, PI0_ERR_FORKED,
/// PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_observation_writer_publish(
    writer: *mut pi0_observation_writer,
    captured_ns: u64,
    published: *mut pi0_published,
) -> pi0_status {
    guard(|| {
        let mut writer = WRITERS.owned(writer)?;
        if !published.is_null() {
            // SAFETY: not NULL, so as documented. Before publishing, which cannot be taken back.
            unsafe { result_size(published, "published") }?;
        }
        if !writer.runtime_alive() {
            return Err(Fail::new(PI0_ERR_RUNTIME, "inference has ended, nobody looks at observations"));
        }
        let outcome = writer.publish(Timestamp::from_nanos(captured_ns)).map_err(|e| match e {
            PublishError::FromTheFuture { .. } => {
                Fail::new(PI0_ERR_FUTURE, "the capture time is later than now")
            }
            PublishError::OutOfOrder { .. } => Fail::new(PI0_ERR_ORDER, "the capture time goes back"),
        })?;
        if !published.is_null() {
            let result = pi0_published {
                struct_size: size_of::<pi0_published>(),
                overwrote: u32::from(outcome.overwrote),
                woke: u32::from(outcome.woke),
            };
            // SAFETY: not NULL, so as documented.
            unsafe { write_result(published, &result, "published") }?;
        }
        Ok(())
    })
}

/// Makes the calling thread the sensor thread, which the handle belongs to from now on.
///
/// RT-safe: yes. Thread: any.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
#[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
pub unsafe extern "C" fn pi0_observation_writer_attach(writer: *mut pi0_observation_writer) -> pi0_status {
    guard(|| WRITERS.attach(writer))
}

/// Frees the sensor side. NULL is fine.
///
/// RT-safe: no. Thread: any.
/// Statuses: PI0_OK, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_observation_writer_free(writer: *mut pi0_observation_writer) -> pi0_status {
    guard(|| WRITERS.free(writer))
}
