//! Findings with stable codes.

use std::fmt;

use serde::{Serialize, Serializer};

use super::{BundleFacts, Facts};

/// The severity of a finding, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It will not work.
    Error,
    /// It will work, but slower, less steadily or less safely than it could.
    Warning,
    /// Worth knowing; nothing to do unless it surprises.
    Info,
    /// Looked at and found in order.
    Ok,
}

impl Severity {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "info",
            Severity::Ok => "ok",
        }
    }
}

macro_rules! codes {
    ($($(#[doc = $about:literal])+ $group:ident $title:literal {
        $($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+
    })+) => {
        /// The subject of a finding, in the order of the report.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Group { $($(#[doc = $about])+ $group,)+ }

        impl Group {
            /// The heading for people.
            pub fn title(self) -> &'static str {
                match self { $(Group::$group => $title,)+ }
            }
        }

        /// The code of a finding. The names are stable: one is never given another meaning, and none is used again.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Code { $($($(#[doc = $doc])+ $variant,)+)+ }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Code] = &[$($(Code::$variant,)+)+];

            /// The name used in output.
            pub fn as_str(self) -> &'static str {
                match self { $($(Code::$variant => $name,)+)+ }
            }

            /// The subject of the code.
            pub fn group(self) -> Group {
                match self { $($(Code::$variant => Group::$group,)+)+ }
            }
        }
    };
}

codes! {
    /// The bundle.
    Bundle "Bundle" {
        /// The bundle's kind, precision, target and size.
        Bundle = "BUNDLE",
        /// The bundle has no manifest that could be read.
        BundleUnreadable = "BUNDLE_UNREADABLE",
        /// The bundle's manifest is of a version this program does not read.
        BundleFormat = "BUNDLE_FORMAT",
        /// Files of the bundle are absent or of the wrong size.
        BundleIncomplete = "BUNDLE_INCOMPLETE",
        /// The bundle has no golden data to show parity with the reference policy by.
        NoGoldenData = "NO_GOLDEN_DATA",
        /// The GPU cannot compute in the bundle's precision.
        PrecisionUnsupported = "PRECISION_UNSUPPORTED",
    }
    /// ONNX Runtime's library.
    OnnxRuntime "ONNX Runtime" {
        /// ONNX Runtime's library: where and which version.
        OrtLibrary = "ORT_LIBRARY",
        /// There is no ONNX Runtime where it is looked for.
        OrtNotFound = "ORT_NOT_FOUND",
        /// The file found is no shared library.
        OrtUnreadable = "ORT_UNREADABLE",
        /// ONNX Runtime was built for another architecture than the machine's.
        OrtWrongArchitecture = "ORT_WRONG_ARCHITECTURE",
        /// ONNX Runtime is older than the oldest version this program can use.
        OrtTooOld = "ORT_TOO_OLD",
        /// ONNX Runtime's version could not be told from its file.
        OrtVersionUnknown = "ORT_VERSION_UNKNOWN",
        /// ONNX Runtime is old enough to lack something that this program does without.
        OrtLacks = "ORT_LACKS",
        /// A library that ONNX Runtime needs is not found.
        LibraryMissing = "LIBRARY_MISSING",
        /// A library that ONNX Runtime or a provider needs is too old.
        LibraryTooOld = "LIBRARY_TOO_OLD",
        /// The state of ONNX Runtime's uploader of usage data.
        Telemetry = "TELEMETRY",
    }
    /// Execution providers, GPU, driver and NVIDIA's libraries.
    Gpu "GPU and providers" {
        /// The GPU and its compute capability.
        Gpu = "GPU",
        /// There is no NVIDIA GPU.
        GpuNotFound = "GPU_NOT_FOUND",
        /// The GPU is newer than this program's list, or cannot be told from the tree.
        GpuUnknown = "GPU_UNKNOWN",
        /// NVIDIA's kernel driver.
        Driver = "DRIVER",
        /// No kernel driver is loaded for the GPU.
        DriverNotLoaded = "DRIVER_NOT_LOADED",
        /// The driver is older than the CUDA version that a provider was built for.
        DriverTooOld = "DRIVER_TOO_OLD",
        /// The GPU has no device file here.
        GpuDeviceMissing = "GPU_DEVICE_MISSING",
        /// The CUDA runtime that would be loaded.
        Cuda = "CUDA",
        /// The cuDNN that would be loaded.
        Cudnn = "CUDNN",
        /// cuDNN is not found; the CUDA provider loads it when it first needs it.
        CudnnNotFound = "CUDNN_NOT_FOUND",
        /// The TensorRT that would be loaded.
        TensorRt = "TENSORRT",
        /// TensorRT's files for building engines on this GPU are not installed.
        TensorRtBuilderMissing = "TENSORRT_BUILDER_MISSING",
        /// A provider whose libraries are all there.
        Provider = "PROVIDER",
        /// ONNX Runtime was built without the provider.
        ProviderNotCompiledIn = "PROVIDER_NOT_COMPILED_IN",
        /// The provider's library is not beside ONNX Runtime's.
        ProviderLibraryMissing = "PROVIDER_LIBRARY_MISSING",
        /// A library that the provider needs is not found.
        ProviderDependencyMissing = "PROVIDER_DEPENDENCY_MISSING",
        /// The CUDA provider has code for this GPU.
        Kernels = "KERNELS",
        /// The CUDA provider has no code for this GPU.
        NoKernelsForGpu = "NO_KERNELS_FOR_GPU",
        /// The CUDA provider's code has to be compiled for this GPU when it is first used.
        KernelsNeedJit = "KERNELS_NEED_JIT",
        /// The provider may or may not have code for this GPU.
        KernelsUnknown = "KERNELS_UNKNOWN",
    }
    /// TensorRT engines.
    Engines "TensorRT engines" {
        /// The directory of TensorRT engines.
        EngineCache = "ENGINE_CACHE",
        /// There is no directory of TensorRT engines.
        EngineCacheMissing = "ENGINE_CACHE_MISSING",
        /// The directory of TensorRT engines is not the user's own.
        EngineCacheUnsafe = "ENGINE_CACHE_UNSAFE",
        /// A set of engines is damaged or not the user's own.
        EngineUnusable = "ENGINE_UNUSABLE",
        /// There are engines for the bundle and this machine.
        Engines = "ENGINES",
        /// There are no engines for the bundle.
        EnginesMissing = "ENGINES_MISSING",
        /// The bundle's engines were built for another GPU, TensorRT or ONNX Runtime.
        EnginesForeign = "ENGINES_FOREIGN",
    }
    /// Board, power mode and clocks.
    Power "Board and power" {
        /// The board or machine.
        Board = "BOARD",
        /// The Linux for Tegra and JetPack it runs.
        L4t = "L4T",
        /// This Linux for Tegra refuses large GPU allocations that fit.
        L4tMemoryBug = "L4T_MEMORY_BUG",
        /// The Jetson's power mode.
        PowerMode = "POWER_MODE",
        /// Processors that are switched off.
        CpusOffline = "CPUS_OFFLINE",
        /// The clocks, fixed or not.
        Clocks = "CLOCKS",
        /// The governor of the processors' clocks.
        Governor = "GOVERNOR",
    }
    /// Kernel and limits for real-time threads.
    Realtime "Real time" {
        /// There is no running system to look at.
        NotRunning = "NOT_RUNNING",
        /// The kernel is preemptible throughout.
        RtKernel = "RT_KERNEL",
        /// The kernel is not preemptible throughout.
        NotRtKernel = "NOT_RT_KERNEL",
        /// Processors kept free for real-time threads.
        IsolatedCpus = "ISOLATED_CPUS",
        /// The highest real-time priority the user may take.
        RtprioLimit = "RTPRIO_LIMIT",
        /// The memory that the user may lock.
        MemlockLimit = "MEMLOCK_LIMIT",
        /// The bound on real-time threads that run too long.
        RtThrottling = "RT_THROTTLING",
    }
    /// Memory.
    Memory "Memory" {
        /// Memory and what is available of it.
        Memory = "MEMORY",
        /// The memory does not suffice for the bundle, or barely.
        LowMemory = "LOW_MEMORY",
        /// No large block of contiguous memory is left.
        MemoryFragmented = "MEMORY_FRAGMENTED",
        /// Swap in use.
        Swap = "SWAP",
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One thing found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its code.
    pub code: Code,
    /// Its severity.
    pub severity: Severity,
    /// The message, with the value that was found.
    pub message: String,
    /// The remedy, mostly a command to type.
    pub remedy: Option<String>,
}

/// Everything the doctor has to say of a machine.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The findings: by group, and the worst of a group first.
    pub findings: Vec<Finding>,
    /// The facts they were made from.
    pub facts: Facts,
    /// The bundle, if one was named.
    pub bundle: Option<BundleFacts>,
}

impl Report {
    /// Counts the findings of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|f| f.severity == severity).count()
    }

    /// Returns true if nothing stands in the way of running.
    pub fn is_usable(&self) -> bool {
        self.count(Severity::Error) == 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_shouted() {
        let names: BTreeSet<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        assert!(
            names.iter().all(|n| n.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
        );
    }
}
