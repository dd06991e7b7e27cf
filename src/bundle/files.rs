//! Paths inside a bundle, and opening the files at them without being led elsewhere.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result, ResultExt};

/// The longest relative path a manifest may hold, in bytes.
const MAX_PATH_BYTES: usize = 512;

/// Checks that `path` is relative, `/`-separated and made of plain components only; says what is wrong with it.
pub(super) fn check_relative(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err("is empty".into());
    }
    if path.len() > MAX_PATH_BYTES {
        return Err(format!("is longer than {MAX_PATH_BYTES} bytes"));
    }
    if let Some(c) = path.chars().find(|c| c.is_control() || *c == '\\') {
        return Err(format!("holds the character {c:?}"));
    }
    if path.starts_with('/') {
        return Err("is absolute".into());
    }
    match path.split('/').find(|part| matches!(*part, "" | "." | "..")) {
        Some(part) => Err(format!("has the component {part:?}; only plain names may be used")),
        None => Ok(()),
    }
}

/// As [`check_relative`], and directly in the bundle's directory.
pub(super) fn check_plain_name(path: &str) -> Result<(), String> {
    check_relative(path)?;
    if path.contains('/') { Err("is not directly in the bundle's directory".into()) } else { Ok(()) }
}

/// Opens a regular file for reading; a missing file, a symbolic link, a directory or a special file is an error of
/// the given kind.
///
/// Only the last component is looked at: the caller answers for the directories above it.
pub(crate) fn open_regular(path: &Path, kind: ErrorKind) -> Result<File> {
    // Looked at before it is opened, because opening a device or a pipe may already act or block.
    let found = inspect(path, kind)?;
    if found.is_symlink() {
        return Err(Error::new(
            kind,
            format!("{} is a symbolic link; put the file itself there", path.display()),
        ));
    }
    if !found.is_file() {
        return Err(Error::new(kind, format!("{} is not a regular file", path.display())));
    }
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .or_kind(ErrorKind::Io, || format!("cannot open {}", path.display()))?;
    // And again on what was opened: the name may have been given to something else in between.
    let opened = file.metadata().or_kind(ErrorKind::Io, || format!("cannot inspect {}", path.display()))?;
    if !opened.is_file() {
        return Err(Error::new(kind, format!("{} is not a regular file", path.display())));
    }
    Ok(file)
}

/// Opens a file below the directory `root`, by the rules for every file of a bundle or an observation: `relative` is
/// made of plain names, no part of it is a symbolic link, and what it leads to is a regular file, which is looked at
/// before it is opened.
///
/// # Errors
///
/// One of `kind` for anything else, in words; [`ErrorKind::Io`] if it cannot be opened.
pub fn open_inside(root: &Path, relative: &str, kind: ErrorKind) -> Result<File> {
    if let Err(what) = check_relative(relative) {
        return Err(Error::new(kind, format!("the path {relative:?} {what}")));
    }
    let mut path = PathBuf::from(root);
    let mut parts = relative.split('/').peekable();
    while let Some(part) = parts.next() {
        path.push(part);
        if parts.peek().is_some() && !inspect(&path, kind)?.is_dir() {
            let text = format!("{} is not a directory (links are not followed)", path.display());
            return Err(Error::new(kind, text));
        }
    }
    open_regular(&path, kind)
}

/// Reads a file that [`open_inside`] opens, of at most `max` bytes.
///
/// # Errors
///
/// As [`open_inside`], and one of `kind` for a larger file.
pub fn read_inside(root: &Path, relative: &str, max: u64, kind: ErrorKind) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte past the cap tells a file of exactly the cap from a longer one, however long it says it is.
    open_inside(root, relative, kind)?
        .take(max.saturating_add(1))
        .read_to_end(&mut bytes)
        .or_kind(ErrorKind::Io, || format!("cannot read {relative}"))?;
    if bytes.len() as u64 > max {
        let place = root.join(relative);
        return Err(Error::new(kind, format!("{} has more than {max} bytes", place.display())));
    }
    Ok(bytes)
}

/// A file of a bundle, open for as long as the bundle is, to see that it stays what it was.
#[derive(Debug)]
pub(super) struct Held {
    name: String,
    file: File,
    /// Size, and time of the last change of content in seconds and nanoseconds.
    was: (u64, i64, i64),
}

impl Held {
    /// Opens the file `name` of the bundle in `root`.
    ///
    /// # Errors
    /// As [`open_inside`].
    pub fn open(root: &Path, name: &str) -> Result<Self> {
        let file = open_inside(root, name, ErrorKind::Integrity)?;
        let was = Self::stamp(&file.metadata().or_kind(ErrorKind::Io, || format!("cannot inspect {name}"))?);
        Ok(Held { name: name.to_owned(), file, was })
    }

    fn stamp(metadata: &Metadata) -> (u64, i64, i64) {
        (metadata.len(), metadata.mtime(), metadata.mtime_nsec())
    }

    fn inspect(&self) -> Result<Metadata> {
        self.file.metadata().or_kind(ErrorKind::Io, || format!("cannot inspect {}", self.name))
    }

    /// Fails if the file was written to or cut off since it was opened. That it was deleted or another has its name
    /// now is no change: the open file is still the one that was verified. One system call.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`].
    pub fn check(&self) -> Result<()> {
        ensure!(
            Self::stamp(&self.inspect()?) == self.was,
            Integrity,
            "{} was changed while it was in use; put the whole bundle in place again, by renaming its directory, and load \
             it anew",
            self.name
        );
        Ok(())
    }

    /// Fails if `root` has another file of that name by now.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`].
    pub fn check_place(&self, root: &Path) -> Result<()> {
        let place = open_inside(root, &self.name, ErrorKind::Integrity)?;
        let place = place.metadata().or_kind(ErrorKind::Io, || format!("cannot inspect {}", self.name))?;
        let held = self.inspect()?;
        ensure!(
            (place.dev(), place.ino()) == (held.dev(), held.ino()),
            Integrity,
            "{} was replaced while it was being loaded; load the bundle again",
            self.name
        );
        Ok(())
    }
}

fn inspect(path: &Path, kind: ErrorKind) -> Result<Metadata> {
    path.symlink_metadata().map_err(|e| {
        if e.kind() == std::io::ErrorKind::NotFound {
            let remedy = if kind == ErrorKind::Observation { "" } else { "; copy the whole bundle again" };
            Error::with_source(kind, format!("{} is missing{remedy}", path.display()), e)
        } else {
            Error::with_source(ErrorKind::Io, format!("cannot inspect {}", path.display()), e)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_relative_paths_pass() {
        for path in ["a", "manifest.json", "golden/case 1/é.npy", "a..b", "...", "-x"] {
            assert_eq!(check_relative(path), Ok(()), "{path}");
        }
        assert!(check_plain_name("golden/x").is_err());
    }

    #[test]
    fn paths_that_lead_elsewhere_do_not_pass() {
        for path in
            ["", "/etc/passwd", "..", "../x", "a/../b", "a/..", "./a", "a//b", "a/", "a\\b", "a\0b", "a\nb"]
        {
            assert!(check_relative(path).is_err(), "{path:?}");
        }
        assert!(check_relative(&"a/".repeat(400)).is_err());
    }
}
