//! Options that several verbs share.

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args};
use pi0_edge::runtime::Realtime;
use pi0_edge::{
    Bundle, DeviceMemory, InferOptions, Policy, PolicyOptions, Provider, Result, Verify, Weights,
};

use crate::observation::StoredObservation;
use crate::output::quoted;
use crate::progress::{Progress, Unit};

/// Headings of options in help texts; what has none comes first.
const LOADING: &str = "Loading the policy";
pub const CHUNKING: &str = "Real-time chunking";
pub const RIGHTS: &str = "Threads and their rights";

/// Options of loading a bundle.
#[derive(Args, Clone, Debug)]
pub struct LoadOptions {
    /// The bundle's directory
    pub bundle: PathBuf,
    /// The execution provider; nothing else computes, or it is an error
    #[arg(help_heading = LOADING, long, value_name = "cpu|cuda|tensorrt", default_value_t)]
    pub provider: Provider,
    /// Directory of TensorRT engines (default: pi0-edge/engines in the user's cache)
    #[arg(help_heading = LOADING, long, value_name = "DIR")]
    pub engine_cache: Option<PathBuf>,
    /// The GPU, as CUDA counts them
    #[arg(help_heading = LOADING, long, value_name = "N", default_value_t = 0)]
    pub gpu: u32,
    /// Place of tensors that host and graphs both touch: on each side with copies between them, or in one place
    /// that both see (for a Jetson); auto: unified on the CPU, separate on a GPU
    #[arg(help_heading = LOADING, long, value_parser = choice(DEVICE_MEMORY), default_value = "auto")]
    pub device_memory: DeviceMemory,
    /// Replay CUDA graphs, captured while warming up
    #[arg(help_heading = LOADING, long, value_parser = choice(CUDA_GRAPHS), default_value = "on", action = ArgAction::Set)]
    pub cuda_graphs: bool,
    /// Threads of one operator (default: one per available core)
    #[arg(help_heading = LOADING, long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub threads: usize,
    /// ONNX Runtime's shared library
    #[arg(help_heading = LOADING, long, value_name = "FILE")]
    pub ort_library: Option<PathBuf>,
    /// Verification before use: every byte, those of files that changed since they were last verified, or sizes alone
    #[arg(help_heading = LOADING, long, value_parser = choice(VERIFY), default_value = "changed")]
    pub verify: Verify,
    /// Place of weights: `mapped` from the file, `packed` into the fastest layout, or each as suits it
    #[arg(help_heading = LOADING, long, value_parser = choice(WEIGHTS), default_value = "auto")]
    pub weights: Weights,
    /// Let worker threads, and the one that waits for a GPU, sleep instead of spin inside a run
    #[arg(help_heading = LOADING, long)]
    pub no_spin: bool,
    /// Write ONNX Runtime's profile of every graph to this directory, as traces (slows every run)
    #[arg(help_heading = LOADING, long, value_name = "DIR")]
    pub profile: Option<PathBuf>,
}

/// Options of verbs that compute one observation again and again.
#[derive(Args, Clone, Debug)]
pub struct MeasureOptions {
    #[command(flatten)]
    pub load: LoadOptions,
    /// Directory with observation.json and its frames (default: the bundle's first golden case, else made up)
    #[arg(long, value_name = "DIR")]
    pub observation: Option<PathBuf>,
    /// Euler steps (default: the bundle's)
    #[arg(long, value_name = "N")]
    pub num_steps: Option<usize>,
}

impl MeasureOptions {
    /// Reads the observation, or takes one that comes with the bundle.
    pub fn observation(&self, policy: &Policy) -> Result<StoredObservation> {
        StoredObservation::read_or_golden(self.observation.as_deref(), policy)
    }

    /// Returns the options of each inference.
    pub fn infer_options(&self) -> InferOptions<'static> {
        InferOptions { num_steps: self.num_steps, ..InferOptions::default() }
    }
}

/// The words of an option, each with its help and its value.
pub type Choices<T> = [(&'static str, &'static str, T)];

const VERIFY: &Choices<Verify> = &[
    ("changed", "Sizes, and hashes of what changed since they were last compared", Verify::Changed),
    ("full", "Sizes and hashes of every file", Verify::Full),
    ("size", "Sizes alone", Verify::Size),
];

const DEVICE_MEMORY: &Choices<DeviceMemory> = &[
    ("auto", "As suits the provider", DeviceMemory::Auto),
    ("separate", "On each side", DeviceMemory::Separate),
    ("unified", "In one place", DeviceMemory::Unified),
];

const CUDA_GRAPHS: &Choices<bool> = &[("on", "Yes", true), ("off", "No", false)];

const WEIGHTS: &Choices<Weights> = &[
    ("auto", "Denoise step packed, vision and prefix mapped", Weights::Auto),
    ("mapped", "All mapped", Weights::Mapped),
    ("packed", "All packed", Weights::Packed),
];

/// Actions where real-time rights are missing.
pub const REALTIME: &Choices<Realtime> = &[
    ("enforce", "Fail without", Realtime::Enforce),
    ("try", "Go on without, and say so", Realtime::Try),
    ("off", "Ask for nothing", Realtime::Off),
];

/// Parses one of `choices`.
pub fn choice<T: Copy + Send + Sync + 'static>(
    choices: &'static Choices<T>,
) -> impl TypedValueParser<Value = T> {
    let words = choices.iter().map(|(word, help, _)| PossibleValue::new(*word).help(*help));
    // clap has refused every other word.
    let value = |word: String| choices.iter().position(|(w, ..)| *w == word).unwrap_or_default();
    PossibleValuesParser::new(words).map(move |word| choices[value(word)].2)
}

impl LoadOptions {
    /// The bundle as it is typed, and the provider where it is another than the default.
    pub fn typed(&self) -> String {
        let provider = match self.provider {
            Provider::Cpu => String::new(),
            other => format!(" --provider {other}"),
        };
        quoted(&self.bundle) + &provider
    }

    /// Returns the library's options.
    pub fn policy_options(&self) -> PolicyOptions {
        PolicyOptions {
            provider: self.provider,
            engine_cache: self.engine_cache.clone(),
            gpu: self.gpu,
            device_memory: self.device_memory,
            no_cuda_graphs: !self.cuda_graphs,
            ort_library: self.ort_library.clone(),
            threads: self.threads,
            verify: self.verify,
            weights: self.weights,
            no_spin: self.no_spin,
            profile: self.profile.clone(),
        }
    }

    /// Opens the bundle alone, and shows how far that is.
    pub fn open(&self) -> Result<Bundle> {
        let progress = Progress::new("verifying", 0, Unit::Bytes);
        Bundle::open(&self.bundle, self.verify, &mut |done, total| progress.set_of(done, total))
    }

    /// Loads the policy, and shows how far that is.
    pub fn load(&self) -> Result<Policy> {
        self.load_watched(|| {})
    }

    /// Loads the policy and calls `verified` whenever another part of it has been verified.
    pub fn load_watched(&self, mut verified: impl FnMut()) -> Result<Policy> {
        let mut progress = Progress::new("verifying", 0, Unit::Bytes);
        Policy::load_with_progress(&self.bundle, &self.policy_options(), &mut |done, total| {
            verified();
            progress.set_of(done, total);
            if done == total {
                progress = Progress::new("loading the graphs", 0, Unit::Bytes);
            }
        })
    }
}
