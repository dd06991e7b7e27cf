//! How far long work is, on stderr: a bar on a terminal, elsewhere a line now and then. A thread of its own draws, so
//! that the work that is measured only stores a number.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Time after which work counts as long: on a terminal, and elsewhere.
const LONG: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(2));
/// Time between two drawings on a terminal, and at least between two lines elsewhere.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// A bar is on the terminal's current line.
static DRAWN: Mutex<bool> = Mutex::new(false);

/// Units that work is counted in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unit {
    Bytes,
    /// Seconds, which pass by themselves.
    Seconds,
    /// Things of this name.
    Of(&'static str),
}

#[derive(Debug)]
struct Work {
    what: String,
    unit: Unit,
    /// Relaxed, as `over`: nothing is handed over by them.
    done: AtomicU64,
    /// 0: nobody knows.
    total: AtomicU64,
    over: AtomicBool,
}

/// Work that is shown until this is dropped.
#[derive(Debug)]
pub struct Progress {
    work: Arc<Work>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Shows `what` from now on, of which there is `total`; 0: nobody knows.
    pub fn new(what: impl Into<String>, total: u64, unit: Unit) -> Self {
        let (done, total, over) = (AtomicU64::new(0), AtomicU64::new(total), AtomicBool::new(false));
        let work = Arc::new(Work { what: what.into(), unit, done, total, over });
        let shown = Arc::clone(&work);
        // Where no thread can be had the work is done all the same.
        let thread = thread::Builder::new().name("pi0-progress".into()).spawn(move || shown.draw()).ok();
        Progress { work, thread }
    }

    /// Tells how much is done: one store, no more.
    pub fn set(&self, done: u64) {
        self.work.done.store(done, Ordering::Relaxed);
    }

    /// As [`set`](Self::set), and of how much.
    pub fn set_of(&self, done: u64, total: u64) {
        self.work.total.store(total, Ordering::Relaxed);
        self.set(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.work.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Work {
    fn draw(&self) {
        let (begun, terminal) = (Instant::now(), draws());
        let (mut due, again) = if terminal { (LONG.0, AGAIN.0) } else { (LONG.1, AGAIN.1) };
        while !self.over.load(Ordering::Relaxed) {
            let elapsed = begun.elapsed();
            if elapsed < due {
                thread::park_timeout(due - elapsed);
            } else if terminal {
                let line = self.line(elapsed, columns().saturating_sub(1));
                let mut drawn = DRAWN.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = write!(std::io::stderr(), "\r{line}\x1b[K");
                (*drawn, due) = (true, elapsed + again);
            } else {
                say(&format!("{}: {}", self.what, self.figures(elapsed)));
                // Fewer and fewer, the longer it takes.
                due = elapsed + again.max(elapsed / 4);
            }
        }
        say("");
    }

    fn done(&self, elapsed: Duration) -> (f64, f64) {
        let total = self.total.load(Ordering::Relaxed) as f64;
        let done = match self.unit {
            Unit::Seconds => elapsed.as_secs() as f64,
            _ => self.done.load(Ordering::Relaxed) as f64,
        };
        (done.min(total), total)
    }

    /// ` 40 %, 20 of 50 chunks, 12 s left`, or the time that has passed.
    fn figures(&self, elapsed: Duration) -> String {
        let (done, total) = self.done(elapsed);
        let amount = match self.unit {
            _ if total == 0.0 => return time(elapsed),
            Unit::Bytes if total < 1e9 => format!("{:.0} of {:.0} MB", done / 1e6, total / 1e6),
            Unit::Bytes => format!("{:.1} of {:.1} GB", done / 1e9, total / 1e9),
            Unit::Seconds => format!("{} of {}", time(elapsed), time(Duration::from_secs_f64(total))),
            Unit::Of(things) => format!("{done} of {total} {things}"),
        };
        let left = match self.unit {
            Unit::Seconds => String::new(),
            _ if done == 0.0 => format!(", {}", time(elapsed)),
            _ => format!(", {} left", time(elapsed.mul_f64((total - done) / done))),
        };
        format!("{:3.0} %, {amount}{left}", 100.0 * done / total)
    }

    /// One line of at most `columns`, with a bar where there is room.
    fn line(&self, elapsed: Duration, columns: usize) -> String {
        let (what, figures) = (&self.what, self.figures(elapsed));
        let (done, total) = self.done(elapsed);
        let room = columns.saturating_sub(what.chars().count() + figures.chars().count() + 4).min(40);
        if total == 0.0 || room < 10 {
            return format!("{what}  {figures}").chars().take(columns).collect();
        }
        let full = (room as f64 * done / total) as usize;
        format!("{what} [{}{}] {figures}", "#".repeat(full), "-".repeat(room - full))
    }
}

fn time(duration: Duration) -> String {
    match duration.as_secs() {
        s @ ..100 => format!("{s} s"),
        s @ ..6000 => format!("{} min {:02} s", s / 60, s % 60),
        s => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}

/// Says whether stderr is a terminal that lines can be drawn over on.
fn draws() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).map(|size| size.ws_col.into());
    size.ok().filter(|&columns: &usize| columns > 0).unwrap_or(80)
}

/// Writes a line to stderr, or nothing, in place of a bar that is drawn there.
pub fn say(text: &str) {
    let mut drawn = DRAWN.lock().unwrap_or_else(PoisonError::into_inner);
    let clear = if std::mem::take(&mut *drawn) { "\r\x1b[K" } else { "" };
    let end = if text.is_empty() { "" } else { "\n" };
    // Whoever closed stderr does not want to know.
    let _ = write!(std::io::stderr(), "{clear}{text}{end}");
}

/// The way of log messages to stderr: past the bar.
#[derive(Debug)]
pub struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        say("");
        std::io::stderr().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(what: &str, done: u64, total: u64, unit: Unit) -> Work {
        let (done, total, over) = (AtomicU64::new(done), AtomicU64::new(total), AtomicBool::new(false));
        Work { what: what.into(), unit, done, total, over }
    }

    #[test]
    fn figures_say_how_far_and_how_long() {
        let at = Duration::from_secs;
        let chunks = work("measuring", 20, 50, Unit::Of("chunks"));
        assert_eq!(chunks.figures(at(8)), " 40 %, 20 of 50 chunks, 12 s left");
        assert_eq!(chunks.figures(at(800)), " 40 %, 20 of 50 chunks, 20 min 00 s left");
        let none = work("measuring", 0, 50, Unit::Of("chunks"));
        assert_eq!(none.figures(at(8)), "  0 %, 0 of 50 chunks, 8 s");
        let bytes = work("verifying", 7_000_000_000, 14_000_000_000, Unit::Bytes);
        assert_eq!(bytes.figures(at(120)), " 50 %, 7.0 of 14.0 GB, 2 min 00 s left");
        let seconds = work("steady run", 0, 300, Unit::Seconds);
        assert_eq!(seconds.figures(at(120)), " 40 %, 2 min 00 s of 5 min 00 s");
        assert_eq!(work("loading", 0, 0, Unit::Bytes).figures(at(12)), "12 s");
        assert_eq!(
            work("replay", 0, 100_000, Unit::Seconds).figures(at(50_000)),
            " 50 %, 13 h 53 min of 27 h 46 min"
        );
    }

    #[test]
    fn a_line_fits_and_has_a_bar_where_there_is_room() {
        let chunks = work("measuring", 20, 50, Unit::Of("chunks"));
        let line = |columns| chunks.line(Duration::from_secs(8), columns);
        assert_eq!(
            line(79),
            "measuring [#############--------------------]  40 %, 20 of 50 chunks, 12 s left"
        );
        for columns in 0..200 {
            assert!(line(columns).chars().count() <= columns, "{columns}: {}", line(columns));
            assert_eq!(line(columns).contains('['), columns >= 56, "{columns}: {}", line(columns));
        }
    }
}
