//! The observation and the options of one synchronous inference.

use std::ffi::c_char;

use super::boundary::{
    grows, guard, optional_string, read_settings_or_default, slice, string, write_default, zeroed,
};

use super::policy::pi0_info;
use super::rtc::{pi0_rtc_config, rtc};
use super::status::{Fail, PI0_ERR_OBSERVATION, PI0_ERR_SIZE, Result, pi0_status};
use pi0_edge::rtc::{Guidance, prefix_weights};
use pi0_edge::{Frame, InferOptions, MAX_FRAME_SIDE, Noise, Observation};

/// One camera's image: RGB, 8 bits a channel, rows from the top, `height * width * 3` bytes without gaps.
///
/// This structure is an array's element and never changes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pi0_image {
    /// The policy's name of the camera, or the robot's where the bundle renames it.
    pub camera: *const c_char,
    /// The pixels.
    pub rgb: *const u8,
    /// Pixels in a row, 1 to 16384.
    pub width: u32,
    /// Rows, 1 to 16384.
    pub height: u32,
}

/// The robot's knowledge at one moment. Borrows everything for as long as the call takes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pi0_observation {
    /// `sizeof(pi0_observation)`.
    pub struct_size: usize,
    /// `image_count` images, in any order. Cameras that are absent are left out.
    pub images: *const pi0_image,
    /// Their number.
    pub image_count: usize,
    /// The state in robot units: `state_dim` values.
    pub state: *const f32,
    /// Their number.
    pub state_len: usize,
    /// The task, UTF-8. NULL or empty for the bundle's default.
    pub prompt: *const c_char,
}
grows!(pi0_observation, prompt);

impl Default for pi0_observation {
    fn default() -> Self {
        zeroed()
    }
}

/// The options of one inference. Fill it by `pi0_infer_options_default`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pi0_infer_options {
    /// `sizeof(pi0_infer_options)`.
    pub struct_size: usize,
    /// Seed of the noise. The same seed gives the same noise on every machine.
    pub seed: u64,
    /// The noise itself instead: `action_horizon * padded_action_dim` values. NULL for noise from the seed.
    pub noise: *const f32,
    /// Their number.
    pub noise_len: usize,
    /// Guided real-time chunking: the rest of the chunk being executed, in robot units, its first row due at the
    /// observation's capture: 1 to `action_horizon` rows of `action_dim` values. NULL for a chunk on its own.
    pub previous: *const f32,
    /// Number of values.
    pub previous_len: usize,
    /// The settings of that guidance. NULL for the defaults.
    pub rtc: *const pi0_rtc_config,
    /// Rows that will have been executed by the time the chunk is used.
    pub inference_delay: u32,
    /// Denoise steps, 1 to `max_num_steps`. 0 for the bundle's default.
    pub num_steps: u32,
}
grows!(pi0_infer_options, num_steps);

impl Default for pi0_infer_options {
    fn default() -> Self {
        zeroed()
    }
}

/// Writes the default options: noise from seed 0, the bundle's number of steps, no guidance. `struct_size` is
/// `sizeof(pi0_infer_options)`.
///
/// RT-safe: yes. Thread: any.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_STRUCT_SIZE.
#[unsafe(no_mangle)]
#[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
pub unsafe extern "C" fn pi0_infer_options_default(
    options: *mut pi0_infer_options,
    struct_size: usize,
) -> pi0_status {
    // SAFETY: `options` is NULL or has `struct_size` bytes, as documented.
    guard(|| unsafe { write_default(options, struct_size) })
}

/// Most images of one observation; no bundle has so many cameras.
const MAX_IMAGES: usize = pi0_edge::MAX_CAMERAS;

/// Hands an observation to `body` as Rust has it.
pub(super) fn with_observation(
    given: &pi0_observation,
    body: impl FnOnce(&Observation<'_>) -> Result,
) -> Result {
    if given.image_count > MAX_IMAGES {
        let what = format!("image_count is {}; at most {MAX_IMAGES}", given.image_count);
        return Err(Fail::new(PI0_ERR_SIZE, what));
    }
    // SAFETY: the documentation of the structure says what each pointer must be.
    let images = unsafe { slice(given.images, given.image_count, "images") }?;
    let frames: Vec<(&str, Frame<'_>)> = images.iter().map(frame).collect::<Result<_>>()?;
    // SAFETY: as above.
    let (state, prompt) =
        unsafe { (slice(given.state, given.state_len, "state")?, optional_string(given.prompt, "prompt")?) };
    body(&Observation { images: &frames, state, prompt })
}

fn frame(image: &pi0_image) -> Result<(&str, Frame<'_>)> {
    // SAFETY: the documentation of the structure says what the pointer must be.
    let name = unsafe { string(image.camera, "an image's camera") }?;
    let bytes = image.width as usize * image.height as usize * 3;
    // Sides that are out of range are refused before so many bytes are taken to be there.
    if image.width > MAX_FRAME_SIDE || image.height > MAX_FRAME_SIDE {
        let what = format!("{name}: a frame of {}x{} pixels", image.width, image.height);
        return Err(Fail::new(PI0_ERR_OBSERVATION, what));
    }
    // SAFETY: as above, and of the size it must have.
    let pixels = unsafe { slice(image.rgb, bytes, "an image's rgb") }?;
    let frame = Frame::new(pixels, image.width, image.height).map_err(|e| e.context(name))?;
    Ok((name, frame))
}

/// Hands the options to `body` as Rust has them.
pub(super) fn with_options(
    given: &pi0_infer_options,
    info: &pi0_info,
    body: impl FnOnce(&InferOptions<'_>) -> Result,
) -> Result {
    // SAFETY: the documentation of the structure says what each pointer must be.
    let (noise, previous) = unsafe {
        (
            slice(given.noise, given.noise_len, "noise")?,
            slice(given.previous, given.previous_len, "previous")?,
        )
    };
    let noise = if given.noise.is_null() { Noise::Seed(given.seed) } else { Noise::Given(noise) };
    let (horizon, dim) = (info.action_horizon as usize, info.action_dim as usize);
    let inference_delay = given.inference_delay as usize;
    let mut weights = vec![0.0; horizon];
    let guidance = if given.previous.is_null() {
        None
    } else {
        let rows = previous.len() / dim;
        if previous.len() % dim != 0 || !(1..=horizon).contains(&rows) {
            let what = format!("previous_len is {}; use 1 to {horizon} rows of {dim}", previous.len());
            return Err(Fail::new(PI0_ERR_SIZE, what));
        }
        // SAFETY: as above.
        let config = rtc(&unsafe { read_settings_or_default(given.rtc) }?)?;
        let end = config.execution_horizon.min(rows);
        prefix_weights(config.schedule, inference_delay, end, &mut weights);
        Some(Guidance {
            previous,
            prefix_weights: &weights,
            max_guidance_weight: config.max_guidance_weight,
            inference_delay,
        })
    };
    let num_steps = (given.num_steps > 0).then_some(given.num_steps as usize);
    body(&InferOptions { noise, num_steps, guidance })
}
