//! The costs of a thread: allocations, system calls, page faults. For measuring a control loop, one's own or the one of
//! `pi0-edge bench control`; the runtime needs none of it.

#![allow(unsafe_code)]

pub mod allocations;
pub mod system_calls;

/// Returns the page faults of the calling thread so far, minor and major. One system call.
///
/// Thread: any.
pub fn page_faults() -> u64 {
    // SAFETY: all zeros is a valid rusage, to be filled in.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is valid to write to; RUSAGE_THREAD exists on every Linux, so the call cannot fail.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) };
    usage.ru_minflt as u64 + usage.ru_majflt as u64
}

/// Returns the calling thread's number, as the system's tools show it.
///
/// Thread: any.
pub fn thread_id() -> u32 {
    // Not by libc's function, which glibc has since 2.30 only.
    // SAFETY: no preconditions.
    unsafe { libc::syscall(libc::SYS_gettid) as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touching_new_memory_is_a_fault_of_the_thread_that_does_it() {
        let before = page_faults();
        // Large enough for memory of its own, fresh from the system, and touched page by page.
        let mut fresh = vec![0u8; 64 << 20];
        fresh.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        std::hint::black_box(&fresh);
        // Fewer than pages, where the system hands out larger ones.
        assert!(page_faults() - before >= 32);
        assert_ne!(thread_id(), std::thread::spawn(thread_id).join().unwrap());
    }
}
