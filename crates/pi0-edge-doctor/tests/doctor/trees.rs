//! The doctor's findings on four machines, code by code.

use crate::machine::library::{AARCH64, X86_64};
use crate::machine::{Machine, in_order, install_gpu_runtime, install_libraries, onnxruntime, the, trouble};
use pi0_edge_doctor::{Code, Provider, Report};

const PACKAGED: &str = "/usr/lib/pi0-edge";

#[test]
fn orin_nx_a_day_after_flashing() {
    let machine = Machine::tree("orin-nx");
    install_libraries(&machine, 12);
    install_gpu_runtime(&machine, PACKAGED, AARCH64, 12, &[(2, 87)]);
    let report = machine.examine();
    assert_eq!(
        trouble(&report),
        [
            "warning L4T_MEMORY_BUG",
            "warning POWER_MODE",
            "warning CLOCKS",
            "warning GOVERNOR",
            "warning NOT_RT_KERNEL",
            "warning RTPRIO_LIMIT",
            "warning MEMLOCK_LIMIT",
            "info ISOLATED_CPUS",
            "warning MEMORY_FRAGMENTED",
            "warning SWAP",
        ]
    );
    assert_eq!(
        in_order(&report),
        [
            "ORT_LIBRARY",
            "TELEMETRY",
            "GPU",
            "DRIVER",
            "PROVIDER",
            "KERNELS",
            "PROVIDER",
            "CUDA",
            "TENSORRT",
            "CUDNN",
            "BOARD",
            "L4T",
            "RT_THROTTLING",
            "MEMORY",
        ]
    );
    assert!(report.is_usable());
    assert_eq!(the(&report, Code::L4t).message, "L4T 36.4.7 (JetPack 6.2.1)");
    assert_eq!(the(&report, Code::PowerMode).message, "25W (mode 3); MAXN_SUPER (mode 0) is faster");
    assert_eq!(the(&report, Code::PowerMode).remedy.as_deref(), Some("sudo nvpmodel -m 0"));
    assert_eq!(the(&report, Code::Gpu).message, "Orin, compute capability 8.7");
    assert_eq!(the(&report, Code::Driver).message, "NVIDIA driver 540.4.0");
    assert_eq!(
        the(&report, Code::Kernels).message,
        "libonnxruntime_providers_cuda.so has code for sm_87; Orin is sm_87"
    );
    assert_eq!(
        the(&report, Code::Cuda).message,
        "CUDA runtime 12.6.68 at /usr/lib/aarch64-linux-gnu/libcudart.so.12"
    );
    assert_eq!(
        the(&report, Code::TensorRt).message,
        "TensorRT 10.3.0 at /usr/lib/aarch64-linux-gnu/libnvinfer.so.10"
    );
    let clocks = &the(&report, Code::Clocks).message;
    assert!(clocks.contains("GPU 17000000.gpu 306–408 of 1173 MHz"), "{clocks}");
    assert!(!clocks.contains("vic"), "{clocks}");
    assert_eq!(the(&report, Code::MemoryFragmented).message, "the largest free block is 1 MiB (3 of them)");
    assert_eq!(the(&report, Code::Swap).message, "7.6 GiB of swap on compressed memory (zram), 256 MiB used");
}

#[test]
fn agx_orin_set_up_for_a_robot() {
    let mut machine = Machine::tree("agx-orin");
    install_libraries(&machine, 12);
    install_gpu_runtime(&machine, PACKAGED, AARCH64, 12, &[(2, 87)]);
    machine.own_files().file("/home/robot/.cache/pi0-edge/engines/.lock", b"1\n");
    machine.private("/home/robot/.cache/pi0-edge/engines");
    crate::engine_sets::build(
        &machine.real("/home/robot/.cache/pi0-edge/engines"),
        &crate::engine_sets::pins(),
        b"engine",
    );
    machine.env("HOME", "/home/robot");
    let report = machine.examine_for(Provider::TensorRt);
    assert_eq!(trouble(&report), Vec::<String>::new());
    assert_eq!(
        in_order(&report),
        [
            "ORT_LIBRARY",
            "TELEMETRY",
            "GPU",
            "DRIVER",
            "PROVIDER",
            "KERNELS",
            "PROVIDER",
            "CUDA",
            "TENSORRT",
            "CUDNN",
            "ENGINE_CACHE",
            "BOARD",
            "L4T",
            "POWER_MODE",
            "CLOCKS",
            "GOVERNOR",
            "RT_KERNEL",
            "ISOLATED_CPUS",
            "RTPRIO_LIMIT",
            "MEMLOCK_LIMIT",
            "RT_THROTTLING",
            "MEMORY",
            "SWAP",
        ]
    );
    assert_eq!(the(&report, Code::PowerMode).message, "MAXN (mode 0)");
    assert_eq!(the(&report, Code::IsolatedCpus).message, "processors 10-11 are isolated");
    assert_eq!(the(&report, Code::Governor).message, "schedutil, with the clocks locked");
}

#[test]
fn thor_with_a_library_from_pypi() {
    let machine = Machine::tree("thor");
    install_libraries(&machine, 13);
    // What the aarch64 wheels of onnxruntime-gpu 1.29 to 1.31 have: desktop and server GPUs, no Jetson.
    install_gpu_runtime(&machine, PACKAGED, AARCH64, 13, &[(2, 89), (2, 90), (2, 120), (2, 121)]);
    let report = machine.examine_for(Provider::Cuda);
    assert_eq!(
        trouble(&report),
        [
            "error NO_KERNELS_FOR_GPU",
            "warning POWER_MODE",
            "warning CPUS_OFFLINE",
            "warning CLOCKS",
            "warning GOVERNOR",
            "warning NOT_RT_KERNEL",
            "warning RTPRIO_LIMIT",
            "warning MEMLOCK_LIMIT",
            "info ISOLATED_CPUS",
        ]
    );
    let kernels = the(&report, Code::NoKernelsForGpu);
    assert!(
        kernels.message.ends_with("code for sm_89, sm_90, sm_120 and sm_121; Thor is sm_110"),
        "{kernels:?}"
    );
    assert!(kernels.remedy.as_ref().unwrap().contains("CMAKE_CUDA_ARCHITECTURES=110"), "{kernels:?}");
    assert_eq!(report.facts.gpus.len(), 1, "Thor's GPU on its PCI bus is the same GPU");
    assert_eq!(the(&report, Code::L4t).message, "L4T 38.2.0 (JetPack 7.0)");
    assert_eq!(the(&report, Code::CpusOffline).message, "processors 0-11 run, of 0-13");
    assert_eq!(
        the(&report, Code::MemlockLimit).message,
        "only 8 MiB may be locked: the runtime's memory can be paged out"
    );
    let clocks = &the(&report, Code::Clocks).message;
    assert!(clocks.contains("memory bwmgr 665–4266 MHz") && clocks.contains("GPU gpu-nvd-0"), "{clocks}");
}

#[test]
fn pc_with_a_driver_older_than_its_cuda() {
    let machine = Machine::tree("pc");
    install_libraries(&machine, 13);
    machine.remove("/usr/lib/x86_64-linux-gnu/libnvinfer.so.10");
    install_gpu_runtime(&machine, PACKAGED, X86_64, 13, &[(2, 80), (2, 86), (1, 90)]);
    let report = machine.examine_for(Provider::Cuda);
    assert_eq!(
        trouble(&report),
        [
            "error DRIVER_TOO_OLD",
            "info PROVIDER_DEPENDENCY_MISSING",
            "warning GOVERNOR",
            "info CLOCKS",
            "warning NOT_RT_KERNEL",
            "warning RTPRIO_LIMIT",
            "warning MEMLOCK_LIMIT",
            "info ISOLATED_CPUS",
            "info SWAP",
        ]
    );
    assert_eq!(the(&report, Code::Gpu).message, "NVIDIA GeForce RTX 4090, compute capability 8.9");
    assert_eq!(
        the(&report, Code::DriverTooOld).message,
        "driver 550.163.01 is older than 580, which CUDA 13 needs"
    );
    assert_eq!(
        the(&report, Code::ProviderDependencyMissing).message,
        "libonnxruntime_providers_tensorrt.so needs libnvinfer.so.10, not found"
    );
    assert_eq!(in_order(&report).iter().filter(|c| **c == "KERNELS").count(), 1, "sm_86 code runs on sm_89");
}

#[test]
fn pc_without_a_gpu() {
    let machine = Machine::tree("pc");
    install_libraries(&machine, 13);
    for gone in ["/sys/bus/pci", "/proc/driver", "/sys/module/nvidia", "/dev/nvidia0"] {
        machine.remove(gone);
    }
    machine.library("/usr/bin/libonnxruntime.so.1", &onnxruntime(X86_64, "1.31.1"));
    let report = machine.examine();
    assert_eq!(
        trouble(&report),
        [
            "info GPU_NOT_FOUND",
            "info PROVIDER_NOT_COMPILED_IN",
            "warning GOVERNOR",
            "warning NOT_RT_KERNEL",
            "warning RTPRIO_LIMIT",
            "warning MEMLOCK_LIMIT",
            "info ISOLATED_CPUS",
            "info SWAP",
        ]
    );
    assert!(report.is_usable());
    assert_eq!(
        the(&report, Code::ProviderNotCompiledIn).message,
        "libonnxruntime.so.1 is built without the cuda and tensorrt providers"
    );
    assert_eq!(
        the(&report, Code::OrtLibrary).message,
        "ONNX Runtime 1.31.1 at /usr/bin/libonnxruntime.so.1 (beside the executable), built with cpu \
         (git-branch=main, git-commit-id=0123abc, build type=Release)"
    );
    let report = machine.examine_for(Provider::TensorRt);
    assert_eq!(the(&report, Code::GpuNotFound).severity.as_str(), "error");
    assert_eq!(
        trouble(&report)[..3],
        ["error GPU_NOT_FOUND", "error PROVIDER_NOT_COMPILED_IN", "info PROVIDER_NOT_COMPILED_IN"]
    );
}

#[test]
fn a_root_file_system_that_is_not_running() {
    let machine = Machine::tree("orin-nx");
    install_libraries(&machine, 12);
    for gone in ["/proc", "/sys", "/dev"] {
        machine.remove(gone);
    }
    install_gpu_runtime(&machine, PACKAGED, AARCH64, 12, &[(2, 87)]);
    machine.library("/lib/ld-linux-aarch64.so.1", &crate::machine::library::Library::new(AARCH64));
    let report = machine.examine();
    assert_eq!(trouble(&report), ["warning L4T_MEMORY_BUG", "warning POWER_MODE", "info NOT_RUNNING"],);
    assert!(in_order(&report).contains(&"KERNELS"), "L4T 36 is for Orin only");
}

#[test]
fn a_container_without_the_gpu() {
    let machine = Machine::tree("agx-orin");
    machine.file("/.dockerenv", b"");
    for gone in ["/dev/nvidia0", "/dev/nvhost-gpu"] {
        machine.remove(gone);
    }
    install_libraries(&machine, 12);
    install_gpu_runtime(&machine, PACKAGED, AARCH64, 12, &[(2, 87)]);
    let report = machine.examine_for(Provider::Cuda);
    assert_eq!(trouble(&report)[0], "error GPU_DEVICE_MISSING");
    let remedy = the(&report, Code::GpuDeviceMissing).remedy.as_deref().unwrap();
    assert!(remedy.contains("--runtime nvidia"), "{remedy}");
}

#[test]
fn limits_do_not_bind_who_has_the_right() {
    let machine = Machine::tree("orin-nx");
    machine.file("/proc/self/status", b"Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n");
    let report = machine.examine();
    assert_eq!(the(&report, Code::RtprioLimit).message, "any real-time priority may be taken (CAP_SYS_NICE)");
    assert_eq!(the(&report, Code::MemlockLimit).message, "any memory may be locked (CAP_IPC_LOCK)");
}

#[test]
fn an_empty_tree_is_no_reason_to_fail() {
    let report = Machine::empty().examine();
    assert_eq!(trouble(&report), ["error ORT_NOT_FOUND", "info GPU_UNKNOWN", "info NOT_RUNNING"]);
}

#[test]
fn real_time_rights_come_with_the_packages_group_where_it_is_installed() {
    let machine = Machine::tree("orin-nx");
    let remedy = |report: &Report| the(report, Code::RtprioLimit).remedy.clone().unwrap();
    assert!(remedy(&machine.examine()).contains("/etc/security/limits.d/pi0-edge.conf"));
    machine.file("/etc/security/limits.d/50-pi0-edge.conf", b"@realtime - rtprio 99\n");
    assert!(remedy(&machine.examine()).starts_with("sudo groupadd --force realtime && sudo usermod"));
}

#[test]
fn every_problem_has_a_remedy() {
    for name in ["orin-nx", "agx-orin", "thor", "pc"] {
        let machine = Machine::tree(name);
        for report in
            [machine.examine(), machine.examine_for(Provider::Cuda), machine.examine_for(Provider::TensorRt)]
        {
            for finding in report.findings.iter().filter(|f| f.severity.as_str() != "ok") {
                let told = finding.remedy.is_some() || finding.severity.as_str() == "info";
                assert!(told && !finding.message.is_empty(), "{name}: {finding:?}");
            }
        }
    }
}
