//! The flight recorder: the last control ticks and chunks, kept in fixed memory for a look after something went wrong.
//!
//! The control loop and the inference thread each write their own ring, wait-free; any other thread takes a
//! [`FlightRecord`] from them and can turn it into JSON. After a trip the tick ring goes on for half its length and
//! then stops, so that it holds what led to the trip and what followed, however late somebody looks.

use serde::Serialize;

use super::chunk::{ChunkInfo, StampedChunk};
use super::clock::Timestamp;
use super::reading::{Flags, Reading, Status};
use super::ring::{RingView, RingWriter, ring};
use crate::action::Reject;

/// The number of control ticks that are kept.
pub const TICKS: usize = 256;
/// The number of chunks that are kept.
pub const CHUNKS: usize = 16;

/// Words of a tick before its action.
const TICK_WORDS: usize = 10;
/// Words of a chunk before its values.
const CHUNK_WORDS: usize = 12;

/// The control loop's half.
#[derive(Debug)]
pub struct TickRecorder {
    ring: RingWriter,
    /// Ticks still to be kept after a trip; none: no trip.
    left: Option<usize>,
}

/// The inference thread's half.
#[derive(Debug)]
pub struct ChunkRecorder(RingWriter);

/// The half that takes records out, on any thread.
#[derive(Debug, Clone)]
pub struct RecorderView {
    ticks: RingView,
    chunks: RingView,
    dim: usize,
}

/// Creates a flight recorder for chunks of `rows` actions of `dim` values.
pub fn recorder(rows: usize, dim: usize) -> (TickRecorder, ChunkRecorder, RecorderView) {
    let (tick_writer, ticks) = ring(TICKS, TICK_WORDS + dim);
    let (chunk_writer, chunks) = ring(CHUNKS, CHUNK_WORDS + rows * dim);
    let view = RecorderView { ticks, chunks, dim };
    (TickRecorder { ring: tick_writer, left: None }, ChunkRecorder(chunk_writer), view)
}

fn to_word(value: &f32) -> u64 {
    u64::from(value.to_bits())
}

fn to_value(word: &u64) -> f32 {
    f32::from_bits(*word as u32)
}

impl TickRecorder {
    /// Keeps one read.
    ///
    /// RT-safe: yes. Thread: control.
    #[inline]
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub fn record(&mut self, now: Timestamp, reading: &Reading, action: Option<&[f32]>) {
        if reading.flags.contains(Flags::TRIPPED) {
            let left = self.left.get_or_insert(TICKS / 2);
            if *left == 0 {
                return;
            }
            *left -= 1;
        } else {
            self.left = None;
        }
        let head: [u64; TICK_WORDS] = [
            now.as_nanos(),
            reading.tick,
            reading.chunk,
            reading.age_ns,
            reading.status as u64,
            u64::from(reading.flags.bits()),
            u64::from(reading.row),
            u64::from(reading.missed),
            to_word(&reading.seam_jump),
            u64::from(action.is_some()),
        ];
        self.ring.push(head.into_iter().chain(action.unwrap_or_default().iter().map(to_word)));
    }
}

impl ChunkRecorder {
    /// Keeps one chunk, published or rejected. Allocates nothing.
    pub fn record(&mut self, chunk: &StampedChunk, rejected: Option<Reject>) {
        let info = &chunk.info;
        let (reason, detail, value) = match rejected {
            None => (0, 0, 0),
            Some(Reject::NonFinite { index }) => (1, index, 0),
            Some(Reject::OutOfLimits { index, value }) => (2, index, to_word(&value)),
            Some(Reject::WrongLength { got }) => (3, got, 0),
        };
        let head: [u64; CHUNK_WORDS] = [
            info.number,
            info.captured.as_nanos(),
            info.begun.as_nanos(),
            info.published.as_nanos(),
            u64::from(info.guided_rows),
            u64::from(info.inference_delay),
            info.expected_ns,
            info.progress_at.as_nanos(),
            reason,
            detail as u64,
            value,
            info.episode,
        ];
        self.0.push(head.into_iter().chain(chunk.actions.as_slice().iter().map(to_word)));
    }
}

/// One read of the control loop.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TickRecord {
    /// The time of the read, on CLOCK_MONOTONIC.
    pub now_ns: u64,
    /// The reading, without the rows that remained, which are not kept.
    #[serde(flatten)]
    pub reading: Reading,
    /// The action; none if there was none yet.
    pub action: Option<Vec<f32>>,
}

/// One chunk.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChunkRecord {
    /// Its origin, with times in nanoseconds on CLOCK_MONOTONIC.
    #[serde(flatten)]
    pub info: ChunkInfo,
    /// The reason why it was not published; none if it was.
    pub rejected: Option<String>,
    /// Its actions, row by row; values that are not finite become null in JSON.
    pub actions: Vec<Vec<f32>>,
}

/// The contents of the recorder at one moment, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FlightRecord {
    /// The last control ticks.
    pub ticks: Vec<TickRecord>,
    /// The last chunks.
    pub chunks: Vec<ChunkRecord>,
}

impl FlightRecord {
    /// Returns the record as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

impl RecorderView {
    /// Copies out what is there now.
    ///
    /// RT-safe: no, it allocates. Thread: any.
    pub fn take(&self) -> FlightRecord {
        FlightRecord {
            ticks: self.ticks.records().iter().map(|words| tick(words)).collect(),
            chunks: self.chunks.records().iter().map(|words| self.chunk(words)).collect(),
        }
    }

    fn chunk(&self, words: &[u64]) -> ChunkRecord {
        let (head, values) = words.split_at(CHUNK_WORDS);
        let (index, value) = (head[9] as usize, to_value(&head[10]));
        let rejected = match head[8] {
            0 => None,
            1 => Some(Reject::NonFinite { index }),
            2 => Some(Reject::OutOfLimits { index, value }),
            _ => Some(Reject::WrongLength { got: index }),
        };
        let info = ChunkInfo {
            number: head[0],
            captured: Timestamp::from_nanos(head[1]),
            begun: Timestamp::from_nanos(head[2]),
            published: Timestamp::from_nanos(head[3]),
            guided_rows: head[4] as u32,
            inference_delay: head[5] as u32,
            expected_ns: head[6],
            progress_at: Timestamp::from_nanos(head[7]),
            episode: head[11],
        };
        ChunkRecord {
            info,
            rejected: rejected.map(|reason| reason.to_string()),
            actions: values.chunks_exact(self.dim).map(|row| row.iter().map(to_value).collect()).collect(),
        }
    }
}

fn tick(words: &[u64]) -> TickRecord {
    let (head, values) = words.split_at(TICK_WORDS);
    let reading = Reading {
        tick: head[1],
        chunk: head[2],
        age_ns: head[3],
        status: Status::from_number(head[4] as u32),
        flags: Flags::from_bits_truncate(head[5] as u32),
        row: head[6] as u32,
        remaining: 0,
        missed: head[7] as u32,
        seam_jump: to_value(&head[8]),
    };
    let action = (head[9] != 0).then(|| values.iter().map(to_value).collect());
    TickRecord { now_ns: head[0], reading, action }
}

#[cfg(all(test, not(any(pi0_loom, pi0_shuttle))))]
mod tests {
    use super::*;

    fn reading(tick: u64) -> Reading {
        Reading {
            status: Status::Stale,
            flags: Flags::CLAMPED | Flags::MISSED_TICKS,
            chunk: tick << 33 | 7,
            age_ns: u64::MAX - tick,
            tick,
            row: 12,
            remaining: 0,
            missed: 3,
            seam_jump: 0.25,
        }
    }

    #[test]
    fn ticks_come_out_as_they_went_in_and_only_the_last_256() {
        let (mut ticks, _chunks, view) = recorder(2, 3);
        for i in 0..300u64 {
            let action = [i as f32, -0.5, 1e-30];
            ticks.record(Timestamp::from_nanos(i << 31), &reading(i), (i % 2 == 0).then_some(&action));
        }
        let record = view.take();
        assert_eq!(record.ticks.len(), TICKS);
        for (i, tick) in (44..300u64).zip(&record.ticks) {
            assert_eq!((tick.now_ns, &tick.reading), (i << 31, &reading(i)));
            assert_eq!(tick.action, (i % 2 == 0).then(|| vec![i as f32, -0.5, 1e-30]));
        }
    }

    #[test]
    fn after_a_trip_half_the_ring_is_kept_from_before_it() {
        let (mut ticks, _chunks, view) = recorder(1, 1);
        let tripped = Reading { flags: Flags::TRIPPED, ..reading(0) };
        for i in 0..500 {
            ticks.record(Timestamp::default(), &reading(i), None);
        }
        for i in 500..2000 {
            ticks.record(Timestamp::default(), &Reading { tick: i, ..tripped }, None);
        }
        let kept: Vec<u64> = view.take().ticks.iter().map(|t| t.reading.tick).collect();
        assert_eq!(kept, (372..628).collect::<Vec<_>>(), "128 before, 128 after");
        ticks.record(Timestamp::default(), &reading(2000), None);
        assert_eq!(view.take().ticks.last().unwrap().reading.tick, 2000, "the trip was cleared");
    }

    #[test]
    fn chunks_come_out_as_they_went_in_with_the_reason_for_rejection() {
        let (_ticks, mut chunks, view) = recorder(2, 2);
        let reasons = [
            None,
            Some(Reject::NonFinite { index: 3 }),
            Some(Reject::OutOfLimits { index: 2, value: 1e30 }),
            Some(Reject::WrongLength { got: 5 }),
        ];
        for i in 0..20u64 {
            let mut chunk = StampedChunk::new(2, 2);
            chunk.actions.as_mut_slice().copy_from_slice(&[i as f32, 1.0, 2.0, f32::NAN]);
            chunk.info = ChunkInfo {
                number: i,
                captured: Timestamp::from_nanos(i << 40),
                begun: Timestamp::from_nanos(i + 1),
                published: Timestamp::from_nanos(i + 2),
                guided_rows: 4,
                inference_delay: 5,
                expected_ns: i << 35,
                progress_at: Timestamp::from_nanos(i + 3),
                episode: i << 33,
            };
            chunks.record(&chunk, reasons[i as usize % 4]);
        }
        let record = view.take();
        assert_eq!(record.chunks.len(), CHUNKS);
        for (i, chunk) in (4..20u64).zip(&record.chunks) {
            let info = &chunk.info;
            let times = [info.captured, info.begun, info.published].map(Timestamp::as_nanos);
            assert_eq!((info.number, times), (i, [i << 40, i + 1, i + 2]));
            assert_eq!((info.guided_rows, info.inference_delay), (4, 5));
            assert_eq!((info.expected_ns, info.progress_at.as_nanos()), (i << 35, i + 3));
            assert_eq!(info.episode, i << 33);
            assert_eq!(chunk.rejected, reasons[i as usize % 4].map(|r| r.to_string()));
            assert_eq!(chunk.actions[0], [i as f32, 1.0]);
            assert!(chunk.actions[1][1].is_nan());
        }
    }

    #[test]
    fn the_dump_is_json_that_can_be_read_back() {
        let (mut ticks, mut chunks, view) = recorder(1, 2);
        ticks.record(Timestamp::from_nanos(5), &reading(1), Some(&[1.5, f32::NAN]));
        chunks.record(&StampedChunk::new(1, 2), Some(Reject::NonFinite { index: 1 }));
        let json: serde_json::Value = serde_json::from_str(&view.take().to_json()).unwrap();
        let tick = &json["ticks"][0];
        assert_eq!(tick["status"], "stale");
        assert_eq!(tick["flags"], serde_json::json!(["clamped", "missed_ticks"]));
        assert_eq!(tick["action"], serde_json::json!([1.5, null]));
        let chunk = &json["chunks"][0];
        assert!(chunk["rejected"].as_str().unwrap().contains("value 1"));
        for key in
            ["number", "episode", "captured_ns", "begun_ns", "published_ns", "expected_ns", "progress_at_ns"]
        {
            assert_eq!(chunk[key], 0, "{key}");
        }
    }
}
