//! `pi0-edge engines build`: the long one. TensorRT works on a thread of its own and cannot be asked to stop, so this
//! thread shows the time that passes, and ends the process when it is told to.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use pi0_edge::Result;
use pi0_edge::internals::EngineCache;
use pi0_edge::tensorrt::{
    BuildOptions, BuildOutcome, BuildProgress, BuilderConfig, build_engines, engine_directory,
};
use serde_json::json;

use crate::interrupt::{self, Heeding};
use crate::output::{Format, quoted};
use crate::progress::{Progress, Unit, say};

/// Arguments of `engines build`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The bundle's directory
    bundle: PathBuf,
    /// Gone: engines have the types of the graphs
    #[arg(long, hide = true, value_parser = typed_by_the_graph)]
    precision: Option<String>,
    /// Most GPU memory one layer may use while it computes, such as 2GiB (default: TensorRT's, which is all of it)
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    workspace: Option<u64>,
    /// Effort of the search for the fastest kernels; 5 can take hours
    #[arg(long, value_name = "0..5", default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=5))]
    optimization_level: u8,
    /// Streams an engine may use beside its own (default: TensorRT's choice)
    #[arg(long, value_name = "N")]
    auxiliary_streams: Option<u8>,
    /// NVIDIA's builder, which takes graphs of any size; `off`: ONNX Runtime's own (default:
    /// /usr/src/tensorrt/bin/trtexec where it is, else off)
    #[arg(long, value_name = "FILE|off")]
    trtexec: Option<PathBuf>,
    /// The GPU to build on and for, as CUDA counts them
    #[arg(long, value_name = "N", default_value_t = 0)]
    gpu: u32,
    /// Build again even if the engines are there and intact
    #[arg(long)]
    force: bool,
    /// Directory of TensorRT engines (default: pi0-edge/engines in the user's cache)
    #[arg(long, value_name = "DIR")]
    engine_cache: Option<PathBuf>,
    /// ONNX Runtime's shared library
    #[arg(long, value_name = "FILE")]
    ort_library: Option<PathBuf>,
    /// Format of the output on stdout when it is done
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// Refuses `--precision`, which earlier releases had, with what to do.
fn typed_by_the_graph(_: &str) -> Result<String, &'static str> {
    Err(
        "engines have the types of the bundle's graphs; leave the option out, and export the bundle in the precision you want \
         (scripts/export.py --precision)",
    )
}

/// A number of bytes, with or without a unit.
fn parse_size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 7] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("kB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("", 1),
    ];
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = UNITS.iter().find(|(name, _)| *name == unit.trim()).map(|(_, factor)| *factor);
    let size = number.parse::<u64>().ok().zip(factor).and_then(|(n, f)| n.checked_mul(f)).filter(|n| *n > 0);
    size.ok_or_else(|| format!("{text:?} is no size; examples are 2GiB, 512MiB and 1000000000"))
}

/// The place where JetPack and NVIDIA's packages put it.
const TRTEXEC: &str = "/usr/src/tensorrt/bin/trtexec";

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let _heeding = Heeding::new();
    let options = BuildOptions {
        gpu: args.gpu,
        ort_library: args.ort_library.clone(),
        directory: args.engine_cache.clone(),
        builder: BuilderConfig {
            workspace: args.workspace,
            optimization_level: args.optimization_level,
            auxiliary_streams: args.auxiliary_streams,
            ..BuilderConfig::default()
        },
        force: args.force,
        trtexec: match &args.trtexec {
            Some(off) if off.as_os_str() == "off" => None,
            Some(file) => Some(file.clone()),
            None => Some(PathBuf::from(TRTEXEC)).filter(|file| file.is_file()),
        },
        stop: interrupt::flag(),
    };
    let (bundle, by_trtexec) = (args.bundle.clone(), options.trtexec.is_some());
    let (report, reports) = channel();
    let started = Instant::now();
    let worker = std::thread::spawn(move || build_engines(&bundle, &options, &mut |p| _ = report.send(p)));
    let mut ended = Watch { shown: None }.until_done(&reports);
    // trtexec ends when it is told; ONNX Runtime's builder is still at it and cannot be told.
    let patience = Instant::now() + Duration::from_secs(2);
    while !ended && by_trtexec && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(20));
        ended = worker.is_finished();
    }
    let built = ended.then(|| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    match built {
        Some(Ok(set)) => return print(&set, &args.bundle, started.elapsed(), args.format),
        Some(Err(e)) if !interrupt::requested() => return Err(e),
        _ => {}
    }
    // No run would use what is there, but it may be gigabytes.
    let left = engine_directory(args.engine_cache.as_deref()).and_then(|d| EngineCache::open(&d));
    match left.and_then(|cache| cache.remove_leftovers()) {
        Ok(()) => say("pi0-edge: stopped; no engine was kept"),
        Err(e) => say(&format!("pi0-edge: stopped; no engine will be used, but some files are left: {e}")),
    }
    signal_hook::low_level::exit(interrupt::STATUS.into())
}

fn print(set: &BuildOutcome, bundle: &Path, elapsed: Duration, format: Format) -> Result<()> {
    let (record, seconds) = (&set.record, elapsed.as_secs_f64());
    let json = || {
        json!({
            "directory": set.directory, "built": !set.was_there, "seconds": seconds, "size": record.size(),
            "record": record,
        })
    };
    let text = || {
        let did = if set.was_there { "already there and intact" } else { "built" };
        format!(
            "engines {did} in {seconds:.1} s: {:.1} MB in {}\n{} for {}, TensorRT {}, ONNX Runtime {}\n",
            record.size() as f64 / 1e6,
            set.directory.display(),
            record.options.precision,
            record.pins.gpu,
            record.pins.tensorrt,
            record.pins.onnxruntime
        )
    };
    format.print(text, json)?;
    format.next(|| format!("pi0-edge check {} --provider tensorrt", quoted(bundle)));
    Ok(())
}

/// Shows on stderr what is being built and for how long, and says which graphs are done.
struct Watch {
    shown: Option<(&'static str, Progress)>,
}

impl Watch {
    /// Returns whether the build ended by itself, in success or failure.
    fn until_done(mut self, reports: &Receiver<BuildProgress>) -> bool {
        while !interrupt::requested() {
            match reports.recv_timeout(Duration::from_millis(200)) {
                Ok(progress) => self.show(progress),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return true,
            }
        }
        false
    }

    fn show(&mut self, progress: BuildProgress) {
        match progress {
            BuildProgress::Verifying(done, all) => self.bytes("verifying", done, all),
            BuildProgress::Recording(done, all) => self.bytes("hashing", done, all),
            BuildProgress::Building(graph, n, of) => {
                let what = format!("building {graph} ({n} of {of})");
                say(&what);
                self.shown = Some(("building", Progress::new(what, 0, Unit::Seconds)));
            }
            BuildProgress::Built(graph, took) => {
                self.shown = None;
                say(&format!("built {graph} in {:.1} s", took.as_secs_f64()));
            }
        }
    }

    fn bytes(&mut self, what: &'static str, done: u64, all: u64) {
        if self.shown.as_ref().is_none_or(|(shown, _)| *shown != what) {
            self.shown = Some((what, Progress::new(what, all, Unit::Bytes)));
        }
        if let Some((_, progress)) = &self.shown {
            progress.set(done);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert_eq!(parse_size("512 MiB"), Ok(512 << 20));
        assert_eq!(parse_size("1000"), Ok(1000));
        assert_eq!(parse_size("3GB"), Ok(3_000_000_000));
        for bad in ["", "0", "GiB", "-1", "2 gib", "99999999999GiB", "1.5GiB"] {
            assert!(parse_size(bad).unwrap_err().contains("is no size"), "{bad:?}");
        }
    }
}
