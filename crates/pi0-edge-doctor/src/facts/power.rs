//! Power mode and clocks.

use serde::Serialize;

use crate::tree::Tree;

/// The limits on the machine's speed.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Power {
    /// The Jetson's mode, as `nvpmodel -q` reports it.
    pub mode: Option<PowerMode>,
    /// The fastest mode the board offers.
    pub fastest: Option<PowerMode>,
    /// Processors that run, in the kernel's notation (`0-7`).
    pub online_cpus: Option<String>,
    /// Processors that exist.
    pub present_cpus: Option<String>,
    /// The governors of the CPU clusters.
    pub governors: Vec<String>,
    /// Clocks of CPU clusters, GPU and memory.
    pub clocks: Vec<Clock>,
}

/// A power mode of `nvpmodel`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PowerMode {
    /// Its number.
    pub id: u32,
    /// Its name, if the board's configuration has it.
    pub name: Option<String>,
}

/// A clock and the range it may move in, in Hz.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Clock {
    /// The part it drives.
    pub name: String,
    /// The lowest it may fall to.
    pub min: u64,
    /// The highest it may rise to now.
    pub max: u64,
    /// Its value when it was read.
    pub now: Option<u64>,
    /// The highest the hardware allows, if known.
    pub hardware_max: Option<u64>,
}

impl Clock {
    fn new(
        name: String,
        range: [Option<u64>; 2],
        now: Option<u64>,
        hardware_max: Option<u64>,
    ) -> Option<Self> {
        let [min, max] = range;
        Some(Clock { name, min: min?, max: max?, now, hardware_max })
    }

    /// Returns true if the clock cannot move.
    pub fn locked(&self) -> bool {
        self.min == self.max
    }
}

impl Power {
    pub(crate) fn read(tree: &Tree) -> Power {
        let modes = modes(tree);
        let status = tree.text("/var/lib/nvpmodel/status").and_then(|t| parse_status(&t));
        let mode = status.map(|id| PowerMode {
            id,
            name: modes.iter().find(|m| m.mode.id == id).and_then(|m| m.mode.name.clone()),
        });
        let mut clocks = Vec::new();
        let mut governors = Vec::new();
        for policy in tree.list("/sys/devices/system/cpu/cpufreq") {
            let dir = format!("/sys/devices/system/cpu/cpufreq/{policy}");
            governors.extend(tree.text(&format!("{dir}/scaling_governor")));
            let hz = |name: &str| tree.number::<u64>(&format!("{dir}/{name}")).map(|khz| khz * 1000);
            let range = [hz("scaling_min_freq"), hz("scaling_max_freq")];
            let (now, hardware_max) = (hz("scaling_cur_freq"), hz("cpuinfo_max_freq"));
            clocks.extend(Clock::new(format!("CPU {policy}"), range, now, hardware_max));
        }
        governors.sort_unstable();
        governors.dedup();
        for device in tree.list("/sys/class/devfreq") {
            let dir = format!("/sys/class/devfreq/{device}");
            let Some(name) = drives(tree, &dir, &device) else { continue };
            let hz = |file: &str| tree.number::<u64>(&format!("{dir}/{file}"));
            let steps = tree.text(&format!("{dir}/available_frequencies")).unwrap_or_default();
            let hardware_max = steps.split_whitespace().filter_map(|s| s.parse().ok()).max();
            clocks.extend(Clock::new(name, [hz("min_freq"), hz("max_freq")], hz("cur_freq"), hardware_max));
        }
        Power {
            mode,
            fastest: fastest(modes),
            online_cpus: tree.text("/sys/devices/system/cpu/online"),
            present_cpus: tree.text("/sys/devices/system/cpu/present"),
            governors,
            clocks,
        }
    }
}

/// Names what a devfreq device drives, if it matters here.
pub(crate) fn drives(tree: &Tree, dir: &str, device: &str) -> Option<String> {
    // Orin: `17000000.gpu`, before that `17000000.ga10b`; Thor: `gpu-gpc-0`, `gpu-nvd-0` and `bwmgr` for the memory.
    let node = tree.text(&format!("{dir}/device/of_node/name")).unwrap_or_default();
    let gpu =
        |n: &str| n.contains("gpu") || n.ends_with("ga10b") || n.ends_with("gv11b") || n.ends_with("gp10b");
    if gpu(device) || gpu(&node) {
        Some(format!("GPU {device}"))
    } else {
        (device == "bwmgr").then(|| format!("memory {device}"))
    }
}

/// Takes 2 out of `pmode:0002 fmode:quiet`.
fn parse_status(text: &str) -> Option<u32> {
    let digits = text.split("pmode:").nth(1)?;
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

struct Ranked {
    mode: PowerMode,
    /// Upper bounds of memory and GPU clock; no bound is the highest.
    bounds: (u64, u64),
}

/// The modes of `/etc/nvpmodel.conf`, each `< POWER_MODEL ID=0 NAME=MAXN >` and lines such as `GPU MAX_FREQ -1`.
fn modes(tree: &Tree) -> Vec<Ranked> {
    let mut modes: Vec<Ranked> = Vec::new();
    for line in tree.text("/etc/nvpmodel.conf").unwrap_or_default().lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("< POWER_MODEL ") {
            let field = |key: &str| rest.split_whitespace().find_map(|w| w.strip_prefix(key));
            if let Some(id) = field("ID=").and_then(|v| v.parse().ok()) {
                let mode = PowerMode { id, name: field("NAME=").map(str::to_owned) };
                modes.push(Ranked { mode, bounds: (u64::MAX, u64::MAX) });
            }
        } else if let Some(last) = modes.last_mut() {
            let words: Vec<&str> = line.split_whitespace().collect();
            // -1 and 0 (for the memory) both mean "no bound".
            let bound = |v: &&str| v.parse::<u64>().ok().filter(|v| *v > 0).unwrap_or(u64::MAX);
            match &words[..] {
                ["EMC", "MAX_FREQ", v, ..] => last.bounds.0 = bound(v),
                ["GPU" | "GPU0_GPC", "MAX_FREQ", v, ..] => last.bounds.1 = bound(v),
                _ => {}
            }
        }
    }
    modes
}

/// The mode with the highest clocks. Not the lowest number: an Orin Nano's fastest mode is its third.
fn fastest(modes: Vec<Ranked>) -> Option<PowerMode> {
    let unbound = |m: &Ranked| m.mode.name.as_deref().is_some_and(|n| n.starts_with("MAXN"));
    modes.into_iter().rev().max_by_key(|m| (unbound(m), m.bounds)).map(|m| m.mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_file_is_understood() {
        assert_eq!(parse_status("pmode:0002 fmode:quiet"), Some(2));
        assert_eq!(parse_status("pmode:0000"), Some(0));
        assert_eq!(parse_status("nothing"), None);
    }
}
