//! The few functions of NVIDIA's CUDA runtime that moving tensors takes, from the library itself: it is there where
//! the CUDA provider is, and nothing else of this program depends on it.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr::{NonNull, null_mut};

use super::super::shared_library::SharedLibrary;
use crate::error::Result;

/// Sonames, newest first. The one that the provider has already brought in is taken before any other.
const SONAMES: [&str; 3] = ["libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0"];

type Status = c_int;
pub(super) type Stream = *mut c_void;
pub(super) type Event = *mut c_void;

pub(super) const STREAM_NON_BLOCKING: c_uint = 1;
pub(super) const DEVICE_BLOCKING_SYNC: c_uint = 4;
pub(super) const HOST_PORTABLE: c_uint = 1;
pub(super) const HOST_MAPPED: c_uint = 2;
pub(super) const ATTRIBUTE_INTEGRATED: c_int = 18;
pub(super) const ATTRIBUTE_CAN_MAP_HOST_MEMORY: c_int = 19;

/// `cudaMemcpyKind`.
#[derive(Debug, Clone, Copy)]
#[repr(i32)]
pub(super) enum Kind {
    HostToDevice = 1,
    DeviceToHost = 2,
    DeviceToDevice = 3,
}

macro_rules! functions {
    ($($name:ident: $symbol:literal($($argument:ident: $type:ty),* $(,)?);)+) => {
        /// The loaded library. Never unloaded: the provider uses it until the process ends.
        pub(super) struct CudaRuntime {
            error_string: unsafe extern "C" fn(Status) -> *const c_char,
            last_error: unsafe extern "C" fn() -> Status,
            $($name: unsafe extern "C" fn($($type),*) -> Status,)+
        }

        impl CudaRuntime {
            /// Takes every function from a library that is open.
            fn resolve(library: &SharedLibrary, name: &str) -> Result<Self> {
                Ok(CudaRuntime {
                    // SAFETY: this is the function's C signature.
                    error_string: unsafe { symbol(library, name, c"cudaGetErrorString")? },
                    // SAFETY: as above.
                    last_error: unsafe { symbol(library, name, c"cudaGetLastError")? },
                    $(
                        // SAFETY: as above.
                        $name: unsafe { symbol(library, name, $symbol)? },
                    )+
                })
            }

            $(
                /// The function of that name, its status made an error that says what CUDA says.
                ///
                /// # Safety
                /// As CUDA's documentation of the function has it.
                #[allow(clippy::too_many_arguments)]
                pub(super) unsafe fn $name(&self, $($argument: $type),*) -> Result<()> {
                    // SAFETY: the caller's contract.
                    let status = unsafe { (self.$name)($($argument),*) };
                    self.check(status, $symbol)
                }
            )+
        }
    };
}

functions! {
    get_device_count: c"cudaGetDeviceCount"(count: *mut c_int);
    set_device: c"cudaSetDevice"(device: c_int);
    set_device_flags: c"cudaSetDeviceFlags"(flags: c_uint);
    get_attribute: c"cudaDeviceGetAttribute"(value: *mut c_int, attribute: c_int, device: c_int);
    memory_info: c"cudaMemGetInfo"(free: *mut usize, total: *mut usize);
    malloc: c"cudaMalloc"(ptr: *mut *mut c_void, bytes: usize);
    free: c"cudaFree"(ptr: *mut c_void);
    host_alloc: c"cudaHostAlloc"(ptr: *mut *mut c_void, bytes: usize, flags: c_uint);
    free_host: c"cudaFreeHost"(ptr: *mut c_void);
    host_device_pointer: c"cudaHostGetDevicePointer"(device: *mut *mut c_void, host: *mut c_void, flags: c_uint);
    memcpy_async: c"cudaMemcpyAsync"(to: *mut c_void, from: *const c_void, bytes: usize, kind: Kind, stream: Stream);
    memset_async: c"cudaMemsetAsync"(to: *mut c_void, value: c_int, bytes: usize, stream: Stream);
    stream_create: c"cudaStreamCreateWithFlags"(stream: *mut Stream, flags: c_uint);
    stream_destroy: c"cudaStreamDestroy"(stream: Stream);
    stream_synchronize: c"cudaStreamSynchronize"(stream: Stream);
    stream_is_capturing: c"cudaStreamIsCapturing"(stream: Stream, status: *mut c_int);
    stream_end_capture: c"cudaStreamEndCapture"(stream: Stream, graph: *mut *mut c_void);
    graph_destroy: c"cudaGraphDestroy"(graph: *mut c_void);
    event_create: c"cudaEventCreateWithFlags"(event: *mut Event, flags: c_uint);
    event_record: c"cudaEventRecord"(event: Event, stream: Stream);
    event_elapsed: c"cudaEventElapsedTime"(milliseconds: *mut f32, start: Event, end: Event);
    event_destroy: c"cudaEventDestroy"(event: Event);
}

impl CudaRuntime {
    /// The runtime that is already in this process, or else the newest the loader finds.
    pub(super) fn load() -> Result<Self> {
        for open in [SharedLibrary::already_open, SharedLibrary::open] {
            for name in SONAMES {
                if let Ok(library) = open(name) {
                    return Self::resolve(&library, name);
                }
            }
        }
        let names = SONAMES.join(", ");
        Err(err!(
            Provider,
            "no CUDA runtime: the loader finds none of {names}; install the CUDA that ONNX Runtime was built for"
        ))
    }

    /// The runtime in a file.
    #[cfg(test)]
    pub(super) fn open(path: &std::path::Path) -> Result<Self> {
        let name = path.to_string_lossy();
        let library = SharedLibrary::open(&name).map_err(|e| err!(Provider, "{e}"))?;
        Self::resolve(&library, &name)
    }

    fn check(&self, status: Status, function: &CStr) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: takes any number, and returns a NUL-terminated string that is never freed.
        let said = unsafe { CStr::from_ptr((self.error_string)(status)) }.to_string_lossy().into_owned();
        self.forget_error();
        let function = function.to_string_lossy();
        Err(err!(Provider, "{function} failed: {said} (CUDA error {status})"))
    }

    /// Clears the error that the next call, ONNX Runtime's perhaps, would otherwise report as its own.
    pub(super) fn forget_error(&self) {
        // SAFETY: no preconditions.
        unsafe { (self.last_error)() };
    }
}

impl std::fmt::Debug for CudaRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CudaRuntime").finish_non_exhaustive()
    }
}

/// # Safety
/// `F` must be a function pointer of the symbol's C signature.
unsafe fn symbol<F: Copy>(library: &SharedLibrary, name: &str, symbol: &CStr) -> Result<F> {
    // SAFETY: the caller vouches for the signature.
    unsafe { library.function(symbol) }
        .map_err(|_| err!(Provider, "{name} has no {}; it is not a CUDA runtime", symbol.to_string_lossy()))
}

/// A pointer that a function of the runtime wrote, which on success is never null.
pub(super) fn made<T>(function: impl FnOnce(*mut *mut T) -> Result<()>) -> Result<NonNull<T>> {
    let mut ptr = null_mut();
    function(&mut ptr)?;
    NonNull::new(ptr).ok_or_else(|| err!(Provider, "CUDA reports success with a null pointer"))
}
