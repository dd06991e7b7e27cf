//! Whether TensorRT's engines may be used.

use super::{Rules, list};
use crate::doctor::Provider;
use crate::doctor::facts::engine_cache::FOREIGN_WRITE;
use crate::doctor::finding::{Code, Finding, Severity};

pub(super) fn judge(rules: &mut Rules<'_>) {
    let facts = rules.facts;
    let cache = &facts.engine_cache;
    let wanted = rules.wanted == Some(Provider::TensorRt);
    let built_with = facts.onnxruntime.provider(Provider::TensorRt).is_some();
    let Some(path) = cache.path.as_deref().filter(|_| wanted || built_with || cache.exists) else { return };
    if !cache.exists {
        let severity = if wanted { Severity::Error } else { Severity::Info };
        let message = format!("{path} does not exist: no engine is built yet, and a run builds none");
        let finding = Finding::new(Code::EngineCacheMissing, severity, message);
        return rules.add(finding.remedy("pi0-edge engines build BUNDLE"));
    }
    let (owner, mode) = (cache.owner.unwrap_or_default(), cache.mode.unwrap_or_default());
    let mut faults = Vec::new();
    if facts.realtime.uid.is_some_and(|uid| uid != owner) {
        faults.push((
            format!("{path} belongs to user {owner}, who may put code into it that would run as yours"),
            format!("sudo chown -R \"$USER\" {path}"),
        ));
    }
    if mode & FOREIGN_WRITE != 0 {
        faults.push((
            format!("{path} has mode {mode:04o}: others may write to it"),
            format!("chmod 700 {path}"),
        ));
    }
    if !cache.unsafe_files.is_empty() {
        faults.push((
            format!("others own or may write {} in {path}", list(&cache.unsafe_files)),
            format!("rm {path}/* && pi0-edge engines build BUNDLE"),
        ));
    }
    if faults.is_empty() {
        let files = if cache.files == 1 { "1 file".into() } else { format!("{} files", cache.files) };
        return rules.ok(Code::EngineCache, format!("{path}: mode {mode:04o}, {files}"));
    }
    let severity = if wanted { Severity::Error } else { Severity::Warning };
    for (message, remedy) in faults {
        rules.add(Finding::new(Code::EngineCacheUnsafe, severity, message).remedy(remedy));
    }
}
