//! The threads beside a live runtime: a control loop, the sensors, and the caller, who looks on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

use pi0_edge::{Error, ErrorKind, Result};

use crate::interrupt::{self, Heeding};

/// Runs the control loop and the sensors, each on a thread of its own, until the control loop has ended; meanwhile
/// looks on, `period` apart, also for Ctrl-C, which ends it. Both are given a flag that says that it is over; then `wake` is called, for sensors that
/// wait for something.
///
/// # Errors
///
/// Those of the three, and [`ErrorKind::Runtime`] if a thread does not start or panics. An error of `look` ends the run.
pub fn run<C: Send, S: Send>(
    control: impl FnOnce(&AtomicBool) -> Result<C> + Send,
    sensors: impl FnOnce(&AtomicBool) -> Result<S> + Send,
    period: Duration,
    mut look: impl FnMut(&AtomicBool) -> Result<()>,
    wake: impl FnOnce(),
) -> Result<(C, S)> {
    let _heeding = Heeding::new();
    // Relaxed throughout: nothing is handed over by it.
    let over = &AtomicBool::new(false);
    thread::scope(|scope| {
        let sensors = spawn(scope, "pi0-sensors", move || sensors(over))?;
        let control = spawn(scope, "pi0-control", move || control(over)).and_then(|control| {
            let mut looked = Ok(());
            while !control.is_finished() && looked.is_ok() {
                looked = look(over);
                over.fetch_or(looked.is_err() || interrupt::requested(), Ordering::Relaxed);
                thread::sleep(period);
            }
            let ended = join(control);
            looked.and(ended)
        });
        over.store(true, Ordering::Relaxed);
        wake();
        let sensors = join(sensors)?;
        Ok((control?, sensors))
    })
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    body: impl FnOnce() -> Result<T> + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, Result<T>>> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, body);
    thread.map_err(|e| Error::with_source(ErrorKind::Runtime, format!("starting thread {name}"), e))
}

fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    let name = thread.thread().name().unwrap_or_default().to_owned();
    thread.join().map_err(|_| Error::new(ErrorKind::Runtime, format!("thread {name} panicked")))?
}
