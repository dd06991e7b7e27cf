//! `pi0-edge run`: one observation in, one action chunk out.

use std::path::{Path, PathBuf};

use ndarray::{ArrayD, ArrayView1};
use pi0_edge::rtc::{Guidance, PrefixSchedule, prefix_weights};
use pi0_edge::{InferOptions, Noise, Policy, Result, Timing};
use pi0_edge_golden::read_npy;
use serde_json::{Map, json};

use crate::figures::ms;
use crate::observation::{StoredObservation, action_names};
use crate::options::{CHUNKING, LoadOptions};
use crate::output::{Format, NewFile, refuse, write_npy};
use crate::table::Table;

/// Arguments of `run`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    load: LoadOptions,
    /// Directory with observation.json and its frames
    #[arg(long, value_name = "DIR")]
    observation: PathBuf,
    /// Noise to start from, [action_horizon, padded action width] f32
    #[arg(long, value_name = "FILE.npy", conflicts_with = "seed")]
    noise: Option<PathBuf>,
    /// Seed of the noise
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Euler steps (default: the bundle's)
    #[arg(long, value_name = "N")]
    num_steps: Option<usize>,
    /// Join on to the previous chunk (real-time chunking): its rows not yet executed, in robot units. A policy trained
    /// for it takes --inference-delay of them as they are; another one is guided by all of them
    #[arg(help_heading = CHUNKING, long, value_name = "FILE.npy")]
    previous: Option<PathBuf>,
    /// Rows that will be executed before this chunk is ready
    #[arg(help_heading = CHUNKING, long, value_name = "ROWS", default_value_t = 0, requires = "previous")]
    inference_delay: usize,
    /// Row where guidance ends (lerobot's meaning of the word)
    #[arg(help_heading = CHUNKING, long, value_name = "ROWS", default_value_t = 10, requires = "previous")]
    execution_horizon: usize,
    /// Schedule of the guidance weights: linear, exp, ones or zeros
    #[arg(help_heading = CHUNKING, long, value_name = "NAME", default_value_t, requires = "previous")]
    rtc_schedule: PrefixSchedule,
    /// Upper bound of the guidance weight
    #[arg(help_heading = CHUNKING, long, value_name = "W", default_value_t = 10.0, requires = "previous")]
    max_guidance_weight: f32,
    /// Format of the output on stdout
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Also write the actions, [action_horizon, action_dim] f32
    #[arg(long, value_name = "FILE.npy")]
    output: Option<PathBuf>,
}

/// Noise from `path`, checked against the shape the policy wants so that the error can name the file.
fn read_noise(path: &Path, policy: &Policy) -> Result<ArrayD<f32>> {
    let noise = read_npy(path)?;
    let wanted = [policy.manifest().dimensions.action_horizon, policy.manifest().action.padded_dim];
    if noise.shape() != wanted {
        let (path, shape) = (path.display(), noise.shape());
        return refuse(format!("{path}: noise has shape {shape:?}; it must be {wanted:?}"));
    }
    Ok(noise)
}

/// The previous chunk's rest from `path`, and the weight of each row of the new chunk.
fn read_previous(path: &Path, args: &Args, policy: &Policy) -> Result<(ArrayD<f32>, Vec<f32>)> {
    let rows = read_npy(path)?;
    let (horizon, dim) = (policy.manifest().dimensions.action_horizon, policy.manifest().action.dim);
    if rows.ndim() != 2 || rows.shape()[1] != dim || !(1..=horizon).contains(&rows.shape()[0]) {
        let (path, shape) = (path.display(), rows.shape());
        let text = format!(
            "{path}: previous actions have shape {shape:?}; they must be 1 to {horizon} rows of {dim}"
        );
        return refuse(text);
    }
    let mut weights = vec![0.0; horizon];
    let end = args.execution_horizon.min(rows.shape()[0]);
    prefix_weights(args.rtc_schedule, args.inference_delay, end, &mut weights);
    Ok((rows, weights))
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    // Cheap to read and likely to be wrong: before the bundle is verified and loaded.
    let observation = StoredObservation::read(&args.observation)?;
    let output = args.output.as_deref().map(NewFile::create).transpose()?;
    let mut policy = args.load.load()?;
    let noise = args.noise.as_deref().map(|path| read_noise(path, &policy)).transpose()?;
    let previous = args.previous.as_deref().map(|path| read_previous(path, args, &policy)).transpose()?;
    let options = InferOptions {
        noise: match &noise {
            Some(values) => Noise::Given(values.as_slice().unwrap_or_default()),
            None => Noise::Seed(args.seed),
        },
        num_steps: args.num_steps,
        guidance: previous.as_ref().map(|(rows, weights)| Guidance {
            previous: rows.as_slice().unwrap_or_default(),
            prefix_weights: weights,
            max_guidance_weight: args.max_guidance_weight,
            inference_delay: args.inference_delay,
        }),
    };
    observation.with(|o| policy.infer(o, &options).map(|_| ()))?;
    let written = output.map_or(Ok(()), |file| write_npy(file, policy.chunk().view()));
    args.format.print(|| text(&policy), || as_json(&policy))?;
    written?;
    args.format.next(|| format!("pi0-edge bench {}", args.load.typed()));
    Ok(())
}

/// The stages and their times in ms, to the microsecond.
fn times(t: &Timing) -> [(&'static str, f64); 5] {
    let times = [
        ("preprocess", t.preprocess),
        ("vision", t.vision),
        ("prefix", t.prefix),
        ("denoise", t.denoise()),
        ("total", t.total),
    ];
    times.map(|(stage, time)| (stage, (ms(time) * 1e3).round() / 1e3))
}

fn as_json(policy: &Policy) -> serde_json::Value {
    let t = policy.timing();
    json!({
        "actions": policy.chunk().view().rows().into_iter().map(|r| r.to_vec()).collect::<Vec<_>>(),
        "num_steps": t.steps.len(),
        "prefix_len": policy.inspect().prefix_len(),
        "timing_ms": times(t).map(|(stage, ms)| (stage.to_owned(), json!(ms))).into_iter().collect::<Map<_, _>>(),
    })
}

fn text(policy: &Policy) -> String {
    let (chunk, t) = (policy.chunk().view(), policy.timing());
    let names = action_names(policy);
    let width = names.iter().map(String::len).max().unwrap_or(0).max(9) + 2;
    let head: Vec<&str> = std::iter::once("row").chain(names.iter().map(String::as_str)).collect();
    let row = |(row, values): (usize, ArrayView1<'_, f32>)| {
        std::iter::once(format!("{row:4}")).chain(values.iter().map(|v| format!("{v:.4}"))).collect()
    };
    let table = Table::new(&head).rows(chunk.rows().into_iter().enumerate().map(row));
    let widths: Vec<usize> = std::iter::once(4).chain(names.iter().map(|_| width)).collect();
    format!(
        "{}\n{} rows of {} values, {} steps, prefix of {} rows\n{}\n",
        table.text(&widths),
        chunk.nrows(),
        chunk.ncols(),
        t.steps.len(),
        policy.inspect().prefix_len(),
        times(t).map(|(stage, ms)| format!("{stage} {ms:.3} ms")).join(", ")
    )
}
