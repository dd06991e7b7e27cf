//! What a bundle asks of the machine. Whether the bundle is intact is `check`'s to say.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use pi0_edge::Provider;
use pi0_edge::internals::hex;

/// More than any manifest has.
const MAX_MANIFEST: u64 = 4 << 20;

/// A bundle, as far as its manifest and its file sizes tell.
///
/// Read leniently, unlike everywhere else: the doctor has to have an opinion on a bundle that will not load.
#[derive(Debug, Clone, Default, Serialize)]
pub struct BundleFacts {
    /// The bundle's directory.
    pub path: String,
    /// Why the manifest could not be read, if it could not.
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
    /// Bytes of all files, as the manifest records them.
    pub size: u64,
    /// Files that are absent or of another size than recorded.
    pub incomplete: Vec<String>,
}

impl BundleFacts {
    /// Reads the manifest in `directory` and looks at the files it names.
    pub fn read(directory: &Path) -> BundleFacts {
        let mut facts =
            BundleFacts { path: directory.to_string_lossy().into_owned(), ..BundleFacts::default() };
        let manifest = match read_manifest(directory) {
            Ok((manifest, sha256)) => {
                facts.manifest_sha256 = Some(sha256);
                manifest
            }
            Err(problem) => {
                facts.problem = Some(problem);
                return facts;
            }
        };
        let text = |key: &str| manifest[key].as_str().map(str::to_owned);
        facts.format_version = manifest["format_version"].as_u64();
        facts.policy = text("policy");
        facts.precision = text("precision");
        facts.target = text("target").and_then(|t| t.parse().ok());
        facts.opset = manifest["opset"].as_u64();
        for (name, entry) in manifest["files"].as_object().into_iter().flatten() {
            let size = entry["size"].as_u64().unwrap_or(0);
            facts.size = facts.size.saturating_add(size);
            let there =
                std::fs::symlink_metadata(directory.join(name)).is_ok_and(|m| m.is_file() && m.len() == size);
            if !there {
                facts.incomplete.push(name.clone());
            }
        }
        facts
    }
}

/// The manifest and its SHA-256.
fn read_manifest(directory: &Path) -> Result<(Value, String), String> {
    let mut text = String::new();
    let file = File::open(directory.join("manifest.json")).map_err(|e| format!("manifest.json: {e}"))?;
    let read = file.take(MAX_MANIFEST).read_to_string(&mut text);
    read.map_err(|e| format!("manifest.json: {e}"))?;
    let manifest = serde_json::from_str(&text).map_err(|e| format!("manifest.json: {e}"))?;
    Ok((manifest, hex(&Sha256::digest(&text))))
}
