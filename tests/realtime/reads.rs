//! The cost of a control loop's read, and what it must never do: allocate, call the system, fault, or tear.
//!
//! The loop runs in a child process, this same program told by an environment variable, because the proof that it
//! makes no system call is a seccomp filter that kills the process at the first one.
//!
//! `PI0_READS` sets how many reads (default a million; the published figure is for ten million).
#![allow(unsafe_code)]

use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::fake::{Behaviour, Fake};
use pi0_edge::rtc::RtcConfig;
use pi0_edge::runtime::{
    Controller, Flags, Replan, Runtime, RuntimeConfig, Splice, Status, ThreadConfig, TimelineConfig,
    Timestamp,
};
use pi0_edge::stats::Histogram;
use pi0_edge_probe::allocations::{CountingAllocator, on_this_thread};
use pi0_edge_probe::thread_id;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Publishes chunks as fast as it can, each of which carries its number in every value.
struct Flood;

const ROWS: usize = 50;
const DIM: usize = 32;

impl Behaviour for Flood {
    fn begin(&mut self, chunk: u64, guided: bool) {
        NUMBER.store(chunk, Ordering::Relaxed);
        GUIDED.fetch_add(u64::from(guided), Ordering::Relaxed);
        match chunk {
            STEADY => INFERENCE_ALLOCATIONS.store(on_this_thread(), Ordering::Relaxed),
            n if n == STEADY + STEADY_CHUNKS => {
                let before = INFERENCE_ALLOCATIONS.load(Ordering::Relaxed);
                INFERENCE_ALLOCATIONS.store(on_this_thread() - before, Ordering::Relaxed);
                STEADY_SEEN.store(true, Ordering::Release);
            }
            _ => {}
        }
    }
    fn value(&self) -> f32 {
        (NUMBER.load(Ordering::Relaxed) % (1 << 24)) as f32
    }
}

static NUMBER: AtomicU64 = AtomicU64::new(0);
static GUIDED: AtomicU64 = AtomicU64::new(0);

/// From this chunk on the inference thread may not allocate, for this many chunks.
const STEADY: u64 = 100;
const STEADY_CHUNKS: u64 = 1000;
static INFERENCE_ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static STEADY_SEEN: AtomicBool = AtomicBool::new(false);

const CASE: &str = "PI0_TEST_READS_CASE";

fn child(case: &str) -> Output {
    let me = std::env::current_exe().unwrap();
    let name = "reads::reads_do_not_allocate_call_the_system_fault_or_tear";
    // An emulator runs this program and has to be named for its child too.
    let emulator = emulator().unwrap_or_default();
    let mut words = emulator.split_whitespace().map(Into::into).chain([me.into_os_string()]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).args([name, "--exact", "--nocapture"]).env(CASE, case).output().unwrap()
}

/// The program that runs this one, with its arguments, if not the processor: scripts/realtime_checks.sh says so.
fn emulator() -> Option<String> {
    std::env::var("PI0_EMULATOR").ok()
}

#[test]
fn reads_do_not_allocate_call_the_system_fault_or_tear() {
    let _alone = crate::alone();
    if let Ok(case) = std::env::var(CASE) {
        read_many(&case);
    }
    if cfg!(any(pi0_rtsan, pi0_loom)) || std::env::var("TSAN_OPTIONS").is_ok() {
        eprintln!("skipped: a sanitizer's own system calls would be counted");
        return;
    }
    // The kernel may move pages about, which is a fault that is not ours; one that is comes every time.
    let output =
        (0..3).map(|_| child("clean")).find(|o| o.status.code() != Some(5)).expect("page faults each time");
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    assert_eq!(output.status.code(), Some(0), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains(": 0 allocations") && !text.contains("; 0 chunks were guided"), "{text}");
    let filtered = text.contains(", 0 system calls,");
    // An emulator has no such filter.
    assert!(filtered || emulator().is_some(), "{text}");
    // The checks can fail: each of these is found out.
    for (case, code) in [("allocates", 3), ("tears", 4)] {
        assert_eq!(child(case).status.code(), Some(code), "{case}");
    }
    use std::os::unix::process::ExitStatusExt;
    if filtered {
        assert_eq!(child("calls").status.signal(), Some(libc::SIGSYS), "a system call must kill it");
    }
}

/// The control loop's findings, for a thread that may speak.
#[derive(Default)]
struct Findings {
    thread: AtomicU64,
    /// The filter is in place.
    filtered: AtomicBool,
    /// 1: about to read, waiting for `begin`; 2: done.
    stage: AtomicU64,
    begin: AtomicBool,
    allocations: AtomicU64,
    torn: AtomicU64,
    chunks: AtomicU64,
    statuses: [AtomicU64; 4],
}

/// In the child: the whole runtime, and a control loop under a filter that lets nothing through. Does not return.
fn read_many(case: &str) -> ! {
    let reads: u64 = std::env::var("PI0_READS").ok().and_then(|v| v.parse().ok()).unwrap_or(1_000_000);
    let config = RuntimeConfig {
        // Hardly a read comes twice in one tick, and with every tick there is a new chunk.
        // And each takes over by progress, which is the longest way.
        timeline: TimelineConfig {
            control_period: Duration::from_micros(1),
            splice: Splice::Command,
            ..TimelineConfig::default()
        },
        replan: Replan::Period(Duration::ZERO),
        rtc: Some(RtcConfig::default()),
        thread: ThreadConfig::off(),
        ..RuntimeConfig::default()
    };
    let (runtime, mut sensors, controller) =
        Runtime::start(Fake { rows: ROWS, dim: DIM, num_steps: 0, behaviour: Flood }, &config).unwrap();
    let (findings, histogram) = (Findings::default(), Histogram::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                sensors.publish(Timestamp::now()).unwrap();
            }
        });
        scope.spawn(|| control_loop(case, reads, controller, &findings, &histogram));
        let wait_for = |stage| {
            while findings.stage.load(Ordering::Acquire) < stage {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        wait_for(1);
        let thread = findings.thread.load(Ordering::Relaxed);
        let (faults, published) = (page_faults(thread), runtime.stats().inference.published);
        findings.begin.store(true, Ordering::Release);
        wait_for(2);
        while !STEADY_SEEN.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let faults = page_faults(thread) - faults;
        let published = runtime.stats().inference.published - published;
        let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let (allocations, torn) = (count(&findings.allocations), count(&findings.torn));
        let filtered = findings.filtered.load(Ordering::Relaxed);
        let calls = if filtered { "0 system calls" } else { NO_FILTER };
        // Emulated, the page faults are the emulator's.
        let faults = if filtered { faults } else { 0 };
        let statuses: Vec<u64> = findings.statuses.iter().map(count).collect();
        println!(
            "{reads} reads while {published} chunks were published, {} of them seen: {allocations} allocations, \
             {calls}, {faults} page faults, {torn} torn; ok/stale/hold/empty {statuses:?}",
            count(&findings.chunks),
        );
        println!("reads of a new tick, asking the time twice included: {}", line(&histogram));
        let inference = INFERENCE_ALLOCATIONS.load(Ordering::Relaxed);
        println!(
            "inference thread: {inference} allocations over {STEADY_CHUNKS} chunks; {} chunks were guided",
            GUIDED.load(Ordering::Relaxed),
        );
        let code = match (allocations + inference, torn, faults) {
            (1.., ..) => 3,
            (_, 1.., _) => 4,
            (_, _, 1..) => 5,
            _ => 0,
        };
        // Not `exit`: the loop cannot be asked to end, as it may not call the system for it.
        use std::io::Write;
        std::io::stdout().flush().unwrap();
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(code) }
    })
}

fn control_loop(
    case: &str,
    reads: u64,
    mut controller: Controller,
    findings: &Findings,
    histogram: &Histogram,
) -> ! {
    findings.thread.store(thread_id().into(), Ordering::Relaxed);
    // Touches everything the loop will use.
    while controller.read().status == Status::Empty {}
    for warm_up in [true, false] {
        let rounds = if warm_up { 20_000 } else { reads };
        if !warm_up {
            findings.filtered.store(forbid_system_calls(), Ordering::Relaxed);
            findings.stage.store(1, Ordering::Release);
            while !findings.begin.load(Ordering::Acquire) {
                std::hint::spin_loop();
            }
        }
        let allocations = on_this_thread();
        let (mut torn, mut chunks, mut last) = (0, 0, 0);
        for i in 0..rounds {
            let before = Timestamp::now();
            let reading = controller.read();
            let took = Timestamp::now().since(before);
            if !warm_up && !reading.flags.contains(Flags::REPEATED) {
                histogram.record(took);
            }
            let action = controller.action().unwrap_or_default();
            let want = (reading.chunk % (1 << 24)) as f32;
            torn += u64::from(action.len() != DIM || action.iter().any(|v| *v != want));
            chunks += u64::from(reading.chunk != last);
            last = reading.chunk;
            let status = &findings.statuses[reading.status as usize];
            status.store(status.load(Ordering::Relaxed) + u64::from(!warm_up), Ordering::Relaxed);
            if !warm_up && i == reads / 2 {
                match case {
                    // SAFETY: no preconditions.
                    "calls" => _ = unsafe { libc::getppid() },
                    "allocates" => _ = std::hint::black_box(Box::new(i)),
                    "tears" => torn += 1,
                    _ => {}
                }
            }
        }
        findings.allocations.store(on_this_thread() - allocations, Ordering::Relaxed);
        findings.torn.store(torn, Ordering::Relaxed);
        findings.chunks.store(chunks, Ordering::Relaxed);
    }
    findings.stage.store(2, Ordering::Release);
    loop {
        std::hint::spin_loop();
    }
}

fn line(histogram: &Histogram) -> String {
    let s = histogram.snapshot().summary();
    let ns = |v: Option<u64>| v.map_or("-".to_owned(), |v| format!("{v} ns"));
    format!(
        "n {}, p50 {}, p99 {}, p99.9 {}, p99.99 {}, max {}",
        s.count,
        ns(s.p50),
        ns(s.p99),
        ns(s.p99_9),
        ns(s.p99_99),
        ns(s.max)
    )
}

/// Minor and major page faults of a thread of this process.
fn page_faults(thread: u64) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
    let after_name: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    after_name[7].parse::<u64>().unwrap() + after_name[9].parse::<u64>().unwrap()
}

/// Said where system calls cannot be forbidden: in an emulator, whose own calls they would be.
const NO_FILTER: &str = "system calls and page faults not looked at";

/// From here on the first system call of this thread kills the process. False where there is no such filter.
fn forbid_system_calls() -> bool {
    let kill = libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: libc::SECCOMP_RET_KILL_PROCESS,
    };
    let mut filter = [kill];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: `program` is valid for the call; the kernel copies it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
    }
}
