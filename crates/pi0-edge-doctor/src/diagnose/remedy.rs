//! Commands to type, by the kind of machine.

use crate::{Facts, L4t, Missing};

/// The CUDA that a release of Linux for Tegra comes with.
pub(super) fn cuda_of_l4t(facts: &Facts) -> Option<u32> {
    match facts.system.l4t.as_ref()?.numbers().first()? {
        35 => Some(11),
        36 => Some(12),
        38 | 39 => Some(13),
        _ => None,
    }
}

/// Returns how to get a library that is missing; `cuda` is the CUDA its user was built for, if known.
pub(super) fn install(missing: &Missing, cuda: Option<u32>, facts: &Facts) -> String {
    if let Some(directory) = &missing.elsewhere {
        return format!("echo {directory} | sudo tee /etc/ld.so.conf.d/pi0-edge.conf && sudo ldconfig");
    }
    let jetson = facts.system.is_jetson();
    let (stem, major) = missing.library.split_once(".so.").unwrap_or((&missing.library, ""));
    let major = major.split('.').next().unwrap_or_default();
    match stem {
        "libcuda" => driver(facts),
        "libcudnn" => {
            let cuda =
                cuda.or_else(|| facts.software.cuda_major()).or_else(|| cuda_of_l4t(facts)).unwrap_or(12);
            format!("sudo apt install libcudnn{major}-cuda-{cuda}")
        }
        "libnvonnxparser" => format!("sudo apt install libnvonnxparsers{major}"),
        s if s.starts_with("libnvinfer_plugin") => format!("sudo apt install libnvinfer-plugin{major}"),
        s if s.starts_with("libnvinfer") => format!("sudo apt install libnvinfer{major}"),
        s if CUDA_LIBRARIES.contains(&s) && jetson => "sudo apt install nvidia-jetpack".into(),
        s if CUDA_LIBRARIES.contains(&s) => {
            let release = if major == "13" || cuda == Some(13) { "13-0" } else { "12-6" };
            format!(
                "sudo apt install cuda-libraries-{release}   # from NVIDIA's repository for your distribution"
            )
        }
        "libstdc++" | "libgcc_s" => "sudo apt install libstdc++6 libgcc-s1".into(),
        _ => format!("apt-file search {}", missing.library),
    }
}

/// Libraries of the CUDA toolkit's run-time packages.
const CUDA_LIBRARIES: [&str; 8] = [
    "libcublas",
    "libcublasLt",
    "libcudart",
    "libcufft",
    "libcurand",
    "libcusparse",
    "libcusolver",
    "libnvrtc",
];

/// Returns how to get the kernel driver and `libcuda`.
pub(super) fn driver(facts: &Facts) -> String {
    let distribution = facts.system.distribution.as_deref().unwrap_or_default();
    if facts.system.container {
        "start the container with the GPU: docker run --gpus all … (on a Jetson: --runtime nvidia)".into()
    } else if facts.system.is_jetson() {
        "sudo apt install --reinstall nvidia-l4t-cuda nvidia-l4t-3d-core && sudo reboot".into()
    } else if distribution.contains("Ubuntu") {
        "sudo ubuntu-drivers install && sudo reboot".into()
    } else {
        "sudo apt install nvidia-driver && sudo reboot".into()
    }
}

/// Returns how to get an ONNX Runtime with GPU code for this machine.
pub(super) fn runtime_for(facts: &Facts) -> String {
    if !facts.system.is_jetson() {
        return "scripts/fetch_onnxruntime.sh --gpu, and --ort-library .cache/onnxruntime-gpu/libonnxruntime.so.1".into();
    }
    let cuda = cuda_of_l4t(facts).map(|c| format!(" against CUDA {c}")).unwrap_or_default();
    let architecture = facts.gpu().and_then(|g| g.architecture).unwrap_or(87);
    // The one ready-made build with code for Orin's GPU.
    let ready = match cuda_of_l4t(facts) {
        Some(12) => "take onnxruntime-gpu 1.23.0 from the Jetson AI Lab's index for jp6/cu126, or ",
        _ => "",
    };
    format!(
        "{ready}build ONNX Runtime{cuda} on or for this Jetson (build.sh --use_cuda --use_tensorrt --cmake_extra_defines \
         CMAKE_CUDA_ARCHITECTURES={architecture}) and name it by --ort-library; no wheel on PyPI has code for it"
    )
}

/// A line for the limits of the user's sessions, or the group that the package has lines for.
pub(super) fn limit(facts: &Facts, name: &str, value: &str) -> String {
    let (unit, container) = match name {
        "rtprio" => ("LimitRTPRIO=99", "99 --cap-add sys_nice"),
        _ => ("LimitMEMLOCK=infinity", "-1"),
    };
    let session = if facts.realtime.realtime_group {
        "sudo groupadd --force realtime && sudo usermod --append --groups realtime \"$USER\"".to_owned()
    } else {
        format!("echo \"$USER - {name} {value}\" | sudo tee -a /etc/security/limits.d/pi0-edge.conf")
    };
    format!(
        "{session}, and log in again (in a systemd unit: {unit}; in a container: docker run --ulimit {name}={container})"
    )
}

/// NVIDIA's real-time kernel, whose packages differ by release and by the driver of the GPU.
pub(super) fn jetson_rt_kernel(l4t: &L4t, soc: Option<&str>) -> String {
    let numbers = l4t.numbers();
    let release = numbers.iter().take(2).map(u64::to_string).collect::<Vec<_>>().join(".");
    let packages = match (numbers.first(), soc) {
        (Some(..=35), _) => "",
        (_, Some("tegra264")) => "{-oot-modules,-openrm} nvidia-l4t-display-rt-kernel",
        (Some(39..), _) => "{-oot-modules,-nvgpu} nvidia-l4t-display-rt-kernel",
        _ => "-oot-modules nvidia-l4t-display-rt-kernel",
    };
    let more = if packages.is_empty() { String::new() } else { format!(" nvidia-l4t-rt-kernel{packages}") };
    format!(
        "echo 'deb https://repo.download.nvidia.com/jetson/rt-kernel r{release} main' | sudo tee -a \
         /etc/apt/sources.list.d/nvidia-l4t-apt-source.list && sudo apt update && sudo apt install \
         nvidia-l4t-rt-kernel nvidia-l4t-rt-kernel-headers{more} && sudo reboot"
    )
}

/// A change of the kernel, which in a container is the host's.
pub(super) fn of_the_kernel(facts: &Facts, command: String) -> String {
    if facts.system.container { format!("on the host: {command}") } else { command }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_time_kernel_is_the_releases_own() {
        let of =
            |version: &str, soc| jetson_rt_kernel(&L4t { version: version.into(), jetpack: None }, Some(soc));
        assert!(of("36.4.7", "tegra234").contains("rt-kernel r36.4 main"));
        assert!(
            of("36.4.7", "tegra234")
                .contains("nvidia-l4t-rt-kernel-oot-modules nvidia-l4t-display-rt-kernel &&")
        );
        assert!(of("38.2.0", "tegra264").contains("nvidia-l4t-rt-kernel{-oot-modules,-openrm}"));
        assert!(of("39.2.0", "tegra234").contains("nvidia-l4t-rt-kernel{-oot-modules,-nvgpu}"));
        assert!(
            of("35.4.1", "tegra194").contains("install nvidia-l4t-rt-kernel nvidia-l4t-rt-kernel-headers &&")
        );
    }
}
