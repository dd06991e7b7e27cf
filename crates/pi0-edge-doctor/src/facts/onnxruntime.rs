//! ONNX Runtime's library and its providers.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use object::elf::{EM_AARCH64, EM_X86_64};
use pi0_edge::Provider;
use pi0_edge::internals::{OLDEST_RUNTIME, RUNTIME_LIBRARY, SYSTEM, places};
use serde::Serialize;

use super::system::System;
use crate::elf::{Elf, architecture};
use crate::fatbin::{self, Kernels};
use crate::loader::{Loader, Missing, TooOld, file_name, numbers};
use crate::tree::Tree;

/// ONNX Runtime as it would be found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct OnnxRuntime {
    /// Every place looked at, in order, up to the one that has it.
    pub tried: Vec<Tried>,
    /// The library, if one was found.
    pub library: Option<RuntimeLibrary>,
    /// `ORT_DISABLE_TELEMETRY` as it is set now.
    pub telemetry_variable: Option<String>,
}

/// One place looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// The file.
    pub path: String,
    /// The reason for looking there.
    pub origin: &'static str,
    /// The outcome: `found`, `missing`, `would not load` or `not a 64-bit library`.
    pub outcome: &'static str,
}

/// ONNX Runtime's library.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RuntimeLibrary {
    /// Its path.
    pub path: String,
    /// The reason for looking there.
    pub origin: &'static str,
    /// Its version, such as `1.31.1`.
    pub version: Option<String>,
    /// Its own description of its build.
    pub build: Option<String>,
    /// The architecture it was built for.
    pub architecture: String,
    /// Providers it was built with.
    pub compiled_in: Vec<Provider>,
    /// True if it contains the uploader of usage data.
    pub uploader: bool,
    /// Libraries it needs and would not find.
    pub missing: Vec<Missing>,
    /// Libraries that are older than those it was built against.
    pub too_old: Vec<TooOld>,
    /// The provider libraries it would load.
    pub providers: Vec<ProviderLibrary>,
}

/// A provider's own library, beside ONNX Runtime's.
#[derive(Debug, Clone, Serialize)]
pub struct ProviderLibrary {
    /// The provider; `None` for the part that all of them share.
    pub provider: Option<Provider>,
    /// The path it must have.
    pub path: String,
    /// True if it is there.
    pub present: bool,
    /// Its path instead, if it lies beside the file that a link to ONNX Runtime leads to.
    pub elsewhere: Option<String>,
    /// Libraries it needs and would not find.
    pub missing: Vec<Missing>,
    /// Libraries that are older than those it was built against.
    pub too_old: Vec<TooOld>,
    /// The major version of the CUDA runtime it was built for.
    pub cuda_major: Option<u32>,
    /// The GPU code it contains, if it could be told.
    pub kernels: Option<Kernels>,
}

struct Candidate {
    path: PathBuf,
    origin: &'static str,
    /// Asked for by name: when it fails, nothing else is tried.
    binding: bool,
}

impl OnnxRuntime {
    pub(crate) fn read(
        tree: &Tree,
        loader: &Loader<'_>,
        env: &dyn Fn(&str) -> Option<String>,
        explicit: Option<&Path>,
        system: &System,
    ) -> OnnxRuntime {
        let mut found =
            OnnxRuntime { telemetry_variable: env("ORT_DISABLE_TELEMETRY"), ..OnnxRuntime::default() };
        let mut unfit = None;
        for candidate in candidates(tree, loader, env, explicit) {
            let elf = loader.elf(&candidate.path);
            let library = elf.map(|elf| library(tree, loader, &candidate, &elf));
            let outcome = match &library {
                Some(library) if library.loads_on(system) => "found",
                Some(_) => "would not load",
                None if tree.is_file(&candidate.path) => "not a 64-bit library",
                None => "missing",
            };
            let path = candidate.path.to_string_lossy().into_owned();
            found.tried.push(Tried { path, origin: candidate.origin, outcome });
            if outcome == "found" {
                found.library = library;
                return found;
            }
            unfit = unfit.or(library);
            if candidate.binding {
                break;
            }
        }
        // If none would do, the first one is what there is to talk about.
        found.library = unfit;
        found
    }

    /// The library of one provider.
    pub fn provider(&self, provider: Provider) -> Option<&ProviderLibrary> {
        self.library.as_ref()?.providers.iter().find(|p| p.provider == Some(provider))
    }
}

impl RuntimeLibrary {
    /// Returns true if the version is known and below what the session layer needs.
    pub fn is_too_old(&self) -> bool {
        self.version.as_deref().is_some_and(|v| numbers(v) < OLDEST_RUNTIME.to_vec())
    }

    fn loads_on(&self, system: &System) -> bool {
        system.architecture.as_ref().is_none_or(|a| *a == self.architecture)
            && !self.is_too_old()
            && self.missing.is_empty()
            && self.too_old.is_empty()
    }
}

/// The places where the session layer looks for the library, in its order.
fn candidates(
    tree: &Tree,
    loader: &Loader<'_>,
    env: &dyn Fn(&str) -> Option<String>,
    explicit: Option<&Path>,
) -> Vec<Candidate> {
    let asked = |path: &Path, origin| {
        // Taken without symbolic links, so that two names of one file are one library.
        let path = tree.link("/proc/self/cwd").unwrap_or_else(|| "/".into()).join(path);
        vec![Candidate { path: tree.resolve(&path).unwrap_or(path), origin, binding: true }]
    };
    if let Some(path) = explicit {
        return asked(path, "asked for");
    }
    if let Some(path) = env("ORT_DYLIB_PATH").filter(|p| !p.is_empty()) {
        return asked(Path::new(&path), "ORT_DYLIB_PATH");
    }
    let mut list: Vec<Candidate> =
        places(None, tree.link("/proc/self/exe").as_deref(), |path| tree.is_file(path))
            .into_iter()
            .map(|(path, origin)| Candidate { path, origin, binding: false })
            .collect();
    let system = [EM_AARCH64, EM_X86_64].into_iter().find_map(|m| loader.find(RUNTIME_LIBRARY, m));
    let path = system.unwrap_or_else(|| RUNTIME_LIBRARY.into());
    list.push(Candidate { path, origin: SYSTEM, binding: false });
    list
}

fn library(tree: &Tree, loader: &Loader<'_>, candidate: &Candidate, elf: &Elf) -> RuntimeLibrary {
    let closure = loader.closure(&candidate.path);
    let marks = tree.open(&candidate.path).map(Marks::scan).unwrap_or_default();
    let built_with =
        |symbol: &str| elf.exports.iter().any(|e| e.ends_with(&format!("ExecutionProvider_{symbol}")));
    let mut compiled_in = vec![Provider::Cpu];
    compiled_in.extend(built_with("CUDA").then_some(Provider::Cuda));
    compiled_in.extend(built_with("Tensorrt").then_some(Provider::TensorRt));
    // Looked for beside the path that was opened, even if that is a link and they lie beside the file it leads to.
    let beside = |provider, name: &str| {
        let mut found = provider_library(tree, loader, provider, &candidate.path.with_file_name(name));
        let real = tree.resolve(&candidate.path).map(|p| p.with_file_name(name));
        found.elsewhere =
            real.filter(|p| !found.present && tree.is_file(p)).map(|p| p.to_string_lossy().into_owned());
        found
    };
    let shared = (compiled_in.len() > 1).then(|| beside(None, "libonnxruntime_providers_shared.so"));
    let own = compiled_in[1..].iter();
    let own = own.map(|p| beside(Some(*p), &format!("libonnxruntime_providers_{p}.so")));
    let providers = shared.into_iter().chain(own).collect();
    RuntimeLibrary {
        path: candidate.path.to_string_lossy().into_owned(),
        origin: candidate.origin,
        version: version(tree, candidate, elf),
        build: marks.build,
        architecture: architecture(elf.machine),
        compiled_in,
        uploader: marks.uploader,
        missing: closure.missing,
        too_old: closure.too_old,
        providers,
    }
}

/// From the version of its symbols, or else from the name of the file.
fn version(tree: &Tree, candidate: &Candidate, elf: &Elf) -> Option<String> {
    let symbols = elf.defines.iter().find_map(|v| v.strip_prefix("VERS_")).map(str::to_owned);
    symbols.filter(|v| v.matches('.').count() >= 1).or_else(|| {
        let name = file_name(&tree.resolve(&candidate.path)?);
        name.split_once(".so.").map(|(_, v)| v.to_owned()).filter(|v| v.contains('.'))
    })
}

fn provider_library(
    tree: &Tree,
    loader: &Loader<'_>,
    provider: Option<Provider>,
    path: &Path,
) -> ProviderLibrary {
    let elf = loader.elf(path);
    let closure = loader.closure(path);
    let kernels = elf.as_ref().filter(|e| !e.fatbin.is_empty());
    let kernels = kernels.and_then(|e| fatbin::scan(&tree.open(path)?, &e.fatbin).ok());
    let cuda_major = elf.as_ref().and_then(|e| {
        let runtime = e.needed.iter().find_map(|n| n.strip_prefix("libcudart.so."))?;
        runtime.split('.').next()?.parse().ok()
    });
    ProviderLibrary {
        provider,
        path: path.to_string_lossy().into_owned(),
        present: elf.is_some(),
        elsewhere: None,
        missing: closure.missing,
        too_old: closure.too_old,
        cuda_major,
        kernels,
    }
}

/// The facts that only the library's text constants tell.
#[derive(Debug, Default)]
struct Marks {
    build: Option<String>,
    uploader: bool,
}

impl Marks {
    /// Reads the file piece by piece; a mark may lie across two pieces.
    fn scan(mut file: File) -> Marks {
        const BUILD: &[u8] = b"ORT Build Info: ";
        const COLLECTOR: &[u8] = b"events.data.microsoft.com";
        const PIECE: usize = 1 << 20;
        const OVERLAP: usize = 512;
        let mut marks = Marks::default();
        let mut buffer = vec![0; PIECE + OVERLAP];
        let mut kept = 0;
        while let Ok(read @ 1..) = file.read(&mut buffer[kept..]) {
            let filled = &buffer[..kept + read];
            marks.uploader |= find(filled, COLLECTOR).is_some();
            if marks.build.is_none() {
                marks.build = find(filled, BUILD).and_then(|at| {
                    let text = &filled[at + BUILD.len()..];
                    let end = text.iter().take(OVERLAP).position(|b| !(b' '..=b'~').contains(b))?;
                    Some(String::from_utf8_lossy(&text[..end]).into_owned())
                });
            }
            let end = filled.len();
            kept = end.min(OVERLAP);
            buffer.copy_within(end - kept..end, 0);
        }
        marks
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(i) = text[at..].iter().position(|b| *b == wanted[0]) {
        at += i;
        if text[at..].starts_with(wanted) {
            return Some(at);
        }
        at += 1;
    }
    None
}
