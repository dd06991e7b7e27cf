//! The control loop's side: the action for now, and how far it can be relied on.

use super::boundary::{grows, guard, not_null, result_size, slice, slice_mut, write_result};
use super::handle::Table;
use super::status::{
    Fail, PI0_EMPTY, PI0_ERR_ARGUMENT, PI0_ERR_NON_FINITE, PI0_ERR_SIZE, PI0_HOLD, PI0_OK, PI0_STALE, Result,
    pi0_status,
};
use pi0_edge::runtime::{Controller, Status};

/// The control loop's side of a runtime. It belongs to the first thread that calls with it.
#[derive(Debug)]
pub struct pi0_controller {
    _opaque: (),
}

pub(super) static CONTROLLERS: Table<pi0_controller, Control> = Table::new(4);

pub(super) struct Control {
    pub(super) controller: Controller,
    pub(super) action_dim: usize,
}

/// The first read from a chunk.
pub const PI0_FLAG_NEW_CHUNK: u32 = 1;
/// The chunk was used up before the next one came.
pub const PI0_FLAG_UNDERRUN: u32 = 2;
/// At least one joint was kept from moving further than its step limit.
pub const PI0_FLAG_CLAMPED: u32 = 4;
/// The step limit tripped: held until the trip is cleared.
pub const PI0_FLAG_TRIPPED: u32 = 8;
/// Motion is coming to rest along the plan.
pub const PI0_FLAG_RAMPING: u32 = 16;
/// Control ticks were missed since the read before.
pub const PI0_FLAG_MISSED_TICKS: u32 = 32;
/// This control tick was read before; the action is the same.
pub const PI0_FLAG_REPEATED: u32 = 64;
/// Inference has been in one step for longer than the watchdog allows.
pub const PI0_FLAG_HUNG: u32 = 128;
/// Inference has given up or ended.
pub const PI0_FLAG_STOPPED: u32 = 256;
/// A chunk took over by time, because `splice` is `PI0_SPLICE_STATE` and no state was handed in for this tick.
pub const PI0_FLAG_UNMEASURED: u32 = 512;

/// Everything a read says beside the action itself.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pi0_reading {
    /// `sizeof(pi0_reading)`; set it once, before the first call.
    pub struct_size: usize,
    /// Nanoseconds from the capture of the chunk's observation to now, those included that the machine slept; 0 before the
    /// first chunk.
    pub age_ns: u64,
    /// The chunk the action comes from, from 1; 0 before the first.
    pub chunk: u64,
    /// The control tick, from 0 at the first read.
    pub tick: u64,
    /// `PI0_OK`, `PI0_STALE`, `PI0_HOLD` or `PI0_EMPTY`, as returned.
    pub status: pi0_status,
    /// `PI0_FLAG_...`, any number of them.
    pub flags: u32,
    /// The row of the chunk that is being executed.
    pub row: u32,
    /// Rows of the chunk that have not begun.
    pub remaining: u32,
    /// Control ticks missed since the read before.
    pub missed: u32,
    /// 1 if an action was written; 0 while there has been neither a chunk nor a reference.
    pub has_action: u32,
    /// On the first action from a chunk: the largest distance of any joint from the action before to the one the
    /// chunk asks for, before the step limit, in robot units. 0 otherwise.
    pub seam_jump: f32,
    /// 0.
    pub reserved: u32,
}
grows!(pi0_reading, reserved);

/// Reads the action for now: call it once per control period.
///
/// `action` gets `action_dim` values in robot units, which `action_len` must be; in `PI0_HOLD` it is the last action,
/// held. It is left alone while there has been neither a chunk nor a reference (`PI0_EMPTY`, `has_action` 0).
/// `reading` may be NULL. Takes no lock, makes no system call, allocates nothing and finishes in a bounded number of
/// steps, whatever inference is doing.
///
/// RT-safe: yes. Thread: control.
/// Statuses: PI0_OK, PI0_STALE, PI0_HOLD, PI0_EMPTY, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD,
/// PI0_ERR_SIZE, PI0_ERR_STRUCT_SIZE, PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
#[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
pub unsafe extern "C" fn pi0_controller_read(
    controller: *mut pi0_controller,
    action: *mut f32,
    action_len: usize,
    reading: *mut pi0_reading,
) -> pi0_status {
    guard(|| {
        let mut control = CONTROLLERS.owned(controller)?;
        not_null(action, "action is NULL")?;
        if action_len != control.action_dim {
            return Err(Fail::new(PI0_ERR_SIZE, "action_len is not action_dim"));
        }
        // SAFETY: not NULL, and `action_len` values as documented.
        let out = unsafe { slice_mut(action, action_len, "action") }?;
        if !reading.is_null() {
            // SAFETY: not NULL, so as documented. Before the tick is taken.
            unsafe { result_size(reading, "reading") }?;
        }
        let read = control.controller.read();
        let status = match read.status {
            Status::Ok => PI0_OK,
            Status::Stale => PI0_STALE,
            Status::Hold => PI0_HOLD,
            Status::Empty => PI0_EMPTY,
        };
        let action = control.controller.action();
        if let Some(action) = action {
            out.copy_from_slice(action);
        }
        if !reading.is_null() {
            let result = pi0_reading {
                struct_size: size_of::<pi0_reading>(),
                age_ns: read.age_ns,
                chunk: read.chunk,
                tick: read.tick,
                status,
                flags: read.flags.bits(),
                row: read.row,
                remaining: read.remaining,
                missed: read.missed,
                has_action: u32::from(action.is_some()),
                seam_jump: read.seam_jump,
                reserved: 0,
            };
            // SAFETY: not NULL, so as documented.
            unsafe { write_result(reading, &result, "reading") }?;
        }
        Ok(status)
    })
}

/// Tells where the robot is before the first action, so that the first step is limited too; it is the action until
/// there is a chunk. `len` values in robot units, which must be `action_dim`.
///
/// RT-safe: yes. Thread: control.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_SIZE, PI0_ERR_NON_FINITE,
/// PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
#[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
pub unsafe extern "C" fn pi0_controller_set_reference(
    controller: *mut pi0_controller,
    position: *const f32,
    len: usize,
) -> pi0_status {
    guard(|| {
        let mut control = CONTROLLERS.owned(controller)?;
        // SAFETY: `position` is NULL or has `len` values, as documented.
        let position = unsafe { joints(position, len, control.action_dim) }?;
        match control.controller.set_reference(position) {
            true => Ok(()),
            false => Err(Fail::new(PI0_ERR_NON_FINITE, "a position is not finite")),
        }
    })
}

/// Sets how far each joint may move from one tick to the next, in robot units; infinity: no limit. `len` values, which
/// must be `action_dim`.
///
/// RT-safe: yes. Thread: control.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_SIZE, PI0_ERR_ARGUMENT (a
/// limit is not positive), PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
#[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
pub unsafe extern "C" fn pi0_controller_set_step_limits(
    controller: *mut pi0_controller,
    limits: *const f32,
    len: usize,
) -> pi0_status {
    guard(|| {
        let mut control = CONTROLLERS.owned(controller)?;
        // SAFETY: `limits` is NULL or has `len` values, as documented.
        let limits = unsafe { joints(limits, len, control.action_dim) }?;
        match control.controller.set_step_limits(limits) {
            true => Ok(()),
            false => Err(Fail::new(PI0_ERR_ARGUMENT, "a step limit is not positive")),
        }
    })
}

/// Hands in the measured state for the next read, for `PI0_SPLICE_STATE`. `len` values, which must be `action_dim`: one
/// for each joint of an action, in the units of the observation's state, NaN for a joint that is not measured.
///
/// RT-safe: yes. Thread: control.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_SIZE, PI0_ERR_NON_FINITE (a
/// value is infinite, or none is a number), PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
#[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
pub unsafe extern "C" fn pi0_controller_set_state(
    controller: *mut pi0_controller,
    state: *const f32,
    len: usize,
) -> pi0_status {
    guard(|| {
        let mut control = CONTROLLERS.owned(controller)?;
        // SAFETY: `state` is NULL or has `len` values, as documented.
        let state = unsafe { joints(state, len, control.action_dim) }?;
        match control.controller.set_state(state) {
            true => Ok(()),
            false => Err(Fail::new(PI0_ERR_NON_FINITE, "a value is infinite, or nothing is measured")),
        }
    })
}

/// One value a joint.
///
/// # Safety
/// `values` is NULL or has `len` values.
#[inline]
unsafe fn joints<'a>(values: *const f32, len: usize, dim: usize) -> Result<&'a [f32]> {
    not_null(values, "the values are NULL")?;
    if len != dim {
        return Err(Fail::new(PI0_ERR_SIZE, "len is not action_dim"));
    }
    // SAFETY: not NULL, and `len` values as the caller promises.
    unsafe { slice(values, len, "values") }
}

/// Ends the hold that a trip of the step limit led to.
///
/// RT-safe: yes. Thread: control.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_POISONED, PI0_ERR_FORKED,
/// PI0_ERR_PANIC.
#[unsafe(no_mangle)]
#[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
pub unsafe extern "C" fn pi0_controller_clear_trip(controller: *mut pi0_controller) -> pi0_status {
    guard(|| {
        CONTROLLERS.owned(controller)?.controller.clear_trip();
        Ok(())
    })
}

/// Makes the calling thread the control thread, which the handle belongs to from now on. For loops that are set up on
/// one thread and run on another, or that are started again.
///
/// RT-safe: yes. Thread: any.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
#[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
pub unsafe extern "C" fn pi0_controller_attach(controller: *mut pi0_controller) -> pi0_status {
    guard(|| CONTROLLERS.attach(controller))
}

/// Frees the control loop's side. NULL is fine.
///
/// RT-safe: no. Thread: any.
/// Statuses: PI0_OK, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_controller_free(controller: *mut pi0_controller) -> pi0_status {
    guard(|| CONTROLLERS.free(controller))
}
