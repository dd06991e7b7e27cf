//! Makes a thread fit for real time, and says honestly how far that went.
//!
//! Each measure is asked for and then read back from the system; what is reported is what was read. With
//! [`Realtime::Enforce`] a missing one is an error, with [`Realtime::Try`] it is listed in [`Obtained::missing`].

use std::io;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

use super::memory::{keep_heap, lock_memory, locked_kib, prefault_stack};
use crate::{Error, ErrorKind, Result};

/// The reaction to a missing real-time right.
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

/// The memory that stays in RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryLock {
    /// None in particular.
    Off,
    /// Every page once it has been touched, which warming up does to what inference uses.
    #[default]
    OnFault,
    /// Everything, now and later: no page is ever read or made on first touch. Needs RAM for all of it: mapped model
    /// files are copied, and what ONNX Runtime reserved and never used is filled in. A full-size fp32 policy that has
    /// 11 GB otherwise has 22 GB then.
    All,
}

/// The settings of a real-time thread. Heap and memory lock concern the whole process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadConfig {
    /// The reaction to a missing right.
    pub realtime: Realtime,
    /// SCHED_FIFO priority, 1 to 99; none leaves the scheduling policy alone.
    pub priority: Option<i32>,
    /// The CPUs it may run on; empty leaves that alone.
    pub cpus: Vec<usize>,
    /// The CPUs that the threads working for it may run on, such as ONNX Runtime's; empty leaves that alone. They get
    /// its priority in any case: it waits for them, so they must not wait for others.
    pub worker_cpus: Vec<usize>,
    /// The memory that stays in RAM.
    pub lock_memory: MemoryLock,
    /// Bytes of its stack that are touched beforehand, so that they are there.
    pub prefault_stack: usize,
    /// True if memory given back to the allocator is to stay with the process, so that asking again does not fault.
    pub keep_heap: bool,
}

impl Default for ThreadConfig {
    /// Returns the defaults: try for SCHED_FIFO 80 on any CPU, memory locked once touched, 256 KiB of stack touched, the heap kept.
    fn default() -> Self {
        ThreadConfig {
            realtime: Realtime::Try,
            priority: Some(80),
            cpus: Vec::new(),
            worker_cpus: Vec::new(),
            lock_memory: MemoryLock::OnFault,
            prefault_stack: 256 << 10,
            keep_heap: true,
        }
    }
}

/// A measure that was asked for and not obtained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The measure.
    pub what: &'static str,
    /// The reason, and the remedy.
    pub why: String,
}

/// The properties of a thread that works for the real-time thread, as read back from the system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorkerThread {
    /// Its Linux thread id.
    pub id: i32,
    /// The scheduling policy, as in [`Obtained`].
    pub scheduler: &'static str,
    /// Its priority; 0 where the policy has none.
    pub priority: i32,
    /// The CPUs it may run on.
    pub cpus: Vec<usize>,
}

/// The properties of a thread, as read back from the system.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Obtained {
    /// The reaction to a missing right that was asked for.
    pub realtime: Realtime,
    /// The scheduling policy: `fifo`, `rr`, `other`, `batch`, `idle`, `deadline`, or `unknown`.
    pub scheduler: &'static str,
    /// Its priority; 0 where the policy has none.
    pub priority: i32,
    /// The CPUs it may run on.
    pub cpus: Vec<usize>,
    /// The process's memory that is in RAM and locked there, in KiB.
    pub locked_kib: u64,
    /// Bytes of its stack that were touched.
    pub stack_prefaulted: usize,
    /// True if memory given back to the allocator stays with the process.
    pub heap_kept: bool,
    /// The threads that work for it.
    pub workers: Vec<WorkerThread>,
    /// The measures that were asked for and not obtained.
    pub missing: Vec<Missing>,
}

impl ThreadConfig {
    /// Returns settings that ask for nothing and give a report of how things are.
    pub fn off() -> Self {
        ThreadConfig { realtime: Realtime::Off, ..ThreadConfig::default() }
    }

    /// Applies the measures to the calling thread: once, before its real-time part.
    ///
    /// RT-safe: no. Thread: any.
    pub fn apply(&self) -> Result<Obtained> {
        self.apply_with_workers(&[])
    }

    /// As [`apply`](Self::apply), and gives the threads with these Linux thread ids, which work for the calling one,
    /// its priority and their CPUs.
    pub fn apply_with_workers(&self, workers: &[i32]) -> Result<Obtained> {
        let mut missing = Vec::new();
        let (mut stack_prefaulted, mut heap_kept) = (0, false);
        if self.realtime != Realtime::Off {
            let measures: [(&'static str, io::Result<()>); 3] = [
                ("memory lock", lock_memory(self.lock_memory)),
                ("CPU affinity", set_affinity(CALLER, &self.cpus)),
                ("scheduling", self.priority.map_or(Ok(()), |priority| set_fifo(CALLER, priority))),
            ];
            let of_workers = workers.iter().flat_map(|&id| {
                [
                    ("worker CPU affinity", set_affinity(id, &self.worker_cpus)),
                    ("worker scheduling", self.priority.map_or(Ok(()), |priority| set_fifo(id, priority))),
                ]
            });
            for (what, outcome) in measures.into_iter().chain(of_workers) {
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
        let obtained = self.read_back(workers, missing, stack_prefaulted, heap_kept)?;
        match (self.realtime, obtained.missing.first()) {
            (Realtime::Enforce, Some(Missing { what, why })) => Err(Error::new(
                ErrorKind::RealtimeDenied,
                format!("real time enforced, {what} not obtained: {why}"),
            )),
            _ => Ok(obtained),
        }
    }

    /// Reads everything back, and lists as missing what a call said it had done but the system does not show.
    fn read_back(
        &self,
        workers: &[i32],
        missing: Vec<Missing>,
        stack_prefaulted: usize,
        heap_kept: bool,
    ) -> Result<Obtained> {
        let failed =
            |what: &str, e: io::Error| Error::with_source(ErrorKind::Io, format!("reading back {what}"), e);
        let (scheduler, priority) = scheduler_of(CALLER).map_err(|e| failed("the scheduling policy", e))?;
        let cpus = affinity(CALLER).map_err(|e| failed("the CPU affinity", e))?;
        let worker = |&id: &i32| {
            let (scheduler, priority) = scheduler_of(id)?;
            Ok(WorkerThread { id, scheduler, priority, cpus: affinity(id)? })
        };
        let workers = workers.iter().map(worker).collect::<io::Result<Vec<_>>>();
        let workers = workers.map_err(|e| failed("a worker thread", e))?;
        let locked_kib = locked_kib().map_err(|e| failed("the locked memory", e))?;
        let mut obtained = Obtained {
            realtime: self.realtime,
            scheduler,
            priority,
            cpus,
            locked_kib,
            stack_prefaulted,
            heap_kept,
            workers,
            missing,
        };
        if self.realtime != Realtime::Off {
            let (wanted, workers_wanted) = (sorted(&self.cpus), sorted(&self.worker_cpus));
            let workers = &obtained.workers;
            let differs = [
                (
                    "scheduling",
                    self.priority.is_some_and(|p| (obtained.scheduler, obtained.priority) != ("fifo", p)),
                ),
                ("CPU affinity", !wanted.is_empty() && obtained.cpus != wanted),
                (
                    "worker scheduling",
                    self.priority
                        .is_some_and(|p| workers.iter().any(|w| (w.scheduler, w.priority) != ("fifo", p))),
                ),
                (
                    "worker CPU affinity",
                    !workers_wanted.is_empty() && workers.iter().any(|w| w.cpus != workers_wanted),
                ),
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

/// Returns the system's error, with advice where a right is missing.
pub(super) fn with_advice(error: io::Error, advice: &str) -> io::Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied => io::Error::new(error.kind(), format!("{error}; {advice}")),
        _ => error,
    }
}

/// The calling thread's id, as the kernel takes it; [`Pid::from_raw`] makes it `None`, which is the same.
const CALLER: i32 = 0;

fn set_fifo(thread: i32, priority: i32) -> io::Result<()> {
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: `param` is valid for the call; the kernel refuses an id that is no thread.
    match unsafe { libc::sched_setscheduler(thread, libc::SCHED_FIFO, &param) } {
        0 => Ok(()),
        _ => Err(with_advice(
            io::Error::last_os_error(),
            "allow it with `rtprio` in limits.conf, LimitRTPRIO= in the service, or CAP_SYS_NICE",
        )),
    }
}

fn scheduler_of(thread: i32) -> io::Result<(&'static str, i32)> {
    // SAFETY: no memory is involved.
    let policy = unsafe { libc::sched_getscheduler(thread) };
    let mut param = libc::sched_param { sched_priority: 0 };
    // SAFETY: `param` is valid to write to.
    if policy < 0 || unsafe { libc::sched_getparam(thread, &mut param) } != 0 {
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

fn set_affinity(thread: i32, cpus: &[usize]) -> io::Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for &cpu in cpus {
        if cpu >= CpuSet::MAX_CPU {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("there is no CPU {cpu}")));
        }
        set.set(cpu);
    }
    let advice = "the service's CPUAffinity= or a cpuset may forbid it";
    sched_setaffinity(Pid::from_raw(thread), &set).map_err(|e| with_advice(e.into(), advice))
}

fn affinity(thread: i32) -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(thread))?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
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
    fn an_impossible_affinity_is_missing_and_enforcing_it_fails() {
        let only = |cpus: Vec<usize>, realtime| ThreadConfig {
            realtime,
            priority: None,
            cpus,
            worker_cpus: vec![],
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
