//! Guided real-time chunking's settings, at the start and later.

use super::boundary::{grows, guard, read_settings, write_default};
use super::config::unknown;
use super::status::{Result, pi0_status};
use pi0_edge::rtc::{PrefixSchedule, RtcConfig};

/// Guidance is 1 for rows executed while the chunk is computed, 0 after.
pub const PI0_RTC_ZEROS: u32 = 0;
/// Guidance is 1 for every row up to the execution horizon.
pub const PI0_RTC_ONES: u32 = 1;
/// Guidance falls linearly to 0 at the execution horizon.
pub const PI0_RTC_LINEAR: u32 = 2;
/// Guidance falls exponentially to 0 at the execution horizon.
pub const PI0_RTC_EXP: u32 = 3;

/// Guided real-time chunking, under lerobot's names. Fill it by `pi0_rtc_config_default`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pi0_rtc_config {
    /// `sizeof(pi0_rtc_config)`.
    pub struct_size: usize,
    /// `PI0_RTC_...`: how guidance falls over the rows.
    pub schedule: u32,
    /// The row where guidance ends, 1 to `action_horizon`.
    pub execution_horizon: u32,
    /// Upper bound of the guidance weight, from 0.
    pub max_guidance_weight: f64,
}
grows!(pi0_rtc_config, max_guidance_weight);

impl Default for pi0_rtc_config {
    fn default() -> Self {
        let RtcConfig { schedule: _, execution_horizon, max_guidance_weight } = RtcConfig::default();
        pi0_rtc_config {
            struct_size: size_of::<Self>(),
            schedule: PI0_RTC_LINEAR,
            execution_horizon: execution_horizon as u32,
            max_guidance_weight: f64::from(max_guidance_weight),
        }
    }
}

/// Writes lerobot's default settings. `struct_size` is `sizeof(pi0_rtc_config)`.
///
/// RT-safe: yes. Thread: any.
/// Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_STRUCT_SIZE.
#[unsafe(no_mangle)]
#[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
pub unsafe extern "C" fn pi0_rtc_config_default(
    config: *mut pi0_rtc_config,
    struct_size: usize,
) -> pi0_status {
    // SAFETY: `config` is NULL or has `struct_size` bytes, as documented.
    guard(|| unsafe { write_default(config, struct_size) })
}

pub(super) fn rtc(given: &pi0_rtc_config) -> Result<RtcConfig> {
    Ok(RtcConfig {
        schedule: match given.schedule {
            PI0_RTC_ZEROS => PrefixSchedule::Zeros,
            PI0_RTC_ONES => PrefixSchedule::Ones,
            PI0_RTC_LINEAR => PrefixSchedule::Linear,
            PI0_RTC_EXP => PrefixSchedule::Exp,
            other => return unknown("schedule", other),
        },
        execution_horizon: given.execution_horizon as usize,
        max_guidance_weight: given.max_guidance_weight as f32,
    })
}

/// # Safety
/// `given` is NULL or as its structure documents.
pub(super) unsafe fn optional_rtc(given: *const pi0_rtc_config) -> Result<Option<RtcConfig>> {
    if given.is_null() {
        return Ok(None);
    }
    // SAFETY: as the caller promises.
    rtc(&unsafe { read_settings(given, "rtc") }?).map(Some)
}
