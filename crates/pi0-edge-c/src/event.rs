//! Events on their way to a C program: by callback, as lines on a file descriptor, or taken one by one.

use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select};

use super::boundary::{fixed_text, grows};
use super::carrier::Carrier;
use super::descriptor::Descriptor;
use super::status::{Fail, Result};
use pi0_edge::Reject;
use pi0_edge::runtime::Event;

/// A chunk was published. `number` counts the rows that guided it, `duration_ns` is from begin to publication.
pub const PI0_EVENT_CHUNK: u32 = 1;
/// A chunk was not published, for the reason in `message`. `number` is the place of the bad value, row by row.
pub const PI0_EVENT_REJECTED: u32 = 2;
/// A chunk was dropped because it was not finished in time. `number` counts the denoise steps that had been done.
pub const PI0_EVENT_DEADLINE_MISS: u32 = 3;
/// Inference failed and is tried again. `number` counts the errors in a row.
pub const PI0_EVENT_ENGINE_ERROR: u32 = 4;
/// A prompt, step count, limit or RTC setting was refused; everything is as before it.
pub const PI0_EVENT_COMMAND_FAILED: u32 = 5;
/// Inference has given up: `PI0_HOLD` until its policy is started again, see `pi0_runtime_take_policy`.
pub const PI0_EVENT_GAVE_UP: u32 = 6;
/// Inference has not come back from one step for `duration_ns`: `PI0_HOLD`.
pub const PI0_EVENT_HUNG: u32 = 7;
/// Inference that counted as hung has come back.
pub const PI0_EVENT_RECOVERED: u32 = 8;
/// The step limit tripped: `PI0_HOLD` until cleared.
pub const PI0_EVENT_TRIPPED: u32 = 9;
/// The flight record was written to the file in `message`.
pub const PI0_EVENT_FLIGHT_RECORD: u32 = 10;
/// The flight record could not be written, for the reason in `message`.
pub const PI0_EVENT_FLIGHT_RECORD_FAILED: u32 = 11;
/// The policy cannot use an observation, for the reason in `message`: a value that is not finite, a camera that is
/// missing, a prompt that is too long for the state. It is not tried again; the next one is.
pub const PI0_EVENT_OBSERVATION_REFUSED: u32 = 12;

/// Bytes of an event's text, the final NUL included.
pub const PI0_EVENT_MESSAGE_SIZE: usize = 512;

/// Something that happened, off the real-time path. Kinds may be added: ignore those you do not know.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pi0_event {
    /// `sizeof(pi0_event)`: set it before the call; in a callback it is the library's.
    pub struct_size: usize,
    /// `PI0_EVENT_...`
    pub kind: u32,
    /// 0.
    pub reserved: u32,
    /// The number of the chunk it is about; 0 if it is about none.
    pub chunk: u64,
    /// See the kind.
    pub number: u64,
    /// See the kind.
    pub duration_ns: u64,
    /// UTF-8, in words for people; empty where there is nothing to add. What does not fit is cut off.
    pub message: [c_char; PI0_EVENT_MESSAGE_SIZE],
}
grows!(pi0_event, message);

/// Gets an event, which is valid until it returns.
pub type pi0_event_callback = Option<unsafe extern "C" fn(event: *const pi0_event, user: *mut c_void)>;

impl pi0_event {
    pub(super) fn new(event: &Event) -> Self {
        let (kind, chunk, number, duration_ns, message) = match event {
            Event::Chunk(info) => {
                let took = info.published.since(info.begun);
                (PI0_EVENT_CHUNK, info.number, u64::from(info.guided_rows), took, String::new())
            }
            Event::Rejected { chunk, reason } => {
                let place = match *reason {
                    Reject::NonFinite { index } | Reject::OutOfLimits { index, .. } => index as u64,
                    Reject::WrongLength { .. } => 0,
                };
                (PI0_EVENT_REJECTED, *chunk, place, 0, reason.to_string())
            }
            Event::DeadlineMiss { chunk, steps, after_ns } => {
                (PI0_EVENT_DEADLINE_MISS, *chunk, *steps as u64, *after_ns, String::new())
            }
            Event::InferenceError { error, in_a_row } => {
                (PI0_EVENT_ENGINE_ERROR, 0, u64::from(*in_a_row), 0, error.clone())
            }
            Event::ObservationRefused { error } => (PI0_EVENT_OBSERVATION_REFUSED, 0, 0, 0, error.clone()),
            Event::CommandFailed { error } => (PI0_EVENT_COMMAND_FAILED, 0, 0, 0, error.clone()),
            Event::GaveUp { error } => (PI0_EVENT_GAVE_UP, 0, 0, 0, error.clone()),
            Event::Hung { for_ns } => (PI0_EVENT_HUNG, 0, 0, *for_ns, String::new()),
            Event::Recovered => (PI0_EVENT_RECOVERED, 0, 0, 0, String::new()),
            Event::Tripped => (PI0_EVENT_TRIPPED, 0, 0, 0, String::new()),
            Event::FlightRecord { outcome: Ok(path) } => {
                (PI0_EVENT_FLIGHT_RECORD, 0, 0, 0, path.display().to_string())
            }
            Event::FlightRecord { outcome: Err(why) } => {
                (PI0_EVENT_FLIGHT_RECORD_FAILED, 0, 0, 0, why.clone())
            }
        };
        let (struct_size, message) = (size_of::<Self>(), fixed_text(&message));
        pi0_event { struct_size, kind, reserved: 0, chunk, number, duration_ns, message }
    }

    /// One line of JSON.
    fn line(&self) -> String {
        // SAFETY: `fixed_text` ends it with a NUL.
        let message = unsafe { CStr::from_ptr(self.message.as_ptr()) }.to_string_lossy();
        let fields = serde_json::json!({
            "event": kind_name(self.kind),
            "chunk": self.chunk,
            "number": self.number,
            "duration_ns": self.duration_ns,
            "message": message,
        });
        format!("{fields}\n")
    }
}

fn kind_name(kind: u32) -> &'static str {
    match kind {
        PI0_EVENT_CHUNK => "chunk",
        PI0_EVENT_REJECTED => "rejected",
        PI0_EVENT_DEADLINE_MISS => "deadline_miss",
        PI0_EVENT_ENGINE_ERROR => "engine_error",
        PI0_EVENT_COMMAND_FAILED => "command_failed",
        PI0_EVENT_GAVE_UP => "gave_up",
        PI0_EVENT_HUNG => "hung",
        PI0_EVENT_RECOVERED => "recovered",
        PI0_EVENT_TRIPPED => "tripped",
        PI0_EVENT_FLIGHT_RECORD => "flight_record",
        PI0_EVENT_OBSERVATION_REFUSED => "observation_refused",
        _ => "flight_record_failed",
    }
}

/// The place that a runtime's events go to.
#[derive(Debug)]
pub(super) enum Sink {
    /// Nowhere by themselves.
    Taken,
    Callback(Callback),
    Descriptor(Descriptor),
}

/// A C function and what it is to be handed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Callback {
    call: unsafe extern "C" fn(*const pi0_event, *mut c_void),
    user: *mut c_void,
}

// SAFETY: the pointer is only handed back to the program's own function, which is documented to be called on another
// thread.
unsafe impl Send for Callback {}

impl Sink {
    pub(super) fn new(call: pi0_event_callback, user: *mut c_void, fd: i32) -> Result<Self> {
        match (call, fd) {
            (None, -1) => Ok(Sink::Taken),
            (Some(call), -1) => Ok(Sink::Callback(Callback { call, user })),
            (None, fd) => Descriptor::new(fd).map(Sink::Descriptor),
            (Some(_), _) => Err(Fail::argument("event_callback and event_fd: give one of them, or neither")),
        }
    }

    /// False if the event was lost.
    fn deliver(&mut self, event: &pi0_event) -> bool {
        match self {
            Sink::Taken => false,
            Sink::Callback(Callback { call, user }) => {
                // SAFETY: the program gave both, and the event lives until the call returns.
                unsafe { call(event, *user) };
                true
            }
            Sink::Descriptor(descriptor) => descriptor.write_line(event.line()),
        }
    }
}

/// A thread that carries events to the program.
#[derive(Debug)]
pub(super) struct Courier {
    /// None where events go nowhere by themselves.
    carrier: Option<Carrier>,
    /// Dropped to end the thread.
    running: Mutex<Option<Sender<()>>>,
    lost: Arc<AtomicU64>,
}

impl Courier {
    /// Starts one if there is somewhere to carry events to.
    pub(super) fn start(mut sink: Sink, events: Receiver<Event>) -> Result<Courier> {
        let lost = Arc::new(AtomicU64::new(0));
        if let Sink::Taken = sink {
            return Ok(Courier { carrier: None, running: Mutex::new(None), lost });
        }
        let (running, ended) = bounded::<()>(0);
        let count = Arc::clone(&lost);
        let mut deliver = move |event: Event| {
            if !sink.deliver(&pi0_event::new(&event)) {
                // Relaxed: a count.
                count.fetch_add(1, Ordering::Relaxed);
            }
        };
        let carrier = Carrier::spawn("pi0-events", move || {
            loop {
                select! {
                    recv(events) -> event => match event {
                        Ok(event) => deliver(event),
                        Err(_) => break,
                    },
                    recv(ended) -> _ => {
                        // What was said before the end is still told.
                        events.try_iter().for_each(&mut deliver);
                        break;
                    }
                }
            }
        })?;
        Ok(Courier { carrier: Some(carrier), running: Mutex::new(Some(running)), lost })
    }

    /// Returns true if events go somewhere by themselves.
    pub(super) fn carries(&self) -> bool {
        self.carrier.is_some()
    }

    /// Events that the descriptor did not take.
    pub(super) fn lost(&self) -> u64 {
        // Relaxed: a count.
        self.lost.load(Ordering::Relaxed)
    }

    /// Tells what is left to be told, and waits for the thread: for ever, or for `patience`. Holds no lock meanwhile.
    pub(super) fn end(&self, patience: Option<Duration>) {
        drop(self.running.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(carrier) = &self.carrier {
            carrier.join(patience);
        }
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        self.end(None);
    }
}
