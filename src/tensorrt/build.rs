//! Making a set: one builder at a time, and nothing under its final name until it is whole.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::context::check_context_model;
use super::directory::{faults_of_directory, faults_of_file, modes};
use super::pins::Pins;
use super::record::{BuilderConfig, RECORD_FILE, RECORD_VERSION, Record};
use super::store::{EngineCache, names_in};
use crate::bundle::integrity::hash_file;
use crate::bundle::{FileEntry, open_regular};
use crate::error::{Error, ErrorKind, Result, ResultExt};

const LOCK_FILE: &str = ".lock";
const BUILDING: &str = ".building-";
const REMOVING: &str = ".removing-";
/// The directory of what the builder learned.
pub(super) const TIMING: &str = "timing";

/// The right to build and to remove sets of one directory. Given back when it is dropped, or by the kernel when the
/// process ends in whatever way.
#[derive(Debug)]
pub struct CacheLock {
    file: File,
}

impl Drop for CacheLock {
    fn drop(&mut self) {
        // Not left to closing: a program that another thread is just starting has a copy of the file until it runs.
        let _ = self.file.unlock();
    }
}

impl CacheLock {
    /// Takes the lock of `cache`, without waiting.
    ///
    /// # Errors
    /// [`ErrorKind::Engine`] if another process has it, and which, if that can be told.
    pub fn take(cache: &EngineCache) -> Result<CacheLock> {
        let path = cache.path().join(LOCK_FILE);
        let opening = || format!("cannot open {}", path.display());
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&path)
            .or_kind(ErrorKind::Io, opening)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = (&file).take(32).read_to_string(&mut holder);
                let holder = holder.trim();
                let who = if holder.is_empty() { String::new() } else { format!(" (process {holder})") };
                bail!(
                    Engine,
                    "another pi0-edge{who} is building or removing engines in {}; wait for it, or stop it",
                    cache.path().display()
                );
            }
            Err(fs::TryLockError::Error(e)) => {
                return Err(Error::with_source(ErrorKind::Io, format!("cannot lock {}", path.display()), e));
            }
        }
        // For whoever finds it locked; the lock itself does not depend on it.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(CacheLock { file })
    }
}

/// A set that is being made. Dropped before [`finish`](Self::finish), it leaves nothing behind; killed, it leaves a
/// directory that no run looks at and the next build removes.
#[derive(Debug)]
pub struct Building<'a> {
    cache: &'a EngineCache,
    _lock: &'a CacheLock,
    pins: Pins,
    options: BuilderConfig,
    bundle_path: String,
    directory: PathBuf,
    started: Instant,
    graphs: BTreeMap<String, String>,
}

impl<'a> Building<'a> {
    /// Makes an empty directory to build in, after removing what stopped builds left.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if that fails.
    pub fn start(
        cache: &'a EngineCache,
        lock: &'a CacheLock,
        pins: Pins,
        options: BuilderConfig,
        bundle_path: &Path,
    ) -> Result<Self> {
        cache.remove_leftovers()?;
        let directory = cache.path().join(format!("{BUILDING}{}", pins.key()));
        make_directory(&directory, cache.uid())?;
        Ok(Building {
            cache,
            _lock: lock,
            pins,
            options,
            bundle_path: bundle_path.to_string_lossy().into_owned(),
            directory,
            started: Instant::now(),
            graphs: BTreeMap::new(),
        })
    }

    /// The directory to build in: engines go directly into it, each beside its context model.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the settings to build with.
    pub fn options(&self) -> &BuilderConfig {
        &self.options
    }

    /// Says that `graph` is to be built, and where its context model must be written.
    pub fn context_model(&mut self, graph: &str) -> PathBuf {
        let name = format!("{graph}_ctx.onnx");
        let path = self.directory.join(&name);
        self.graphs.insert(graph.to_owned(), name);
        path
    }

    /// The directory of what the builder learned about this GPU with this TensorRT. What others could have written
    /// is thrown away first: it is fed to the builder.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if it cannot be made.
    pub fn timing_directory(&self) -> Result<PathBuf> {
        let uid = self.cache.uid();
        let parent = self.cache.path().join(TIMING);
        let path = parent.join(self.pins.timing_key());
        for directory in [&parent, &path] {
            if let Ok(found) = fs::symlink_metadata(directory)
                && !faults_of_directory(&found, uid).is_empty()
            {
                remove(directory)?;
            }
            if !directory.exists() {
                make_directory(directory, uid)?;
            }
        }
        for name in names_in(&path)? {
            let file = path.join(name);
            let found = inspect(&file)?;
            if !faults_of_file(&found, uid).is_empty() {
                log::warn!("{} is not this user's alone; starting without it", file.display());
                remove(&file)?;
            }
        }
        Ok(path)
    }

    /// Checks, hashes and records what was built, and gives the set its name, in place of an older one. `progress`
    /// is told of the bytes hashed.
    ///
    /// # Errors
    /// [`ErrorKind::Engine`] if a graph has no context model or not one that names a whole engine; [`ErrorKind::Io`].
    pub fn finish(self, progress: &mut dyn FnMut(u64, u64)) -> Result<Record> {
        let files = self.hash_files(progress)?;
        for (graph, name) in &self.graphs {
            ensure!(
                files.contains_key(name),
                Engine,
                "{graph}: ONNX Runtime reported success but wrote no {name}"
            );
            let bytes = fs::read(self.directory.join(name))
                .or_kind(ErrorKind::Io, || format!("cannot read {name}"))?;
            check_context_model(&bytes, &files)
                .map_err(|what| err!(Engine, "{graph}: TensorRT did not take it: {what}"))?;
        }
        let record = Record {
            format_version: RECORD_VERSION,
            pins: self.pins.clone(),
            bundle_path: self.bundle_path.clone(),
            options: self.options.clone(),
            builder: env!("CARGO_PKG_VERSION").to_owned(),
            built_at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            seconds: self.started.elapsed().as_secs_f64(),
            graphs: self.graphs.clone(),
            files,
        };
        let text = serde_json::to_string_pretty(&record)
            .or_kind(ErrorKind::Io, || format!("cannot write {RECORD_FILE}"))?;
        // Read back by the same rules as at run time, before it counts.
        Record::parse(text.as_bytes())?;
        let written = || format!("cannot write {}", self.directory.join(RECORD_FILE).display());
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(modes(self.cache.uid()).1)
            .open(self.directory.join(RECORD_FILE))
            .or_kind(ErrorKind::Io, written)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).or_kind(ErrorKind::Io, written)?;
        self.publish()?;
        Ok(record)
    }

    /// Hashes every file, takes others' rights to it, and has it on disk before its record is.
    fn hash_files(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<BTreeMap<String, FileEntry>> {
        let mut sizes = BTreeMap::new();
        for name in names_in(&self.directory)? {
            let size = inspect(&self.directory.join(&name))?.len();
            sizes.insert(name, size);
        }
        let total = sizes.values().sum();
        let mode = modes(self.cache.uid()).1;
        let mut done = 0;
        let mut files = BTreeMap::new();
        for (name, size) in sizes {
            let path = self.directory.join(&name);
            let reading = || format!("cannot read {}", path.display());
            fs::set_permissions(&path, Permissions::from_mode(mode)).or_kind(ErrorKind::Io, reading)?;
            let file = open_regular(&path, ErrorKind::Engine)?;
            file.sync_all().or_kind(ErrorKind::Io, reading)?;
            let sha256 = hash_file(file, |n| {
                done += n;
                progress(done, total);
                true
            });
            let sha256 = sha256.or_kind(ErrorKind::Io, reading)?.unwrap_or_default();
            files.insert(name, FileEntry { size, sha256 });
        }
        Ok(files)
    }

    fn publish(&self) -> Result<()> {
        let (root, key) = (self.cache.path(), self.pins.key());
        let target = root.join(&key);
        let moving = || format!("cannot move the new engines to {}", target.display());
        let old = root.join(format!("{REMOVING}{key}"));
        if target.exists() {
            fs::rename(&target, &old).or_kind(ErrorKind::Io, moving)?;
        }
        fs::rename(&self.directory, &target).or_kind(ErrorKind::Io, moving)?;
        File::open(root).and_then(|d| d.sync_all()).or_kind(ErrorKind::Io, moving)?;
        if old.exists() { remove(&old) } else { Ok(()) }
    }
}

impl Drop for Building<'_> {
    fn drop(&mut self) {
        // After `finish` there is nothing of this name.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl EngineCache {
    /// Removes what a build left behind, for a process that has the [`CacheLock`] and is about to end in the middle of it.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if something cannot be removed.
    pub fn remove_leftovers(&self) -> Result<()> {
        let names = names_in(self.path())?;
        names.iter().filter(|name| is_leftover(name)).try_for_each(|name| remove(&self.path().join(name)))
    }
}

/// Tells the names of what a stopped build or removal left.
pub(super) fn is_leftover(name: &str) -> bool {
    name.starts_with(BUILDING) || name.starts_with(REMOVING)
}

pub(super) fn remove(path: &Path) -> Result<()> {
    let directory = fs::symlink_metadata(path).is_ok_and(|m| m.is_dir());
    let removed = if directory { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.or_kind(ErrorKind::Io, || format!("cannot remove {}", path.display()))
}

fn inspect(path: &Path) -> Result<Metadata> {
    fs::symlink_metadata(path).or_kind(ErrorKind::Io, || format!("cannot inspect {}", path.display()))
}

fn make_directory(path: &Path, uid: u32) -> Result<()> {
    let made = DirBuilder::new().mode(modes(uid).0).create(path);
    made.or_kind(ErrorKind::Io, || format!("cannot make the directory {}", path.display()))
}
