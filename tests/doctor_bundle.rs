//! What the doctor says of a bundle, of the memory it needs, and of the directory its engines are kept in.

mod doctor;

use doctor::library::AARCH64;
use doctor::{Machine, install_gpu_runtime, install_libraries, the, trouble};
use pi0_edge::doctor::{BundleFacts, Code, Provider, Severity};

const ENGINES: &str = "/var/cache/pi0-edge/engines";

fn robot() -> Machine {
    let mut machine = Machine::tree("agx-orin");
    install_libraries(&machine, 12);
    install_gpu_runtime(&machine, "/usr/lib/pi0-edge", AARCH64, 12, &[(2, 87)]);
    machine.own_files().file(&format!("{ENGINES}/a.engine"), b"");
    machine.private(ENGINES);
    machine.options.engine_cache = Some(ENGINES.into());
    machine
}

/// A bundle of a given number of GiB.
fn bundle(gib: u64, precision: &str, target: Provider) -> BundleFacts {
    let (policy, precision) = (Some("pi0".to_owned()), Some(precision.to_owned()));
    let mut facts = BundleFacts::read("/nowhere/pi0".as_ref());
    assert!(facts.problem.is_some());
    facts.problem = None;
    BundleFacts { format_version: Some(1), policy, precision, target: Some(target), size: gib << 30, ..facts }
}

#[test]
fn a_bundle_that_fits_is_in_order() {
    let report = robot().examine_with(&bundle(7, "fp16", Provider::Cuda));
    assert_eq!(trouble(&report), Vec::<String>::new());
    assert_eq!(the(&report, Code::Bundle).message, "/nowhere/pi0: pi0 in fp16 for cuda, 7 GiB");
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
    assert_eq!(low(48).unwrap().0, Severity::Warning);
    assert_eq!(
        low(55).unwrap(),
        (
            Severity::Error,
            "the bundle needs about 66.5 GiB (55 GiB of files), this machine has 61.4 GiB".to_owned()
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
    assert_eq!(examine(), ["error BUNDLE_FORMAT", "error BUNDLE_INCOMPLETE"]);
    let report = machine.examine_with(&BundleFacts::read(dir.path()));
    assert!(the(&report, Code::BundleIncomplete).message.ends_with("absent or of another size: a and b"));
}

#[test]
fn engines_are_trusted_only_in_a_directory_of_ones_own() {
    let machine = robot();
    let of = |provider| {
        let report = machine.examine_for(provider);
        let found: Vec<_> =
            report.findings.iter().filter(|f| f.code.as_str().starts_with("ENGINE")).cloned().collect();
        found
    };
    assert_eq!(of(Provider::TensorRt)[0].message, format!("{ENGINES}: mode 0700, 1 file"));
    machine.mode(ENGINES, 0o770);
    let found = of(Provider::TensorRt);
    assert_eq!((found[0].code, found[0].severity), (Code::EngineCacheUnsafe, Severity::Error));
    assert_eq!(found[0].remedy.as_deref(), Some("chmod 700 /var/cache/pi0-edge/engines"));
    assert_eq!(of(Provider::Cuda)[0].severity, Severity::Warning, "not what was asked for");
    machine.mode(ENGINES, 0o700).mode(&format!("{ENGINES}/a.engine"), 0o666);
    assert!(of(Provider::TensorRt)[0].message.starts_with("others own or may write a.engine"));
    machine.private(ENGINES).file("/proc/self/status", b"Uid:\t4242\t4242\t4242\t4242\n");
    assert!(of(Provider::TensorRt)[0].message.contains("who may put code into it"));
    machine.remove(ENGINES);
    assert_eq!(
        (of(Provider::TensorRt)[0].code, of(Provider::TensorRt)[0].severity),
        (Code::EngineCacheMissing, Severity::Error)
    );
}
