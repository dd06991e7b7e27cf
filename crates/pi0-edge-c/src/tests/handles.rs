//! The table of handles, and what borders on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::boundary::fixed_text;
use super::super::handle::Table;
use super::super::status::*;

struct Opaque;

/// Counts how many of it there are.
struct Object(Arc<AtomicUsize>);

impl Object {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Object(Arc::clone(count))
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn status<T>(result: Result<T>) -> pi0_status {
    result.map_or_else(|fail| fail.status, |_| PI0_OK)
}

#[test]
fn a_handle_is_good_until_it_is_freed_and_never_again() {
    static TABLE: Table<Opaque, Object> = Table::new(9);
    static OTHER: Table<Opaque, Object> = Table::new(10);
    let count = Arc::default();
    let mut old = Vec::new();
    for _ in 0..1000 {
        let handle = TABLE.insert(Object::new(&count)).unwrap();
        assert_eq!(status(TABLE.exclusive(handle)), PI0_OK);
        assert_eq!(status(OTHER.exclusive(handle)), PI0_ERR_HANDLE, "another kind's");
        assert_eq!(status(TABLE.free(handle)), PI0_OK);
        assert_eq!(status(TABLE.free(handle)), PI0_ERR_HANDLE);
        old.push(handle);
    }
    let handle = TABLE.insert(Object::new(&count)).unwrap();
    assert!(old.iter().all(|&old| status(TABLE.shared(old)) == PI0_ERR_HANDLE));
    // One bit off, and it is not a handle.
    for bit in 0..usize::BITS {
        let near = std::ptr::without_provenance::<Opaque>(handle.addr() ^ 1 << bit);
        assert_eq!(status(TABLE.exclusive(near)), PI0_ERR_HANDLE, "bit {bit}");
    }
    assert_eq!(status(TABLE.exclusive(std::ptr::null())), PI0_ERR_NULL);
    assert_eq!(status(TABLE.free(std::ptr::null())), PI0_OK);
    assert_eq!(status(TABLE.free(handle)), PI0_OK);
    assert_eq!(count.load(Ordering::Relaxed), 0);
}

#[test]
fn there_are_so_many_handles_and_no_more() {
    static TABLE: Table<Opaque, Object> = Table::new(9);
    let count = Arc::default();
    let mut handles = Vec::new();
    let full = loop {
        match TABLE.insert(Object::new(&count)) {
            Ok(handle) => handles.push(handle),
            Err(fail) => break fail,
        }
    };
    assert_eq!((full.status, handles.len()), (PI0_ERR_LIMIT, 64));
    assert_eq!(TABLE.handles().count(), 64);
    assert!(TABLE.handles().all(|handle| status(TABLE.free(handle)) == PI0_OK));
    assert_eq!((TABLE.handles().count(), count.load(Ordering::Relaxed)), (0, 0));
}

#[test]
fn calls_that_would_get_in_each_others_way_are_refused() {
    static TABLE: Table<Opaque, Object> = Table::new(9);
    let handle = TABLE.insert(Object::new(&Arc::default())).unwrap();
    let alone = TABLE.exclusive(handle).unwrap();
    assert_eq!(status(TABLE.exclusive(handle)), PI0_ERR_BUSY);
    assert_eq!(status(TABLE.shared(handle)), PI0_ERR_BUSY);
    assert_eq!(status(TABLE.free(handle)), PI0_ERR_BUSY);
    drop(alone);
    let together: Vec<_> = (0..254).map(|_| TABLE.shared(handle).unwrap()).collect();
    assert_eq!(status(TABLE.shared(handle)), PI0_ERR_BUSY, "as many as are counted");
    assert_eq!(status(TABLE.exclusive(handle)), PI0_ERR_BUSY);
    assert_eq!(status(TABLE.free(handle)), PI0_ERR_BUSY);
    drop(together);
    assert_eq!(status(TABLE.free(handle)), PI0_OK);
}

#[test]
fn a_handle_belongs_to_the_thread_that_called_first_until_another_attaches() {
    static TABLE: Table<Opaque, Object> = Table::new(9);
    let handle = TABLE.insert(Object::new(&Arc::default())).unwrap().addr();
    let here = || std::ptr::without_provenance::<Opaque>(handle);
    let there = |call: fn(usize) -> pi0_status| std::thread::spawn(move || call(handle)).join().unwrap();
    assert_eq!(status(TABLE.owned(here())), PI0_OK);
    let owned = |handle| status(TABLE.owned(std::ptr::without_provenance(handle)));
    assert_eq!(there(owned), PI0_ERR_THREAD);
    // Refusing does not take it away.
    assert_eq!(status(TABLE.owned(here())), PI0_OK);
    assert_eq!(there(|handle| status(TABLE.attach(std::ptr::without_provenance(handle)))), PI0_OK);
    assert_eq!(status(TABLE.attach(here())), PI0_OK);
    assert_eq!(status(TABLE.owned(here())), PI0_OK);
    assert_eq!(there(|handle| status(TABLE.free(std::ptr::without_provenance(handle)))), PI0_OK);
}

#[test]
fn threads_that_race_for_a_handle_each_get_a_status() {
    static TABLE: Table<Opaque, Object> = Table::new(9);
    let count = Arc::default();
    for _ in 0..200 {
        let handle = TABLE.insert(Object::new(&count)).unwrap().addr();
        let call = move |way: usize| {
            let handle = std::ptr::without_provenance::<Opaque>(handle);
            match way {
                0 => status(TABLE.exclusive(handle)),
                1 => status(TABLE.shared(handle)),
                _ => status(TABLE.free(handle)),
            }
        };
        let threads: Vec<_> = (0..6).map(|i| std::thread::spawn(move || call(i % 3))).collect();
        for thread in threads {
            let status = thread.join().unwrap();
            assert!([PI0_OK, PI0_ERR_BUSY, PI0_ERR_HANDLE].contains(&status), "{status}");
        }
        _ = TABLE.free(std::ptr::without_provenance(handle));
    }
    assert_eq!(count.load(Ordering::Relaxed), 0);
}

#[test]
fn text_is_cut_between_characters() {
    let text = |bytes: [std::ffi::c_char; 5]| {
        let bytes: Vec<u8> = bytes.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
        String::from_utf8(bytes).expect("whole characters")
    };
    for (given, kept) in
        [("", ""), ("abcd", "abcd"), ("abcde", "abcd"), ("abcö", "abc"), ("öö!", "öö"), ("a\0b", "a")]
    {
        assert_eq!(text(fixed_text(given)), kept, "{given:?}");
    }
}
