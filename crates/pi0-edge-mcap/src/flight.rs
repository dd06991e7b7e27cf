//! Ticks and chunks of a flight record: from a runtime, or from the file that it wrote.

use pi0_edge::runtime::{ChunkRecord, FlightRecord, Status, TickRecord};
use serde::{Deserialize, Deserializer};

/// The part of a flight record that a recording takes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Flight {
    /// Control ticks, oldest first.
    pub(crate) ticks: Vec<Tick>,
    /// Chunks, oldest first.
    pub(crate) chunks: Vec<Chunk>,
}

impl Flight {
    /// Returns the width of an action; 0 in a record that has none.
    pub fn action_dim(&self) -> usize {
        self.written().next().map_or(0, Vec::len)
    }

    /// Returns the actions that a recording gets; those of rejected chunks are none of them.
    pub(crate) fn written(&self) -> impl Iterator<Item = &Vec<f32>> {
        let chunks = self.chunks.iter().filter(|chunk| chunk.rejected.is_none());
        let rows = chunks.flat_map(|chunk| &chunk.actions);
        rows.chain(self.ticks.iter().filter_map(|tick| tick.action.as_ref()))
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Tick {
    pub(crate) now_ns: u64,
    pub(crate) tick: u64,
    pub(crate) chunk: u64,
    pub(crate) age_ns: u64,
    #[serde(deserialize_with = "status")]
    pub(crate) status: Status,
    pub(crate) action: Option<Vec<f32>>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Chunk {
    pub(crate) number: u64,
    pub(crate) captured_ns: u64,
    pub(crate) begun_ns: u64,
    pub(crate) published_ns: u64,
    pub(crate) rejected: Option<String>,
    #[serde(deserialize_with = "rows")]
    pub(crate) actions: Vec<Vec<f32>>,
}

fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Status, D::Error> {
    let word = String::deserialize(deserializer)?;
    let known = Status::ALL.into_iter().find(|status| status.as_str() == word);
    known.ok_or_else(|| serde::de::Error::custom(format!("{word:?} is no status")))
}

/// Reads rows in which a value that is not finite is null.
fn rows<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<f32>>, D::Error> {
    let rows: Vec<Vec<Option<f32>>> = Deserialize::deserialize(deserializer)?;
    Ok(rows.into_iter().map(|row| row.into_iter().map(|x| x.unwrap_or(f32::NAN)).collect()).collect())
}

impl From<TickRecord> for Tick {
    fn from(record: TickRecord) -> Self {
        let TickRecord { now_ns, reading, action } = record;
        let (tick, chunk, age_ns, status) = (reading.tick, reading.chunk, reading.age_ns, reading.status);
        Tick { now_ns, tick, chunk, age_ns, status, action }
    }
}

impl From<ChunkRecord> for Chunk {
    fn from(record: ChunkRecord) -> Self {
        let ChunkRecord { info, rejected, actions } = record;
        Chunk {
            number: info.number,
            captured_ns: info.captured.as_nanos(),
            begun_ns: info.begun.as_nanos(),
            published_ns: info.published.as_nanos(),
            rejected,
            actions,
        }
    }
}

impl From<FlightRecord> for Flight {
    fn from(record: FlightRecord) -> Self {
        Flight {
            ticks: record.ticks.into_iter().map(Tick::from).collect(),
            chunks: record.chunks.into_iter().map(Chunk::from).collect(),
        }
    }
}
