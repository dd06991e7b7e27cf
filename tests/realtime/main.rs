//! The promises to the control loop, on real threads.

use std::sync::{Mutex, MutexGuard, PoisonError};

mod fake;
mod freezes;
mod preemption;
mod reads;
mod thread;

/// Returns the right to measure: one test at a time, because each looks at what the machine does to its threads.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
