//! One run of an episode through the threaded runtime.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use pi0_edge::internals::wake::{Waiter, wake};
use pi0_edge::runtime::{
    Controller, Event, Flags, FlightRecord, Inference, ObservationSlot, ObservationWriter, Obtained, Runtime,
    RuntimeStats, Status, ThreadConfig, Timestamp,
};
use pi0_edge::stats::{Histogram, HistogramSnapshot};
use pi0_edge::{Error, ErrorKind, Manifest, Result};
use pi0_edge_mcap::{Counts, Live};
use serde::Serialize;

use super::episode::Episode;
use super::mcap;
use super::measured::Measured;
use super::probe::{Probe, Values};
use super::settings::Settings;
use super::soak::{self, Sample, Soak};
use super::trace::{Computed, Seen, Trace};
use crate::live;
use crate::output::NewFile;
use crate::progress::{Progress, Unit};
use crate::watched::{Loaded, Watched, lock};

/// Time between two looks at events and at the process.
const PERIOD: Duration = Duration::from_millis(10);
/// Most control ticks a trace can hold.
pub const MAX_TRACE: u64 = 2_000_000;
/// Distances are counted in millionths of a robot unit.
pub const MILLIONTHS: f64 = 1e6;

/// Options of a run, apart from the settings that decide its actions.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its length.
    pub duration: Duration,
    /// Observations follow each other as fast as they are taken, instead of at their times.
    pub full_speed: bool,
    /// Settings of the inference thread.
    pub inference: ThreadConfig,
    /// Settings of the control loop's thread.
    pub control: ThreadConfig,
    /// Keeps the inputs and outputs of every tick.
    pub trace: bool,
    /// Time between two looks at memory, threads and file descriptors.
    pub soak: Option<Duration>,
    /// The file of the flight record.
    pub flight_record: Option<PathBuf>,
    /// The file to record everything in while it happens.
    pub mcap: Option<PathBuf>,
}

/// The results of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The runtime's counters.
    pub stats: RuntimeStats,
    /// The real-time rights that the inference thread got.
    pub inference: Obtained,
    /// The control loop's side.
    pub control: Control,
    /// The delay estimate, compared with what happened.
    pub delay: Delay,
    /// Memory, threads and file descriptors.
    pub soak: Option<Soak>,
    /// Inputs and outputs of every tick, if they were to be kept.
    pub trace: Option<Trace>,
    /// Counts of what was recorded while it happened, if that was asked for.
    pub mcap: Option<Counts>,
}

/// The measurements of the control loop's thread.
#[derive(Debug)]
pub struct Control {
    /// The real-time rights that it got.
    pub obtained: Obtained,
    /// Time that all ticks took, read or not.
    pub seconds: f64,
    /// Reads made.
    pub reads: u64,
    /// Ticks that were due and not read, because the thread was late by a period or more.
    pub deadline_misses: u64,
    /// Lateness of each read, in nanoseconds.
    pub late_ns: HistogramSnapshot,
    /// At each first action of a chunk but the very first: the largest jump of a joint, in millionths of a unit.
    pub seams: HistogramSnapshot,
    /// On every other tick with motion: the largest step of a joint, in millionths of a unit.
    pub steps: HistogramSnapshot,
    /// The course of each joint.
    pub joints: Vec<Joint>,
}

/// The course of a joint, in robot units.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Joint {
    pub lowest: f32,
    pub highest: f32,
    /// The largest step from a tick to the next, but for those at a seam.
    pub largest_step: f32,
    /// The largest step to the first action of a new chunk.
    pub largest_at_seam: f32,
}

impl Joint {
    const STILL: Joint =
        Joint { lowest: f32::INFINITY, highest: f32::NEG_INFINITY, largest_step: 0.0, largest_at_seam: 0.0 };
}

/// Estimated against measured time from capture to publication. Chunks begun before there was an estimate do not
/// count.
#[derive(Debug, Default)]
pub struct Delay {
    /// By how much the truth was larger, where it was.
    pub short_ns: Histogram,
    /// By how much the estimate was larger, or equal.
    pub over_ns: Histogram,
}

/// Runs the episode, again and again, for as long as `options` say.
pub fn run(policy: &Loaded, episode: &Episode, settings: &Settings, options: &Options) -> Result<Outcome> {
    let (dim, num_steps, manifest) = {
        let mut policy = lock(policy);
        policy.set_num_steps(settings.num_steps)?;
        (policy.action_dim(), policy.num_steps(), policy.policy().manifest().clone())
    };
    let period = settings.period_ns();
    let ticks = (options.duration.as_nanos() / u128::from(period)).max(1) as u64;
    let (taken, waiter) = wake();
    let (values_sender, values) = mpsc::channel();
    let probe = Probe {
        delay: Duration::from_secs_f64(settings.latency_ms / 1e3 / num_steps as f64),
        taken: options.full_speed.then(|| taken.clone()),
        chunks: options.trace.then_some(values_sender),
        finishes: None,
    };
    let mut config = settings.runtime(dim, options.inference.clone())?;
    config.flight_record = options.flight_record.clone();
    let (runtime, writer, controller) = Runtime::start(Watched::new(policy, probe), &config)?;

    let record = |path| mcap::start(path, &manifest, settings, runtime.flight_recorder());
    let mcap = options.mcap.as_deref().map(record).transpose()?;
    let start = Timestamp::now().plus(2 * period);
    let traced = if options.trace { ticks as usize } else { 0 };
    let mut monitor = Monitor::new(values, options, start);
    let (full_speed, trace) = (options.full_speed, options.trace);
    let sensors =
        Sensors { writer, episode, manifest: &manifest, start, full_speed, trace, mcap: mcap.as_ref() };
    let measured = Measured::new(settings.splice, episode, dim);
    let control = Loop { controller, measured, start, period, ticks, dim, traced };
    let progress = Progress::new(
        format!("replaying, {}", settings.heading()),
        options.duration.as_secs(),
        Unit::Seconds,
    );
    let (control, observations) = live::run(
        |over| control.run(&options.control, over),
        |over| sensors.run(waiter, over),
        PERIOD,
        |_| monitor.look(&runtime),
        || _ = taken.notify(),
    )?;
    let (stats, inference) = (runtime.stats(), runtime.realtime().clone());
    drop(progress);
    // What is finished between here and the end is no part of the run.
    let (events, record) = (runtime.events().clone(), runtime.flight_record());
    runtime.stop()?;
    let mcap = mcap.map(Live::finish).transpose()?;
    while let Ok(event) = events.try_recv() {
        monitor.take(event, || record.clone())?;
    }
    if let Some(path) = options.flight_record.as_ref().filter(|_| !monitor.dumped) {
        NewFile::create(path)?.write_bytes(record.to_json())?;
    }
    if options.trace && stats.events_lost > 0 {
        let text = format!("{} events were lost, so the recording would have holes", stats.events_lost);
        return Err(Error::new(ErrorKind::Runtime, text));
    }
    let (control, trace) = control;
    let Monitor { chunks, delay, samples, .. } = monitor;
    let trace = trace.map(|trace| Trace { observations, chunks, ..trace });
    let soak = options.soak.and_then(|_| soak::evaluate(&samples));
    Ok(Outcome { stats, inference, control, delay, soak, trace, mcap })
}

/// The side that is not real-time: it takes events and chunks, and samples the process.
struct Monitor {
    start: Timestamp,
    values: mpsc::Receiver<Values>,
    chunks: Vec<Computed>,
    delay: Delay,
    trace: bool,
    soak: Option<Duration>,
    samples: Vec<Sample>,
    /// The flight record was written.
    dumped: bool,
}

impl Monitor {
    fn new(values: mpsc::Receiver<Values>, options: &Options, start: Timestamp) -> Self {
        let samples = options.soak.map_or(0, |every| options.duration.div_duration_f64(every) as usize + 2);
        Monitor {
            start,
            values,
            chunks: Vec::new(),
            delay: Delay::default(),
            trace: options.trace,
            soak: options.soak,
            // Made now, so that sampling does not make the process grow.
            samples: Vec::with_capacity(samples),
            dumped: false,
        }
    }

    fn look(&mut self, runtime: &Runtime<impl Inference>) -> Result<()> {
        while let Ok(event) = runtime.events().try_recv() {
            self.take(event, || runtime.flight_record())?;
        }
        if let Some(every) = self.soak {
            let since = Duration::from_nanos(Timestamp::now().since(self.start));
            if since >= every * self.samples.len() as u32 {
                self.samples.push(Sample::take(since)?);
            }
        }
        Ok(())
    }

    fn take(&mut self, event: Event, record: impl FnOnce() -> FlightRecord) -> Result<()> {
        match event {
            Event::Chunk(info) => {
                let estimated = info.expected_ns > info.begun.since(info.captured);
                let truth = info.published.since(info.captured);
                match truth.checked_sub(info.expected_ns).filter(|short| *short > 0) {
                    _ if !estimated => {}
                    Some(short) => self.delay.short_ns.record(short),
                    None => self.delay.over_ns.record(info.expected_ns - truth),
                }
                if self.trace {
                    let values = self.values_of(info.number)?;
                    self.chunks.push(Computed { info, rejected: false, values });
                }
            }
            Event::Rejected { chunk, .. } if self.trace => {
                let values = self.values_of(chunk)?;
                let kept = record().chunks.into_iter().find(|c| c.info.number == chunk).ok_or_else(|| {
                    let text = format!("chunk {chunk} was rejected and the flight record does not hold it");
                    Error::new(ErrorKind::Runtime, text)
                })?;
                self.chunks.push(Computed { info: kept.info, rejected: true, values });
            }
            Event::FlightRecord { outcome } => {
                outcome.map_err(|e| Error::new(ErrorKind::Io, e))?;
                self.dumped = true;
            }
            Event::GaveUp { error } => {
                return Err(Error::new(ErrorKind::Runtime, format!("inference gave up: {error}")));
            }
            Event::InferenceError { error, .. } | Event::ObservationRefused { error } if self.trace => {
                let text = format!("inference failed, which cannot be recorded: {error}");
                return Err(Error::new(ErrorKind::Runtime, text));
            }
            Event::InferenceError { error, .. } => log::warn!("inference failed and is tried again: {error}"),
            Event::ObservationRefused { error } => log::warn!("an observation was refused: {error}"),
            Event::Hung { for_ns } => log::warn!("inference hangs for {} ms", for_ns / 1_000_000),
            other => log::debug!("{other:?}"),
        }
        Ok(())
    }

    fn values_of(&self, chunk: u64) -> Result<Vec<f32>> {
        let found = self.values.try_iter().find(|(number, _)| *number == chunk).map(|(_, values)| values);
        found.ok_or_else(|| Error::new(ErrorKind::Runtime, format!("the values of chunk {chunk} are lost")))
    }
}

/// The thread that has the sensors.
struct Sensors<'a> {
    writer: ObservationWriter<ObservationSlot>,
    episode: &'a Episode,
    manifest: &'a Manifest,
    start: Timestamp,
    full_speed: bool,
    trace: bool,
    mcap: Option<&'a Live>,
}

impl Sensors<'_> {
    /// Publishes the episode's observations until told to stop.
    fn run(mut self, mut waiter: Waiter, stop: &AtomicBool) -> Result<Vec<Seen>> {
        let mut seen = Vec::new();
        for round in 0u32.. {
            for index in 0..self.episode.len() {
                let due = self.start + self.episode.length() * round + self.episode.at(index);
                if self.full_speed {
                    // Until the one before was taken; not for ever, because the very first may have been late.
                    waiter.wait(Some(Timestamp::now() + Duration::from_millis(100)));
                } else {
                    waiter.wait(Some(due));
                }
                if stop.load(Ordering::Relaxed) {
                    return Ok(seen);
                }
                let captured = Timestamp::now();
                self.episode.observation(index).copy_to(self.manifest, self.writer.slot());
                let now = Timestamp::now();
                let published = self.writer.publish_at(now, captured);
                published.map_err(|e| Error::new(ErrorKind::Observation, e.to_string()))?;
                if let Some(mcap) = self.mcap {
                    self.episode.observation(index).with(|o| {
                        mcap.observe(captured, o);
                        Ok(())
                    })?;
                }
                if self.trace {
                    seen.push(Seen { now, captured, index });
                }
            }
        }
        Ok(seen)
    }
}

/// The control loop.
struct Loop<'a> {
    controller: Controller,
    measured: Option<Measured<'a>>,
    start: Timestamp,
    period: u64,
    ticks: u64,
    dim: usize,
    /// Room for this many ticks in the trace; 0: no trace.
    traced: usize,
}

impl Loop<'_> {
    fn run(mut self, thread: &ThreadConfig, stop: &AtomicBool) -> Result<(Control, Option<Trace>)> {
        let mut trace = (self.traced > 0).then(|| Trace {
            dim: self.dim,
            ticks: Vec::with_capacity(self.traced),
            actions: Vec::with_capacity(self.traced * self.dim),
            ..Trace::default()
        });
        let (late, seams, steps) = (Histogram::new(), Histogram::new(), Histogram::new());
        let (mut reads, mut misses, mut tick) = (0, 0, 0);
        let (mut before, mut known, mut moving) = (vec![0.0; self.dim], false, false);
        let mut joints = vec![Joint::STILL; self.dim];
        let obtained = thread.apply()?;
        while tick < self.ticks && !stop.load(Ordering::Relaxed) {
            let due = self.start.plus(tick * self.period);
            due.sleep_until();
            let now = Timestamp::now();
            late.record(now.since(due));
            if let Some(measured) = &mut self.measured {
                measured.tell(&mut self.controller, now);
            }
            let reading = self.controller.read_at(now);
            let action = self.controller.action();
            reads += 1;
            if let Some(action) = action {
                // Where the robot held meanwhile, the first action comes some ticks after the chunk.
                let joins = reading.flags.contains(Flags::NEW_CHUNK) || reading.seam_jump > 0.0;
                let joins = known && joins && reading.status != Status::Hold;
                let moves = moving && !joins && reading.status != Status::Hold;
                let mut largest = 0f32;
                for (joint, (value, before)) in joints.iter_mut().zip(action.iter().zip(&before)) {
                    let step = (value - before).abs();
                    largest = largest.max(step);
                    joint.lowest = joint.lowest.min(*value);
                    joint.highest = joint.highest.max(*value);
                    joint.largest_step = joint.largest_step.max(if moves { step } else { 0.0 });
                    joint.largest_at_seam = joint.largest_at_seam.max(if joins { step } else { 0.0 });
                }
                if joins {
                    seams.record(millionths(f64::from(reading.seam_jump)));
                } else if moves {
                    steps.record(millionths(f64::from(largest)));
                }
                before.copy_from_slice(action);
                known = true;
                moving = matches!(reading.status, Status::Ok | Status::Stale);
            }
            if let Some(trace) = &mut trace {
                trace.push(now, reading, action);
            }
            // The tick after, or the one that is due by now if that is a later one.
            let next = (Timestamp::now().since(self.start) / self.period).max(tick + 1).min(self.ticks);
            misses += next - tick - 1;
            tick = next;
        }
        let (late_ns, seams, steps) = (late.snapshot(), seams.snapshot(), steps.snapshot());
        let seconds = (tick * self.period) as f64 / 1e9;
        Ok((
            Control { obtained, seconds, reads, deadline_misses: misses, late_ns, seams, steps, joints },
            trace,
        ))
    }
}

fn millionths(distance: f64) -> u64 {
    (distance * MILLIONTHS).round() as u64
}
