//! Commands on their way to the inference thread.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::action::ActionLimits;
use crate::policy::rtc::RtcConfig;
use crate::{Error, ErrorKind, Result};

/// The most commands that may be waiting.
const CAPACITY: usize = 16;

/// A command, carried out between two quanta.
#[derive(Debug)]
pub(super) enum Command {
    Prompt(String),
    NumSteps(usize),
    Limits(Option<ActionLimits>),
    Rtc(Option<RtcConfig>),
}

/// The owner's end.
#[derive(Debug)]
pub(super) struct CommandSender {
    /// One sender at a time, so that what is counted has been sent completely.
    sender: Mutex<Sender<Command>>,
    sent: Arc<AtomicUsize>,
}

/// The inference thread's end.
///
/// A bounded channel spins while the slot it wants is being filled by a sender that was preempted half-way, which a
/// SCHED_FIFO thread on the same CPU would do for ever. So no more is taken out than was counted after it was in.
#[derive(Debug)]
pub(super) struct CommandReceiver {
    receiver: Receiver<Command>,
    sent: Arc<AtomicUsize>,
    taken: usize,
}

pub(super) fn commands() -> (CommandSender, CommandReceiver) {
    let (sender, receiver) = bounded(CAPACITY);
    let sent = Arc::new(AtomicUsize::new(0));
    let commands = CommandSender { sender: Mutex::new(sender), sent: Arc::clone(&sent) };
    (commands, CommandReceiver { receiver, sent, taken: 0 })
}

impl CommandSender {
    pub(super) fn send(&self, command: Command) -> Result<()> {
        // Poisoned means a sender panicked; the channel is none the worse for it.
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        sender.try_send(command).map_err(|_| {
            Error::new(
                ErrorKind::Runtime,
                format!("{CAPACITY} commands are waiting for the inference thread already"),
            )
        })?;
        // Release, so that who counts it finds it in the channel.
        self.sent.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

impl CommandReceiver {
    /// Takes the next command, if there is one.
    pub(super) fn take(&mut self) -> Option<Command> {
        // Acquire pairs with the Release in `send`.
        if self.taken == self.sent.load(Ordering::Acquire) {
            return None;
        }
        let command = self.receiver.try_recv().ok()?;
        self.taken = self.taken.wrapping_add(1);
        Some(command)
    }
}
