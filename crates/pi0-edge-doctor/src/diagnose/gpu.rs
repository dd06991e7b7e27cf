//! GPU, driver, NVIDIA's libraries and the providers that use them.

use std::collections::BTreeMap;

use super::{Rules, list, onnxruntime, remedy};
use crate::finding::{Code, Severity};
use crate::loader::{file_name, numbers};
use crate::{Component, Gpu, Kernels, Provider, ProviderLibrary, RuntimeLibrary};

pub(super) fn judge(rules: &mut Rules<'_>) {
    hardware(rules);
    if let Some(library) = &rules.facts.onnxruntime.library {
        let (present, absent): (Vec<_>, Vec<_>) =
            [Provider::Cuda, Provider::TensorRt].into_iter().partition(|p| library.compiled_in.contains(p));
        not_compiled_in(rules, library, &absent);
        present.into_iter().for_each(|provider| judge_provider(rules, library, provider));
    }
    software(rules);
}

/// Tells which providers ONNX Runtime was built without: at once, unless they matter differently.
fn not_compiled_in(rules: &mut Rules<'_>, library: &RuntimeLibrary, absent: &[Provider]) {
    let facts = rules.facts;
    for providers in absent.chunk_by(|a, b| rules.need(*a) == rules.need(*b)).collect::<Vec<_>>() {
        let severity = rules.need(providers[0]);
        let names: Vec<_> = providers.iter().map(|provider| provider.as_str()).collect();
        let kind = if names.len() == 1 { "provider" } else { "providers" };
        let file = file_name(library.path.as_ref());
        let message = format!("{file} is built without the {} {kind}", list(&names));
        // Where there is no GPU and nothing asks for one, another library would not help.
        let useful = facts.gpu().is_some() || severity == Severity::Error;
        let remedy = if useful { remedy::runtime_for(facts) } else { String::new() };
        rules.find(Code::ProviderNotCompiledIn, severity, message, remedy);
    }
}

fn hardware(rules: &mut Rules<'_>) {
    let facts = rules.facts;
    let Some(gpu) = facts.gpu() else {
        if !facts.system.running {
            return rules.note(Code::GpuUnknown, "no /sys here: which GPU the machine has cannot be told");
        }
        return match rules.wants_gpu() {
            true => rules.error(
                Code::GpuNotFound,
                "no NVIDIA GPU",
                "run on a machine with an NVIDIA GPU, or with --provider cpu",
            ),
            false => rules.note(Code::GpuNotFound, "no NVIDIA GPU"),
        };
    };
    let others = facts.gpus.len() - 1;
    let others = if others > 0 { format!("; {others} more not looked at") } else { String::new() };
    match gpu.architecture {
        Some(a) => {
            rules.ok(Code::Gpu, format!("{}, compute capability {}.{}{others}", gpu.name, a / 10, a % 10))
        }
        None => rules.note(
            Code::GpuUnknown,
            format!(
                "{} (PCI {}) is newer than this program's list{others}",
                gpu.name,
                gpu.pci_device.as_deref().unwrap_or("?")
            ),
        ),
    }
    if !facts.system.running {
        return;
    }
    let severity = rules.need(Provider::Cuda).min(rules.need(Provider::TensorRt));
    if !facts.driver.loaded {
        let message = "no NVIDIA driver is loaded for the GPU";
        return rules.find(Code::DriverNotLoaded, severity, message, remedy::driver(facts));
    }
    rules.ok(
        Code::Driver,
        format!("NVIDIA driver {}", facts.driver.version.as_deref().unwrap_or("without a number")),
    );
    if !facts.driver.device_files {
        let remedy = match facts.system.container {
            true => remedy::driver(facts),
            false => "sudo nvidia-modprobe -u -c=0".into(),
        };
        let message = "the driver is loaded, but no device file is here";
        rules.find(Code::GpuDeviceMissing, severity, message, remedy);
    }
}

fn judge_provider(rules: &mut Rules<'_>, library: &RuntimeLibrary, provider: Provider) {
    let facts = rules.facts;
    let severity = rules.need_library(provider);
    let shared = library.providers.iter().find(|p| p.provider.is_none());
    let own = facts.onnxruntime.provider(provider);
    let mut usable = true;
    for part in shared.into_iter().chain(own) {
        usable &= part.present && part.missing.is_empty() && part.too_old.is_empty();
        // The part both providers share is reported with the first of them.
        if part.provider.is_some() || provider == library.compiled_in[1] {
            judge_library(rules, part, severity);
        }
    }
    let Some(own) = own.filter(|p| p.present) else { return };
    if usable {
        let name = file_name(own.path.as_ref());
        rules.ok(Code::Provider, format!("{provider}: {name} and every library it needs is there"));
    }
    if provider == Provider::Cuda {
        let severity = rules.need(provider);
        kernels(rules, own, severity);
        driver_version(rules, own, severity);
    }
}

fn judge_library(rules: &mut Rules<'_>, part: &ProviderLibrary, severity: Severity) {
    let facts = rules.facts;
    let name = file_name(part.path.as_ref());
    if !part.present {
        let remedy = match &part.elsewhere {
            Some(file) => format!("name the file itself, not a link to it: --ort-library {}", beside(file)),
            None => format!("put {name} of the same build beside libonnxruntime.so"),
        };
        let message = format!("{} is not there", part.path);
        rules.find(Code::ProviderLibraryMissing, severity, message, remedy);
    }
    // What ONNX Runtime's own library misses is said there.
    let said = facts.onnxruntime.library.iter().flat_map(|l| &l.missing).map(|m| &m.library);
    let said: Vec<&String> = said.collect();
    let mut by_remedy: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let expected = remedy::cuda_of_l4t(facts);
    let foreign = part.cuda_major.zip(expected).filter(|(built, here)| built != here);
    for missing in part.missing.iter().filter(|m| !said.contains(&&m.library)) {
        let elsewhere =
            missing.elsewhere.as_ref().map(|d| format!(" (there is one in {d})")).unwrap_or_default();
        let remedy = match foreign {
            Some(_) if missing.elsewhere.is_none() => remedy::runtime_for(facts),
            _ => remedy::install(missing, part.cuda_major, facts),
        };
        let through =
            if missing.needed_by == name { String::new() } else { format!(" (for {})", missing.needed_by) };
        by_remedy.entry(remedy).or_default().push(format!("{}{through}{elsewhere}", missing.library));
    }
    for (remedy, libraries) in by_remedy {
        let why =
            foreign.map(|(built, here)| format!("; it is built for CUDA {built}, this L4T has CUDA {here}"));
        let message = format!("{name} needs {}, not found{}", list(&libraries), why.unwrap_or_default());
        rules.find(Code::ProviderDependencyMissing, severity, message, remedy);
    }
    for old in &part.too_old {
        onnxruntime::too_old(rules, old, severity);
    }
}

/// `libonnxruntime.so` in the directory of a provider's file.
fn beside(file: &str) -> String {
    std::path::Path::new(file).with_file_name("libonnxruntime.so.1").to_string_lossy().into_owned()
}

/// The fit of a library's code to a GPU.
#[derive(Debug, PartialEq, Eq)]
enum Fit {
    Native,
    /// Intermediate code for this older architecture, compiled at first use.
    Jit(u32),
    /// Machine code for this architecture, which NVIDIA does not promise to run.
    Unpromised(u32),
    None,
}

fn fit(kernels: &Kernels, gpu: &Gpu, architecture: u32) -> Fit {
    let older = |a: &&u32| **a / 10 == architecture / 10 && **a < architecture;
    let related = kernels.sass.iter().rev().find(older).copied();
    // Machine code runs on later minor versions of its architecture, but by NVIDIA's rules not on integrated GPUs.
    if kernels.sass.contains(&architecture) || (related.is_some() && !gpu.integrated) {
        return Fit::Native;
    }
    let intermediate = kernels.ptx.iter().rev().find(|p| **p <= architecture);
    match (intermediate, related) {
        (Some(p), _) => Fit::Jit(*p),
        (None, Some(s)) => Fit::Unpromised(s),
        (None, None) => Fit::None,
    }
}

fn kernels(rules: &mut Rules<'_>, provider: &ProviderLibrary, severity: Severity) {
    let facts = rules.facts;
    let name = file_name(provider.path.as_ref());
    let (Some(gpu), Some(kernels)) = (facts.gpu(), &provider.kernels) else {
        if facts.gpu().is_some() {
            let message = format!("{name} has no GPU code that could be read; only a run will tell");
            rules.note(Code::KernelsUnknown, message);
        }
        return;
    };
    let names = |prefix: &str, set: &std::collections::BTreeSet<u32>| -> Vec<String> {
        set.iter().map(|a| format!("{prefix}_{a}")).collect()
    };
    let mut all = names("sm", &kernels.sass);
    all.extend(names("compute", &kernels.ptx));
    let has = if all.is_empty() { "no code".to_owned() } else { format!("code for {}", list(&all)) };
    let incomplete = if kernels.complete { "" } else { " (not all of it could be read)" };
    let Some(architecture) = gpu.architecture else {
        let message =
            format!("{name} has {has}{incomplete}; whether {} can run it is not known here", gpu.name);
        return rules.note(Code::KernelsUnknown, message);
    };
    let message = format!("{name} has {has}{incomplete}; {} is sm_{architecture}", gpu.name);
    match fit(kernels, gpu, architecture) {
        Fit::Native => rules.ok(Code::Kernels, message),
        Fit::Jit(from) => rules.warn(
            Code::KernelsNeedJit,
            format!("{message}: the driver compiles compute_{from} code at the first run, for minutes"),
            remedy::runtime_for(facts),
        ),
        Fit::Unpromised(from) => rules.warn(
            Code::NoKernelsForGpu,
            format!("{message}: NVIDIA does not promise that sm_{from} code runs on an integrated GPU"),
            remedy::runtime_for(facts),
        ),
        Fit::None => {
            rules.find(Code::NoKernelsForGpu, severity, message, remedy::runtime_for(facts));
        }
    }
}

/// Discrete GPUs only: a Jetson's driver and CUDA come together.
fn driver_version(rules: &mut Rules<'_>, provider: &ProviderLibrary, severity: Severity) {
    let facts = rules.facts;
    if facts.gpu().is_none_or(|g| g.integrated) {
        return;
    }
    let oldest = match provider.cuda_major {
        Some(13) => 580,
        Some(12) => 525,
        Some(11) => 450,
        _ => return,
    };
    let Some(version) = &facts.driver.version else { return };
    if numbers(version).first().is_some_and(|v| *v < oldest) {
        let cuda = provider.cuda_major.unwrap_or_default();
        let message = format!("driver {version} is older than {oldest}, which CUDA {cuda} needs");
        rules.find(Code::DriverTooOld, severity, message, remedy::driver(facts));
    }
}

fn software(rules: &mut Rules<'_>) {
    let software = &rules.facts.software;
    let cuda = rules.facts.onnxruntime.provider(Provider::Cuda).filter(|p| p.present);
    // Without a GPU and without a library that could use one, versions are of no interest.
    if rules.facts.gpu().is_none() && cuda.is_none() {
        return;
    }
    let tensorrt = rules.need(Provider::TensorRt).max(Severity::Warning);
    let either = rules.need(Provider::Cuda).min(tensorrt).max(Severity::Warning);
    component(rules, Code::Cuda, either, "CUDA runtime", software.cuda.as_ref());
    component(rules, Code::TensorRt, tensorrt, "TensorRT", software.tensorrt.as_ref());
    component(rules, Code::Cudnn, either, "cuDNN", software.cudnn.as_ref());
    if let (Some(cuda), None) = (cuda, &software.cudnn) {
        let cuda_major = cuda.cuda_major;
        let missing = crate::Missing {
            library: "libcudnn.so.9".into(),
            needed_by: "libonnxruntime_providers_cuda.so".into(),
            elsewhere: None,
        };
        let severity = rules.need(Provider::Cuda).max(Severity::Warning);
        let message = "no cuDNN; the CUDA provider loads it when a graph first needs it, and fails then";
        let remedy = remedy::install(&missing, cuda_major, rules.facts);
        rules.find(Code::CudnnNotFound, severity, message, remedy);
    }
    let Some(gpu) = rules.facts.gpu().and_then(|g| g.architecture) else { return };
    let builders = &software.tensorrt_builders;
    // Orin's engines are built with the files for its desktop sister.
    let served = builders.contains(&gpu) || (gpu == 87 && builders.contains(&86));
    if !builders.is_empty() && !served {
        let names: Vec<String> = builders.iter().map(|b| format!("sm_{b}")).collect();
        let message = format!("TensorRT's builder files are for {}; this GPU is sm_{gpu}", list(&names));
        let severity = rules.need(Provider::TensorRt);
        let remedy = "sudo apt install --reinstall tensorrt   # of the JetPack or CUDA this machine runs";
        rules.find(Code::TensorRtBuilderMissing, severity, message, remedy);
    }
}

fn component(
    rules: &mut Rules<'_>,
    code: Code,
    unfound: Severity,
    name: &str,
    component: Option<&Component>,
) {
    match component {
        Some(Component { version, library: Some(path) }) => {
            rules.ok(code, format!("{name} {version} at {path}"))
        }
        Some(Component { version, library: None }) => rules.find(
            code,
            unfound,
            format!("{name} {version} is installed, but the loader does not find its library"),
            "sudo ldconfig",
        ),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_fits_as_nvidia_says() {
        let kernels = |sass: &[u32], ptx: &[u32]| Kernels {
            sass: sass.iter().copied().collect(),
            ptx: ptx.iter().copied().collect(),
            complete: true,
        };
        let gpu = |integrated| Gpu { name: String::new(), integrated, architecture: None, pci_device: None };
        assert_eq!(fit(&kernels(&[86], &[]), &gpu(false), 86), Fit::Native);
        assert_eq!(fit(&kernels(&[80], &[]), &gpu(false), 89), Fit::Native);
        assert_eq!(fit(&kernels(&[90], &[]), &gpu(false), 89), Fit::None);
        assert_eq!(fit(&kernels(&[120], &[]), &gpu(false), 121), Fit::Native);
        assert_eq!(fit(&kernels(&[80, 86], &[]), &gpu(true), 87), Fit::Unpromised(86));
        assert_eq!(fit(&kernels(&[80], &[80, 90]), &gpu(true), 87), Fit::Jit(80));
        assert_eq!(fit(&kernels(&[89, 90, 120, 121], &[]), &gpu(true), 110), Fit::None);
        assert_eq!(fit(&kernels(&[], &[]), &gpu(true), 87), Fit::None);
    }
}
