//! The cell's behaviour on one thread, under real threads, and under the two model checkers.

use super::*;

#[cfg(not(any(pi0_loom, pi0_shuttle)))]
mod plain {
    use super::*;

    #[test]
    fn the_reader_sees_the_initial_value_until_something_is_published() {
        let (mut writer, mut reader) = cell(|| 7);
        assert!(!reader.update());
        assert_eq!(*reader.get(), 7);
        *writer.slot() = 8;
        assert!(!reader.update(), "filled is not published");
        assert_eq!(*reader.get(), 7);
    }

    #[test]
    fn the_latest_value_wins_and_the_writer_is_told_what_was_lost() {
        let (mut writer, mut reader) = cell(|| 0);
        let mut publish = |v| {
            *writer.slot() = v;
            writer.publish()
        };
        assert!(!publish(1));
        assert!(publish(2), "1 was never read");
        assert!(publish(3), "2 was never read");
        assert!(reader.update());
        assert_eq!(*reader.get(), 3);
        assert!(!reader.update(), "nothing new");
        assert_eq!(*reader.get(), 3);
        assert!(!publish(4), "3 was read");
        assert_eq!(*reader.get(), 3, "get does not change without update");
    }

    #[test]
    fn values_stay_where_they_were_written() {
        let (mut writer, mut reader) = cell(|| [0u8; 64]);
        let mut seen = std::collections::BTreeSet::new();
        for i in 0..100u8 {
            let slot = writer.slot();
            slot.fill(i);
            let written_at = slot.as_ptr() as usize;
            seen.insert(written_at);
            writer.publish();
            assert!(reader.update());
            assert_eq!(reader.get(), &[i; 64]);
            assert_eq!(reader.get().as_ptr() as usize, written_at, "handed over, not copied");
        }
        assert!(seen.len() <= 3, "three slots for ever: {}", seen.len());
    }

    #[test]
    fn death_of_a_peer_can_be_seen_and_its_last_value_still_taken() {
        let (mut writer, mut reader) = cell(|| 0);
        assert!(reader.writer_alive() && writer.reader_alive());
        *writer.slot() = 5;
        writer.publish();
        drop(writer);
        assert!(!reader.writer_alive());
        assert!(reader.update());
        assert_eq!(*reader.get(), 5);

        let (mut writer, reader) = cell(|| 0);
        drop(reader);
        assert!(!writer.reader_alive());
        assert!(!writer.publish());
        assert!(writer.publish(), "publishing to nobody is allowed");
    }

    #[test]
    fn every_slot_is_dropped_once() {
        struct Counted<'a>(&'a std::cell::Cell<u32>);
        impl Drop for Counted<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }
        let drops = std::cell::Cell::new(0);
        let (writer, reader) = cell(|| Counted(&drops));
        drop(reader);
        assert_eq!(drops.get(), 0);
        drop(writer);
        assert_eq!(drops.get(), 3);
    }

    #[test]
    fn a_reader_on_another_thread_sees_whole_values_in_order_and_the_last_one() {
        const ROUNDS: u64 = 200_000;
        let (mut writer, mut reader) = cell(|| [0u64; 16]);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for i in 1..=ROUNDS {
                    writer.slot().fill(i);
                    writer.publish();
                }
            });
            let mut last = 0;
            loop {
                let alive = reader.writer_alive();
                if reader.update() {
                    let value = *reader.get();
                    assert!(value.iter().all(|&v| v == value[0]), "torn: {value:?}");
                    assert!(value[0] > last, "{} came after {last}", value[0]);
                    last = value[0];
                } else if !alive {
                    break;
                } else {
                    std::thread::yield_now();
                }
            }
            assert_eq!(last, ROUNDS);
        });
    }
}

/// Every interleaving and every value the memory model lets each load see. loom itself reports an access to a slot
/// that is not ordered after the other side's last access to it.
#[cfg(pi0_loom)]
mod loom_model {
    use super::*;

    /// `writes` publications against `reads` updates: values whole, increasing, and the last one arrives.
    fn explore(writes: u32, reads: usize) {
        let explored = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let count = explored.clone();
        loom::model(move || {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let (mut writer, mut reader) = cell(|| (0u32, 0u32));
            let thread = loom::thread::spawn(move || {
                let mut lost = 0;
                for i in 1..=writes {
                    writer.write_with(|slot| *slot = (i, i * 10));
                    lost += u32::from(writer.publish());
                }
                lost
            });
            let (mut last, mut taken) = (0, 0);
            let mut look = |reader: &mut Reader<(u32, u32)>| {
                if reader.update() {
                    let (a, b) = reader.read_with(|v| *v);
                    assert_eq!(a * 10, b, "torn");
                    assert!(a > last, "went back or repeated");
                    last = a;
                    taken += 1;
                } else {
                    reader.read_with(|v| assert_eq!(v.0, last, "changed without update"));
                }
            };
            for _ in 0..reads {
                look(&mut reader);
            }
            let lost = thread.join().unwrap();
            look(&mut reader);
            assert_eq!(last, writes, "the last value must arrive");
            assert_eq!(taken + lost, writes, "each value is either taken or reported lost");
        });
        eprintln!(
            "loom: {writes} writes, {reads}+1 reads: {} executions",
            explored.load(std::sync::atomic::Ordering::Relaxed)
        );
    }

    #[test]
    fn two_writes_two_reads() {
        explore(2, 2);
    }

    #[test]
    fn three_writes_three_reads() {
        explore(3, 3);
    }

    #[test]
    fn five_writes_five_reads() {
        explore(5, 5);
    }

    #[test]
    fn a_dead_writers_last_value_is_there() {
        loom::model(|| {
            let (mut writer, mut reader) = cell(|| 0u32);
            let thread = loom::thread::spawn(move || {
                writer.write_with(|slot| *slot = 9);
                writer.publish();
            });
            if !reader.writer_alive() {
                assert!(reader.update(), "dead, so everything it published is visible");
                reader.read_with(|v| assert_eq!(*v, 9));
            }
            thread.join().unwrap();
        });
    }
}

/// Random schedules over a payload of several atomics, each store and load of which can be preempted.
#[cfg(pi0_shuttle)]
mod shuttle_model {
    use super::*;
    use crate::realtime::primitive::AtomicU64;

    fn schedules() -> usize {
        std::env::var("PI0_SHUTTLE_SCHEDULES").ok().and_then(|v| v.parse().ok()).unwrap_or(20_000)
    }

    fn torn_check() {
        let (mut writer, mut reader) = cell(|| [0u8; 3].map(|_| AtomicU64::new(0)));
        let thread = shuttle::thread::spawn(move || {
            for i in 1..=4 {
                for word in writer.slot() {
                    word.store(i, Ordering::Relaxed);
                }
                writer.publish();
            }
        });
        let mut last = 0;
        for _ in 0..4 {
            reader.update();
            let words = [0, 1, 2].map(|i: usize| reader.get()[i].load(Ordering::Relaxed));
            assert!(words.iter().all(|w| *w == words[0]), "torn: {words:?}");
            assert!(words[0] >= last);
            last = words[0];
        }
        thread.join().unwrap();
        reader.update();
        assert_eq!(reader.get()[0].load(Ordering::Relaxed), 4);
    }

    #[test]
    fn whole_values_over_random_schedules() {
        shuttle::check_random(torn_check, schedules());
    }

    #[test]
    fn whole_values_over_schedules_with_few_preemptions() {
        shuttle::check_pct(torn_check, schedules(), 3);
    }
}
