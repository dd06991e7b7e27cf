//! A recorded run once more, without threads: the same inputs in the same order at the same times.
//!
//! The three threads of the live run saw each other through wait-free cells. A recording tells for every chunk which
//! observation and which read of the control loop it was begun after, and for every read which chunk it saw. A read is
//! two moments: it looks for a chunk, and then it tells where in its plan the robot is. That fixes the order of
//! everything that matters, and [`Lockstep`] does it again in that order.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use pi0_edge::runtime::{
    Controller, Event, Flags, Inference, Lockstep, ObservationSlot, ObservationWriter, SimulatedClock,
    ThreadConfig, Timestamp,
};
use pi0_edge::{Error, ErrorKind, Manifest, Result};

use super::episode::Episode;
use super::measured::Measured;
use super::probe::{Probe, Values};
use super::recording::Recorded;
use super::trace::{Computed, Trace};
use crate::watched::{Loaded, Watched, lock};

/// Runs `recorded` again and compares everything that came out, bit by bit.
///
/// # Errors
/// [`ErrorKind::Parity`], naming the first difference; [`ErrorKind::InvalidArgument`] for a recording that
/// contradicts itself.
pub fn verify(policy: &Loaded, episode: &Episode, recorded: &Recorded) -> Result<()> {
    let trace = &recorded.trace;
    if trace.observations.iter().any(|o| o.index >= episode.len()) {
        return Err(contradiction("it names an observation that the episode does not have"));
    }
    let again = Again::new(policy, episode, recorded)?.run()?;
    match difference(trace, &again) {
        None => Ok(()),
        Some(what) => Err(differs(&format!("the recording was run again with another result: {what}"))),
    }
}

fn contradiction(what: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("the recording contradicts itself: {what}"))
}

fn differs(text: &str) -> Error {
    Error::new(ErrorKind::Parity, text)
}

struct Again<'a> {
    episode: &'a Episode,
    manifest: Manifest,
    recorded: &'a Trace,
    lockstep: Lockstep<Watched<Probe>>,
    writer: ObservationWriter<ObservationSlot>,
    controller: Controller,
    measured: Option<Measured<'a>>,
    clock: SimulatedClock,
    finishes_at: Arc<AtomicU64>,
    num_steps: usize,
    values: mpsc::Receiver<Values>,
    done: Done,
    out: Trace,
}

/// The parts of the recording that were done.
#[derive(Default)]
struct Done {
    observations: usize,
    reads: usize,
    /// Reads that told where the robot is.
    told: usize,
    begun: usize,
    finished: usize,
}

impl<'a> Again<'a> {
    fn new(policy: &Loaded, episode: &'a Episode, recorded: &'a Recorded) -> Result<Self> {
        let num_steps = recorded.settings.num_steps;
        let (dim, manifest) = {
            let mut policy = lock(policy);
            policy.set_num_steps(num_steps)?;
            (policy.action_dim(), policy.policy().manifest().clone())
        };
        if dim != recorded.trace.dim {
            return Err(contradiction("its actions have another width than the bundle's"));
        }
        let config = recorded.settings.runtime(dim, ThreadConfig::off())?;
        let clock = SimulatedClock::default();
        let (sender, values) = mpsc::channel();
        let finishes_at = Arc::new(AtomicU64::new(0));
        let finishes = Some((clock.clone(), Arc::clone(&finishes_at)));
        let probe = Probe { chunks: Some(sender), finishes, ..Probe::default() };
        let (lockstep, writer, controller) =
            Lockstep::new(Watched::new(policy, probe), &config, clock.clone())?;
        let out = Trace { dim, observations: recorded.trace.observations.clone(), ..Trace::default() };
        let measured = Measured::new(recorded.settings.splice, episode, dim);
        let recorded = &recorded.trace;
        Ok(Again {
            episode,
            manifest,
            recorded,
            lockstep,
            writer,
            controller,
            measured,
            clock,
            finishes_at,
            num_steps,
            values,
            done: Done::default(),
            out,
        })
    }

    fn run(mut self) -> Result<Trace> {
        let Trace { observations, ticks, chunks, .. } = self.recorded;
        let all = (observations.len(), ticks.len(), chunks.len());
        while (self.done.observations, self.done.told, self.done.finished) != all {
            if !(self.finish()? || self.begin()? || self.tell() || self.read() || self.publish()?) {
                let text = format!(
                    "no order explains observation {}, read {} and chunk {}",
                    self.done.observations, self.done.reads, self.done.begun
                );
                return Err(contradiction(&text));
            }
        }
        Ok(self.out)
    }

    /// Publishes the next observation, unless a chunk must be begun from the one before it.
    fn publish(&mut self) -> Result<bool> {
        let Some(next) = self.recorded.observations.get(self.done.observations) else { return Ok(false) };
        if self.recorded.chunks.get(self.done.begun).is_some_and(|chunk| chunk.info.captured < next.captured)
        {
            return Ok(false);
        }
        self.episode.observation(next.index).copy_to(&self.manifest, self.writer.slot());
        let published = self.writer.publish_at(next.now, next.captured);
        published.map_err(|e| contradiction(&e.to_string()))?;
        self.done.observations += 1;
        Ok(true)
    }

    /// Makes the next read, unless it saw a chunk that is not there yet.
    fn read(&mut self) -> bool {
        let Some(next) = self.recorded.ticks.get(self.done.reads) else { return false };
        let looks = !next.reading.flags.contains(Flags::REPEATED);
        if self.done.told < self.done.reads || looks && next.reading.chunk != self.newest() {
            return false;
        }
        self.lockstep.set_hung(next.reading.flags.contains(Flags::HUNG));
        if let Some(measured) = &mut self.measured {
            measured.tell(&mut self.controller, next.now);
        }
        let reading = self.controller.look_at(next.now);
        self.lockstep.set_hung(false);
        self.out.push(next.now, reading, self.controller.action());
        self.done.reads += 1;
        true
    }

    /// Tells of the last read, unless a chunk must be begun before.
    fn tell(&mut self) -> bool {
        let begins = self.recorded.chunks.get(self.done.begun);
        let now = self.recorded.ticks[..self.done.reads].last().map(|tick| tick.now);
        match now.filter(|_| self.done.told < self.done.reads) {
            Some(now) if begins.is_none_or(|chunk| chunk.info.progress_at >= now) => {
                self.controller.tell_at(now);
                self.done.told += 1;
                true
            }
            _ => false,
        }
    }

    /// The number of the chunk that was newest at the next read that looks at one: a read of the same tick again does
    /// not, and what it reports tells nothing.
    fn awaited(&self) -> u64 {
        let rest = &self.recorded.ticks[self.done.reads..];
        let looks = rest.iter().find(|tick| !tick.reading.flags.contains(Flags::REPEATED));
        looks.map_or(u64::MAX, |tick| tick.reading.chunk)
    }

    /// The number of the chunk published last.
    fn newest(&self) -> u64 {
        let published = self.recorded.chunks[..self.done.finished].iter().rev().find(|chunk| !chunk.rejected);
        published.map_or(0, |chunk| chunk.info.number)
    }

    /// Begins the next chunk once its observation is the newest and the control loop has come as far as it had.
    fn begin(&mut self) -> Result<bool> {
        if self.done.begun > self.done.finished {
            return Ok(false);
        }
        let Some(next) = self.recorded.chunks.get(self.done.begun) else { return Ok(false) };
        let newest = self.done.observations.checked_sub(1).map(|i| self.recorded.observations[i].captured);
        let read = self.done.told.checked_sub(1).map_or(Timestamp::default(), |i| self.recorded.ticks[i].now);
        if newest != Some(next.info.captured) || read != next.info.progress_at {
            return Ok(false);
        }
        self.clock.set(next.info.begun);
        let before = self.lockstep.runtime().stats().inference.begun;
        self.lockstep.turn();
        if self.lockstep.runtime().stats().inference.begun != before + 1 {
            let text = format!("chunk {} would not have been begun when it was", next.info.number);
            return Err(contradiction(&text));
        }
        self.done.begun += 1;
        Ok(true)
    }

    /// Finishes the chunk that was begun, unless the next read did not see it yet.
    fn finish(&mut self) -> Result<bool> {
        if self.done.begun == self.done.finished {
            return Ok(false);
        }
        let chunk = &self.recorded.chunks[self.done.finished];
        if !chunk.rejected && self.awaited() < chunk.info.number {
            return Ok(false);
        }
        (0..self.num_steps).for_each(|_| _ = self.lockstep.turn());
        // A rejected chunk has no such time; then it stays as it is.
        let published = chunk.info.published.max(chunk.info.begun);
        // Relaxed, because it is read on this thread, by the probe.
        self.finishes_at.store(published.as_nanos(), Ordering::Relaxed);
        self.lockstep.turn();
        let number = chunk.info.number;
        let values = self.values.try_iter().find(|(got, _)| *got == number).map(|(_, values)| values);
        let computed = self.lockstep.runtime().events().try_iter().find_map(|event| match event {
            Event::Chunk(info) => Some((info, false)),
            // Nothing is said of a rejected chunk but its number.
            Event::Rejected { .. } => Some((chunk.info, true)),
            _ => None,
        });
        let (Some(values), Some((info, rejected))) = (values, computed) else {
            return Err(differs(&format!(
                "chunk {number} did not come out when the recording was run again"
            )));
        };
        self.out.chunks.push(Computed { info, rejected, values });
        self.done.finished += 1;
        Ok(true)
    }
}

/// The first difference, in words.
fn difference(recorded: &Trace, again: &Trace) -> Option<String> {
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    for (then, now) in recorded.chunks.iter().zip(&again.chunks) {
        let number = then.info.number;
        if (then.info, then.rejected) != (now.info, now.rejected) {
            return Some(format!("chunk {number} was {:?}, now {:?}", then.info, now.info));
        }
        let pairs = then.values.iter().zip(&now.values).enumerate();
        if let Some((i, (a, b))) = pairs.into_iter().find(|(_, (a, b))| a.to_bits() != b.to_bits()) {
            let (row, joint) = (i / recorded.dim, i % recorded.dim);
            return Some(format!("chunk {number}, row {row}, joint {joint} was {a}, now {b}"));
        }
    }
    for (i, (then, now)) in recorded.ticks.iter().zip(&again.ticks).enumerate() {
        if then.reading != now.reading {
            return Some(format!("read {i} was {:?}, now {:?}", then.reading, now.reading));
        }
        let (a, b) = (recorded.action(i), again.action(i));
        if a.map(bits) != b.map(bits) {
            return Some(format!("the action of read {i} was {a:?}, now {b:?}"));
        }
    }
    let counts = |t: &Trace| (t.observations.len(), t.chunks.len(), t.ticks.len());
    (counts(recorded) != counts(again)).then(|| "more or fewer chunks or reads".to_owned())
}
