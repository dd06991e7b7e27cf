//! The TensorRT provider.

use ort::session::builder::SessionBuilder;
use ort::sys::OrtTensorRTProviderOptionsV2;

use super::Functions;
use crate::session::device::Device;
use crate::session::graph::GraphOptions;

/// The provider's options, by the names its library knows. An unknown one is an error there.
pub(super) fn options(device: &Device, _graph: &GraphOptions) -> Vec<(&'static str, String)> {
    let mut options = vec![("device_id", device.options().gpu.to_string())];
    options.extend(super::stream_options(device));
    options
}

pub(super) fn functions() -> Functions<OrtTensorRTProviderOptionsV2> {
    let api = ort::api();
    Functions {
        create: api.CreateTensorRTProviderOptions,
        update: api.UpdateTensorRTProviderOptions,
        append: api.SessionOptionsAppendExecutionProvider_TensorRT_V2,
        release: api.ReleaseTensorRTProviderOptions,
    }
}

pub(super) fn register(
    builder: SessionBuilder,
    device: &Device,
    graph: &GraphOptions,
) -> ort::Result<SessionBuilder> {
    functions().append(builder, &options(device, graph))
}
