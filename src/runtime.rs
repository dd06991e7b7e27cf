//! The real-time runtime: inference on a thread of its own, and handles for the threads on either side of it.
//!
//! [`Runtime::start`] takes a policy (anything that is an [`Engine`]) and returns
//! three things: the [`Runtime`], for its owner; an [`ObservationWriter`], for the thread that has the sensors; and a
//! [`Controller`], for the control loop. Observations and chunks are handed over through wait-free cells that keep
//! the latest only; commands and events, which are not real-time, go through channels.
//!
//! What the control loop can rely on: a read never blocks; an action and what is said about it belong to one
//! inference; no action is older than it says; none is NaN, infinite or out of limits; no joint moves further in a
//! tick than its limit; and when inference fails, hangs or falls behind, the status says HOLD within the configured
//! time and motion does what was configured. Not promised: that inference is done in time (the GPU cannot be
//! preempted), nor that what the policy wants is wise.

mod command;
mod config;
mod controller;
mod event;
mod lockstep;
mod observation;
mod policy_engine;
mod shared;
mod systemd;
#[cfg(test)]
mod tests;
mod watch;
mod worker;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

pub use config::{Limits, Replan, RuntimeConfig};
pub use controller::Controller;
pub use event::Event;
pub use lockstep::Lockstep;
pub use observation::{ObservationWriter, PublishError, Published};
pub use policy_engine::{EngineOptions, ObservationSlot, PolicyEngine};
pub use shared::{ControlStats, InferenceStats, ObservationStats, Phase, RuntimeStats};
pub use worker::Turn;

use crate::policy::rtc::RtcConfig;
use crate::realtime::cell::cell;
use crate::realtime::chunk::Chunk;
use crate::realtime::clock::{Clock, Monotonic, Timestamp, nanos};
use crate::realtime::engine::Engine;
use crate::realtime::recorder::{FlightRecord, RecorderView, recorder};
use crate::realtime::thread::Obtained;
use crate::realtime::timeline::{Progress, Timeline};
use crate::realtime::wake::{Waiter, Waker, wake};
use crate::{Error, ErrorKind, Result};
use command::{Command, CommandSender, commands};
use observation::Observed;
use shared::Shared;
use systemd::Systemd;
use watch::Watch;
use worker::{Ends, Worker};

/// The owner's handle: commands, events, statistics, and the end of it all.
///
/// Dropping it stops the runtime like [`stop`](Self::stop).
#[derive(Debug)]
pub struct Runtime {
    office: Office,
    obtained: Obtained,
    stop_timeout: Duration,
    inference: Option<Thread>,
    watch: Option<Thread>,
    /// The watch's, once it has one.
    systemd: Sender<Systemd>,
}

/// A thread, how to get its attention, and how to learn that it has ended.
#[derive(Debug)]
struct Thread {
    handle: JoinHandle<()>,
    waker: Waker,
    /// Disconnected once the thread has ended.
    ended: Receiver<()>,
}

/// What is not real-time: the same with and without threads.
#[derive(Debug)]
struct Office {
    commands: CommandSender,
    waker: Waker,
    events: Receiver<Event>,
    shared: Arc<Shared>,
    recorder: RecorderView,
}

/// Everything of a runtime but its threads.
struct Parts<E: Engine, C> {
    worker: Worker<E, C>,
    waiter: Waiter,
    watch: Watch,
    office: Office,
    observations: ObservationWriter<E::Observation>,
    controller: Controller,
}

fn assemble<E: Engine, C: Clock>(engine: E, clock: C, config: &RuntimeConfig) -> Result<Parts<E, C>> {
    let (rows, dim) = (engine.action_horizon(), engine.action_dim());
    // Before anything is made for a shape that makes no sense.
    config.validate(rows, dim)?;
    let shared = Arc::new(Shared::new());
    let (observation_writer, observation_reader) =
        cell(|| Observed { data: engine.new_observation(), captured: Timestamp::default() });
    let (chunk_writer, chunk_reader) = cell(|| Chunk::new(rows, dim));
    let (progress_writer, progress_reader) = cell(Progress::default);
    let (command_sender, command_receiver) = commands();
    let (events, event_receiver) = event::events(config.event_capacity, Arc::clone(&shared));
    let (tick_recorder, chunk_recorder, recorder) = recorder(rows, dim);
    let (waker, waiter) = wake();
    let watchdog = nanos(config.watchdog);
    let ends = Ends {
        observations: observation_reader,
        chunks: chunk_writer,
        progress: progress_reader,
        commands: command_receiver,
        events: events.clone(),
        recorder: chunk_recorder,
        shared: Arc::clone(&shared),
    };
    let timeline = Timeline::new(&config.timeline, dim)?;
    Ok(Parts {
        worker: Worker::new(engine, clock, config, ends)?,
        waiter,
        watch: Watch {
            shared: Arc::clone(&shared),
            events,
            recorder: recorder.clone(),
            flight_record: config.flight_record.clone(),
            watchdog,
            systemd: None,
            hung: false,
            tripped: false,
            failed: false,
        },
        observations: ObservationWriter::new(observation_writer, waker.clone(), Arc::clone(&shared)),
        controller: Controller::new(
            chunk_reader,
            timeline,
            progress_writer,
            tick_recorder,
            Arc::clone(&shared),
            watchdog,
        ),
        office: Office { commands: command_sender, waker, events: event_receiver, shared, recorder },
    })
}

impl Runtime {
    /// Starts inference on a thread of its own, and returns once the policy is warmed up there.
    ///
    /// Fails if the settings contradict each other or the policy, if a real-time right is missing that is insisted
    /// on, or if warming up fails.
    pub fn start<E>(
        engine: E,
        config: &RuntimeConfig,
    ) -> Result<(Runtime, ObservationWriter<E::Observation>, Controller)>
    where
        E: Engine + 'static,
        E::Observation: 'static,
    {
        let Parts { worker, waiter, watch, office, observations, controller } =
            assemble(engine, Monotonic, config)?;
        let thread_config = config.thread.clone();
        let (ready_sender, ready) = bounded(1);
        let waker = office.waker.clone();
        let inference = spawn("pi0-inference", waker, move || {
            infer(worker, waiter, |workers| thread_config.apply_with_workers(workers), &ready_sender);
        })?;
        let started = ready.recv().unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Runtime, "the inference thread ended while starting"))
        });
        let obtained = match started {
            Ok(obtained) => obtained,
            Err(e) => {
                // It is on its way out. Its own error says more than what could go wrong with that.
                _ = inference.end(config.stop_timeout);
                return Err(e);
            }
        };
        let (watch_waker, watch_waiter) = wake();
        let (systemd, for_watch) = bounded(1);
        let watch = spawn("pi0-watch", watch_waker, move || watch.run(watch_waiter, &for_watch))?;
        let runtime = Runtime {
            office,
            obtained,
            stop_timeout: config.stop_timeout,
            inference: Some(inference),
            watch: Some(watch),
            systemd,
        };
        Ok((runtime, observations, controller))
    }

    /// Sets the prompt. A chunk being computed is dropped and begun anew; the one being executed goes on until the
    /// new one takes over.
    pub fn set_prompt(&self, prompt: impl Into<String>) -> Result<()> {
        self.office.command(Command::Prompt(prompt.into()))
    }

    /// Sets the number of denoise steps. A chunk being computed is dropped and begun anew.
    pub fn set_num_steps(&self, num_steps: usize) -> Result<()> {
        self.office.command(Command::NumSteps(num_steps))
    }

    /// Sets the limits chunks must keep to, from the next one finished on. None: the policy's own
    /// limits, if it has any.
    pub fn set_limits(&self, limits: Option<Limits>) -> Result<()> {
        self.office.command(Command::Limits(limits))
    }

    /// Turns real-time chunking on, off, or to other settings, from the next chunk begun on.
    pub fn set_rtc(&self, rtc: Option<RtcConfig>) -> Result<()> {
        self.office.command(Command::Rtc(rtc))
    }

    /// What there is to know, in order. Take it out now and then: what finds no room is counted and lost.
    pub fn events(&self) -> &Receiver<Event> {
        &self.office.events
    }

    /// What was counted so far.
    pub fn stats(&self) -> RuntimeStats {
        self.office.shared.stats(Timestamp::now())
    }

    /// The last control ticks and chunks.
    pub fn flight_record(&self) -> FlightRecord {
        self.office.recorder.take()
    }

    /// What the inference thread was given of what it was to have.
    pub fn realtime(&self) -> &Obtained {
        &self.obtained
    }

    /// From now on tells systemd how inference goes, where the program is a service of `Type=notify`: READY=1 at
    /// once, WATCHDOG=1 as chunks are completed, what `systemctl status` shows, and STOPPING=1 when the runtime is
    /// stopped or dropped. True if there is a systemd that wants to know (`$NOTIFY_SOCKET`), false if there is none,
    /// which is no error.
    ///
    /// Call it once everything else the program needs is ready too. The watchdog (`WatchdogSec=`) is fed by completed
    /// chunks alone, published or rejected: an engine that hangs or fails, and sensors that publish nothing, end in
    /// systemd starting the program again. The messages are sent from a thread of their own, which waits for nobody.
    ///
    /// RT-safe: no. Thread: any.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if nobody listens at the socket, [`ErrorKind::InvalidArgument`] if the environment is not
    /// what systemd would set.
    pub fn notify_systemd(&self) -> Result<bool> {
        let systemd = Systemd::from_environment()?;
        let found = systemd.is_some();
        if let Some(systemd) = systemd {
            self.notify(systemd);
        }
        Ok(found)
    }

    fn notify(&self, systemd: Systemd) {
        // No room means that the one before is on its way; an ended watch, that the runtime is ending.
        _ = self.systemd.try_send(systemd);
    }

    /// Stops inference and waits for its thread to end, for as long as the configuration says. From then on reads
    /// are HOLD. If inference does not come back in time its thread is left behind, and this is an error.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    /// Writes the last control ticks and chunks to a file, as JSON: all of it or nothing.
    pub fn write_flight_record(&self, path: &Path) -> Result<()> {
        watch::write(path, &self.flight_record().to_json()).map_err(|e| Error::new(ErrorKind::Io, e))
    }

    /// As [`stop`](Self::stop), for owners that go on to ask what happened. Ending again does nothing.
    pub fn end(&mut self) -> Result<()> {
        self.office.shared.ask_to_stop();
        // The watch first, so that it can still say what it sees; it never hangs.
        let watched = self.watch.take().map_or(Ok(()), |thread| thread.end(self.stop_timeout));
        let stopped = self.inference.take().map_or(Ok(()), |thread| thread.end(self.stop_timeout));
        stopped.and(watched)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Err(e) = self.end() {
            log::warn!("{e}");
        }
    }
}

impl Office {
    fn command(&self, command: Command) -> Result<()> {
        if matches!(self.shared.phase(), Phase::Failed | Phase::Stopped) {
            return Err(Error::new(
                ErrorKind::Runtime,
                "the inference thread has given up; start a new runtime",
            ));
        }
        self.commands.send(command)?;
        self.waker.notify();
        Ok(())
    }
}

impl Thread {
    fn end(self, timeout: Duration) -> Result<()> {
        self.waker.notify();
        let name = self.handle.thread().name().unwrap_or_default().to_owned();
        match self.ended.recv_timeout(timeout) {
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => {
                let what = format!("thread {name} did not end within {timeout:?} and is left behind");
                Err(Error::new(ErrorKind::Runtime, what))
            }
            _ => self.handle.join().map_err(|panic| {
                Error::new(
                    ErrorKind::Runtime,
                    format!("thread {name} panicked: {}", worker::in_words(&*panic)),
                )
            }),
        }
    }
}

fn spawn(name: &str, waker: Waker, body: impl FnOnce() + Send + 'static) -> Result<Thread> {
    let (running, ended) = bounded(0);
    let run = move || {
        // Dropped last, whichever way the body ends.
        let _running: Sender<()> = running;
        body();
    };
    let handle = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    let handle =
        handle.map_err(|e| Error::with_source(ErrorKind::Runtime, format!("starting thread {name}"), e))?;
    Ok(Thread { handle, waker, ended })
}

/// The inference thread.
fn infer<E: Engine>(
    mut worker: Worker<E, Monotonic>,
    mut waiter: Waiter,
    set_up: impl FnOnce(&[i32]) -> Result<Obtained>,
    ready: &Sender<Result<Obtained>>,
) {
    let started = set_up(&worker.engine_threads()).and_then(|obtained| worker.warm_up().map(|()| obtained));
    let go = started.is_ok();
    // Cannot fail: there is room for one, and the starting thread waits for it.
    _ = ready.send(started);
    if go {
        loop {
            match worker.turn() {
                Turn::Worked => {}
                Turn::Wait(until) => _ = waiter.wait(until),
                Turn::Stopped => break,
            }
        }
    }
    worker.end();
}
