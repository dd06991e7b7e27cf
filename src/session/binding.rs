//! A thin safe skin over `OrtIoBinding`.
//!
//! `ort`'s own `IoBinding` is not used: `bind_input` of a borrowed tensor deadlocks in 2.0.0-rc.15, and
//! `run_binding` allocates for every output. These calls allocate nothing on our side.

use std::ffi::CStr;
use std::ptr::{NonNull, null, null_mut};

use ort::memory::MemoryInfo;
use ort::session::Session;
use ort::{AsPointer, ortsys, sys};

use super::run_options::RunOptions;
use crate::bundle::Dtype;

pub(super) struct Binding {
    ptr: NonNull<sys::OrtIoBinding>,
    memory: MemoryInfo<'static>,
}

// SAFETY: an OrtIoBinding may be used from any one thread at a time; `&mut self` on every call gives that.
unsafe impl Send for Binding {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Input,
    Output,
}

fn element_type(dtype: Dtype) -> sys::ONNXTensorElementDataType {
    use sys::ONNXTensorElementDataType as T;
    match dtype {
        Dtype::F32 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        Dtype::F16 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        Dtype::Bf16 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        Dtype::I64 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
    }
}

impl Binding {
    /// A binding of tensors in `memory`.
    pub(super) fn new(session: &Session, memory: MemoryInfo<'static>) -> ort::Result<Self> {
        let mut ptr: *mut sys::OrtIoBinding = null_mut();
        // SAFETY: the session is alive and `ptr` is a valid place for the result.
        ortsys![unsafe CreateIoBinding(session.ptr().cast_mut(), &mut ptr)?];
        let ptr = NonNull::new(ptr).expect("ONNX Runtime reports success with a valid binding");
        Ok(Binding { ptr, memory })
    }

    /// Binds memory as the port `name`. ONNX Runtime keeps the address, not the shape slice or the name.
    ///
    /// # Safety
    /// `data` must lie in this binding's memory and be valid for reads and writes of `bytes` bytes, aligned for
    /// `dtype`, for as long as this binding (or until the port is bound anew), and nothing else may access it until
    /// what [`run`](Self::run) queued is done.
    pub(super) unsafe fn bind(
        &mut self,
        side: Side,
        name: &CStr,
        data: NonNull<u8>,
        bytes: usize,
        dtype: Dtype,
        shape: &[i64],
    ) -> ort::Result<()> {
        let mut value: *mut sys::OrtValue = null_mut();
        // SAFETY: the caller vouches for `data`; the shape is read during the call only.
        ortsys![unsafe CreateTensorWithDataAsOrtValue(
            self.memory.ptr(), data.as_ptr().cast(), bytes, shape.as_ptr(), shape.len(), element_type(dtype), &mut value
        )?];
        let binding = self.ptr.as_ptr();
        // SAFETY: `value` was made just above; the binding takes its own reference to it, and the name is copied.
        unsafe {
            let api = ort::api();
            let status = match side {
                Side::Input => (api.BindInput)(binding, name.as_ptr(), value),
                Side::Output => (api.BindOutput)(binding, name.as_ptr(), value),
            };
            (api.ReleaseValue)(value);
            ort::Error::result_from_status(status)
        }
    }

    /// Runs the session on what is bound; without `options` as ONNX Runtime does by itself. Allocates nothing on our
    /// side.
    pub(super) fn run(&mut self, session: &mut Session, options: Option<&RunOptions>) -> ort::Result<()> {
        let options = options.map_or(null(), RunOptions::ptr);
        // SAFETY: session and binding are alive, and `&mut` on both makes this the only run.
        ortsys![unsafe RunWithBinding(session.ptr().cast_mut(), options, self.ptr.as_ptr())?];
        Ok(())
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        // SAFETY: made by CreateIoBinding and released once.
        ortsys![unsafe ReleaseIoBinding(self.ptr.as_ptr())];
    }
}
