//! Recording a runtime while it runs, off its real-time threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use image::codecs::jpeg::JpegEncoder;
use pi0_edge::runtime::{FlightRecorder, Timestamp};
use pi0_edge::{Error, ErrorKind, Observation, Result};

use crate::recording::{Counts, Recording};

/// Time between two looks at the flight recorder, which holds 256 ticks: a quarter of a second at 1 kHz.
const EVERY: Duration = Duration::from_millis(50);
/// Observations that may wait to be written.
const WAITING: usize = 8;
/// Quality of JPEG, from 1 to 100.
const QUALITY: u8 = 90;

/// An observation on its way to the file.
struct Seen {
    captured: Timestamp,
    state: Vec<f32>,
    /// Camera, pixels, width, height.
    frames: Vec<(String, Vec<u8>, u32, u32)>,
}

/// A thread that writes down what a runtime does.
///
/// It looks at the flight recorder, which the control loop and the inference thread fill without waiting for anybody, so
/// that neither notices it. Ticks that were over before it looked are counted. After a trip the recorder stops, and the
/// recording with it.
#[derive(Debug)]
pub struct Live {
    observations: Option<SyncSender<Seen>>,
    lost: AtomicU64,
    thread: Option<JoinHandle<Result<Counts>>>,
}

impl Live {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`ErrorKind::Runtime`] if it cannot be started.
    pub fn start(recording: Recording, recorder: FlightRecorder) -> Result<Self> {
        let (observations, waiting) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("pi0-mcap".into());
        let thread = thread.spawn(move || run(recording, &recorder, &waiting));
        let thread =
            thread.map_err(|e| Error::with_source(ErrorKind::Runtime, "cannot start the recording", e))?;
        Ok(Live { observations: Some(observations), lost: AtomicU64::new(0), thread: Some(thread) })
    }

    /// Hands over an observation, which is copied. Never waits: one that finds no room is counted and lost.
    ///
    /// RT-safe: no, it allocates. Thread: that of the sensors.
    pub fn observe(&self, captured: Timestamp, observation: &Observation<'_>) {
        let frames = observation.images.iter();
        let frames = frames.map(|(name, f)| ((*name).to_owned(), f.data().to_vec(), f.width(), f.height()));
        let seen = Seen { captured, state: observation.state.to_vec(), frames: frames.collect() };
        let sent = self.observations.as_ref().map(|observations| observations.try_send(seen));
        if let Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) = sent {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes what is left and completes the file.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], naming the file, if any of it could not be written.
    pub fn finish(mut self) -> Result<Counts> {
        self.observations = None;
        let thread =
            self.thread.take().ok_or_else(|| Error::new(ErrorKind::Runtime, "the recording has ended"))?;
        let counts = thread
            .join()
            .map_err(|_| Error::new(ErrorKind::Runtime, "the recording's thread panicked"))??;
        Ok(Counts { lost_observations: self.lost.load(Ordering::Relaxed), ..counts })
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.observations = None;
        if let Some(thread) = self.thread.take() {
            match thread.join() {
                Ok(Ok(_)) => {}
                Ok(Err(e)) => log::error!("the recording is not complete: {e}"),
                Err(_) => log::error!("the recording's thread panicked"),
            }
        }
    }
}

fn run(mut recording: Recording, recorder: &FlightRecorder, waiting: &Receiver<Seen>) -> Result<Counts> {
    let mut next = std::time::Instant::now();
    loop {
        let left = next.saturating_duration_since(std::time::Instant::now());
        let seen = waiting.recv_timeout(left);
        if left.is_zero() || seen.is_err() {
            recording.flight(recorder.take().into())?;
            next = std::time::Instant::now() + EVERY;
        }
        match seen {
            Ok(seen) => write(&mut recording, &seen)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return recording.finish(),
        }
    }
}

fn write(recording: &mut Recording, seen: &Seen) -> Result<()> {
    recording.state(seen.captured, &seen.state)?;
    for (camera, pixels, width, height) in &seen.frames {
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
            .encode(pixels, *width, *height, image::ExtendedColorType::Rgb8)
            .map_err(|e| {
                Error::with_source(ErrorKind::Observation, format!("cannot compress {camera}"), e)
            })?;
        recording.image(seen.captured, camera, &jpeg)?;
    }
    Ok(())
}
