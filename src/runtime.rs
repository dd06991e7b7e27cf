//! The real-time runtime: inference on a thread of its own, and handles for the threads on either side of it.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use pi0_edge::runtime::{PolicyInference, PolicyInferenceOptions, Timestamp};
//! use pi0_edge::{Policy, PolicyOptions, Runtime, RuntimeConfig};
//!
//! # fn main() -> pi0_edge::Result<()> {
//! let policy = Policy::load("models/pi0-tiny", &PolicyOptions { no_spin: true, ..PolicyOptions::default() })?;
//! let inference = PolicyInference::new(policy, PolicyInferenceOptions::default())?;
//! let (runtime, mut sensors, mut controller) = Runtime::start(inference, &RuntimeConfig::default())?;
//! // On the sensors' thread, for every set of frames:
//! let captured = Timestamp::now();
//! let slot = sensors.slot();
//! slot.frame_mut(0, 640, 480).expect("a camera with room for the frame").fill(128);
//! slot.state_mut().fill(0.0);
//! sensors.publish(captured).expect("a capture time that is not ahead of now");
//! // On the control loop's thread, in every period:
//! let reading = controller.read();
//! println!("{:?}: {:?}", reading.status, controller.action());
//! runtime.set_prompt("pick up the cube")?;
//! // The policy comes back, and can be started again without being loaded.
//! let inference = runtime.stop()?;
//! # drop(inference);
//! # Ok(())
//! # }
//! ```
//!
//! [`Runtime::start`] takes a policy ([`PolicyInference`], or anything else that is an [`Inference`]) and returns
//! three things: the [`Runtime`], for its owner; an [`ObservationWriter`], for the thread that has the sensors; and a
//! [`Controller`], for the control loop. Observations and chunks are handed over through wait-free cells that keep
//! the latest only; commands and events, which are not real-time, go through channels.
//!
//! The control loop can rely on this: a read never blocks; an action and what is said about it belong to one
//! inference; no action is older than it says; none is NaN, infinite or out of limits; no joint moves further in a
//! tick than its limit; and when inference fails, hangs or falls behind, the status says HOLD within the configured
//! time and motion does what was configured. Not promised: that inference is done in time (the GPU cannot be
//! preempted), nor that what the policy wants is wise.

mod command;
mod config;
mod controller;
mod event;
mod inference;
mod lockstep;
mod observation;
mod policy_inference;
mod shared;
pub(crate) mod systemd;
#[cfg(test)]
mod tests;
mod watch;
mod worker;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

pub use config::{Replan, RuntimeConfig};
pub use controller::Controller;
pub use event::Event;
pub use inference::Inference;
pub use lockstep::Lockstep;
pub use observation::{ObservationWriter, PublishError, Published};
pub use policy_inference::{ObservationSlot, PolicyInference, PolicyInferenceOptions};
pub use shared::{ControlStats, InferenceStats, ObservationStats, Phase, RuntimeStats};
pub use worker::Turn;

pub use crate::realtime::chunk::{ChunkInfo, Interpolation};
pub use crate::realtime::clock::{SimulatedClock, Timestamp};
pub use crate::realtime::delay::{DelayConfig, DelayRule};
pub use crate::realtime::reading::{Flags, Reading, Status};
pub use crate::realtime::recorder::{ChunkRecord, FlightRecord, RecorderView as FlightRecorder, TickRecord};
pub use crate::realtime::splice::Splice;
pub use crate::realtime::thread::{MemoryLock, Missing, Obtained, Realtime, ThreadConfig, WorkerThread};
pub use crate::realtime::timeline_config::{TimelineConfig, Underrun};

use crate::action::ActionLimits;
use crate::policy::rtc::RtcConfig;
use crate::realtime::cell::cell;
use crate::realtime::chunk::StampedChunk;
use crate::realtime::clock::{Clock, Monotonic, nanos};
use crate::realtime::recorder::{RecorderView, recorder};
use crate::realtime::timeline::{Progress, Timeline};
use crate::realtime::wake::{Waiter, Waker, wake};
use crate::{Error, ErrorKind, Result};
use command::{Command, CommandSender, commands};
use observation::Observed;
use shared::Shared;
use systemd::Systemd;
use watch::{Alarms, Watch};
use worker::{Ends, Worker};

/// The owner's handle: commands, events, statistics, and the end of it all.
///
/// Dropping it stops the runtime like [`stop`](Self::stop). Thread: any, several at once; only
/// [`begin_episode`](Self::begin_episode) is RT-safe. No lock is held while a thread is waited for.
pub struct Runtime<I: Inference = PolicyInference> {
    commands: CommandSender,
    waker: Waker,
    events: Receiver<Event>,
    shared: Arc<Shared>,
    recorder: RecorderView,
    obtained: Obtained,
    stop_timeout: Duration,
    inference: Option<Thread>,
    watch: Option<Thread>,
    /// Inference, once its thread has ended.
    returned: Arc<Mutex<Option<I>>>,
    /// The watch's, once it has one.
    systemd: Sender<Systemd>,
}

/// A thread, the way to its attention, and the way to learn that it has ended.
#[derive(Debug)]
struct Thread {
    name: &'static str,
    /// None once somebody has joined it or left it behind.
    handle: Mutex<Option<JoinHandle<()>>>,
    waker: Waker,
    /// Disconnected once the thread has ended.
    ended: Receiver<()>,
}

/// A runtime whose threads do not run yet.
struct Parts<I: Inference, C> {
    worker: Worker<I, C>,
    waiter: Waiter,
    watch: Watch,
    runtime: Runtime<I>,
    observations: ObservationWriter<I::Observation>,
    controller: Controller,
}

/// Makes everything of a runtime but its threads.
fn assemble<I: Inference, C: Clock>(inference: I, clock: C, config: &RuntimeConfig) -> Result<Parts<I, C>> {
    let (rows, dim) = (inference.action_horizon(), inference.action_dim());
    // Before anything is made for a shape that makes no sense.
    config.validate(rows, dim)?;
    if config.timeline.splice == Splice::State && inference.state(&inference.new_observation()).is_empty() {
        let text =
            "splice rule state: this policy's observations have no state to compare the measured one with";
        return Err(Error::new(ErrorKind::InvalidArgument, text));
    }
    let mut timeline = Timeline::new(&config.timeline, dim)?;
    if let Some(scales) = inference.joint_scales() {
        timeline.set_joint_scales(&scales);
    }
    let shared = Arc::new(Shared::new());
    let (observation_writer, observation_reader) =
        cell(|| Observed { data: inference.new_observation(), captured: Timestamp::default(), episode: 0 });
    let (chunk_writer, chunk_reader) = cell(|| StampedChunk::new(rows, dim));
    let (progress_writer, progress_reader) = cell(Progress::default);
    let (commands, command_receiver) = commands();
    let (events, event_receiver) = event::events(config.event_capacity, Arc::clone(&shared));
    let (tick_recorder, chunk_recorder, recorder) = recorder(rows, dim);
    let (systemd, systemd_receiver) = bounded(1);
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
    Ok(Parts {
        worker: Worker::new(inference, clock, config.clone(), ends)?,
        waiter,
        watch: Watch {
            shared: Arc::clone(&shared),
            events,
            recorder: recorder.clone(),
            flight_record: config.flight_record.clone(),
            watchdog,
            requests: systemd_receiver,
            systemd: None,
            before: Alarms::default(),
        },
        observations: ObservationWriter::new(observation_writer, waker.clone(), Arc::clone(&shared)),
        controller: Controller {
            chunks: chunk_reader,
            timeline,
            progress: progress_writer,
            recorder: tick_recorder,
            shared: Arc::clone(&shared),
            watchdog,
            flags_before: Flags::empty(),
            slept: Timestamp::now_and_slept().1,
            sleep_checked: Timestamp::default(),
        },
        runtime: Runtime {
            commands,
            waker,
            events: event_receiver,
            shared,
            recorder,
            obtained: Obtained::default(),
            stop_timeout: config.stop_timeout,
            inference: None,
            watch: None,
            returned: Arc::default(),
            systemd,
        },
    })
}

impl<I: Inference> Runtime<I> {
    /// Starts inference on a thread of its own, and returns once the policy is warmed up there.
    ///
    /// # Errors
    /// Settings that contradict each other or the policy, a real-time right that is missing and insisted on, or a
    /// policy that fails to warm up.
    pub fn start(
        inference: I,
        config: &RuntimeConfig,
    ) -> Result<(Self, ObservationWriter<I::Observation>, Controller)>
    where
        I: 'static,
        I::Observation: 'static,
    {
        let Parts { worker, waiter, watch, mut runtime, observations, controller } =
            assemble(inference, Monotonic, config)?;
        let thread_config = config.thread.clone();
        let (ready_sender, ready) = bounded(1);
        let returned = Arc::clone(&runtime.returned);
        let inference = spawn("pi0-inference", runtime.waker.clone(), move || {
            let set_up = |workers: &[i32]| thread_config.apply_with_workers(workers);
            let inference = infer(worker, waiter, set_up, &ready_sender);
            *returned.lock().unwrap_or_else(PoisonError::into_inner) = inference;
        })?;
        let started = ready.recv().unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Runtime, "the inference thread ended while starting"))
        });
        runtime.inference = Some(inference);
        // On an error the thread is on its way out, and dropping the runtime waits for it.
        runtime.obtained = started?;
        let (watch_waker, watch_waiter) = wake();
        runtime.watch = Some(spawn("pi0-watch", watch_waker, move || watch.run(watch_waiter))?);
        Ok((runtime, observations, controller))
    }

    /// Begins a new episode: the robot was put somewhere else, or its task starts anew. The plan, what it leaves over and
    /// the held action are dropped; reads are EMPTY from now on until there is a chunk of an observation that was
    /// captured and published after this call, and that chunk is guided by none before it. What is being computed
    /// meanwhile is never followed. A trip of the step limit stays until it is cleared;
    /// [`Controller::set_reference`] may tell where the robot is now.
    ///
    /// RT-safe: yes. Thread: any.
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn begin_episode(&self) {
        self.shared.episode.begin(Timestamp::now());
    }

    /// Sets the prompt. A chunk being computed is dropped and begun anew; the one being executed goes on until the
    /// new one takes over.
    ///
    /// # Errors
    /// [`ErrorKind::Runtime`] when inference has given up, or 16 commands are waiting for it. A prompt that cannot be
    /// used is told later, by [`Event::CommandFailed`].
    pub fn set_prompt(&self, prompt: impl Into<String>) -> Result<()> {
        self.command(Command::Prompt(prompt.into()))
    }

    /// Sets the number of denoise steps. A chunk being computed is dropped and begun anew.
    ///
    /// # Errors
    /// As [`set_prompt`](Self::set_prompt).
    pub fn set_num_steps(&self, num_steps: usize) -> Result<()> {
        self.command(Command::NumSteps(num_steps))
    }

    /// Sets the limits chunks must keep to beside the policy's own, from the next one finished on. None: the policy's
    /// own limits alone, if it has any.
    ///
    /// # Errors
    /// As [`set_prompt`](Self::set_prompt).
    pub fn set_limits(&self, limits: Option<ActionLimits>) -> Result<()> {
        self.command(Command::Limits(limits))
    }

    /// Turns real-time chunking on, off, or to other settings, from the next chunk begun on.
    ///
    /// # Errors
    /// As [`set_prompt`](Self::set_prompt).
    pub fn set_rtc(&self, rtc: Option<RtcConfig>) -> Result<()> {
        self.command(Command::Rtc(rtc))
    }

    fn command(&self, command: Command) -> Result<()> {
        if matches!(self.shared.phase(), Phase::Failed | Phase::Stopped) {
            let what =
                "the inference thread has given up or ended; stop the runtime and start its policy again";
            return Err(Error::new(ErrorKind::Runtime, what));
        }
        self.commands.send(command)?;
        self.waker.notify();
        Ok(())
    }

    /// Returns the events, in order. Take them out now and then: one that finds no room is counted and lost.
    pub fn events(&self) -> &Receiver<Event> {
        &self.events
    }

    /// Returns everything that was counted so far.
    pub fn stats(&self) -> RuntimeStats {
        self.shared.stats(Timestamp::now())
    }

    /// Returns the last control ticks and chunks.
    pub fn flight_record(&self) -> FlightRecord {
        self.recorder.take()
    }

    /// Returns the flight recorder, to look at from another thread now and then.
    pub fn flight_recorder(&self) -> FlightRecorder {
        self.recorder.clone()
    }

    /// Returns what the inference thread was given of what it was to have; nothing for a runtime without threads.
    pub fn realtime(&self) -> &Obtained {
        &self.obtained
    }

    /// Tells systemd from now on how inference goes, where the program is a service of `Type=notify`: READY=1 at
    /// once, WATCHDOG=1 as chunks are completed, the status that `systemctl status` shows, and STOPPING=1 when the
    /// runtime is stopped or dropped. True if there is a systemd that wants to know (`$NOTIFY_SOCKET`), false if there
    /// is none, which is no error.
    ///
    /// Call it once everything else the program needs is ready too. The watchdog (`WatchdogSec=`) is fed by completed
    /// chunks alone, published or rejected: inference that hangs or fails, and sensors that publish nothing, end in
    /// systemd starting the program again. The messages are sent from a thread of their own, which waits for nobody.
    ///
    /// RT-safe: no. Thread: any.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if nobody listens at the socket, [`ErrorKind::InvalidArgument`] if the environment is not
    /// what systemd would set, or if the watchdog's interval is less than two chunks take: it would end a program that is
    /// well.
    pub fn notify_systemd(&self) -> Result<bool> {
        let systemd = Systemd::from_environment()?;
        systemd.iter().try_for_each(|systemd| systemd.check_interval(self.shared.warm_chunk()))?;
        Ok(systemd.map(|systemd| self.notify(systemd)).is_some())
    }

    fn notify(&self, systemd: Systemd) {
        // No room means that the one before is on its way; an ended watch, that the runtime is ending.
        _ = self.systemd.try_send(systemd);
    }

    /// Writes the last control ticks and chunks to a file, as JSON: all of it or nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], naming the file.
    pub fn write_flight_record(&self, path: &Path) -> Result<()> {
        watch::write(path, &self.flight_record().to_json()).map_err(|e| Error::new(ErrorKind::Io, e))
    }

    /// Stops inference, waits for its thread to end for as long as the configuration says, and gives inference back: it
    /// can be started again without being loaded, also after it has given up. From then on reads are HOLD.
    ///
    /// # Errors
    /// [`ErrorKind::Runtime`] if inference does not come back in time, and its thread is left behind; or if it
    /// panicked, after which it is not used again.
    pub fn stop(self) -> Result<I> {
        self.end()?;
        self.take().ok_or_else(|| {
            let what = "inference panicked or is in use elsewhere; load the policy anew";
            Error::new(ErrorKind::Runtime, what)
        })
    }

    /// Stops as [`stop`](Self::stop) does, for owners that go on to ask what happened. Several may call it at once, and
    /// each waits. Ending again does nothing.
    #[doc(hidden)]
    pub fn end(&self) -> Result<()> {
        self.shared.ask_to_stop();
        // The watch first, so that it can still say what it sees; it never hangs.
        let end = |thread: &Option<Thread>| thread.as_ref().map_or(Ok(()), |t| t.end(self.stop_timeout));
        let watched = end(&self.watch);
        end(&self.inference).and(watched)
    }

    /// Takes inference out after the end; none if it was taken before, panicked, or was left behind.
    #[doc(hidden)]
    pub fn take(&self) -> Option<I> {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<I: Inference> Drop for Runtime<I> {
    fn drop(&mut self) {
        if let Err(e) = self.end() {
            log::warn!("{e}");
        }
    }
}

impl<I: Inference> fmt::Debug for Runtime<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("phase", &self.shared.phase()).finish_non_exhaustive()
    }
}

impl Thread {
    /// Waits for the thread to end, and leaves it behind if it does not in time. Holds no lock meanwhile.
    fn end(&self, timeout: Duration) -> Result<()> {
        self.waker.notify();
        let handle = || self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody waits twice for a thread that was left behind.
        let timeout = if handle().is_some() { timeout } else { Duration::ZERO };
        let ended = self.ended.recv_timeout(timeout) != Err(RecvTimeoutError::Timeout);
        let handle = handle().take();
        let failed = |what: String| Error::new(ErrorKind::Runtime, format!("thread {} {what}", self.name));
        match (ended, handle) {
            (true, Some(handle)) => {
                handle.join().map_err(|panic| failed(format!("panicked: {}", worker::panic_message(&*panic))))
            }
            (true, None) => Ok(()),
            (false, _) => Err(failed(format!("did not end within {timeout:?} and is left behind"))),
        }
    }
}

fn spawn(name: &'static str, waker: Waker, body: impl FnOnce() + Send + 'static) -> Result<Thread> {
    let (running, ended) = bounded(0);
    let run = move || {
        // Dropped last, whichever way the body ends.
        let _running: Sender<()> = running;
        body();
    };
    let handle = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    let handle =
        handle.map_err(|e| Error::with_source(ErrorKind::Runtime, format!("starting thread {name}"), e))?;
    Ok(Thread { name, handle: Mutex::new(Some(handle)), waker, ended })
}

/// Runs the inference thread, and gives inference back.
fn infer<I: Inference>(
    mut worker: Worker<I, Monotonic>,
    mut waiter: Waiter,
    set_up: impl FnOnce(&[i32]) -> Result<Obtained>,
    ready: &Sender<Result<Obtained>>,
) -> Option<I> {
    let started = set_up(&worker.worker_threads()).and_then(|obtained| worker.warm_up().map(|()| obtained));
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
    worker.end()
}
