//! `pi0-edge bench control`: the cost of reading the action in a control loop, against a live runtime with the real
//! policy.

mod load;
mod report;
mod self_check;
mod ticks;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::{Args as _, FromArgMatches};
use pi0_edge::runtime::{
    Interpolation, MemoryLock, ObservationSlot, ObservationWriter, Phase, PolicyInference,
    PolicyInferenceOptions, Realtime, Replan, Runtime, RuntimeConfig, Splice, ThreadConfig, TimelineConfig,
    Timestamp,
};
use pi0_edge::{Error, ErrorKind, Manifest, Policy, Result};
use pi0_edge_probe::system_calls;

use crate::environment;
use crate::interrupt;
use crate::live;
use crate::observation::StoredObservation;
use crate::options::{LoadOptions, REALTIME, RIGHTS, choice};
use crate::output::Format;
use crate::progress::{Progress, Unit};
use crate::watched::{Loaded, Watched};
use load::Load;
pub use report::Report;
use self_check::{Known, Noting};
use ticks::{Loop, Ticks};

/// Arguments of `bench control`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    policy: LoadOptions,
    /// Directory with observation.json and its frames (default: the bundle's first golden case, else made up)
    #[arg(long, value_name = "DIR")]
    observation: Option<PathBuf>,
    /// Control rate: ticks, which are reads, per second on a fixed schedule
    #[arg(long, value_name = "HZ", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    rate: u32,
    /// Seconds to measure
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    duration: u32,
    /// Row at which a new chunk takes over: by time, by the last command, or on arrival
    #[arg(long, value_name = "RULE", default_value_t)]
    splice: Splice,
    /// Put load on every CPU, on memory and on the disk meanwhile
    #[arg(long)]
    load: bool,
    /// Directory that the load on the disk writes to (default: the directory for temporary files)
    #[arg(long, value_name = "DIR", requires = "load")]
    load_dir: Option<PathBuf>,
    /// SCHED_FIFO priority of the control thread; inference gets 20 less
    #[arg(help_heading = RIGHTS, long, value_name = "P", default_value_t = 80, value_parser = clap::value_parser!(i32).range(21..=99))]
    priority: i32,
    /// The CPU of the control thread (default: any)
    #[arg(help_heading = RIGHTS, long, value_name = "N")]
    cpu: Option<usize>,
    /// The CPUs of the inference thread (default: any)
    #[arg(help_heading = RIGHTS, long, value_name = "N,N", value_delimiter = ',')]
    inference_cpus: Vec<usize>,
    /// Action where real-time rights are missing: fail, go on and say so, or ask for none
    #[arg(help_heading = RIGHTS, long, value_parser = choice(REALTIME), default_value = "try")]
    realtime: Realtime,
    /// Also print the wake-up histogram, one row a microsecond up to US, as cyclictest's -h does
    #[arg(long, value_name = "US", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    histogram: Option<u32>,
    /// Format of the output on stdout
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Args {
    /// Returns the command's defaults for a policy that is loaded with the given options.
    pub fn beside_inference(policy: LoadOptions, observation: Option<PathBuf>, duration: u32) -> Self {
        let command = Self::augment_args(clap::Command::new("control"));
        // Nothing but the bundle has no default.
        let matches = command.get_matches_from(["control".as_ref(), policy.bundle.as_os_str()]);
        let defaults = Self::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
        Args { policy, observation, duration, ..defaults }
    }

    fn period(&self) -> Duration {
        Duration::from_nanos(1_000_000_000 / u64::from(self.rate))
    }

    /// Chunks as fast as they come, and rows as they are, so that every action can be told to be one of them.
    fn runtime(&self) -> RuntimeConfig {
        RuntimeConfig {
            timeline: TimelineConfig {
                control_period: self.period(),
                interpolation: Interpolation::None,
                splice: self.splice,
                ..TimelineConfig::default()
            },
            replan: Replan::Period(Duration::ZERO),
            thread: ThreadConfig {
                realtime: self.realtime,
                priority: Some(self.priority - 20),
                cpus: self.inference_cpus.clone(),
                ..ThreadConfig::default()
            },
            // A step of a large policy takes its time on a CPU, and it is not left behind with the memory it works on.
            stop_timeout: Duration::from_secs(600),
            ..RuntimeConfig::default()
        }
    }

    /// Memory and heap are the process's, and the inference thread has seen to them.
    fn control_thread(&self) -> ThreadConfig {
        ThreadConfig {
            realtime: self.realtime,
            priority: Some(self.priority),
            cpus: self.cpu.into_iter().collect(),
            lock_memory: MemoryLock::Off,
            keep_heap: false,
            ..ThreadConfig::default()
        }
    }
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let report = examine(args)?;
    args.format.print(|| report.text(), || report.json())?;
    match report.broken_promises() {
        promises if promises.is_empty() => {
            let (bundle, rate) = (args.policy.typed(), args.rate);
            args.format.next(|| format!("pi0-edge replay {bundle} --episode EPISODE --rate {rate} --rtc"));
            Ok(())
        }
        promises => Err(Error::new(ErrorKind::Runtime, format!("promises broken: {}", promises.join(", ")))),
    }
}

/// Measures, and reports nothing yet.
pub fn examine(args: &Args) -> Result<Report> {
    // Worker threads that spin would take the CPU the control loop is to wake up on.
    let policy = LoadOptions { no_spin: true, ..args.policy.clone() }.load()?;
    let observation = StoredObservation::read_or_golden(args.observation.as_deref(), &policy)?;
    observation.check(policy.manifest())?;
    let environment = environment::describe(&policy, args.policy.threads);
    let (ticks, measured) = measure(args, policy, &observation)?;
    Ok(Report { args: args.clone(), ticks, measured, environment })
}

/// Measurements beside those of the control loop.
pub struct Measured {
    pub inference: pi0_edge::runtime::Obtained,
    /// Chunks published while the loop ran, and the statistics of all of them.
    published: u64,
    chunks: pi0_edge::stats::Summary,
    /// Every kind of system call, or why they were not counted.
    calls: std::result::Result<Vec<system_calls::Count>, String>,
    load: Option<load::Done>,
}

fn measure(args: &Args, policy: Policy, observation: &StoredObservation) -> Result<(Ticks, Measured)> {
    let options = PolicyInferenceOptions {
        prompt: observation.prompt().map(str::to_owned),
        max_frame: observation.largest_frame(),
        ..PolicyInferenceOptions::default()
    };
    let manifest = policy.manifest().clone();
    let known = Arc::new(Known::new(manifest.dimensions.action_horizon));
    let inference: Loaded = Arc::new(Mutex::new(PolicyInference::new(policy, options)?));
    let watched = Watched::new(&inference, Noting(Arc::clone(&known)));
    let (runtime, sensors, controller) = Runtime::start(watched, &args.runtime())?;
    let uncounted = |e| Error::with_source(ErrorKind::Io, "cannot count system calls", e);
    let (counter, subject) = system_calls::counter().map_err(uncounted)?;
    let disk = args.load_dir.clone().unwrap_or_else(std::env::temp_dir);
    let load = args.load.then(|| Load::start(&disk)).transpose()?;
    let control = Loop {
        controller,
        known,
        subject,
        thread: args.control_thread(),
        period: args.period(),
        ticks: u64::from(args.rate) * u64::from(args.duration),
        histogram: args.histogram.unwrap_or(1000) as usize,
    };
    let progress = Progress::new("reading actions", args.duration.into(), Unit::Seconds);
    let outcome = live::run(
        |over| control.run(over),
        |over| publish(observation, &manifest, sensors, over),
        Duration::from_millis(20),
        |over| {
            // Nothing is measured before the first chunk, so that there must be one.
            over.fetch_or(runtime.stats().phase == Phase::Failed, Ordering::Relaxed);
            Ok(())
        },
        || {},
    );
    drop(progress);
    let load = load.map(Load::finish).transpose()?;
    let calls = counter.finish();
    let stats = runtime.stats();
    let events: Vec<_> = runtime.events().try_iter().collect();
    let inference = runtime.realtime().clone();
    let stopped = runtime.stop();
    let (ticks, ()) = outcome?;
    if interrupt::requested() && ticks.as_ref().is_none_or(|ticks| ticks.count == 0) {
        return Err(interrupt::nothing_yet());
    }
    let Some(ticks) = ticks else {
        let last = events.last().map(|e| format!("{e:?}")).unwrap_or_default();
        return Err(Error::new(ErrorKind::Runtime, format!("inference gave up: {last}")));
    };
    stopped?;
    let calls = match &ticks.not_counted {
        Some(why) => Err(why.clone()),
        None => calls.map_err(|e| e.to_string()),
    };
    let measured = Measured {
        inference,
        published: ticks.chunks_published(),
        chunks: stats.inference.chunk_ns,
        calls,
        load,
    };
    Ok((ticks, measured))
}

/// The sensor side: the same observation, 30 times a second.
fn publish(
    observation: &StoredObservation,
    manifest: &Manifest,
    mut sensors: ObservationWriter<ObservationSlot>,
    over: &AtomicBool,
) -> Result<()> {
    let mut next = Timestamp::now();
    while !over.load(Ordering::Relaxed) {
        observation.copy_to(manifest, sensors.slot());
        // The capture is now, so it cannot be refused.
        _ = sensors.publish(Timestamp::now());
        next = next.plus(33_333_333);
        next.sleep_until();
    }
    Ok(())
}
