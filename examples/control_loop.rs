//! A 500 Hz control loop on a simulated arm.
//!
//!     cargo run --release --example control_loop [BUNDLE]
//!
//! For five seconds, or $SECONDS. As a service it finds $BUNDLE in its environment too.
//!
//! One thread looks at the world at 30 Hz and publishes observations; this one reads an action every 2 ms, whatever
//! inference is doing, and moves the arm. With the right to real-time priority (root, or `rtprio` in limits.conf) the
//! inference thread gets it; without, the loop runs all the same and says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pi0_edge::runtime::{PolicyInference, PolicyInferenceOptions, Status, Timestamp};
use pi0_edge::{Policy, PolicyOptions, Runtime, RuntimeConfig};

const PERIOD: Duration = Duration::from_millis(2);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let set = |name: &str| std::env::var(name).ok();
    let bundle =
        std::env::args().nth(1).or_else(|| set("BUNDLE")).unwrap_or_else(|| "models/pi0-tiny".into());
    let seconds: u64 = set("SECONDS").map_or(Ok(5), |s| s.parse())?;
    let policy =
        Policy::load(bundle, &PolicyOptions { threads: 1, no_spin: true, ..PolicyOptions::default() })?;
    let joints = policy.manifest().action.dim;
    let prompt = Some("pick up the cube".to_owned());
    let inference =
        PolicyInference::new(policy, PolicyInferenceOptions { prompt, ..PolicyInferenceOptions::default() })?;

    let mut config = RuntimeConfig::default();
    config.timeline.control_period = PERIOD;
    config.timeline.step_limits = Some(vec![0.05; joints]);
    let (runtime, mut observations, mut controller) = Runtime::start(inference, &config)?;
    println!("inference thread: {:?}", runtime.realtime());
    // As a service of Type=notify: READY=1 now, WATCHDOG=1 as chunks are completed. Elsewhere it does nothing.
    runtime.notify_systemd()?;

    // The arm's joints, as the sensors see them: f32 bits in atomics.
    let arm: Arc<Vec<AtomicU32>> = Arc::new((0..joints).map(|_| AtomicU32::new(0)).collect());
    let seen = Arc::clone(&arm);
    let sensors = std::thread::spawn(move || {
        for frame_number in 0..seconds * 30 {
            let captured = Timestamp::now();
            let slot = observations.slot();
            for camera in 0..slot.cameras().count() {
                if let Some(pixels) = slot.frame_mut(camera, 320, 240) {
                    pixels.fill((frame_number % 256) as u8);
                }
            }
            for (value, joint) in slot.state_mut().iter_mut().zip(seen.iter()) {
                *value = f32::from_bits(joint.load(Ordering::Relaxed));
            }
            if let Err(e) = observations.publish(captured) {
                eprintln!("observation not taken: {e}");
            }
            std::thread::sleep(Duration::from_millis(33));
        }
    });

    controller.set_reference(&vec![0.0; joints]);
    let mut statuses = [0u64; Status::ALL.len()];
    let mut oldest = Duration::ZERO;
    let mut next = Instant::now();
    for _ in 0..seconds * 1000 / PERIOD.as_millis() as u64 {
        let reading = controller.read();
        statuses[reading.status as usize] += 1;
        match reading.status {
            Status::Ok => oldest = oldest.max(Duration::from_nanos(reading.age_ns)),
            // A real robot would slow down here; the action is the last good one and stays where it is.
            Status::Stale | Status::Hold | Status::Empty => {}
        }
        if let Some(action) = controller.action() {
            for (joint, target) in arm.iter().zip(action) {
                joint.store(target.to_bits(), Ordering::Relaxed);
            }
        }
        next += PERIOD;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    sensors.join().map_err(|_| "the sensor thread panicked")?;

    for (status, n) in Status::ALL.iter().zip(statuses) {
        println!("{:<6} {n}", status.as_str());
    }
    let stats = runtime.stats();
    println!("oldest observation behind an OK action: {oldest:?}");
    println!("chunks: {}, clamped ticks: {}", stats.inference.published, stats.control.clamped);
    runtime.stop()?;
    Ok(())
}
