//! The process's memory made fit for real time: locked, kept, and there before it is needed.

use std::io;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, getrlimit};

use super::thread::{MemoryLock, with_advice};

pub(super) fn lock_memory(lock: MemoryLock) -> io::Result<()> {
    let flags = match lock {
        MemoryLock::Off => return Ok(()),
        MemoryLock::OnFault => MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT,
        MemoryLock::All => MlockAllFlags::CURRENT | MlockAllFlags::FUTURE,
    };
    let advice = "allow it with `memlock unlimited` in limits.conf, LimitMEMLOCK=infinity, or CAP_IPC_LOCK";
    // With a limit, locking what there is may succeed and every later allocation beyond the limit then fail.
    if let Some(limit) = memlock_limit()? {
        let what = format!("memory locking is limited to {} KiB; {advice}", limit >> 10);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    mlockall(flags).map_err(|e| with_advice(e.into(), advice))
}

/// Returns the limit on locked memory, unless there is none for this process.
fn memlock_limit() -> io::Result<Option<u64>> {
    const CAP_IPC_LOCK: u32 = 14;
    let capable = field_of("status", "CapEff:")?.and_then(|v| u64::from_str_radix(&v, 16).ok());
    if capable.is_some_and(|set| set >> CAP_IPC_LOCK & 1 == 1) {
        return Ok(None);
    }
    Ok(getrlimit(Resource::Memlock).current)
}

pub(super) fn locked_kib() -> io::Result<u64> {
    let field = match field_of("smaps_rollup", "Locked:") {
        Ok(Some(locked)) => Some(locked),
        // Older kernels count here what is not there too.
        _ => field_of("status", "VmLck:")?,
    };
    let kib = field.and_then(|v| v.trim_end_matches("kB").trim().parse().ok());
    kib.ok_or_else(|| io::Error::other("/proc/self/status has no VmLck"))
}

/// Returns a line of a file in /proc/self, by what it begins with.
fn field_of(file: &str, name: &str) -> io::Result<Option<String>> {
    let text = std::fs::read_to_string(format!("/proc/self/{file}"))?;
    Ok(text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned()))
}

#[cfg(target_env = "gnu")]
pub(super) fn keep_heap() -> bool {
    // SAFETY: mallopt may be called at any time; both settings only change when memory goes back to the system.
    unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, -1) == 1 && libc::mallopt(libc::M_MMAP_MAX, 0) == 1 }
}

#[cfg(not(target_env = "gnu"))]
pub(super) fn keep_heap() -> bool {
    false
}

/// Touches up to `bytes` of the stack below, as far as there is stack, and returns how many.
pub(super) fn prefault_stack(bytes: usize) -> usize {
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

/// Returns the bytes of the calling thread's stack below the caller's frame.
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
}
