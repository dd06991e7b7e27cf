//! `pi0-edge mcap`: a flight record as a recording that viewers open.

use std::path::PathBuf;
use std::time::Duration;

use pi0_edge::{Bundle, ErrorKind, Result, Verify};
use pi0_edge_mcap::{Clock, Flight, Names, Recording};

use crate::output::{Format, print, quoted, read_json};

/// Largest flight record read.
const MAX_RECORD: u64 = 256 << 20;

/// Arguments of `mcap`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The flight record, as a runtime wrote it
    record: PathBuf,
    /// File to write
    #[arg(long, value_name = "FILE.mcap")]
    output: PathBuf,
    /// Bundle whose names the joints get (default: numbers)
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Action rate: rows of a chunk per second, the rate the policy was trained at
    #[arg(long, value_name = "HZ", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    action_rate: u32,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let flight: Flight = read_json(&args.record, MAX_RECORD, ErrorKind::InvalidArgument)?;
    let period = Duration::from_secs(1) / args.action_rate;
    let names = match &args.bundle {
        Some(path) => Names::of(Bundle::open(path, Verify::Size, &mut |_, _| {})?.manifest(), period),
        None => Names::numbered(flight.action_dim(), period),
    };
    let mut recording = Recording::create(&args.output, names, Clock::Boot)?;
    recording.flight(flight)?;
    let counts = recording.finish()?;
    print(&format!("{} ticks and {} chunks in {}\n", counts.ticks, counts.chunks, args.output.display()))?;
    Format::Text.next(|| format!("open {} in Foxglove, Rerun or PlotJuggler", quoted(&args.output)));
    Ok(())
}
