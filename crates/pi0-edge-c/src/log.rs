//! The log on its way to a C program.
//!
//! Whoever logs only puts the record into a queue. A thread of its own takes it out, so that a program's callback never
//! runs on a real-time thread.

use std::ffi::{CString, c_char, c_void};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use log::LevelFilter;

use super::at_exit;
use super::boundary::guard;
use super::carrier::Carrier;
use super::descriptor::Descriptor;
use super::status::{Fail, PI0_ERR_STATE, Result, pi0_status};

/// Nothing is logged.
pub const PI0_LOG_OFF: u32 = 0;
/// Something failed.
pub const PI0_LOG_ERROR: u32 = 1;
/// Something is not as it should be, and work goes on.
pub const PI0_LOG_WARN: u32 = 2;
/// And what happens in large.
pub const PI0_LOG_INFO: u32 = 3;
/// And what happens in detail.
pub const PI0_LOG_DEBUG: u32 = 4;
/// Everything.
pub const PI0_LOG_TRACE: u32 = 5;

/// Gets a log record: its level (`PI0_LOG_...`), the part it comes from, its text, and what was given as `user`.
/// Strings are UTF-8 and valid until it returns.
pub type pi0_log_callback = Option<
    unsafe extern "C" fn(level: u32, target: *const c_char, message: *const c_char, user: *mut c_void),
>;

/// Records that wait; further ones are counted and lost.
const CAPACITY: usize = 1024;

enum Item {
    Record {
        level: u32,
        target: String,
        message: String,
    },
    /// Everything after this goes there. The sender is dropped when everything before was delivered.
    Sink(Sink, Sender<()>),
    End,
}

enum Sink {
    Off,
    Callback { call: unsafe extern "C" fn(u32, *const c_char, *const c_char, *mut c_void), user: *mut c_void },
    Descriptor(Descriptor),
}

// SAFETY: the pointer is only handed back to the program's own function, which is documented to be called on another
// thread.
unsafe impl Send for Sink {}

struct Log {
    queue: Sender<Item>,
    lost: AtomicU64,
    carrier: Carrier,
}

static LOG: OnceLock<Log> = OnceLock::new();

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (target, message) = (record.target().to_owned(), record.args().to_string());
        let record = Item::Record { level: record.level() as u32, target, message };
        if self.queue.try_send(record).is_err() {
            // Relaxed: a count.
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

impl Log {
    /// The process's log, made and set at the first call.
    fn get() -> Result<&'static Log> {
        static MAKING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(log) = LOG.get() {
            return Ok(log);
        }
        let (queue, items) = bounded(CAPACITY);
        let carrier = Carrier::spawn("pi0-log", move || carry(&items))?;
        let log = LOG.get_or_init(|| Log { queue, lost: AtomicU64::new(0), carrier });
        log::set_logger(log).map_err(|_| {
            Fail::new(PI0_ERR_STATE, "a Rust program around this library has set its own log")
        })?;
        at_exit::register();
        Ok(log)
    }

    /// Delivers one record. The sink is the carrying thread's own, so that no lock is held while it is called.
    fn deliver(&self, sink: &mut Sink, level: u32, target: &str, message: &str) {
        match sink {
            Sink::Off => {}
            Sink::Callback { call, user } => {
                let c_string = |text: &str| CString::new(text.replace('\0', " ")).unwrap_or_default();
                let (target, message) = (c_string(target), c_string(message));
                // SAFETY: the program gave both, and the strings live until the call returns.
                unsafe { call(level, target.as_ptr(), message.as_ptr(), *user) };
            }
            Sink::Descriptor(descriptor) => {
                let level = ["OFF", "ERROR", "WARN", "INFO", "DEBUG", "TRACE"][level.min(5) as usize];
                let line = format!("{level} {target}: {}\n", message.replace('\n', " "));
                if !descriptor.write_line(line) {
                    // Relaxed: a count.
                    self.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// The thread that carries records to the program.
fn carry(items: &Receiver<Item>) {
    let mut sink = Sink::Off;
    for item in items {
        let Some(log) = LOG.get() else { continue };
        match item {
            Item::Record { level, target, message } => {
                log.deliver(&mut sink, level, &target, &message);
                // Relaxed: a count.
                let lost = log.lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    log.deliver(
                        &mut sink,
                        PI0_LOG_WARN,
                        "pi0_edge",
                        &format!("{lost} log records were lost"),
                    );
                }
            }
            Item::Sink(next, _done) => sink = next,
            Item::End => break,
        }
    }
}

fn set(sink: Sink, level: u32) -> Result {
    let level = match level {
        PI0_LOG_OFF => LevelFilter::Off,
        PI0_LOG_ERROR => LevelFilter::Error,
        PI0_LOG_WARN => LevelFilter::Warn,
        PI0_LOG_INFO => LevelFilter::Info,
        PI0_LOG_DEBUG => LevelFilter::Debug,
        PI0_LOG_TRACE => LevelFilter::Trace,
        other => return Err(Fail::argument(format!("log level {other} is not known"))),
    };
    let log = Log::get()?;
    log.carrier.not_itself("a log callback cannot change where the log goes")?;
    let level = if matches!(sink, Sink::Off) { LevelFilter::Off } else { level };
    let (done, wait) = bounded(0);
    // What was logged before goes where the log went then.
    if log.queue.send(Item::Sink(sink, done)).is_err() {
        return Err(Fail::new(PI0_ERR_STATE, "the process is exiting, and the log has ended"));
    }
    // The sender is dropped when it is done. Only the end of the process comes before that: it may be the log callback
    // that has called exit.
    while wait.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout) {
        at_exit::not_exiting()?;
    }
    log::set_max_level(level);
    Ok(())
}

/// Delivers what was logged and ends the thread, or leaves it behind after `patience`.
pub(super) fn end(patience: Duration) {
    let Some(log) = LOG.get() else { return };
    log::set_max_level(LevelFilter::Off);
    // No room, or nobody there: there is no time left to wait for either.
    _ = log.queue.send_timeout(Item::End, patience);
    log.carrier.join(Some(patience));
}

/// Sends the process's log, this library's and ONNX Runtime's, to `callback`: records of `level` (`PI0_LOG_...`) and
/// graver. NULL turns it off. The callback runs on a thread of its own, one call at a time; it must not throw or
/// unwind. When this function returns, the callback before is not running and is not called again. Before the first
/// call nothing is logged.
///
/// RT-safe: no. Thread: any but a log callback's.
/// Statuses: PI0_OK, PI0_ERR_ARGUMENT, PI0_ERR_THREAD, PI0_ERR_STATE, PI0_ERR_RUNTIME, PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_log_set_callback(
    callback: pi0_log_callback,
    user: *mut c_void,
    level: u32,
) -> pi0_status {
    guard(|| {
        super::handle::not_forked()?;
        set(callback.map_or(Sink::Off, |call| Sink::Callback { call, user }), level)
    })
}

/// Sends the process's log to a file descriptor, one line a record: level, part, text. -1 turns it off. Lines are
/// written from a thread of their own, which never waits for the reader; what finds no room is counted and lost. The
/// descriptor stays the caller's, who must turn the log off before closing it.
///
/// RT-safe: no. Thread: any but a log callback's.
/// Statuses: PI0_OK, PI0_ERR_ARGUMENT, PI0_ERR_THREAD, PI0_ERR_STATE, PI0_ERR_RUNTIME, PI0_ERR_FORKED, PI0_ERR_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pi0_log_set_fd(fd: i32, level: u32) -> pi0_status {
    guard(|| {
        super::handle::not_forked()?;
        let sink = if fd == -1 { Sink::Off } else { Sink::Descriptor(Descriptor::new(fd)?) };
        set(sink, level)
    })
}
