//! The conditions of a real-time thread: the kernel's preemption, isolated processors, limits.

use serde::{Serialize, Serializer};

use crate::tree::Tree;

/// Kernel and limits.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Realtime {
    /// `PREEMPT_RT`, `PREEMPT_DYNAMIC`, `PREEMPT` or `none`.
    pub preemption: Option<String>,
    /// Processors kept free of other threads, in the kernel's notation.
    pub isolated_cpus: Option<String>,
    /// Share of each second that real-time threads may use, in microseconds of a million; -1 without a bound.
    pub runtime_us: Option<i64>,
    /// The user the doctor ran as.
    pub uid: Option<u32>,
    /// Limits of the process; `None` if they cannot be read.
    pub limits: Option<Limits>,
    /// The package's limits are installed: members of the group `realtime` may do what a control program does.
    pub realtime_group: bool,
}

/// Limits of the process that ran the doctor, which a program started beside it would have too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// The highest real-time priority the process may take.
    pub rtprio: Limit,
    /// Memory it may lock, in bytes.
    pub memlock: Limit,
    /// Allowed to take any priority, whatever the limit says (`CAP_SYS_NICE`).
    pub may_set_priority: bool,
    /// Allowed to lock any memory, whatever the limit says (`CAP_IPC_LOCK`).
    pub may_lock_memory: bool,
}

/// A resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// At most this much.
    At(u64),
    /// No limit.
    Unlimited,
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Limit::At(n) => serializer.serialize_u64(*n),
            Limit::Unlimited => serializer.serialize_str("unlimited"),
        }
    }
}

const CAP_IPC_LOCK: u32 = 14;
const CAP_SYS_NICE: u32 = 23;

impl Realtime {
    pub(crate) fn read(tree: &Tree) -> Realtime {
        let status = tree.text("/proc/self/status").unwrap_or_default();
        let field = |key: &str| status.lines().find_map(|l| l.strip_prefix(key)).map(str::trim);
        let capabilities = field("CapEff:").and_then(|v| u64::from_str_radix(v, 16).ok()).unwrap_or_default();
        let limits = tree.text("/proc/self/limits").unwrap_or_default();
        let limits =
            soft_limit(&limits, "Max realtime priority").zip(soft_limit(&limits, "Max locked memory"));
        Realtime {
            preemption: preemption(tree),
            isolated_cpus: tree.text("/sys/devices/system/cpu/isolated").filter(|c| !c.is_empty()),
            runtime_us: tree.number("/proc/sys/kernel/sched_rt_runtime_us"),
            uid: field("Uid:").and_then(|v| v.split_whitespace().nth(1)).and_then(|v| v.parse().ok()),
            limits: limits.map(|(rtprio, memlock)| Limits {
                rtprio,
                memlock,
                may_set_priority: capabilities & 1 << CAP_SYS_NICE != 0,
                may_lock_memory: capabilities & 1 << CAP_IPC_LOCK != 0,
            }),
            realtime_group: tree.exists("/etc/security/limits.d/50-pi0-edge.conf"),
        }
    }
}

fn preemption(tree: &Tree) -> Option<String> {
    // The RT patch set has a file of its own; the mainline kernel (6.12 on) names it in its version alone.
    if tree.number("/sys/kernel/realtime") == Some(1) {
        return Some("PREEMPT_RT".into());
    }
    let version = tree.text("/proc/version")?;
    let known = ["PREEMPT_RT", "PREEMPT_DYNAMIC", "PREEMPT"].into_iter().find(|p| version.contains(p));
    Some(known.unwrap_or("none").into())
}

/// The soft limit of a line such as `Max locked memory         8388608              8388608              bytes`.
fn soft_limit(limits: &str, name: &str) -> Option<Limit> {
    let value = limits.lines().find_map(|l| l.strip_prefix(name))?.split_whitespace().next()?;
    if value == "unlimited" { Some(Limit::Unlimited) } else { value.parse().ok().map(Limit::At) }
}
