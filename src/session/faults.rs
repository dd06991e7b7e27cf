//! Files that shrink while they are mapped: an error instead of the end of the process.
//!
//! ONNX Runtime maps the weights of the CPU's graphs. The kernel raises SIGBUS in a thread that touches a page whose
//! file has become shorter, or which cannot be read any more. While a thread works for a graph, its SIGBUS is answered
//! here: the page is replaced by zeros, so that ONNX Runtime comes to its end, and the graph fails for good. Every other
//! SIGBUS goes to the handler that was there before.

use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::error::Result;

/// Most threads that work for graphs at a time, ONNX Runtime's own included.
const MAX_WORKING_THREADS: usize = 4096;

/// A thread that works for a graph.
struct Slot {
    /// Linux's number of the thread; 0 in a free slot, -1 in one that is being filled.
    thread: AtomicI32,
    /// The graph's mark, which outlives the slot's use.
    lost: AtomicPtr<AtomicBool>,
}

static SLOTS: [Slot; MAX_WORKING_THREADS] =
    [const { Slot { thread: AtomicI32::new(0), lost: AtomicPtr::new(null_mut()) } }; MAX_WORKING_THREADS];
static PAGE_SIZE: AtomicUsize = AtomicUsize::new(0);
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// The mark of one graph: whether a page of its files was lost. Clones are the same mark.
#[derive(Debug, Clone, Default)]
pub(super) struct Lost(Arc<AtomicBool>);

/// Says that this thread works for a graph, until it is dropped.
pub(super) struct Working<'a> {
    slot: &'static Slot,
    _lost: &'a Lost,
    /// The slot is this thread's.
    _stays: std::marker::PhantomData<*const ()>,
}

impl Lost {
    /// Says that from now on this thread works for the graph: a page that it finds lost marks the graph.
    ///
    /// # Errors
    /// [`ErrorKind::Graph`](crate::ErrorKind::Graph) when too many threads do already.
    pub fn working(&self) -> Result<Working<'_>> {
        install();
        let free = |s: &&Slot| s.thread.compare_exchange(0, -1, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        let Some(slot) = SLOTS.iter().find(free) else {
            bail!(Graph, "more than {MAX_WORKING_THREADS} threads compute at the same time");
        };
        slot.lost.store(Arc::as_ptr(&self.0).cast_mut(), Ordering::Relaxed);
        slot.thread.store(this_thread(), Ordering::Release);
        Ok(Working { slot, _lost: self, _stays: std::marker::PhantomData })
    }

    /// Does `work` for the graph `name` on this thread.
    ///
    /// # Errors
    /// As [`working`](Self::working) and [`check`](Self::check).
    pub fn watch<T>(&self, name: &str, work: impl FnOnce() -> T) -> Result<T> {
        let working = self.working()?;
        let result = work();
        drop(working);
        self.check(name).map(|()| result)
    }

    /// Fails if a page was lost at any time; `name` is the graph's.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`](crate::ErrorKind::Integrity).
    pub fn check(&self, name: &str) -> Result<()> {
        ensure!(
            !self.0.load(Ordering::Acquire),
            Integrity,
            "{name} was cut off, or became unreadable, while it was in use; put the whole bundle in place again, and load it \
             anew"
        );
        Ok(())
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.slot.thread.store(0, Ordering::Release);
    }
}

/// Linux's number of the calling thread.
pub(super) fn this_thread() -> i32 {
    // Not by libc's function, which glibc has since 2.30 only.
    // SAFETY: gettid has no preconditions.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

/// Installs the handler, once in a process and for good.
fn install() {
    BEFORE.get_or_init(|| {
        let mut before = MaybeUninit::zeroed();
        // SAFETY: sysconf has no preconditions, and `before` is valid to write to; all zeros is a valid action.
        let before: libc::sigaction = unsafe {
            PAGE_SIZE.store(libc::sysconf(libc::_SC_PAGESIZE) as usize, Ordering::Relaxed);
            libc::sigaction(libc::SIGBUS, std::ptr::null(), before.as_mut_ptr());
            before.assume_init()
        };
        before
    });
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        // SAFETY: all zeros is a valid action to fill in; the handler has the signature that SA_SIGINFO asks for, is
        // there for as long as the process (the library is never unloaded), and keeps to what a handler may do.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_sigbus as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
            libc::sigaction(libc::SIGBUS, &action, null_mut());
        }
    });
}

/// Answers SIGBUS. Does what a signal handler may: atomics, and system calls without memory or locks.
extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a valid siginfo, and a SIGBUS of this code has an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // SAFETY: the address of this thread's errno is always valid.
    let errno = unsafe { *libc::__errno_location() };
    let answered = code == libc::BUS_ADRERR && replace_page(address);
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    if !answered {
        hand_on(signal, info, context);
    }
}

/// Puts zeros where `address` is and marks the graph that this thread works for; false if it works for none.
fn replace_page(address: usize) -> bool {
    let thread = this_thread();
    let Some(slot) = SLOTS.iter().find(|s| s.thread.load(Ordering::Acquire) == thread) else { return false };
    let size = PAGE_SIZE.load(Ordering::Relaxed);
    let page = (address & !(size - 1)) as *mut libc::c_void;
    let (access, kind) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED);
    // SAFETY: the kernel said that there is a map at the page with no memory behind it. It is one that this thread
    // reads for a graph, whose result will be refused; nobody else's data was there.
    if unsafe { libc::mmap(page, size, access, kind, -1, 0) } == libc::MAP_FAILED {
        return false;
    }
    // SAFETY: the mark outlives the slot's use, which this very thread ends.
    unsafe { (*slot.lost.load(Ordering::Relaxed)).store(true, Ordering::Release) };
    true
}

/// Does what would have been done without this handler.
fn hand_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let before = BEFORE.get();
    // SAFETY: the handler before is called as it asked to be, with what the kernel gave to this one. All zeros is the
    // valid action SIG_DFL; both calls may be made from a handler.
    unsafe {
        let sent = (*info).si_code <= 0;
        match before.map_or(libc::SIG_DFL, |b| b.sa_sigaction) {
            // A fault cannot be ignored: the instruction is tried again.
            libc::SIG_IGN if sent => {}
            libc::SIG_DFL | libc::SIG_IGN => {
                let action: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, &action, null_mut());
                // What was sent does not come again by itself, as a fault does.
                if sent {
                    libc::raise(signal);
                }
            }
            handler if before.is_some_and(|b| b.sa_flags & libc::SA_SIGINFO != 0) => {
                type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
                std::mem::transmute::<usize, Handler>(handler)(signal, info, context);
            }
            handler => std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(handler)(signal),
        }
    }
}
