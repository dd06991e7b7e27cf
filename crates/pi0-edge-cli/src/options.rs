//! Options that several verbs share.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use pi0_edge::runtime::Realtime;
use pi0_edge::{DeviceMemory, Policy, PolicyOptions, Provider, Result, Verify, Weights};

/// How a bundle is loaded.
#[derive(Args, Clone, Debug)]
pub struct LoadOptions {
    /// The bundle's directory
    pub bundle: PathBuf,
    /// What computes: nothing else does, or it is an error
    #[arg(long, value_name = "cpu|cuda|tensorrt", default_value_t)]
    pub provider: Provider,
    /// Directory of TensorRT engines (default: pi0-edge/engines in the user's cache)
    #[arg(long, value_name = "DIR")]
    pub engine_cache: Option<PathBuf>,
    /// The GPU, as CUDA counts them
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub gpu: u32,
    /// Where tensors are that host and graphs both touch: on each side with copies between them, or in one place
    /// that both see (for a Jetson); auto: unified on the CPU, separate on a GPU
    #[arg(long, value_enum, default_value = "auto")]
    pub device_memory: DeviceMemoryOption,
    /// Replay CUDA graphs, captured while warming up
    #[arg(long, value_enum, default_value = "on")]
    pub cuda_graphs: Switch,
    /// Threads of one operator (default: one per available core)
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub threads: usize,
    /// ONNX Runtime's shared library
    #[arg(long, value_name = "FILE")]
    pub ort_library: Option<PathBuf>,
    /// What to verify before use: every byte, or sizes alone (seconds faster on a large bundle)
    #[arg(long, value_enum, default_value = "full")]
    pub verify: VerifyOption,
    /// Where weights live: `mapped` from the file, `packed` into the fastest layout, or each as suits it
    #[arg(long, value_enum, default_value = "auto")]
    pub weights: WeightsOption,
    /// Let worker threads, and the one that waits for a GPU, sleep instead of spin inside a run
    #[arg(long)]
    pub no_spin: bool,
    /// Write ONNX Runtime's profile of every graph to this directory, as traces (slows every run)
    #[arg(long, value_name = "DIR")]
    pub profile: Option<PathBuf>,
}

/// Command-line form of [`Realtime`].
#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum RealtimeOption {
    /// Fail without
    Enforce,
    /// Go on without, and say so
    Try,
    /// Ask for nothing
    Off,
}

impl From<RealtimeOption> for Realtime {
    fn from(option: RealtimeOption) -> Realtime {
        match option {
            RealtimeOption::Enforce => Realtime::Enforce,
            RealtimeOption::Try => Realtime::Try,
            RealtimeOption::Off => Realtime::Off,
        }
    }
}

/// Command-line form of [`Verify`].
#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum VerifyOption {
    /// Sizes and hashes of every file
    Full,
    /// Sizes alone
    Size,
}

/// Command-line form of [`DeviceMemory`].
#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum DeviceMemoryOption {
    /// As suits the provider
    Auto,
    /// On each side
    Separate,
    /// In one place
    Unified,
}

/// On or off.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// Yes
    On,
    /// No
    Off,
}

/// Command-line form of [`Weights`].
#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum WeightsOption {
    /// Denoise step packed, vision and prefix mapped
    Auto,
    /// All mapped
    Mapped,
    /// All packed
    Packed,
}

impl LoadOptions {
    /// The library's options.
    pub fn policy_options(&self) -> PolicyOptions {
        PolicyOptions {
            provider: self.provider,
            engine_cache: self.engine_cache.clone(),
            gpu: self.gpu,
            device_memory: match self.device_memory {
                DeviceMemoryOption::Auto => DeviceMemory::Auto,
                DeviceMemoryOption::Separate => DeviceMemory::Separate,
                DeviceMemoryOption::Unified => DeviceMemory::Unified,
            },
            no_cuda_graphs: self.cuda_graphs == Switch::Off,
            ort_library: self.ort_library.clone(),
            threads: self.threads,
            verify: match self.verify {
                VerifyOption::Full => Verify::Full,
                VerifyOption::Size => Verify::Size,
            },
            weights: match self.weights {
                WeightsOption::Auto => Weights::Auto,
                WeightsOption::Mapped => Weights::Mapped,
                WeightsOption::Packed => Weights::Packed,
            },
            no_spin: self.no_spin,
            profile: self.profile.clone(),
        }
    }

    /// Loads the policy, showing progress on a terminal while a large bundle is verified.
    pub fn load(&self) -> Result<Policy> {
        let mut progress = Progress::new("verifying");
        let policy = Policy::load_with_progress(&self.bundle, &self.policy_options(), &mut |done, total| {
            progress.show(done, total);
        });
        progress.clear();
        policy
    }
}

/// One self-overwriting line on stderr; silent when stderr is not a terminal or the work is small.
pub struct Progress {
    what: &'static str,
    enabled: bool,
    shown: Option<u64>,
}

impl Progress {
    const WORTH_SHOWING: u64 = 256 << 20;

    /// A silent line until there is something to show; `what` is being done.
    pub fn new(what: &'static str) -> Self {
        Progress { what, enabled: std::io::stderr().is_terminal(), shown: None }
    }

    /// Shows `done` of `total` bytes.
    pub fn show(&mut self, done: u64, total: u64) {
        if !self.enabled || total < Self::WORTH_SHOWING {
            return;
        }
        let percent = done * 100 / total;
        if self.shown != Some(percent) {
            self.shown = Some(percent);
            eprint!("\r{} {percent:3} % of {:.1} GB", self.what, total as f64 / 1e9);
        }
    }

    /// Removes the line.
    pub fn clear(&mut self) {
        if self.shown.take().is_some() {
            eprint!("\r\x1b[K");
        }
    }
}
