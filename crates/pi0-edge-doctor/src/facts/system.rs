//! Architecture, kernel, distribution, board and L4T.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::tree::Tree;

/// The kind of machine.
#[derive(Debug, Clone, Default, Serialize)]
pub struct System {
    /// `aarch64` or `x86_64`.
    pub architecture: Option<String>,
    /// The distribution's own name for itself.
    pub distribution: Option<String>,
    /// Kernel release, as `uname -r` prints it.
    pub kernel: Option<String>,
    /// The board's name from the device tree.
    pub board: Option<String>,
    /// The system on chip from the device tree, such as `tegra234`.
    pub soc: Option<String>,
    /// NVIDIA's Linux for Tegra, on Jetsons.
    pub l4t: Option<L4t>,
    /// True inside a container.
    pub container: bool,
    /// True if the tree has a `/proc`: if not, nothing about the running system can be told.
    pub running: bool,
}

/// A release of Linux for Tegra.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct L4t {
    /// Release and revision, such as `36.4.7`.
    pub version: String,
    /// The JetPack it belongs to, such as `6.2.1`; `None` for a release that came after this program.
    pub jetpack: Option<String>,
}

impl L4t {
    /// The numbers of the version, for comparing.
    pub fn numbers(&self) -> Vec<u64> {
        crate::loader::numbers(&self.version)
    }
}

impl System {
    /// Returns true if the GPU shares the memory with the CPU, as on every Jetson.
    pub fn is_jetson(&self) -> bool {
        self.l4t.is_some() || self.soc.as_deref().is_some_and(|s| s.starts_with("tegra"))
    }

    pub(crate) fn read(tree: &Tree, packages: &BTreeMap<String, String>) -> System {
        let kernel = tree.text("/proc/sys/kernel/osrelease");
        System {
            architecture: architecture(tree),
            distribution: distribution(tree),
            board: tree
                .text("/proc/device-tree/model")
                .or_else(|| tree.text("/sys/class/dmi/id/product_name")),
            soc: tree.text("/proc/device-tree/compatible").and_then(|c| parse_compatible(&c)),
            l4t: l4t(tree, packages),
            container: tree.exists("/.dockerenv") || tree.exists("/run/.containerenv"),
            running: kernel.is_some(),
            kernel,
        }
    }
}

fn architecture(tree: &Tree) -> Option<String> {
    // Kernels before 6.1 do not say; their list of processors, or the loader's file name, gives it away.
    let known = tree.text("/proc/sys/kernel/arch").filter(|a| !a.is_empty());
    known.or_else(|| {
        let info = tree.text("/proc/cpuinfo").unwrap_or_default();
        let arm = info.contains("CPU implementer") || tree.exists("/lib/ld-linux-aarch64.so.1");
        let x86 = info.contains("vendor_id") || tree.exists("/lib64/ld-linux-x86-64.so.2");
        match (arm, x86) {
            (true, false) => Some("aarch64".into()),
            (false, true) => Some("x86_64".into()),
            _ => None,
        }
    })
}

fn distribution(tree: &Tree) -> Option<String> {
    let release = tree.text("/etc/os-release")?;
    let name = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="))?;
    Some(name.trim_matches('"').to_owned())
}

/// A list of strings ending in NULs, from the board to the chip: `nvidia,p3768-0000+p3767-0000`, `nvidia,tegra234`.
/// JetPack 5 adds the chip's family behind it, `nvidia,tegra23x`.
fn parse_compatible(compatible: &str) -> Option<String> {
    let names =
        || compatible.split('\0').filter(|s| !s.is_empty()).map(|s| s.rsplit(',').next().unwrap_or(s));
    let chip = |s: &&str| s.strip_prefix("tegra").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
    names().find(chip).or_else(|| names().next_back()).map(str::to_owned)
}

fn l4t(tree: &Tree, packages: &BTreeMap<String, String>) -> Option<L4t> {
    let version = tree
        .text("/etc/nv_tegra_release")
        .and_then(|t| parse_release(&t))
        .or_else(|| packages.get("nvidia-l4t-core")?.split('-').next().map(str::to_owned))?;
    let installed = packages.get("nvidia-jetpack").and_then(|v| v.split('+').next()).map(str::to_owned);
    let jetpack = installed.or_else(|| jetpack_of(&version).map(str::to_owned));
    Some(L4t { version, jetpack })
}

/// Takes `36.4.7` out of `# R36 (release), REVISION: 4.7, GCID: …`.
fn parse_release(text: &str) -> Option<String> {
    let release = text.split('R').nth(1)?.split(' ').next()?;
    let revision = text.split("REVISION:").nth(1)?.split(',').next()?.trim();
    let plain = |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_digit() || c == '.');
    (plain(release) && plain(revision)).then(|| format!("{release}.{revision}"))
}

/// NVIDIA's JetPack archive, as of September 2026.
fn jetpack_of(l4t: &str) -> Option<&'static str> {
    const RELEASES: [(&str, &str); 15] = [
        ("35.4.1", "5.1.2"),
        ("35.5.0", "5.1.3"),
        ("35.6.0", "5.1.4"),
        ("36.3.0", "6.0"),
        ("36.4.0", "6.1"),
        ("36.4.3", "6.2"),
        ("36.4.4", "6.2.1"),
        ("36.4.7", "6.2.1"),
        ("36.5.0", "6.2.2"),
        ("36.5.2", "6.2.3"),
        ("38.2.0", "7.0"),
        ("38.2.1", "7.0"),
        ("38.4.0", "7.1"),
        ("39.2.0", "7.2"),
        ("39.2.1", "7.2.1"),
    ];
    RELEASES.iter().find(|(release, _)| *release == l4t).map(|(_, jetpack)| *jetpack)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chip_is_told_from_its_board_and_its_family() {
        for (compatible, soc) in [
            ("nvidia,p4071-0000+p3834-0008\0nvidia,p3834-0008\0nvidia,tegra264\0", "tegra264"),
            (
                "nvidia,p3737-0000+p3701-0005\0nvidia,p3701-0005\0nvidia,tegra234\0nvidia,tegra23x\0",
                "tegra234",
            ),
            ("raspberrypi,5-model-b\0brcm,bcm2712\0", "bcm2712"),
        ] {
            assert_eq!(parse_compatible(compatible).as_deref(), Some(soc));
        }
        assert_eq!(parse_compatible("\0"), None);
    }

    #[test]
    fn the_release_line_is_understood() {
        let line =
            "# R36 (release), REVISION: 4.7, GCID: 42132812, BOARD: generic, EABI: aarch64, DATE: Thu Sep 18";
        assert_eq!(parse_release(line).as_deref(), Some("36.4.7"));
        assert_eq!(parse_release("# R38 (release), REVISION: 2.0\n").as_deref(), Some("38.2.0"));
        assert_eq!(parse_release("# Rxy (release), REVISION: 2.0"), None);
        assert_eq!(parse_release(""), None);
    }
}
