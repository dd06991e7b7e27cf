//! A bundle: one directory with everything a policy needs, checked before any of it is used.
//!
//! [`Bundle::open`] reads `manifest.json`, verifies that the files are the ones it describes, and walks the graphs for
//! anything a bundle may not hold. What passes is the bundle that was named and well-formed. That does not make a
//! hostile bundle's *behaviour* safe: a bundle is trusted like code.

mod features;
pub(crate) mod files;
mod flow;
pub(crate) mod graphs;
pub(crate) mod integrity;
pub(crate) mod manifest;
mod node_rules;
pub(crate) mod prescan;
mod quantization;
mod tensor_rules;
pub(crate) mod token_table;
mod validate;
pub(crate) mod verified;
pub(crate) mod versioned;
pub(crate) mod wire;
mod working_bytes;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use features::{ActionFeature, ImageRule, Normalization, PadSide, Resize, StateFeature};
use files::Held;
pub(crate) use files::open_regular;
pub use flow::{Flow, FlowConvention, FlowTimes, InvFreq, Rope};
pub use graphs::{Dim, GraphName, GraphSpec, Graphs, TensorSpec};
pub(crate) use graphs::{PREFIX_BIAS, VALID_ROWS};
pub use integrity::Verify;
pub use manifest::{
    Camera, Conventions, Dimensions, Dtype, FileEntry, Manifest, PolicyKind, Precision, PromptFormat,
    PromptRule, Source, Target, TokenEmbedding,
};
pub use quantization::{CalibrationRecord, KeptProduct, Quantization};

use integrity::{Hashing, verify};
use prescan::{Rules, prescan};

use crate::error::{ErrorKind, Result};

/// A directory whose manifest, files and graphs were found to be in order.
#[derive(Debug, Clone)]
pub struct Bundle {
    root: PathBuf,
    manifest: Manifest,
    /// The files that are read when all is verified: graphs, their weights, the token table.
    held: Arc<[Held]>,
}

impl Bundle {
    /// Opens the bundle in the directory `root`: manifest, files, graphs, in this order.
    ///
    /// `progress` is called, on this thread, with bytes verified and bytes in all; not at all where none are.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Manifest`] for a manifest that is missing, of another version or contradicts itself;
    /// [`ErrorKind::Integrity`] for files or graphs that are not as the manifest says; [`ErrorKind::Io`] if reading
    /// fails. All name the bundle and the file.
    pub fn open(root: impl Into<PathBuf>, level: Verify, progress: &mut dyn FnMut(u64, u64)) -> Result<Self> {
        let (bundle, hashing) = Self::begin(root, level)?;
        bundle.end(hashing, progress)?;
        Ok(bundle)
    }

    /// As [`open`](Self::open), but for the bytes of weights and token table, which are still being verified:
    /// [`end`](Self::end) has to be called before anything computed from them is used.
    pub(crate) fn begin(root: impl Into<PathBuf>, level: Verify) -> Result<(Self, Hashing)> {
        let root = root.into();
        let manifest = Manifest::read(&root.join("manifest.json"))?;
        let mut bundle = Bundle { root, manifest, held: Arc::new([]) };
        let begun = bundle.check(level);
        let hashing = begun.map_err(|e| e.context(format_args!("bundle {}", bundle.root.display())))?;
        Ok((bundle, hashing))
    }

    /// Waits until all is verified, calling `progress` as [`open`](Self::open) does.
    pub(crate) fn end(&self, hashing: Hashing, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        let ended = hashing.finish(progress).map(drop);
        ended.map_err(|e| e.context(format_args!("bundle {}", self.root.display())))
    }

    fn check(&mut self, level: Verify) -> Result<Hashing> {
        let m = &self.manifest;
        let graphs = GraphName::ALL.iter().flat_map(|&name| {
            let spec = m.graph(name);
            [spec.file.clone(), spec.data_file()]
        });
        let files = graphs.chain([m.token_embedding.file.clone()]).filter(|name| m.files.contains_key(name));
        // Opened before they are verified, so that a change since then is seen.
        self.held = files.map(|name| Held::open(&self.root, &name)).collect::<Result<_>>()?;
        let hashing = verify(&self.root, m, level)?;
        self.prescan()?;
        Ok(hashing)
    }

    /// Fails if a graph, its weights or the token table was written to or cut off since the bundle was opened. Deleting
    /// or renaming them, or putting others in their place, is no such change. A system call for each; allocates nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Integrity`], naming the file; [`ErrorKind::Io`] if it cannot be told.
    pub fn check_unchanged(&self) -> Result<()> {
        self.held.iter().try_for_each(Held::check)
    }

    /// As [`check_unchanged`](Self::check_unchanged), and the files that were opened still have their names: what was
    /// opened by name meanwhile is what was verified.
    pub(crate) fn check_in_place(&self) -> Result<()> {
        self.check_unchanged()?;
        self.held.iter().try_for_each(|held| held.check_place(&self.root))
    }

    /// Returns the bundle's contract.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The bundle's directory, as it was given to [`open`](Self::open).
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of a file, given as the manifest names it.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Opens a file that the manifest lists, following no links.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Integrity`] if the manifest does not list it, or it is missing or not a regular file;
    /// [`ErrorKind::Io`] if it cannot be opened.
    pub fn open_file(&self, relative: &str) -> Result<File> {
        self.entry(relative)?;
        files::open_inside(&self.root, relative, ErrorKind::Integrity)
    }

    fn entry(&self, relative: &str) -> Result<&FileEntry> {
        let entry = self.manifest.files.get(relative);
        entry.ok_or_else(|| err!(Integrity, "{relative:?} is not in the manifest's files"))
    }

    /// Reads a file that the manifest lists, which must have the listed size and at most `max` bytes.
    ///
    /// # Errors
    ///
    /// As [`open_file`](Self::open_file), and [`ErrorKind::Integrity`] for another size or one beyond `max`.
    pub fn read_file(&self, relative: &str, max: u64) -> Result<Vec<u8>> {
        let size = self.entry(relative)?.size;
        ensure!(size <= max, Integrity, "{relative} has {size} bytes, at most {max} are allowed");
        let bytes = files::read_inside(&self.root, relative, max, ErrorKind::Integrity)?;
        ensure!(
            bytes.len() as u64 == size,
            Integrity,
            "{relative} no longer has the {size} bytes that the manifest says"
        );
        Ok(bytes)
    }

    fn prescan(&self) -> Result<()> {
        for name in GraphName::ALL {
            let spec = self.manifest.graph(name);
            let rules = Rules {
                spec,
                opset: self.manifest.opset,
                target: self.manifest.target,
                data_size: self.manifest.files.get(&spec.data_file()).map(|entry| entry.size),
            };
            prescan(&self.read_file(&spec.file, prescan::MAX_GRAPH_BYTES)?, &rules)?;
        }
        Ok(())
    }
}
