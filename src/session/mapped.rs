//! Read-only file maps.

use std::fs::File;

use memmap2::Mmap;

use crate::error::{ErrorKind, Result, ResultExt};

/// Maps a bundle file read-only. Only the pages that are touched ever become resident.
///
/// # Errors
/// [`ErrorKind::Io`] when the file cannot be mapped; `name` is for the message.
pub fn map_file(file: &File, name: &str) -> Result<Mmap> {
    // SAFETY: the map is read-only and private. A bundle is immutable while it is loaded (documented on
    // `Policy::load`); a writer that breaks this can change the rows read, not memory safety: rows are plain
    // numbers and every access is bounds-checked against the length taken here.
    let map = unsafe { Mmap::map(file) };
    map.or_kind(ErrorKind::Io, || format!("cannot map {name}"))
}
