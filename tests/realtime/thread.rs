//! Thread set-up as root and as a plain user. Priority, locked memory and user id are the process's own, so each
//! case runs in a child: this same program, told by an environment variable what to be.
#![allow(unsafe_code)]

use std::process::{Command, Output};

use pi0_edge::ErrorKind;
use pi0_edge::runtime::{MemoryLock, Realtime, ThreadConfig};

const CASE: &str = "PI0_TEST_THREAD_CASE";

fn is_root() -> bool {
    // SAFETY: getuid has no preconditions.
    unsafe { libc::getuid() == 0 }
}

/// Runs `name` of this program in a child with `case` set.
fn child(name: &str, case: &str) -> Output {
    let me = std::env::current_exe().unwrap();
    let name = &format!("thread::{name}");
    Command::new(me).args([name, "--exact", "--nocapture"]).env(CASE, case).output().unwrap()
}

fn assert_passed(output: &Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("1 passed"), "the child ran no test: {}", text(&output.stdout));
}

fn become_plain_user() {
    let limit = |resource, bytes| {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
        // SAFETY: `limit` is valid for the call.
        assert_eq!(unsafe { libc::setrlimit(resource, &limit) }, 0);
    };
    limit(libc::RLIMIT_RTPRIO, 0);
    limit(libc::RLIMIT_MEMLOCK, 64 << 10);
    // SAFETY: giving up rights has no memory preconditions.
    assert_eq!(unsafe { (libc::setgid(65534), libc::setuid(65534)) }, (0, 0));
}

fn everything(realtime: Realtime) -> ThreadConfig {
    ThreadConfig { realtime, priority: Some(42), cpus: vec![0], ..ThreadConfig::default() }
}

#[test]
fn root_gets_everything_and_it_is_read_back() {
    let _alone = crate::alone();
    if std::env::var(CASE).is_err() {
        if !is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        for case in ["all", "on_fault"] {
            assert_passed(&child("root_gets_everything_and_it_is_read_back", case));
        }
        return;
    }
    let lock_memory =
        if std::env::var(CASE).unwrap() == "all" { MemoryLock::All } else { MemoryLock::OnFault };
    let config = ThreadConfig { lock_memory, ..everything(Realtime::Enforce) };
    let before = ThreadConfig::off().apply().unwrap();
    assert_eq!((before.scheduler, before.locked_kib), ("other", 0));
    let thread = std::thread::spawn(move || {
        let got = config.apply().unwrap();
        assert_eq!((got.scheduler, got.priority, &got.cpus[..]), ("fifo", 42, &[0][..]));
        assert!(got.locked_kib > 0 && got.heap_kept && got.stack_prefaulted > 0);
        assert!(got.missing.is_empty(), "{:?}", got.missing);
        // Asked of the kernel in another way than the report does.
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let after_name: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        assert_eq!((after_name[37], after_name[38]), ("42", "1"), "rt_priority and policy in {stat}");
    });
    thread.join().unwrap();
    let after = ThreadConfig::off().apply().unwrap();
    assert_eq!(after.scheduler, "other", "only the thread that asked");
    assert!(after.locked_kib > 0, "memory is the whole process's");
}

#[test]
fn a_plain_user_is_told_what_is_missing_and_may_go_on() {
    let _alone = crate::alone();
    if std::env::var(CASE).is_err() {
        if !is_root() {
            eprintln!("skipped: needs root, to become a plain user with known limits");
            return;
        }
        assert_passed(&child("a_plain_user_is_told_what_is_missing_and_may_go_on", "plain"));
        return;
    }
    become_plain_user();
    let got = everything(Realtime::Try).apply().unwrap();
    assert_eq!((got.scheduler, got.priority, got.locked_kib), ("other", 0, 0));
    let missing: Vec<_> = got.missing.iter().map(|m| m.what).collect();
    assert_eq!(missing, ["memory lock", "scheduling"], "{:?}", got.missing);
    assert!(
        got.missing[0].why.contains("64 KiB") && got.missing[0].why.contains("memlock"),
        "{:?}",
        got.missing
    );
    assert!(got.missing[1].why.contains("rtprio"), "{:?}", got.missing);
    assert_eq!(got.cpus, [0], "needs no right");
    // Nothing half done: memory can still be had.
    assert_eq!(std::hint::black_box(vec![1u8; 32 << 20])[12345], 1);

    let error = everything(Realtime::Enforce).apply().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RealtimeDenied);
    let only_scheduling =
        ThreadConfig { lock_memory: MemoryLock::Off, cpus: vec![], ..everything(Realtime::Enforce) };
    let error = only_scheduling.apply().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RealtimeDenied);
    assert!(error.to_string().contains("rtprio"), "{error}");
    let neither =
        ThreadConfig { lock_memory: MemoryLock::Off, priority: None, ..everything(Realtime::Enforce) };
    neither.apply().unwrap();
}
