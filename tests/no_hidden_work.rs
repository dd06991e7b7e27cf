//! Once it runs, the runtime opens no file, makes no connection and starts no program: with the real policy, under a
//! filter that ends the process at the first such system call, on whichever of its threads.
//!
//! The runtime lives in a child process: this same program, told by an environment variable.
#![allow(unsafe_code)]

mod common;

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use common::{fill, load_tiny};
use pi0_edge::runtime::{
    PolicyInference, PolicyInferenceOptions, Replan, Runtime, RuntimeConfig, ThreadConfig, Timestamp,
};

const CASE: &str = "PI0_TEST_HIDDEN_CASE";

fn child(case: &str) -> Output {
    let me = std::env::current_exe().unwrap();
    let name = "a_running_runtime_opens_connects_and_starts_nothing";
    Command::new(me).args([name, "--exact", "--nocapture"]).env(CASE, case).output().unwrap()
}

#[test]
fn a_running_runtime_opens_connects_and_starts_nothing() {
    if let Ok(case) = std::env::var(CASE) {
        return run(&case);
    }
    let output = child("clean");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {stderr}", output.status);
    // The filter is alive: each of these ends the process.
    for case in ["opens", "connects"] {
        assert_eq!(child(case).status.signal(), Some(libc::SIGSYS), "{case}");
    }
}

fn run(case: &str) {
    let prompt = Some("pick up the cube".to_owned());
    let options = PolicyInferenceOptions { prompt, max_frame: (64, 64), ..PolicyInferenceOptions::default() };
    let config = RuntimeConfig {
        thread: ThreadConfig::off(),
        replan: Replan::Period(Duration::ZERO),
        ..RuntimeConfig::default()
    };
    let inference = PolicyInference::new(load_tiny(), options).unwrap();
    // When a thread ends, glibc may give its heap back, and reads the kernel's overcommit setting from a file before.
    // That would be the end of the runtime and none of its doing.
    // SAFETY: no preconditions.
    assert_eq!(unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, -1) }, 1);
    let (runtime, mut observations, mut controller) = Runtime::start(inference, &config).unwrap();
    forbid_files_network_and_programs();
    match case {
        "opens" => _ = std::fs::File::open("/dev/null"),
        "connects" => _ = std::net::TcpStream::connect(("127.0.0.1", 9)),
        _ => {}
    }
    let give_up = Instant::now() + Duration::from_secs(60);
    while runtime.stats().inference.published < 50 {
        fill(observations.slot(), 64, 64);
        observations.publish(Timestamp::now()).unwrap();
        controller.read();
        std::thread::sleep(Duration::from_millis(2));
        assert!(Instant::now() < give_up, "{:?}", runtime.stats());
    }
    runtime.set_prompt("open the drawer").unwrap();
    runtime.set_num_steps(4).unwrap();
    runtime.stop().unwrap();
    // Not the ordinary way out: what the test harness does after this is its own business.
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(0) }
}

/// From here on, for every thread there is, the first of these calls ends the process.
fn forbid_files_network_and_programs() {
    #[allow(unused_mut)]
    let mut forbidden = vec![
        libc::SYS_openat,
        libc::SYS_openat2,
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_unlinkat,
        libc::SYS_mkdirat,
    ];
    #[cfg(target_arch = "x86_64")]
    forbidden.extend([libc::SYS_open, libc::SYS_unlink, libc::SYS_mkdir, libc::SYS_rename]);
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let number = std::mem::offset_of!(libc::seccomp_data, nr) as u32;
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, number)];
    for call in forbidden {
        let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        // Not this one: past the next statement.
        filter.push(libc::sock_filter { code: equal, jt: 0, jf: 1, k: call as u32 });
        filter.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_KILL_PROCESS));
    }
    filter.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: `program` and what it points to are valid for the calls; the kernel copies them.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let all_threads = libc::SECCOMP_FILTER_FLAG_TSYNC;
        let installed = libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            all_threads,
            std::ptr::from_ref(&program),
        );
        assert_eq!(installed, 0, "{}", std::io::Error::last_os_error());
    }
}
