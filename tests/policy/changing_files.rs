//! Files of a bundle that are cut off, written to, deleted or replaced while a policy uses them: an error, or the same
//! actions as before; never the end of the process.
#![allow(unsafe_code)]

use std::fs::{File, FileTimes};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{Scene, copy_of_tiny, fill, tiny};
use pi0_edge::runtime::{
    Phase, PolicyInference, PolicyInferenceOptions, Replan, Runtime, RuntimeConfig, ThreadConfig, Timestamp,
};
use pi0_edge::{ErrorKind, InferOptions, Policy, PolicyOptions, Result, Stage, Weights};

const FILES: [&str; 5] = [
    "token_embedding.bin",
    "vision_encoder.onnx.data",
    "prefix_prefill.onnx.data",
    "denoise_step.onnx.data",
    "denoise_step.onnx",
];

/// The fate of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Cut off at nothing.
    Empty,
    /// Cut off in the middle.
    Half,
    /// Cut off and written anew with other bytes, as `cp` does.
    Rewrite,
    /// Other bytes written over its own, as `rsync --inplace` does.
    Overwrite,
    /// Cut off, and written anew with the same bytes and the same time.
    Restore,
    Delete,
    /// Another file takes its name.
    Replace,
}

const CHANGES: [Change; 7] = {
    use Change::*;
    [Empty, Half, Rewrite, Overwrite, Restore, Delete, Replace]
};

impl Change {
    fn make(self, path: &Path) {
        let bytes = std::fs::read(path).unwrap();
        let others: Vec<u8> = bytes.iter().map(|b| b ^ 0x5a).collect();
        let open = || File::options().write(true).open(path).unwrap();
        match self {
            Change::Empty => open().set_len(0).unwrap(),
            Change::Half => open().set_len(bytes.len() as u64 / 2).unwrap(),
            Change::Rewrite => std::fs::write(path, others).unwrap(),
            Change::Overwrite => open().write_all_at(&others, 0).unwrap(),
            Change::Restore => restore(path, &bytes, std::fs::metadata(path).unwrap().modified().unwrap()),
            Change::Delete => std::fs::remove_file(path).unwrap(),
            Change::Replace => {
                let other = path.with_extension("new");
                std::fs::write(&other, others).unwrap();
                std::fs::rename(other, path).unwrap();
            }
        }
    }

    /// Returns true if what a policy has open stays what it was.
    fn is_harmless(self) -> bool {
        matches!(self, Change::Restore | Change::Delete | Change::Replace)
    }
}

/// Cuts a file off and writes it anew, as if nothing had been.
fn restore(path: &Path, bytes: &[u8], modified: std::time::SystemTime) {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.set_times(FileTimes::new().set_modified(modified)).unwrap();
}

fn load(bundle: &Path, weights: Weights) -> Result<Policy> {
    let options = PolicyOptions { threads: 2, weights, no_spin: true, ..PolicyOptions::default() };
    Policy::load(bundle, &options)
}

fn infer(policy: &mut Policy) -> Result<Vec<f32>> {
    let scene = Scene::new(policy, &[0, 1], "pick up the cube");
    scene.with(|o| policy.infer(o, &InferOptions::default()).map(|chunk| chunk.as_slice().to_vec()))
}

#[track_caller]
fn assert_changed<T: std::fmt::Debug>(result: Result<T>, file: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
    assert!(error.to_string().contains(file) && error.to_string().contains("in use"), "{error}");
}

#[test]
fn every_change_between_inferences_is_an_error_or_changes_nothing() {
    for weights in [Weights::Mapped, Weights::Auto] {
        for change in CHANGES {
            // Packed weights alone are not mapped any more; what is seen of the files is the same.
            let files = if weights == Weights::Mapped { &FILES[..] } else { &FILES[3..4] };
            for &file in files {
                let bundle = copy_of_tiny();
                let mut policy = load(bundle.path(), weights).unwrap();
                let want = infer(&mut policy).unwrap();
                change.make(&bundle.path().join(file));
                for _ in 0..2 {
                    match infer(&mut policy) {
                        Ok(got) => assert!(change.is_harmless() && got == want, "{change:?} {file}"),
                        Err(_) if change.is_harmless() => panic!("{change:?} {file}: refused"),
                        error => assert_changed(error, file),
                    }
                }
            }
        }
    }
}

#[test]
fn a_page_that_is_lost_while_a_graph_runs_fails_the_graph_for_good() {
    for (stage, file) in [
        (Stage::Vision, "vision_encoder"),
        (Stage::Prefix, "prefix_prefill"),
        (Stage::DenoiseStep, "denoise_step"),
    ] {
        let bundle = copy_of_tiny();
        let path = bundle.path().join(format!("{file}.onnx.data"));
        let (bytes, modified) = (std::fs::read(&path).unwrap(), path.metadata().unwrap().modified().unwrap());
        let mut policy = load(bundle.path(), Weights::Mapped).unwrap();
        infer(&mut policy).unwrap();
        // A stage alone does not look at the files first, as a whole inference does.
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        assert_changed(policy.inspect_mut().run_stage(stage), file);
        // What was lost does not come back to those who had it.
        restore(&path, &bytes, modified);
        assert_changed(policy.inspect_mut().run_stage(stage), file);
        assert_changed(infer(&mut policy), file);
        infer(&mut load(bundle.path(), Weights::Mapped).unwrap()).unwrap();
    }
}

/// Cuts `paths` off and restores them, again and again, while `body` runs.
fn while_changing<T>(paths: &[PathBuf], body: impl FnOnce() -> T) -> T {
    let stop = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::Relaxed;
    let kept: Vec<_> = paths
        .iter()
        .map(|p| (std::fs::read(p).unwrap(), p.metadata().unwrap().modified().unwrap()))
        .collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(order) {
                for (path, (bytes, modified)) in paths.iter().zip(&kept) {
                    restore(path, bytes, *modified);
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        });
        let result = body();
        stop.store(true, order);
        result
    })
}

#[test]
fn changes_at_any_moment_are_an_error_or_change_nothing() {
    let bundle = copy_of_tiny();
    let paths: Vec<_> = FILES.iter().map(|file| bundle.path().join(file)).collect();
    let want = infer(&mut load(bundle.path(), Weights::Mapped).unwrap()).unwrap();
    let (mut loads, mut refused, mut chunks) = (0, 0, 0);
    while_changing(&paths, || {
        let give_up = Instant::now() + Duration::from_secs(60);
        // Some of each outcome, unless the machine is very slow.
        while (loads < 10 || refused < 3) && Instant::now() < give_up {
            // ONNX Runtime has words of its own for a file that is too short to be mapped.
            let Ok(mut policy) = load(bundle.path(), Weights::Mapped) else {
                refused += 1;
                continue;
            };
            loads += 1;
            for _ in 0..20 {
                match infer(&mut policy) {
                    Ok(got) => chunks += usize::from(got == want),
                    Err(e) if e.kind() == ErrorKind::Integrity => break,
                    Err(e) => panic!("{e}"),
                }
            }
        }
    });
    println!("{loads} loads, {refused} refused, {chunks} chunks");
    assert!(loads + refused > 0);
    assert_eq!(infer(&mut load(bundle.path(), Weights::Mapped).unwrap()).unwrap(), want);
}

#[test]
fn a_runtime_whose_files_change_holds_and_then_fails_in_words() {
    let bundle = copy_of_tiny();
    let prompt = Some("pick up the cube".to_owned());
    let options = PolicyInferenceOptions { prompt, max_frame: (64, 64), ..PolicyInferenceOptions::default() };
    let inference = PolicyInference::new(load(bundle.path(), Weights::Mapped).unwrap(), options).unwrap();
    let config = RuntimeConfig {
        thread: ThreadConfig::off(),
        replan: Replan::Period(Duration::ZERO),
        max_errors: 3,
        ..RuntimeConfig::default()
    };
    let (runtime, mut observations, mut controller) = Runtime::start(inference, &config).unwrap();
    let give_up = Instant::now() + Duration::from_secs(60);
    let mut changed = false;
    while runtime.stats().phase != Phase::Failed {
        fill(observations.slot(), 64, 64);
        observations.publish(Timestamp::now()).unwrap();
        controller.read();
        std::thread::sleep(Duration::from_millis(2));
        if !changed && runtime.stats().inference.published > 3 {
            changed = true;
            Change::Empty.make(&bundle.path().join("denoise_step.onnx.data"));
        }
        assert!(Instant::now() < give_up, "{:?}", runtime.stats());
    }
    assert!(changed && runtime.stats().inference.errors > 0);
}

const CASE: &str = "PI0_TEST_CHANGING_FILES";

/// Runs this test again in a process of its own, as `case`; what runs it goes before the program.
fn child(test: &str, case: &str, by: &[&str]) -> Option<std::process::Output> {
    let me = std::env::current_exe().unwrap();
    let mut command = match by {
        [] => Command::new(&me),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(&me);
            command
        }
    };
    let name = format!("changing_files::{test}");
    command.args([&name, "--exact", "--nocapture", "--test-threads=1"]).env(CASE, case).output().ok()
}

/// Touches a page of a map whose file is gone.
fn fault_of_the_program() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    use std::os::fd::AsRawFd;
    // SAFETY: a new map of an open file, of which one byte inside is read.
    unsafe {
        let (read, shared) = (libc::PROT_READ, libc::MAP_SHARED);
        let map = libc::mmap(std::ptr::null_mut(), 4096, read, shared, file.as_raw_fd(), 0);
        assert_ne!(map, libc::MAP_FAILED);
        file.set_len(0).unwrap();
        map.cast::<u8>().read_volatile();
    }
}

extern "C" fn with_information(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: what the kernel gave; ends the process.
    unsafe { libc::_exit(if (*info).si_addr().is_null() { 1 } else { 7 }) }
}

extern "C" fn without_information(signal: libc::c_int) {
    // SAFETY: ends the process.
    unsafe { libc::_exit(if signal == libc::SIGBUS { 8 } else { 1 }) }
}

#[test]
fn a_sigbus_of_the_program_is_handed_on() {
    let test = "a_sigbus_of_the_program_is_handed_on";
    let Ok(case) = std::env::var(CASE) else {
        for (case, code, signal) in [
            ("information", Some(7), None),
            ("signal", Some(8), None),
            ("default", None, Some(libc::SIGBUS)),
            ("ignored", None, Some(libc::SIGBUS)),
            ("sent", None, Some(libc::SIGBUS)),
        ] {
            let status = child(test, case, &[]).unwrap().status;
            assert_eq!((status.code(), status.signal()), (code, signal), "{case}");
        }
        return;
    };
    let (handler, flags) = match case.as_str() {
        "information" => (with_information as *const () as usize, libc::SA_SIGINFO),
        "signal" => (without_information as *const () as usize, 0),
        "ignored" => (libc::SIG_IGN, 0),
        _ => (libc::SIG_DFL, 0),
    };
    // SAFETY: a valid action; both calls have no other preconditions.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        (action.sa_sigaction, action.sa_flags) = (handler, flags);
        libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
    }
    infer(&mut load(&tiny(), Weights::Mapped).unwrap()).unwrap();
    match case.as_str() {
        // SAFETY: no preconditions.
        "sent" => _ = unsafe { libc::raise(libc::SIGBUS) },
        _ => fault_of_the_program(),
    }
    unreachable!("the signal ends the process");
}

#[test]
fn an_overlay_behaves_the_same() {
    let test = "an_overlay_behaves_the_same";
    if std::env::var(CASE).is_err() {
        let output = child(test, "overlay", &["unshare", "--mount", "--map-root-user"]);
        let Some(output) = output.filter(|o| !String::from_utf8_lossy(&o.stderr).contains("unshare:")) else {
            eprintln!("SKIPPED: overlays were NOT tried: this user may not mount one");
            return;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let base = tempfile::tempdir().unwrap();
    let at = |name: &str| base.path().join(name);
    // The layers above need a file system that can carry them, which another overlay is not.
    let memory =
        |at: &Path| Command::new("mount").args(["-t", "tmpfs", "none"]).arg(at).status().unwrap().success();
    if !memory(base.path()) {
        eprintln!("SKIPPED: overlays were NOT tried: no file system can be mounted");
        return;
    }
    for name in ["upper", "work", "merged"] {
        std::fs::create_dir(at(name)).unwrap();
    }
    let mut outcomes = [0, 0];
    for change in CHANGES {
        for file in &FILES[..4] {
            let layers = format!(
                "lowerdir={},upperdir={},workdir={}",
                tiny().display(),
                at("upper").display(),
                at("work").display()
            );
            let mounted = Command::new("mount")
                .args(["-t", "overlay", "-o", &layers, "none"])
                .arg(at("merged"))
                .status();
            if !mounted.unwrap().success() {
                eprintln!("SKIPPED: overlays were NOT tried: none can be mounted");
                return;
            }
            let mut policy = load(&at("merged"), Weights::Mapped).unwrap();
            let want = infer(&mut policy).unwrap();
            let before = std::fs::metadata(tiny().join(file)).unwrap();
            change.make(&at("merged").join(file));
            // The layer below, which the map shows, is never written to; what is seen of the file may be the one above.
            match infer(&mut policy) {
                Ok(got) => assert_eq!(got, want, "{change:?} {file}"),
                error => assert_changed(error, file),
            }
            outcomes[usize::from(infer(&mut policy).is_ok())] += 1;
            drop(policy);
            assert_eq!(std::fs::metadata(tiny().join(file)).unwrap().mtime_nsec(), before.mtime_nsec());
            assert!(Command::new("umount").arg(at("merged")).status().unwrap().success());
            for name in ["upper", "work"] {
                std::fs::remove_dir_all(at(name)).unwrap();
                std::fs::create_dir(at(name)).unwrap();
            }
        }
    }
    eprintln!("overlay: {} refused, {} with the same actions", outcomes[0], outcomes[1]);
}
