//! The execution providers, one module each: how a session gets the one that was asked for, and why it did not.

mod cuda;
#[cfg(test)]
#[path = "../../../tests/bundle_support/onnx.rs"]
#[allow(dead_code)]
mod onnx;
pub(super) mod tensorrt;
#[cfg(test)]
#[path = "../tests/tensorrt_options.rs"]
mod tensorrt_options;

use std::ffi::{CString, c_char};
use std::path::Path;
use std::ptr::null_mut;

use ort::AsPointer;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::sys::{OrtSessionOptions, OrtStatusPtr};

use super::device::Device;
use super::environment::Environment;
use super::graph::GraphOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::provider::Provider;

/// Gives a session on `device` its provider, and no other but the CPU's, which ONNX Runtime adds by itself; what that
/// one takes is found out afterwards, see [`placement`](super::placement).
pub(super) fn register(
    builder: SessionBuilder,
    device: &Device,
    options: &GraphOptions,
) -> ort::Result<SessionBuilder> {
    match device.provider() {
        Provider::Cpu => {
            let cpu = ort::ep::CPU::default().with_arena_allocator(true).build().error_on_failure();
            Ok(builder.with_execution_providers([cpu])?)
        }
        Provider::Cuda => cuda::functions().append(builder, &cuda::options(device, options)),
        Provider::TensorRt => tensorrt::functions().append(builder, &tensorrt::options(device, options)),
    }
}

/// Makes ONNX Runtime load a provider's library, with everything that needs.
///
/// # Errors
/// [`ErrorKind::Provider`], naming what is missing and what to do about it.
pub(super) fn probe(environment: &Environment, provider: Provider) -> Result<()> {
    // Making a session's options is cheap, and giving them a provider is what opens its library.
    let builder = || Session::builder(environment.inner());
    let loaded = match provider {
        Provider::Cpu => Ok(()),
        Provider::Cuda => builder().and_then(|b| cuda::functions().append(b, &[]).map(drop)),
        Provider::TensorRt => builder().and_then(|b| tensorrt::functions().append(b, &[]).map(drop)),
    };
    loaded.map_err(|e| unusable(provider, environment.library(), e.message()))
}

/// The options by which a provider shares the device's stream: the address, as a number in text.
fn stream_options(device: &Device) -> Vec<(&'static str, String)> {
    let stream = device.memory().stream().map(|s| (s.as_ptr() as usize).to_string());
    let options = stream.map(|s| [("has_user_compute_stream", "1".to_owned()), ("user_compute_stream", s)]);
    options.into_iter().flatten().collect()
}

/// The C functions that make one provider's options `O` and give them to a session.
pub(super) struct Functions<O> {
    create: unsafe extern "system" fn(*mut *mut O) -> OrtStatusPtr,
    update:
        unsafe extern "system" fn(*mut O, *const *const c_char, *const *const c_char, usize) -> OrtStatusPtr,
    append: unsafe extern "system" fn(*mut OrtSessionOptions, *const O) -> OrtStatusPtr,
    release: unsafe extern "system" fn(*mut O),
}

impl<O> Functions<O> {
    /// Appends the provider with `options`, of which every key must be known to its library.
    pub(super) fn append(
        &self,
        mut builder: SessionBuilder,
        options: &[(&str, String)],
    ) -> ort::Result<SessionBuilder> {
        self.with(options, |made| {
            // SAFETY: the builder and `made` are alive; the session options take a copy.
            let status = unsafe { (self.append)(builder.ptr_mut(), made) };
            // SAFETY: the status is what ONNX Runtime just returned.
            unsafe { ort::Error::result_from_status(status) }
        })?;
        Ok(builder)
    }

    /// Makes the provider's library load and parse `options`.
    pub(super) fn accept(&self, options: &[(&str, String)]) -> ort::Result<()> {
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

/// Makes the error that `provider` cannot be used with the ONNX Runtime at `library`: what explains it where the program
/// has [registered](Provider::explain_failures_with) something that can, then what ONNX Runtime itself `said`.
pub(super) fn unusable(provider: Provider, library: &Path, said: &str) -> Error {
    let text = match provider.explain_failure(library) {
        Some(reasons) => {
            format!("the {provider} provider cannot be used: {reasons}. ONNX Runtime says: {said}")
        }
        None => format!(
            "the {provider} provider cannot be used with {}: {said}. pi0-edge doctor --provider {provider} shows what this machine has",
            library.display()
        ),
    };
    Error::new(ErrorKind::Provider, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::device::{DeviceMemory, DeviceOptions};
    use crate::session::memory::fake;
    use crate::session::placement;

    #[test]
    fn the_cuda_providers_library_takes_every_option_and_refuses_strays() {
        fake::in_a_child("session::provider::tests::options_in_a_child");
    }

    #[test]
    #[ignore = "run by the test above in a process of its own"]
    fn options_in_a_child() {
        let environment = fake::environment_of_child();
        let options =
            DeviceOptions { provider: Provider::Cuda, gpu: 1, memory: DeviceMemory::Auto, sleep: true };
        let device = Device::open(environment, options).unwrap();
        let builder = || Session::builder(environment.inner()).unwrap();
        for cuda_graph in [false, true] {
            let graph = GraphOptions { threads: 1, prepack: false, spin: false, cuda_graph, profile: None };
            let options = cuda::options(&device, &graph);
            assert!(options.iter().any(|(key, value)| *key == "user_compute_stream" && value != "0"));
            cuda::functions().append(builder(), &options).map(|_| ()).unwrap();
        }
        // The negative control: a name that the library does not know is refused by that name.
        strays_are_refused(environment, &device);
        let unknown = [("enable_cuda_graphs", "1".to_owned())];
        let error = cuda::functions().append(builder(), &unknown).map(|_| ()).unwrap_err();
        assert!(error.message().contains("enable_cuda_graphs"), "{}", error.message());
    }

    /// As of an ONNX Runtime that does not tell placement: graphs that the provider takes whole are made, one with an operator
    /// that only the CPU's has is not.
    fn strays_are_refused(environment: &Environment, device: &Device) {
        let graph =
            GraphOptions { threads: 1, prepack: false, spin: false, cuda_graph: false, profile: None };
        let builder = || {
            let builder = Session::builder(environment.inner()).unwrap();
            let builder = placement::demand(builder, None, Provider::Cuda).unwrap();
            cuda::functions().append(builder, &cuda::options(device, &graph)).unwrap()
        };
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        for (bundle, graph) in [("pi0-tiny", "prefix_prefill"), ("pi05-tiny", "denoise_step")] {
            builder().commit_from_file(models.join(bundle).join(format!("{graph}.onnx"))).unwrap();
        }
        let value = |name: &str, shape: &[u64]| {
            onnx::value_info(&serde_json::json!({"name": name, "dtype": "f32", "shape": shape}))
        };
        let mut stray = onnx::Model {
            ir_version: 10,
            opsets: vec![("", 20)],
            nodes: vec![onnx::wired("Neg", "taken", &["x"], "y", &[])],
            initializers: vec![],
            inputs: vec![value("x", &[1, 4, 4])],
            outputs: vec![value("y", &[1, 4, 4])],
            graph_extra: vec![],
            model_extra: vec![],
        };
        builder().commit_from_memory(&stray.encode()).unwrap();
        stray.nodes.push(onnx::wired("Det", "left", &["y"], "d", &[]));
        stray.outputs.push(value("d", &[1]));
        let error = builder().commit_from_memory(&stray.encode()).map(|_| ()).unwrap_err();
        let said = placement::not_made("graph", error, Provider::Cuda).to_string();
        assert!(said.contains("cuda was asked for and does not take every node"), "{said}");
    }
}
