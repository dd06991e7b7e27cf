//! `pi0-edge replay`: a recorded episode through the real-time runtime.

mod again;
pub mod episode;
mod live;
mod mcap;
mod measured;
mod probe;
pub mod recording;
mod report;
pub mod settings;
mod soak;
pub mod trace;
mod trajectory;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pi0_edge::internals::hex;
use pi0_edge::rtc::PrefixSchedule;
use pi0_edge::runtime::{
    Inference, MemoryLock, PolicyInference, PolicyInferenceOptions, Realtime, Splice, ThreadConfig,
};
use pi0_edge::{Error, ErrorKind, Policy, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::environment;
use crate::interrupt::{self, Heeding};
use crate::observation::action_names;
use crate::options::{CHUNKING, LoadOptions, REALTIME, RIGHTS, choice};
use crate::output::{Format, NewFile, cannot, quoted, refuse};
use crate::progress::{Progress, Unit};
use crate::watched::Loaded;
use episode::Episode;
use recording::{Made, Recorded};
use report::Run;
use settings::{LATENCIES, RATES, Rtc, Settings};

/// SCHED_FIFO priority of the control loop: above the inference thread's.
const CONTROL_PRIORITY: i32 = 90;

const FILES: &str = "Files";

const EPISODES: &str = "\
An episode is a directory with episode.json:
  {\"prompt\": \"pick up the cube\",
   \"observations\": [{\"time_s\": 0.0, \"path\": \"000\"}, {\"time_s\": 0.033, \"path\": \"001\"}]}
Each path is what `run --observation` takes: a directory with observation.json and the frames it names. Times are
seconds and rise; where they start does not matter. scripts/make_episode.py takes one out of a lerobot dataset, or makes
one up for a bundle. When the episode ends before the replay does it begins again.

Examples:
  pi0-edge replay models/pi0-tiny --episode EPISODE --rate 200 --duration 10
  pi0-edge replay BUNDLE --episode EPISODE --rate 200 --duration 60 --rtc --inject-latency 0,100,200
  pi0-edge replay BUNDLE --episode EPISODE --rate 500 --rtc --svg trajectory.svg --record run.jsonl
  pi0-edge replay BUNDLE --episode EPISODE --recording run.jsonl
  pi0-edge replay BUNDLE --episode EPISODE --rate 1000 --duration 3600 --full-speed --soak 10";

/// Arguments of `replay`.
#[derive(clap::Args, Debug)]
#[command(after_help = EPISODES)]
pub struct Args {
    #[command(flatten)]
    load: LoadOptions,
    /// Directory with episode.json: observations with times
    #[arg(long, value_name = "DIR")]
    episode: PathBuf,
    /// Control rate: ticks, which are reads, per second
    #[arg(long, value_name = "HZ", value_parser = rate, required_unless_present = "recording")]
    rate: Option<f64>,
    /// Seconds to run for (default: the episode once)
    #[arg(long, value_name = "S", value_parser = seconds)]
    duration: Option<f64>,
    /// Run a second time with real-time chunking, and show both
    #[arg(help_heading = CHUNKING, long)]
    rtc: bool,
    /// Add this to the time each chunk takes; several values make one run each
    #[arg(long, value_name = "MS,…", value_delimiter = ',', default_value = "0", value_parser = milliseconds)]
    inject_latency: Vec<f64>,
    /// Keep inputs and outputs of every tick, run them again without threads, and fail unless every bit is the same
    #[arg(help_heading = FILES, long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Instead of running live, run this recording of the same episode again, and fail unless every bit is the same
    #[arg(help_heading = FILES, long, value_name = "FILE", conflicts_with_all = ["rate", "duration", "rtc", "record", "mcap", "svg", "soak", "full_speed"])]
    recording: Option<PathBuf>,
    /// Record states, images, chunks and every tick's action, age and status while it happens, for Foxglove, Rerun and
    /// PlotJuggler; of several runs the last
    #[arg(help_heading = FILES, long, value_name = "FILE.mcap")]
    mcap: Option<PathBuf>,
    /// Draw the executed trajectory with the seams between chunks
    #[arg(help_heading = FILES, long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,
    /// Action rate: rows of a chunk per second, the rate the policy was trained at
    #[arg(long, value_name = "HZ", default_value_t = 50.0, value_parser = rate)]
    action_rate: f64,
    /// Each row of a chunk stands for its whole period, instead of moving evenly to the next
    #[arg(long)]
    no_interpolation: bool,
    /// Row at which a new chunk takes over: the one that is due by time; of those due the one that follows on the last
    /// command, or that the recorded state has reached; row 0 on arrival
    #[arg(long, value_name = "RULE", default_value_t)]
    splice: Splice,
    /// Begin the next chunk when this many rows have not begun (default: half of the chunk)
    #[arg(long, value_name = "ROWS", conflicts_with = "full_speed")]
    replan_remaining: Option<usize>,
    /// Observations and chunks follow each other without a pause
    #[arg(long)]
    full_speed: bool,
    /// Row where guidance ends (lerobot's meaning of the word; default: 10, or the chunk if it is shorter)
    #[arg(help_heading = CHUNKING, long, value_name = "ROWS", requires = "rtc")]
    execution_horizon: Option<usize>,
    /// Schedule of the guidance weights: linear, exp, ones or zeros
    #[arg(help_heading = CHUNKING, long, value_name = "NAME", default_value_t, requires = "rtc")]
    rtc_schedule: PrefixSchedule,
    /// Upper bound of the guidance weight
    #[arg(help_heading = CHUNKING, long, value_name = "W", default_value_t = 10.0, requires = "rtc")]
    max_guidance_weight: f32,
    /// An action whose observation is older than this is STALE
    #[arg(long, value_name = "MS", default_value_t = 500)]
    max_age: u64,
    /// An action whose observation is older than this is not followed any more: HOLD
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    hold_after: u64,
    /// Distance that each joint may move in a control tick, in robot units
    #[arg(long, value_name = "UNITS")]
    step_limit: Option<f32>,
    /// Ticks in a row at the step limit after which the robot holds for good (default: never)
    #[arg(
        long,
        value_name = "TICKS",
        default_value_t = 0,
        hide_default_value = true,
        requires = "step_limit"
    )]
    trip_after: u32,
    /// File for the last 256 ticks and 16 chunks: when the step limit trips or inference hangs or gives up, else at the
    /// end
    #[arg(help_heading = FILES, long, value_name = "FILE.json")]
    flight_record: Option<PathBuf>,
    /// The task (default: the episode's, else the bundle's)
    #[arg(long)]
    prompt: Option<String>,
    /// Seed of the noise
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Euler steps (default: the bundle's)
    #[arg(long, value_name = "N")]
    num_steps: Option<usize>,
    /// Real-time priority, CPU affinity and locked memory: insist on them, try, or ask for nothing
    #[arg(help_heading = RIGHTS, long, value_parser = choice(REALTIME), default_value = "try")]
    realtime: Realtime,
    /// CPUs of the inference thread (default: any)
    #[arg(help_heading = RIGHTS, long, value_name = "N,…", value_delimiter = ',')]
    cpus: Vec<usize>,
    /// CPUs of the threads that ONNX Runtime shares the inference thread's work with (default: any)
    #[arg(help_heading = RIGHTS, long, value_name = "N,…", value_delimiter = ',')]
    worker_cpus: Vec<usize>,
    /// CPUs of the control loop (default: any)
    #[arg(help_heading = RIGHTS, long, value_name = "N,…", value_delimiter = ',')]
    control_cpus: Vec<usize>,
    /// Look at memory, threads and file descriptors every so many seconds, and tell how they grow
    #[arg(long, value_name = "S", value_parser = seconds, num_args = 0..=1, default_missing_value = "10")]
    soak: Option<f64>,
    /// Format of the output on stdout
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

fn number(text: &str, range: RangeInclusive<f64>) -> std::result::Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if range.contains(&value) { Ok(value) } else { Err(format!("use {} to {}", range.start(), range.end())) }
}

fn rate(text: &str) -> std::result::Result<f64, String> {
    number(text, RATES)
}

fn seconds(text: &str) -> std::result::Result<f64, String> {
    number(text, 0.01..=1e6)
}

fn milliseconds(text: &str) -> std::result::Result<f64, String> {
    number(text, LATENCIES)
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    // Cheap to read and likely to be wrong: before the bundle is verified and loaded.
    let recorded = args.recording.as_deref().map(recording::read).transpose()?;
    let episode = Episode::read(&args.episode)?;
    if args.svg.is_some() && args.inject_latency.len() > 1 {
        return refuse("--svg draws runs of one latency; give --inject-latency one value");
    }
    let outputs = Outputs::create(args)?;
    // Worker threads that spin would take the control loop's CPU.
    let policy = LoadOptions { no_spin: true, ..args.load.clone() }.load()?;
    episode.check(policy.manifest())?;
    let environment = environment::describe(&policy, args.load.threads);
    let made = made(&policy, &episode, &environment)?;
    match recorded {
        Some(recorded) => again(args, &recorded, &episode, policy, &made),
        None => live(args, &episode, policy, &environment, &made, outputs),
    }
}

/// The files that are asked for.
struct Outputs {
    record: Option<NewFile>,
    svg: Option<NewFile>,
    mcap: Option<NewFile>,
}

impl Outputs {
    fn create(args: &Args) -> Result<Self> {
        let create = |path: &Option<PathBuf>| path.as_deref().map(NewFile::create).transpose();
        // The runtime writes this one by itself.
        create(&args.flight_record)?;
        Ok(Outputs { record: create(&args.record)?, svg: create(&args.svg)?, mcap: create(&args.mcap)? })
    }
}

fn made(policy: &Policy, episode: &Episode, environment: &Value) -> Result<Made> {
    let path = policy.bundle().root().join("manifest.json");
    let manifest = std::fs::read(&path).map_err(cannot("read", &path))?;
    let text = |key: &str| environment[key].as_str().unwrap_or_default().to_owned();
    Ok(Made {
        recording: recording::VERSION,
        bundle: hex(&Sha256::digest(&manifest)),
        episode: episode.digest.clone(),
        provider: text("execution_provider"),
        threads: environment["threads"].as_u64().unwrap_or(0) as usize,
        onnxruntime: text("onnxruntime"),
        pi0_edge: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

fn load(policy: Policy, episode: &Episode, prompt: Option<&str>, seed: u64) -> Result<Loaded> {
    let options =
        PolicyInferenceOptions { prompt: prompt.map(str::to_owned), seed, max_frame: episode.max_frame() };
    let mut inference = PolicyInference::new(policy, options)?;
    if let Some(prompt) = prompt {
        // Now rather than at the first chunk.
        inference.set_prompt(prompt)?;
    }
    Ok(Arc::new(Mutex::new(inference)))
}

/// Runs a recording again.
fn again(args: &Args, runs: &[Recorded], episode: &Episode, policy: Policy, made: &Made) -> Result<()> {
    let Recorded { settings, .. } = &runs[0];
    if runs.iter().any(|run| (&run.settings.prompt, run.settings.seed) != (&settings.prompt, settings.seed)) {
        return refuse("the recording's runs differ in prompt or seed");
    }
    let policy = load(policy, episode, settings.prompt.as_deref(), settings.seed)?;
    let _progress = Progress::new("running it again", 0, Unit::Seconds);
    for run in runs {
        let differences = run.made.compare(made)?;
        again::verify(&policy, episode, run).map_err(|e| match e.kind() {
            ErrorKind::Parity => Error::new(ErrorKind::Parity, format!("{e}{differences}")),
            _ => e,
        })?;
    }
    let (ticks, chunks, text) = identical(runs);
    let json = || json!({"identical": true, "runs": runs.len(), "ticks": ticks, "chunks": chunks});
    args.format.print(|| text, json)
}

/// The ticks and the chunks of runs that came out the same again, and that in words.
fn identical(runs: &[Recorded]) -> (usize, usize, String) {
    let n = runs.len();
    let ticks: usize = runs.iter().map(|run| run.trace.ticks.len()).sum();
    let chunks: usize = runs.iter().map(|run| run.trace.chunks.len()).sum();
    let text = format!(
        "run again without threads: {n} runs, {ticks} ticks and {chunks} chunks, every bit the same\n"
    );
    (ticks, chunks, text)
}

/// Runs the episode live.
fn live(
    args: &Args,
    episode: &Episode,
    policy: Policy,
    environment: &Value,
    made: &Made,
    outputs: Outputs,
) -> Result<()> {
    let prompt = args.prompt.clone().or_else(|| episode.prompt.clone());
    let base = settings(args, &policy, prompt.clone());
    let horizon = policy.manifest().dimensions.action_horizon;
    let rtc = args.rtc.then(|| Rtc {
        schedule: args.rtc_schedule.to_string(),
        execution_horizon: args.execution_horizon.unwrap_or(horizon.min(10)),
        max_guidance_weight: args.max_guidance_weight,
    });
    let names = action_names(&policy);
    let policy = load(policy, episode, prompt.as_deref(), args.seed)?;
    let options = options(args, episode, &base, outputs.mcap.as_ref())?;
    let heeding = Heeding::new();
    let mut runs = Vec::new();
    for &latency_ms in &args.inject_latency {
        for rtc in std::iter::once(None).chain(rtc.clone().map(Some)) {
            if interrupt::requested() {
                break;
            }
            let settings = Settings { rtc, latency_ms, ..base.clone() };
            let outcome = live::run(&policy, episode, &settings, &options)?;
            if outcome.control.reads > 0 {
                runs.push(Run { settings, outcome });
            }
        }
    }
    if runs.is_empty() {
        return Err(interrupt::nothing_yet());
    }
    let (observations, seconds) = (episode.len(), episode.length().as_secs_f64());
    let mut result = json!({
        "environment": environment,
        "episode": {"observations": observations, "seconds": seconds},
        "settings": base,
        "runs": runs.iter().map(|run| run.json(&names)).collect::<Vec<_>>(),
    });
    let mut text = format!(
        "{observations} observations over {seconds:.2} s, prompt {:?}; control rate {} Hz, action rate {} Hz\n\n{}",
        prompt.unwrap_or_default(),
        base.rate_hz,
        base.action_rate_hz,
        report::table(&runs, &names)
    );
    let Outputs { record, svg, mcap } = outputs;
    // The table is worth more than any file: it is printed whatever becomes of them.
    let written = || -> Result<()> {
        if let Some(file) = svg {
            let path = file.path().to_owned();
            file.write_bytes(trajectory::draw(&runs, &names))?;
            text += &format!("\nthe trajectory is drawn in {}\n", path.display());
            result["svg"] = json!(path);
        }
        if let (Some(file), Some(counts)) = (mcap, runs.last().and_then(|run| run.outcome.mcap)) {
            let path = file.path().to_owned();
            file.write_bytes("")?;
            text += &format!("\nrecorded in {}: {}\n", path.display(), mcap::words(counts));
            result["mcap"] = mcap::json(&path, counts);
        }
        if let Some(file) = record {
            let path = file.path().to_owned();
            let recorded = write_recording(file, runs, made)?;
            // What follows shows nothing before its end.
            drop(heeding);
            let progress = Progress::new("running it again", 0, Unit::Seconds);
            recorded.iter().try_for_each(|run| again::verify(&policy, episode, run))?;
            drop(progress);
            let (ticks, chunks, same) = identical(&recorded);
            text += &format!("\nrecorded in {}; {same}", path.display());
            result["recording"] = json!({"file": path, "ticks": ticks, "chunks": chunks, "identical": true});
        }
        Ok(())
    };
    let written = written();
    text += &format!("\n{}", environment::lines(environment, ""));
    args.format.print(|| text, || result)?;
    written?;
    args.format.next(|| {
        let again = format!("pi0-edge replay {} --episode {}", args.load.typed(), quoted(&args.episode));
        match (&args.record, &args.mcap, &args.svg) {
            (Some(file), ..) => format!("{again} --recording {}", quoted(file)),
            (_, Some(file), _) => format!("open {} in Foxglove, Rerun or PlotJuggler", quoted(file)),
            (.., Some(file)) => format!("open {} in a browser", quoted(file)),
            _ => format!("{again} --rate {} --rtc --svg trajectory.svg", base.rate_hz),
        }
    });
    Ok(())
}

/// Writes the runs down, and gives back what was read from the file.
fn write_recording(file: NewFile, runs: Vec<Run>, made: &Made) -> Result<Vec<Recorded>> {
    let recorded = |run: Run| {
        let trace = run.outcome.trace?;
        Some(Recorded { made: made.clone(), settings: run.settings, trace })
    };
    let path = file.path().to_owned();
    recording::write(file, &runs.into_iter().filter_map(recorded).collect::<Vec<_>>())?;
    recording::read(&path)
}

fn settings(args: &Args, policy: &Policy, prompt: Option<String>) -> Settings {
    let manifest = policy.manifest();
    let half = manifest.dimensions.action_horizon / 2;
    Settings {
        rate_hz: args.rate.unwrap_or_default(),
        action_rate_hz: args.action_rate,
        interpolate: !args.no_interpolation,
        splice: args.splice,
        replan_remaining: (!args.full_speed).then(|| args.replan_remaining.unwrap_or(half)),
        rtc: None,
        latency_ms: 0.0,
        max_age_ms: args.max_age,
        hold_after_ms: args.hold_after,
        step_limit: args.step_limit,
        trip_after: args.trip_after,
        prompt,
        seed: args.seed,
        num_steps: args.num_steps.unwrap_or(manifest.flow.num_steps),
    }
}

fn options(
    args: &Args,
    episode: &Episode,
    settings: &Settings,
    mcap: Option<&NewFile>,
) -> Result<live::Options> {
    let duration = args.duration.map_or_else(|| episode.length(), Duration::from_secs_f64);
    let trace = args.record.is_some() || args.svg.is_some();
    let ticks = duration.as_secs_f64() * settings.rate_hz;
    if trace && ticks > live::MAX_TRACE as f64 {
        return refuse(format!("{ticks:.0} ticks are too many to keep; at most {}", live::MAX_TRACE));
    }
    let inference = ThreadConfig {
        realtime: args.realtime,
        cpus: args.cpus.clone(),
        worker_cpus: args.worker_cpus.clone(),
        ..ThreadConfig::default()
    };
    let control = ThreadConfig {
        priority: Some(CONTROL_PRIORITY),
        cpus: args.control_cpus.clone(),
        // Memory and heap are the process's, and the inference thread has seen to them.
        lock_memory: MemoryLock::Off,
        keep_heap: false,
        ..inference.clone()
    };
    let (soak, full_speed) = (args.soak.map(Duration::from_secs_f64), args.full_speed);
    let (flight_record, mcap) = (args.flight_record.clone(), mcap.map(|file| file.part().to_owned()));
    Ok(live::Options { duration, full_speed, inference, control, trace, soak, flight_record, mcap })
}
