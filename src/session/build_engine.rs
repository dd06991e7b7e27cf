//! TensorRT engines: what this machine would pin one to, and building one.

use std::path::Path;

use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;

use super::environment::Environment;
use super::faults::Lost;
use super::graph_error;
use super::placement;
use super::provider::tensorrt::{self, EngineBuild};
use super::provider::unusable;
use super::shared_library::SharedLibrary;
use crate::bundle::GraphSpec;
use crate::error::Result;
use crate::provider::Provider;
use crate::tensorrt::{GpuPin, Pins};

/// Returns the pins of a set of engines for the bundle with this manifest on this machine. Loads TensorRT.
///
/// # Errors
/// [`ErrorKind::Provider`], within milliseconds, when ONNX Runtime's TensorRT provider, TensorRT or the GPU's driver
/// cannot be loaded: it names every library that is missing and what to install.
pub fn pins_here(environment: &Environment, gpu: u32, bundle_sha256: &str) -> Result<Pins> {
    let fail = |what: &str| unusable(Provider::TensorRt, environment.library(), what);
    // Its options name nothing but the device; parsing them is what loads the provider's library.
    tensorrt::functions().accept(&[("device_id", gpu.to_string())]).map_err(|e| fail(e.message()))?;
    let tensorrt = loaded_file("libnvinfer.so").ok_or_else(|| fail("libnvinfer.so is not loaded"))?;
    Ok(Pins {
        bundle: bundle_sha256.to_owned(),
        gpu: describe(gpu).map_err(|e| fail(&e))?,
        tensorrt: tensorrt_version(&tensorrt).map_err(|e| fail(&e))?,
        onnxruntime: environment.version().to_owned(),
    })
}

/// Builds the engine of one graph and writes it and its context model. Takes minutes for a full-size graph.
///
/// # Errors
/// [`ErrorKind::Provider`] if TensorRT cannot be used or leaves a node to another provider; [`ErrorKind::Graph`] if it
/// cannot build the graph.
pub fn build_engine(
    environment: &Environment,
    model: &Path,
    spec: &GraphSpec,
    build: &EngineBuild<'_>,
) -> Result<()> {
    let fail = |e: ort::Error| graph_error(format_args!("{}: TensorRT cannot build it", build.graph), e);
    let settings = tensorrt::build_settings(build, &spec.inputs)?;
    let start = || -> ort::Result<_> {
        let builder = Session::builder(environment.inner())?.with_no_environment_execution_providers()?;
        placement::demand(builder, environment.placement(), Provider::TensorRt)
    };
    let builder = tensorrt::functions()
        .append(start().map_err(fail)?, &settings)
        .map_err(|e| unusable(Provider::TensorRt, environment.library(), e.message()))?;
    let commit = || -> ort::Result<Session> {
        builder
            // TensorRT is to see the graph as it was exported, with its weights still in their file: what ONNX
            // Runtime rewrites it would have to hand over inside one message, which ends at 2 GB.
            .with_optimization_level(GraphOptimizationLevel::Disable)?
            .with_intra_threads(1)?
            .commit_from_file(model)
    };
    let building = format_args!("{}: TensorRT cannot build it", build.graph);
    let session = Lost::default().watch(build.graph, commit)?;
    let session = session.map_err(|e| placement::not_made(building, e, Provider::TensorRt))?;
    placement::verify(&session, environment.placement(), build.graph, Provider::TensorRt).map(drop)
}

/// The file of a library that this process has loaded, by the beginning of its name.
fn loaded_file(name: &str) -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| loaded_from(line, name)).map(str::to_owned)
}

/// The path at the end of a line of `/proc/self/maps`, if its file name is `name` or that with a version behind it.
fn loaded_from<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let path = &line[line.find('/')?..];
    let version = path.rsplit('/').next()?.strip_prefix(name)?;
    version.chars().all(|c| c == '.' || c.is_ascii_digit()).then_some(path)
}

fn tensorrt_version(path: &str) -> Result<String, String> {
    let library = SharedLibrary::open(path)?;
    // SAFETY: TensorRT declares `int32_t getInferLibVersion()`, with C linkage, in every release.
    let version = unsafe { library.function::<unsafe extern "C" fn() -> i32>(c"getInferLibVersion") }?;
    // SAFETY: it takes nothing and changes nothing.
    Ok(version_text(unsafe { version() }))
}

/// TensorRT 10 counts a major version as 10000, TensorRT 8 as 1000.
pub(crate) fn version_text(number: i32) -> String {
    let (major, rest) =
        if number >= 100_000 { (number / 10_000, number % 10_000) } else { (number / 1000, number % 1000) };
    format!("{major}.{}.{}", rest / 100, rest % 100)
}

/// A GPU, as its driver describes it.
fn describe(gpu: u32) -> Result<GpuPin, String> {
    type Initialise = unsafe extern "C" fn(u32) -> i32;
    type Get = unsafe extern "C" fn(*mut i32, i32) -> i32;
    type Name = unsafe extern "C" fn(*mut std::ffi::c_char, i32, i32) -> i32;
    type Attribute = unsafe extern "C" fn(*mut i32, i32, i32) -> i32;
    const MULTIPROCESSORS: i32 = 16;
    const CAPABILITY: [i32; 2] = [75, 76];
    let driver = SharedLibrary::open("libcuda.so.1")?;
    let check = |what: &str, status: i32| match status {
        0 => Ok(()),
        100 => Err("the driver sees no GPU".to_owned()),
        n => Err(format!("the GPU's driver refuses {what} with error {n}")),
    };
    let (mut device, mut name) = (0, [0u8; 256]);
    // SAFETY: the driver's interface declares these functions with these types, and has for as long as it exists.
    // Every pointer is to a local of the right type, and the name's length is given.
    unsafe {
        check("to start", driver.function::<Initialise>(c"cuInit")?(0))?;
        check("a GPU", driver.function::<Get>(c"cuDeviceGet")?(&mut device, gpu as i32))?;
        let get = driver.function::<Name>(c"cuDeviceGetName")?;
        check("its name", get(name.as_mut_ptr().cast(), name.len() as i32, device))?;
    }
    // SAFETY: as above.
    let get = unsafe { driver.function::<Attribute>(c"cuDeviceGetAttribute") }?;
    let attribute = |which: i32| {
        let mut value = 0;
        // SAFETY: as above.
        check("an attribute", unsafe { get(&mut value, which, device) })?;
        u32::try_from(value).map_err(|_| format!("the GPU's driver gives {value} for attribute {which}"))
    };
    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    Ok(GpuPin {
        name: String::from_utf8_lossy(&name[..end]).into_owned(),
        compute_capability: attribute(CAPABILITY[0])? * 10 + attribute(CAPABILITY[1])?,
        multiprocessors: attribute(MULTIPROCESSORS)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_in_both_countings() {
        assert_eq!(version_text(100_300), "10.3.0");
        assert_eq!(version_text(101_602), "10.16.2");
        assert_eq!(version_text(8601), "8.6.1");
    }

    /// Everything about it is in order, so that what is missing is the provider that has the engine.
    #[test]
    fn a_context_model_is_a_graph_that_only_tensorrt_can_run() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/pi0-tiny/manifest.json");
        let manifest = crate::bundle::Manifest::read(Path::new(path)).unwrap();
        let environment = Environment::get(None).unwrap();
        for graph in crate::bundle::GraphName::ALL {
            let model = crate::tensorrt::context_model(manifest.graph(graph), "a.engine");
            let made = Session::builder(environment.inner()).unwrap().commit_from_memory(&model);
            let said = made.map(|_| ()).unwrap_err().message().to_owned();
            // The one is what ONNX Runtime says today, the other what it said before it looked at whose engine it is.
            let missing = [
                "EPContext node generated by 'TensorrtExecutionProvider' is not compatible",
                "implementation for EPContext",
            ];
            assert!(missing.iter().any(|words| said.contains(words)), "{graph}: {said}");
        }
    }

    #[test]
    fn the_loaded_library_is_told_from_its_neighbours() {
        let line =
            |file: &str| format!("7f00-7f01 r-xp 00000000 fd:00 12   /usr/lib/aarch64-linux-gnu/{file}");
        let of = |file: &str| loaded_from(&line(file), "libnvinfer.so").map(str::to_owned);
        assert!(of("libnvinfer.so.10.3.0").unwrap().ends_with("/libnvinfer.so.10.3.0"));
        assert!(of("libnvinfer.so").is_some());
        assert_eq!(of("libnvinfer_plugin.so.10"), None);
        assert_eq!(loaded_from("7f00-7f01 rw-p 00000000 00:00 0", "libnvinfer.so"), None);
    }

    #[test]
    fn what_is_not_there_is_said() {
        assert!(
            tensorrt_version("/nowhere/libnvinfer.so.10").unwrap_err().contains("/nowhere/libnvinfer.so.10")
        );
    }
}
