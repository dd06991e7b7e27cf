//! The phases of the measurement, in order: a cold start, a warm one, settling, chunks after idleness, and the long
//! steady run.

use std::fs;
use std::time::{Duration, Instant};

use pi0_edge::bundle::Bundle;
use pi0_edge::{InferOptions, Observation, Policy, Result, Verify};
use rustix::fs::{Advice, fadvise};
use serde::Serialize;

use super::Args;
use super::settle::{Settled, Settling};
use crate::figures::{Chunk, ms};
use crate::interrupt::{self, Heeding};
use crate::observation::StoredObservation;
use crate::options::LoadOptions;
use crate::progress::{Progress, Unit};

/// Chunks after idleness that are measured.
const IDLE_REPEATS: u32 = 3;

/// One start: from nothing to the first chunk.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Start {
    /// Reading and hashing every file of the bundle.
    pub verify_s: f64,
    /// Opening the graphs in ONNX Runtime, engines and all.
    pub sessions_s: f64,
    /// The first chunk.
    pub first_chunk_ms: f64,
    /// Bytes that came from storage and not from memory, where the kernel tells.
    pub read_bytes: Option<u64>,
}

/// Chunks one after the other.
pub struct Steady {
    pub chunks: Vec<Chunk>,
    /// Every Euler step, in ms.
    pub steps: Vec<f64>,
    /// From and to, in seconds.
    pub span: (f64, f64),
}

/// Everything that was measured.
pub struct Measured {
    pub cold: Start,
    pub warm: Start,
    pub settled: Settled,
    /// The chunks right after idleness, in ms.
    pub after_idle: Vec<f64>,
    /// The times of idleness: from and to, in seconds.
    pub idle_spans: Vec<(f64, f64)>,
    pub steady: Steady,
}

/// Runs all phases; times count from `origin`. Returns the policy too, which is loaded and warm. Interrupted before the
/// steady run, it takes the chunks until then for that; while it starts there are none, and it ends at once.
pub fn measure(args: &Args, origin: Instant) -> Result<(Policy, StoredObservation, Measured, Heeding)> {
    eprintln!("cold start: the bundle's files are dropped from memory first");
    evict(&args.measure.load)?;
    let (policy, _, cold) = start(args)?;
    drop(policy);
    eprintln!("warm start");
    let (mut policy, stored, warm) = start(args)?;
    let heeding = Heeding::new();
    let measured = stored.with(|observation| {
        let mut runs =
            Runs { policy: &mut policy, observation, options: args.measure.infer_options(), origin };
        eprintln!("settling: until clocks and latency have stopped changing");
        let (settled, mut so_far) = runs.settle(args.settle_limit)?;
        let (mut after_idle, mut idle_spans) = (Vec::new(), Vec::new());
        let repeats = if args.idle > 0.0 { IDLE_REPEATS } else { 0 };
        for i in 1..=repeats {
            if interrupt::requested() {
                break;
            }
            eprintln!("idle for {:.0} s, {i} of {repeats}", args.idle);
            let (from, _progress) = (runs.now(), Progress::new("idle", args.idle as u64, Unit::Seconds));
            while !interrupt::requested() && runs.now() - from < args.idle {
                let left = Duration::from_secs_f64((args.idle - (runs.now() - from)).max(0.0));
                std::thread::sleep(left.min(Duration::from_millis(100)));
            }
            if interrupt::requested() {
                break;
            }
            idle_spans.push((from, runs.now()));
            after_idle.push(runs.chunk()?.total);
        }
        if repeats > 0 && !interrupt::requested() {
            eprintln!("settling again");
            (_, so_far) = runs.settle(args.settle_limit)?;
        }
        let steady = if interrupt::requested() {
            so_far
        } else {
            eprintln!("steady run of {:.1} minutes", args.minutes);
            let _progress = Progress::new("steady run", (args.minutes * 60.0) as u64, Unit::Seconds);
            runs.chunks(|_, seconds| seconds >= args.minutes * 60.0)?
        };
        Ok(Measured { cold, warm, settled, after_idle, idle_spans, steady })
    })?;
    Ok((policy, stored, measured, heeding))
}

/// Gives the memory that caches the bundle's files back to the system, as far as nobody else uses it.
fn evict(load: &LoadOptions) -> Result<()> {
    let bundle = Bundle::open(&load.bundle, Verify::Size, &mut |_, _| {})?;
    for name in bundle.manifest().files.keys() {
        let file = bundle.open_file(name)?;
        // What is not on the disk yet cannot be dropped. Either may be refused, and the bytes read tell.
        let _ = file.sync_data();
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
    }
    Ok(())
}

fn start(args: &Args) -> Result<(Policy, StoredObservation, Start)> {
    let (read_before, began) = (read_bytes(), Instant::now());
    let mut verified = began;
    let mut policy = args.measure.load.load_watched(|| verified = Instant::now())?;
    let sessions = verified.elapsed();
    let stored = args.measure.observation(&policy)?;
    stored.with(|o| policy.infer(o, &args.measure.infer_options()).map(|_| ()))?;
    let start = Start {
        verify_s: (verified - began).as_secs_f64(),
        sessions_s: sessions.as_secs_f64(),
        first_chunk_ms: ms(policy.timing().total),
        read_bytes: read_bytes().zip(read_before).map(|(after, before)| after - before),
    };
    Ok((policy, stored, start))
}

/// Bytes this process has made the kernel fetch from storage.
fn read_bytes() -> Option<u64> {
    let io = fs::read_to_string("/proc/self/io").ok()?;
    io.lines().find_map(|l| l.strip_prefix("read_bytes:"))?.trim().parse().ok()
}

/// Chunks of one observation, one after the other.
struct Runs<'a> {
    policy: &'a mut Policy,
    observation: &'a Observation<'a>,
    options: InferOptions<'static>,
    origin: Instant,
}

impl Runs<'_> {
    fn now(&self) -> f64 {
        self.origin.elapsed().as_secs_f64()
    }

    fn chunk(&mut self) -> Result<Chunk> {
        let at = self.now();
        self.policy.infer(self.observation, &self.options)?;
        Ok(Chunk::new(at, self.policy.timing()))
    }

    /// At least one chunk, until `enough` says so of the last one, and of the seconds since the first began.
    fn chunks(&mut self, mut enough: impl FnMut(&Chunk, f64) -> bool) -> Result<Steady> {
        let (mut chunks, mut steps) = (Vec::new(), Vec::new());
        let from = self.now();
        loop {
            let chunk = self.chunk()?;
            chunks.push(chunk);
            steps.extend(self.policy.timing().steps.iter().map(|&d| ms(d)));
            let now = self.now();
            if enough(&chunk, now - from) || interrupt::requested() {
                return Ok(Steady { chunks, steps, span: (from, now) });
            }
        }
    }

    fn settle(&mut self, limit: f64) -> Result<(Settled, Steady)> {
        let _progress = Progress::new("settling, at most", limit as u64, Unit::Seconds);
        let (began, mut settling, mut settled) = (self.now(), Settling::default(), false);
        let chunks = self.chunks(|chunk, seconds| {
            settled = settling.push(began + seconds, chunk.total);
            settled || seconds >= limit
        })?;
        Ok((settling.outcome(settled, chunks.span.1 - began), chunks))
    }
}
