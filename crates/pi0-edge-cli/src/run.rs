//! `pi0-edge run`: one observation in, one action chunk out.

use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use pi0_edge::internals::read_npy;
use pi0_edge::rtc::{Guidance, PrefixSchedule, prefix_weights};
use pi0_edge::{Error, ErrorKind, InferOptions, Noise, Policy, Result};
use serde_json::json;

use crate::observation::StoredObservation;
use crate::options::LoadOptions;
use crate::output::{self, Format};

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
    #[arg(long, value_name = "FILE.npy")]
    previous: Option<PathBuf>,
    /// Rows that will be executed before this chunk is ready
    #[arg(long, value_name = "TICKS", default_value_t = 0, requires = "previous")]
    inference_delay: usize,
    /// Row where guidance ends (lerobot's meaning of the word)
    #[arg(long, value_name = "ROWS", default_value_t = 10, requires = "previous")]
    execution_horizon: usize,
    /// How guidance falls: linear, exp, ones or zeros
    #[arg(long, value_name = "NAME", default_value_t, requires = "previous")]
    rtc_schedule: PrefixSchedule,
    /// Upper bound of the guidance weight
    #[arg(long, value_name = "W", default_value_t = 10.0, requires = "previous")]
    max_guidance_weight: f32,
    /// What to print on stdout
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
        let text = format!("{}: noise has shape {:?}; it must be {wanted:?}", path.display(), noise.shape());
        return Err(Error::new(ErrorKind::InvalidArgument, text));
    }
    Ok(noise)
}

/// The previous chunk's rest from `path`, and the weight of each row of the new chunk.
fn read_previous(path: &Path, args: &Args, policy: &Policy) -> Result<(ArrayD<f32>, Vec<f32>)> {
    let rows = read_npy(path)?;
    let (horizon, dim) = (policy.manifest().dimensions.action_horizon, policy.manifest().action.dim);
    if rows.ndim() != 2 || rows.shape()[1] != dim || !(1..=horizon).contains(&rows.shape()[0]) {
        let text = format!(
            "{}: previous actions have shape {:?}; they must be 1 to {horizon} rows of {dim}",
            path.display(),
            rows.shape()
        );
        return Err(Error::new(ErrorKind::InvalidArgument, text));
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
    if let Some(path) = &args.output {
        output::write_npy(path, policy.chunk().view())?;
    }
    match args.format {
        Format::Text => output::print(&text(&policy)),
        Format::Json => output::print_json(&as_json(&policy)),
    }
}

fn milliseconds(d: std::time::Duration) -> f64 {
    (d.as_secs_f64() * 1e6).round() / 1e3
}

fn as_json(policy: &Policy) -> serde_json::Value {
    let t = policy.timing();
    json!({
        "actions": policy.chunk().view().rows().into_iter().map(|r| r.to_vec()).collect::<Vec<_>>(),
        "num_steps": t.steps.len(),
        "prefix_len": policy.inspect().prefix_len(),
        "timing_ms": {
            "preprocess": milliseconds(t.preprocess),
            "vision": milliseconds(t.vision),
            "prefix": milliseconds(t.prefix),
            "denoise": milliseconds(t.denoise()),
            "total": milliseconds(t.total),
        },
    })
}

fn text(policy: &Policy) -> String {
    use std::fmt::Write;
    let chunk = policy.chunk().view();
    let names = policy.manifest().action.names.as_deref();
    let mut out = String::new();
    let header = (0..chunk.ncols()).map(|i| names.map_or_else(|| format!("a{i}"), |n| n[i].clone()));
    let columns: Vec<String> = header.collect();
    let width = columns.iter().map(String::len).max().unwrap_or(0).max(9);
    let _ = write!(out, "tick");
    for c in &columns {
        let _ = write!(out, "  {c:>width$}");
    }
    out.push('\n');
    for (tick, row) in chunk.rows().into_iter().enumerate() {
        let _ = write!(out, "{tick:4}");
        for v in row {
            let _ = write!(out, "  {v:>width$.4}");
        }
        out.push('\n');
    }
    let t = policy.timing();
    let _ = writeln!(
        out,
        "\n{} actions of {} values, {} steps, prefix of {} rows\npreprocess {:.3} ms, vision {:.3} ms, \
         prefix {:.3} ms, denoise {:.3} ms, total {:.3} ms",
        chunk.nrows(),
        chunk.ncols(),
        t.steps.len(),
        policy.inspect().prefix_len(),
        milliseconds(t.preprocess),
        milliseconds(t.vision),
        milliseconds(t.prefix),
        milliseconds(t.denoise()),
        milliseconds(t.total),
    );
    out
}
