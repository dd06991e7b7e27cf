//! The directory of TensorRT engines. An engine is code: whoever may write there may run code in this process.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::doctor::tree::Tree;

/// The directory of TensorRT engines.
#[derive(Debug, Clone, Default, Serialize)]
pub struct EngineCache {
    /// Where it is or would be; `None` without a home directory.
    pub path: Option<String>,
    /// Whether it exists.
    pub exists: bool,
    /// The user it belongs to.
    pub owner: Option<u32>,
    /// Its permission bits.
    pub mode: Option<u32>,
    /// Files in it.
    pub files: usize,
    /// Files in it that belong to another user than the directory, or that group or others may write.
    pub unsafe_files: Vec<String>,
}

/// Bits that let group or others write.
pub(in crate::doctor) const FOREIGN_WRITE: u32 = 0o022;

impl EngineCache {
    pub(in crate::doctor) fn read(
        tree: &Tree,
        env: &dyn Fn(&str) -> Option<String>,
        explicit: Option<&Path>,
    ) -> EngineCache {
        let Some(path) = explicit.map(Path::to_path_buf).or_else(|| default_path(env)) else {
            return EngineCache::default();
        };
        let mut cache =
            EngineCache { path: Some(path.to_string_lossy().into_owned()), ..EngineCache::default() };
        let Some(directory) = tree.metadata(&path).filter(|m| m.is_dir()) else { return cache };
        cache.exists = true;
        cache.owner = Some(directory.uid());
        cache.mode = Some(directory.mode() & 0o7777);
        for name in tree.list(&path.to_string_lossy()) {
            let Some(file) = tree.metadata(&path.join(&name)).filter(|m| m.is_file()) else { continue };
            cache.files += 1;
            if file.uid() != directory.uid() || file.mode() & FOREIGN_WRITE != 0 {
                cache.unsafe_files.push(name);
            }
        }
        cache
    }
}

fn default_path(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let set = |name| env(name).filter(|v| v.starts_with('/')).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(cache.join("pi0-edge").join("engines"))
}
