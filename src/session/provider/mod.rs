//! The execution providers, one module each: how a session gets the one that was asked for, and why it did not.

mod cpu;
mod cuda;
pub(super) mod tensorrt;
#[cfg(test)]
mod tensorrt_options;

use std::ffi::{CString, c_char};
use std::path::Path;
use std::ptr::null_mut;

use ort::AsPointer;
use ort::session::builder::SessionBuilder;
use ort::sys::{OrtSessionOptions, OrtStatusPtr};

use super::graph::GraphOptions;
use crate::doctor::{Facts, Finding, Group, Options, Severity, diagnose};
use crate::error::{Error, ErrorKind};
use crate::provider::Provider;

/// Gives the session the provider that `options` asks for, and no other but the CPU's, which ONNX Runtime adds by
/// itself; what that one takes is found out afterwards, see [`placement`](super::placement).
pub(super) fn register(builder: SessionBuilder, options: &GraphOptions) -> ort::Result<SessionBuilder> {
    match options.provider {
        Provider::Cpu => cpu::register(builder),
        Provider::Cuda => cuda::register(builder, options),
        Provider::TensorRt => tensorrt::register(builder, options),
    }
}

/// The C functions that make one provider's options `O` and give them to a session.
struct Functions<O> {
    create: unsafe extern "system" fn(*mut *mut O) -> OrtStatusPtr,
    update:
        unsafe extern "system" fn(*mut O, *const *const c_char, *const *const c_char, usize) -> OrtStatusPtr,
    append: unsafe extern "system" fn(*mut OrtSessionOptions, *const O) -> OrtStatusPtr,
    release: unsafe extern "system" fn(*mut O),
}

impl<O> Functions<O> {
    /// Appends the provider with `options`, of which every key must be known to its library.
    fn append(&self, mut builder: SessionBuilder, options: &[(&str, String)]) -> ort::Result<SessionBuilder> {
        self.with(options, |made| {
            // SAFETY: the builder and `made` are alive; the session options take a copy.
            let status = unsafe { (self.append)(builder.ptr_mut(), made) };
            // SAFETY: the status is what ONNX Runtime just returned.
            unsafe { ort::Error::result_from_status(status) }
        })?;
        Ok(builder)
    }

    /// Makes the provider's library load and parse `options`.
    fn accept(&self, options: &[(&str, String)]) -> ort::Result<()> {
        self.with(options, |_| Ok(()))
    }

    fn with(
        &self,
        options: &[(&str, String)],
        then: impl FnOnce(*const O) -> ort::Result<()>,
    ) -> ort::Result<()> {
        let text = |t: &str| CString::new(t).map_err(|_| ort::Error::new(format!("{t:?} holds a NUL")));
        let keys = options.iter().map(|(k, _)| text(k)).collect::<ort::Result<Vec<_>>>()?;
        let values = options.iter().map(|(_, v)| text(v)).collect::<ort::Result<Vec<_>>>()?;
        let pointers = |texts: &[CString]| texts.iter().map(|t| t.as_ptr()).collect::<Vec<_>>();
        let (keys, values) = (pointers(&keys), pointers(&values));
        let mut made = null_mut();
        // SAFETY: `made` is a valid place for the result.
        unsafe { ort::Error::result_from_status((self.create)(&mut made)) }?;
        // SAFETY: `made` was made just above. Keys and values are as many as said and outlive the call, which keeps
        // none of them.
        let updated = unsafe {
            let status = (self.update)(made, keys.as_ptr(), values.as_ptr(), options.len());
            ort::Error::result_from_status(status)
        };
        let result = updated.and_then(|()| then(made));
        // SAFETY: made above, and released once.
        unsafe { (self.release)(made) };
        result
    }
}

/// Why `provider` cannot be used with the ONNX Runtime at `library`: what the doctor finds missing and what to do
/// about it, and after that what ONNX Runtime itself said.
pub(super) fn unusable(provider: Provider, library: &Path, said: &str) -> Error {
    let env = |name: &str| std::env::var(name).ok();
    let options = Options { ort_library: Some(library.to_path_buf()), ..Options::default() };
    let report = diagnose(&Facts::gather(Path::new("/"), &env, &options), None, Some(provider));
    let concerns = |f: &&Finding| {
        f.severity == Severity::Error && matches!(f.code.group(), Group::OnnxRuntime | Group::Gpu)
    };
    let reasons: Vec<String> = report.findings.iter().filter(concerns).map(reason).collect();
    let text = if reasons.is_empty() {
        format!(
            "the {provider} provider cannot be used: {said}. pi0-edge doctor --provider {provider} shows what this machine has"
        )
    } else {
        format!("the {provider} provider cannot be used: {}. ONNX Runtime says: {said}", reasons.join("; "))
    };
    Error::new(ErrorKind::Provider, text)
}

fn reason(finding: &Finding) -> String {
    match &finding.remedy {
        Some(remedy) => format!("{} (to do: {remedy})", finding.message),
        None => finding.message.clone(),
    }
}
