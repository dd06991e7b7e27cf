//! Board, power mode, clocks.

use super::Rules;
use crate::finding::{Code, Severity};
use crate::{Clock, PowerMode};

pub(super) fn judge(rules: &mut Rules<'_>) {
    board(rules);
    l4t(rules);
    power_mode(rules);
    cpus(rules);
    clocks(rules);
    governor(rules);
}

fn board(rules: &mut Rules<'_>) {
    let system = &rules.facts.system;
    let kernel = system.kernel.as_ref().map(|k| format!("Linux {k}"));
    let parts = [system.board.clone(), system.distribution.clone(), kernel, system.architecture.clone()];
    let known: Vec<String> = parts.into_iter().flatten().collect();
    rules.ok(Code::Board, if known.is_empty() { "nothing known".into() } else { known.join(", ") });
}

fn l4t(rules: &mut Rules<'_>) {
    let Some(l4t) = &rules.facts.system.l4t else { return };
    let jetpack = l4t.jetpack.as_ref().map(|j| format!(" (JetPack {j})")).unwrap_or_default();
    rules.ok(Code::L4t, format!("L4T {}{jetpack}", l4t.version));
    // The fix of CVE-2025-33177 in 36.4.7 made NvMap count memory so that large allocations fail that would fit.
    let numbers = l4t.numbers();
    if numbers >= vec![36, 4, 7] && numbers < vec![36, 5] {
        rules.warn(Code::L4tMemoryBug, format!(
                    "L4T {} refuses large GPU allocations that would fit (NvMapMemAllocInternalTagged error 12)",
                    l4t.version
                ), "sudo sed -i 's/r36\\.4/r36.5/' /etc/apt/sources.list.d/nvidia-l4t-apt-source.list && sudo apt update \
                 && sudo apt dist-upgrade && sudo reboot");
    }
}

fn describe(mode: &PowerMode) -> String {
    match &mode.name {
        Some(name) => format!("{name} (mode {})", mode.id),
        None => format!("mode {}", mode.id),
    }
}

fn power_mode(rules: &mut Rules<'_>) {
    let (power, system) = (&rules.facts.power, &rules.facts.system);
    match (&power.mode, &power.fastest) {
        (Some(mode), Some(fastest)) if mode.id != fastest.id => rules.warn(
            Code::PowerMode,
            format!("{}; {} is faster", describe(mode), describe(fastest)),
            format!("sudo nvpmodel -m {}", fastest.id),
        ),
        (Some(mode), _) => rules.ok(Code::PowerMode, describe(mode)),
        (None, _) if system.is_jetson() && system.running => {
            rules.info(Code::PowerMode, "unknown: /var/lib/nvpmodel/status says nothing", "sudo nvpmodel -q")
        }
        (None, _) => {}
    }
}

fn cpus(rules: &mut Rules<'_>) {
    let power = &rules.facts.power;
    let (Some(online), Some(present)) = (&power.online_cpus, &power.present_cpus) else { return };
    if online == present {
        return;
    }
    let jetson = rules.facts.system.is_jetson();
    // On a PC it is mostly somebody's choice, such as no hyper-threads.
    let severity = if jetson { Severity::Warning } else { Severity::Info };
    let remedy = match power.fastest.as_ref().filter(|_| jetson) {
        Some(fastest) => format!("sudo nvpmodel -m {}", fastest.id),
        None => "echo 1 | sudo tee /sys/devices/system/cpu/cpu*/online".into(),
    };
    let message = format!("processors {online} run, of {present}");
    rules.find(Code::CpusOffline, severity, message, remedy);
}

fn clocks(rules: &mut Rules<'_>) {
    let facts = rules.facts;
    if !facts.system.is_jetson() {
        if facts.gpu().is_some() && facts.system.running {
            let message = "the clocks of a discrete GPU cannot be told from files";
            rules.info(Code::Clocks, message, "nvidia-smi -q -d CLOCK,PERFORMANCE");
        }
        return;
    }
    let clocks = &facts.power.clocks;
    if clocks.is_empty() {
        return;
    }
    let moving: Vec<String> = clocks.iter().filter(|c| !c.locked()).map(range).collect();
    if moving.is_empty() {
        let fixed: Vec<String> = clocks.iter().map(range).collect();
        return rules.ok(Code::Clocks, format!("locked: {}", fixed.join(", ")));
    }
    rules.warn(
        Code::Clocks,
        format!("they fall when idle, and the first chunk after a pause is slow: {}", moving.join(", ")),
        "sudo jetson_clocks",
    );
}

fn range(clock: &Clock) -> String {
    let mhz = |hz: u64| hz / 1_000_000;
    let capped = clock.hardware_max.filter(|h| *h > clock.max).map(|h| format!(" of {}", mhz(h)));
    let capped = capped.unwrap_or_default();
    if clock.locked() {
        format!("{} {}{capped} MHz", clock.name, mhz(clock.max))
    } else {
        format!("{} {}–{}{capped} MHz", clock.name, mhz(clock.min), mhz(clock.max))
    }
}

fn governor(rules: &mut Rules<'_>) {
    let facts = rules.facts;
    let governors = facts.power.governors.join(", ");
    let mut cpus = facts.power.clocks.iter().filter(|c| c.name.starts_with("CPU")).peekable();
    let locked = cpus.peek().is_some() && cpus.all(Clock::locked);
    match governors.as_str() {
        "" => {}
        "performance" => rules.ok(Code::Governor, "performance"),
        other if locked => rules.ok(Code::Governor, format!("{other}, with the clocks locked")),
        other => rules.warn(
            Code::Governor,
            format!("{other}: processors slow down between ticks"),
            if facts.system.is_jetson() {
                "sudo jetson_clocks"
            } else {
                "sudo cpupower frequency-set -g performance"
            },
        ),
    }
}
