//! Sets of engines for tests. The engines' bytes are nonsense, for TensorRT is not needed to keep them; everything
//! around them is what a build writes.

#![allow(dead_code)] // each test crate uses its part

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pi0_edge::bundle::GraphName;
use pi0_edge::internals::{Building, CacheLock, EngineCache};
use pi0_edge::tensorrt::{BuilderConfig, GpuPin, Pins, Record};

/// A directory as `EngineCache::create` makes it.
pub fn cache() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    dir
}

pub fn pins() -> Pins {
    Pins {
        bundle: "ab".repeat(32),
        gpu: GpuPin { name: "Orin".into(), compute_capability: 87, multiprocessors: 16 },
        tensorrt: "10.3.0".into(),
        onnxruntime: "1.31.1 (0123abc)".into(),
    }
}

/// Writes a set whose engines hold `bytes`.
pub fn build(root: &Path, pins: &Pins, bytes: &[u8]) -> Record {
    build_some(root, pins, bytes, &GraphName::ALL)
}

/// Writes a set with engines of some graphs.
pub fn build_some(root: &Path, pins: &Pins, bytes: &[u8], graphs: &[GraphName]) -> Record {
    let cache = EngineCache::open(root).unwrap();
    let lock = CacheLock::take(&cache).unwrap();
    let bundle = Path::new("/bundles/pi0");
    let mut building =
        Building::start(&cache, &lock, pins.clone(), BuilderConfig::default(), bundle).unwrap();
    for graph in graphs.iter().map(|g| g.as_str()) {
        let engine = format!("{graph}_1_sm87.engine");
        fs::write(building.directory().join(&engine), bytes).unwrap();
        fs::write(building.context_model(graph), context_model(&engine)).unwrap();
    }
    building.finish(&mut |_, _| {}).unwrap()
}

/// The ONNX file that stands for a graph whose engine is `engine`: a model of one `EPContext` node, as ONNX Runtime
/// writes it, in protobuf's wire format.
pub fn context_model(engine: &str) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let attribute = |name: &str, value: &[u8]| field(5, &[&field(1, name.as_bytes()), value].concat());
    let embed_mode = attribute("embed_mode", &[3 << 3, 0]);
    let engine = attribute("ep_cache_context", &field(4, engine.as_bytes()));
    let node = [field(4, b"EPContext"), embed_mode, engine, field(7, b"com.microsoft")].concat();
    field(7, &field(1, &node))
}
