//! Policies: a bundle opened, what it says of itself, and one chunk at a time without a thread.

use std::ffi::c_char;
use std::path::PathBuf;

use super::at_exit::not_exiting;
use super::boundary::{
    copy_text, grows, guard, guard_with, not_null, optional_string, pi0_error, put, read_settings,
    read_settings_or_default, slice_mut, string, write_default, write_result, zeroed,
};
use super::config::unknown;
use super::handle::{Table, not_forked};
use super::inference::{pi0_infer_options, pi0_observation, with_observation, with_options};
use super::signals::signals_blocked;
use super::status::{Fail, PI0_ERR_SIZE, Result, pi0_status};
use pi0_edge::bundle::PolicyKind;
use pi0_edge::{DeviceMemory, MAX_NUM_STEPS, Manifest, Policy, PolicyOptions, Provider, Verify, Weights};

/// A policy: an opened bundle, ready to compute chunks.
#[derive(Debug)]
pub struct pi0_policy {
    _opaque: (),
}

pub(super) static POLICIES: Table<pi0_policy, Policy> = Table::new(1);

/// Graphs run on the CPU.
pub const PI0_PROVIDER_CPU: u32 = 0;
/// Graphs run on ONNX Runtime's CUDA kernels, on an NVIDIA GPU.
pub const PI0_PROVIDER_CUDA: u32 = 1;
/// Graphs run on engines that TensorRT built ahead of time, on an NVIDIA GPU.
pub const PI0_PROVIDER_TENSORRT: u32 = 2;

/// Tensors that the host and the graphs both touch are where it suits the provider.
pub const PI0_DEVICE_MEMORY_AUTO: u32 = 0;
/// Such tensors are on each side, with copies between them.
pub const PI0_DEVICE_MEMORY_SEPARATE: u32 = 1;
/// Such tensors are in one place that both see, for boards where both have the same DRAM, such as a Jetson.
pub const PI0_DEVICE_MEMORY_UNIFIED: u32 = 2;

/// Every byte of the bundle is hashed and compared before it is used.
pub const PI0_VERIFY_FULL: u32 = 0;
/// Only presence, kind and size of the bundle's files are looked at.
pub const PI0_VERIFY_SIZE: u32 = 1;
/// Every byte of what changed since it was last found in order is hashed and compared. What was found is kept in the user's
/// cache directory.
pub const PI0_VERIFY_CHANGED: u32 = 2;

/// Each graph's weights the way that suits it.
pub const PI0_WEIGHTS_AUTO: u32 = 0;
/// All weights mapped: nothing to do at load, pages shared between processes and evictable.
pub const PI0_WEIGHTS_MAPPED: u32 = 1;
/// All weights packed: anonymous memory of the weights' size, read in full at load.
pub const PI0_WEIGHTS_PACKED: u32 = 2;

/// The settings that a policy is opened with. Fill it by `pi0_policy_options_default`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pi0_policy_options {
    /// `sizeof(pi0_policy_options)`.
    pub struct_size: usize,
    /// ONNX Runtime's library. NULL: `ORT_DYLIB_PATH` if it is set, else beside this library and the program, then
    /// where packages install it, then the system's library path. What is named must work.
    pub ort_library: *const c_char,
    /// The directory of the TensorRT engines that were built ahead of time. NULL: where `pi0-edge engines` puts them.
    pub engine_cache: *const c_char,
    /// `PI0_PROVIDER_...`: what computes the graphs. If it cannot, opening fails and says why.
    pub provider: u32,
    /// The GPU, as CUDA counts them from 0. The CPU provider has no use for it.
    pub gpu: u32,
    /// `PI0_DEVICE_MEMORY_...`
    pub device_memory: u32,
    /// 1: never capture CUDA graphs.
    pub no_cuda_graphs: u32,
    /// Threads of one operator, the calling thread included. 0: one per available core.
    pub threads: u32,
    /// `PI0_VERIFY_...`
    pub verify: u32,
    /// `PI0_WEIGHTS_...`
    pub weights: u32,
    /// 1: worker threads sleep instead of spin while they wait for their part of an operator, and the calling thread
    /// while it waits for a GPU. Slower by some per cent, but a control loop on the same cores keeps them.
    pub no_spin: u32,
}
grows!(pi0_policy_options, no_spin);

impl Default for pi0_policy_options {
    fn default() -> Self {
        // Every other choice has its first as its default.
        pi0_policy_options { verify: PI0_VERIFY_CHANGED, ..zeroed() }
    }
}

/// The bundle is a PI0 policy.
pub const PI0_KIND_PI0: u32 = 0;
/// The bundle is a PI0.5 policy.
pub const PI0_KIND_PI05: u32 = 1;

/// The sizes and counts of a policy.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pi0_info {
    /// `sizeof(pi0_info)`; set it before the call.
    pub struct_size: usize,
    /// `PI0_KIND_...`
    pub kind: u32,
    /// Cameras the policy knows, required or not.
    pub cameras: u32,
    /// Values of a state, in robot units.
    pub state_dim: u32,
    /// Values of an action, in robot units.
    pub action_dim: u32,
    /// Values of an action as the model computes it; noise has this width.
    pub padded_action_dim: u32,
    /// Actions of a chunk.
    pub action_horizon: u32,
    /// Denoise steps unless others are asked for.
    pub num_steps: u32,
    /// Most denoise steps there can be.
    pub max_num_steps: u32,
}
grows!(pi0_info, max_num_steps);

impl pi0_info {
    pub(super) fn new(manifest: &Manifest) -> Self {
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        pi0_info {
            struct_size: size_of::<Self>(),
            kind: match manifest.policy {
                PolicyKind::Pi0 => PI0_KIND_PI0,
                PolicyKind::Pi05 => PI0_KIND_PI05,
            },
            cameras: narrow(manifest.cameras.len()),
            state_dim: narrow(manifest.state.dim),
            action_dim: narrow(manifest.action.dim),
            padded_action_dim: narrow(manifest.action.padded_dim),
            action_horizon: narrow(manifest.dimensions.action_horizon),
            num_steps: narrow(manifest.flow.num_steps),
            max_num_steps: narrow(MAX_NUM_STEPS),
        }
    }
}

/// Times of the last chunk of `pi0_policy_infer` by stage, in nanoseconds.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pi0_timing {
    /// `sizeof(pi0_timing)`; set it before the call.
    pub struct_size: usize,
    /// Frames resized and normalised, state normalised, prompt tokenised.
    pub preprocess_ns: u64,
    /// The vision encoder over the present cameras.
    pub vision_ns: u64,
    /// The prefill of the KV cache.
    pub prefix_ns: u64,
    /// All denoise steps together.
    pub denoise_ns: u64,
    /// From the call to the finished chunk.
    pub total_ns: u64,
}
grows!(pi0_timing, total_ns);

fn options(given: &pi0_policy_options) -> Result<PolicyOptions> {
    // SAFETY: the settings' documentation says what each pointer must be.
    let (library, engine_cache) = unsafe {
        (
            optional_string(given.ort_library, "ort_library")?,
            optional_string(given.engine_cache, "engine_cache")?,
        )
    };
    Ok(PolicyOptions {
        provider: match given.provider {
            PI0_PROVIDER_CPU => Provider::Cpu,
            PI0_PROVIDER_CUDA => Provider::Cuda,
            PI0_PROVIDER_TENSORRT => Provider::TensorRt,
            other => return unknown("provider", other),
        },
        gpu: given.gpu,
        device_memory: match given.device_memory {
            PI0_DEVICE_MEMORY_AUTO => DeviceMemory::Auto,
            PI0_DEVICE_MEMORY_SEPARATE => DeviceMemory::Separate,
            PI0_DEVICE_MEMORY_UNIFIED => DeviceMemory::Unified,
            other => return unknown("device_memory", other),
        },
        no_cuda_graphs: given.no_cuda_graphs != 0,
        engine_cache: engine_cache.map(PathBuf::from),
        ort_library: library.map(PathBuf::from),
        threads: given.threads as usize,
        verify: match given.verify {
            PI0_VERIFY_FULL => Verify::Full,
            PI0_VERIFY_SIZE => Verify::Size,
            PI0_VERIFY_CHANGED => Verify::Changed,
            other => return unknown("verify", other),
        },
        weights: match given.weights {
            PI0_WEIGHTS_AUTO => Weights::Auto,
            PI0_WEIGHTS_MAPPED => Weights::Mapped,
            PI0_WEIGHTS_PACKED => Weights::Packed,
            other => return unknown("weights", other),
        },
        no_spin: given.no_spin != 0,
        ..PolicyOptions::default()
    })
}

/// Writes the default settings. `struct_size` is `sizeof(pi0_policy_options)`.
///
/// RT-safe: yes. Thread: any.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_STRUCT_SIZE.
#[unsafe(no_mangle)]
#[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
pub unsafe extern "C" fn pi0_policy_options_default(
    options: *mut pi0_policy_options,
    struct_size: usize,
) -> pi0_status {
    // SAFETY: `options` is NULL or has `struct_size` bytes, as documented.
    guard(|| unsafe { write_default(options, struct_size) })
}

/// Opens a bundle: verifies it, loads ONNX Runtime and the graphs, and makes every buffer. For a full-size bundle
/// this takes seconds to minutes.
///
/// The bundle's files are used where they are for as long as the policy lives. Once one is written to or cut off, every
/// inference fails with PI0_ERR_INTEGRITY; deleted or replaced by rename, what was verified goes on being used. So that
/// this never ends the process, the first call installs a handler for SIGBUS, which hands on what is not its own. A
/// program that installs one later must hand on as well, and no thread that infers may block SIGBUS.
///
/// `bundle` is the directory's path. `options` may be NULL for the defaults. `error` may be NULL; it is written when
/// the call fails. Threads made here leave the signals a program handles to the program's own threads. Sets the
/// environment variable ORT_DISABLE_TELEMETRY, so no other thread should be changing the environment meanwhile.
///
/// RT-safe: no. Thread: any.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_ARGUMENT, PI0_ERR_STRUCT_SIZE, PI0_ERR_LIMIT, PI0_ERR_STATE (the process is
/// exiting), PI0_ERR_FORKED, PI0_ERR_IO, PI0_ERR_MANIFEST, PI0_ERR_INTEGRITY, PI0_ERR_LIBRARY, PI0_ERR_PROVIDER,
/// PI0_ERR_GRAPH, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_policy_new(
    bundle: *const c_char,
    options: *const pi0_policy_options,
    policy: *mut *mut pi0_policy,
    error: *mut pi0_error,
) -> pi0_status {
    let body = || {
        // SAFETY: each pointer is NULL or as documented.
        let (bundle, given) = unsafe { (string(bundle, "bundle")?, read_settings_or_default(options)?) };
        not_null(policy, "policy is NULL")?;
        let options = self::options(&given)?;
        not_forked()?;
        not_exiting()?;
        Provider::explain_failures_with(pi0_edge_doctor::explain_failure);
        let loaded = signals_blocked(|| Policy::load(bundle, &options))?;
        let handle = POLICIES.insert(loaded)?;
        // The name that C programs know this part of the log by.
        log::info!(target: "pi0_edge::ffi::policy", "opened {bundle}");
        // SAFETY: not NULL, so valid to write to as documented.
        unsafe { put(policy, handle, "policy") }
    };
    // SAFETY: `error` is NULL or valid, as documented.
    unsafe { guard_with(error, body) }
}

/// Frees a policy. NULL is fine.
///
/// RT-safe: no. Thread: any.
/// Statuses: PI0_OK, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_policy_free(policy: *mut pi0_policy) -> pi0_status {
    guard(|| POLICIES.free(policy))
}

/// Tells what a policy takes and gives.
///
/// RT-safe: no. Thread: any, one at a time.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_STRUCT_SIZE, PI0_ERR_POISONED,
/// PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_policy_info(policy: *const pi0_policy, info: *mut pi0_info) -> pi0_status {
    guard(|| {
        let policy = POLICIES.exclusive(policy)?;
        // SAFETY: `info` is NULL or as documented.
        unsafe { write_result(info, &pi0_info::new(policy.manifest()), "info is NULL") }
    })
}

/// The name of a camera, 0 to `cameras - 1` in the policy's order, as a NUL-terminated string in `name`, which has
/// `name_size` bytes. `required` may be NULL; it is set to 1 if no observation may be without this camera, else to 0.
///
/// RT-safe: no. Thread: any, one at a time.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_ARGUMENT (no such camera), PI0_ERR_SIZE (the
/// name does not fit), PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_policy_camera(
    policy: *const pi0_policy,
    camera: u32,
    name: *mut c_char,
    name_size: usize,
    required: *mut u32,
) -> pi0_status {
    guard(|| {
        let policy = POLICIES.exclusive(policy)?;
        let cameras = &policy.manifest().cameras;
        let no_such = || Fail::argument(format!("camera {camera}; there are {}", cameras.len()));
        let camera = cameras.get(camera as usize).ok_or_else(no_such)?;
        // SAFETY: `name` is NULL or has `name_size` bytes, as documented.
        unsafe { copy_text(name, name_size, &camera.name, "name") }?;
        if !required.is_null() {
            // SAFETY: not NULL, so valid to write to as documented.
            unsafe { put(required, u32::from(camera.required), "required") }?;
        }
        Ok(())
    })
}

/// Computes one chunk from one observation, on the calling thread and ONNX Runtime's workers.
///
/// `options` may be NULL: noise from seed 0, the bundle's number of steps, no guidance. `actions` gets
/// `action_horizon * action_dim` values in robot units, the first action first; `actions_len` must be that product.
/// `error` may be NULL. After an error the policy can be used again.
///
/// RT-safe: no. Thread: any, one at a time.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_ARGUMENT, PI0_ERR_STRUCT_SIZE, PI0_ERR_SIZE,
/// PI0_ERR_OBSERVATION, PI0_ERR_NON_FINITE, PI0_ERR_OUT_OF_LIMITS, PI0_ERR_GRAPH, PI0_ERR_INTEGRITY,
/// PI0_ERR_IO, PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_policy_infer(
    policy: *mut pi0_policy,
    observation: *const pi0_observation,
    options: *const pi0_infer_options,
    actions: *mut f32,
    actions_len: usize,
    error: *mut pi0_error,
) -> pi0_status {
    let body = || {
        let mut policy = POLICIES.exclusive(policy)?;
        // SAFETY: each pointer is NULL or as documented.
        let (given, options) = unsafe {
            (read_settings(observation, "observation is NULL")?, read_settings_or_default(options)?)
        };
        let wanted = policy.chunk().as_slice().len();
        if actions_len != wanted {
            let what = format!("actions_len is {actions_len}; a chunk has {wanted} values");
            return Err(Fail::new(PI0_ERR_SIZE, what));
        }
        // SAFETY: `actions` is NULL or has `actions_len` values, as documented.
        let out = unsafe { slice_mut(actions, actions_len, "actions") }?;
        let info = pi0_info::new(policy.manifest());
        with_observation(&given, |observation| {
            with_options(&options, &info, |options| {
                out.copy_from_slice(policy.infer(observation, options)?.as_slice());
                Ok(())
            })
        })
    };
    // SAFETY: `error` is NULL or valid, as documented.
    unsafe { guard_with(error, body) }
}

/// Tells where the time of the last chunk went; all zero before the first.
///
/// RT-safe: no. Thread: any, one at a time.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_STRUCT_SIZE, PI0_ERR_POISONED,
/// PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_policy_timing(policy: *const pi0_policy, timing: *mut pi0_timing) -> pi0_status {
    guard(|| {
        let policy = POLICIES.exclusive(policy)?;
        let t = policy.timing();
        let nanos = pi0_edge::internals::nanos;
        let result = pi0_timing {
            struct_size: size_of::<pi0_timing>(),
            preprocess_ns: nanos(t.preprocess),
            vision_ns: nanos(t.vision),
            prefix_ns: nanos(t.prefix),
            denoise_ns: nanos(t.denoise()),
            total_ns: nanos(t.total),
        };
        // SAFETY: `timing` is NULL or as documented.
        unsafe { write_result(timing, &result, "timing is NULL") }
    })
}
