//! The TensorRT provider: loading a finished engine, and building one ahead of time.
//!
//! A run loads a context model, which names an engine and does not hold the graph (see [`crate::tensorrt`]), so the
//! provider has nothing it could build, whatever its options.

use std::path::Path;

use ort::sys::OrtTensorRTProviderOptionsV2;

use super::Functions;
use crate::bundle::graphs::{PREFIX, STEPS, VIEWS};
use crate::bundle::{Dim, Precision, TensorSpec};
use crate::error::Result;
use crate::session::device::Device;
use crate::session::graph::GraphOptions;
use crate::tensorrt::BuilderConfig;

/// A key and a value of the provider's options, by the names its library knows. An unknown key is an error there.
type Setting = (&'static str, String);

fn on() -> String {
    "1".to_owned()
}

/// The options that load an engine and run it.
pub(super) fn options(device: &Device, graph: &GraphOptions) -> Vec<Setting> {
    let mut options = load_settings(device.options().gpu, graph.cuda_graph);
    options.extend(super::stream_options(device));
    options
}

/// Those of them that need no device.
pub(super) fn load_settings(gpu: u32, cuda_graph: bool) -> Vec<Setting> {
    let mut options = vec![("device_id", gpu.to_string())];
    if cuda_graph {
        options.push(("trt_cuda_graph_enable", on()));
    }
    options
}

/// One engine to build.
#[derive(Debug)]
pub struct EngineBuild<'a> {
    /// The GPU to build on and for, as CUDA counts them.
    pub gpu: u32,
    /// The graph's name, which the engine's file name begins with.
    pub graph: &'a str,
    /// The context model's path, absolute; the engine goes beside it.
    pub context_model: &'a Path,
    /// The directory of what the builder learns.
    pub timing: &'a Path,
    /// Settings of TensorRT's builder.
    pub options: &'a BuilderConfig,
    /// The sizes the engine has to serve.
    pub sizes: &'a RunSizes,
}

/// The range of each named dimension: least, most frequent, most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunSizes {
    /// Views of one observation.
    pub views: [usize; 3],
    /// Prefix tokens.
    pub prefix: [usize; 3],
    /// Rows of the time tables.
    pub steps: [usize; 3],
}

/// The options that build an engine and write it down, for a graph with these inputs.
///
/// # Errors
/// [`ErrorKind::Manifest`](crate::ErrorKind::Manifest) for a dimension of another name than the three;
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) for a path that is not UTF-8.
pub(in crate::session) fn build_settings(
    build: &EngineBuild<'_>,
    inputs: &[TensorSpec],
) -> Result<Vec<Setting>> {
    let path = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .ok_or_else(|| err!(InvalidArgument, "{} is not UTF-8, which ONNX Runtime needs", path.display()))
    };
    let mut settings = vec![
        ("device_id", build.gpu.to_string()),
        ("trt_engine_cache_enable", on()),
        ("trt_engine_cache_prefix", build.graph.to_owned()),
        ("trt_dump_ep_context_model", on()),
        ("trt_ep_context_file_path", path(build.context_model)?),
        // Beside the context model, not inside: protobuf ends at 2 GB. The provider wants the way from one to the other
        // relative, and without the option it is the same directory.
        ("trt_ep_context_embed_mode", "0".to_owned()),
        ("trt_timing_cache_enable", on()),
        ("trt_timing_cache_path", path(build.timing)?),
        ("trt_builder_optimization_level", build.options.optimization_level.to_string()),
    ];
    match build.options.precision {
        Precision::Fp32 => {}
        Precision::Fp16 => settings.push(("trt_fp16_enable", on())),
        Precision::Bf16 => settings.push(("trt_bf16_enable", on())),
        Precision::Int8 | Precision::Int4 => {
            settings.extend([("trt_fp16_enable", on()), ("trt_int8_enable", on())]);
        }
    }
    if build.options.precision != Precision::Fp32 {
        // The norms' squares and means are f32 in the graph for a reason; the builder may otherwise take them along.
        settings.push(("trt_layer_norm_fp32_fallback", on()));
    }
    if let Some(bytes) = build.options.workspace {
        settings.push(("trt_max_workspace_size", bytes.to_string()));
    }
    if let Some(streams) = build.options.auxiliary_streams {
        settings.push(("trt_auxiliary_streams", streams.to_string()));
    }
    let keys = ["trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes"];
    for (which, key) in keys.into_iter().enumerate() {
        let shapes = shapes(inputs, build.sizes, which)?;
        if !shapes.is_empty() {
            settings.push((key, shapes));
        }
    }
    Ok(settings)
}

/// The shapes of all inputs that have a named dimension, as `name:1x51x32,…`; empty if every shape is fixed, which
/// needs no profile.
pub(crate) fn shapes(inputs: &[TensorSpec], sizes: &RunSizes, which: usize) -> Result<String> {
    let size = |dim: &Dim| match dim {
        Dim::Fixed(n) => Ok(*n),
        Dim::Named(name) => match name.as_str() {
            VIEWS => Ok(sizes.views[which]),
            PREFIX => Ok(sizes.prefix[which]),
            STEPS => Ok(sizes.steps[which]),
            other => Err(err!(Manifest, "no size is known for the dimension {other:?}")),
        },
    };
    let mut shapes = Vec::new();
    for input in inputs.iter().filter(|t| t.shape.iter().any(|d| matches!(d, Dim::Named(_)))) {
        let dims = input.shape.iter().map(size).collect::<Result<Vec<_>>>()?;
        let dims: Vec<String> = dims.iter().map(ToString::to_string).collect();
        shapes.push(format!("{}:{}", input.name, dims.join("x")));
    }
    Ok(shapes.join(","))
}

/// Returns the C functions that make the provider's options and give them to a session.
pub(in crate::session) fn functions() -> Functions<OrtTensorRTProviderOptionsV2> {
    let api = ort::api();
    Functions {
        create: api.CreateTensorRTProviderOptions,
        update: api.UpdateTensorRTProviderOptions,
        append: api.SessionOptionsAppendExecutionProvider_TensorRT_V2,
        release: api.ReleaseTensorRTProviderOptions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{Dtype, GraphName, Manifest};
    use crate::error::ErrorKind;

    const SIZES: RunSizes = RunSizes { views: [1, 3, 3], prefix: [17, 72, 72], steps: [1, 10, 64] };

    fn settings(graph: GraphName, options: &BuilderConfig) -> Vec<Setting> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/pi0-tiny/manifest.json");
        let manifest = Manifest::read(Path::new(path)).unwrap();
        let (context_model, timing) = (Path::new("/e/denoise_step_ctx.onnx"), Path::new("/e/timing"));
        let build =
            EngineBuild { gpu: 0, graph: graph.as_str(), context_model, timing, options, sizes: &SIZES };
        build_settings(&build, &manifest.graph(graph).inputs).unwrap()
    }

    fn value<'a>(settings: &'a [Setting], key: &str) -> Option<&'a str> {
        settings.iter().find(|(k, _)| *k == key).map(|(_, v)| v.as_str())
    }

    #[test]
    fn profiles_span_every_size_a_run_may_have() {
        let of = settings(GraphName::VisionEncoder, &BuilderConfig::default());
        assert_eq!(value(&of, "trt_profile_min_shapes"), Some("pixel_values:1x3x56x56"));
        assert_eq!(value(&of, "trt_profile_max_shapes"), Some("pixel_values:3x3x56x56"));
        let of = settings(GraphName::DenoiseStep, &BuilderConfig::default());
        let max = value(&of, "trt_profile_max_shapes").unwrap();
        assert!(max.starts_with("schedule:64x3,time_table:64x32,past_key_values.0.key:1x72x16"), "{max}");
        assert!(!max.contains("x_t"), "fixed shapes need no profile: {max}");
        let opt = value(&of, "trt_profile_opt_shapes").unwrap();
        assert!(opt.starts_with("schedule:10x3"), "{opt}");
    }

    #[test]
    fn fixed_shapes_need_no_profile_and_unknown_dimensions_are_refused() {
        let fixed =
            TensorSpec { name: "a".into(), dtype: Dtype::F32, shape: vec![Dim::from(2), Dim::from(3)] };
        assert_eq!(shapes(&[fixed], &SIZES, 0).unwrap(), "");
        let named = TensorSpec { name: "a".into(), dtype: Dtype::F32, shape: vec![Dim::from("batch")] };
        assert_eq!(shapes(&[named], &SIZES, 0).unwrap_err().kind(), ErrorKind::Manifest);
    }

    #[test]
    fn norms_stay_in_f32_where_the_rest_need_not() {
        let with = |precision| {
            settings(GraphName::DenoiseStep, &BuilderConfig { precision, ..BuilderConfig::default() })
        };
        let of = with(Precision::Fp32);
        for key in ["trt_fp16_enable", "trt_bf16_enable", "trt_int8_enable", "trt_layer_norm_fp32_fallback"] {
            assert_eq!(value(&of, key), None, "{key}");
        }
        for (precision, key) in [
            (Precision::Fp16, "trt_fp16_enable"),
            (Precision::Bf16, "trt_bf16_enable"),
            (Precision::Int8, "trt_int8_enable"),
        ] {
            assert_eq!(value(&with(precision), key), Some("1"));
            assert_eq!(value(&with(precision), "trt_layer_norm_fp32_fallback"), Some("1"));
        }
    }

    #[test]
    fn limits_are_given_only_when_asked_for() {
        let of = settings(GraphName::DenoiseStep, &BuilderConfig::default());
        assert_eq!(value(&of, "trt_max_workspace_size"), None);
        let options = BuilderConfig {
            workspace: Some(2 << 30),
            auxiliary_streams: Some(0),
            ..BuilderConfig::default()
        };
        let of = settings(GraphName::DenoiseStep, &options);
        assert_eq!(value(&of, "trt_max_workspace_size"), Some("2147483648"));
        assert_eq!(value(&of, "trt_auxiliary_streams"), Some("0"));
    }
}
