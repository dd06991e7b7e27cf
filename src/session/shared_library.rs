//! A shared library opened by name.

use std::ffi::{CStr, CString, c_int, c_void};
use std::ptr::NonNull;

/// An open library. It stays loaded for as long as the process runs, since functions of it may be kept.
pub(super) struct SharedLibrary(NonNull<c_void>);

impl SharedLibrary {
    /// Opens a library by path, or by the name that the dynamic loader looks for.
    pub(super) fn open(name: &str) -> Result<Self, String> {
        Self::open_with(name, libc::RTLD_NOW)
    }

    /// The library of this name if something has already brought it into the process.
    pub(super) fn already_open(name: &str) -> Result<Self, String> {
        Self::open_with(name, libc::RTLD_NOW | libc::RTLD_NOLOAD)
    }

    fn open_with(name: &str, flags: c_int) -> Result<Self, String> {
        let text = CString::new(name).map_err(|_| format!("{name:?} holds a NUL"))?;
        // SAFETY: a C string that lives through the call. The library's initialisers run, as they do for every
        // library that a provider is linked with.
        let handle = unsafe { libc::dlopen(text.as_ptr(), flags | libc::RTLD_LOCAL) };
        NonNull::new(handle).map(SharedLibrary).ok_or_else(|| match last_error() {
            said if said.contains(name) => said,
            said => format!("{name}: {said}"),
        })
    }

    /// A function of the library.
    ///
    /// # Safety
    /// `F` must be the function's type, a pointer to an `extern "C"` function.
    pub(super) unsafe fn function<F: Copy>(&self, name: &CStr) -> Result<F, String> {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
        // SAFETY: the handle is open, the name a C string.
        let found = unsafe { libc::dlsym(self.0.as_ptr(), name.as_ptr()) };
        if found.is_null() {
            return Err(last_error());
        }
        // SAFETY: of the same size, checked above; that it is this kind of function is the caller's to know.
        Ok(unsafe { std::mem::transmute_copy(&found) })
    }
}

fn last_error() -> String {
    // SAFETY: takes nothing; the text it returns is valid until this thread's next call.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "the dynamic loader gives no reason".to_owned();
    }
    // SAFETY: not null, so it is a C string.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
