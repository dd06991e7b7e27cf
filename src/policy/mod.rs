//! The policy: one observation in, one action chunk out.

mod engines;
mod flow;
mod inputs;
mod layout;
mod noise;
mod options;
mod pipeline;
mod requirements;
mod rope;
pub mod rtc;
mod stages;
mod timing;

use std::path::Path;
use std::time::{Duration, Instant};

use memmap2::Mmap;

pub use engines::{BuildProgress, EngineOptions, EngineSet, build_engines, engine_directory};
pub use noise::Noise;
pub use options::{InferOptions, PolicyOptions, Weights};
pub use pipeline::MAX_NUM_STEPS;
pub use stages::{Observer, Stage, StageOutput};
pub use timing::Timing;

use crate::action::{ActionChunk, Postprocessor};
use crate::bundle::{Bundle, GraphName, Manifest, TokenTable};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::observation::{Observation, Preprocessor, PromptTokenizer};
use crate::provider::Provider;
use crate::session::{
    Device, DeviceMemoryUse, DeviceOptions, Environment, GraphOptions, Transfers, map_file,
};
use engines::Engines;
use pipeline::{Filled, Intermediate, Pipeline};

/// A loaded policy. Owns every buffer it uses; after the first chunk, an inference over frames of known sizes
/// allocates nothing of ours, whatever its prompt and state. One inference at a time, from any thread.
#[derive(Debug)]
pub struct Policy {
    bundle: Bundle,
    preprocessor: Preprocessor,
    tokenizer: PromptTokenizer,
    token_table: TokenTable<Mmap>,
    pipeline: Pipeline,
    post: Postprocessor,
    chunk: ActionChunk,
    timing: Timing,
    raw_state: Vec<f32>,
    /// One action, while it is normalised.
    row: Vec<f32>,
    prefix_len: usize,
    num_steps: usize,
    library: &'static Environment,
    provider: Provider,
}

impl Policy {
    /// Loads a bundle: verifies it, loads ONNX Runtime and the graphs, and makes every buffer.
    ///
    /// The bundle's files must not change while the policy lives.
    ///
    /// # Errors
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
        // The library first: it fails in milliseconds, verifying a large bundle takes seconds.
        let library = Environment::get(options.ort_library.as_deref())?;
        // Whether there are engines, for the same reason; what they hold, before anything is made for them.
        let engines = match options.provider {
            Provider::Cpu | Provider::Cuda => None,
            Provider::TensorRt => {
                let directory = options.engine_cache.as_deref();
                let engines = Engines::find(library, options.gpu, path.as_ref(), directory)?;
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
        let bundle = Bundle::open(path.as_ref(), options.verify, progress)?;
        let manifest = bundle.manifest();
        requirements::check(manifest, options.provider, &library.version()?)?;
        let table = &manifest.token_embedding;
        let map = map_file(&bundle.open_file(&table.file)?, &table.file)?;
        let token_table = TokenTable::new(map, table)?;
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        if let Some(directory) = &options.profile {
            std::fs::create_dir_all(directory)
                .or_kind(ErrorKind::Io, || format!("cannot make {}", directory.display()))?;
        }
        let pipeline = Pipeline::load(library, &device, &bundle, engines.as_ref(), |graph| GraphOptions {
            threads: if graph == GraphName::TimeConditioning { 1 } else { threads },
            prepack: match options.weights {
                Weights::Auto => graph == GraphName::DenoiseStep,
                Weights::Mapped => false,
                Weights::Packed => true,
            },
            spin: !options.no_spin,
            cuda_graph: options.provider == Provider::Cuda
                && !options.no_cuda_graphs
                && graph != GraphName::TimeConditioning,
            profile: options.profile.clone(),
        })?;
        let preprocessor = Preprocessor::new(manifest);
        let tokenizer = PromptTokenizer::load(&bundle)?;
        let post = Postprocessor::new(manifest);
        let chunk = ActionChunk::new(manifest);
        let raw_state = Vec::with_capacity(manifest.state.dim);
        let row = vec![0.0; manifest.action.dim];
        let num_steps = manifest.flow.num_steps;
        let mut policy = Policy {
            preprocessor,
            tokenizer,
            token_table,
            pipeline,
            post,
            chunk,
            timing: Timing::with_capacity(MAX_NUM_STEPS),
            raw_state,
            row,
            prefix_len: 0,
            num_steps,
            library,
            provider: options.provider,
            bundle,
        };
        // On a CPU, a provider that has loaded computes; elsewhere only a run shows it.
        if options.provider != Provider::Cpu {
            policy.smoke()?;
        }
        Ok(policy)
    }

    /// Runs every graph once, over all cameras and the longest prompt, on whatever the tensors hold. Shows that the
    /// provider can run what it took; done by [`load`](Self::load) for every provider but the CPU's.
    ///
    /// # Errors
    /// [`ErrorKind::Graph`] or [`ErrorKind::Provider`], saying which graph failed and how.
    pub fn smoke(&mut self) -> Result<()> {
        self.pipeline.smoke(self.num_steps).map_err(|e| {
            let provider = self.provider;
            let text = format!("smoke run on {provider} failed; pi0-edge doctor --provider {provider} says what may be missing");
            Error::with_source(e.kind(), text, e)
        })
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

    /// The graphs that an inference of the last one's shape replays on this thread.
    pub fn replayed_graphs(&self) -> impl Iterator<Item = &'static str> {
        self.pipeline.replaying()
    }

    /// Where each graph's nodes run, as (graph, provider in ONNX Runtime's words, number of nodes).
    pub fn placement(&self) -> impl Iterator<Item = (&'static str, &str, usize)> {
        self.pipeline.placement()
    }

    /// Bytes that the last inference sent between host and device; none where both have one memory.
    pub fn transfers(&self) -> Transfers {
        self.pipeline.transfers()
    }

    /// The device's memory, if it has one of its own.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`] when the device does not answer.
    pub fn device_memory_use(&self) -> Result<Option<DeviceMemoryUse>> {
        self.pipeline.memory_use()
    }

    /// The bundle's contract.
    pub fn manifest(&self) -> &Manifest {
        self.bundle.manifest()
    }

    /// The bundle this policy was loaded from.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// The ONNX Runtime in use.
    pub fn environment(&self) -> &'static Environment {
        self.library
    }

    /// What computes the graphs.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// Where the time of the last chunk went.
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// Rows of the last chunk's prefix: views × tokens per view, and the prompt's tokens.
    pub fn prefix_len(&self) -> usize {
        self.prefix_len
    }

    /// ONNX Runtime's own threads that share this policy's work, by Linux thread id: one fewer a graph than
    /// [`PolicyOptions::threads`]. The thread that calls does the rest.
    pub fn worker_threads(&self) -> Vec<i32> {
        self.pipeline.worker_threads()
    }

    /// Bytes of the preallocated tensors.
    pub fn tensor_bytes(&self) -> usize {
        self.pipeline.tensor_bytes()
    }

    /// The chunk of the last [`infer`](Self::infer).
    pub fn chunk(&self) -> &ActionChunk {
        &self.chunk
    }

    /// Computes one action chunk, `[action_horizon, action_dim]` in the robot's units. The chunk stays valid
    /// until the next inference; [`ActionChunk::clone`] keeps it longer.
    ///
    /// # Errors
    /// [`ErrorKind::Observation`] or [`ErrorKind::NonFinite`] for a bad observation,
    /// [`ErrorKind::InvalidArgument`] for bad noise or step count, [`ErrorKind::Graph`] when ONNX Runtime fails,
    /// [`ErrorKind::NonFinite`] when the result is not finite. After an error the previous chunk is gone; the
    /// next inference starts clean.
    pub fn infer(
        &mut self,
        observation: &Observation<'_>,
        options: &InferOptions<'_>,
    ) -> Result<&ActionChunk> {
        self.run(observation, options, None)?;
        Ok(&self.chunk)
    }

    /// As [`infer`](Self::infer), handing every intermediate result to `observer`. For checks: it allocates.
    ///
    /// # Errors
    /// As [`infer`](Self::infer), and whatever `observer` returns.
    pub fn infer_observed(
        &mut self,
        observation: &Observation<'_>,
        options: &InferOptions<'_>,
        observer: &mut Observer<'_>,
    ) -> Result<&ActionChunk> {
        self.run(observation, options, Some(observer))?;
        Ok(&self.chunk)
    }

    fn run(
        &mut self,
        observation: &Observation<'_>,
        options: &InferOptions<'_>,
        mut observer: Option<&mut Observer<'_>>,
    ) -> Result<()> {
        let start = Instant::now();
        let num_steps = self.begin(observation, options)?;
        if let Some(observe) = observer.as_deref_mut() {
            self.report_prefix(observe)?;
        }
        for step in 0..num_steps {
            self.denoise_step(step)?;
            if let Some(observe) = observer.as_deref_mut() {
                observe(StageOutput::Velocity(step, self.pipeline.read(Intermediate::Velocity)?))?;
            }
        }
        if let Some(observe) = observer {
            observe(StageOutput::ActionsNormalized(self.pipeline.read(Intermediate::Actions)?))?;
        }
        self.finish()?;
        self.timing.total = start.elapsed();
        Ok(())
    }

    /// Everything before the denoise loop: preprocessing, vision, prefix, noise. Returns the step count.
    pub(crate) fn begin(
        &mut self,
        observation: &Observation<'_>,
        options: &InferOptions<'_>,
    ) -> Result<usize> {
        self.timing.reset();
        self.pipeline.restart();
        let preprocessing = Instant::now();
        let num_steps = options.num_steps.unwrap_or(self.num_steps);
        let views = self.preprocessor.select_views(observation)?;
        self.preprocessor.write_pixels(observation, self.pipeline.pixel_values_mut(views)?)?;
        self.pipeline.send(Filled::Pixels(views))?;
        let state = self.pipeline.state_mut()?;
        self.preprocessor.write_state(observation.state, state)?;
        self.raw_state.clear();
        self.raw_state.extend_from_slice(observation.state);
        let tokens = self.tokenizer.encode(observation.prompt, state)?;
        self.pipeline.send(Filled::State)?;
        self.timing.preprocess = preprocessing.elapsed();

        let image_rows = views * self.pipeline.tokens_per_view();
        self.prefix_len = image_rows + tokens.len();
        self.pipeline.set_num_steps(num_steps)?;
        self.pipeline.prepare(views, self.prefix_len)?;
        self.token_table.gather(tokens, self.pipeline.prefix_rows_mut(image_rows, tokens.len())?)?;
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

    /// Whether `prompt` can be used: tokenises it, which the next chunk then need not.
    pub(crate) fn check_prompt(&mut self, prompt: &str) -> Result<()> {
        self.tokenizer.encode(Some(prompt), self.pipeline.state_mut()?).map(|_| ())
    }

    pub(crate) fn denoise_step(&mut self, step: usize) -> Result<()> {
        self.pipeline.denoise_step(step)
    }

    /// Waits for what was queued, without making a chunk of it.
    pub(crate) fn settle(&mut self) -> Result<()> {
        self.pipeline.settle()
    }

    pub(crate) fn finish(&mut self) -> Result<()> {
        self.bring_in()?;
        self.chunk.fill_from_normalized(self.pipeline.x_t(), &self.post, &self.raw_state)
    }

    /// Waits for the actions, and for the times of the runs that made them.
    fn bring_in(&mut self) -> Result<()> {
        self.pipeline.fetch_actions()?;
        self.timing.set_runs(self.pipeline.laps()?);
        Ok(())
    }

    /// As [`finish`](Self::finish), into `actions` and with no value checked. Returns how many values there are.
    pub(crate) fn finish_unchecked(&mut self, actions: &mut [f32]) -> Result<usize> {
        self.bring_in()?;
        let length = self.chunk.as_slice().len();
        let Some(room) = actions.get_mut(..length) else {
            let text = format!("a chunk has {length} values, there is room for {}", actions.len());
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        };
        self.post.actions(self.pipeline.x_t(), &self.raw_state, room)?;
        Ok(length)
    }

    /// Runs one stage again on what its tensors hold since the last inference, and returns the time it took, on the
    /// device if there is one.
    /// For measuring: the chunk is not touched, and the next [`infer`](Self::infer) starts afresh.
    ///
    /// # Errors
    /// [`ErrorKind::Graph`] when nothing was inferred before, or ONNX Runtime fails.
    pub fn run_stage(&mut self, stage: Stage) -> Result<Duration> {
        self.pipeline.restart();
        match stage {
            Stage::Vision => self.pipeline.encode_views(),
            Stage::Prefix => self.pipeline.prefill(),
            Stage::DenoiseStep => self.pipeline.denoise_step(0),
            Stage::DenoiseLoop => {
                self.pipeline.set_num_steps(self.num_steps)?;
                (0..self.num_steps).try_for_each(|step| self.pipeline.denoise_step(step))
            }
        }?;
        Ok(self.pipeline.laps()?.iter().sum())
    }

    /// A copy of the velocity that the last Euler step computed, `[action_horizon, padded action width]`.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`] when the device fails.
    pub fn last_velocity(&self) -> Result<Vec<f32>> {
        self.pipeline.read(Intermediate::Velocity)
    }

    fn report_prefix(&self, observe: &mut Observer<'_>) -> Result<()> {
        observe(StageOutput::Tokens(self.tokenizer.ids().to_vec()))?;
        observe(StageOutput::PixelValues(self.pipeline.read(Intermediate::PixelValues)?))?;
        observe(StageOutput::ImageEmbeds(self.pipeline.read(Intermediate::ImageEmbeds)?))?;
        for layer in 0..self.pipeline.layers() {
            observe(StageOutput::Keys(layer, self.pipeline.read(Intermediate::Key(layer))?))?;
            observe(StageOutput::Values(layer, self.pipeline.read(Intermediate::Value(layer))?))?;
        }
        Ok(())
    }

    /// Where each graph port is bound, as (graph, port, address, bytes). Shows that no tensor between two graphs
    /// is ever copied: the producer's output and the consumer's input have one address.
    pub fn bound_ports(&self) -> impl Iterator<Item = (&'static str, &str, usize, usize)> {
        self.pipeline.bound_ports()
    }

    /// Fills every tensor that an inference must write before reading it with NaN. An inference that still gives
    /// the same chunk read nothing stale.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`] when the device fails.
    pub fn poison(&mut self) -> Result<()> {
        self.pipeline.poison()
    }
}
