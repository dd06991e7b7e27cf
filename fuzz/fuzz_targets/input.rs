//! The parts of a sequence of calls.

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use pi0_edge_c::rtc::pi0_rtc_config;

/// Which handle: one that was given, of any kind and alive or not, or none that ever was.
#[derive(Arbitrary, Debug, Clone, Copy)]
pub enum Handle {
    Latest,
    Given(u8),
    Null,
    Made(usize),
}

/// A size: right, or not.
#[derive(Arbitrary, Debug, Clone, Copy)]
pub enum Size {
    Right,
    Less(u8),
    None,
}

#[derive(Arbitrary, Debug, Clone, Copy)]
pub struct Rtc {
    pub size: Size,
    pub schedule: u8,
    pub execution_horizon: u8,
    pub weight: f32,
}

#[derive(Arbitrary, Debug, Clone, Copy)]
pub struct Settings {
    pub size: Size,
    pub control_us: u16,
    pub action_us: u16,
    pub max_age_ms: u16,
    pub hold_after_ms: u16,
    pub kinds: [u8; 4],
    pub step_limit: Option<f32>,
    pub limits: Option<(f32, f32)>,
    pub rtc: Option<Rtc>,
    pub replan_remaining: u8,
    pub delay: (u8, f32),
    pub deadline_us: u16,
    pub watchdog_ms: u8,
    pub max_errors: u8,
    pub event_capacity: u32,
    pub events: u8,
}

#[derive(Arbitrary, Debug, Clone, Copy)]
pub enum Call {
    Open {
        size: Size,
        verify: u8,
        weights: u8,
    },
    FreePolicy(Handle),
    Info(Handle, Size),
    Camera(Handle, u8, u8),
    Infer {
        handle: Handle,
        size: Size,
        images: u8,
        width: u8,
        height: u8,
        state: u8,
        actions: u8,
        steps: u8,
        noise: Option<u8>,
        previous: Option<u8>,
        rtc: Option<Rtc>,
    },
    Timing(Handle, Size),
    Start(Handle, Settings),
    Stop(Handle),
    FreeRuntime(Handle),
    SetPrompt(Handle, [u8; 6]),
    SetSteps(Handle, u8),
    SetLimits(Handle, Option<(f32, f32, u8)>),
    SetRtc(Handle, Option<Rtc>),
    Stats(Handle, Size),
    NextEvent(Handle, Size),
    FlightRecord(Handle),
    BeginEpisode(Handle),
    TakePolicy(Handle),
    Frame(Handle, u8, u16, u16),
    SetFrame(Handle, u8, u8, u8, u8),
    ConvertFrame {
        handle: Handle,
        camera: u8,
        size: Size,
        kinds: [u8; 2],
        sides: [u8; 2],
        bytes: [u16; 2],
        rows: [u8; 2],
    },
    ClearFrame(Handle, u8),
    SetState(Handle, f32, u8),
    Publish(Handle, i32),
    AttachWriter(Handle),
    FreeWriter(Handle),
    Read(Handle, u8, Size),
    Reads(Handle, u8),
    SetReference(Handle, f32, u8),
    SetStepLimits(Handle, f32, u8),
    SetMeasured(Handle, f32, u8),
    ClearTrip(Handle),
    AttachController(Handle),
    FreeController(Handle),
    Log(u8, i8),
}

impl Size {
    pub fn of<T>(self) -> usize {
        match self {
            Size::Right => size_of::<T>(),
            Size::Less(n) => n as usize,
            Size::None => 0,
        }
    }
}

impl Rtc {
    pub fn settings(self) -> pi0_rtc_config {
        pi0_rtc_config {
            struct_size: self.size.of::<pi0_rtc_config>(),
            schedule: self.schedule.into(),
            execution_horizon: self.execution_horizon.into(),
            max_guidance_weight: self.weight.into(),
        }
    }
}
