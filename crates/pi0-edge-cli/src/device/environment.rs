//! The machine, software and settings of the figures, and what about them limits the speed.

use std::path::Path;

use pi0_edge::Policy;
use pi0_edge::internals::{hash_file, hex};
use pi0_edge_doctor::sensors::Sensors;
use pi0_edge_doctor::{BundleFacts, Facts, Finding, Group, Options, Severity, diagnose};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::environment;
use crate::options::LoadOptions;
use crate::output::file_name;

/// The environment, and the doctor's warnings about it.
pub struct Environment {
    /// By subject, each a list of names and values; what is unknown is left out.
    pub blocks: Vec<(&'static str, Vec<(String, String)>)>,
    /// The doctor's warnings and errors.
    pub findings: Vec<String>,
    /// SHA-256 over everything that does not change by itself: rows are comparable where it is equal.
    pub sha256: String,
    /// True if the machine's files were read from another place than this machine.
    pub recorded: bool,
}

/// Gathers it. `root` is `/`, or a tree in which another machine's files were recorded.
pub fn gather(policy: &Policy, load: &LoadOptions, root: &Path) -> Environment {
    let recorded = root != Path::new("/");
    let env = |name: &str| std::env::var(name).ok().filter(|_| !recorded);
    let library = policy.inspect().environment().library();
    let options = Options { ort_library: Some(library.to_path_buf()), ..Options::default() };
    let facts = Facts::gather(root, &env, &options);
    let report = diagnose(&facts, Some(&BundleFacts::read(policy.bundle().root())), None);
    // The library was loaded here, and is none of the recorded tree's.
    let elsewhere = |f: &&Finding| recorded && f.code.group() == Group::OnnxRuntime;
    let bad = |f: &&Finding| matches!(f.severity, Severity::Error | Severity::Warning);
    let findings = report.findings.iter().filter(bad).filter(|f| !elsewhere(f));
    let findings = findings.map(|f| format!("{}: {}", f.severity.as_str(), f.message)).collect();

    let lasting = [
        ("machine", machine(&facts)),
        ("software", software(policy, &facts)),
        ("bundle and run", run(policy, load)),
    ];
    let sha256 = digest(&lasting);
    let mut blocks: Vec<_> = lasting.into();
    blocks.push(("at that moment", moment(&facts, &Sensors::find(root))));
    blocks.push(("files", files(policy)));
    for (_, lines) in &mut blocks {
        lines.retain(|(_, value)| !value.is_empty());
    }
    Environment { blocks, findings, sha256, recorded }
}

type Lines = Vec<(String, String)>;

fn line(name: &str, value: impl Into<Option<String>>) -> (String, String) {
    (name.to_owned(), value.into().unwrap_or_default())
}

fn machine(facts: &Facts) -> Lines {
    let (system, power, realtime) = (&facts.system, &facts.power, &facts.realtime);
    let mode = power.mode.as_ref().map(|m| match &m.name {
        Some(name) => format!("{} ({name})", m.id),
        None => m.id.to_string(),
    });
    let gpus: Vec<_> = facts.gpus.iter().map(|g| g.name.clone()).collect();
    vec![
        line("module", system.board.clone()),
        line("processor", environment::processor()),
        line("GPU", gpus.join(", ")),
        line("architecture", system.architecture.clone()),
        line("memory", facts.memory.total.map(gigabytes)),
        line("kernel", system.kernel.clone()),
        line("preemption", realtime.preemption.clone()),
        line("isolated CPUs", realtime.isolated_cpus.clone()),
        line("power mode", mode),
        line("CPUs online", power.online_cpus.clone()),
        line("governor", power.governors.join(", ")),
    ]
}

fn software(policy: &Policy, facts: &Facts) -> Lines {
    let version = |c: &Option<pi0_edge_doctor::Component>| c.as_ref().map(|c| c.version.clone());
    let l4t = facts.system.l4t.as_ref();
    vec![
        line("pi0-edge", env!("CARGO_PKG_VERSION").to_owned()),
        line("profile", if cfg!(debug_assertions) { "debug: not for figures" } else { "release" }.to_owned()),
        line("distribution", facts.system.distribution.clone()),
        line("L4T", l4t.map(|l| l.version.clone())),
        line("JetPack", l4t.and_then(|l| l.jetpack.clone())),
        line("CUDA", version(&facts.software.cuda)),
        line("cuDNN", version(&facts.software.cudnn)),
        line("TensorRT", version(&facts.software.tensorrt)),
        line("ONNX Runtime", policy.inspect().environment().version().to_owned()),
        line("driver", facts.driver.version.clone()),
    ]
}

/// Lists what the command line and the bundle say, as `bench` describes them.
fn run(policy: &Policy, load: &LoadOptions) -> Lines {
    const ELSEWHERE: [&str; 10] = [
        "pi0_edge",
        "profile",
        "onnxruntime",
        "architecture",
        "processor",
        "governor",
        "kernel",
        "load_average",
        "onnxruntime_library",
        "onnxruntime_build",
    ];
    let described = environment::describe(policy, load.threads);
    let kept = described.as_object().into_iter().flatten().filter(|(k, _)| !ELSEWHERE.contains(&k.as_str()));
    kept.map(|(name, value)| (name.replace('_', " "), environment::word(value)))
        .chain(nodes(policy))
        .collect()
}

/// Lists the providers of each graph's nodes, such as `cuda 312, cpu 4`.
fn nodes(policy: &Policy) -> Lines {
    let placement = environment::placement(policy);
    let graph = |(name, providers): (&String, &Value)| {
        let providers = providers.as_object().into_iter().flatten();
        let counts: Vec<_> = providers.map(|(provider, n)| format!("{provider} {n}")).collect();
        line(&format!("nodes of {name}"), counts.join(", "))
    };
    placement.as_object().into_iter().flatten().map(graph).collect()
}

fn moment(facts: &Facts, sensors: &Sensors) -> Lines {
    let zones = sensors.names().zones.into_iter().zip(sensors.read().zones);
    let temperatures = zones.filter_map(|(zone, celsius)| {
        Some(line(&format!("temperature {zone}"), format!("{:.1} °C", celsius?)))
    });
    let clocks = facts.power.clocks.iter().map(|c| {
        let locked = if c.locked() { ", fixed" } else { "" };
        let now = c.now.unwrap_or(c.max) as f64 / 1e6;
        (format!("clock {}", c.name), format!("{now:.0} MHz of {:.0}{locked}", c.max as f64 / 1e6))
    });
    let memory = &facts.memory;
    let blocks = |size| format!("{} × {} MB", memory.largest_free_blocks, size as f64 / 1048576.0);
    let swap: u64 = memory.swap.iter().map(|s| s.used).sum();
    let mut lines = vec![
        line("memory available", memory.available.map(gigabytes)),
        line("largest free blocks (lfb)", memory.largest_free_block.map(blocks)),
        line("swap used", (!memory.swap.is_empty()).then(|| gigabytes(swap))),
    ];
    lines.extend(clocks);
    lines.extend(temperatures);
    lines
}

fn files(policy: &Policy) -> Lines {
    let manifest = policy.bundle().path("manifest.json");
    let program = std::env::current_exe().unwrap_or_default();
    let library = policy.inspect().environment().library();
    vec![
        line("sha256 of pi0-edge", sha256(&program)),
        line("sha256 of ONNX Runtime", sha256(library)),
        line("ONNX Runtime's file", file_name(library)),
        line("ONNX Runtime's build", policy.inspect().environment().build_info().to_owned()),
        line("sha256 of manifest.json", sha256(&manifest)),
    ]
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

fn sha256(path: &Path) -> Option<String> {
    hash_file(std::fs::File::open(path).ok()?, |_| true).ok()?
}

fn digest(blocks: &[(&'static str, Lines)]) -> String {
    let mut hash = Sha256::new();
    for (name, value) in blocks.iter().flat_map(|(_, lines)| lines) {
        hash.update(format!("{name}={value}\n"));
    }
    hex(&hash.finalize())
}

impl Environment {
    /// The value of a line, if it is known.
    pub fn value(&self, name: &str) -> Option<&str> {
        let mut lines = self.blocks.iter().flat_map(|(_, lines)| lines);
        lines.find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The machine's name in a table.
    pub fn device(&self) -> &str {
        self.value("module").or_else(|| self.value("processor")).unwrap_or("unknown machine")
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let value = |(name, value): &(String, String)| (name.clone(), Value::from(value.clone()));
        let block = |lines: &Lines| Value::Object(lines.iter().map(value).collect());
        let blocks = self.blocks.iter().map(|(name, lines)| ((*name).to_owned(), block(lines)));
        json!({
            "sha256": self.sha256,
            "recorded_elsewhere": self.recorded,
            "findings": self.findings,
            "blocks": blocks.collect::<Map<_, _>>(),
        })
    }
}
