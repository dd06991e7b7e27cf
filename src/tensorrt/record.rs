//! `engines.json`: what one set of engines is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::pins::Pins;
use crate::bundle::{FileEntry, Precision, versioned};
use crate::error::{ErrorKind, Result};

/// The record's name in its set's directory.
pub const RECORD_FILE: &str = "engines.json";
/// The layout of the record that this version reads and writes.
pub const RECORD_VERSION: u64 = 1;
/// More than any record has.
pub(super) const MAX_RECORD: u64 = 1 << 20;

/// A set of engines: what it is for, how it was made, and the hash of each file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Version of this layout, 1.
    pub format_version: u64,
    /// The things the engines were built with and for.
    pub pins: Pins,
    /// The bundle's directory at that time. For people.
    pub bundle_path: String,
    /// The settings they were built with.
    pub options: BuilderConfig,
    /// The version of pi0-edge that built them.
    pub builder: String,
    /// When, in seconds since 1970.
    pub built_at: u64,
    /// The time it took, in seconds.
    pub seconds: f64,
    /// The context model of each graph, by the graph's name.
    pub graphs: BTreeMap<String, String>,
    /// Every file of the set but the record.
    pub files: BTreeMap<String, FileEntry>,
}

/// Settings of TensorRT's builder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuilderConfig {
    /// The precision of the bundle, which types the engines. A build sets it, whatever it was.
    pub precision: Precision,
    /// Most bytes of GPU memory a layer may use while it computes; `None` leaves it to TensorRT.
    pub workspace: Option<u64>,
    /// The effort with which the builder looks for the fastest kernels, 0 to 5.
    pub optimization_level: u8,
    /// Streams the engine may use beside the one it is run on; `None` leaves it to TensorRT.
    pub auxiliary_streams: Option<u8>,
}

impl Default for BuilderConfig {
    fn default() -> Self {
        // Level 3 is TensorRT's own default.
        BuilderConfig {
            precision: Precision::Fp32,
            workspace: None,
            optimization_level: 3,
            auxiliary_streams: None,
        }
    }
}

impl Record {
    /// Parses a record and checks that it holds plain names only, and that each graph's context model is among its
    /// files.
    ///
    /// # Errors
    /// [`ErrorKind::Engine`] with what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let remedy = "build the engines again";
        let record: Record = versioned::parse(bytes, RECORD_FILE, ErrorKind::Engine, RECORD_VERSION, remedy)?;
        record.check().map_err(|what| err!(Engine, "{RECORD_FILE}: {what}"))?;
        Ok(record)
    }

    fn check(&self) -> Result<(), String> {
        for name in self.files.keys() {
            let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-+".contains(c));
            if !plain || name.starts_with('.') || name == RECORD_FILE {
                return Err(format!("{name:?} is no name of an engine's file"));
            }
        }
        match self.graphs.iter().find(|(_, file)| !self.files.contains_key(*file)) {
            Some((graph, file)) => Err(format!("{graph} is in {file:?}, which is not among the files")),
            None => Ok(()),
        }
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.values().map(|f| f.size).sum()
    }
}
