//! ONNX Runtime, its providers and their dependencies, found and missed as the dynamic loader would.

use std::path::PathBuf;
use std::process::Command;

use crate::machine::library::{AARCH64, Library, X86_64};
use crate::machine::{Machine, install_gpu_runtime, install_libraries, onnxruntime, the, trouble, worst};
use pi0_edge_doctor::{Code, Provider};

const LIB: &str = "/usr/lib/x86_64-linux-gnu";

/// A PC with a GPU, its libraries, and ONNX Runtime where packages put it.
fn pc() -> Machine {
    let machine = Machine::tree("pc");
    install_libraries(&machine, 12);
    install_gpu_runtime(&machine, "/usr/lib/pi0-edge", X86_64, 12, &[(2, 89)]);
    machine
}

fn first(machine: &Machine, provider: Provider) -> String {
    trouble(&machine.examine_for(provider)).into_iter().next().unwrap()
}

#[test]
fn each_missing_library_is_named() {
    let machine = pc();
    machine.remove(&format!("{LIB}/libcublas.so.12")).remove(&format!("{LIB}/libcurand.so.10"));
    let report = machine.examine_for(Provider::Cuda);
    let finding = worst(&report, Code::ProviderDependencyMissing);
    assert_eq!(
        finding.message,
        "libonnxruntime_providers_cuda.so needs libcublas.so.12 and libcurand.so.10, not found"
    );
    assert!(finding.remedy.as_ref().unwrap().starts_with("sudo apt install cuda-libraries-12-6"));
    assert!(!report.is_usable());
    // TensorRT's provider needs the same library, but was not asked for.
    assert_eq!(first(&machine, Provider::Cpu), "info PROVIDER_DEPENDENCY_MISSING");
}

#[test]
fn libraries_of_libraries_are_looked_for() {
    let machine = pc();
    let cudnn = Library::new(X86_64).soname("libcudnn.so.9").needs(&["libnvrtc.so.12"]);
    machine.library(&format!("{LIB}/libcudnn.so.9.3.0"), &cudnn);
    let report = machine.examine_for(Provider::TensorRt);
    let finding = the(&report, Code::ProviderDependencyMissing);
    assert_eq!(
        finding.message,
        "libonnxruntime_providers_tensorrt.so needs libnvrtc.so.12 (for libcudnn.so.9), not found"
    );
}

#[test]
fn an_unsearched_directory_is_pointed_out() {
    let machine = pc();
    machine.remove(&format!("{LIB}/libcublas.so.12"));
    machine.library("/usr/local/cuda-12.6/targets/x86_64-linux/lib/libcublas.so.12", &Library::new(X86_64));
    let report = machine.examine_for(Provider::Cuda);
    let finding = worst(&report, Code::ProviderDependencyMissing);
    let dir = "/usr/local/cuda-12.6/targets/x86_64-linux/lib";
    assert!(finding.message.contains(&format!("libcublas.so.12 (there is one in {dir})")), "{finding:?}");
    let remedy = finding.remedy.as_ref().unwrap();
    assert_eq!(*remedy, format!("echo {dir} | sudo tee /etc/ld.so.conf.d/pi0-edge.conf && sudo ldconfig"));
    // Following the advice helps.
    machine.file("/etc/ld.so.conf.d/pi0-edge.conf", dir.as_bytes());
    assert_ne!(first(&machine, Provider::Cuda), "error PROVIDER_DEPENDENCY_MISSING");
}

#[test]
fn the_search_path_of_the_environment_counts() {
    let mut machine = pc();
    machine.remove(&format!("{LIB}/libcublas.so.12"));
    machine.library("/opt/cuda/libcublas.so.12", &Library::new(X86_64));
    machine.env("LD_LIBRARY_PATH", "relative:/opt/cuda");
    assert!(
        machine
            .examine_for(Provider::Cuda)
            .findings
            .iter()
            .all(|f| f.code != Code::ProviderDependencyMissing)
    );
}

#[test]
fn a_library_of_another_architecture_is_passed_over() {
    let machine = pc();
    machine.remove(&format!("{LIB}/libcuda.so.1"));
    machine.library(&format!("{LIB}/libcuda.so.1"), &Library::new(AARCH64));
    let report = machine.examine_for(Provider::Cuda);
    assert!(the(&report, Code::ProviderDependencyMissing).message.contains("libcuda.so.1"));
}

#[test]
fn runpath_is_not_inherited_and_rpath_is() {
    for (inherited, library) in
        [(false, Library::new(X86_64).runpath("$ORIGIN")), (true, Library::new(X86_64).rpath("$ORIGIN"))]
    {
        let machine = pc();
        // The provider finds `liba` beside itself; `liba` finds `libb` there only through an inherited path.
        let provider = library.exports(&["GetProvider"]).needs(&["liba.so"]);
        machine.library("/usr/lib/pi0-edge/libonnxruntime_providers_cuda.so", &provider);
        machine.library("/usr/lib/pi0-edge/liba.so", &Library::new(X86_64).needs(&["libb.so"]));
        machine.library("/usr/lib/pi0-edge/libb.so", &Library::new(X86_64));
        let missing = &machine.facts().onnxruntime.provider(Provider::Cuda).unwrap().missing.clone();
        let names: Vec<_> = missing.iter().map(|m| m.library.as_str()).collect();
        assert_eq!(names, if inherited { vec![] } else { vec!["libb.so"] });
    }
}

#[test]
fn an_older_c_library_is_told_by_version() {
    let machine = pc();
    let newer =
        onnxruntime(X86_64, "1.31.1").requires("libc.so.6", "GLIBC_2.38").requires("libc.so.6", "GLIBC_2.4");
    machine.library("/usr/lib/pi0-edge/libonnxruntime.so.1", &newer);
    let report = machine.examine();
    let finding = the(&report, Code::LibraryTooOld);
    assert_eq!(finding.severity.as_str(), "error");
    assert_eq!(
        finding.message,
        "libonnxruntime.so.1 needs GLIBC_2.38 of /usr/lib/x86_64-linux-gnu/libc.so.6, which is older \
         (this system has glibc 2.39)"
    );
}

#[test]
fn an_old_runtime_is_refused() {
    let machine = Machine::tree("pc");
    install_libraries(&machine, 13);
    machine.library("/usr/lib/pi0-edge/libonnxruntime.so.1", &onnxruntime(X86_64, "1.19.2"));
    assert_eq!(trouble(&machine.examine())[0], "error ORT_TOO_OLD");
    let report = machine.examine();
    assert_eq!(
        the(&report, Code::OrtTooOld).message,
        "ONNX Runtime 1.19.2 at /usr/lib/pi0-edge/libonnxruntime.so.1 is older than 1.20"
    );
    assert!(report.findings.iter().all(|f| f.code != Code::OrtLibrary), "one file, one finding");
}

#[test]
fn what_a_library_that_will_do_lacks_is_said() {
    let machine = pc();
    let with = |version: &str| {
        let gpu = onnxruntime(X86_64, version).exports(&[
            "OrtSessionOptionsAppendExecutionProvider_CUDA",
            "OrtSessionOptionsAppendExecutionProvider_Tensorrt",
        ]);
        machine.library("/usr/lib/pi0-edge/libonnxruntime.so.1", &gpu);
        let report = machine.examine_for(Provider::Cuda);
        assert!(report.is_usable(), "{version}: {:?}", trouble(&report));
        let lacks = report.findings.iter().filter(|f| f.code == Code::OrtLacks);
        lacks.map(|f| (f.severity.as_str(), f.message.clone(), f.remedy.is_some())).collect::<Vec<_>>()
    };
    let of_old = with("1.23.2");
    assert_eq!(of_old.iter().map(|f| (f.0, f.2)).collect::<Vec<_>>(), [("warning", true), ("info", false)]);
    assert!(of_old[0].1.starts_with("with ONNX Runtime 1.23.2 CUDA graphs stay off: before 1.31.1"));
    assert!(of_old[1].1.contains("does not tell which provider runs which node, as 1.24 does"));
    assert_eq!(with("1.24.0").len(), 1);
    assert_eq!(with("1.31.1"), []);
    // Of no concern to the CPU provider.
    machine.library("/usr/lib/pi0-edge/libonnxruntime.so.1", &onnxruntime(X86_64, "1.20.0"));
    assert!(machine.examine().findings.iter().all(|f| f.code != Code::OrtLacks));
}

#[test]
fn a_version_comes_from_the_file_name_if_from_nowhere_else() {
    let machine = Machine::tree("pc");
    let bare = Library::new(X86_64).exports(&["OrtGetApiBase"]);
    machine.library(&format!("{LIB}/libonnxruntime.so.1.24.2"), &bare);
    machine.link(&format!("{LIB}/libonnxruntime.so.1"), "libonnxruntime.so.1.24.2");
    let report = machine.examine();
    assert!(the(&report, Code::OrtLibrary).message.starts_with("ONNX Runtime 1.24.2 at"));
    machine
        .remove(&format!("{LIB}/libonnxruntime.so.1"))
        .library(&format!("{LIB}/libonnxruntime.so.1"), &bare);
    assert_eq!(trouble(&machine.examine())[0], "warning ORT_VERSION_UNKNOWN");
}

#[test]
fn where_to_get_one_with_a_gpu_depends_on_the_release() {
    let of = |tree: &str| the(&Machine::tree(tree).examine(), Code::OrtNotFound).remedy.clone().unwrap();
    let (orin, thor) = (of("agx-orin"), of("thor"));
    assert!(
        orin.starts_with(
            "take onnxruntime-gpu 1.23.0 from the Jetson AI Lab's index for jp6/cu126, or build"
        ),
        "{orin}"
    );
    assert!(thor.starts_with("build ONNX Runtime against CUDA 13"), "{thor}");
}

#[test]
fn what_was_asked_for_has_no_substitute() {
    let mut machine = pc();
    machine.env("ORT_DYLIB_PATH", "/opt/none/libonnxruntime.so");
    let report = machine.examine();
    let finding = the(&report, Code::OrtNotFound);
    assert_eq!(
        finding.message,
        "no ONNX Runtime; looked at /opt/none/libonnxruntime.so (ORT_DYLIB_PATH: missing)"
    );
    assert_eq!(finding.remedy.as_deref(), Some("unset ORT_DYLIB_PATH, or set it to a libonnxruntime.so"));
    // The command line goes before the environment, and a relative path is the working directory's.
    machine.options.ort_library = Some(PathBuf::from("ort.so"));
    machine.file("/home/robot/ort.so", b"not a library");
    let report = machine.examine();
    assert_eq!(
        the(&report, Code::OrtUnreadable).message,
        "/home/robot/ort.so (asked for) is no 64-bit shared library"
    );
}

#[test]
fn a_library_that_would_not_load_is_passed_over_like_the_session_does() {
    let machine = pc();
    machine.library("/usr/bin/libonnxruntime.so.1", &onnxruntime(X86_64, "1.19.0"));
    machine.library("/usr/bin/lib/libonnxruntime.so.1", &onnxruntime(AARCH64, "1.31.1"));
    let facts = machine.facts();
    let outcomes: Vec<_> = facts.onnxruntime.tried.iter().map(|t| t.outcome).collect();
    assert_eq!(outcomes, ["would not load", "would not load", "missing", "found"]);
    assert_eq!(facts.onnxruntime.library.unwrap().path, "/usr/lib/pi0-edge/libonnxruntime.so.1");
}

#[test]
fn the_wrong_architecture_is_told() {
    let machine = Machine::tree("orin-nx");
    machine.library("/usr/lib/pi0-edge/libonnxruntime.so.1", &onnxruntime(X86_64, "1.31.1"));
    let report = machine.examine();
    assert_eq!(
        the(&report, Code::OrtWrongArchitecture).message,
        "ONNX Runtime 1.31.1 at /usr/lib/pi0-edge/libonnxruntime.so.1 is built for x86_64, this machine is aarch64"
    );
}

#[test]
fn provider_libraries_lie_beside_the_link_that_is_opened() {
    let machine = Machine::tree("pc");
    install_libraries(&machine, 12);
    install_gpu_runtime(&machine, "/opt/ort", X86_64, 12, &[(2, 89)]);
    machine.link("/usr/lib/pi0-edge/libonnxruntime.so.1", "/opt/ort/libonnxruntime.so.1");
    let report = machine.examine_for(Provider::Cuda);
    let missing: Vec<_> = report.findings.iter().filter(|f| f.code == Code::ProviderLibraryMissing).collect();
    assert_eq!(missing[0].message, "/usr/lib/pi0-edge/libonnxruntime_providers_shared.so is not there");
    assert_eq!(
        missing[0].remedy.as_deref(),
        Some("name the file itself, not a link to it: --ort-library /opt/ort/libonnxruntime.so.1")
    );
}

#[test]
fn a_provider_for_another_cuda_needs_another_runtime() {
    let machine = Machine::tree("agx-orin");
    install_libraries(&machine, 12);
    install_gpu_runtime(&machine, "/usr/lib/pi0-edge", AARCH64, 13, &[(2, 89), (2, 90)]);
    let report = machine.examine_for(Provider::Cuda);
    let findings: Vec<_> = report.findings.iter().filter(|f| f.severity.as_str() == "error").collect();
    assert_eq!(findings.len(), 2, "{findings:#?}");
    assert_eq!(
        findings[0].message,
        "libonnxruntime_providers_cuda.so needs libcublas.so.13, libcublasLt.so.13 and libcudart.so.13, not found; \
         it is built for CUDA 13, this L4T has CUDA 12"
    );
    assert_eq!(findings[1].code, Code::NoKernelsForGpu);
    for finding in findings {
        assert!(finding.remedy.as_ref().unwrap().contains("against CUDA 12"), "{finding:?}");
    }
}

#[test]
fn intermediate_code_is_slow_the_first_time() {
    let machine = Machine::tree("agx-orin");
    install_libraries(&machine, 12);
    install_gpu_runtime(&machine, "/usr/lib/pi0-edge", AARCH64, 12, &[(2, 72), (1, 80)]);
    let report = machine.examine_for(Provider::Cuda);
    let finding = the(&report, Code::KernelsNeedJit);
    assert!(finding.message.ends_with("the driver compiles compute_80 code at the first run, for minutes"));
    assert!(report.is_usable());
}

#[test]
fn usage_data_is_off_or_said_to_be_on() {
    let mut machine = Machine::tree("pc");
    let with_uploader =
        onnxruntime(X86_64, "1.31.1").text("https://mobile.events.data.microsoft.com/OneCollector/1.0");
    machine.library("/usr/lib/pi0-edge/libonnxruntime.so.1", &onnxruntime(X86_64, "1.28.0"));
    assert!(the(&machine.examine(), Code::Telemetry).message.contains("no uploader"));
    machine.library("/usr/lib/pi0-edge/libonnxruntime.so.1", &with_uploader);
    assert!(the(&machine.examine(), Code::Telemetry).message.contains("pi0-edge switches it off"));
    machine.env("ORT_DISABLE_TELEMETRY", "0");
    let report = machine.examine();
    assert_eq!(the(&report, Code::Telemetry).severity.as_str(), "warning");
    assert_eq!(the(&report, Code::Telemetry).remedy.as_deref(), Some("export ORT_DISABLE_TELEMETRY=1"));
}

#[test]
fn tensorrt_without_builder_files_for_the_gpu() {
    let machine = pc();
    machine.library(&format!("{LIB}/libnvinfer_builder_resource_sm86.so.10.3.0"), &Library::new(X86_64));
    let report = machine.examine_for(Provider::TensorRt);
    assert_eq!(
        the(&report, Code::TensorRtBuilderMissing).message,
        "TensorRT's builder files are for sm_86; this GPU is sm_89"
    );
    machine.library(&format!("{LIB}/libnvinfer_builder_resource_sm89.so.10.3.0"), &Library::new(X86_64));
    assert!(machine.examine().findings.iter().all(|f| f.code != Code::TensorRtBuilderMissing));
}

#[test]
fn damaged_libraries_do_no_harm() {
    let whole = {
        let machine = pc();
        std::fs::read(machine.real("/usr/lib/pi0-edge/libonnxruntime_providers_cuda.so")).unwrap()
    };
    let machine = pc();
    for cut in (0..whole.len()).step_by(61) {
        machine.file("/usr/lib/pi0-edge/libonnxruntime_providers_cuda.so", &whole[..cut]);
        machine.examine();
    }
    for at in (0..whole.len()).step_by(7) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0xff;
        machine.file("/usr/lib/pi0-edge/libonnxruntime_providers_cuda.so", &flipped);
        machine.facts();
    }
}

/// The compiler makes a library too, and this machine's own loader has to agree with the doctor about it.
#[test]
fn a_compiled_library_is_read_like_a_made_one() {
    let dir = tempfile::tempdir().unwrap();
    let build = |name: &str, extra: &[&str]| {
        std::fs::write(dir.path().join("x.c"), "int GetProvider(void) { return 1; }\n").unwrap();
        let out = dir.path().join(name);
        let done = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(&out)
            .arg(dir.path().join("x.c"))
            .args(extra)
            .status();
        done.is_ok_and(|s| s.success()).then_some(out)
    };
    let soname = ["-Wl,-soname,libdep.so.7", "-nostdlib"];
    let Some(dependency) = build("libdep.so.7", &soname) else {
        eprintln!("skipped: no C compiler");
        return;
    };
    let library =
        build("libonnxruntime.so.1", &["-Wl,--no-as-needed", dependency.to_str().unwrap()]).unwrap();
    std::fs::remove_file(&dependency).unwrap();
    let options = pi0_edge_doctor::Options { ort_library: Some(library.clone()), ..Default::default() };
    let facts = pi0_edge_doctor::Facts::gather("/".as_ref(), &|_| None, &options);
    let found = facts.onnxruntime.library.unwrap();
    if found.architecture != std::env::consts::ARCH {
        eprintln!("skipped: the compiler is for another machine");
        return;
    }
    let missing: Vec<_> = found.missing.iter().map(|m| m.library.as_str()).collect();
    let ldd = Command::new("ldd").arg(&library).output().unwrap();
    let ldd = String::from_utf8_lossy(&ldd.stdout).into_owned();
    let not_found: Vec<_> = ldd
        .lines()
        .filter(|l| l.ends_with("not found"))
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    assert_eq!(missing, ["libdep.so.7"]);
    assert_eq!(missing, not_found, "{ldd}");
    assert!(found.too_old.is_empty(), "{:?}", found.too_old);
}
