//! `pi0-edge bench`: latency by stage.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use pi0_edge::{Error, ErrorKind, InferOptions, Policy, Result, Timing, Transfers};
use pi0_edge_probe::allocations;
use serde_json::{Value, json};

use crate::environment;
use crate::figures::{nearest_rank, percentile};
use crate::observation::StoredObservation;
use crate::options::LoadOptions;
use crate::output;

/// Arguments of `bench`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    load: LoadOptions,
    /// Directory with observation.json and its frames (default: the bundle's first golden case, else made up)
    #[arg(long, value_name = "DIR")]
    observation: Option<PathBuf>,
    /// Chunks to measure
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    iterations: u32,
    /// Chunks to run first, not measured (the first one is reported apart)
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    warmup: u32,
    /// Euler steps (default: the bundle's)
    #[arg(long, value_name = "N")]
    num_steps: Option<usize>,
    /// What to print on stdout
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// What `bench` prints.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub enum Format {
    /// For people
    Text,
    /// A table to paste
    Md,
    /// For programs
    Json,
}

/// Samples of one stage.
struct Samples {
    name: &'static str,
    values: Vec<Duration>,
}

impl Samples {
    fn new(name: &'static str, capacity: usize) -> Self {
        Samples { name, values: Vec::with_capacity(capacity) }
    }

    /// Of sorted values, in milliseconds: the median, of however few there are; p90 and p99, which are missing where too
    /// few values lie beyond them; the largest.
    fn row(&self) -> (f64, [Option<f64>; 2], f64) {
        let ms = |d: &Duration| d.as_secs_f64() * 1e3;
        let known = |p| percentile(&self.values, p).as_ref().map(ms);
        let [median, max] = [0.5, 1.0].map(|p| ms(&self.values[nearest_rank(self.values.len(), p)]));
        (median, [known(0.9), known(0.99)], max)
    }

    /// The same as cells of a table.
    fn cells(&self) -> [String; 4] {
        let (p50, high, max) = self.row();
        [Some(p50), high[0], high[1], Some(max)].map(|v| v.map_or("–".into(), |ms| format!("{ms:.4}")))
    }
}

struct Report {
    stages: Vec<Samples>,
    first_chunk: Duration,
    warmup: u32,
    allocations_per_chunk: f64,
    environment: Value,
    memory: Value,
    device_memory: Value,
    placement: Value,
    transfers: Transfers,
    replayed: Vec<&'static str>,
    prefix_len: usize,
    num_steps: usize,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let mut policy = args.load.load()?;
    let observation = StoredObservation::read_or_golden(args.observation.as_deref(), &policy)?;
    let report = measure(args, &mut policy, &observation)?;
    match args.format {
        Format::Text => output::print(&report.text()),
        Format::Md => output::print(&report.markdown()),
        Format::Json => output::print_json(&report.json()),
    }
}

fn measure(args: &Args, policy: &mut Policy, observation: &StoredObservation) -> Result<Report> {
    let options = InferOptions { num_steps: args.num_steps, ..InferOptions::default() };
    let iterations = args.iterations as usize;
    observation.with(|o| {
        policy.infer(o, &options)?;
        let first_chunk = policy.timing().total;
        policy.capture_graphs()?;
        for _ in 1..args.warmup {
            policy.infer(o, &options)?;
        }
        let num_steps = policy.timing().steps.len();
        let mut stages = vec![
            Samples::new("preprocess", iterations),
            Samples::new("vision", iterations),
            Samples::new("prefix", iterations),
            Samples::new("denoise_step", iterations * num_steps),
            Samples::new("chunk", iterations),
            Samples::new("overhead", iterations),
        ];
        // Nothing but the policy may allocate between here and the reading of the counter.
        let allocated = allocations::on_this_thread();
        for _ in 0..iterations {
            policy.infer(o, &options)?;
            record(&mut stages, policy.timing());
        }
        let allocations = allocations::on_this_thread() - allocated;
        for s in &mut stages {
            s.values.sort_unstable();
        }
        if stages.iter().any(|s| s.values.is_empty()) {
            return Err(Error::new(ErrorKind::InvalidArgument, "nothing was measured"));
        }
        Ok(Report {
            stages,
            first_chunk,
            warmup: args.warmup,
            allocations_per_chunk: allocations as f64 / iterations as f64,
            environment: environment::describe(policy, args.load.threads),
            memory: environment::memory(policy),
            device_memory: environment::device_memory(policy)?,
            placement: environment::placement(policy),
            transfers: policy.inspect().transfers(),
            replayed: policy.inspect().replayed_graphs().collect(),
            prefix_len: policy.inspect().prefix_len(),
            num_steps,
        })
    })
}

fn record(stages: &mut [Samples], t: &Timing) {
    for s in stages {
        match s.name {
            "preprocess" => s.values.push(t.preprocess),
            "vision" => s.values.push(t.vision),
            "prefix" => s.values.push(t.prefix),
            "denoise_step" => s.values.extend_from_slice(&t.steps),
            "chunk" => s.values.push(t.total),
            _ => s.values.push(t.overhead()),
        }
    }
}

impl Report {
    fn json(&self) -> Value {
        let stages: serde_json::Map<_, _> = self
            .stages
            .iter()
            .map(|s| {
                let (p50, [p90, p99], max) = s.row();
                let row =
                    json!({"n": s.values.len(), "p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "max_ms": max});
                (s.name.to_owned(), row)
            })
            .collect();
        json!({
            "stages": stages,
            "first_chunk_ms": self.first_chunk.as_secs_f64() * 1e3,
            "warmup_chunks": self.warmup,
            "num_steps": self.num_steps,
            "prefix_len": self.prefix_len,
            "allocations_per_chunk": self.allocations_per_chunk,
            "host_device_bytes": {
                "to_device": self.transfers.to_device, "from_device": self.transfers.from_device,
            },
            "cuda_graphs": self.replayed,
            "nodes": self.placement,
            "memory": self.memory,
            "device_memory": self.device_memory,
            "environment": self.environment,
        })
    }

    fn summary(&self) -> String {
        format!(
            "{} steps, prefix of {} rows; first chunk {:.3} ms, {} warm-up chunks not counted; {} allocations of \
             ours per chunk\n{}\n{}",
            self.num_steps,
            self.prefix_len,
            self.first_chunk.as_secs_f64() * 1e3,
            self.warmup,
            self.allocations_per_chunk,
            self.memory_line(),
            self.device_line(),
        )
    }

    fn device_line(&self) -> String {
        let Transfers { to_device, from_device } = self.transfers;
        let mut line = format!("host to device {to_device} bytes a chunk, back {from_device}");
        if let (Some(used), Some(total)) =
            (self.device_memory["used_mb"].as_f64(), self.device_memory["total_mb"].as_f64())
        {
            let _ = write!(line, "; GPU memory: {used:.0} MB of {total:.0} MB");
        }
        if !self.replayed.is_empty() {
            let _ = write!(line, "; CUDA graphs: {}", self.replayed.join(", "));
        }
        line
    }

    fn memory_line(&self) -> String {
        let mb = |key: &str| self.memory[key].as_f64().map_or("?".into(), |v| format!("{v:.0} MB"));
        format!(
            "memory: proportional set size {}, of which {} anonymous; weights are {}",
            mb("pss_mb"),
            mb("pss_anonymous_mb"),
            mb("weights_mb"),
        )
    }

    fn environment_lines(&self, bullet: &str) -> String {
        let mut out = String::new();
        for (key, value) in self.environment.as_object().into_iter().flatten() {
            match value {
                Value::Null => {}
                Value::String(s) => _ = writeln!(out, "{bullet}{key}: {s}"),
                other => _ = writeln!(out, "{bullet}{key}: {other}"),
            }
        }
        out
    }

    fn text(&self) -> String {
        let mut out = format!(
            "{:<14}{:>7}{:>12}{:>12}{:>12}{:>12}\n",
            "stage", "n", "p50 ms", "p90 ms", "p99 ms", "max ms"
        );
        for s in &self.stages {
            let [p50, p90, p99, max] = s.cells();
            let n = s.values.len();
            let _ = writeln!(out, "{:<14}{n:>7}{p50:>12}{p90:>12}{p99:>12}{max:>12}", s.name);
        }
        let _ = write!(out, "\n{}\n\n{}", self.summary(), self.environment_lines(""));
        out
    }

    fn markdown(&self) -> String {
        let mut out =
            String::from("| stage | n | p50 ms | p90 ms | p99 ms | max ms |\n|---|--:|--:|--:|--:|--:|\n");
        for s in &self.stages {
            let [p50, p90, p99, max] = s.cells();
            let n = s.values.len();
            let _ = writeln!(out, "| {} | {n} | {p50} | {p90} | {p99} | {max} |", s.name);
        }
        let _ = write!(out, "\n{}\n\n{}", self.summary(), self.environment_lines("- "));
        out
    }
}
