//! Rules on TensorRT's engines: that they may be used, and that the right ones are there.

use super::{Rules, size};
use crate::Provider;
use crate::facts::engine_cache::EngineSet;
use crate::finding::{Code, Severity};
use crate::loader::numbers;

const BUILD: &str = "pi0-edge engines build BUNDLE";

pub(super) fn judge(rules: &mut Rules<'_>) {
    let cache = &rules.facts.engine_cache;
    let wanted = rules.wanted == Some(Provider::TensorRt);
    let built_with = rules.facts.onnxruntime.provider(Provider::TensorRt).is_some();
    let Some(path) = cache.path.as_deref().filter(|_| wanted || built_with || cache.exists) else { return };
    if !cache.exists {
        let severity = if wanted { Severity::Error } else { Severity::Info };
        let message = format!("{path} does not exist: no engine is built yet, and a run builds none");
        return rules.find(Code::EngineCacheMissing, severity, message, BUILD);
    }
    let severity = if wanted { Severity::Error } else { Severity::Warning };
    for fault in &cache.faults {
        let message = format!("{}; no engine in it is used", fault.problem);
        rules.find(Code::EngineCacheUnsafe, severity, message, fault.remedy.clone());
    }
    for set in &cache.sets {
        if let Some(problem) = &set.problem {
            rules.warn(Code::EngineUnusable, problem.clone(), format!("pi0-edge engines clean && {BUILD}"));
        }
    }
    let bytes = cache.sets.iter().map(|s| s.size).sum();
    let state = match cache.sets.len() {
        0 => "empty".to_owned(),
        1 => format!("1 set of engines, {}", size(bytes)),
        n => format!("{n} sets of engines, {}", size(bytes)),
    };
    if cache.faults.is_empty() {
        rules.ok(Code::EngineCache, format!("{path}: mode {:04o}, {state}", cache.mode.unwrap_or_default()));
    }
    of_the_bundle(rules, wanted);
}

/// Looks for engines for the bundle that was named, made for what is here.
fn of_the_bundle(rules: &mut Rules<'_>, wanted: bool) {
    let Some(bundle) = rules.bundle.filter(|b| b.problem.is_none()) else { return };
    let usable = rules
        .facts
        .engine_cache
        .sets
        .iter()
        .filter(|s| s.pins.as_ref().is_some_and(|p| Some(&p.bundle) == bundle.manifest_sha256.as_ref()));
    let mut sets: Vec<(&EngineSet, Vec<String>)> = usable.map(|s| (s, differences(rules, s))).collect();
    sets.sort_by_key(|(_, differences)| differences.len());
    match sets.first() {
        None if !wanted => {}
        None => {
            let message = format!("none for {}: a run with tensorrt fails, and builds none", bundle.path);
            let build = BUILD.replace("BUNDLE", &bundle.path);
            rules.error(Code::EnginesMissing, message, build);
        }
        Some((set, differences)) if differences.is_empty() => {
            let precision = set.precision.as_deref().unwrap_or("?");
            let message = format!("there are engines for {} in {precision}, {}", bundle.path, size(set.size));
            rules.ok(Code::Engines, message);
        }
        Some((_, differences)) => {
            let message = format!("those for {} were built for {}", bundle.path, differences.join("; for "));
            let severity = if wanted { Severity::Error } else { Severity::Info };
            let build = BUILD.replace("BUNDLE", &bundle.path);
            rules.find(Code::EnginesForeign, severity, message, build);
        }
    }
}

/// Lists what a set was built for and is not here, as far as files tell. What they do not tell is not held against it.
fn differences(rules: &Rules<'_>, set: &EngineSet) -> Vec<String> {
    let Some(pins) = &set.pins else { return Vec::new() };
    let facts = rules.facts;
    let mut found = Vec::new();
    // Files may tell less of a version than the library itself: `10` for `10.3.0`.
    let same = |built: &str, here: &str| {
        let (built, here) = (numbers(built), numbers(here));
        built.iter().zip(&here).take(3).all(|(b, h)| b == h)
    };
    if let Some(here) = facts.software.tensorrt.as_ref().filter(|t| t.library.is_some())
        && !same(&pins.tensorrt, &here.version)
    {
        found.push(format!("TensorRT {}, here it is {}", pins.tensorrt, here.version));
    }
    let runtime = facts.onnxruntime.library.as_ref().and_then(|l| l.version.as_deref());
    if let Some(here) = runtime.filter(|here| !same(&pins.onnxruntime, here)) {
        found.push(format!("ONNX Runtime {}, here it is {here}", pins.onnxruntime));
    }
    let architecture = facts.gpu().and_then(|g| g.architecture);
    if let Some(here) = architecture.filter(|here| *here != pins.gpu.compute_capability) {
        found.push(format!("the GPU {}, here it is sm_{here}", pins.gpu));
    }
    found
}
