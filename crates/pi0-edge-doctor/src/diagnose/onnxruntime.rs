//! Rules on ONNX Runtime's library: that it is there, fits, and sends nothing.

use super::{Rules, list, remedy};
use crate::finding::{Code, Severity};
use crate::loader::{file_name, numbers};
use crate::{Provider, RuntimeLibrary, TooOld};
use pi0_edge::internals::{OLDEST_RUNTIME as OLDEST, SAFE_REPLAYS, TELLS_PLACEMENT};

pub(super) fn judge(rules: &mut Rules<'_>) {
    let facts = rules.facts;
    let Some(library) = &facts.onnxruntime.library else {
        return not_found(rules);
    };
    let version = library.version.as_deref();
    let found = format!("ONNX Runtime {} at {}", version.unwrap_or("of unknown version"), library.path);
    let machine = facts.system.architecture.as_deref().filter(|machine| *machine != library.architecture);
    match (machine, version) {
        (Some(machine), _) => rules.error(
            Code::OrtWrongArchitecture,
            format!("{found} is built for {}, this machine is {machine}", library.architecture),
            "PI0_EDGE_ARCH=$(uname -m) scripts/fetch_onnxruntime.sh",
        ),
        _ if library.is_too_old() => rules.error(
            Code::OrtTooOld,
            format!("{found} is older than {}.{}", OLDEST[0], OLDEST[1]),
            "scripts/fetch_onnxruntime.sh, or name a newer one by --ort-library",
        ),
        (_, None) => rules.warn(
            Code::OrtVersionUnknown,
            format!("the version of {} cannot be told from the file", library.path),
            "RUST_LOG=debug pi0-edge check BUNDLE   # says the version it loads",
        ),
        _ => {
            let names: Vec<String> = library.compiled_in.iter().map(ToString::to_string).collect();
            let build = library.build.as_deref().map(|b| format!(" ({b})")).unwrap_or_default();
            let built = format!("{found} ({}), built with {}{build}", library.origin, list(&names));
            rules.ok(Code::OrtLibrary, built);
        }
    }
    lacks(rules, library);
    dependencies(rules, library);
    telemetry(rules, library);
}

/// Tells what an ONNX Runtime that will do lacks for a GPU.
fn lacks(rules: &mut Rules<'_>, library: &RuntimeLibrary) {
    let Some(version) = library.version.as_deref().filter(|_| library.compiled_in.len() > 1) else { return };
    let older = |than: &[u64]| !library.is_too_old() && numbers(version).as_slice() < than;
    let name = |version: &[u64]| version.iter().map(u64::to_string).collect::<Vec<_>>().join(".");
    if older(&TELLS_PLACEMENT) {
        let message = format!(
            "ONNX Runtime {version} does not tell which provider runs which node, as {} does: a graph that the GPU's does \
             not take whole is refused all the same, but its nodes are not named",
            name(&TELLS_PLACEMENT)
        );
        rules.note(Code::OrtLacks, message);
    }
    if older(&SAFE_REPLAYS) && library.compiled_in.contains(&Provider::Cuda) {
        let message = format!(
            "with ONNX Runtime {version} CUDA graphs stay off: before {} a replay reads host memory that may hold \
             something else by then. Each kernel is launched by itself, which takes longer",
            name(&SAFE_REPLAYS)
        );
        let severity = rules.need(Provider::Cuda).max(Severity::Warning);
        let remedy =
            if rules.facts.gpu().is_some() { remedy::runtime_for(rules.facts) } else { String::new() };
        rules.find(Code::OrtLacks, severity, message, remedy);
    }
}

fn not_found(rules: &mut Rules<'_>) {
    let tried = &rules.facts.onnxruntime.tried;
    let unreadable = tried.iter().find(|t| t.outcome != "missing");
    let places: Vec<String> =
        tried.iter().map(|t| format!("{} ({}: {})", t.path, t.origin, t.outcome)).collect();
    let (code, message) = match unreadable {
        Some(t) => (Code::OrtUnreadable, format!("{} ({}) is no 64-bit shared library", t.path, t.origin)),
        None => (Code::OrtNotFound, format!("no ONNX Runtime; looked at {}", list(&places))),
    };
    let asked = |origin: &str| tried.iter().any(|t| t.origin == origin);
    let remedy = if asked("asked for") {
        "name a libonnxruntime.so that exists by --ort-library, or leave it out".to_owned()
    } else if asked("ORT_DYLIB_PATH") {
        "unset ORT_DYLIB_PATH, or set it to a libonnxruntime.so".to_owned()
    } else if rules.facts.gpu().is_some() {
        remedy::runtime_for(rules.facts)
    } else {
        "scripts/fetch_onnxruntime.sh".to_owned()
    };
    rules.find(code, Severity::Error, message, remedy);
}

fn dependencies(rules: &mut Rules<'_>, library: &RuntimeLibrary) {
    for missing in &library.missing {
        let remedy = remedy::install(missing, None, rules.facts);
        let message = format!("{} needs {}, which is not found", missing.needed_by, missing.library);
        rules.error(Code::LibraryMissing, message, remedy);
    }
    for old in &library.too_old {
        too_old(rules, old, Severity::Error);
    }
}

/// A library that lacks a symbol version another was built against.
pub(super) fn too_old(rules: &mut Rules<'_>, old: &TooOld, severity: Severity) {
    let system = &rules.facts.system;
    let here = rules.facts.software.glibc.as_deref().filter(|_| old.version.starts_with("GLIBC_"));
    let here = here.map(|v| format!(" (this system has glibc {v})")).unwrap_or_default();
    let message = format!("{} needs {} of {}, which is older{here}", old.needed_by, old.version, old.library);
    let distribution = system.distribution.as_deref().unwrap_or("this distribution");
    let remedy = format!("use a {} built for {distribution} or older", file_name(old.needed_by.as_ref()));
    rules.find(Code::LibraryTooOld, severity, message, remedy);
}

fn telemetry(rules: &mut Rules<'_>, library: &RuntimeLibrary) {
    let variable = rules.facts.onnxruntime.telemetry_variable.as_deref();
    let off = |v: &str| matches!(v.trim().to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on" | "y");
    match (library.uploader, variable) {
        (false, _) => rules.ok(Code::Telemetry, "this ONNX Runtime contains no uploader of usage data"),
        (true, None) => rules.ok(
            Code::Telemetry,
            "this ONNX Runtime contains an uploader of usage data; pi0-edge switches it off before loading it",
        ),
        (true, Some(v)) if off(v) => {
            rules.ok(Code::Telemetry, format!("usage data is off: ORT_DISABLE_TELEMETRY={v}"));
        }
        (true, Some(v)) => rules.warn(Code::Telemetry, format!("ONNX Runtime would send usage data: ORT_DISABLE_TELEMETRY={v:?} switches nothing off"), "export ORT_DISABLE_TELEMETRY=1"),
    }
}
