//! A recording as a file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mcap::records::MessageHeader;
use mcap::{WriteOptions, Writer};
use pi0_edge::runtime::Timestamp;
use pi0_edge::{Error, ErrorKind, Manifest, Result};

use crate::cdr::Cdr;
use crate::flight::{Chunk, Flight, Tick};
use crate::topics::{Topic, image_schema, image_topic};

/// The names in a recording, and the pace of a chunk.
#[derive(Debug, Clone)]
pub struct Names {
    /// The robot's state, value by value.
    pub state: Vec<String>,
    /// An action, value by value.
    pub action: Vec<String>,
    /// The time from one row of a chunk to the next.
    pub action_period: Duration,
}

impl Names {
    /// Takes the names of a bundle; values without one are numbered.
    pub fn of(manifest: &Manifest, action_period: Duration) -> Self {
        Names {
            state: manifest.state.names.clone().unwrap_or_else(|| numbered('s', manifest.state.dim)),
            action: manifest.action.names.clone().unwrap_or_else(|| numbered('a', manifest.action.dim)),
            action_period,
        }
    }

    /// Numbers the values of an action.
    pub fn numbered(action_dim: usize, action_period: Duration) -> Self {
        Names { state: Vec::new(), action: numbered('a', action_dim), action_period }
    }
}

fn numbered(letter: char, n: usize) -> Vec<String> {
    (0..n).map(|i| format!("{letter}{i}")).collect()
}

/// The clock of a recording's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// That of the wall: what the runtime records now.
    Wall,
    /// As the record has them, since the machine was started: a record of some other time.
    Boot,
}

/// Counts of what a recording holds, and of what it lacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Control ticks written.
    pub ticks: u64,
    /// Control ticks that were over before they were looked at, or whose read never came.
    pub missed_ticks: u64,
    /// Chunks written, rejected ones too.
    pub chunks: u64,
    /// Images written.
    pub images: u64,
    /// Observations for which there was no room.
    pub lost_observations: u64,
}

/// A recording that is being written: MCAP, with ROS 2 messages and their definitions.
pub struct Recording {
    writer: Writer<BufWriter<File>>,
    path: PathBuf,
    topics: [u16; Topic::ALL.len()],
    cameras: BTreeMap<String, u16>,
    names: Names,
    /// From the record's clock to the recording's, in nanoseconds.
    offset: u64,
    sequence: u32,
    next_tick: Option<u64>,
    next_chunk: u64,
    pub(crate) counts: Counts,
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recording").field("path", &self.path).field("counts", &self.counts).finish()
    }
}

impl Recording {
    /// Creates the file.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], naming it.
    pub fn create(path: &Path, names: Names, clock: Clock) -> Result<Self> {
        let create = || {
            let options =
                WriteOptions::new().profile("ros2").library(concat!("pi0-edge ", env!("CARGO_PKG_VERSION")));
            let mut writer = options.compression(None).create(BufWriter::new(File::create(path)?))?;
            let mut topics = [0; Topic::ALL.len()];
            for topic in Topic::ALL {
                let (name, definition) = topic.schema();
                topics[topic as usize] = channel(&mut writer, topic.name(), name, &definition)?;
            }
            mcap::McapResult::Ok((writer, topics))
        };
        let (writer, topics) = create().map_err(cannot("write", path))?;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let offset = match clock {
            Clock::Wall => since_epoch.saturating_sub(Timestamp::now().as_nanos()),
            Clock::Boot => 0,
        };
        Ok(Recording {
            writer,
            path: path.to_owned(),
            topics,
            cameras: BTreeMap::new(),
            names,
            offset,
            sequence: 0,
            next_tick: None,
            next_chunk: 0,
            counts: Counts::default(),
        })
    }

    /// Writes the ticks and chunks that have not been written yet.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], naming the file; [`ErrorKind::InvalidArgument`] for an action that has another number of values
    /// than there are names.
    pub fn flight(&mut self, flight: Flight) -> Result<()> {
        let names = self.names.action.len();
        if let Some(other) = flight.written().find(|action| action.len() != names) {
            let what = format!("the record has an action of {} values; {names} have names", other.len());
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        for tick in &flight.ticks {
            let next = self.next_tick.unwrap_or(tick.tick);
            if tick.tick >= next {
                self.counts.missed_ticks = self.counts.missed_ticks.saturating_add(tick.tick - next);
                self.next_tick = Some(tick.tick.saturating_add(1));
                self.tick(tick)?;
            }
        }
        for chunk in &flight.chunks {
            if chunk.number >= self.next_chunk {
                self.next_chunk = chunk.number.saturating_add(1);
                self.chunk(chunk)?;
            }
        }
        Ok(())
    }

    fn tick(&mut self, tick: &Tick) -> Result<()> {
        let now = tick.now_ns + self.offset;
        self.counts.ticks += 1;
        if let Some(action) = &tick.action {
            let message = joints(now, &self.names.action, action);
            self.write(Topic::Action, now, &message)?;
        }
        if tick.chunk > 0 {
            let age = Cdr::new().f64(Duration::from_nanos(tick.age_ns).as_secs_f64());
            self.write(Topic::Age, now, &age.into_bytes())?;
        }
        self.write(Topic::Status, now, &Cdr::new().u8(tick.status as u8).into_bytes())
    }

    fn chunk(&mut self, chunk: &Chunk) -> Result<()> {
        self.counts.chunks += 1;
        if let Some(why) = &chunk.rejected {
            let text = Cdr::new().text(&format!("chunk {}: {why}", chunk.number));
            return self.write(Topic::Rejected, chunk.begun_ns + self.offset, &text.into_bytes());
        }
        let period = self.names.action_period.as_nanos() as u64;
        let head = Cdr::new().header(chunk.captured_ns + self.offset).texts(&self.names.action);
        let rows = (0u64..).zip(&chunk.actions);
        let points = rows.fold(head.u32(chunk.actions.len() as u32), |cdr, (row, action)| {
            // Positions, and neither velocities, accelerations nor efforts.
            cdr.numbers(action).u32(0).u32(0).u32(0).time(row.saturating_mul(period))
        });
        self.write(Topic::Chunk, chunk.published_ns + self.offset, &points.into_bytes())
    }

    /// Writes the robot's state at the time of its capture.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], naming the file.
    pub fn state(&mut self, captured: Timestamp, state: &[f32]) -> Result<()> {
        let now = captured.as_nanos() + self.offset;
        let message = joints(now, &self.names.state, state);
        self.write(Topic::State, now, &message)
    }

    /// Writes a camera's image, a JPEG file's bytes, at the time of its capture.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], naming the file.
    pub fn image(&mut self, captured: Timestamp, camera: &str, jpeg: &[u8]) -> Result<()> {
        let id = match self.cameras.get(camera) {
            Some(id) => *id,
            None => {
                let (name, definition) = image_schema();
                let id = channel(&mut self.writer, &image_topic(camera), name, &definition);
                let id = id.map_err(cannot("write", &self.path))?;
                self.cameras.insert(camera.to_owned(), id);
                id
            }
        };
        let now = captured.as_nanos() + self.offset;
        self.counts.images += 1;
        self.write_to(id, now, &Cdr::new().header(now).text("jpeg").bytes(jpeg).into_bytes())
    }

    fn write(&mut self, topic: Topic, time: u64, message: &[u8]) -> Result<()> {
        self.write_to(self.topics[topic as usize], time, message)
    }

    fn write_to(&mut self, channel_id: u16, time: u64, message: &[u8]) -> Result<()> {
        let header =
            MessageHeader { channel_id, sequence: self.sequence, log_time: time, publish_time: time };
        self.sequence = self.sequence.wrapping_add(1);
        self.writer.write_to_known_channel(&header, message).map_err(cannot("write", &self.path))
    }

    /// Writes the index that makes the file complete; returns what is in it.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], naming the file.
    pub fn finish(mut self) -> Result<Counts> {
        self.writer.finish().map_err(cannot("write", &self.path))?;
        Ok(self.counts)
    }
}

/// A `sensor_msgs/JointState` of positions.
fn joints(time: u64, names: &[String], positions: &[f32]) -> Vec<u8> {
    Cdr::new().header(time).texts(names).numbers(positions).u32(0).u32(0).into_bytes()
}

fn channel(
    writer: &mut Writer<BufWriter<File>>,
    topic: &str,
    schema: &str,
    definition: &str,
) -> mcap::McapResult<u16> {
    let schema = writer.add_schema(schema, "ros2msg", definition.as_bytes())?;
    writer.add_channel(schema, topic, "cdr", &BTreeMap::new())
}

fn cannot(what: &str, path: &Path) -> impl Fn(mcap::McapError) -> Error {
    let text = format!("cannot {what} {}", path.display());
    move |e| Error::with_source(ErrorKind::Io, text.clone(), e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pi0_edge::runtime::Status;

    fn tick(tick: u64) -> Tick {
        Tick { now_ns: tick * 1000, tick, chunk: 1, age_ns: 5, status: Status::Ok, action: Some(vec![0.5]) }
    }

    fn chunk(number: u64, rejected: Option<&str>) -> Chunk {
        let rejected = rejected.map(str::to_owned);
        Chunk { number, captured_ns: 1, begun_ns: 2, published_ns: 3, rejected, actions: vec![vec![0.5]] }
    }

    #[test]
    fn what_is_seen_twice_is_written_once_and_gaps_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let names = Names::numbered(1, Duration::from_millis(20));
        let mut recording = Recording::create(&directory.path().join("a.mcap"), names, Clock::Boot).unwrap();
        let looks = [(vec![7, 8, 9], vec![1]), (vec![8, 9, 10], vec![1, 2]), (vec![14, 15], vec![2, 3])];
        for (ticks, chunks) in looks {
            let chunks = chunks.into_iter().map(|n| chunk(n, (n == 2).then_some("NaN"))).collect();
            recording.flight(Flight { ticks: ticks.into_iter().map(tick).collect(), chunks }).unwrap();
        }
        let counts = recording.finish().unwrap();
        assert_eq!(counts, Counts { ticks: 6, missed_ticks: 3, chunks: 3, ..Counts::default() });
    }

    #[test]
    fn every_action_has_a_value_for_each_name() {
        let names = Names::numbered(2, Duration::from_millis(20));
        let directory = tempfile::tempdir().unwrap();
        let mut recording = Recording::create(&directory.path().join("a.mcap"), names, Clock::Boot).unwrap();
        // What was rejected may have been of any width, and is not written.
        recording.flight(Flight { ticks: Vec::new(), chunks: vec![chunk(1, Some("width"))] }).unwrap();
        let error = recording.flight(Flight { ticks: vec![tick(7)], chunks: Vec::new() }).unwrap_err();
        assert!(error.to_string().contains("an action of 1 values; 2 have names"), "{error}");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let names = Names::numbered(1, Duration::from_millis(20));
        let error = Recording::create(Path::new("/nowhere/a.mcap"), names, Clock::Wall).unwrap_err();
        assert!(error.to_string().contains("/nowhere/a.mcap"), "{error}");
    }
}
