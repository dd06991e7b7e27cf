//! The border between C and Rust: panics stop here, and raw pointers become references here.

use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::status::{
    Fail, PI0_ERR_ARGUMENT, PI0_ERR_NULL, PI0_ERR_PANIC, PI0_ERR_SIZE, PI0_ERR_STRUCT_SIZE, PI0_OK, Result,
    pi0_status,
};

/// Bytes of an error's text, the final NUL included.
pub const PI0_ERROR_SIZE: usize = 1024;

/// An error in words: what, where, and what to do. Owned by the caller; written only by a call that fails.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pi0_error {
    /// UTF-8, ends with a NUL; what does not fit is cut off.
    pub message: [c_char; PI0_ERROR_SIZE],
}

/// A value that a body may return.
pub(super) trait Outcome {
    fn status(self) -> pi0_status;
}

impl Outcome for () {
    fn status(self) -> pi0_status {
        PI0_OK
    }
}

impl Outcome for pi0_status {
    fn status(self) -> pi0_status {
        self
    }
}

/// Runs the body of a C function. Nothing unwinds out of it.
#[inline]
pub(super) fn guard<T: Outcome>(body: impl FnOnce() -> Result<T>) -> pi0_status {
    // SAFETY: NULL is allowed.
    unsafe { guard_with(std::ptr::null_mut(), body) }
}

/// As [`guard`], with the error's words written to `error` unless that is NULL.
///
/// # Safety
/// `error` is NULL or valid to write to.
#[inline]
pub(super) unsafe fn guard_with<T: Outcome>(
    error: *mut pi0_error,
    body: impl FnOnce() -> Result<T>,
) -> pi0_status {
    // AssertUnwindSafe, because a handle whose call panicked is poisoned, and outputs are written last.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => value.status(),
        Ok(Err(fail)) => {
            // SAFETY: as the caller promises.
            unsafe { write_message(error, &fail.message) };
            fail.status
        }
        Err(panic) => {
            let what = panic.downcast_ref::<&str>().copied();
            let what = what.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            // SAFETY: as the caller promises.
            unsafe { write_message(error, what.unwrap_or("a panic without a message")) };
            // Dropping it could panic again, with nobody to catch it.
            std::mem::forget(panic);
            PI0_ERR_PANIC
        }
    }
}

/// # Safety
/// `error` is NULL or valid to write to.
unsafe fn write_message(error: *mut pi0_error, message: &str) {
    if !error.is_null() {
        // SAFETY: not NULL, so valid for the whole structure, as the caller promises.
        unsafe { write_text(&raw mut (*error).message as *mut c_char, PI0_ERROR_SIZE, message) };
    }
}

/// Writes as much of `text` as fits, and a NUL. A character is written whole or not at all.
///
/// # Safety
/// `out` is valid to write `size` bytes to, and `size` is not 0.
unsafe fn write_text(out: *mut c_char, size: usize, text: &str) {
    let text = text.split('\0').next().unwrap_or_default();
    let length = (0..=text.len().min(size - 1)).rev().find(|&n| text.is_char_boundary(n)).unwrap_or(0);
    // SAFETY: `length` is at most `size - 1`, so both the text and its NUL fit.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), out.cast::<u8>(), length);
        *out.add(length) = 0;
    }
}

/// `text` in a fixed field, cut off where it does not fit.
pub(super) fn fixed_text<const N: usize>(text: &str) -> [c_char; N] {
    let mut field = [0; N];
    // SAFETY: the field is N bytes long, and no field of ours is empty.
    unsafe { write_text(field.as_mut_ptr(), N, text) };
    field
}

/// Copies a whole string to a caller's buffer, or nothing.
///
/// # Safety
/// `out` is NULL or valid to write `size` bytes to.
pub(super) unsafe fn copy_text(out: *mut c_char, size: usize, text: &str, what: &'static str) -> Result {
    not_null(out, what)?;
    if text.len() >= size {
        return Err(Fail::new(PI0_ERR_SIZE, format!("{what}: {} bytes are needed", text.len() + 1)));
    }
    // SAFETY: `out` is valid for `size` bytes, and `size` is more than 0.
    unsafe { write_text(out, size, text) };
    Ok(())
}

pub(super) fn not_null<T>(pointer: *const T, what: &'static str) -> Result {
    if pointer.is_null() { Err(Fail::new(PI0_ERR_NULL, what)) } else { Ok(()) }
}

/// Writes an output. Call it when nothing can fail any more.
///
/// # Safety
/// `out` is NULL or valid to write to, aligned or not.
pub(super) unsafe fn put<T>(out: *mut T, value: T, what: &'static str) -> Result {
    not_null(out, what)?;
    // SAFETY: not NULL, and valid as the caller promises.
    unsafe { out.write_unaligned(value) };
    Ok(())
}

/// The caller's array. NULL is fine if it has no entries.
///
/// # Safety
/// `data` is NULL or valid to read `len` values from, for as long as the call takes.
pub(super) unsafe fn slice<'a, T>(data: *const T, len: usize, what: &'static str) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    check_array(data, len, what)?;
    // SAFETY: not NULL, aligned and of possible size as just checked, and valid as the caller promises.
    Ok(unsafe { std::slice::from_raw_parts(data, len) })
}

/// The caller's array to write to.
///
/// # Safety
/// `data` is NULL or valid to write `len` values to, for as long as the call takes.
pub(super) unsafe fn slice_mut<'a, T>(data: *mut T, len: usize, what: &'static str) -> Result<&'a mut [T]> {
    if len == 0 {
        return Ok(&mut []);
    }
    check_array(data, len, what)?;
    // SAFETY: not NULL, aligned and of possible size as just checked, and valid as the caller promises.
    Ok(unsafe { std::slice::from_raw_parts_mut(data, len) })
}

fn check_array<T>(data: *const T, len: usize, what: &'static str) -> Result {
    not_null(data, what)?;
    if !data.is_aligned() || len > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(Fail::new(PI0_ERR_SIZE, what));
    }
    Ok(())
}

/// The caller's string.
///
/// # Safety
/// `text` is NULL or a string that ends with a NUL, unchanged for as long as the call takes.
pub(super) unsafe fn string<'a>(text: *const c_char, what: &'static str) -> Result<&'a str> {
    not_null(text, what)?;
    // SAFETY: not NULL, and a string as the caller promises.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Fail::new(PI0_ERR_ARGUMENT, format!("{what} is not UTF-8")))
}

/// The caller's string, if there is one.
///
/// # Safety
/// As [`string`].
pub(super) unsafe fn optional_string<'a>(text: *const c_char, what: &'static str) -> Result<Option<&'a str>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: as the caller promises.
    unsafe { string(text, what) }.map(Some)
}

/// A structure that begins with `struct_size` and may get more fields at its end in later releases.
///
/// # Safety
/// `repr(C)`, its first field is `struct_size: usize`, every field takes any bits, and there is no padding at the end:
/// a later field must not lie where an older program left whatever was there.
pub(super) unsafe trait Grows: Copy {
    /// Its size in its first release.
    const FIRST: usize;
    /// The message where it has none of its sizes.
    const WRONG_SIZE: &'static str;
}

/// Declares a structure as one that grows; `$last` is the last field of its first release.
macro_rules! grows {
    ($name:ident, $last:ident) => {
        // SAFETY: plain numbers and pointers; the size is checked below.
        unsafe impl $crate::boundary::Grows for $name {
            const FIRST: usize = {
                const fn size<T, F>(_: fn(&T) -> &F) -> usize {
                    size_of::<F>()
                }
                let end = std::mem::offset_of!($name, $last) + size(|s: &$name| &s.$last);
                assert!(end.is_multiple_of(align_of::<$name>()), "padding at the end");
                assert!(std::mem::offset_of!($name, struct_size) == 0);
                end
            };
            const WRONG_SIZE: &'static str = concat!(
                stringify!($name),
                ".struct_size is that of no release up to this library's; set it to sizeof(",
                stringify!($name),
                "), and run the program with a pi0-edge not older than the header it was built with"
            );
        }
    };
}
pub(super) use grows;

/// Returns a structure of zeros and NULLs that knows its size; the default of most settings.
pub(super) fn zeroed<T: Grows>() -> T {
    // SAFETY: any bits are a T.
    let mut value: T = unsafe { std::mem::zeroed() };
    // SAFETY: `struct_size` comes first.
    unsafe { (&raw mut value).cast::<usize>().write(size_of::<T>()) };
    value
}

fn check_size<T: Grows>(size: usize) -> Result {
    if (T::FIRST..=size_of::<T>()).contains(&size) && size.is_multiple_of(align_of::<T>()) {
        return Ok(());
    }
    Err(Fail::new(PI0_ERR_STRUCT_SIZE, T::WRONG_SIZE))
}

/// Reads a caller's settings over the defaults: what an older program does not know keeps its default.
///
/// # Safety
/// `from` is NULL or valid to read as many bytes from as its `struct_size` says, and at least that field.
pub(super) unsafe fn read_settings<T: Grows + Default>(from: *const T, what: &'static str) -> Result<T> {
    not_null(from, what)?;
    // SAFETY: `struct_size` comes first.
    let size = unsafe { from.cast::<usize>().read_unaligned() };
    check_size::<T>(size)?;
    let mut value = T::default();
    // SAFETY: `size` is at most the size of T, and the caller promises that many bytes. Any bits are a T.
    unsafe { std::ptr::copy_nonoverlapping(from.cast::<u8>(), (&raw mut value).cast::<u8>(), size) };
    Ok(value)
}

/// As [`read_settings`]; NULL stands for the defaults.
///
/// # Safety
/// As [`read_settings`].
pub(super) unsafe fn read_settings_or_default<T: Grows + Default>(from: *const T) -> Result<T> {
    if from.is_null() {
        return Ok(T::default());
    }
    // SAFETY: as the caller promises.
    unsafe { read_settings(from, "") }
}

/// Writes defaults to a structure of which the caller says how large it is there.
///
/// # Safety
/// `out` is NULL or valid to write `size` bytes to.
pub(super) unsafe fn write_default<T: Grows + Default>(out: *mut T, size: usize) -> Result {
    not_null(out, "the structure to fill is NULL")?;
    check_size::<T>(size)?;
    // SAFETY: `size` bytes are valid as the caller promises.
    unsafe { write_sized(out, &T::default(), size) };
    Ok(())
}

/// Writes a result to the caller's structure, whose `struct_size` says how much of it there is.
///
/// # Safety
/// `out` is NULL or valid to read its `struct_size` from and to write that many bytes to.
#[inline]
pub(super) unsafe fn write_result<T: Grows>(out: *mut T, value: &T, what: &'static str) -> Result {
    // SAFETY: as the caller promises.
    let size = unsafe { result_size(out, what) }?;
    // SAFETY: `size` is what the caller's structure says of itself.
    unsafe { write_sized(out, value, size) };
    Ok(())
}

/// Checks an output structure before the work that fills it, and says how large it is.
///
/// # Safety
/// As [`write_result`].
#[inline]
pub(super) unsafe fn result_size<T: Grows>(out: *mut T, what: &'static str) -> Result<usize> {
    not_null(out, what)?;
    // SAFETY: `struct_size` comes first.
    let size = unsafe { out.cast::<usize>().read_unaligned() };
    check_size::<T>(size)?;
    Ok(size)
}

/// # Safety
/// `out` is valid to write `size` bytes to, and `size` is at most that of T.
#[inline]
unsafe fn write_sized<T: Grows>(out: *mut T, value: &T, size: usize) {
    // SAFETY: as the caller promises. Written in two parts, because `struct_size` is the caller's.
    unsafe {
        out.cast::<usize>().write_unaligned(size);
        let rest = size_of::<usize>();
        let from = std::ptr::from_ref(value).cast::<u8>().add(rest);
        std::ptr::copy_nonoverlapping(from, out.cast::<u8>().add(rest), size - rest);
    }
}
