//! The machine, the software and the settings of a measurement.

use pi0_edge::{Manifest, Policy, Result};
use serde::Serialize;
use serde_json::{Value, json};

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|s| s.trim().to_owned())
}

/// The processor's name as the kernel gives it: a model name on x86, the board's on ARM.
pub fn processor() -> Option<String> {
    let info = read("/proc/cpuinfo")?;
    let model = info.lines().find(|l| l.starts_with("model name"));
    model
        .and_then(|l| l.split_once(':'))
        .map(|(_, name)| name.trim().to_owned())
        .or_else(|| read("/proc/device-tree/model").map(|s| s.trim_end_matches('\0').to_owned()))
}

/// Machine, kernel, ONNX Runtime, bundle and settings, as one JSON object.
pub fn describe(policy: &Policy, threads: usize) -> Value {
    let m = policy.manifest();
    let runtime = policy.inspect().environment();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    json!({
        "pi0_edge": env!("CARGO_PKG_VERSION"),
        "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
        "onnxruntime": runtime.version(),
        "onnxruntime_build": runtime.build_info().trim_start_matches("ORT Build Info: "),
        "onnxruntime_library": runtime.library().file_name().map(|f| f.to_string_lossy()),
        "execution_provider": policy.provider(),
        "architecture": std::env::consts::ARCH,
        "processor": processor(),
        "cores": cores,
        "threads": if threads == 0 { cores } else { threads },
        "governor": read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "load_average": read("/proc/loadavg").and_then(|l| l.split(' ').next().map(str::to_owned)),
        "bundle": policy.bundle().root().file_name().map(|f| f.to_string_lossy()),
        "checkpoint": m.source.checkpoint,
        "precision": m.precision,
        "weights": weights(m),
    })
}

/// Returns the origin of the weights: `checkpoint`, which a bundle does not tell trained from untrained, or `random`.
pub fn weights(manifest: &Manifest) -> &'static str {
    if manifest.source.format == "synthetic" { "random" } else { "checkpoint" }
}

/// A value as people read it: a text or an enum's word as it is, everything else as JSON; nothing of null.
pub fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value).unwrap_or_default() {
        Value::Null => String::new(),
        Value::String(s) => s,
        other => other.to_string(),
    }
}

/// A description as lines for people, each after `bullet`; what is unknown is left out.
pub fn lines(description: &Value, bullet: &str) -> String {
    let known = description.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    // The program's name is the one key with a hyphen.
    let name = |key: &str| if key == "pi0_edge" { "pi0-edge".into() } else { key.replace('_', " ") };
    known.map(|(key, value)| format!("{bullet}{}: {}\n", name(key), word(value))).collect()
}

/// Nodes of each graph by the provider that runs them.
pub fn placement(policy: &Policy) -> Value {
    let mut graphs = serde_json::Map::new();
    for (graph, provider, nodes) in policy.inspect().placement() {
        graphs.entry(graph).or_insert_with(|| json!({}))[provider] = json!(nodes);
    }
    graphs.into()
}

/// Memory of the device, in megabytes; null where it is the host's.
pub fn device_memory(policy: &Policy) -> Result<Value> {
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let described = policy
        .inspect()
        .device_memory_use()?
        .map(|u| json!({"used_mb": mb(u.used), "free_mb": mb(u.free), "total_mb": mb(u.total)}));
    Ok(json!(described))
}

/// Memory of this process now, in megabytes: proportional set size, the part of it that is anonymous (cannot be
/// evicted without swap), and the size of the bundle's graph weights to compare with.
pub fn memory(policy: &Policy) -> Value {
    let rollup = read("/proc/self/smaps_rollup").unwrap_or_default();
    let field = |name: &str| {
        let line = rollup.lines().find_map(|l| l.strip_prefix(name));
        line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<f64>().ok()).map(|kb| kb * 1024.0 / 1e6)
    };
    let weights: u64 =
        policy.manifest().files.iter().filter(|(name, _)| name.ends_with(".data")).map(|(_, f)| f.size).sum();
    json!({
        "pss_mb": field("Pss:"),
        "pss_anonymous_mb": field("Pss_Anon:"),
        "pss_file_mb": field("Pss_File:"),
        "weights_mb": weights as f64 / 1e6,
        "tensors_mb": policy.inspect().tensor_bytes() as f64 / 1e6,
    })
}
