//! The CUDA provider.

use ort::session::builder::SessionBuilder;

use super::Functions;
use crate::session::graph::GraphOptions;

/// The provider's options, by the names its library knows. An unknown one is an error there.
fn options(_graph: &GraphOptions) -> Vec<(&'static str, String)> {
    let fixed = [
        ("device_id", "0"),
        // The arena would otherwise double with every extension, in memory that a Jetson shares with everything.
        ("arena_extend_strategy", "kSameAsRequested"),
        // Benchmarking convolutions at start-up picks another one now and then: other bits for the same input.
        ("cudnn_conv_algo_search", "HEURISTIC"),
        // 10 bits of mantissa are not fp32.
        ("use_tf32", "0"),
    ];
    fixed.map(|(key, value)| (key, value.to_owned())).to_vec()
}

pub(super) fn register(builder: SessionBuilder, graph: &GraphOptions) -> ort::Result<SessionBuilder> {
    let api = ort::api();
    let functions = Functions {
        create: api.CreateCUDAProviderOptions,
        update: api.UpdateCUDAProviderOptions,
        append: api.SessionOptionsAppendExecutionProvider_CUDA_V2,
        release: api.ReleaseCUDAProviderOptions,
    };
    functions.append(builder, &options(graph))
}
