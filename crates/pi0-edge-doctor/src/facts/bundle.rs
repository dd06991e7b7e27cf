//! The needs of a bundle, as its manifest tells them. `check` says whether the bundle is intact.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use pi0_edge::Provider;
use pi0_edge::internals::hex;

use crate::needs::MemoryNeeds;

/// More than any manifest has.
const MAX_MANIFEST: u64 = 4 << 20;

/// A bundle, as far as its manifest and its file sizes tell.
///
/// Read leniently, unlike everywhere else: the doctor has to have an opinion on a bundle that will not load.
#[derive(Debug, Clone, Default, Serialize)]
pub struct BundleFacts {
    /// The bundle's directory.
    pub path: String,
    /// The reason why the manifest could not be read, if so.
    pub problem: Option<String>,
    /// SHA-256 of the manifest, by which engines know their bundle.
    pub manifest_sha256: Option<String>,
    /// Version of the manifest's layout.
    pub format_version: Option<u64>,
    /// `pi0` or `pi05`.
    pub policy: Option<String>,
    /// `fp32`, `fp16` or `bf16`.
    pub precision: Option<String>,
    /// The provider the graphs were made for.
    pub target: Option<Provider>,
    /// The default operator set of the graphs.
    pub opset: Option<u64>,
    /// True if it has golden data: outputs of the reference policy to compare with.
    pub golden: bool,
    /// Bytes of all files, as the manifest records them.
    pub size: u64,
    /// The memory it takes.
    pub memory: MemoryNeeds,
    /// Files that are absent or of another size than recorded.
    pub incomplete: Vec<String>,
}

impl BundleFacts {
    /// Reads the manifest in `directory` and looks at the files it names.
    pub fn read(directory: &Path) -> BundleFacts {
        let path = directory.to_string_lossy().into_owned();
        let (manifest, sha256) = match read_manifest(directory) {
            Ok(read) => read,
            Err(problem) => return BundleFacts { path, problem: Some(problem), ..BundleFacts::default() },
        };
        let text = |key: &str| manifest[key].as_str().map(str::to_owned);
        let mut facts = BundleFacts {
            path,
            manifest_sha256: Some(sha256),
            format_version: manifest["format_version"].as_u64(),
            policy: text("policy"),
            precision: text("precision"),
            target: text("target").and_then(|t| t.parse().ok()),
            opset: manifest["opset"].as_u64(),
            golden: manifest["golden"].is_string(),
            memory: MemoryNeeds::of(&manifest),
            ..BundleFacts::default()
        };
        for (name, entry) in manifest["files"].as_object().into_iter().flatten() {
            let size = entry["size"].as_u64().unwrap_or(0);
            facts.size = facts.size.saturating_add(size);
            let found = std::fs::symlink_metadata(directory.join(name));
            if !found.is_ok_and(|m| m.is_file() && m.len() == size) {
                facts.incomplete.push(name.clone());
            }
        }
        facts
    }
}

/// The manifest and its SHA-256.
fn read_manifest(directory: &Path) -> Result<(Value, String), String> {
    let read = || {
        let mut text = String::new();
        File::open(directory.join("manifest.json"))?.take(MAX_MANIFEST).read_to_string(&mut text)?;
        Ok((serde_json::from_str(&text)?, hex(&Sha256::digest(&text))))
    };
    read().map_err(|e: std::io::Error| format!("manifest.json: {e}"))
}
