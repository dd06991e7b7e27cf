//! Options of one run, made once: a run itself makes nothing.

use std::ffi::CString;
use std::ptr::{NonNull, null_mut};

use ort::{ortsys, sys};

pub(super) struct RunOptions(NonNull<sys::OrtRunOptions>);

// SAFETY: the options are only read after they were made.
unsafe impl Send for RunOptions {}
// SAFETY: as above.
unsafe impl Sync for RunOptions {}

impl RunOptions {
    /// Options with these entries.
    pub(super) fn new(entries: &[(&str, &str)]) -> ort::Result<Self> {
        let mut ptr = null_mut();
        ortsys![unsafe CreateRunOptions(&mut ptr)?];
        let options = RunOptions(NonNull::new(ptr).expect("ONNX Runtime reports success with valid options"));
        let text = |t: &str| CString::new(t).map_err(|_| ort::Error::new(format!("{t:?} holds a NUL")));
        for (key, value) in entries {
            let (key, value) = (text(key)?, text(value)?);
            ortsys![unsafe AddRunConfigEntry(options.0.as_ptr(), key.as_ptr(), value.as_ptr())?];
        }
        Ok(options)
    }

    pub(super) fn ptr(&self) -> *const sys::OrtRunOptions {
        self.0.as_ptr()
    }
}

impl Drop for RunOptions {
    fn drop(&mut self) {
        // SAFETY: made by CreateRunOptions and released once.
        ortsys![unsafe ReleaseRunOptions(self.0.as_ptr())];
    }
}
