//! The doctor's findings on a bundle, on the memory it needs, and on the directory its engines are kept in.

use crate::machine::library::{AARCH64, Library};
use crate::machine::{Machine, install_gpu_runtime, install_libraries, the, trouble};
use pi0_edge_doctor::{BundleFacts, Code, Group, MemoryNeeds, Provider, Report, Severity};

const ENGINES: &str = "/var/cache/pi0-edge/engines";

fn robot() -> Machine {
    let mut machine = Machine::tree("agx-orin");
    install_libraries(&machine, 12);
    install_gpu_runtime(&machine, "/usr/lib/pi0-edge", AARCH64, 12, &[(2, 87)]);
    machine.own_files().file("/var/cache/pi0-edge/engines/notes.txt", b"").private(ENGINES);
    crate::engine_sets::build(&machine.real(ENGINES), &crate::engine_sets::pins(), b"engine");
    machine.options.engine_cache = Some(ENGINES.into());
    machine
}

/// A bundle of a given number of GiB.
fn bundle(gib: u64, precision: &str, target: Provider) -> BundleFacts {
    let (policy, precision) = (Some("pi0".to_owned()), Some(precision.to_owned()));
    let mut facts = BundleFacts::read("/nowhere/pi0".as_ref());
    assert!(facts.problem.is_some());
    facts.problem = None;
    let weights = [("prefix_prefill".to_owned(), gib << 30)].into();
    let memory = MemoryNeeds { weights, precision: precision.clone().unwrap(), ..MemoryNeeds::default() };
    let (target, size) = (Some(target), gib << 30);
    BundleFacts { format_version: Some(1), golden: true, policy, precision, target, size, memory, ..facts }
}

#[test]
fn a_bundle_that_fits_is_in_order() {
    let report = robot().examine_with(&bundle(7, "fp16", Provider::Cuda));
    assert_eq!(trouble(&report), Vec::<String>::new());
    assert_eq!(the(&report, Code::Bundle).message, "/nowhere/pi0: pi0 in fp16 for cuda, 7 GiB");
}

#[test]
fn without_golden_data_parity_cannot_be_shown() {
    let report = robot().examine_with(&BundleFacts { golden: false, ..bundle(7, "fp16", Provider::Cuda) });
    assert_eq!(trouble(&report), ["info NO_GOLDEN_DATA"]);
    assert!(the(&report, Code::NoGoldenData).remedy.as_ref().unwrap().contains("scripts/reference.py"));
    assert!(report.text(false).trim_end().ends_with("pi0-edge check /nowhere/pi0"));
}

#[test]
fn the_target_says_what_is_needed() {
    let machine = robot();
    machine.remove("/usr/lib/aarch64-linux-gnu/libnvinfer.so.10");
    let of = |target| trouble(&machine.examine_with(&bundle(7, "fp16", target)));
    assert_eq!(of(Provider::TensorRt)[0], "error PROVIDER_DEPENDENCY_MISSING");
    assert_eq!(of(Provider::Cuda), ["info PROVIDER_DEPENDENCY_MISSING", "info TENSORRT"]);
}

#[test]
fn memory_is_weighed_against_the_bundle() {
    let machine = robot();
    let low = |gib| {
        let report = machine.examine_with(&bundle(gib, "fp16", Provider::Cuda));
        report.findings.into_iter().find(|f| f.code == Code::LowMemory).map(|f| (f.severity, f.message))
    };
    assert_eq!(low(7), None);
    assert_eq!(low(54).unwrap().0, Severity::Warning);
    assert_eq!(
        low(58).unwrap(),
        (
            Severity::Error,
            "the bundle needs about 62.1 GiB (58 GiB of weights), this machine has 61.4 GiB".to_owned()
        )
    );
    // A control group's bound is the machine, as far as the process can tell.
    let group = "/sys/fs/cgroup/user.slice/user-1000.slice/session-2.scope";
    machine.file(&format!("{group}/memory.max"), b"4294967296\n");
    assert_eq!(low(7).unwrap().0, Severity::Error);
    machine.file(&format!("{group}/memory.max"), b"max\n");
    assert_eq!(low(7), None);
}

#[test]
fn building_engines_needs_more_than_running_them() {
    let mut machine = robot();
    machine.options.engine_cache = Some("/var/cache/pi0-edge/none".into());
    let low = |gib| {
        let report = machine.examine_with(&bundle(gib, "fp16", Provider::TensorRt));
        let found = report.findings.into_iter().find(|f| f.code == Code::LowMemory);
        found.map(|f| (f.severity, f.message, f.remedy.unwrap()))
    };
    assert_eq!(low(7), None);
    let (severity, message, remedy) = low(30).unwrap();
    assert_eq!(severity, Severity::Warning);
    assert!(
        message.starts_with("building the engines takes up to 90 GiB, three times the largest"),
        "{message}"
    );
    assert!(remedy.contains("--provider cuda"), "{remedy}");
}

#[test]
fn an_x86_processor_expands_fp16() {
    let machine = Machine::tree("pc");
    let low = |precision, gib, target| {
        let report = machine.examine_with(&bundle(gib, precision, target));
        report
            .findings
            .into_iter()
            .find(|f| f.code == Code::LowMemory)
            .map(|f| (f.message, f.remedy.unwrap()))
    };
    let (message, remedy) = low("fp16", 60, Provider::Cpu).unwrap();
    assert!(message.starts_with("the bundle needs about 127.5 GiB (60 GiB of weights)"), "{message}");
    assert!(remedy.contains("--provider cuda"), "{remedy}");
    let (message, _) = low("fp32", 60, Provider::Cpu).unwrap();
    assert!(message.starts_with("the bundle needs about 63.8 GiB"), "{message}");
}

#[test]
fn precision_has_to_suit_the_provider() {
    let machine = robot();
    let of = |precision, target| {
        let report = machine.examine_with(&bundle(7, precision, target));
        report.findings.iter().find(|f| f.code == Code::PrecisionUnsupported).map(|f| f.severity)
    };
    assert_eq!(of("bf16", Provider::Cuda), None);
    assert_eq!(of("bf16", Provider::Cpu), Some(Severity::Error));
    assert_eq!(of("fp16", Provider::Cpu), None, "aarch64 has kernels for it");
    machine.file("/proc/device-tree/compatible", b"nvidia,tegra194\0");
    assert_eq!(of("bf16", Provider::Cuda), Some(Severity::Error));
}

#[test]
fn a_bundle_on_disk_is_looked_at_leniently() {
    let dir = tempfile::tempdir().unwrap();
    let machine = robot();
    let examine = || trouble(&machine.examine_with(&BundleFacts::read(dir.path())));
    assert_eq!(examine(), ["error BUNDLE_UNREADABLE"]);
    std::fs::write(dir.path().join("manifest.json"), "{").unwrap();
    assert_eq!(examine(), ["error BUNDLE_UNREADABLE"]);
    let manifest = r#"{"format_version": 2, "unknown": [], "target": "cuda", "files": {"a": {"size": 3}, "b": {"size": 1}}}"#;
    std::fs::write(dir.path().join("manifest.json"), manifest).unwrap();
    std::fs::write(dir.path().join("a"), "12").unwrap();
    assert_eq!(examine(), ["error BUNDLE_FORMAT", "error BUNDLE_INCOMPLETE", "info NO_GOLDEN_DATA"]);
    let report = machine.examine_with(&BundleFacts::read(dir.path()));
    assert!(the(&report, Code::BundleIncomplete).message.ends_with("absent or of another size: a and b"));
}

/// The findings about engines.
fn engines(report: &Report) -> Vec<(Code, Severity, String)> {
    let found = report.findings.iter().filter(|f| f.code.group() == Group::Engines);
    found.map(|f| (f.code, f.severity, f.message.clone())).collect()
}

#[test]
fn engines_are_trusted_only_in_a_directory_of_ones_own() {
    let machine = robot();
    let of = |provider| engines(&machine.examine_for(provider));
    let set = format!("{ENGINES}/{}", crate::engine_sets::pins().key());
    let found = of(Provider::TensorRt);
    assert_eq!((found[0].0, found[0].1), (Code::EngineCache, Severity::Ok));
    assert!(found[0].2.starts_with(&format!("{ENGINES}: mode 0700, 1 set of engines")), "{found:?}");
    machine.mode(ENGINES, 0o770);
    let report = machine.examine_for(Provider::TensorRt);
    let finding = the(&report, Code::EngineCacheUnsafe);
    assert_eq!(finding.severity, Severity::Error);
    assert!(
        finding.remedy.as_ref().unwrap().starts_with("chmod go-w /var/cache/pi0-edge/engines"),
        "{finding:?}"
    );
    assert_eq!(of(Provider::Cuda)[0].1, Severity::Warning, "not what was asked for");
    machine.mode(ENGINES, 0o700).mode(&format!("{set}/denoise_step_1_sm87.engine"), 0o666);
    let found = of(Provider::TensorRt);
    assert_eq!((found[0].0, found[0].1), (Code::EngineUnusable, Severity::Warning));
    assert!(found[0].2.contains("others may write to it"), "{found:?}");
    machine.private(&set).file(&format!("{set}/denoise_step_1_sm87.engine"), b"short");
    assert!(of(Provider::TensorRt)[0].2.contains("has 5 bytes, 6 when it was built"));
    machine.remove(&set).mode("/var/cache/pi0-edge", 0o777);
    assert!(
        of(Provider::TensorRt)[0]
            .2
            .contains("can be replaced by others, who may write to /var/cache/pi0-edge")
    );
    machine.mode("/var/cache/pi0-edge", 0o755).remove(ENGINES);
    let found = of(Provider::TensorRt);
    assert_eq!((found[0].0, found[0].1), (Code::EngineCacheMissing, Severity::Error));
}

#[test]
fn the_bundles_own_engines_are_looked_for() {
    let machine = robot();
    let of = |bundle: &BundleFacts| engines(&machine.examine_with(bundle));
    let mut wanted = bundle(7, "fp16", Provider::TensorRt);
    wanted.manifest_sha256 = Some(crate::engine_sets::pins().bundle);
    let found = of(&wanted).into_iter().find(|f| f.0 == Code::Engines).unwrap();
    assert_eq!(found.1, Severity::Ok);
    assert!(found.2.starts_with("there are engines for /nowhere/pi0 in fp32, "), "{found:?}");
    // Another TensorRT than the one they were built with.
    machine.remove("/usr/lib/aarch64-linux-gnu/libnvinfer.so.10");
    machine.library("/usr/lib/aarch64-linux-gnu/libnvinfer.so.10.16.2", &Library::new(AARCH64));
    machine.link("/usr/lib/aarch64-linux-gnu/libnvinfer.so.10", "libnvinfer.so.10.16.2");
    let foreign = of(&wanted).into_iter().find(|f| f.0 == Code::EnginesForeign).unwrap();
    assert_eq!(foreign.1, Severity::Error);
    assert!(foreign.2.ends_with("built for TensorRT 10.3.0, here it is 10.16.2"), "{foreign:?}");
    // Another bundle.
    wanted.manifest_sha256 = Some("cd".repeat(32));
    let missing = of(&wanted).into_iter().find(|f| f.0 == Code::EnginesMissing).unwrap();
    assert_eq!(missing.1, Severity::Error);
    wanted.target = Some(Provider::Cuda);
    assert!(of(&wanted).iter().all(|f| f.1 == Severity::Ok), "no engines are needed for cuda");
}
