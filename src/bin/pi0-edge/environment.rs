//! What a measurement was made on.

use std::path::Path;

use pi0_edge::Policy;
use serde_json::{Value, json};

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(Path::new(path)).ok().map(|s| s.trim().to_owned())
}

/// The processor's name as the kernel gives it: a model name on x86, the board's on ARM.
fn processor() -> Option<String> {
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
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    json!({
        "pi0_edge": env!("CARGO_PKG_VERSION"),
        "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
        "onnxruntime": policy.environment().build_info(),
        "onnxruntime_library": policy.environment().library().file_name().map(|f| f.to_string_lossy()),
        "execution_provider": "cpu",
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
    })
}
