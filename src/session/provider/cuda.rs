//! The CUDA provider.

use ort::sys::OrtCUDAProviderOptionsV2;

use super::Functions;
use crate::session::device::Device;
use crate::session::graph::GraphOptions;

/// The provider's options, by the names its library knows. An unknown one is an error there.
pub(super) fn options(device: &Device, graph: &GraphOptions) -> Vec<(&'static str, String)> {
    let fixed = [
        // The arena would otherwise double with every extension, in memory that a Jetson shares with everything.
        ("arena_extend_strategy", "kSameAsRequested"),
        // Benchmarking convolutions at start-up picks another one now and then: other bits for the same input.
        ("cudnn_conv_algo_search", "HEURISTIC"),
        // 10 bits of mantissa are not fp32.
        ("use_tf32", "0"),
    ];
    let mut options = fixed.map(|(key, value)| (key, value.to_owned())).to_vec();
    options.push(("device_id", device.options().gpu.to_string()));
    options.push(("enable_cuda_graph", u8::from(graph.cuda_graph).to_string()));
    options.extend(super::stream_options(device));
    options
}

pub(super) fn functions() -> Functions<OrtCUDAProviderOptionsV2> {
    let api = ort::api();
    Functions {
        create: api.CreateCUDAProviderOptions,
        update: api.UpdateCUDAProviderOptions,
        append: api.SessionOptionsAppendExecutionProvider_CUDA_V2,
        release: api.ReleaseCUDAProviderOptions,
    }
}
