//! Functions marked RT-safe are those that RealtimeSanitizer looks at, and the tests that run under it call all of it.
//!
//! The mark is the line `RT-safe: yes` in a function's documentation. In a build with `--cfg pi0_rtsan` the attribute
//! beside it makes the sanitizer stop the program at the first allocation, lock or blocking system call below it.

use std::path::{Path, PathBuf};

use super::fake::Fake;
use super::lockstep::{MS, Rig, config};
use crate::realtime::cell::cell;
use crate::realtime::clock::{Clock, Timestamp};
use crate::realtime::reading::Status;
use crate::runtime::{RuntimeConfig, Splice, TimelineConfig};
use crate::stats::{Counter, Histogram};

const ATTRIBUTE: &str = r#"sanitize(realtime = "nonblocking")"#;

/// Calls, each at least once, what is not already called by a [`Controller::read`](crate::runtime::Controller::read).
#[test]
fn what_is_marked_runs_under_the_sanitizer() {
    let (mut writer, mut reader) = cell(|| 0u64);
    *writer.slot() = 1;
    assert!(!writer.publish());
    assert!(reader.update() && *reader.get() == 1);

    let (counter, histogram) = (Counter::default(), Histogram::new());
    counter.add(1);
    histogram.record(Timestamp::now().as_nanos());
    assert_eq!((counter.count(), histogram.snapshot().count()), (1, 1));

    let mut rig = Rig::new(Fake::new(20, 2), &config());
    assert!(rig.controller.set_reference(&[0.0; 2]));
    assert!(rig.controller.set_step_limits(&[0.5, f32::INFINITY]));
    rig.run(50, |_, _| {});
    for splice in Splice::ALL {
        let timeline = TimelineConfig { splice, ..config().timeline };
        let mut rig = Rig::new(Fake::new(20, 2), &RuntimeConfig { timeline, ..config() });
        rig.run(50, |_, _| {});
        assert!(rig.controller.set_state(&[10.0, f32::NAN]));
        rig.run(50, |_, _| {});
    }
    rig.controller.clear_trip();
    rig.clock.advance(10 * MS);
    assert_ne!(rig.controller.read_at(rig.clock.now()).status, Status::Empty);
    assert_eq!(rig.controller.action().map(<[f32]>::len), Some(2));
    assert_eq!(rig.controller.read().status, Status::Hold, "the machine's clock is far ahead of the rig's");
    rig.controller.notice_sleep(Timestamp::now(), u64::MAX);
    rig.runtime().begin_episode();
    assert_eq!(rig.controller.read().status, Status::Empty);
}

#[cfg(pi0_rtsan)]
#[test]
#[ignore = "the sanitizer stops it, and the process; scripts/realtime_checks.sh rtsan sees to that"]
fn a_planted_allocation() {
    let mut rig = Rig::new(Fake::new(20, 2), &config());
    crate::runtime::controller::PLANT.set(true);
    rig.tick(1);
    panic!("a read that allocates was not found");
}

/// A function's name, whether its documentation has the mark, and whether it has the attribute.
#[derive(Debug)]
struct Function {
    file: PathBuf,
    name: String,
    marked: bool,
    attribute: bool,
}

fn sources(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

/// The name in a line that begins a function, if it does.
fn function_name(line: &str) -> Option<&str> {
    let before_name = line.find("fn ")?;
    let qualifiers = ["pub", "const", "unsafe", "extern", "async"];
    let qualified = line[..before_name].split_whitespace().all(|word| {
        qualifiers.iter().any(|q| word.starts_with(q)) || word.starts_with('"') || word.ends_with(')')
    });
    let name = line[before_name + 3..].split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    (qualified && !name.is_empty()).then_some(name)
}

fn functions(file: &Path, text: &str) -> Vec<Function> {
    let (mut found, mut marked, mut attribute) = (vec![], false, false);
    for line in text.lines().map(str::trim) {
        if line.starts_with("/// RT-safe: yes") {
            marked = true;
        } else if line.contains(ATTRIBUTE) && line.starts_with("#[") {
            attribute = true;
        } else if let Some(name) = function_name(line) {
            found.push(Function { file: file.to_owned(), name: name.to_owned(), marked, attribute });
            (marked, attribute) = (false, false);
        }
    }
    found
}

/// The part of a source that is tests.
fn tests_in<'a>(file: &Path, text: &'a str) -> &'a str {
    let name = file.to_string_lossy();
    if name.contains("/tests") || name.ends_with("_tests.rs") {
        return text;
    }
    text.find("#[cfg(test)]\nmod ").map_or("", |at| &text[at..])
}

#[test]
fn every_function_marked_rt_safe_is_watched_and_called() {
    let mut files = vec![];
    for folder in ["src", "crates/pi0-edge-c/src"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut files);
    }
    let all: Vec<_> = files.iter().flat_map(|(file, text)| functions(file, text)).collect();
    let tests: String = files.iter().map(|(file, text)| tests_in(file, text)).collect();
    let mut wrong = vec![];
    for Function { file, name, marked, attribute } in &all {
        let file = file.display();
        match (marked, attribute) {
            (true, false) => wrong.push(format!(
                "{file}: {name} is marked `RT-safe: yes` but not watched; add #[cfg_attr(pi0_rtsan, {ATTRIBUTE})]"
            )),
            (false, true) => {
                wrong.push(format!("{file}: {name} is watched but its documentation lacks `RT-safe: yes`"));
            }
            (true, true) if !tests.contains(&format!("{name}(")) => {
                wrong.push(format!("{file}: {name} is marked `RT-safe: yes` but no test under src calls it"));
            }
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let marked = all.iter().filter(|f| f.marked).count();
    println!("{marked} functions marked RT-safe, all watched and called");
    assert!(marked >= 15, "the scan finds too few: {marked}");
}

#[test]
fn the_scan_sees_what_is_missing() {
    let text = "/// RT-safe: yes. Thread: any.\n#[inline]\npub fn a(&self) {}\n\
                #[cfg_attr(pi0_rtsan, sanitize(realtime = \"nonblocking\"))]\npub unsafe extern \"C\" fn b() {}\n\
                /// RT-safe: no.\nfn c() {}\n// the fn of it\nlet f = |x| x;";
    let found: Vec<_> =
        functions(Path::new("x.rs"), text).into_iter().map(|f| (f.name, f.marked, f.attribute)).collect();
    let name = str::to_owned;
    assert_eq!(found, [(name("a"), true, false), (name("b"), false, true), (name("c"), false, false)]);
}
