//! Files that are read through a map.

use std::fs::File;

use memmap2::Mmap;

use super::faults::Lost;
use crate::error::{ErrorKind, Result, ResultExt};

/// A bundle's file, mapped read-only. Only the pages that are touched ever become resident.
#[derive(Debug)]
pub struct MappedFile {
    map: Mmap,
    name: String,
    lost: Lost,
}

impl MappedFile {
    /// Maps the whole of `file`; `name` is for messages.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the file cannot be mapped.
    pub fn new(file: &File, name: &str) -> Result<Self> {
        // SAFETY: the map is read-only and private. A writer can change the numbers read, which are refused after the
        // inference, but not memory safety: every access is bounds-checked against the length taken here, and a page
        // that is gone by then is answered as `faults` tells.
        let map = unsafe { Mmap::map(file) }.or_kind(ErrorKind::Io, || format!("cannot map {name}"))?;
        Ok(MappedFile { map, name: name.to_owned(), lost: Lost::default() })
    }

    /// Does `work`, which may read the map, on this thread. A page that is no longer there is an error, where outside
    /// of this call it would end the process. Allocates nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`], now and ever after, when the file was cut off.
    pub fn watch<T>(&self, work: impl FnOnce() -> T) -> Result<T> {
        self.lost.watch(&self.name, work)
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_that_was_cut_off_is_an_error_for_good() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 10_000]).unwrap();
        let map = MappedFile::new(&file, "token_embedding.bin").unwrap();
        assert_eq!(map.watch(|| map.as_ref()[9_999]).unwrap(), 7);

        file.set_len(100).unwrap();
        assert_eq!(map.watch(|| map.as_ref()[99]).unwrap(), 7, "what is still there can be read");
        let error = map.watch(|| map.as_ref()[9_999]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity);
        assert!(error.to_string().starts_with("token_embedding.bin was cut off"), "{error}");
        assert!(map.watch(|| ()).is_err(), "the page stays lost");
    }
}
