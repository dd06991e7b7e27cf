//! Making a thread fit for real time, and saying honestly how far that went.
//!
//! Each measure is asked for and then read back from the system; what is reported is what was read. With
//! [`Realtime::Enforce`] a missing one is an error, with [`Realtime::Try`] it is listed in [`Obtained::missing`].

use std::io;

use serde::Serialize;

use crate::{Error, ErrorKind, Result};

/// What to do where a real-time right is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Realtime {
    /// Fail with an error of kind [`ErrorKind::RealtimeDenied`].
    Enforce,
    /// Go on without, and report it.
    #[default]
    Try,
    /// Ask for nothing.
    Off,
}

/// Which memory stays in RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryLock {
    /// None in particular.
    Off,
    /// Every page once it has been touched. Start-up does not have to read what is never used.
    OnFault,
    /// Everything, now and later: no page is ever read or made on first touch. Needs RAM for all of it, mapped model
    /// files included.
    #[default]
    All,
}

/// What a real-time thread is to have. Heap and memory lock concern the whole process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadConfig {
    /// What to do where a right is missing.
    pub realtime: Realtime,
    /// SCHED_FIFO priority, 1 to 99; none leaves the scheduling policy alone.
    pub priority: Option<i32>,
    /// The CPUs it may run on; empty leaves that alone.
    pub cpus: Vec<usize>,
    /// Which memory stays in RAM.
    pub lock_memory: MemoryLock,
    /// How many bytes of its stack are touched beforehand, so that they are there.
    pub prefault_stack: usize,
    /// Whether memory given back to the allocator stays with the process, so that asking again does not fault.
    pub keep_heap: bool,
}

impl Default for ThreadConfig {
    /// Try for SCHED_FIFO 80 on any CPU, all memory locked, 256 KiB of stack touched, the heap kept.
    fn default() -> Self {
        ThreadConfig {
            realtime: Realtime::Try,
            priority: Some(80),
            cpus: Vec::new(),
            lock_memory: MemoryLock::All,
            prefault_stack: 256 << 10,
            keep_heap: true,
        }
    }
}

/// A measure that was asked for and not obtained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Which one.
    pub what: &'static str,
    /// Why, and what to do about it.
    pub why: String,
}

/// What a thread has, as read back from the system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Obtained {
    /// What was to be done where a right is missing.
    pub realtime: Realtime,
    /// The scheduling policy: `fifo`, `rr`, `other`, `batch`, `idle`, `deadline`, or `unknown`.
    pub scheduler: &'static str,
    /// Its priority; 0 where the policy has none.
    pub priority: i32,
    /// The CPUs it may run on.
    pub cpus: Vec<usize>,
    /// How much of the process's memory is locked, in KiB (`VmLck`).
    pub locked_kib: u64,
    /// How many bytes of its stack were touched.
    pub stack_prefaulted: usize,
    /// Whether memory given back to the allocator stays with the process.
    pub heap_kept: bool,
    /// What was asked for and not obtained.
    pub missing: Vec<Missing>,
}

impl ThreadConfig {
    /// Nothing but a report of how things are.
    pub fn off() -> Self {
        ThreadConfig { realtime: Realtime::Off, ..ThreadConfig::default() }
    }

    /// Applies the measures to the calling thread: once, before its real-time part.
    ///
    /// RT-safe: no. Thread: any.
    pub fn apply(&self) -> Result<Obtained> {
        let mut missing = Vec::new();
        let (mut stack_prefaulted, mut heap_kept) = (0, false);
        if self.realtime != Realtime::Off {
            let measures: [(&'static str, io::Result<()>); 3] = [
                ("memory lock", lock_memory(self.lock_memory)),
                ("CPU affinity", set_affinity(&self.cpus)),
                ("scheduling", self.priority.map_or(Ok(()), set_fifo)),
            ];
            for (what, outcome) in measures {
                if let Err(error) = outcome {
                    missing.push(Missing { what, why: error.to_string() });
                }
            }
            heap_kept = self.keep_heap && keep_heap();
            if self.keep_heap && !heap_kept {
                missing.push(Missing {
                    what: "heap",
                    why: "this C library cannot be told to keep memory".into(),
                });
            }
            stack_prefaulted = prefault_stack(self.prefault_stack);
        }
        let obtained = self.read_back(missing, stack_prefaulted, heap_kept)?;
        match (self.realtime, obtained.missing.first()) {
            (Realtime::Enforce, Some(Missing { what, why })) => Err(Error::new(
                ErrorKind::RealtimeDenied,
                format!("real time enforced, {what} not obtained: {why}"),
            )),
            _ => Ok(obtained),
        }
    }

    /// Reads everything back, and lists as missing what a call said it had done but the system does not show.
    fn read_back(&self, missing: Vec<Missing>, stack_prefaulted: usize, heap_kept: bool) -> Result<Obtained> {
        let failed =
            |what: &str, e: io::Error| Error::with_source(ErrorKind::Io, format!("reading back {what}"), e);
        let (scheduler, priority) = scheduler().map_err(|e| failed("the scheduling policy", e))?;
        let cpus = affinity().map_err(|e| failed("the CPU affinity", e))?;
        let locked_kib = locked_kib().map_err(|e| failed("the locked memory", e))?;
        let mut obtained = Obtained {
            realtime: self.realtime,
            scheduler,
            priority,
            cpus,
            locked_kib,
            stack_prefaulted,
            heap_kept,
            missing,
        };
        if self.realtime != Realtime::Off {
            let wanted = sorted(&self.cpus);
            let differs = [
                (
                    "scheduling",
                    self.priority.is_some_and(|p| (obtained.scheduler, obtained.priority) != ("fifo", p)),
                ),
                ("CPU affinity", !wanted.is_empty() && obtained.cpus != wanted),
                ("memory lock", self.lock_memory != MemoryLock::Off && obtained.locked_kib == 0),
            ];
            for (what, differs) in differs {
                if differs && obtained.missing.iter().all(|m| m.what != what) {
                    let why = "the system accepted it but does not show it".into();
                    obtained.missing.push(Missing { what, why });
                }
            }
        }
        Ok(obtained)
    }
}

fn sorted(cpus: &[usize]) -> Vec<usize> {
    let mut cpus = cpus.to_vec();
    cpus.sort_unstable();
    cpus.dedup();
    cpus
}

/// The last system error, with advice where there is some.
fn last_error(advice: &str) -> io::Error {
    let error = io::Error::last_os_error();
    match error.kind() {
        io::ErrorKind::PermissionDenied => io::Error::new(error.kind(), format!("{error}; {advice}")),
        _ => error,
    }
}

fn set_fifo(priority: i32) -> io::Result<()> {
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: `param` is valid for the call; 0 means the calling thread.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &param) } {
        0 => Ok(()),
        _ => Err(last_error(
            "allow it with `rtprio` in limits.conf, LimitRTPRIO= in the service, or CAP_SYS_NICE",
        )),
    }
}

fn scheduler() -> io::Result<(&'static str, i32)> {
    // SAFETY: 0 means the calling thread; no memory is involved.
    let policy = unsafe { libc::sched_getscheduler(0) };
    let mut param = libc::sched_param { sched_priority: 0 };
    // SAFETY: `param` is valid to write to.
    if policy < 0 || unsafe { libc::sched_getparam(0, &mut param) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let name = match policy & !libc::SCHED_RESET_ON_FORK {
        libc::SCHED_FIFO => "fifo",
        libc::SCHED_RR => "rr",
        libc::SCHED_OTHER => "other",
        libc::SCHED_BATCH => "batch",
        libc::SCHED_IDLE => "idle",
        libc::SCHED_DEADLINE => "deadline",
        _ => "unknown",
    };
    Ok((name, param.sched_priority))
}

fn set_affinity(cpus: &[usize]) -> io::Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    // SAFETY: all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus {
        if cpu >= libc::CPU_SETSIZE as usize {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("there is no CPU {cpu}")));
        }
        // SAFETY: `cpu` is within the set, as just checked.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: `set` is valid and of the size given; 0 means the calling thread.
    match unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) } {
        0 => Ok(()),
        _ => Err(last_error("the service's CPUAffinity= or a cpuset may forbid it")),
    }
}

fn affinity() -> io::Result<Vec<usize>> {
    // SAFETY: all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid to write to and of the size given.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: every index is within the set.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect())
}

fn lock_memory(lock: MemoryLock) -> io::Result<()> {
    let flags = match lock {
        MemoryLock::Off => return Ok(()),
        MemoryLock::OnFault => libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT,
        MemoryLock::All => libc::MCL_CURRENT | libc::MCL_FUTURE,
    };
    let advice = "allow it with `memlock unlimited` in limits.conf, LimitMEMLOCK=infinity, or CAP_IPC_LOCK";
    // With a limit, locking what there is may succeed and every later allocation beyond the limit then fail.
    if let Some(limit) = memlock_limit()? {
        let what = format!("memory locking is limited to {} KiB; {advice}", limit >> 10);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    // SAFETY: only the process's own pages are pinned.
    match unsafe { libc::mlockall(flags) } {
        0 => Ok(()),
        _ => Err(last_error(advice)),
    }
}

/// The limit on locked memory, unless there is none for this process.
fn memlock_limit() -> io::Result<Option<u64>> {
    const CAP_IPC_LOCK: u32 = 14;
    let capable = status_field("CapEff:")?.and_then(|v| u64::from_str_radix(&v, 16).ok());
    if capable.is_some_and(|set| set >> CAP_IPC_LOCK & 1 == 1) {
        return Ok(None);
    }
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid to write to.
    if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur))
}

fn locked_kib() -> io::Result<u64> {
    let field = status_field("VmLck:")?;
    let kib = field.and_then(|v| v.trim_end_matches("kB").trim().parse().ok());
    kib.ok_or_else(|| io::Error::other("/proc/self/status has no VmLck"))
}

fn status_field(name: &str) -> io::Result<Option<String>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    Ok(status.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned()))
}

#[cfg(target_env = "gnu")]
fn keep_heap() -> bool {
    // SAFETY: mallopt may be called at any time; both settings only change when memory goes back to the system.
    unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, -1) == 1 && libc::mallopt(libc::M_MMAP_MAX, 0) == 1 }
}

#[cfg(not(target_env = "gnu"))]
fn keep_heap() -> bool {
    false
}

/// Touches up to `bytes` of the stack below, as far as there is stack, and says how many.
fn prefault_stack(bytes: usize) -> usize {
    const PAGE: usize = 4096;
    // Left alone at the far end: the guard page, and the frames of the touching itself.
    const MARGIN: usize = 64 << 10;
    // Each level touches one page and has a little of its own beside it.
    const LEVEL: usize = PAGE + 512;
    let levels = bytes.min(stack_left().saturating_sub(MARGIN)) / LEVEL;

    #[inline(never)]
    fn touch(levels: usize) {
        let mut page = [0u8; PAGE];
        std::hint::black_box(&mut page);
        if levels > 1 {
            touch(levels - 1);
        }
        // After the call, so that it cannot become a jump that reuses this frame.
        std::hint::black_box(&mut page);
    }
    if levels > 0 {
        touch(levels);
    }
    levels * PAGE
}

/// Bytes of the calling thread's stack below the caller's frame.
#[cfg(target_os = "linux")]
fn stack_left() -> usize {
    let here = 0u8;
    // SAFETY: all zeros is a valid pthread_attr_t to be filled in.
    let mut attributes: libc::pthread_attr_t = unsafe { std::mem::zeroed() };
    let (mut lowest, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: the attributes are filled in before they are read, and destroyed exactly once afterwards.
    let known = unsafe {
        libc::pthread_getattr_np(libc::pthread_self(), &mut attributes) == 0 && {
            let known = libc::pthread_attr_getstack(&attributes, &mut lowest, &mut size) == 0;
            libc::pthread_attr_destroy(&mut attributes);
            known
        }
    };
    if known { (std::ptr::from_ref(&here) as usize).saturating_sub(lowest as usize) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_asks_for_nothing_and_reports_what_there_is() {
        let report = std::thread::spawn(|| ThreadConfig::off().apply().unwrap()).join().unwrap();
        assert_eq!((report.realtime, report.stack_prefaulted, report.heap_kept), (Realtime::Off, 0, false));
        assert!(report.missing.is_empty());
        assert!(!report.cpus.is_empty());
    }

    #[test]
    fn the_stack_is_touched_as_far_as_there_is_stack() {
        let touched = |stack: usize, bytes: usize| {
            let thread = std::thread::Builder::new().stack_size(stack);
            thread.spawn(move || prefault_stack(bytes)).unwrap().join().unwrap()
        };
        assert_eq!(touched(2 << 20, 0), 0);
        let some = touched(2 << 20, 512 << 10);
        assert!(some > 400 << 10 && some <= 512 << 10, "{some}");
        // The C library may hand out a larger stack it has at hand, but never a gigabyte.
        let all = touched(512 << 10, 1 << 30);
        assert!(all > 256 << 10 && all < 64 << 20, "{all}");
    }

    #[test]
    fn an_impossible_affinity_is_missing_and_enforcing_it_fails() {
        let only = |cpus: Vec<usize>, realtime| ThreadConfig {
            realtime,
            priority: None,
            cpus,
            lock_memory: MemoryLock::Off,
            prefault_stack: 0,
            keep_heap: false,
        };
        for cpu in [1023, 5000] {
            let tried = only(vec![cpu], Realtime::Try);
            let report = std::thread::spawn(move || tried.apply().unwrap()).join().unwrap();
            assert_eq!(report.missing.len(), 1, "CPU {cpu}");
            assert_eq!(report.missing[0].what, "CPU affinity");
            let enforced = only(vec![cpu], Realtime::Enforce);
            let error = std::thread::spawn(move || enforced.apply().unwrap_err()).join().unwrap();
            assert_eq!(error.kind(), ErrorKind::RealtimeDenied);
            assert!(error.to_string().contains("CPU affinity"), "{error}");
        }
    }
}
