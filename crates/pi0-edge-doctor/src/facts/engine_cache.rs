//! The directory of TensorRT engines, judged by the rules that a run has.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

use crate::tree::Tree;
use pi0_edge::internals::{
    CacheEntry, EngineCache as Cache, Fault, default_path, fault_above, faults_of_directory, parse_uid,
};
use pi0_edge::tensorrt::Pins;

/// The directory of TensorRT engines.
#[derive(Debug, Clone, Default, Serialize)]
pub struct EngineCache {
    /// Its path, whether or not it exists; `None` without a home directory.
    pub path: Option<String>,
    /// True if it exists.
    pub exists: bool,
    /// Its permission bits.
    pub mode: Option<u32>,
    /// The faults for which nothing in it would be used.
    pub faults: Vec<Untrusted>,
    /// The sets of engines in it.
    pub sets: Vec<EngineSet>,
}

/// A reason not to trust the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Untrusted {
    /// The fault in words.
    pub problem: String,
    /// The command that mends it.
    pub remedy: String,
}

/// A set of engines.
#[derive(Debug, Clone, Serialize)]
pub struct EngineSet {
    /// The name of its directory.
    pub key: String,
    /// The reason why no run would use it, as far as sizes and owners tell; its bytes are for `engines verify`.
    pub problem: Option<String>,
    /// The versions and the GPU it was built for, if it can be used.
    pub pins: Option<Pins>,
    /// The number formats it was built in.
    pub precision: Option<String>,
    /// Its size in bytes.
    pub size: u64,
}

impl EngineCache {
    pub(crate) fn read(
        tree: &Tree,
        env: &dyn Fn(&str) -> Option<String>,
        explicit: Option<&Path>,
    ) -> EngineCache {
        let Some(path) = explicit.map(Path::to_path_buf).or_else(|| default_path(env)) else {
            return EngineCache::default();
        };
        let named = Some(path.to_string_lossy().into_owned());
        let Some((real, found)) = tree.real(&path).zip(tree.metadata(&path)) else {
            return EngineCache { path: named, ..EngineCache::default() };
        };
        // Without a running system there is no user to compare with.
        let uid = tree.text("/proc/self/status").and_then(|s| parse_uid(&s)).unwrap_or(found.uid());
        let untrusted = |f: Fault| Untrusted { problem: f.describe(&path), remedy: f.remedy(&path) };
        let entries = Cache::unchecked(real, uid).entries().unwrap_or_default();
        let set = |entry: CacheEntry| {
            let problem = entry.record.as_ref().err().map(ToString::to_string);
            let record = entry.record.ok();
            EngineSet {
                key: entry.key,
                problem,
                precision: record.as_ref().map(|r| r.options.precision.to_string()),
                size: record.as_ref().map_or(0, |r| r.size()),
                pins: record.map(|r| r.pins),
            }
        };
        EngineCache {
            path: named,
            exists: true,
            mode: Some(found.mode() & 0o7777),
            faults: faults(tree, &path, &found, uid).into_iter().map(untrusted).collect(),
            sets: entries.into_iter().map(set).collect(),
        }
    }
}

fn faults(tree: &Tree, path: &Path, found: &Metadata, uid: u32) -> Vec<Fault> {
    let link = tree.link(&path.to_string_lossy()).map(|_| Fault::Link);
    let above = tree.resolve(path).and_then(|p| fault_above(&p, uid, &|above| tree.metadata(above)));
    link.into_iter().chain(faults_of_directory(found, uid)).chain(above).collect()
}
