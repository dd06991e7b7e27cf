//! The TensorRT provider.

use ort::session::builder::SessionBuilder;

use super::Functions;
use crate::session::graph::GraphOptions;

/// The provider's options, by the names its library knows. An unknown one is an error there.
fn options(_graph: &GraphOptions) -> Vec<(&'static str, String)> {
    vec![("device_id", "0".to_owned())]
}

pub(super) fn register(builder: SessionBuilder, graph: &GraphOptions) -> ort::Result<SessionBuilder> {
    let api = ort::api();
    let functions = Functions {
        create: api.CreateTensorRTProviderOptions,
        update: api.UpdateTensorRTProviderOptions,
        append: api.SessionOptionsAppendExecutionProvider_TensorRT_V2,
        release: api.ReleaseTensorRTProviderOptions,
    };
    functions.append(builder, &options(graph))
}
