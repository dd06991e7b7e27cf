//! The rules for the directory of TensorRT engines, on real files: whose they are, which bytes they hold, what they
//! were built for.

mod engine_sets;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Instant;

use engine_sets::{build, cache, context_model, pins};
use pi0_edge::internals::{Building, CacheLock, EngineCache, RECORD_FILE};
use pi0_edge::tensorrt::{BuilderConfig, Pins};
use pi0_edge::{ErrorKind, Verify};

/// Finds and verifies a set as a run does.
fn use_set(root: &Path, pins: &Pins) -> pi0_edge::Result<()> {
    let cache = EngineCache::open(root)?;
    let entry = cache.find(pins)?;
    cache.verify(&entry, Verify::Full, &mut |_, _| {})
}

/// The run refuses, with all of the words.
fn refused(root: &Path, pins: &Pins, words: &[&str]) {
    let error = use_set(root, pins).expect_err("the set is refused");
    assert_eq!(error.kind(), ErrorKind::Engine, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "no {word:?} in: {error}");
    }
}

fn engine_file(root: &Path) -> PathBuf {
    root.join(pins().key()).join("denoise_step_1_sm87.engine")
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Gives a file to another user. Only root can; without that right the check is skipped, aloud.
fn give_away(path: &Path) -> bool {
    let given = std::os::unix::fs::chown(path, Some(4321), None).is_ok();
    if !given {
        eprintln!("skipped: only root can give files away");
    }
    given
}

#[test]
fn a_set_that_was_just_built_is_used() {
    let dir = cache();
    let record = build(dir.path(), &pins(), b"engine");
    use_set(dir.path(), &pins()).unwrap();
    assert_eq!(record.graphs.len(), 4);
    assert_eq!(record.files.len(), 8, "{:?}", record.files);
    let entries = EngineCache::open(dir.path()).unwrap().entries().unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].record.as_ref().unwrap(), &record);
    // What root builds, services of other users read; what a user builds is his alone.
    for (path, readable) in [(dir.path().join(pins().key()), 0o755), (engine_file(dir.path()), 0o644)] {
        let found = fs::metadata(&path).unwrap();
        let expected = if found.uid() == 0 { readable } else { readable & 0o700 };
        assert_eq!(found.mode() & 0o777, expected, "{}", path.display());
    }
}

#[test]
fn one_flipped_byte_is_refused() {
    let dir = cache();
    build(dir.path(), &pins(), b"engine");
    let names: Vec<_> =
        fs::read_dir(dir.path().join(pins().key())).unwrap().map(|e| e.unwrap().path()).collect();
    for path in names.iter().filter(|p| !p.ends_with(RECORD_FILE)) {
        let bytes = fs::read(path).unwrap();
        let mut flipped = bytes.clone();
        *flipped.last_mut().unwrap() ^= 1;
        fs::write(path, flipped).unwrap();
        refused(dir.path(), &pins(), &["damaged or was tampered with", "engines build"]);
        fs::write(path, bytes).unwrap();
        use_set(dir.path(), &pins()).unwrap();
    }
}

#[test]
fn a_damaged_or_edited_record_is_refused() {
    let dir = cache();
    build(dir.path(), &pins(), b"engine");
    let path = dir.path().join(pins().key()).join(RECORD_FILE);
    let text = fs::read_to_string(&path).unwrap();
    let cases = [
        (text.replace("10.3.0", "10.4.0"), "other pins than its name says"),
        (text.replace("\"format_version\": 1", "\"format_version\": 2"), "format_version is 2"),
        (text.replace("\"builder\"", "\"bilder\""), "cannot be read"),
        (
            text.replace("denoise_step_1_sm87.engine", "../denoise_step_1_sm87.engine"),
            "no name of an engine's file",
        ),
        (text[..text.len() / 2].to_owned(), "cannot be read"),
        (String::new(), "cannot be read"),
    ];
    for (edited, words) in cases {
        assert_ne!(edited, text, "{words}");
        fs::write(&path, edited).unwrap();
        refused(dir.path(), &pins(), &[words]);
    }
}

#[test]
fn other_versions_and_other_gpus_are_refused_by_name() {
    let dir = cache();
    build(dir.path(), &pins(), b"engine");
    let with = |change: fn(&mut Pins)| {
        let mut here = pins();
        change(&mut here);
        here
    };
    for (here, words) in [
        (with(|p| p.tensorrt = "10.16.2".into()), ["TensorRT 10.3.0", "here it is 10.16.2"]),
        (with(|p| p.onnxruntime = "1.28.0 (fedcba)".into()), ["ONNX Runtime 1.31.1", "here it is 1.28.0"]),
        (with(|p| p.gpu.name = "Thor".into()), ["the GPU Orin", "here it is Thor"]),
        (with(|p| p.gpu.multiprocessors = 8), ["16 multiprocessors", "8 multiprocessors"]),
        (
            with(|p| p.bundle = "cd".repeat(32)),
            ["has none for the manifest cdcd", "sets for other bundles: 1"],
        ),
    ] {
        refused(dir.path(), &here, &[words[0], words[1], "pi0-edge engines build BUNDLE"]);
    }
}

#[test]
fn files_of_others_are_refused() {
    let dir = cache();
    build(dir.path(), &pins(), b"engine");
    let set = dir.path().join(pins().key());
    for path in [dir.path().to_path_buf(), set.clone(), engine_file(dir.path()), set.join(RECORD_FILE)] {
        let before = fs::metadata(&path).unwrap();
        for foreign in [0o020, 0o002] {
            mode(&path, (before.mode() & 0o7777) | foreign);
            refused(dir.path(), &pins(), &["others may write to it", "chmod go-w"]);
        }
        mode(&path, before.mode() & 0o7777);
        use_set(dir.path(), &pins()).unwrap();
        if give_away(&path) {
            refused(dir.path(), &pins(), &["belongs to user 4321", "remove"]);
            std::os::unix::fs::chown(&path, Some(before.uid()), None).unwrap();
        }
    }
    use_set(dir.path(), &pins()).unwrap();
}

#[test]
fn links_and_strays_are_refused() {
    let dir = cache();
    build(dir.path(), &pins(), b"engine");
    let set = dir.path().join(pins().key());
    let engine = engine_file(dir.path());
    let aside = dir.path().join("aside");
    // A second name for the file: whoever has it can write the engine.
    fs::hard_link(&engine, &aside).unwrap();
    refused(dir.path(), &pins(), &["2 hard links"]);
    fs::remove_file(&engine).unwrap();
    symlink(&aside, &engine).unwrap();
    refused(dir.path(), &pins(), &["symbolic link"]);
    fs::remove_file(&engine).unwrap();
    refused(dir.path(), &pins(), &["is not there"]);
    fs::rename(&aside, &engine).unwrap();
    use_set(dir.path(), &pins()).unwrap();
    fs::write(set.join("plugin.so"), b"").unwrap();
    refused(dir.path(), &pins(), &["plugin.so is not in the set's record"]);
    // The directory itself behind a link.
    let other = tempfile::tempdir().unwrap();
    let link = other.path().join("engines");
    symlink(dir.path(), &link).unwrap();
    refused(&link, &pins(), &["symbolic link"]);
}

#[test]
fn a_directory_that_others_can_replace_is_refused() {
    let above = tempfile::tempdir().unwrap();
    let root = above.path().join("shared/engines");
    EngineCache::create(&root).unwrap();
    build(&root, &pins(), b"engine");
    use_set(&root, &pins()).unwrap();
    mode(&above.path().join("shared"), 0o777);
    refused(&root, &pins(), &["can be replaced by others", "shared"]);
    // As in /tmp, where only its owner can rename a file.
    mode(&above.path().join("shared"), 0o1777);
    use_set(&root, &pins()).unwrap();
}

#[test]
fn a_missing_engine_is_an_error_at_once_and_nothing_is_built() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("engines");
    let start = Instant::now();
    refused(&root, &pins(), &["does not exist", "pi0-edge engines build BUNDLE"]);
    assert!(!root.exists(), "looking makes nothing");
    EngineCache::create(&root).unwrap();
    refused(&root, &pins(), &["no TensorRT engines for this bundle here"]);
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    println!("two refusals in {:?}", start.elapsed());
}

#[test]
fn a_build_that_stops_leaves_nothing_and_one_that_is_killed_nothing_that_counts() {
    let dir = cache();
    let cache = EngineCache::open(dir.path()).unwrap();
    let lock = CacheLock::take(&cache).unwrap();
    let start =
        || Building::start(&cache, &lock, pins(), BuilderConfig::default(), Path::new("/bundles/b")).unwrap();
    let mut building = start();
    let model_file = building.context_model("denoise_step");
    fs::write(&model_file, context_model("half.engine")).unwrap();
    let place = building.directory().to_path_buf();
    // Killed: nothing of Rust runs, so nothing is cleaned up.
    std::mem::forget(building);
    assert!(place.exists());
    refused(dir.path(), &pins(), &["no TensorRT engines"]);
    // The next build starts from nothing, and dropping it removes its directory.
    let building = start();
    assert_eq!(fs::read_dir(building.directory()).unwrap().count(), 0);
    drop(building);
    assert!(!place.exists());
    refused(dir.path(), &pins(), &["no TensorRT engines"]);
}

#[test]
fn what_the_builder_left_incomplete_is_no_set() {
    let dir = cache();
    let cache = EngineCache::open(dir.path()).unwrap();
    let lock = CacheLock::take(&cache).unwrap();
    let attempt = |write: &dyn Fn(&Path, &Path)| {
        let mut building =
            Building::start(&cache, &lock, pins(), BuilderConfig::default(), Path::new("/bundles/b"))
                .unwrap();
        let file = building.context_model("denoise_step");
        write(&file, building.directory());
        building.finish(&mut |_, _| {}).expect_err("not a set").to_string()
    };
    assert!(attempt(&|_, _| {}).contains("wrote no denoise_step_ctx.onnx"));
    let no_engine = attempt(&|file, _| fs::write(file, context_model("a.engine")).unwrap());
    assert!(no_engine.contains("\"a.engine\" is not a file of this set"), "{no_engine}");
    let empty = attempt(&|file, place| {
        fs::write(file, context_model("a.engine")).unwrap();
        fs::write(place.join("a.engine"), b"").unwrap();
    });
    assert!(empty.contains("a.engine is empty"), "{empty}");
    let elsewhere = attempt(&|file, place| {
        fs::write(file, context_model("/etc/passwd")).unwrap();
        fs::write(place.join("a.engine"), b"x").unwrap();
    });
    assert!(elsewhere.contains("not a file of this set"), "{elsewhere}");
    assert!(cache.entries().unwrap().is_empty());
}

#[test]
fn building_again_replaces_the_set_as_a_whole() {
    let dir = cache();
    build(dir.path(), &pins(), b"engine");
    build(dir.path(), &pins(), b"a better engine");
    assert_eq!(fs::read(engine_file(dir.path())).unwrap(), b"a better engine");
    use_set(dir.path(), &pins()).unwrap();
    let names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().all(|n| !n.starts_with(".building") && !n.starts_with(".removing")), "{names:?}");
}

#[test]
fn two_builders_do_not_meet() {
    let dir = cache();
    let cache = EngineCache::open(dir.path()).unwrap();
    let lock = CacheLock::take(&cache).unwrap();
    let error = CacheLock::take(&cache).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Engine);
    assert!(error.to_string().contains(&format!("(process {})", std::process::id())), "{error}");
    drop(lock);
    CacheLock::take(&cache).unwrap();
}

#[test]
fn what_others_could_have_told_the_builder_is_thrown_away() {
    let dir = cache();
    let cache = EngineCache::open(dir.path()).unwrap();
    let lock = CacheLock::take(&cache).unwrap();
    let building =
        Building::start(&cache, &lock, pins(), BuilderConfig::default(), Path::new("/bundles/b")).unwrap();
    let timing = building.timing_directory().unwrap();
    let file = timing.join("cache_sm87.timing");
    fs::write(&file, b"timings").unwrap();
    mode(&file, 0o600);
    building.timing_directory().unwrap();
    assert!(file.exists(), "the user's own is kept");
    mode(&file, 0o666);
    building.timing_directory().unwrap();
    assert!(!file.exists());
    fs::write(&file, b"timings").unwrap();
    mode(&file, 0o600);
    mode(&timing, 0o777);
    building.timing_directory().unwrap();
    assert!(timing.exists() && !file.exists());
}

#[test]
fn cleaning_removes_what_no_run_can_use_and_only_that() {
    let dir = cache();
    build(dir.path(), &pins(), b"engine");
    let mut old = pins();
    old.tensorrt = "8.6.2".into();
    build(dir.path(), &old, b"engine");
    let mut broken = pins();
    broken.bundle = "cd".repeat(32);
    build(dir.path(), &broken, b"engine");
    fs::write(dir.path().join(broken.key()).join("denoise_step_1_sm87.engine"), b"short").unwrap();
    fs::create_dir(dir.path().join(".building-x")).unwrap();
    fs::write(dir.path().join("notes.txt"), b"the user's").unwrap();
    let cache = EngineCache::open(dir.path()).unwrap();
    let lock = CacheLock::take(&cache).unwrap();
    let unwanted = |record: &pi0_edge::tensorrt::Record| {
        (record.pins.tensorrt != "10.3.0").then(|| format!("for TensorRT {}", record.pins.tensorrt))
    };
    let pretended = cache.clean(&lock, true, &unwanted).unwrap();
    assert_eq!(pretended.removed.len(), 3, "{pretended:?}");
    assert!(pretended.bytes > 0);
    assert!(dir.path().join(old.key()).exists());
    assert_eq!(cache.clean(&lock, false, &unwanted).unwrap(), pretended);
    use_set(dir.path(), &pins()).unwrap();
    assert!(!dir.path().join(old.key()).exists() && !dir.path().join(broken.key()).exists());
    assert!(dir.path().join("notes.txt").exists());
    assert_eq!(cache.clean(&lock, false, &unwanted).unwrap().removed, []);
}
