//! Arbitrary sequences of C calls, from two threads, with handles that are alive, freed, of another kind or made up:
//! whatever the order, each gives a status, and nothing crashes, hangs or reads what it was not given.
//!
//! Buffers are what the interface asks of a caller: as long as said. Waiting is kept short.
#![no_main]

mod input;

use std::ffi::{CString, c_char};
use std::ptr::{null, null_mut, without_provenance_mut};
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, Mutex};

use libfuzzer_sys::fuzz_target;
use pi0_edge_c::config::*;
use pi0_edge_c::controller::*;
use pi0_edge_c::event::*;
use pi0_edge_c::frame::*;
use pi0_edge_c::inference::*;
use pi0_edge_c::log::*;
use pi0_edge_c::observation::*;
use pi0_edge_c::pi0_error;
use pi0_edge_c::policy::*;
use pi0_edge_c::runtime::*;
use pi0_edge_c::stats::*;
use pi0_edge_c::status::*;

use input::{Call, Handle, Rtc, Settings, Size};

/// Opening and starting take a hundred times as long as all else.
const MOST_OPENED: usize = 3;

static BUNDLE: LazyLock<CString> = LazyLock::new(|| of_the_project("models/pi0-tiny"));
static ONNXRUNTIME: LazyLock<CString> =
    LazyLock::new(|| of_the_project(".cache/onnxruntime/libonnxruntime.so.1"));

fn of_the_project(file: &str) -> CString {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(file);
    assert!(path.exists(), "there is no {}: run scripts/fetch_onnxruntime.sh", path.display());
    CString::new(path.as_os_str().as_encoded_bytes()).unwrap()
}

/// Handles as numbers, because they go to another thread.
#[derive(Default)]
struct World {
    given: [Vec<usize>; 4],
    opened: usize,
}

impl World {
    fn get<H>(&self, kind: usize, handle: Handle) -> *mut H {
        let all: Vec<usize> = self.given.iter().flatten().copied().collect();
        without_provenance_mut(match handle {
            Handle::Latest => self.given[kind].last().copied().unwrap_or(0),
            Handle::Given(n) if !all.is_empty() => all[n as usize % all.len()],
            Handle::Given(_) | Handle::Null => 0,
            Handle::Made(n) => n,
        })
    }
}

/// A structure to be filled, of the size it says.
fn sized<T>(size: Size) -> T {
    // SAFETY: any bits are one of the interface's structures.
    let mut value: T = unsafe { std::mem::zeroed() };
    // SAFETY: `struct_size` comes first.
    unsafe { (&raw mut value).cast::<usize>().write(size.of::<T>()) };
    value
}

unsafe extern "C" fn on_event(event: *const pi0_event, _user: *mut std::ffi::c_void) {
    // SAFETY: an event is valid while its callback runs.
    assert!(unsafe { (*event).kind } > 0);
}

unsafe extern "C" fn on_record(_: u32, _: *const c_char, _: *const c_char, _: *mut std::ffi::c_void) {}

fn start(world: &mut World, handle: Handle, s: Settings) -> pi0_status {
    let step_limits = [s.step_limit.unwrap_or(0.0); 7];
    let (min, max) = s.limits.map_or(([0.0; 7], [0.0; 7]), |(min, max)| ([min; 7], [max; 7]));
    let limits = pi0_limits { min: min.as_ptr(), max: max.as_ptr(), len: 7, ..Default::default() };
    let rtc = s.rtc.map(Rtc::settings);
    let thread = pi0_thread_config { realtime: PI0_REALTIME_OFF, ..Default::default() };
    let config = pi0_runtime_config {
        struct_size: s.size.of::<pi0_runtime_config>(),
        prompt: c"pick".as_ptr(),
        max_frame_width: 64,
        max_frame_height: 48,
        control_period_ns: u64::from(s.control_us) * 1000,
        action_period_ns: u64::from(s.action_us) * 1000,
        max_age_ns: u64::from(s.max_age_ms) * 1_000_000,
        hold_after_ns: u64::from(s.hold_after_ms) * 1_000_000,
        interpolation: s.kinds[0].into(),
        on_underrun: s.kinds[1].into(),
        replan: s.kinds[2].into(),
        trip_after: s.kinds[3].into(),
        step_limits: if s.step_limit.is_some() { step_limits.as_ptr() } else { null() },
        step_limits_len: 7,
        limits: if s.limits.is_some() { &limits } else { null() },
        rtc: rtc.as_ref().map_or(null(), |rtc| rtc),
        replan_remaining: s.replan_remaining.into(),
        delay_window: s.delay.0.into(),
        delay_quantile: s.delay.1.into(),
        deadline_ns: u64::from(s.deadline_us) * 1000,
        watchdog_ns: u64::from(s.watchdog_ms) * 1_000_000,
        max_errors: s.max_errors.into(),
        event_capacity: s.event_capacity,
        thread: &thread,
        event_callback: if s.events == 1 { Some(on_event) } else { None },
        event_fd: if s.events == 2 { 1 << 20 } else { -1 },
        ..Default::default()
    };
    let (mut runtime, mut writer, mut controller) = (null_mut(), null_mut(), null_mut());
    let mut error = pi0_error { message: [0; _] };
    let policy = world.get(0, handle);
    // SAFETY: every pointer is that of a local.
    let status =
        unsafe { pi0_runtime_start(policy, &config, &mut runtime, &mut writer, &mut controller, &mut error) };
    if status == PI0_OK {
        world.given[1].push(runtime.addr());
        world.given[2].push(writer.addr());
        world.given[3].push(controller.addr());
    }
    status
}

fn infer(world: &World, call: Call) -> pi0_status {
    let Call::Infer { handle, size, images, width, height, state, actions, steps, noise, previous, rtc } =
        call
    else {
        return PI0_OK;
    };
    let names = [c"observation.images.base", c"observation.images.wrist", c"nothing"];
    let pixels = vec![7u8; 255 * 255 * 3];
    let list: Vec<_> = (0..images as usize % 5)
        .map(|i| pi0_image {
            camera: names[i % 3].as_ptr(),
            rgb: pixels.as_ptr(),
            width: width.into(),
            height: height.into(),
        })
        .collect();
    let values = vec![0.1f32; 50 * 255];
    let observation = pi0_observation {
        struct_size: size.of::<pi0_observation>(),
        images: list.as_ptr(),
        image_count: list.len(),
        state: values.as_ptr(),
        state_len: state.into(),
        prompt: c"pick".as_ptr(),
    };
    let rtc = rtc.map(Rtc::settings);
    let options = pi0_infer_options {
        noise: if noise.is_some() { values.as_ptr() } else { null() },
        noise_len: noise.map_or(0, |n| n as usize * 32),
        previous: if previous.is_some() { values.as_ptr() } else { null() },
        previous_len: previous.map_or(0, |n| n as usize * 7),
        rtc: rtc.as_ref().map_or(null(), |rtc| rtc),
        num_steps: (steps % 80).into(),
        ..Default::default()
    };
    let mut out = vec![0f32; actions as usize * 7];
    // SAFETY: every pointer is that of a local of the size said.
    unsafe {
        pi0_policy_infer(
            world.get(0, handle),
            &observation,
            &options,
            out.as_mut_ptr(),
            out.len(),
            null_mut(),
        )
    }
}

fn open(world: &mut World, size: Size, verify: u8, weights: u8) -> pi0_status {
    let options = pi0_policy_options {
        struct_size: size.of::<pi0_policy_options>(),
        ort_library: ONNXRUNTIME.as_ptr(),
        threads: 1,
        verify: verify.into(),
        weights: weights.into(),
        no_spin: 1,
        ..Default::default()
    };
    let mut policy = null_mut();
    // SAFETY: every pointer is that of a local or static.
    let status = unsafe { pi0_policy_new(BUNDLE.as_ptr(), &options, &mut policy, null_mut()) };
    if status == PI0_OK {
        world.given[0].push(policy.addr());
    }
    status
}

fn make(world: &mut World, call: Call) -> pi0_status {
    let values = |v: f32| vec![v; 256];
    let w = &*world;
    // SAFETY: handles are never followed, and every other pointer is that of a local of the size said.
    unsafe {
        match call {
            Call::Open { size, verify, weights } if w.opened < MOST_OPENED => {
                world.opened += 1;
                open(world, size, verify, weights)
            }
            Call::Open { .. } => PI0_OK,
            Call::FreePolicy(h) => pi0_policy_free(w.get(0, h)),
            Call::Info(h, size) => pi0_policy_info(w.get(0, h), &mut sized(size)),
            Call::Camera(h, camera, size) => {
                let mut name = vec![0; size as usize];
                pi0_policy_camera(w.get(0, h), camera.into(), name.as_mut_ptr(), name.len(), null_mut())
            }
            Call::Infer { .. } => infer(w, call),
            Call::Timing(h, size) => pi0_policy_timing(w.get(0, h), &mut sized(size)),
            Call::Start(h, settings) => start(world, h, settings),
            Call::Stop(h) => pi0_runtime_stop(w.get(1, h), null_mut()),
            Call::FreeRuntime(h) => pi0_runtime_free(w.get(1, h)),
            Call::SetPrompt(h, bytes) => {
                let prompt = CString::new(bytes.map(|b| b.max(1))).unwrap();
                pi0_runtime_set_prompt(w.get(1, h), prompt.as_ptr())
            }
            Call::SetSteps(h, n) => pi0_runtime_set_num_steps(w.get(1, h), n.into()),
            Call::SetLimits(h, limits) => {
                let (min, max, len) = limits.unwrap_or_default();
                let (min, max) = (values(min), values(max));
                let given = pi0_limits {
                    min: min.as_ptr(),
                    max: max.as_ptr(),
                    len: len.into(),
                    ..Default::default()
                };
                pi0_runtime_set_limits(w.get(1, h), if limits.is_some() { &given } else { null() })
            }
            Call::SetRtc(h, rtc) => {
                let rtc = rtc.map(Rtc::settings);
                pi0_runtime_set_rtc(w.get(1, h), rtc.as_ref().map_or(null(), |rtc| rtc))
            }
            Call::Stats(h, size) => pi0_runtime_stats(w.get(1, h), &mut sized::<pi0_stats>(size)),
            Call::NextEvent(h, size) => pi0_runtime_next_event(w.get(1, h), 100_000, &mut sized(size)),
            Call::FlightRecord(h) => {
                pi0_runtime_write_flight_record(w.get(1, h), c"/dev/null/no".as_ptr(), null_mut())
            }
            Call::BeginEpisode(h) => pi0_runtime_begin_episode(w.get(1, h)),
            Call::TakePolicy(h) => {
                let mut policy = null_mut();
                let status = pi0_runtime_take_policy(w.get(1, h), &mut policy, null_mut());
                if status == PI0_OK {
                    world.given[0].push(policy.addr());
                }
                status
            }
            Call::Frame(h, camera, width, height) => {
                let mut pixels = null_mut();
                let (width, height) = (u32::from(width), u32::from(height));
                let status =
                    pi0_observation_writer_frame(w.get(2, h), camera.into(), width, height, &mut pixels);
                if status == PI0_OK {
                    pixels.write_bytes(9, (width * height * 3) as usize);
                }
                status
            }
            Call::SetFrame(h, camera, width, height, gap) => {
                let row = width as usize * 3 + gap as usize;
                let pixels = vec![3u8; row * height as usize + row];
                let (width, height) = (width.into(), height.into());
                pi0_observation_writer_set_frame(
                    w.get(2, h),
                    camera.into(),
                    width,
                    height,
                    pixels.as_ptr(),
                    row,
                )
            }
            Call::ConvertFrame { handle, camera, size, kinds, sides, bytes, rows } => {
                let planes = bytes.map(|n| vec![9u8; n.into()]);
                let [width, height] = sides.map(u32::from);
                let frame = pi0_camera_frame {
                    struct_size: size.of::<pi0_camera_frame>(),
                    format: (kinds[0] % 9).into(),
                    yuv: (kinds[1] % 5).into(),
                    width,
                    height,
                    data: planes[0].as_ptr(),
                    data_size: planes[0].len(),
                    row_bytes: rows[0].into(),
                    chroma: if bytes[1] == 0 { null() } else { planes[1].as_ptr() },
                    chroma_size: planes[1].len(),
                    chroma_row_bytes: rows[1].into(),
                };
                let mut rgb = vec![0; (width * height * 3) as usize];
                check(call, pi0_camera_frame_to_rgb(&frame, rgb.as_mut_ptr(), rgb.len(), null_mut()));
                pi0_observation_writer_convert_frame(w.get(2, handle), camera.into(), &frame, null_mut())
            }
            Call::ClearFrame(h, camera) => pi0_observation_writer_clear_frame(w.get(2, h), camera.into()),
            Call::SetState(h, v, len) => {
                pi0_observation_writer_set_state(w.get(2, h), values(v).as_ptr(), len.into())
            }
            Call::Publish(h, after) => {
                let captured = pi0_edge_c::version::pi0_now_ns().saturating_add_signed(after.into());
                pi0_observation_writer_publish(w.get(2, h), captured, null_mut())
            }
            Call::AttachWriter(h) => pi0_observation_writer_attach(w.get(2, h)),
            Call::FreeWriter(h) => pi0_observation_writer_free(w.get(2, h)),
            Call::Read(h, len, size) => {
                let mut action = vec![0f32; len.into()];
                pi0_controller_read(w.get(3, h), action.as_mut_ptr(), action.len(), &mut sized(size))
            }
            Call::Reads(h, times) => {
                let mut action = [0f32; 7];
                for _ in 0..times {
                    std::thread::sleep(std::time::Duration::from_micros(50));
                    let status = pi0_controller_read(w.get(3, h), action.as_mut_ptr(), 7, null_mut());
                    assert!(status < 0 || action.iter().all(|v| v.is_finite()), "{action:?}");
                }
                PI0_OK
            }
            Call::SetReference(h, v, len) => {
                pi0_controller_set_reference(w.get(3, h), values(v).as_ptr(), len.into())
            }
            Call::SetStepLimits(h, v, len) => {
                pi0_controller_set_step_limits(w.get(3, h), values(v).as_ptr(), len.into())
            }
            Call::SetMeasured(h, v, len) => {
                pi0_controller_set_state(w.get(3, h), values(v).as_ptr(), len.into())
            }
            Call::ClearTrip(h) => pi0_controller_clear_trip(w.get(3, h)),
            Call::AttachController(h) => pi0_controller_attach(w.get(3, h)),
            Call::FreeController(h) => pi0_controller_free(w.get(3, h)),
            Call::Log(level, fd) if fd < 0 => pi0_log_set_fd(fd.into(), level.into()),
            Call::Log(level, _) => pi0_log_set_callback(Some(on_record), null_mut(), level.into()),
        }
    }
}

type Job = (Call, Box<World>, Sender<Box<World>>);

/// A thread that makes calls for this one.
static OTHER: LazyLock<Mutex<Sender<Job>>> = LazyLock::new(|| {
    let (jobs, todo) = channel::<Job>();
    std::thread::spawn(move || {
        for (call, mut world, done) in todo {
            check(call, make(&mut world, call));
            done.send(world).expect("the waiting thread");
        }
    });
    Mutex::new(jobs)
});

fn check(call: Call, status: pi0_status) {
    assert!(status != PI0_ERR_PANIC && status != PI0_ERR_POISONED, "{call:?}");
    assert!((PI0_ERR_RUNTIME..=PI0_EMPTY).contains(&status), "{call:?}: {status}");
}

/// A policy that the sequence before left alive: most of them do, and opening takes as long as a hundred calls.
static KEPT: Mutex<Option<usize>> = Mutex::new(None);

fn alive(policy: usize) -> bool {
    // SAFETY: handles are never followed.
    unsafe { pi0_policy_info(without_provenance_mut(policy), &mut sized(Size::Right)) == PI0_OK }
}

fuzz_target!(|calls: Vec<(bool, Call)>| {
    let mut world = Box::new(World::default());
    match KEPT.lock().unwrap().take() {
        Some(policy) => world.given[0].push(policy),
        None => assert_eq!(open(&mut world, Size::Right, 0, 0), PI0_OK),
    }
    for (elsewhere, call) in calls.into_iter().take(64) {
        if elsewhere {
            let (done, wait) = channel();
            OTHER.lock().unwrap().send((call, world, done)).expect("the other thread");
            world = wait.recv().expect("the other thread");
        } else {
            check(call, make(&mut world, call));
        }
    }
    let kept = world.given[0].iter().position(|&policy| alive(policy));
    *KEPT.lock().unwrap() = kept.map(|i| world.given[0].swap_remove(i));
    // Each handle is freed once at most, and what is left is good.
    // SAFETY: handles are never followed.
    unsafe {
        world.given[1].iter().for_each(|&h| _ = pi0_runtime_free(without_provenance_mut(h)));
        world.given[0].iter().for_each(|&h| _ = pi0_policy_free(without_provenance_mut(h)));
        world.given[2].iter().for_each(|&h| _ = pi0_observation_writer_free(without_provenance_mut(h)));
        world.given[3].iter().for_each(|&h| _ = pi0_controller_free(without_provenance_mut(h)));
    }
});
