//! `pi0-edge synthesize`: a bundle with random weights, made on the spot.
//!
//! The package ships everything of a full-size bundle but its weights, which are many gigabytes and of no value: they are
//! filled in where the bundle is to be measured. A small one, to try things out with, is in the program itself. What comes out is a bundle like any other, with true hashes; its
//! actions mean nothing, and its manifest says so.

mod fill;
mod random;
mod template;

use std::io::IsTerminal;
use std::path::PathBuf;

use pi0_edge::Result;
use pi0_edge::internals::user_cache;

use crate::interrupt::Heeding;
use crate::options::{Choices, choice};
use crate::output::{Format, print, quoted, refuse};
use crate::progress::{Progress, Unit};
use template::Template;

/// Arguments of `synthesize`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The kind of policy
    #[arg(value_parser = choice(POLICIES))]
    policy: &'static str,
    /// Directory to create (default: pi0-edge/synthetic/POLICY-PRECISION in the user's cache)
    directory: Option<PathBuf>,
    /// The model: as large as the published ones, or small, to try things out with
    #[arg(long, value_parser = choice(SIZES), default_value = "full")]
    size: Size,
    /// Element type of the weights, such as fp32 or fp16; without one that there is, the error lists them
    #[arg(long, value_name = "PRECISION", default_value = "fp32")]
    precision: String,
    /// Another seed gives other weights
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Directory of the templates (default: share/pi0-edge/templates where pi0-edge is installed)
    #[arg(long, value_name = "DIR")]
    templates: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Size {
    Full,
    Small,
}

const SIZES: &Choices<Size> =
    &[("full", "3 to 14 GB", Size::Full), ("small", "150 MB; fp32 alone", Size::Small)];

const POLICIES: &Choices<&str> = &[("pi0", "PI0", "pi0"), ("pi05", "PI0.5", "pi05")];

/// Runs the verb: prints the bundle's directory.
pub fn run(args: &Args) -> Result<()> {
    let template = match args.size {
        Size::Small => Template::small(args.policy, &args.precision)?,
        Size::Full => {
            Template::read(&template::find(args.templates.as_deref())?, args.policy, &args.precision)?
        }
    };
    let directory = match &args.directory {
        Some(directory) => directory.clone(),
        None => cache()?.join(template.name()),
    };
    if template.is_filled(&directory, args.seed)? {
        eprintln!("{}: filled before", directory.display());
    } else {
        let bytes = template.bytes();
        eprintln!("{}: filling {:.2} GB with random weights", directory.display(), bytes as f64 / 1e9);
        let (_heeding, progress) = (Heeding::new(), Progress::new("filling", bytes, Unit::Bytes));
        fill::fill(&template, &directory, args.seed, &mut |done| progress.set(done))?;
    }
    print(&format!("{}\n", directory.display()))?;
    // What reads the directory from stdout knows what it wants.
    if std::io::stdout().is_terminal() {
        Format::Text.next(|| format!("pi0-edge bench device {}", quoted(&directory)));
    }
    Ok(())
}

fn cache() -> Result<PathBuf> {
    match user_cache(&|name| std::env::var_os(name).map(PathBuf::from)) {
        Some(cache) => Ok(cache.join("synthetic")),
        None => refuse("neither XDG_CACHE_HOME nor HOME is set: name a directory"),
    }
}
