//! The flight recorder: the last control ticks and chunks, kept in fixed memory for a look after something went wrong.
//!
//! The control loop and the inference thread each write their own ring, wait-free; any other thread takes a
//! [`FlightRecord`] from them and can turn it into JSON. After a trip the tick ring goes on for half its length and
//! then stops, so that it holds what led to the trip and what followed, however late somebody looks.

use serde::Serialize;

use super::chunk::{Chunk, ChunkInfo, Reject};
use super::clock::Timestamp;
use super::reading::{Flags, Reading, Status};
use super::ring::{RingView, RingWriter, ring};

/// How many control ticks are kept.
pub const TICKS: usize = 256;
/// How many chunks are kept.
pub const CHUNKS: usize = 16;

/// Words of a tick before its action.
const TICK_WORDS: usize = 13;
/// Words of a chunk before its values.
const CHUNK_WORDS: usize = 18;

/// The control loop's half.
#[derive(Debug)]
pub struct TickRecorder {
    ring: RingWriter,
    /// How many more ticks to keep after a trip; none: no trip.
    left: Option<usize>,
}

/// The inference thread's half.
#[derive(Debug)]
pub struct ChunkRecorder(RingWriter);

/// Where records can be taken out.
#[derive(Debug, Clone)]
pub struct RecorderView {
    ticks: RingView,
    chunks: RingView,
    rows: usize,
    dim: usize,
}

/// A flight recorder for chunks of `rows` actions of `dim` values.
pub fn recorder(rows: usize, dim: usize) -> (TickRecorder, ChunkRecorder, RecorderView) {
    let (tick_writer, ticks) = ring(TICKS, TICK_WORDS + dim);
    let (chunk_writer, chunks) = ring(CHUNKS, CHUNK_WORDS + rows * dim);
    let view = RecorderView { ticks, chunks, rows, dim };
    (TickRecorder { ring: tick_writer, left: None }, ChunkRecorder(chunk_writer), view)
}

fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

fn joined(words: &[u32]) -> u64 {
    u64::from(words[0]) | u64::from(words[1]) << 32
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
        let [now_low, now_high] = halves(now.as_nanos());
        let [tick_low, tick_high] = halves(reading.tick);
        let [chunk_low, chunk_high] = halves(reading.chunk);
        let [age_low, age_high] = halves(reading.age_ns);
        let head: [u32; TICK_WORDS] = [
            now_low,
            now_high,
            tick_low,
            tick_high,
            chunk_low,
            chunk_high,
            age_low,
            age_high,
            reading.status as u32 | u32::from(action.is_some()) << 8,
            reading.flags.bits(),
            reading.row,
            reading.missed,
            reading.seam_jump.to_bits(),
        ];
        let values = action.unwrap_or_default().iter().map(|v| v.to_bits());
        self.ring.push(head.into_iter().chain(values));
    }
}

impl ChunkRecorder {
    /// Keeps one chunk, published or rejected. Allocates nothing.
    pub fn record(&mut self, chunk: &Chunk, rejected: Option<Reject>) {
        let info = &chunk.info;
        let (reason, detail, value) = match rejected {
            None => (0, 0, 0),
            Some(Reject::NonFinite { index }) => (1, index, 0),
            Some(Reject::OutOfLimits { index, value }) => (2, index, value.to_bits()),
            Some(Reject::WrongLength { got }) => (3, got, 0),
        };
        let times = [info.captured, info.begun, info.published, info.progress_at].map(Timestamp::as_nanos);
        let head = [info.number, info.expected_ns].into_iter().chain(times).flat_map(halves);
        let detail = u32::try_from(detail).unwrap_or(u32::MAX);
        let rest = [info.guided_rows, info.inference_delay, reason, detail, value, 0];
        let values = chunk.values().iter().map(|v| v.to_bits());
        self.0.push(head.chain(rest).chain(values));
    }
}

/// One read of the control loop.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TickRecord {
    /// When, on CLOCK_MONOTONIC.
    pub now_ns: u64,
    /// What the read said. How many rows remained is not kept.
    #[serde(flatten)]
    pub reading: Reading,
    /// The action; none if there was none yet.
    pub action: Option<Vec<f32>>,
}

/// One chunk.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChunkRecord {
    /// Its number.
    pub number: u64,
    /// When its observation was captured, on CLOCK_MONOTONIC.
    pub captured_ns: u64,
    /// When its inference began.
    pub begun_ns: u64,
    /// When it was published; 0 if it was not.
    pub published_ns: u64,
    /// How many rows of the chunk before guided it.
    pub guided_rows: u32,
    /// RTC's `inference_delay`.
    pub inference_delay: u32,
    /// How long after its observation's capture its publication was expected when it was begun.
    pub expected_ns: u64,
    /// When the control loop had last said where in its plan it is, as known when the chunk was begun.
    pub progress_at_ns: u64,
    /// Why it was not published; none if it was.
    pub rejected: Option<String>,
    /// Its actions, row by row; values that are not finite become null in JSON.
    pub actions: Vec<Vec<f32>>,
}

/// What the recorder held at one moment, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FlightRecord {
    /// The last control ticks.
    pub ticks: Vec<TickRecord>,
    /// The last chunks.
    pub chunks: Vec<ChunkRecord>,
}

impl FlightRecord {
    /// The record as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

impl RecorderView {
    /// Takes out what is there now.
    ///
    /// RT-safe: no, it allocates. Thread: any.
    pub fn take(&self) -> FlightRecord {
        let chunks = self.chunks.records().iter().map(|words| self.chunk(words)).collect();
        FlightRecord { ticks: self.ticks.records().iter().map(|words| tick(words)).collect(), chunks }
    }

    fn chunk(&self, words: &[u32]) -> ChunkRecord {
        let (index, value) = (words[15] as usize, f32::from_bits(words[16]));
        let rejected = match words[14] {
            0 => None,
            1 => Some(Reject::NonFinite { index }),
            2 => Some(Reject::OutOfLimits { index, value }),
            _ => Some(Reject::WrongLength { got: index }),
        };
        let values: Vec<f32> = words[CHUNK_WORDS..].iter().map(|w| f32::from_bits(*w)).collect();
        debug_assert_eq!(values.len(), self.rows * self.dim);
        let info = ChunkInfo {
            number: joined(&words[0..]),
            expected_ns: joined(&words[2..]),
            captured: Timestamp::from_nanos(joined(&words[4..])),
            begun: Timestamp::from_nanos(joined(&words[6..])),
            published: Timestamp::from_nanos(joined(&words[8..])),
            progress_at: Timestamp::from_nanos(joined(&words[10..])),
            guided_rows: words[12],
            inference_delay: words[13],
        };
        ChunkRecord {
            number: info.number,
            captured_ns: info.captured.as_nanos(),
            begun_ns: info.begun.as_nanos(),
            published_ns: info.published.as_nanos(),
            guided_rows: info.guided_rows,
            inference_delay: info.inference_delay,
            expected_ns: info.expected_ns,
            progress_at_ns: info.progress_at.as_nanos(),
            rejected: rejected.map(|reason| reason.to_string()),
            actions: values.chunks_exact(self.dim).map(<[f32]>::to_vec).collect(),
        }
    }
}

fn tick(words: &[u32]) -> TickRecord {
    let reading = Reading {
        tick: joined(&words[2..]),
        chunk: joined(&words[4..]),
        age_ns: joined(&words[6..]),
        status: Status::from_number(words[8] & 0xff),
        flags: Flags::from_bits_truncate(words[9]),
        row: words[10],
        remaining: 0,
        missed: words[11],
        seam_jump: f32::from_bits(words[12]),
    };
    let action = words[TICK_WORDS..].iter().map(|w| f32::from_bits(*w)).collect();
    TickRecord { now_ns: joined(words), reading, action: (words[8] >> 8 != 0).then_some(action) }
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
            let mut chunk = Chunk::new(2, 2);
            chunk.values_mut().copy_from_slice(&[i as f32, 1.0, 2.0, f32::NAN]);
            chunk.info = ChunkInfo {
                number: i,
                captured: Timestamp::from_nanos(i << 40),
                begun: Timestamp::from_nanos(i + 1),
                published: Timestamp::from_nanos(i + 2),
                guided_rows: 4,
                inference_delay: 5,
                expected_ns: i << 35,
                progress_at: Timestamp::from_nanos(i + 3),
            };
            chunks.record(&chunk, reasons[i as usize % 4]);
        }
        let record = view.take();
        assert_eq!(record.chunks.len(), CHUNKS);
        for (i, chunk) in (4..20u64).zip(&record.chunks) {
            assert_eq!(
                (chunk.number, chunk.captured_ns, chunk.begun_ns, chunk.published_ns),
                (i, i << 40, i + 1, i + 2)
            );
            assert_eq!((chunk.guided_rows, chunk.inference_delay), (4, 5));
            assert_eq!((chunk.expected_ns, chunk.progress_at_ns), (i << 35, i + 3));
            assert_eq!(chunk.rejected, reasons[i as usize % 4].map(|r| r.to_string()));
            assert_eq!(chunk.actions[0], [i as f32, 1.0]);
            assert!(chunk.actions[1][1].is_nan());
        }
    }

    #[test]
    fn the_dump_is_json_that_can_be_read_back() {
        let (mut ticks, mut chunks, view) = recorder(1, 2);
        ticks.record(Timestamp::from_nanos(5), &reading(1), Some(&[1.5, f32::NAN]));
        chunks.record(&Chunk::new(1, 2), Some(Reject::NonFinite { index: 1 }));
        let json: serde_json::Value = serde_json::from_str(&view.take().to_json()).unwrap();
        let tick = &json["ticks"][0];
        assert_eq!(tick["status"], "stale");
        assert_eq!(tick["flags"], serde_json::json!(["clamped", "missed_ticks"]));
        assert_eq!(tick["action"], serde_json::json!([1.5, null]));
        assert!(json["chunks"][0]["rejected"].as_str().unwrap().contains("value 1"));
    }
}
