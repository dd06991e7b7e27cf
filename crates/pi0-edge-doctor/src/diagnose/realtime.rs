//! Rules on what real-time threads ask for.

use super::{Rules, remedy, size};
use crate::Limit;
use crate::finding::Code;

pub(super) fn judge(rules: &mut Rules<'_>) {
    if !rules.facts.system.running {
        let message = "no /proc here: kernel, limits, clocks and memory of the running system cannot be told";
        rules.note(Code::NotRunning, message);
        return;
    }
    kernel(rules);
    isolation(rules);
    rtprio(rules);
    memlock(rules);
    throttling(rules);
}

fn kernel(rules: &mut Rules<'_>) {
    let system = &rules.facts.system;
    let Some(preemption) = &rules.facts.realtime.preemption else { return };
    if preemption == "PREEMPT_RT" {
        return rules.ok(Code::RtKernel, "the kernel is PREEMPT_RT");
    }
    let distribution = system.distribution.as_deref().unwrap_or_default();
    let remedy = if let Some(l4t) = &system.l4t {
        remedy::jetson_rt_kernel(l4t, system.soc.as_deref())
    } else if distribution.contains("Ubuntu") {
        "sudo pro enable realtime-kernel && sudo reboot".into()
    } else {
        let debian = if system.architecture.as_deref() == Some("aarch64") { "arm64" } else { "amd64" };
        format!("sudo apt install linux-image-rt-{debian} && sudo reboot")
    };
    let remedy = remedy::of_the_kernel(rules.facts, remedy);
    let message = format!("the kernel is {preemption}, not PREEMPT_RT: worst cases are milliseconds");
    rules.warn(Code::NotRtKernel, message, remedy);
}

fn isolation(rules: &mut Rules<'_>) {
    if let Some(cpus) = &rules.facts.realtime.isolated_cpus {
        return rules.ok(Code::IsolatedCpus, format!("processors {cpus} are isolated"));
    }
    let present = rules.facts.power.present_cpus.as_deref();
    let last = present.and_then(|p| p.rsplit(['-', ',']).next()).unwrap_or("N");
    let parameters = format!("isolcpus={last} nohz_full={last} rcu_nocbs={last}");
    let remedy = if rules.facts.system.is_jetson() {
        format!(
            "sudo sed -i 's/^\\( *APPEND .*\\)/\\1 {parameters}/' /boot/extlinux/extlinux.conf && sudo reboot"
        )
    } else {
        format!(
            "add {parameters} to GRUB_CMDLINE_LINUX in /etc/default/grub, then sudo update-grub && sudo reboot"
        )
    };
    let remedy = remedy::of_the_kernel(rules.facts, remedy);
    let message = "no processor is isolated: other threads run where the control loop does";
    rules.info(Code::IsolatedCpus, message, remedy);
}

fn rtprio(rules: &mut Rules<'_>) {
    let Some(limits) = &rules.facts.realtime.limits else { return };
    match limits.rtprio {
        _ if limits.may_set_priority => {
            rules.ok(Code::RtprioLimit, "any real-time priority may be taken (CAP_SYS_NICE)");
        }
        Limit::Unlimited => rules.ok(Code::RtprioLimit, "any real-time priority may be taken"),
        Limit::At(0) => rules.warn(
            Code::RtprioLimit,
            "no real-time priority may be taken (limit 0)",
            remedy::limit(rules.facts, "rtprio", "99"),
        ),
        Limit::At(n) => rules.ok(Code::RtprioLimit, format!("real-time priorities up to {n} may be taken")),
    }
}

fn memlock(rules: &mut Rules<'_>) {
    let Some(limits) = &rules.facts.realtime.limits else { return };
    match limits.memlock {
        _ if limits.may_lock_memory => {
            rules.ok(Code::MemlockLimit, "any memory may be locked (CAP_IPC_LOCK)")
        }
        Limit::Unlimited => rules.ok(Code::MemlockLimit, "any memory may be locked"),
        Limit::At(n) => rules.warn(
            Code::MemlockLimit,
            format!("only {} may be locked: the runtime's memory can be paged out", size(n)),
            remedy::limit(rules.facts, "memlock", "unlimited"),
        ),
    }
}

fn throttling(rules: &mut Rules<'_>) {
    match rules.facts.realtime.runtime_us {
        Some(us) if us < 0 => {
            let message = "real-time threads are never stopped: one that spins hangs its processor";
            rules.info(Code::RtThrottling, message, "sudo sysctl kernel.sched_rt_runtime_us=950000");
        }
        Some(us) => {
            rules.ok(Code::RtThrottling, format!("real-time threads may use {} ms of each second", us / 1000))
        }
        None => {}
    }
}
