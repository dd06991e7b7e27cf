//! Ctrl-C and SIGTERM. Work that can end early with what it has so far holds an [`Heeding`] and looks at [`requested`];
//! everything else ends at once, and so does a second signal. Files that were begun are removed either way.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;

use pi0_edge::{Error, ErrorKind, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::progress::say;

/// Exit status of a process that Ctrl-C ended, as shells have it.
pub const STATUS: u8 = 130;

// Relaxed wherever they are used: each is all there is to see.
static REQUESTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
static HEEDING: AtomicUsize = AtomicUsize::new(0);
/// Files and directories to remove when the process ends at once; then it is locked for good.
static BEGUN: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Listens from now on, on a thread of its own.
pub fn listen() -> Result<()> {
    let failed = |e| Error::with_source(ErrorKind::Io, "cannot listen for Ctrl-C", e);
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let heed = move || {
        for _ in signals.forever() {
            if requested() || HEEDING.load(Ordering::Relaxed) == 0 {
                end_at_once();
            }
            REQUESTED.store(true, Ordering::Relaxed);
            say("pi0-edge: interrupted; ends with what there is so far, a second Ctrl-C ends it at once");
        }
    };
    thread::Builder::new().name("pi0-signals".into()).spawn(heed).map(drop).map_err(failed)
}

/// Returns true once the process was told to end.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// Returns the flag that [`requested`] looks at.
pub fn flag() -> Arc<AtomicBool> {
    Arc::clone(&REQUESTED)
}

/// The error of work that has nothing to show when it is interrupted.
pub fn nothing_yet() -> Error {
    Error::new(ErrorKind::Runtime, "interrupted before there was anything to show")
}

/// While it lives, the work looks at [`requested`] and ends early by itself.
#[derive(Debug)]
pub struct Heeding(());

impl Heeding {
    pub fn new() -> Self {
        HEEDING.fetch_add(1, Ordering::Relaxed);
        Heeding(())
    }
}

impl Drop for Heeding {
    fn drop(&mut self) {
        HEEDING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A file or directory that is being made; removed unless it is given its final name.
#[derive(Debug)]
pub struct Begun(PathBuf);

impl Begun {
    /// Lets `create` make `path`.
    pub fn create<T>(
        path: PathBuf,
        create: impl FnOnce(&Path) -> std::io::Result<T>,
    ) -> std::io::Result<(Self, T)> {
        let mut begun = begun();
        let made = create(&path)?;
        begun.push(path.clone());
        Ok((Begun(path), made))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Leaves it where it is.
    pub fn keep(self) {
        begun().retain(|path| *path != self.0);
        std::mem::forget(self);
    }

    /// Gives it its final name.
    pub fn rename(self, to: &Path) -> std::io::Result<()> {
        let _whole = begun();
        fs::rename(&self.0, to)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let mut begun = begun();
        begun.retain(|path| *path != self.0);
        remove(&self.0);
    }
}

fn begun() -> MutexGuard<'static, Vec<PathBuf>> {
    BEGUN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remove(path: &Path) {
    // What is still being written to may get new files meanwhile.
    for _ in 0..10 {
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        if removed.is_ok() || !path.exists() {
            break;
        }
    }
}

/// Waits for ever if the process is ending at once, so that no failure is told that only comes from that.
pub fn settle() {
    drop(begun());
}

fn end_at_once() -> ! {
    let begun = begun();
    begun.iter().for_each(|path| remove(path));
    say("pi0-edge: interrupted");
    signal_hook::low_level::exit(STATUS.into())
}
