//! Shared libraries opened by name. They stay loaded for as long as the process runs, since functions of them are kept.

use std::error::Error;
use std::ffi::{CStr, c_int};
use std::mem::ManuallyDrop;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

/// An open library.
pub(super) struct SharedLibrary(ManuallyDrop<Library>);

impl SharedLibrary {
    /// Opens a library by path, or by the name that the dynamic loader looks for.
    pub(super) fn open(name: &str) -> Result<Self, String> {
        Self::open_with(name, RTLD_NOW)
    }

    /// Opens the library of this name if something has already brought it into the process.
    pub(super) fn already_open(name: &str) -> Result<Self, String> {
        Self::open_with(name, RTLD_NOW | libc::RTLD_NOLOAD)
    }

    fn open_with(name: &str, flags: c_int) -> Result<Self, String> {
        // SAFETY: the library's initialisers run, as they do for every library that a provider is linked with.
        match unsafe { Library::open(Some(name), flags | RTLD_LOCAL) } {
            Ok(library) => Ok(SharedLibrary(ManuallyDrop::new(library))),
            Err(e) => Err(match said(&e) {
                said if said.contains(name) => said,
                said => format!("{name}: {said}"),
            }),
        }
    }

    /// Returns a function of the library.
    ///
    /// # Safety
    /// `F` must be the function's type, a pointer to an `extern "C"` function.
    pub(super) unsafe fn function<F: Copy>(&self, name: &CStr) -> Result<F, String> {
        // SAFETY: the caller's contract; the library is never closed.
        let function = unsafe { self.0.get::<Option<F>>(name) }.map_err(|e| said(&e))?;
        (*function).ok_or_else(|| format!("{} is nowhere", name.to_string_lossy()))
    }
}

/// The dynamic loader's own words.
fn said(error: &libloading::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}
