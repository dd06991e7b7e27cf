//! Is this the bundle that the manifest describes, byte for byte?

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use sha2::{Digest, Sha256};

use super::files::open_inside;
use super::manifest::{FileEntry, Manifest};
use crate::error::{Error, ErrorKind, Result, ResultExt};

/// The care with which a bundle's files are looked at when it is opened.
#[derive(Default, Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verify {
    /// Every byte is hashed and compared. Reads the whole bundle: some seconds for a full-size one.
    #[default]
    Full,
    /// Only presence, kind and size. For starting fast a bundle that was verified where it was installed.
    Size,
}

/// Bytes read between two reports of progress.
const BLOCK: usize = 1 << 20;

/// Hashing is bound by one core and by storage; more readers than this take memory bandwidth from the robot's work.
const HASHERS: usize = 2;

/// Tells from a file's name that ONNX Runtime could be led to it: a graph or its weights.
pub(super) fn is_graph_file(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    lower.ends_with(".onnx") || lower.ends_with(".data")
}

/// Verifies every file that the manifest lists; calls `progress` with bytes done and bytes in all.
///
/// # Errors
///
/// [`ErrorKind::Integrity`] for a file that is missing, a link, not a regular file, or of another size or hash than
/// the manifest says, and for a graph or weights file that the manifest does not list; [`ErrorKind::Io`] if reading
/// fails.
pub fn verify(
    root: &Path,
    manifest: &Manifest,
    level: Verify,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    reject_strays(root, manifest)?;
    for (path, entry) in &manifest.files {
        let file = open_inside(root, path, ErrorKind::Integrity)?;
        let size = file.metadata().or_kind(ErrorKind::Io, || format!("cannot inspect {path}"))?.len();
        ensure!(
            size == entry.size,
            Integrity,
            "{path} has {size} bytes, the manifest says {}; it is {}, copy the bundle again",
            entry.size,
            if size < entry.size { "truncated" } else { "not the file that was exported" }
        );
    }
    match level {
        Verify::Size => Ok(()),
        Verify::Full => hash_manifest(root, manifest, progress),
    }
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

fn hash_manifest(root: &Path, manifest: &Manifest, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
    let open = |path: &str| open_inside(root, path, ErrorKind::Integrity);
    hash_all(&manifest.files, &open, progress, &|path, found, entry| {
        err!(
            Integrity,
            "{path} has SHA-256 {found}, the manifest says {}; it is damaged or was edited, copy the bundle again",
            entry.sha256
        )
    })
}

/// Hashes what `open` opens under each name, on a few threads, and compares; calls `progress` with bytes done and
/// bytes in all. `differs` makes the error of a file (its name, its hash, what was expected).
///
/// # Errors
/// That error, or [`ErrorKind::Io`] if reading fails, or what `open` returns.
pub(crate) fn hash_all(
    files: &BTreeMap<String, FileEntry>,
    open: &(dyn Fn(&str) -> Result<File> + Sync),
    progress: &mut dyn FnMut(u64, u64),
    differs: &(dyn Fn(&str, &str, &FileEntry) -> Error + Sync),
) -> Result<()> {
    let mut files: Vec<(&str, &FileEntry)> = files.iter().map(|(p, e)| (p.as_str(), e)).collect();
    let total: u64 = files.iter().map(|(_, entry)| entry.size).sum();
    // The largest first, so that no thread is left alone with it at the end.
    files.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.size));
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    progress(0, total);
    std::thread::scope(|scope| {
        // Bounded, so that a slow progress display slows the hashing instead of growing a queue.
        let (report, reports) = mpsc::sync_channel::<u64>(16);
        let workers: Vec<_> = (0..HASHERS.min(files.len()))
            .map(|_| {
                let (report, files, next, failed) = (report.clone(), &files, &next, &failed);
                scope.spawn(move || -> Result<()> {
                    // Relaxed: the counter only deals out indices, the flag only saves work; joining orders the rest.
                    while let Some(&(path, entry)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let hashed = open(path).and_then(|file| {
                            let go_on = |n| report.send(n).is_ok() && !failed.load(Ordering::Relaxed);
                            match hash_file(file, go_on) {
                                Ok(Some(found)) if found != entry.sha256 => Err(differs(path, &found, entry)),
                                Ok(_) => Ok(()),
                                Err(e) => {
                                    Err(Error::with_source(ErrorKind::Io, format!("cannot read {path}"), e))
                                }
                            }
                        });
                        if hashed.is_err() {
                            failed.store(true, Ordering::Relaxed);
                            return hashed;
                        }
                        if failed.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        drop(report);
        let mut done = 0;
        for n in reports {
            done += n;
            progress(done, total);
        }
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
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
