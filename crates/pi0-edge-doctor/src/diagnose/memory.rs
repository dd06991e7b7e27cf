//! Rules on memory.

use super::{Rules, size};
use crate::Provider;
use crate::finding::{Code, Severity};

/// Blocks of this size and more are what NVIDIA's allocator asks for first.
const LARGE_BLOCK: u64 = 4 << 20;

const FREE_MEMORY: &str = "sync && echo 3 | sudo tee /proc/sys/vm/drop_caches && echo 1 | sudo tee \
                           /proc/sys/vm/compact_memory   # or reboot";

const STOP_OTHERS: &str = "ps aux --sort=-rss | head   # and stop what is not needed";

pub(super) fn judge(rules: &mut Rules<'_>) {
    let memory = &rules.facts.memory;
    let (Some(usable), Some(available)) = (memory.usable(), memory.available) else { return };
    let available = available.min(usable);
    let group =
        memory.group_limit.map(|l| format!(", {} of it for this control group", size(l))).unwrap_or_default();
    let total = memory.total.unwrap_or(usable);
    let largest =
        memory.largest_free_block.map(|l| format!(", largest free block {}", size(l))).unwrap_or_default();
    rules.ok(Code::Memory, format!("{}{group}, {} available{largest}", size(total), size(available)));
    suffices(rules, usable, available);
    fragmentation(rules);
    swap(rules);
}

fn suffices(rules: &mut Rules<'_>, usable: u64, available: u64) {
    let Some(needs) = rules.bundle.map(|b| &b.memory).filter(|m| m.all_weights() > 0) else {
        if available < usable / 10 {
            let message = format!("only {} of {} is available", size(available), size(usable));
            rules.warn(Code::LowMemory, message, STOP_OTHERS);
        }
        return;
    };
    // A discrete GPU has memory of its own, whose size files do not tell.
    let gpu = rules.wants_gpu() && rules.facts.gpu().is_some_and(|g| g.integrated);
    // For x86_64 processors ONNX Runtime has no fp16 kernels: it expands the weights to fp32 once and for all.
    let expands = !rules.wants_gpu() && rules.facts.system.architecture.as_deref() == Some("x86_64");
    let provider = rules.wanted.filter(|_| gpu).unwrap_or(Provider::Cpu);
    let (needed, weights) = (needs.running(provider, expands), needs.all_weights());
    let message = |what: &str, have| {
        format!(
            "the bundle needs about {} ({} of weights), {what} {}",
            size(needed),
            size(weights),
            size(have)
        )
    };
    let built = rules.findings.iter().any(|f| f.code == Code::Engines);
    if provider == Provider::TensorRt && !built && needs.building() > available {
        let message = format!(
            "building the engines takes up to {}, three times the largest graph's weights; available are {} of {}",
            size(needs.building()),
            size(available),
            size(usable)
        );
        let remedy = match needs.building() > usable {
            true => {
                "run it with --provider cuda, which builds nothing, or export the bundle with --precision fp16"
            }
            false => FREE_MEMORY,
        };
        rules.warn(Code::LowMemory, message, remedy);
    }
    if needed > usable {
        let remedy = match expands {
            true => {
                "use a machine with more memory, or its GPU (--provider cuda) and a bundle exported with \
                 --precision fp16"
            }
            false => "export the bundle with --precision fp16, or use a board with more memory",
        };
        rules.error(Code::LowMemory, message("this machine has", usable), remedy);
    } else if needed > available {
        let remedy = if gpu { FREE_MEMORY } else { STOP_OTHERS };
        rules.warn(Code::LowMemory, message("available are", available), remedy);
    }
}

fn fragmentation(rules: &mut Rules<'_>) {
    let memory = &rules.facts.memory;
    let Some(largest) = memory.largest_free_block else { return };
    // Only a GPU that takes its memory from the kernel's pages is hurt.
    if rules.facts.gpu().is_some_and(|g| g.integrated) && largest < LARGE_BLOCK {
        let message =
            format!("the largest free block is {} ({} of them)", size(largest), memory.largest_free_blocks);
        rules.warn(Code::MemoryFragmented, message, FREE_MEMORY);
    }
}

fn swap(rules: &mut Rules<'_>) {
    let swap = &rules.facts.memory.swap;
    if swap.is_empty() {
        return rules.ok(Code::Swap, "no swap");
    }
    let zram = swap.iter().all(|s| s.zram);
    let (total, used) = (swap.iter().map(|s| s.size).sum(), swap.iter().map(|s| s.used).sum::<u64>());
    let kind = if zram { "compressed memory (zram)" } else { "disk" };
    let message = format!("{} of swap on {kind}, {} used", size(total), size(used));
    let remedy = if zram && rules.facts.system.is_jetson() {
        "sudo systemctl disable --now nvzramconfig"
    } else {
        "sudo swapoff -a"
    };
    let severity = if used > 0 { Severity::Warning } else { Severity::Info };
    rules.find(Code::Swap, severity, message, remedy);
}
