//! The system calls of one thread, counted exactly and without a cost to a thread that makes none.
//!
//! A seccomp filter on the thread lets one kind of call through and hands every other one to a second thread, which
//! counts it and lets it go on. So the thread that is looked at runs at full speed until it makes a call, and none
//! can be missed: it waits in the kernel until it has been counted. Neither `strace` nor `perf` is needed; root or
//! not does not matter. Time read through the vDSO is no system call, and is one where the kernel has no such clock.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Numbers that are counted apart; a higher one counts as the last. Linux is at about 470.
const NUMBERS: usize = 512;

/// State shared by the thread that counts and the one that is looked at.
#[derive(Debug)]
struct Shared {
    /// The filter's descriptor; −1 before there is one, −2 if there never will be.
    listener: AtomicI32,
    counting: AtomicBool,
    finished: AtomicBool,
    counts: [AtomicU64; NUMBERS],
}

/// Counts the system calls of another thread. To be made first, on any other thread.
#[derive(Debug)]
pub struct Counter {
    shared: Arc<Shared>,
    thread: JoinHandle<io::Result<()>>,
}

/// The end that goes to the thread to look at.
#[derive(Debug)]
pub struct Subject(Arc<Shared>);

/// The number of times that a system call was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// The call's number on this machine.
    pub number: usize,
    /// The number of times.
    pub times: u64,
}

/// Creates a counter, and the end for the thread that it is to look at.
pub fn counter() -> io::Result<(Counter, Subject)> {
    let shared = Arc::new(Shared {
        listener: AtomicI32::new(-1),
        counting: AtomicBool::new(false),
        finished: AtomicBool::new(false),
        counts: [const { AtomicU64::new(0) }; NUMBERS],
    });
    let seen = Arc::clone(&shared);
    let thread = std::thread::Builder::new().name("pi0-counter".into()).spawn(move || supervise(&seen))?;
    Ok((Counter { shared: Arc::clone(&shared), thread }, Subject(shared)))
}

impl Subject {
    /// Puts the calling thread under the filter, for as long as it lives. Sleeping by
    /// `clock_nanosleep` goes through uncounted; every other call goes on as ever, a little later. Threads that it starts from now on are under it as well.
    ///
    /// # Errors
    /// A kernel, or a container's rules, that do not allow such a filter.
    pub fn install(&self) -> io::Result<()> {
        let listener = install_filter();
        let number = listener.as_ref().map_or(-2, |&number| number);
        // Before any further system call: nobody answers it until the other thread knows the filter. Release, so that
        // it knows of nothing earlier than what happened before.
        self.0.listener.store(number, Ordering::Release);
        listener.map(drop)
    }

    /// Starts to count.
    ///
    /// Makes no system call. Thread: the one to look at.
    pub fn start(&self) {
        // Release, so that a call made before this is not seen as one made after.
        self.0.counting.store(true, Ordering::Release);
    }

    /// Stops to count; the filter stays.
    ///
    /// Makes no system call. Thread: the one to look at.
    pub fn stop(&self) {
        // Release, as in `start`.
        self.0.counting.store(false, Ordering::Release);
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // Nothing was installed: the other thread need not wait any more. Relaxed otherwise, because nothing is handed over.
        _ = self.0.listener.compare_exchange(-1, -2, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Counter {
    /// Returns the counts by system call. To be called when the thread that was looked at has ended.
    pub fn finish(self) -> io::Result<Vec<Count>> {
        // Relaxed, because it is only a hint to look no further.
        self.shared.finished.store(true, Ordering::Relaxed);
        let ended = self.thread.join().map_err(|_| io::Error::other("the counting thread panicked"))?;
        ended?;
        let counts = self.shared.counts.iter().enumerate();
        // Relaxed, because the thread that counted has been joined.
        let counts = counts.map(|(number, n)| Count { number, times: n.load(Ordering::Relaxed) });
        Ok(counts.filter(|count| count.times > 0).collect())
    }
}

impl Count {
    /// Returns true for the call by which a thread waits for a lock, or wakes one that does.
    pub fn is_lock(&self) -> bool {
        self.number as libc::c_long == libc::SYS_futex
    }
}

/// Installs the filter on the calling thread and returns its descriptor.
fn install_filter() -> io::Result<i32> {
    const NUMBER: u32 = std::mem::offset_of!(libc::seccomp_data, nr) as u32;
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, NUMBER),
        libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            jt: 0,
            jf: 1,
            k: libc::SYS_clock_nanosleep as u32,
        },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_USER_NOTIF),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // Without the second flag, older kernels slow the thread down for as long as it lives.
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // SAFETY: without this right, a process that is not root may not install a filter; no memory is involved.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `program` and what it points to are valid for the call; the kernel copies them.
    let listener =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if listener < 0 { Err(io::Error::last_os_error()) } else { Ok(listener as i32) }
}

/// Counts, and lets go on, whatever call is handed over, until the thread that makes them has ended.
fn supervise(shared: &Shared) -> io::Result<()> {
    let listener = loop {
        // Acquire pairs with the Release in `install`.
        match shared.listener.load(Ordering::Acquire) {
            -1 => std::thread::sleep(Duration::from_micros(200)),
            -2 => return Ok(()),
            // SAFETY: the descriptor was made for this thread, which alone closes it.
            number => break unsafe { OwnedFd::from_raw_fd(number) },
        }
    };
    loop {
        let mut poll = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // Now and then by itself, because kernels before 5.8 do not tell that the thread has ended.
        // SAFETY: `poll` is valid for the call.
        if unsafe { libc::poll(&mut poll, 1, 100) } < 0 && !interrupted() {
            return Err(io::Error::last_os_error());
        }
        if poll.revents & libc::POLLIN == 0 {
            // Relaxed, as said there.
            let ended = poll.revents & libc::POLLHUP != 0 || shared.finished.load(Ordering::Relaxed);
            if ended {
                return Ok(());
            }
            continue;
        }
        // SAFETY: all zeros is a valid notification, and what the kernel wants it to be before it is filled in.
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: `call` is valid to write to and of the type that the request is for.
        if unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &mut call) } != 0 {
            // ENOENT: the caller was killed meanwhile.
            if interrupted() || io::Error::last_os_error().raw_os_error() == Some(libc::ENOENT) {
                continue;
            }
            return Err(io::Error::last_os_error());
        }
        // Acquire pairs with the Releases in `start` and `stop`: the caller waits, so what it did before is done.
        if shared.counting.load(Ordering::Acquire) {
            let number = usize::try_from(call.data.nr).unwrap_or(NUMBERS).min(NUMBERS - 1);
            // Relaxed: read after this thread was joined.
            shared.counts[number].fetch_add(1, Ordering::Relaxed);
        }
        let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        let mut answer = libc::seccomp_notif_resp { id: call.id, val: 0, error: 0, flags };
        // SAFETY: as above. It fails only if the caller was killed meanwhile.
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &mut answer) };
    }
}

fn interrupted() -> bool {
    io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the counts while another thread does `work`; none where no filter is allowed.
    fn counted(work: impl FnOnce() + Send + 'static) -> Option<Vec<Count>> {
        let (counter, subject) = counter().unwrap();
        let looked_at = std::thread::spawn(move || {
            let installed = subject.install().is_ok();
            if installed {
                subject.start();
                work();
                subject.stop();
            }
            installed
        });
        let installed = looked_at.join().unwrap();
        let counts = counter.finish().unwrap();
        if !installed {
            eprintln!("skipped: no seccomp filter with a listener is allowed here");
        }
        installed.then_some(counts)
    }

    #[test]
    fn every_call_is_counted_and_does_what_it_does() {
        let parents = std::os::unix::process::parent_id();
        let Some(counts) = counted(move || {
            for _ in 0..100 {
                assert_eq!(std::os::unix::process::parent_id(), parents, "the call goes on");
            }
        }) else {
            return;
        };
        assert_eq!(counts, [Count { number: libc::SYS_getppid as usize, times: 100 }]);
        assert!(!counts[0].is_lock());
    }

    #[test]
    fn a_lock_that_waits_is_seen() {
        let lock = Arc::new(std::sync::Mutex::new(()));
        let held = lock.lock().unwrap();
        let other = Arc::clone(&lock);
        let waiting = std::thread::spawn(|| counted(move || drop(other.lock().unwrap())));
        std::thread::sleep(Duration::from_millis(100));
        drop(held);
        let Some(counts) = waiting.join().unwrap() else { return };
        assert!(counts.iter().any(Count::is_lock), "{counts:?}");
    }

    fn sleep_100_us() {
        let time = libc::timespec { tv_sec: 0, tv_nsec: 100_000 };
        // SAFETY: `time` is valid for the call; no remainder is asked for.
        unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, &time, std::ptr::null_mut()) };
    }

    #[test]
    fn time_and_sleep_are_not_counted() {
        let Some(counts) = counted(|| {
            for _ in 0..50 {
                _ = std::time::Instant::now();
                sleep_100_us();
            }
        }) else {
            return;
        };
        // A machine without a vDSO clock reads the time by a system call, and then it must be seen.
        assert!(counts.iter().all(|c| c.number as i64 == libc::SYS_clock_gettime), "{counts:?}");
    }

    #[test]
    fn a_subject_that_installs_nothing_ends_the_counter() {
        let (counter, subject) = counter().unwrap();
        drop(subject);
        assert_eq!(counter.finish().unwrap(), []);
    }
}
