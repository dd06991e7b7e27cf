//! The policy: one observation in, one action chunk out.

mod flow;
mod inputs;
mod layout;
mod noise;
mod options;
mod pipeline;
mod postprocess;
mod requirements;
mod rope;
pub mod rtc;
mod stages;
mod tensorrt;
mod timing;

use std::path::Path;
use std::time::Instant;

pub use noise::Noise;
pub use options::{InferOptions, PolicyOptions, Weights};
pub use pipeline::Inspector;
pub use postprocess::Postprocessor;
pub use stages::{Observer, Stage, StageOutput};
pub use tensorrt::{BuildOptions, BuildOutcome, BuildProgress, build_engines, engine_directory};
pub use timing::Timing;

use crate::action::ActionChunk;
use crate::bundle::token_table::TokenTable;
use crate::bundle::{Bundle, GraphName, Manifest};
use crate::error::{ErrorKind, Result, ResultExt};
use crate::limits::{MAX_NUM_STEPS, MAX_THREADS};
use crate::lookup::SAFE_REPLAYS;
use crate::observation::{Observation, Preprocessor, PromptTokenizer};
use crate::provider::Provider;
use crate::session::{Device, DeviceOptions, Environment, GraphOptions, MappedFile};
use pipeline::{Filled, Pipeline};
use tensorrt::EngineFiles;

/// A loaded policy. Owns every buffer it uses; after the first chunk, an inference over frames of known sizes
/// allocates nothing of ours, whatever its prompt and state. One inference at a time, from any thread.
#[derive(Debug)]
pub struct Policy {
    bundle: Bundle,
    preprocessor: Preprocessor,
    tokenizer: PromptTokenizer,
    token_table: TokenTable<MappedFile>,
    pipeline: Pipeline,
    post: Postprocessor,
    chunk: ActionChunk,
    timing: Timing,
    /// The state that relative actions are offsets from: the robot's, in the policy's joints.
    raw_state: Vec<f32>,
    prefix_len: usize,
    num_steps: usize,
    library: &'static Environment,
    provider: Provider,
}

impl Policy {
    /// Loads a bundle: verifies it, loads ONNX Runtime and the graphs, and makes every buffer.
    ///
    /// Graphs, weights and token table are used where they are for as long as the policy lives. Once one of them is
    /// written to or cut off, every inference fails with [`ErrorKind::Integrity`]; deleted or replaced by rename, the
    /// files that were verified go on being used. So that this is never the end of the process, the first load
    /// installs a handler for SIGBUS, which hands on what is not its own; a program that installs one later must hand on
    /// as well, and must not block SIGBUS in a thread that infers.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for more than 128 threads,
    /// [`ErrorKind::Manifest`] or [`ErrorKind::Integrity`] for a bad bundle, [`ErrorKind::Library`] when ONNX
    /// Runtime cannot be loaded, [`ErrorKind::Provider`] when the provider asked for cannot be used or does not take
    /// every node, [`ErrorKind::Engine`] when TensorRT was asked for and engines for exactly this bundle, GPU and
    /// software are not there or not to be trusted, [`ErrorKind::Graph`] when ONNX Runtime refuses a graph.
    pub fn load(path: impl AsRef<Path>, options: &PolicyOptions) -> Result<Self> {
        Self::load_with_progress(path, options, &mut |_, _| {})
    }

    /// As [`load`](Self::load), calling `progress(done, total)` with the bytes verified so far.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with_progress(
        path: impl AsRef<Path>,
        options: &PolicyOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let threads = options.threads;
        ensure!(
            threads <= MAX_THREADS,
            InvalidArgument,
            "{threads} threads are asked for, at most {MAX_THREADS} are allowed; 0 means one per available core"
        );
        // The library first: it fails in milliseconds, verifying a large bundle takes seconds.
        let library = Environment::get(options.ort_library.as_deref())?;
        // Whether there are engines, for the same reason; what they hold, before anything is made for them.
        let engines = match options.provider {
            Provider::Cpu | Provider::Cuda => None,
            Provider::TensorRt => {
                let directory = options.engine_cache.as_deref();
                let engines = EngineFiles::find(library, options.gpu, path.as_ref(), directory)?;
                engines.verify(options.verify, progress)?;
                Some(engines)
            }
        };
        // Then the device, for the same reason.
        let device = Device::open(
            library,
            DeviceOptions {
                provider: options.provider,
                gpu: options.gpu,
                memory: options.device_memory,
                sleep: options.no_spin,
            },
        )?;
        let (bundle, hashing) = Bundle::begin(path.as_ref(), options.verify)?;
        let manifest = bundle.manifest();
        requirements::check(manifest, options.provider, library.version())?;
        let table = &manifest.token_embedding;
        let map = MappedFile::new(&bundle.open_file(&table.file)?, &table.file)?;
        let token_table = TokenTable::new(map, table)?;
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS),
            n => n,
        };
        if let Some(directory) = &options.profile {
            std::fs::create_dir_all(directory)
                .or_kind(ErrorKind::Io, || format!("cannot make {}", directory.display()))?;
        }
        let cuda_graphs = options.provider == Provider::Cuda && !options.no_cuda_graphs;
        if cuda_graphs && !library.replays_safely() {
            log::warn!(
                "no CUDA graphs with ONNX Runtime {}: before {} a replay reads host memory that may hold something else by \
                 then; kernels are launched one by one",
                library.version(),
                SAFE_REPLAYS.map(|n| n.to_string()).join(".")
            );
        }
        let pipeline = Pipeline::load(library, &device, &bundle, engines.as_ref(), |graph| GraphOptions {
            threads: if graph == GraphName::TimeConditioning { 1 } else { threads },
            prepack: match options.weights {
                Weights::Auto => graph == GraphName::DenoiseStep,
                Weights::Mapped => false,
                Weights::Packed => true,
            },
            spin: !options.no_spin,
            cuda_graph: cuda_graphs && library.replays_safely() && graph != GraphName::TimeConditioning,
            profile: options.profile.clone(),
        })?;
        // Weights were loaded while they were hashed; they are used only if they are what they should be.
        bundle.end(hashing, progress)?;
        // ONNX Runtime opened the graphs by name.
        bundle.check_in_place()?;
        let mut policy = Policy {
            preprocessor: Preprocessor::new(manifest),
            tokenizer: PromptTokenizer::load(&bundle)?,
            token_table,
            pipeline,
            post: Postprocessor::new(manifest),
            chunk: ActionChunk::new(manifest.dimensions.action_horizon, manifest.action.dim),
            timing: Timing::with_capacity(MAX_NUM_STEPS),
            raw_state: Vec::with_capacity(manifest.state.dim),
            prefix_len: 0,
            num_steps: manifest.flow.num_steps,
            library,
            provider: options.provider,
            bundle,
        };
        // On a CPU, a provider that has loaded computes; elsewhere only a run shows it.
        if options.provider != Provider::Cpu {
            policy.inspect_mut().smoke()?;
        }
        Ok(policy)
    }

    /// Captures CUDA graphs of what the last inference ran, so that further ones of its shape (the same number of
    /// cameras and of prefix rows) on this thread replay them: far less to do for the CPU, the same results.
    ///
    /// Never happens by itself, because it runs every graph several times over. A graph that cannot be captured is
    /// run as before, and the log says why. Does nothing for other providers, with
    /// [`no_cuda_graphs`](PolicyOptions::no_cuda_graphs), and before the first inference.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`] when the device fails.
    pub fn capture_graphs(&mut self) -> Result<()> {
        self.pipeline.capture()
    }

    /// Looks inside: placement, addresses, memory, transfers.
    pub fn inspect(&self) -> Inspector<&Policy> {
        Inspector::new(self)
    }

    /// Looks inside, as [`inspect`](Self::inspect) does, and runs parts: single stages, with intermediate results.
    pub fn inspect_mut(&mut self) -> Inspector<&mut Policy> {
        Inspector::new(self)
    }

    /// Returns the bundle's contract.
    pub fn manifest(&self) -> &Manifest {
        self.bundle.manifest()
    }

    /// Returns the bundle this policy was loaded from.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Returns the provider that computes the graphs.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// Returns the times that the last chunk took.
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// Lists ONNX Runtime's own threads, see [`Inspector::worker_threads`].
    pub(crate) fn worker_threads(&self) -> Vec<i32> {
        self.pipeline.worker_threads()
    }

    /// Returns the chunk of the last [`infer`](Self::infer).
    pub fn chunk(&self) -> &ActionChunk {
        &self.chunk
    }

    /// Computes one action chunk, `[action_horizon, action_dim]` in the robot's units. The chunk stays valid
    /// until the next inference; [`ActionChunk::clone`] keeps it longer.
    ///
    /// # Errors
    /// [`ErrorKind::Observation`] or [`ErrorKind::NonFinite`] for a bad observation,
    /// [`ErrorKind::InvalidArgument`] for bad noise or step count, [`ErrorKind::Graph`] when ONNX Runtime fails,
    /// [`ErrorKind::Integrity`] when the bundle's files were changed since it was loaded,
    /// [`ErrorKind::NonFinite`] when the result is not finite. After an error the previous chunk is gone; the
    /// next inference starts clean.
    pub fn infer(
        &mut self,
        observation: &Observation<'_>,
        options: &InferOptions<'_>,
    ) -> Result<&ActionChunk> {
        let start = Instant::now();
        let num_steps = self.begin(observation, options)?;
        (0..num_steps).try_for_each(|step| self.denoise_step(step))?;
        self.finish()?;
        self.timing.total = start.elapsed();
        Ok(&self.chunk)
    }

    /// Everything before the denoise loop: preprocessing, vision, prefix, noise. Returns the step count.
    pub(crate) fn begin(
        &mut self,
        observation: &Observation<'_>,
        options: &InferOptions<'_>,
    ) -> Result<usize> {
        self.bundle.check_unchanged()?;
        self.timing.reset();
        self.pipeline.restart();
        let preprocessing = Instant::now();
        let num_steps = options.num_steps.unwrap_or(self.num_steps);
        let views = self.preprocessor.select_views(observation)?;
        self.preprocessor.write_pixels(observation, self.pipeline.pixel_values_mut(views)?)?;
        self.pipeline.send(Filled::Pixels(views))?;
        let state = self.pipeline.input_mut(|ids| ids.state)?;
        self.preprocessor.write_state(observation.state, state)?;
        self.raw_state.clear();
        self.raw_state.extend_from_slice(observation.state);
        self.preprocessor.to_policy(&mut self.raw_state);
        let tokens = self.tokenizer.encode(observation.prompt, state)?;
        self.pipeline.send(Filled::State)?;
        self.timing.preprocess = preprocessing.elapsed();

        let image_rows = views * self.pipeline.tokens_per_view();
        self.prefix_len = image_rows + tokens.len();
        self.pipeline.set_num_steps(num_steps)?;
        self.pipeline.prepare(views, self.prefix_len)?;
        let rows = self.pipeline.prefix_rows_mut(image_rows, tokens.len())?;
        self.token_table.bytes().watch(|| self.token_table.gather(tokens, rows))??;
        self.pipeline.send(Filled::PrefixRows(image_rows..self.prefix_len))?;
        self.write_noise(options.noise)?;
        self.write_guidance(options.guidance)?;
        self.pipeline.encode_views()?;
        self.pipeline.prefill()?;
        Ok(num_steps)
    }

    /// Makes the tables of `num_steps` Euler steps, so that the next chunk does not have to.
    pub(crate) fn prepare_num_steps(&mut self, num_steps: usize) -> Result<()> {
        self.pipeline.set_num_steps(num_steps)
    }

    /// Checks that `prompt` can be used: tokenises it, which the next chunk then need not.
    pub(crate) fn check_prompt(&mut self, prompt: &str) -> Result<()> {
        self.tokenizer.encode(Some(prompt), self.pipeline.input_mut(|ids| ids.state)?).map(|_| ())
    }

    pub(crate) fn denoise_step(&mut self, step: usize) -> Result<()> {
        self.pipeline.denoise_step(step)
    }

    /// Waits for what was queued, without making a chunk of it.
    pub(crate) fn synchronize(&mut self) -> Result<()> {
        self.pipeline.synchronize()
    }

    pub(crate) fn finish(&mut self) -> Result<()> {
        self.bring_in()?;
        self.post.fill(self.pipeline.x_t(), &self.raw_state, &mut self.chunk)
    }

    /// Waits for the actions, and for the times of the runs that made them.
    fn bring_in(&mut self) -> Result<()> {
        self.pipeline.fetch_actions()?;
        // Weights that were written to in between may have been read half and half.
        self.bundle.check_unchanged()?;
        self.timing.set_runs(self.pipeline.run_times()?);
        Ok(())
    }

    /// As [`finish`](Self::finish), into `actions` and with no value checked. Returns how many values there are.
    pub(crate) fn finish_unchecked(&mut self, actions: &mut [f32]) -> Result<usize> {
        self.bring_in()?;
        let length = self.chunk.as_slice().len();
        let Some(room) = actions.get_mut(..length) else {
            bail!(InvalidArgument, "a chunk has {length} values, there is room for {}", actions.len());
        };
        self.post.actions(self.pipeline.x_t(), &self.raw_state, room)?;
        Ok(length)
    }
}
