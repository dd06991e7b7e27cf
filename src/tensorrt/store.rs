//! The directory of engines: opening it, finding a set, verifying and removing sets.

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind::NotFound;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::build::{CacheLock, TIMING, is_leftover, remove};
use super::context::check_context_model;
use super::directory::{Fault, effective_uid, fault_above, faults_of_directory, faults_of_file, modes};
use super::pins::{Pins, short};
use super::record::{MAX_RECORD, RECORD_FILE, Record};
use crate::bundle::integrity::Hashing;
use crate::bundle::verified::Verified;
use crate::bundle::{FileEntry, Verify, open_regular};
use crate::error::{Error, ErrorKind, Result, ResultExt};

/// The command that builds engines that are missing.
const BUILD: &str = "pi0-edge engines build BUNDLE";

/// A directory of engines that passed the rules of ownership.
#[derive(Debug)]
pub struct EngineCache {
    path: PathBuf,
    uid: u32,
}

/// One set of engines as it was found.
#[derive(Debug)]
pub struct CacheEntry {
    /// The name of its directory.
    pub key: String,
    /// Its record; an error if the set cannot be used by anybody.
    pub record: Result<Record>,
}

/// The result of removing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// Names that were, or would be, removed, each with the reason.
    pub removed: Vec<(String, String)>,
    /// Bytes they took.
    pub bytes: u64,
}

/// The faults as one error, with what to do about the first.
fn refuse(path: &Path, faults: &[Fault]) -> Result<()> {
    let Some(first) = faults.first() else { return Ok(()) };
    let all: Vec<String> = faults.iter().map(|f| f.describe(path)).collect();
    let (all, remedy) = (all.join("; "), first.remedy(path));
    Err(err!(Engine, "{all}; an engine is code and is not loaded from there. To fix it: {remedy}"))
}

impl EngineCache {
    /// Opens the directory of engines at `path`, which must exist.
    ///
    /// # Errors
    /// [`ErrorKind::Engine`] if it is missing, a link, somebody else's, writable by others, or in a directory where
    /// others could put their own in its place.
    pub fn open(path: &Path) -> Result<Self> {
        let uid = user()?;
        let shown = path.display();
        let found = fs::symlink_metadata(path).map_err(|e| match e.kind() {
            NotFound => err!(Engine, "no engines in {shown}: it does not exist. To build them: {BUILD}"),
            _ => Error::with_source(ErrorKind::Io, format!("cannot inspect {shown}"), e),
        })?;
        refuse(path, &faults_of_directory(&found, uid))?;
        // Without links from here on, so that what was looked at is what is used.
        let path =
            path.canonicalize().or_kind(ErrorKind::Io, || format!("cannot resolve {}", path.display()))?;
        refuse(&path, fault_above(&path, uid, &|above| fs::symlink_metadata(above).ok()).as_slice())?;
        Ok(EngineCache { path, uid })
    }

    /// The directory at `path` as `uid` would find it, whatever is wrong with it: to look, not to use.
    #[doc(hidden)]
    pub fn unchecked(path: PathBuf, uid: u32) -> Self {
        EngineCache { path, uid }
    }

    /// As [`open`](Self::open), making the directory if it does not exist.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`ErrorKind::Io`] if it cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(modes(user()?).0)
            .create(path)
            .or_kind(ErrorKind::Io, || format!("cannot make the directory {}", path.display()))?;
        Self::open(path)
    }

    /// The user whose engines these are.
    pub(super) fn uid(&self) -> u32 {
        self.uid
    }

    /// Returns the directory's path, without links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every set in the directory.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if the directory cannot be listed; what is wrong with a set is in its entry.
    pub fn entries(&self) -> Result<Vec<CacheEntry>> {
        let keys = names_in(&self.path)?.into_iter().filter(|name| is_key(name));
        Ok(keys.map(|key| CacheEntry { record: self.record(&key), key }).collect())
    }

    /// The directory of a set.
    pub fn directory(&self, key: &str) -> PathBuf {
        self.path.join(key)
    }

    /// Finds the set that was built for exactly these pins. Reads the record and looks at the files' sizes and
    /// owners, which takes milliseconds; [`verify`](Self::verify) reads their bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Engine`] if there is none, naming what differs in the one that comes nearest, or if it is
    /// damaged or not the user's own.
    pub fn find(&self, pins: &Pins) -> Result<CacheEntry> {
        let key = pins.key();
        if names_in(&self.path)?.contains(&key) {
            return Ok(CacheEntry { record: Ok(self.record(&key)?), key });
        }
        let others: Vec<Record> = self.entries()?.into_iter().filter_map(|e| e.record.ok()).collect();
        let nearest = others
            .iter()
            .filter(|r| r.pins.bundle == pins.bundle)
            .map(|r| r.pins.differences(pins))
            .min_by_key(Vec::len);
        let why = match nearest {
            Some(differences) => {
                format!("those in {} are for {}", self.path.display(), differences.join("; for "))
            }
            None => format!(
                "{} has none for the manifest {} (sets for other bundles: {})",
                self.path.display(),
                short(&pins.bundle),
                others.len()
            ),
        };
        Err(err!(Engine, "no TensorRT engines for this bundle here: {why}. To build them: {BUILD}"))
    }

    /// Compares a set's files with its record as `level` says, byte for byte or where they changed since that was done,
    /// and looks into each context model.
    ///
    /// # Errors
    /// [`ErrorKind::Engine`] with the first difference.
    pub fn verify(
        &self,
        entry: &CacheEntry,
        level: Verify,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        // What was read a while ago may have changed.
        let record = self.record(&entry.key)?;
        let directory = self.directory(&entry.key);
        let open = |directory: &Path, name: &str| open_regular(&directory.join(name), ErrorKind::Engine);
        let differs = |directory: &Path, name: &str, found: &str, entry: &FileEntry| {
            let (path, built) = (directory.join(name), &entry.sha256);
            err!(
                Engine,
                "{} has SHA-256 {found}, {built} when it was built: it is damaged or was tampered with and is not \
                 loaded. To build it again: {BUILD} --force",
                path.display()
            )
        };
        if level != Verify::Size {
            let verified = Verified::read(&directory, level);
            let unchanged = |name: &str, entry: &FileEntry| {
                let found = directory.join(name).symlink_metadata();
                found.is_ok_and(|found| verified.knows(name, &found, &entry.sha256))
            };
            let mut files = record.files.clone();
            files.retain(|name, entry| !unchanged(name, entry));
            Hashing::start(&directory, files, open, differs, verified).finish(progress)?;
        }
        for (graph, name) in &record.graphs {
            let bytes = read_small(&open(&directory, name)?, name)?;
            check_context_model(&bytes, &record.files)
                .map_err(|what| err!(Engine, "{} for {graph}: {what}", directory.join(name).display()))?;
        }
        Ok(())
    }

    /// Reads the record of a set and checks everything about the set but its files' bytes.
    fn record(&self, key: &str) -> Result<Record> {
        let directory = self.directory(key);
        let look = |path: &Path| {
            fs::symlink_metadata(path).map_err(|e| {
                let text = format!(
                    "{} is not there or cannot be looked at. To build it again: {BUILD} --force",
                    path.display()
                );
                Error::with_source(ErrorKind::Engine, text, e)
            })
        };
        refuse(&directory, &faults_of_directory(&look(&directory)?, self.uid))?;
        let path = directory.join(RECORD_FILE);
        refuse(&path, &faults_of_file(&look(&path)?, self.uid))?;
        let bytes = read_small(&open_regular(&path, ErrorKind::Engine)?, RECORD_FILE)?;
        let record = Record::parse(&bytes).map_err(|e| e.context(directory.display()))?;
        if record.pins.key() != key {
            bail!(Engine, "{} was built for other pins than its name says", directory.display());
        }
        for (name, entry) in &record.files {
            let path = directory.join(name);
            let found = look(&path)?;
            refuse(&path, &faults_of_file(&found, self.uid))?;
            let (path, now, built) = (path.display(), found.len(), entry.size);
            ensure!(
                now == built,
                Engine,
                "{path} has {now} bytes, {built} when it was built. To build it again: {BUILD} --force"
            );
        }
        let known = |name: &String| name == RECORD_FILE || record.files.contains_key(name);
        match names_in(&directory)?.iter().find(|name| !known(name)) {
            Some(name) => Err(err!(Engine, "{} is not in the set's record", directory.join(name).display())),
            None => Ok(record),
        }
    }

    /// Removes what is left of builds that were stopped, sets that are damaged, and every set that `unwanted` gives
    /// a reason against. With `pretend`, only says what it would remove.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if something cannot be removed.
    pub fn clean(
        &self,
        lock: &CacheLock,
        pretend: bool,
        unwanted: &dyn Fn(&Record) -> Option<String>,
    ) -> Result<Removal> {
        self.remove(lock, pretend, &|name| {
            if is_leftover(name) {
                return Some("left by a build that was stopped".to_owned());
            }
            if !is_key(name) {
                return None;
            }
            self.record(name).map_or_else(|e| Some(e.to_string()), |record| unwanted(&record))
        })
    }

    /// Removes every set and what the builder learned. With `pretend`, only says what it would remove.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if something cannot be removed.
    pub fn remove_all(&self, lock: &CacheLock, pretend: bool) -> Result<Removal> {
        self.remove(lock, pretend, &|name| {
            (is_leftover(name) || is_key(name) || name == TIMING).then(|| "asked for".to_owned())
        })
    }

    fn remove(
        &self,
        _lock: &CacheLock,
        pretend: bool,
        reason: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Removal> {
        let mut outcome = Removal::default();
        for name in names_in(&self.path)? {
            let Some(reason) = reason(&name) else { continue };
            let path = self.path.join(&name);
            outcome.bytes += size_below(&path);
            if !pretend {
                remove(&path)?;
            }
            outcome.removed.push((name, reason));
        }
        Ok(outcome)
    }
}

/// Lists a directory: the names in it, sorted.
pub(super) fn names_in(directory: &Path) -> Result<Vec<String>> {
    let listing = || format!("cannot list {}", directory.display());
    let names = directory.read_dir().or_kind(ErrorKind::Io, listing)?;
    let names = names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<std::io::Result<Vec<_>>>().or_kind(ErrorKind::Io, listing)?;
    names.sort_unstable();
    Ok(names)
}

fn user() -> Result<u32> {
    effective_uid().ok_or_else(|| err!(Io, "cannot tell the user from /proc/self/status"))
}

/// Tells the names of sets.
fn is_key(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn read_small(file: &File, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_RECORD + 1)
        .read_to_end(&mut bytes)
        .or_kind(ErrorKind::Io, || format!("cannot read {name}"))?;
    let fits = bytes.len() as u64 <= MAX_RECORD;
    ensure!(fits, Engine, "{name} has more than {MAX_RECORD} bytes, which none has");
    Ok(bytes)
}

/// Bytes of all files below a directory, or of a file. Links are not followed.
fn size_below(path: &Path) -> u64 {
    let Ok(found) = fs::symlink_metadata(path) else { return 0 };
    if !found.is_dir() {
        return found.len();
    }
    path.read_dir().into_iter().flatten().flatten().map(|entry| size_below(&entry.path())).sum()
}
