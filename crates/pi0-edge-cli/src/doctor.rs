//! `pi0-edge doctor`: why it will be slow or broken, and what to type.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pi0_edge::Result;
use pi0_edge_doctor::{BundleFacts, Facts, Options, Provider, diagnose};

use crate::output::{Format, print};

/// Arguments of `doctor`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The bundle that is to run here
    bundle: Option<PathBuf>,
    /// Provider it is to run with (default: the one the bundle was made for)
    #[arg(long, value_name = "cpu|cuda|tensorrt")]
    provider: Option<Provider>,
    /// ONNX Runtime's shared library
    #[arg(long, value_name = "FILE")]
    ort_library: Option<PathBuf>,
    /// Directory of TensorRT engines (default: pi0-edge/engines in the user's cache)
    #[arg(long, value_name = "DIR")]
    engine_cache: Option<PathBuf>,
    /// Examine the file tree below DIR instead of this machine, such as a root file system to be flashed
    #[arg(long, value_name = "DIR", default_value = "/", hide_default_value = true)]
    root: PathBuf,
    /// Format of the output on stdout
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// Runs the verb. The exit code says whether anything stands in the way.
pub fn run(args: &Args) -> Result<ExitCode> {
    let options = Options { ort_library: args.ort_library.clone(), engine_cache: args.engine_cache.clone() };
    let here = args.root == Path::new("/");
    // This process's environment says nothing about another tree.
    let env = |name: &str| std::env::var(name).ok().filter(|_| here);
    let facts = Facts::gather(&args.root, &env, &options);
    let bundle = args.bundle.as_deref().map(BundleFacts::read);
    let report = diagnose(&facts, bundle.as_ref(), args.provider);
    match args.format {
        Format::Text => print(&report.text(colour()))?,
        json => json.print(String::new, || report.json())?,
    }
    Ok(if report.is_usable() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Colours are for terminals, and for those who have not said `NO_COLOR`.
fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}
