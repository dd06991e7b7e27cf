//! What is measured, in order: a cold start, a warm one, settling, chunks after idleness, and the long steady run.

use std::fs;
use std::time::{Duration, Instant};

use pi0_edge::bundle::Bundle;
use pi0_edge::{Error, ErrorKind, InferOptions, Observation, Policy, Result, Timing, Verify};
use rustix::fs::{Advice, fadvise};
use serde::Serialize;

use super::settle::{Settled, Settling};
use crate::observation::StoredObservation;
use crate::options::{LoadOptions, Progress};

/// How long the phases last.
pub struct Plan {
    /// The steady run.
    pub steady: Duration,
    /// Longest wait for the latency to settle.
    pub settle_limit: Duration,
    /// Idleness before a chunk, and how often that is repeated.
    pub idle: Duration,
    pub idle_repeats: u32,
    /// Euler steps, if not the bundle's own number.
    pub num_steps: Option<usize>,
}

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

/// One chunk, in ms but for the time it began.
#[derive(Debug, Clone, Copy)]
pub struct Chunk {
    /// Seconds since the bench began.
    pub at_s: f64,
    pub preprocess: f64,
    pub vision: f64,
    pub prefix: f64,
    pub denoise: f64,
    /// What is none of these: the runtime's own part.
    pub overhead: f64,
    pub total: f64,
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

impl Chunk {
    fn of(at_s: f64, t: &Timing) -> Self {
        Chunk {
            at_s,
            preprocess: ms(t.preprocess),
            vision: ms(t.vision),
            prefix: ms(t.prefix),
            denoise: ms(t.denoise()),
            overhead: ms(t.overhead()),
            total: ms(t.total),
        }
    }
}

fn ms(d: Duration) -> f64 {
    d.as_secs_f64() * 1e3
}

fn say(what: &str) {
    eprintln!("{what}");
}

/// Runs all phases; times count from `origin`. Returns the policy too, which is loaded and warm.
pub fn measure(
    plan: &Plan,
    load: &LoadOptions,
    observation: &impl Fn(&Policy) -> Result<StoredObservation>,
    origin: Instant,
) -> Result<(Policy, StoredObservation, Measured)> {
    say("cold start: the bundle's files are dropped from memory first");
    evict(load)?;
    let (policy, cold) = start(plan, load, observation)?;
    drop(policy);
    say("warm start");
    let (mut policy, warm) = start(plan, load, observation)?;
    let stored = observation(&policy)?;
    let options = InferOptions { num_steps: plan.num_steps, ..InferOptions::default() };
    let mut measured = None;
    stored.with(|o| {
        let mut runs = Runs { policy: &mut policy, observation: o, options, origin };
        say("settling: until clocks and latency have stopped changing");
        let settled = runs.settle(plan.settle_limit)?;
        let mut after_idle = Vec::new();
        let mut idle_spans = Vec::new();
        for i in 1..=plan.idle_repeats {
            say(&format!("idle for {:.0} s, {i} of {}", plan.idle.as_secs_f64(), plan.idle_repeats));
            let from = runs.now();
            std::thread::sleep(plan.idle);
            idle_spans.push((from, runs.now()));
            after_idle.push(runs.chunk()?.total);
        }
        if plan.idle_repeats > 0 {
            say("settling again");
            runs.settle(plan.settle_limit)?;
        }
        say(&format!("steady run of {:.1} minutes", plan.steady.as_secs_f64() / 60.0));
        let steady = runs.steady(plan.steady)?;
        measured = Some(Measured { cold, warm, settled, after_idle, idle_spans, steady });
        Ok(())
    })?;
    let measured = measured.ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "nothing was measured"))?;
    Ok((policy, stored, measured))
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

fn start(
    plan: &Plan,
    load: &LoadOptions,
    observation: &impl Fn(&Policy) -> Result<StoredObservation>,
) -> Result<(Policy, Start)> {
    let (read_before, began) = (read_bytes(), Instant::now());
    let mut verified = began;
    let mut progress = Progress::new("verifying");
    let loaded = Policy::load_with_progress(&load.bundle, &load.policy_options(), &mut |done, total| {
        verified = Instant::now();
        progress.show(done, total);
    });
    progress.clear();
    let mut policy = loaded?;
    let sessions = verified.elapsed();
    let stored = observation(&policy)?;
    let options = InferOptions { num_steps: plan.num_steps, ..InferOptions::default() };
    stored.with(|o| policy.infer(o, &options).map(|_| ()))?;
    let start = Start {
        verify_s: (verified - began).as_secs_f64(),
        sessions_s: sessions.as_secs_f64(),
        first_chunk_ms: ms(policy.timing().total),
        read_bytes: read_bytes().zip(read_before).map(|(after, before)| after - before),
    };
    Ok((policy, start))
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
    options: InferOptions<'a>,
    origin: Instant,
}

impl Runs<'_> {
    fn now(&self) -> f64 {
        self.origin.elapsed().as_secs_f64()
    }

    fn chunk(&mut self) -> Result<Chunk> {
        let at = self.now();
        self.policy.infer(self.observation, &self.options)?;
        Ok(Chunk::of(at, self.policy.timing()))
    }

    fn settle(&mut self, limit: Duration) -> Result<Settled> {
        let (began, mut settling) = (self.now(), Settling::default());
        loop {
            let chunk = self.chunk()?;
            let settled = settling.push(self.now(), chunk.total);
            let seconds = self.now() - began;
            if settled || seconds >= limit.as_secs_f64() {
                return Ok(settling.outcome(settled, seconds));
            }
        }
    }

    fn steady(&mut self, span: Duration) -> Result<Steady> {
        let (mut chunks, mut steps) = (Vec::new(), Vec::new());
        let from = self.now();
        while chunks.is_empty() || self.now() - from < span.as_secs_f64() {
            chunks.push(self.chunk()?);
            steps.extend(self.policy.timing().steps.iter().map(|&d| ms(d)));
        }
        Ok(Steady { chunks, steps, span: (from, self.now()) })
    }
}
