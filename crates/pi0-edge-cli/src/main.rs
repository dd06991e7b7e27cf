//! `pi0-edge`: the command line. One file a verb; each is a thin layer over the library.
//!
//! Machine output goes to stdout, people's output and progress to stderr. Exit code 0: done; 1: failed, with the
//! reason in words; 2: the command line was wrong; 130: Ctrl-C or SIGTERM ended it, with what it had so far.

#![deny(unsafe_code)]

mod bench;
mod benches;
mod check;
mod control;
mod device;
mod doctor;
mod draw;
mod engines;
mod environment;
mod figures;
mod frame;
mod generate;
mod inspect;
mod interrupt;
mod live;
mod mcap;
mod observation;
mod options;
mod output;
#[cfg(test)]
mod parsers;
mod progress;
mod replay;
mod run;
mod serve;
mod synthesize;
mod table;
mod watched;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use env_logger::{Target, WriteStyle};
use pi0_edge::{Provider, Result};
use pi0_edge_probe::allocations::CountingAllocator;

/// Counts the allocations that `bench` reports. ONNX Runtime's own, in C++, are not among them.
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const EXAMPLES: &str = "\
Examples:
  pi0-edge check models/pi0-tiny
  pi0-edge run models/pi0-tiny --observation models/pi0-tiny/golden/two_cameras_10_steps
  pi0-edge run BUNDLE --observation DIR --seed 7 --num-steps 4 --format json
  pi0-edge bench BUNDLE --threads 2 --format md
  pi0-edge replay BUNDLE --episode DIR --rate 200 --rtc --svg trajectory.svg
  pi0-edge serve BUNDLE --listen 127.0.0.1:8000
  pi0-edge bench control BUNDLE --rate 1000 --duration 60 --load
  pi0-edge bench device BUNDLE --minutes 5
  pi0-edge bench device $(pi0-edge synthesize pi0)
  pi0-edge engines build BUNDLE && pi0-edge check BUNDLE --provider tensorrt
  RUST_LOG=debug pi0-edge run BUNDLE --observation DIR

ONNX Runtime is looked for at --ort-library, $ORT_DYLIB_PATH, beside the executable, the project's fetched copy
(.cache/onnxruntime), /usr/lib/pi0-edge and the system's library path.";

/// Runs PI0 policies: an observation in, an action chunk out.
#[derive(Parser)]
#[command(name = "pi0-edge", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Compute one action chunk from one observation
    Run(run::Args),
    /// Verify a bundle: integrity, then parity with the reference policy, or as much of it as can be shown
    Check(check::Args),
    /// Measure latency by stage; `bench control`: what reading the action costs a control loop; `bench device`: all
    /// of it, with a report
    Bench(benches::Args),
    /// Serve the policy to openpi's clients, over their websocket
    Serve(serve::Args),
    /// Run a recorded episode through the real-time runtime at a given rate
    Replay(Box<replay::Args>),
    /// Turn a flight record into a recording for Foxglove, Rerun and PlotJuggler
    Mcap(mcap::Args),
    /// Say why it will be slow or broken on this machine, and what to type
    Doctor(doctor::Args),
    /// Build TensorRT engines ahead of time; list, verify and remove them
    Engines(engines::Args),
    /// Show what a bundle holds
    Inspect(inspect::Args),
    /// Make a bundle with random weights, to measure with: full size, or small
    Synthesize(synthesize::Args),
    /// Write the man pages and the shells' completions
    #[command(hide = true)]
    Generate(generate::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr();
    Provider::explain_failures_with(pi0_edge_doctor::explain_failure);
    // A server ends in its own way.
    let listening = if matches!(cli.verb, Verb::Serve(_)) { Ok(()) } else { interrupt::listen() };
    let result = listening.and_then(|()| run(cli.verb));
    interrupt::settle();
    if let Err(e) = &result {
        progress::say(&format!("pi0-edge: {e}"));
    }
    match result {
        _ if interrupt::requested() => ExitCode::from(interrupt::STATUS),
        Ok(code) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn log_to_stderr() {
    let colours = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
    let style = if colours { WriteStyle::Always } else { WriteStyle::Never };
    let env = env_logger::Env::default().default_filter_or("warn");
    let mut logger = env_logger::Builder::new();
    logger.target(Target::Pipe(Box::new(progress::Log))).write_style(style).parse_env(env).init();
}

fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Run(args) => run::run(&args),
        Verb::Check(args) => check::run(&args),
        Verb::Bench(args) => benches::run(&args),
        Verb::Replay(args) => replay::run(&args),
        Verb::Mcap(args) => mcap::run(&args),
        Verb::Serve(args) => serve::run(&args),
        Verb::Doctor(args) => return doctor::run(&args),
        Verb::Engines(args) => engines::run(&args),
        Verb::Inspect(args) => inspect::run(&args),
        Verb::Synthesize(args) => synthesize::run(&args),
        Verb::Generate(args) => generate::run(&args, Cli::command()),
    }
    .map(|()| ExitCode::SUCCESS)
}
