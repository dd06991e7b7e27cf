//! NVIDIA GPUs and their kernel driver.

use serde::Serialize;

use super::system::System;
use crate::tree::Tree;

/// One NVIDIA GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// Its name, as far as files tell it.
    pub name: String,
    /// Part of a Jetson, sharing its memory.
    pub integrated: bool,
    /// The compute capability as one number, 87 for 8.7; `None` for a GPU that came after this program.
    pub architecture: Option<u32>,
    /// Its PCI device number, such as `2684`.
    pub pci_device: Option<String>,
}

/// NVIDIA's kernel driver.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Driver {
    /// True if a kernel module drives the GPU.
    pub loaded: bool,
    /// The version it reports; development builds report none.
    pub version: Option<String>,
    /// True if a device file for the GPU exists.
    pub device_files: bool,
}

impl Driver {
    pub(crate) fn read(tree: &Tree) -> Driver {
        let version = tree.text("/proc/driver/nvidia/version");
        const DEVICES: [&str; 4] =
            ["/dev/nvidia0", "/dev/nvgpu/igpu0", "/dev/nvhost-gpu", "/dev/nvhost-ctrl-gpu"];
        Driver {
            // Orin's GPU is driven by `nvgpu`, whose presence shows in the device files alone.
            loaded: version.is_some()
                || tree.exists("/sys/module/nvidia")
                || tree.exists("/sys/module/nvgpu"),
            version: version.as_deref().and_then(parse_version),
            device_files: DEVICES.iter().any(|d| tree.exists(d)),
        }
    }
}

/// The first dotted number of `NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build …`.
fn parse_version(text: &str) -> Option<String> {
    let number = |w: &&str| w.contains('.') && w.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.lines().find(|l| l.starts_with("NVRM"))?.split_whitespace().find(number).map(str::to_owned)
}

/// The GPUs of the machine: the Jetson's own, or those on the PCI bus.
pub(crate) fn read(tree: &Tree, system: &System) -> Vec<Gpu> {
    let integrated = system.soc.as_deref().or_else(|| soc_of_l4t(system)).and_then(of_soc);
    let mut gpus: Vec<Gpu> = integrated.into_iter().collect();
    for slot in tree.list("/sys/bus/pci/devices") {
        let file = |name| tree.text(&format!("/sys/bus/pci/devices/{slot}/{name}"));
        let display = file("class").is_some_and(|c| c.starts_with("0x03"));
        if !display || file("vendor").as_deref() != Some("0x10de") {
            continue;
        }
        let device = file("device").unwrap_or_default().trim_start_matches("0x").to_lowercase();
        let architecture = u32::from_str_radix(&device, 16).ok().and_then(architecture_of);
        // Thor's own GPU is on its PCI bus as well.
        if gpus.iter().any(|g| g.integrated && g.architecture == architecture) {
            continue;
        }
        let name = tree.text(&format!("/proc/driver/nvidia/gpus/{slot}/information"));
        let name =
            name.as_deref().and_then(|t| t.lines().find_map(|l| l.strip_prefix("Model:"))).map(str::trim);
        gpus.push(Gpu {
            name: name.map_or_else(|| format!("NVIDIA GPU {device}"), str::to_owned),
            integrated: false,
            architecture,
            pci_device: Some(device),
        });
    }
    gpus
}

/// A tree without a device tree still tells by its L4T, where that supports one chip only.
fn soc_of_l4t(system: &System) -> Option<&'static str> {
    match system.l4t.as_ref()?.numbers().first()? {
        36 => Some("tegra234"),
        38 => Some("tegra264"),
        _ => None,
    }
}

fn of_soc(soc: &str) -> Option<Gpu> {
    let (name, architecture) = match soc {
        "tegra210" => ("Tegra X1", 53),
        "tegra186" => ("Tegra X2", 62),
        "tegra194" => ("Xavier", 72),
        "tegra234" => ("Orin", 87),
        "tegra264" => ("Thor", 110),
        _ => return None,
    };
    Some(Gpu { name: name.into(), integrated: true, architecture: Some(architecture), pci_device: None })
}

/// Compute capability by PCI device number: NVIDIA numbers each chip's boards in a block, as `pci.ids` lists them.
fn architecture_of(device: u32) -> Option<u32> {
    Some(match device {
        0x15f0..=0x15ff | 0x1725..=0x172f => 60,
        0x1b00..=0x1d7f => 61,
        0x1d80..=0x1dff => 70,
        0x1e00..=0x1fff | 0x2180..=0x21ff => 75,
        0x2080..=0x20ff => 80,
        0x2200..=0x227f | 0x2400..=0x25ff => 86,
        0x2300..=0x237f => 90,
        0x2680..=0x28ff => 89,
        0x2900..=0x29ff => 100,
        0x2b00 => 110,
        0x2b80..=0x2dff | 0x2f00..=0x2f7f => 120,
        0x2e00..=0x2e7f => 121,
        0x3180..=0x31ff => 103,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn driver_versions_are_found_in_all_wordings() {
        for (line, version) in [
            (
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.216.03  Thu Apr  3 01:14:19 UTC 2025",
                "535.216.03",
            ),
            (
                "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build  (x@y)",
                "540.4.0",
            ),
        ] {
            assert_eq!(parse_version(line).as_deref(), Some(version));
        }
        assert_eq!(parse_version("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  Temp"), None);
        assert_eq!(parse_version("GCC version:  gcc version 12.3.0"), None);
    }

    #[test]
    fn known_cards_have_their_architecture() {
        for (device, architecture) in [
            (0x1eb8, 75),  // T4
            (0x20b0, 80),  // A100
            (0x2204, 86),  // RTX 3090
            (0x2335, 90),  // H200
            (0x2684, 89),  // RTX 4090
            (0x2901, 100), // B200
            (0x2b00, 110), // Thor
            (0x2b85, 120), // RTX 5090
            (0x2d04, 120), // RTX 5060 Ti
            (0x2f04, 120), // RTX 5070
        ] {
            assert_eq!(architecture_of(device), Some(architecture), "{device:04x}");
        }
        assert_eq!(architecture_of(0x228b), None, "an audio function");
    }
}
