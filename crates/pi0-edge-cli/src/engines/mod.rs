//! `pi0-edge engines`: TensorRT engines, built ahead of time and looked after.

mod build;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use pi0_edge::internals::{CacheEntry, CacheLock, EngineCache};
use pi0_edge::tensorrt::engine_directory;
use pi0_edge::{Error, ErrorKind, Result, Verify};
use serde_json::{Value, json};

use crate::output::Format;
use crate::progress::{Progress, Unit};

const EXAMPLES: &str = "\
Examples:
  pi0-edge engines build BUNDLE
  pi0-edge engines build BUNDLE --workspace 2GiB --force
  pi0-edge engines list
  pi0-edge engines verify --format json
  pi0-edge engines clean --dry-run

An engine fits one bundle, one GPU, one TensorRT and one ONNX Runtime. A run never builds one: where the right engine
is missing it fails at once, and says what differs.";

/// Arguments of `engines`.
#[derive(ClapArgs, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Build the engines of a bundle for this GPU; takes minutes
    Build(build::Args),
    /// Show the engines that are there
    List(Place),
    /// Compare every byte with what was built, and owners and modes with what is safe
    Verify(Place),
    /// Remove what no run can use: damaged sets and what stopped builds left
    Clean(Clean),
}

/// The directory of engines, and the format of the output.
#[derive(ClapArgs, Debug)]
struct Place {
    /// Directory of TensorRT engines (default: pi0-edge/engines in the user's cache)
    #[arg(long, value_name = "DIR")]
    engine_cache: Option<PathBuf>,
    /// Format of the output on stdout
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(ClapArgs, Debug)]
struct Clean {
    #[command(flatten)]
    place: Place,
    /// Remove every engine, and what the builder learned about the GPU
    #[arg(long)]
    all: bool,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

impl Place {
    /// `None` if it does not exist, so that nothing was ever built: no failure of those who only look.
    fn open(&self) -> Result<Option<EngineCache>> {
        let path = engine_directory(self.engine_cache.as_deref())?;
        if path.symlink_metadata().is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
            let text = || format!("{}: {}\n", path.display(), count(0));
            self.format.print(text, || json!({ "directory": path, "sets": [] }))?;
            return Ok(None);
        }
        EngineCache::open(&path).map(Some)
    }
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    match &args.verb {
        Verb::Build(args) => build::run(args),
        Verb::List(place) => list(place),
        Verb::Verify(place) => verify(place),
        Verb::Clean(args) => clean(args),
    }
}

/// One set for programs. `problem` is why no run can use it.
fn describe(cache: &EngineCache, entry: &CacheEntry, problem: Option<String>) -> Value {
    let CacheEntry { key, record, .. } = entry;
    let mut value = json!({ "key": key, "directory": cache.directory(key), "problem": problem });
    if let Ok(record) = record {
        value["size"] = json!(record.size());
        value["record"] = json!(record);
    }
    value
}

/// One set for people.
fn line(entry: &CacheEntry) -> String {
    let short = &entry.key[..12];
    match &entry.record {
        Ok(r) => format!(
            "{short}  {:>8.1} MB  {}  {}, TensorRT {}, ONNX Runtime {}  {}\n",
            r.size() as f64 / 1e6,
            r.options.precision,
            r.pins.gpu,
            r.pins.tensorrt,
            r.pins.onnxruntime,
            r.bundle_path
        ),
        Err(e) => format!("{short}  unusable: {e}\n"),
    }
}

fn list(place: &Place) -> Result<()> {
    let Some(cache) = place.open()? else { return Ok(()) };
    let entries = cache.entries()?;
    let json = || {
        let set = |e: &CacheEntry| describe(&cache, e, e.record.as_ref().err().map(ToString::to_string));
        json!({ "directory": cache.path(), "sets": entries.iter().map(set).collect::<Vec<_>>() })
    };
    let text = || {
        let sets: String = entries.iter().map(line).collect();
        format!("{}: {}\n{sets}", cache.path().display(), count(entries.len()))
    };
    place.format.print(text, json)
}

fn count(sets: usize) -> String {
    match sets {
        0 => "no engines; to build them: pi0-edge engines build BUNDLE".into(),
        1 => "engines of 1 bundle".into(),
        n => format!("{n} sets of engines"),
    }
}

fn verify(place: &Place) -> Result<()> {
    let Some(cache) = place.open()? else { return Ok(()) };
    let (mut sets, mut lines, mut bad) = (Vec::new(), String::new(), 0);
    for entry in cache.entries()? {
        let progress = Progress::new("verifying", 0, Unit::Bytes);
        let done = cache.verify(&entry, Verify::Full, &mut |n, all| progress.set_of(n, all));
        drop(progress);
        let problem = done.err().map(|e| e.to_string());
        bad += usize::from(problem.is_some());
        let state = problem.as_deref().map_or("intact".into(), |p| format!("UNUSABLE: {p}"));
        lines += &format!("{}  {state}\n", &entry.key[..12]);
        sets.push(describe(&cache, &entry, problem));
    }
    let n = sets.len();
    let text = || format!("{}: {}\n{lines}", cache.path().display(), count(n));
    place.format.print(text, || json!({ "directory": cache.path(), "pass": bad == 0, "sets": sets }))?;
    if bad == 0 {
        return Ok(());
    }
    let text = format!("{bad} of {n} sets cannot be used; to remove them: pi0-edge engines clean");
    Err(Error::new(ErrorKind::Engine, text))
}

fn clean(args: &Clean) -> Result<()> {
    let Some(cache) = args.place.open()? else { return Ok(()) };
    let lock = CacheLock::take(&cache)?;
    let outcome = if args.all {
        cache.remove_all(&lock, args.dry_run)?
    } else {
        cache.clean(&lock, args.dry_run, &|_| None)?
    };
    let (removed, bytes) = (&outcome.removed, outcome.bytes);
    let json = || {
        let removed: Vec<Value> =
            removed.iter().map(|(name, why)| json!({ "name": name, "reason": why })).collect();
        json!({ "dry_run": args.dry_run, "bytes": bytes, "removed": removed })
    };
    let text = || {
        let lines: String = removed.iter().map(|(name, reason)| format!("{name}  {reason}\n")).collect();
        let verb = if args.dry_run { "would be removed" } else { "removed" };
        format!("{lines}{} {verb}, {:.1} MB\n", removed.len(), bytes as f64 / 1e6)
    };
    args.place.format.print(text, json)
}
