//! `pi0-edge bench`: latency by stage.

use std::fmt::Write;

use pi0_edge::{Policy, Result, Transfers};
use pi0_edge_probe::allocations;
use serde_json::{Map, Value, json};

use crate::environment;
use crate::figures::{Chunk, Stage, ms, stages};
use crate::interrupt::{self, Heeding};
use crate::observation::StoredObservation;
use crate::options::MeasureOptions;
use crate::output::TableFormat;
use crate::progress::{Progress, Unit};
use crate::row;
use crate::table::Table;

/// Arguments of `bench`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    measure: MeasureOptions,
    /// Chunks to measure
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    iterations: u32,
    /// Chunks to run first, not measured (the first one is reported apart)
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    warmup: u32,
    /// Format of the output on stdout
    #[arg(long, value_enum, default_value = "text")]
    format: TableFormat,
}

struct Report {
    stages: Vec<Stage>,
    first_chunk_ms: f64,
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
    let mut policy = args.measure.load.load()?;
    let observation = args.measure.observation(&policy)?;
    let report = measure(args, &mut policy, &observation)?;
    args.format.print(|| report.text(), || report.markdown(), || report.json())?;
    args.format.next(|| format!("pi0-edge bench control {}", args.measure.load.typed()));
    Ok(())
}

fn measure(args: &Args, policy: &mut Policy, observation: &StoredObservation) -> Result<Report> {
    let options = args.measure.infer_options();
    let iterations = args.iterations as usize;
    let _heeding = Heeding::new();
    let progress =
        Progress::new("measuring", u64::from(args.warmup) + u64::from(args.iterations), Unit::Of("chunks"));
    observation.with(|o| {
        policy.infer(o, &options)?;
        let first_chunk_ms = ms(policy.timing().total);
        policy.capture_graphs()?;
        for i in 1..args.warmup {
            progress.set(i.into());
            if interrupt::requested() {
                return Err(interrupt::nothing_yet());
            }
            policy.infer(o, &options)?;
        }
        let num_steps = policy.timing().steps.len();
        let mut chunks = Vec::with_capacity(iterations);
        let mut steps = Vec::with_capacity(iterations * num_steps);
        // Nothing but the policy may allocate between here and the reading of the counter.
        let allocated = allocations::on_this_thread();
        for i in 0..args.iterations {
            progress.set(u64::from(args.warmup) + u64::from(i));
            if interrupt::requested() {
                break;
            }
            policy.infer(o, &options)?;
            chunks.push(Chunk::new(0.0, policy.timing()));
            steps.extend(policy.timing().steps.iter().map(|&d| ms(d)));
        }
        let allocations = allocations::on_this_thread() - allocated;
        drop(progress);
        if chunks.is_empty() {
            return Err(interrupt::nothing_yet());
        }
        const STAGES: [&str; 6] = ["preprocess", "vision", "prefix", "denoise_step", "chunk", "overhead"];
        Ok(Report {
            stages: stages(&chunks, &steps, &STAGES),
            first_chunk_ms,
            warmup: args.warmup,
            allocations_per_chunk: allocations as f64 / chunks.len() as f64,
            environment: environment::describe(policy, args.measure.load.threads),
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

impl Report {
    fn json(&self) -> Value {
        let stage = |Stage { name, figures: f }: &Stage| {
            let row =
                json!({"n": f.n, "p50_ms": f.median, "p90_ms": f.p90, "p99_ms": f.p99, "max_ms": f.max});
            ((*name).to_owned(), row)
        };
        json!({
            "stages": self.stages.iter().map(stage).collect::<Map<_, _>>(),
            "first_chunk_ms": self.first_chunk_ms,
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

    /// The median of however few values there are; p90 and p99 only where enough lie beyond them.
    fn table(&self) -> Table {
        let cell = |ms: Option<f64>| ms.map_or("–".into(), |ms| format!("{ms:.4}"));
        Table::new(&["stage", "n", "p50 ms", "p90 ms", "p99 ms", "max ms"]).rows(self.stages.iter().map(
            |s| {
                let f = &s.figures;
                row![s.name, f.n, cell(Some(f.median)), cell(f.p90), cell(f.p99), cell(Some(f.max))]
            },
        ))
    }

    fn summary(&self) -> String {
        let Report { num_steps, prefix_len, first_chunk_ms, warmup, allocations_per_chunk, .. } = self;
        let mb = |key: &str| self.memory[key].as_f64().map_or("?".into(), |v| format!("{v:.0} MB"));
        format!(
            "{num_steps} steps, prefix of {prefix_len} rows; first chunk {first_chunk_ms:.3} ms, {warmup} warm-up \
             chunks not counted; {allocations_per_chunk} allocations of ours per chunk\n\
             memory: proportional set size {}, of which {} anonymous; weights are {}\n{}",
            mb("pss_mb"),
            mb("pss_anonymous_mb"),
            mb("weights_mb"),
            self.device_line(),
        )
    }

    fn device_line(&self) -> String {
        let Transfers { to_device, from_device } = self.transfers;
        let mut line = format!("host to device {to_device} bytes a chunk, back {from_device}");
        let gpu = |key: &str| self.device_memory[key].as_f64();
        if let Some((used, total)) = gpu("used_mb").zip(gpu("total_mb")) {
            _ = write!(line, "; GPU memory: {used:.0} MB of {total:.0} MB");
        }
        if !self.replayed.is_empty() {
            _ = write!(line, "; CUDA graphs: {}", self.replayed.join(", "));
        }
        line
    }

    fn text(&self) -> String {
        let table = self.table().text(&[14, 7, 12, 12, 12, 12]);
        format!("{table}\n{}\n\n{}", self.summary(), environment::lines(&self.environment, ""))
    }

    fn markdown(&self) -> String {
        let table = self.table().markdown(1);
        format!("{table}\n{}\n\n{}", self.summary(), environment::lines(&self.environment, "- "))
    }
}
