//! The real policy, with a note of every row of every chunk, so that the control loop can tell whether the action it
//! read is the one that the reading names: the same chunk, the same row, every value of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::watched::Watcher;

/// Chunks that are known.
const CHUNKS: usize = 64;

/// Digests of the last chunks' rows. One thread notes, one looks.
#[derive(Debug)]
pub struct Known {
    rows: usize,
    chunks: Box<[Noted]>,
}

#[derive(Debug)]
struct Noted {
    /// The chunk's number; 0 while it is being noted.
    number: AtomicU64,
    rows: Box<[AtomicU64]>,
}

/// FNV-1a over the bits of an action: another action by accident has it once in 2^64.
fn digest(action: &[f32]) -> u64 {
    action.iter().flat_map(|v| v.to_bits().to_le_bytes()).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl Known {
    /// Creates an empty memory of chunks with this many rows.
    pub fn new(rows: usize) -> Self {
        let zeros = || (0..rows).map(|_| AtomicU64::new(0)).collect();
        let noted = |_| Noted { number: AtomicU64::new(0), rows: zeros() };
        Known { rows, chunks: (0..CHUNKS).map(noted).collect() }
    }

    fn note(&self, number: u64, actions: &[f32]) {
        let noted = &self.chunks[number as usize % CHUNKS];
        // SeqCst throughout: a look while this goes on must see that it does, and nothing here is in a hurry.
        noted.number.store(0, Ordering::SeqCst);
        for (row, action) in noted.rows.iter().zip(actions.chunks_exact(actions.len() / self.rows)) {
            row.store(digest(action), Ordering::SeqCst);
        }
        noted.number.store(number, Ordering::SeqCst);
    }

    /// Compares `action` with row `row` of chunk `number`; none if that chunk is not known any more.
    pub fn is(&self, action: &[f32], number: u64, row: usize) -> Option<bool> {
        let noted = &self.chunks[number as usize % CHUNKS];
        let known = || noted.number.load(Ordering::SeqCst) == number;
        if !known() {
            return None;
        }
        let same = noted.rows.get(row).is_some_and(|noted| noted.load(Ordering::SeqCst) == digest(action));
        // Forgotten while looking: says nothing.
        known().then_some(same)
    }
}

/// Notes chunks before they are published.
#[derive(Debug)]
pub struct Noting(pub Arc<Known>);

impl Watcher for Noting {
    fn finished(&mut self, chunk: u64, actions: &[f32], _length: usize) {
        self.0.note(chunk, actions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_of_another_chunk_row_or_value_is_found_out() {
        let known = Known::new(3);
        let (first, second): (Vec<f32>, Vec<f32>) = ((0..6).map(|v| v as f32).collect(), vec![7.0; 6]);
        known.note(1, &first);
        known.note(2, &second);
        assert_eq!(known.is(&first[2..4], 1, 1), Some(true));
        assert_eq!(known.is(&second[2..4], 2, 1), Some(true));
        assert_eq!(known.is(&second[2..4], 1, 1), Some(false), "another chunk's");
        assert_eq!(known.is(&first[2..4], 1, 2), Some(false), "another row's");
        assert_eq!(known.is(&[2.0, 7.0], 1, 1), Some(false), "half and half");
        assert_eq!(known.is(&first[..2], 1, 3), Some(false), "there is no such row");
        known.note(1 + CHUNKS as u64, &second);
        assert_eq!(known.is(&first[2..4], 1, 1), None, "forgotten");
    }
}
