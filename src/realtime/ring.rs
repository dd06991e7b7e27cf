//! A ring of fixed-size records that one thread writes and any other may look at, without either waiting.
//!
//! Each slot is a sequence lock whose payload is atomic words, so a look that races with a write is no data race: it
//! sees that the sequence number moved, and skips the slot. Writing is a fixed number of stores.

use super::primitive::{Arc, AtomicU64, Ordering, fence};

#[derive(Debug)]
struct Slot {
    /// Odd while the slot is being written; 2·(n + 1) once record n is in it; 0 before the first.
    sequence: AtomicU64,
    words: Box<[AtomicU64]>,
}

#[derive(Debug)]
struct Shared {
    slots: Box<[Slot]>,
    /// The number of records written.
    written: AtomicU64,
}

/// The half that writes. One thread at a time, by `&mut`.
#[derive(Debug)]
pub(super) struct RingWriter {
    shared: Arc<Shared>,
    written: u64,
}

/// The half that looks; any number, anywhere.
#[derive(Debug, Clone)]
pub(super) struct RingView(Arc<Shared>);

/// Creates a ring of the last `slots` records of `words` 64-bit words each.
pub(super) fn ring(slots: usize, words: usize) -> (RingWriter, RingView) {
    let slot =
        |_| Slot { sequence: AtomicU64::new(0), words: (0..words).map(|_| AtomicU64::new(0)).collect() };
    let shared = Arc::new(Shared { slots: (0..slots).map(slot).collect(), written: AtomicU64::new(0) });
    (RingWriter { shared: Arc::clone(&shared), written: 0 }, RingView(shared))
}

impl RingWriter {
    /// Writes one record. What `words` does not fill stays zero; what does not fit is cut off.
    ///
    /// RT-safe: yes. Thread: the one that writes.
    #[inline]
    #[cfg_attr(pi0_rtsan, sanitize(realtime = "nonblocking"))]
    pub(super) fn push(&mut self, words: impl Iterator<Item = u64>) {
        let n = self.written;
        self.written += 1;
        let slot = &self.shared.slots[(n % self.shared.slots.len() as u64) as usize];
        // Relaxed, then the fence: Release orders "odd" before every word below, so that whoever sees one of the
        // words sees that the slot is being written.
        slot.sequence.store(2 * n + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        for (word, value) in slot.words.iter().zip(words.chain(std::iter::repeat(0))) {
            // Relaxed, because the fence before and the count after order them.
            word.store(value, Ordering::Relaxed);
        }
        // Relaxed, because a view looks at this record only once it has seen it counted, below.
        slot.sequence.store(2 * (n + 1), Ordering::Relaxed);
        // Release, so that a view that counts this record sees all of it.
        self.shared.written.store(n + 1, Ordering::Release);
    }
}

impl RingView {
    /// Returns the number of records ever written.
    pub(super) fn written(&self) -> u64 {
        // Acquire pairs with the Release in `push`.
        self.0.written.load(Ordering::Acquire)
    }

    /// Returns the records that are still there, oldest first, each as its words. One that is overwritten while it is being
    /// looked at is left out.
    pub(super) fn records(&self) -> Vec<Vec<u64>> {
        let written = self.written();
        let first = written.saturating_sub(self.0.slots.len() as u64);
        (first..written).filter_map(|n| self.record(n)).collect()
    }

    fn record(&self, n: u64) -> Option<Vec<u64>> {
        let slot = &self.0.slots[(n % self.0.slots.len() as u64) as usize];
        let expected = 2 * (n + 1);
        // Relaxed, because the record was counted, which shows at least this number and these words; a later number
        // that is missed here is seen below.
        if slot.sequence.load(Ordering::Relaxed) != expected {
            return None;
        }
        // Relaxed, because the fence below orders them before the second look at the number.
        let words = slot.words.iter().map(|word| word.load(Ordering::Relaxed)).collect();
        // Acquire: if a word came from a later record, the number that goes with it is seen now.
        fence(Ordering::Acquire);
        (slot.sequence.load(Ordering::Relaxed) == expected).then_some(words)
    }
}

#[cfg(all(test, not(any(pi0_loom, pi0_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn the_last_records_stay_in_order() {
        let (mut writer, view) = ring(4, 3);
        assert!(view.records().is_empty());
        for n in 0..10u64 {
            writer.push([n, n + 1].into_iter());
            let want: Vec<Vec<u64>> = (n.saturating_sub(3)..=n).map(|n| vec![n, n + 1, 0]).collect();
            assert_eq!(view.records(), want);
            assert_eq!(view.written(), n + 1);
        }
        writer.push(0..100);
        assert_eq!(view.records()[3], [0, 1, 2], "what does not fit is cut off");
    }

    #[test]
    fn looking_while_it_is_written_sees_whole_records_only() {
        let (mut writer, view) = ring(8, 40);
        std::thread::scope(|scope| {
            scope.spawn(move || (0..100_000u64).for_each(|n| writer.push([n; 40].into_iter())));
            let mut seen = 0;
            while view.written() < 100_000 {
                for record in view.records() {
                    assert!(record.iter().all(|w| *w == record[0]), "torn: {record:?}");
                    seen += 1;
                }
                std::thread::yield_now();
            }
            assert!(seen > 0);
        });
        assert_eq!(view.records().len(), 8);
    }
}

#[cfg(all(test, pi0_loom))]
mod loom_model {
    use super::*;

    /// A slot that is overwritten while it is looked at: whole records or none, under every interleaving and every
    /// value the memory model lets each load see.
    #[test]
    fn no_torn_record_is_seen() {
        let seen = std::sync::Arc::new(std::sync::Mutex::new([0u32; 3]));
        let seen_inside = seen.clone();
        loom::model(move || {
            let (mut writer, view) = ring(1, 2);
            writer.push([1, 1].into_iter());
            let thread = loom::thread::spawn(move || writer.push([2, 2].into_iter()));
            let records = view.records();
            for record in &records {
                assert_eq!(record[0], record[1], "torn");
            }
            let which = records.first().map_or(0, |record| record[0]);
            seen_inside.lock().unwrap()[which as usize] += 1;
            thread.join().unwrap();
            assert_eq!(view.records(), [[2, 2]]);
        });
        let seen = *seen.lock().unwrap();
        eprintln!("loom: looks that saw nothing, the old record, the new one: {seen:?}");
        assert!(seen.iter().all(|n| *n > 0), "not every case was explored: {seen:?}");
    }
}
