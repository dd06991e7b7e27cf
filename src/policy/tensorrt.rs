//! A bundle's TensorRT engines: built ahead of time, and found, never built, before a run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::bundle::integrity::hash_file;
use crate::bundle::{Bundle, GraphName, Manifest, Verify, open_regular};
use crate::error::{ErrorKind, Result, ResultExt};
use crate::limits::MAX_NUM_STEPS;
use crate::policy::layout::Sizes;
use crate::policy::requirements;
use crate::session::{EngineBuild, Environment, RunSizes, build_engine, pins_here};
use crate::tensorrt::{
    BuilderConfig, Building, CacheEntry, CacheLock, EngineCache, Record, context_model as make_context_model,
    default_path, trtexec,
};

/// Options of building a bundle's engines.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// The GPU to build on and for, as CUDA counts them from 0.
    pub gpu: u32,
    /// ONNX Runtime's library; looked for as [`Environment::get`] says when absent.
    pub ort_library: Option<PathBuf>,
    /// The directory of engines; [`engine_directory`] when absent.
    pub directory: Option<PathBuf>,
    /// Settings of TensorRT's builder, but for the `precision`, which is the bundle's.
    pub builder: BuilderConfig,
    /// Build again what is there already.
    pub force: bool,
    /// NVIDIA's `trtexec`, to build with; ONNX Runtime's own builder when absent, which on TensorRT before 10.13 takes no
    /// graph of more than 2 GB.
    pub trtexec: Option<PathBuf>,
    /// Set to true from another thread, it ends `trtexec`, and the build with it.
    pub stop: Arc<AtomicBool>,
}

/// The progress of a build.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BuildProgress {
    /// The bundle or an earlier set is being verified: bytes done, bytes in all.
    Verifying(u64, u64),
    /// TensorRT has begun to build a graph, the n-th of so many.
    Building(GraphName, usize, usize),
    /// It is done with a graph, after so long.
    Built(GraphName, Duration),
    /// The engines are being hashed: bytes done, bytes in all.
    Recording(u64, u64),
}

/// The result of a build.
#[derive(Debug)]
pub struct BuildOutcome {
    /// The set's record.
    pub record: Record,
    /// Its directory.
    pub directory: PathBuf,
    /// True if it was there before and is intact, so that nothing had to be built.
    pub was_there: bool,
}

/// Returns the directory of engines: `explicit`, or `pi0-edge/engines` in the user's cache directory (`XDG_CACHE_HOME`,
/// else `~/.cache`).
///
/// # Errors
/// [`ErrorKind::Engine`] when there is no home directory either.
pub fn engine_directory(explicit: Option<&Path>) -> Result<PathBuf> {
    let found = explicit.map(Path::to_path_buf).or_else(|| default_path(&|name| std::env::var(name).ok()));
    found.ok_or_else(|| {
        err!(
            Engine,
            "no directory for engines: neither XDG_CACHE_HOME nor HOME is set; name one by --engine-cache"
        )
    })
}

/// Builds the TensorRT engines of the bundle at `bundle` for this GPU, or finds that they are there.
///
/// Takes minutes and as much GPU memory as it is allowed; nothing else should use the GPU meanwhile, or the builder
/// measures wrongly. Ended in any way before it returns, it leaves nothing that a run would use.
///
/// # Errors
/// [`ErrorKind::Provider`] when TensorRT cannot be used here; [`ErrorKind::Engine`] when the directory is not the
/// user's own, another process builds in it, or TensorRT did not take a graph whole; [`ErrorKind::Graph`] when it
/// cannot build one; and what [`Bundle::open`] returns.
pub fn build_engines(
    bundle: &Path,
    options: &BuildOptions,
    progress: &mut dyn FnMut(BuildProgress),
) -> Result<BuildOutcome> {
    let environment = Environment::get(options.ort_library.as_deref())?;
    let pins = pins_here(environment, options.gpu, &manifest_hash(bundle)?)?;
    let cache = EngineCache::create(&engine_directory(options.directory.as_deref())?)?;
    let lock = CacheLock::take(&cache)?;
    let bundle =
        Bundle::open(bundle, Verify::Full, &mut |n, all| progress(BuildProgress::Verifying(n, all)))?;
    let manifest = bundle.manifest();
    requirements::check_tensorrt(manifest, &pins.onnxruntime, &pins.tensorrt)?;
    let build = BuilderConfig { precision: manifest.precision, ..options.builder.clone() };
    if !options.force
        && let Ok(entry) = cache.find(&pins)
        && let verified =
            cache.verify(&entry, Verify::Full, &mut |n, all| progress(BuildProgress::Verifying(n, all)))
        && let (Ok(()), Ok(record)) = (verified, entry.record)
        && record.options == build
    {
        return Ok(BuildOutcome { record, directory: cache.directory(&entry.key), was_there: true });
    }
    let largest =
        GraphName::ALL.into_iter().filter_map(|name| manifest.files.get(&manifest.graph(name).data_file()));
    check_memory(
        BUILDING * largest.map(|file| file.size).max().unwrap_or(0),
        &std::fs::read_to_string("/proc/meminfo").unwrap_or_default(),
    )?;
    let root = bundle.root().canonicalize().or_kind(ErrorKind::Io, || "cannot resolve the bundle".into())?;
    let version = pins.tensorrt.clone();
    let mut building = Building::start(&cache, &lock, pins, build, &root)?;
    let timing = building.timing_directory()?;
    for (i, name) in GraphName::ALL.into_iter().enumerate() {
        progress(BuildProgress::Building(name, i + 1, GraphName::ALL.len()));
        let start = Instant::now();
        let context_model = building.context_model(name.as_str());
        let spec = manifest.graph(name);
        let engine = EngineBuild {
            gpu: options.gpu,
            graph: name.as_str(),
            context_model: &context_model,
            timing: &timing,
            options: building.options(),
            sizes: &run_sizes(manifest),
        };
        // TensorRT finds the weights by the model's path.
        let model = root.join(&spec.file);
        match &options.trtexec {
            Some(program) => {
                let file = format!("{name}.engine");
                let paths = (model.as_path(), &*building.directory().join(&file));
                trtexec::build(program, &version, paths, spec, &engine, &options.stop)?;
                std::fs::write(&context_model, make_context_model(spec, &file))
                    .or_kind(ErrorKind::Io, || format!("cannot write {}", context_model.display()))?;
            }
            None => build_engine(environment, &model, spec, &engine)?,
        }
        progress(BuildProgress::Built(name, start.elapsed()));
    }
    let record = building.finish(&mut |n, all| progress(BuildProgress::Recording(n, all)))?;
    let directory = cache.directory(&record.pins.key());
    Ok(BuildOutcome { record, directory, was_there: false })
}

/// TensorRT for RTX took 11 GB to build the prefill of PI0 in fp16, whose weights are 3.7 GB, and less for the other graphs.
const BUILDING: u64 = 3;

/// Checks that `needed` bytes are to be had, by the text of `/proc/meminfo`: available memory and free swap.
fn check_memory(needed: u64, meminfo: &str) -> Result<()> {
    let bytes = |key: &str| {
        let value = meminfo.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?;
        value.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
    };
    let Some(available) = bytes("MemAvailable:") else { return Ok(()) };
    let available = available + bytes("SwapFree:").unwrap_or(0);
    let gb = |bytes: u64| bytes as f64 / 1e9;
    ensure!(
        needed <= available,
        Engine,
        "building takes up to {:.1} GB, three times the largest graph's weights, and {:.1} GB are available, swap included; stop \
         other programs, add swap, or run the bundle with --provider cuda",
        gb(needed),
        gb(available)
    );
    Ok(())
}

/// The engines of one bundle, found before anything is loaded.
#[derive(Debug)]
pub(super) struct EngineFiles {
    cache: EngineCache,
    entry: CacheEntry,
}

impl EngineFiles {
    /// Finds the engines that were built for this bundle, GPU, TensorRT and ONNX Runtime. Reads no large file.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`] when TensorRT cannot be used here; [`ErrorKind::Engine`] when there are none, naming
    /// what differs, or they are not the user's own.
    pub(super) fn find(
        environment: &Environment,
        gpu: u32,
        bundle: &Path,
        directory: Option<&Path>,
    ) -> Result<Self> {
        let pins = pins_here(environment, gpu, &manifest_hash(bundle)?)?;
        let cache = EngineCache::open(&engine_directory(directory)?)?;
        let engines = EngineFiles { entry: cache.find(&pins)?, cache };
        GraphName::ALL.into_iter().try_for_each(|graph| engines.context_model(graph).map(|_| ()))?;
        Ok(engines)
    }

    /// As [`EngineCache::verify`].
    ///
    /// # Errors
    /// As [`EngineCache::verify`].
    pub(super) fn verify(&self, level: Verify, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        self.cache.verify(&self.entry, level, progress)
    }

    /// Returns the path of a graph's EP context model.
    ///
    /// # Errors
    /// [`ErrorKind::Engine`] when the set has none for it.
    pub(super) fn context_model(&self, graph: GraphName) -> Result<PathBuf> {
        let file = self.entry.record.as_ref().ok().and_then(|r| r.graphs.get(graph.as_str()));
        let file =
            file.ok_or_else(|| err!(Engine, "the engines in {} have none for {graph}", self.entry.key))?;
        Ok(self.cache.directory(&self.entry.key).join(file))
    }
}

/// SHA-256 of the bundle's manifest, which holds the hash of every other file.
fn manifest_hash(bundle: &Path) -> Result<String> {
    let path = bundle.join("manifest.json");
    let file = open_regular(&path, ErrorKind::Manifest)?;
    let hash =
        hash_file(file, |_| true).or_kind(ErrorKind::Io, || format!("cannot read {}", path.display()))?;
    Ok(hash.unwrap_or_default())
}

/// The sizes that runs of this bundle have. The engine is made fastest for every camera and the longest prompt: the
/// worst case is what a control loop has to be planned for.
fn run_sizes(manifest: &Manifest) -> RunSizes {
    let sizes = Sizes::new(manifest);
    let (views, longest) = (sizes.max_views, sizes.max_prefix);
    // Every prompt has a first token.
    let shortest = sizes.padded(manifest.dimensions.tokens_per_view + 1);
    RunSizes {
        views: [1, views, views],
        prefix: [shortest, longest, longest],
        steps: [1, manifest.flow.num_steps, MAX_NUM_STEPS],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_the_bundles() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/pi0-tiny/manifest.json");
        let mut manifest = Manifest::read(Path::new(path)).unwrap();
        let sizes = RunSizes { views: [1, 3, 3], prefix: [17, 72, 72], steps: [1, 10, 64] };
        assert_eq!(run_sizes(&manifest), sizes);
        // Where the prefix is padded, a run has the padded lengths alone.
        manifest.prefix_bucket = Some(16);
        assert_eq!(run_sizes(&manifest), RunSizes { prefix: [32, 80, 80], ..sizes });
    }

    #[test]
    fn a_build_that_memory_does_not_suffice_for_is_not_begun() {
        let info = "MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\nSwapFree: 2000000 kB\n";
        check_memory(10_240_000_000, info).unwrap();
        let text = check_memory(11_300_000_000, info).unwrap_err().to_string();
        assert!(text.contains("up to 11.3 GB") && text.contains("10.2 GB are available"), "{text}");
        check_memory(u64::MAX, "").unwrap();
    }

    #[test]
    fn the_directory_that_is_named_is_used() {
        assert_eq!(engine_directory(Some(Path::new("/e"))).unwrap(), Path::new("/e"));
    }
}
