//! Is this the bundle that the manifest describes, byte for byte?

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use sha2::{Digest, Sha256};

use super::files::open_inside;
use super::manifest::{FileEntry, Manifest};
use super::verified::{Hashed, Stamp, Verified};
use crate::error::{Error, ErrorKind, Result, ResultExt};

/// The care with which a bundle's files are looked at when it is opened.
#[derive(Default, Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verify {
    /// Every byte of what changed since it was last found in order is hashed and compared: the first time everything,
    /// after that only sizes and times are looked at. What was found is kept in the user's cache directory. Believes the
    /// file system's times of change, which FAT and some network shares do not keep.
    #[default]
    Changed,
    /// Every byte is hashed and compared. Reads the whole bundle: some seconds for a full-size one.
    Full,
    /// Only presence, kind and size. For starting fast a bundle that was verified where it was installed.
    Size,
}

/// Bytes read between two reports of progress.
const BLOCK: usize = 1 << 20;

/// Tells from a file's name that ONNX Runtime could be led to it: a graph or its weights.
pub(super) fn is_graph_file(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    lower.ends_with(".onnx") || lower.ends_with(".data")
}

/// Verifies every file that the manifest lists: all but the weights before it returns, those on threads that are still at
/// it. Nothing that was loaded meanwhile may be used before [`Hashing::finish`] says that it is in order.
///
/// # Errors
///
/// [`ErrorKind::Integrity`] for a file that is missing, a link, not a regular file, or of another size or hash than
/// the manifest says, and for a graph or weights file that the manifest does not list; [`ErrorKind::Io`] if reading
/// fails.
pub(super) fn verify(root: &Path, manifest: &Manifest, level: Verify) -> Result<Hashing> {
    reject_strays(root, manifest)?;
    let verified = Verified::read(root, level);
    let (mut weights, mut others) = (BTreeMap::new(), BTreeMap::new());
    for (path, entry) in &manifest.files {
        let file = open_inside(root, path, ErrorKind::Integrity)?;
        let found = file.metadata().or_kind(ErrorKind::Io, || format!("cannot inspect {path}"))?;
        ensure!(
            found.len() == entry.size,
            Integrity,
            "{path} has {} bytes, the manifest says {}; it is {}, copy the bundle again",
            found.len(),
            entry.size,
            if found.len() < entry.size { "truncated" } else { "not the file that was exported" }
        );
        if level == Verify::Size || verified.knows(path, &found, &entry.sha256) {
            continue;
        }
        let large = path.ends_with(".data") || *path == manifest.token_embedding.file;
        (if large { &mut weights } else { &mut others }).insert(path.clone(), entry.clone());
    }
    log::debug!(
        "{}: {} of {} files are to be verified",
        root.display(),
        weights.len() + others.len(),
        manifest.files.len()
    );
    let differs = |_: &Path, path: &str, found: &str, entry: &FileEntry| {
        err!(
            Integrity,
            "{path} has SHA-256 {found}, the manifest says {}; it is damaged or was edited, copy the bundle again",
            entry.sha256
        )
    };
    let open = |root: &Path, path: &str| open_inside(root, path, ErrorKind::Integrity);
    let start = |files, verified| Hashing::start(root, files, open, differs, verified);
    // Graphs are read by what loads them, and the tokenizer by us, before the weights are done.
    let others = start(others, verified);
    let done = others.total;
    let verified = others.finish(&mut |_, _| {})?;
    let mut hashing = start(weights, verified);
    (hashing.before, hashing.total) = (done, hashing.total + done);
    Ok(hashing)
}

/// A graph or weights file beside those of the manifest is not part of what was exported, and is refused rather than
/// left where something may pick it up.
fn reject_strays(root: &Path, manifest: &Manifest) -> Result<()> {
    let entries =
        root.read_dir().or_kind(ErrorKind::Io, || format!("cannot list the bundle {}", root.display()))?;
    for entry in entries {
        let entry = entry.or_kind(ErrorKind::Io, || format!("cannot list the bundle {}", root.display()))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if is_graph_file(&name) && !manifest.files.contains_key(&*name) {
            bail!(Integrity, "{name} is in the bundle's directory but not in its manifest; remove it");
        }
    }
    Ok(())
}

/// Opens a file of a directory by its name there.
type Open = fn(&Path, &str) -> Result<File>;
/// Makes the error of a file: the directory, its name, its hash, what was expected.
type Differs = fn(&Path, &str, &str, &FileEntry) -> Error;

/// Files being hashed and compared, on one thread for each core; where no thread can be had, on that which waits for it.
pub(crate) struct Hashing {
    workers: Vec<JoinHandle<Result<Vec<Hashed>>>>,
    /// What is left to do while waiting.
    here: Option<Box<dyn FnOnce() -> Result<Vec<Hashed>> + Send>>,
    reports: Receiver<u64>,
    /// Bytes that were done before these files.
    before: u64,
    total: u64,
    stop: Arc<AtomicBool>,
    verified: Verified,
}

impl Hashing {
    /// Begins with `files` of the directory `root`, to be added to what was `verified`.
    pub(crate) fn start(
        root: &Path,
        files: BTreeMap<String, FileEntry>,
        open: Open,
        differs: Differs,
        verified: Verified,
    ) -> Hashing {
        let total = files.values().map(|entry| entry.size).sum();
        let mut files: Vec<(String, FileEntry)> = files.into_iter().collect();
        // The largest first, so that no thread is left alone with it at the end.
        files.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.size));
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(files.len());
        let (files, next) = (Arc::new(files), Arc::new(AtomicUsize::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let (report, reports) = channel();
        let work = || {
            let (files, next, stop) = (Arc::clone(&files), Arc::clone(&next), Arc::clone(&stop));
            let (report, root) = (report.clone(), PathBuf::from(root));
            move || {
                let mut done = Vec::new();
                // Relaxed: the counter only deals out indices, the flag only saves work; joining orders the rest.
                while let Some((name, entry)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let go_on = |n| report.send(n).is_ok() && !stop.load(Ordering::Relaxed);
                    let hashed = hash_entry(&root, (name.as_str(), entry), open, differs, go_on);
                    match hashed.inspect_err(|_| stop.store(true, Ordering::Relaxed))? {
                        Some(stamp) => done.push((name.clone(), stamp, entry.sha256.clone())),
                        None => break,
                    }
                }
                Ok(done)
            }
        };
        let start = |_| std::thread::Builder::new().name("pi0-hash".into()).spawn(work()).ok();
        let workers: Vec<_> = (0..threads).map_while(start).collect();
        let here = workers.is_empty().then(|| Box::new(work()) as Box<_>);
        Hashing { workers, here, reports, before: 0, total, stop, verified }
    }

    /// Waits for the last file, calling `progress` on this thread with bytes done and bytes in all unless there were none.
    /// Returns what is verified now.
    ///
    /// # Errors
    /// That of the first file that differs, or [`ErrorKind::Io`] if reading fails, or what opening returns.
    pub(crate) fn finish(mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<Verified> {
        let mut hashed = self.here.take().map_or(Ok(Vec::new()), |work| work())?;
        if self.total > 0 {
            let mut done = self.before;
            progress(done, self.total);
            while let Ok(n) = self.reports.recv() {
                done += n;
                progress(done, self.total);
            }
        }
        for worker in std::mem::take(&mut self.workers) {
            match worker.join() {
                Ok(files) => hashed.extend(files?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        let mut verified = std::mem::take(&mut self.verified);
        verified.add(hashed);
        Ok(verified)
    }
}

impl Drop for Hashing {
    /// Without waiting for what nobody wants to know any more.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Hashes one file and compares. Returns which file it was; `None` if `go_on` did not.
fn hash_entry(
    root: &Path,
    (name, entry): (&str, &FileEntry),
    open: Open,
    differs: Differs,
    go_on: impl FnMut(u64) -> bool,
) -> Result<Option<Stamp>> {
    let file = open(root, name)?;
    let failed = || format!("cannot read {name}");
    // Of before, so that a change while it is read shows the next time.
    let stamp = Stamp::of(&file.metadata().or_kind(ErrorKind::Io, failed)?);
    match hash_file(file, go_on).or_kind(ErrorKind::Io, failed)? {
        Some(found) if found != entry.sha256 => Err(differs(root, name, &found, entry)),
        found => Ok(found.map(|_| stamp)),
    }
}

/// The SHA-256 of what is left of a file, as lowercase hex. `go_on` is told of every block's bytes and answers
/// whether the result is still wanted; `None` if it was not.
///
/// # Errors
/// Those of reading the file.
pub fn hash_file(mut file: File, mut go_on: impl FnMut(u64) -> bool) -> std::io::Result<Option<String>> {
    let mut hasher = Sha256::new();
    let mut block = vec![0; BLOCK];
    loop {
        let n = match file.read(&mut block) {
            Ok(0) => return Ok(Some(hex(&hasher.finalize()))),
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        hasher.update(&block[..n]);
        if !go_on(n as u64) {
            return Ok(None);
        }
    }
}

/// Bytes as lowercase hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_hashed_where_no_thread_can_be_had() {
        // Larger than any address space, and read once by a process.
        let stack = (1u64 << 50).to_string();
        if std::env::var("RUST_MIN_STACK").ok().as_ref() != Some(&stack) {
            let name = "bundle::integrity::tests::files_are_hashed_where_no_thread_can_be_had";
            let mut again = std::process::Command::new(std::env::current_exe().unwrap());
            again.args(["--exact", name, "--test-threads", "1"]).env("RUST_MIN_STACK", stack);
            let output = again.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            return;
        }
        assert!(std::thread::Builder::new().spawn(|| ()).is_err());
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a"), "abc").unwrap();
        let hashing = |sha256: &str| {
            let entry = FileEntry { size: 3, sha256: sha256.into() };
            let open = |root: &Path, path: &str| open_inside(root, path, ErrorKind::Integrity);
            let differs =
                |_: &Path, path: &str, found: &str, _: &FileEntry| err!(Integrity, "{path} has {found}");
            let files = BTreeMap::from([("a".to_owned(), entry)]);
            Hashing::start(directory.path(), files, open, differs, Verified::default())
        };
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let mut told = Vec::new();
        hashing(sha256).finish(&mut |done, all| told.push((done, all))).unwrap();
        assert_eq!(told, [(0, 3), (3, 3)]);
        let error = hashing("another").finish(&mut |_, _| {}).unwrap_err();
        assert!(error.to_string().contains(sha256), "{error}");
    }

    #[test]
    fn hex_is_lowercase_and_padded() {
        assert_eq!(hex(&[0x00, 0x0f, 0xa0, 0xff]), "000fa0ff");
    }

    #[test]
    fn graph_files_are_known_by_name() {
        for name in ["a.onnx", "a.onnx.data", "weights.data", "A.ONNX"] {
            assert!(is_graph_file(name), "{name}");
        }
        for name in ["tokenizer.json", "token_embedding.bin", "onnx", "data"] {
            assert!(!is_graph_file(name), "{name}");
        }
    }
}
