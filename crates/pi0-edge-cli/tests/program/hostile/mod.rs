//! The project's own hostile bundles: each is refused in words, or accepted with the actions of the bundle it was made
//! from. None may end, stop or fill the process, or have it read a file outside.
//!
//! They are tried in processes of their own, many in each; one that ends its process has escaped, and the next process
//! goes on behind it. `PI0_HOSTILE_KEEP=DIR` leaves all bundles in `DIR`, for other programs to try.
#![allow(unsafe_code)]

mod amounts;
mod cases;
mod contents;
mod draft;
mod parts;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cases::{Case, Trial, all};
use draft::Draft;
use pi0_edge::bundle::{Bundle, Verify};
use pi0_edge::{InferOptions, Policy, PolicyOptions};
use pi0_edge_golden::Golden;

use crate::common::{Scene, observation_dir, tiny};
use crate::support::pi0_edge;

const MAX_CPU_S: u64 = 10;
const MAX_BYTES: u64 = 2 << 30;
/// The longest text about what is wrong with a bundle.
const MAX_TEXT: usize = 4096;
/// Longer without a word means that something hangs, however busy the machine is.
const SILENCE: Duration = Duration::from_secs(300);
const WORKERS: usize = 2;
const CHILD: &str = "PI0_TEST_HOSTILE";

/// The end of a bundle's trial.
#[derive(Debug)]
enum Verdict {
    Refused,
    Equal,
    Escaped(String),
}

#[test]
fn hostile_bundles_are_refused_or_change_nothing() {
    if let Ok(place) = std::env::var(CHILD) {
        let (first, step) = place.split_once(' ').unwrap();
        return child(first.parse().unwrap(), step.parse().unwrap());
    }
    let cases = all();
    let verdicts: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|first| scope.spawn(move || parent(first))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert_eq!(verdicts.len(), cases.len());
    let mut table: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    let mut escaped = Vec::new();
    for (index, verdict) in &verdicts {
        let row = table.entry(cases[*index].kind).or_default();
        row[0] += 1;
        match verdict {
            Verdict::Refused => row[1] += 1,
            Verdict::Equal => row[2] += 1,
            Verdict::Escaped(how) => {
                row[3] += 1;
                escaped.push(format!("{} / {}: {how}", cases[*index].kind, cases[*index].name));
            }
        }
    }
    println!("{:<28}{:>7}{:>9}{:>14}{:>9}", "kind", "tried", "refused", "equal actions", "escaped");
    let mut sum = [0; 4];
    for (kind, row) in &table {
        println!("{kind:<28}{:>7}{:>9}{:>14}{:>9}", row[0], row[1], row[2], row[3]);
        sum.iter_mut().zip(row).for_each(|(sum, n)| *sum += n);
    }
    println!("{:<28}{:>7}{:>9}{:>14}{:>9}", "all", sum[0], sum[1], sum[2], sum[3]);
    assert!(escaped.is_empty(), "escaped:\n{}", escaped.join("\n"));
    assert!(cases.len() >= 500 && sum[1] > 400 && sum[2] > 10, "{sum:?}");
}

/// Has every `WORKERS`-th case from `next` on tried by children, until all are through.
fn parent(mut next: usize) -> Vec<(usize, Verdict)> {
    let mut verdicts = Vec::new();
    let count = all().len();
    while next < count {
        let me = std::env::current_exe().unwrap();
        let name = "hostile::hostile_bundles_are_refused_or_change_nothing";
        let mut child = Command::new(me)
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, format!("{next} {WORKERS}"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, lines) = mpsc::channel();
        let output = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| send.send(line))
        });
        let silent = loop {
            match lines.recv_timeout(SILENCE) {
                Ok(line) => {
                    let Some(said) = line.strip_prefix("verdict ") else { continue };
                    verdicts.push((
                        next,
                        match said {
                            "refused" => Verdict::Refused,
                            "equal" => Verdict::Equal,
                            how => Verdict::Escaped(how.to_owned()),
                        },
                    ));
                    next += WORKERS;
                }
                Err(error) => break error == mpsc::RecvTimeoutError::Timeout,
            }
        };
        if silent {
            child.kill().unwrap();
        }
        let status = child.wait().unwrap();
        if next < count {
            let how = if silent { "it hangs".into() } else { format!("the process ended: {status}") };
            verdicts.push((next, Verdict::Escaped(how)));
            next += WORKERS;
        }
    }
    verdicts
}

/// Tries every `step`-th case from `first` on.
fn child(first: usize, step: usize) {
    limit(libc::RLIMIT_AS, 8 << 30);
    let keep = std::env::var_os("PI0_HOSTILE_KEEP").map(PathBuf::from);
    keep.iter().for_each(|dir| std::fs::create_dir_all(dir).unwrap());
    let mut untouched = load(&tiny()).unwrap();
    let want = infer(&mut untouched).unwrap();
    drop(untouched);
    println!();
    for (index, case) in all().into_iter().enumerate().skip(first).step_by(step) {
        let place = tempfile::tempdir().unwrap();
        let (bundle, outside) = (place.path().join("bundle"), place.path().join("outside"));
        for directory in [&bundle, &outside] {
            std::fs::create_dir(directory).unwrap();
        }
        for entry in observation_dir().read_dir().unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), outside.join(entry.file_name())).unwrap();
        }
        let Case { kind, name, change, trial } = case;
        let mut draft = Draft::read(&tiny());
        change(&mut draft);
        draft.write(&bundle, &outside);
        if let Some(keep) = &keep {
            let words = format!("{index:04} {kind} {name}");
            let safe = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' };
            let to = keep.join(words.chars().take(80).map(safe).collect::<String>());
            assert!(Command::new("cp").arg("-a").arg(&bundle).arg(to).status().unwrap().success());
        }
        let opened = Opened::watch(&outside);
        let (begin, children) = (cpu_time(), children_peak());
        // The peak counts from here on.
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let mut verdict = match &trial {
            Trial::Library => try_library(&bundle, &want),
            Trial::Program(arguments) => try_program(arguments, &bundle),
        };
        for escape in [
            opened.any().then(|| "a file outside was opened".to_owned()),
            (cpu_time() - begin > Duration::from_secs(MAX_CPU_S))
                .then(|| format!("{:?}", cpu_time() - begin)),
            (own_peak() > MAX_BYTES).then(|| format!("{} MiB", own_peak() >> 20)),
            (children_peak() > children.max(MAX_BYTES)).then(|| format!("{} MiB", children_peak() >> 20)),
        ] {
            verdict = escape.map_or(verdict, Verdict::Escaped);
        }
        match verdict {
            Verdict::Refused => println!("verdict refused"),
            Verdict::Equal => println!("verdict equal"),
            Verdict::Escaped(how) => println!("verdict {}", how.escape_debug()),
        }
    }
}

fn load(bundle: &Path) -> pi0_edge::Result<Policy> {
    let options =
        PolicyOptions { threads: 1, no_spin: true, verify: Verify::Size, ..PolicyOptions::default() };
    Policy::load(bundle, &options)
}

fn infer(policy: &mut Policy) -> pi0_edge::Result<Vec<f32>> {
    let scene = Scene::new(policy, &[0, 1], "pick up the cube");
    scene.with(|o| policy.infer(o, &InferOptions::default()).map(|chunk| chunk.as_slice().to_vec()))
}

/// Opens the bundle, reads all of its golden data, loads the policy and infers.
fn try_library(bundle: &Path, want: &[f32]) -> Verdict {
    let tried = Bundle::open(bundle, Verify::Full, &mut |_, _| {}).and_then(|opened| {
        if let Some(golden) = Golden::load(&opened)? {
            for case in &golden.cases {
                opened.read_file(&case.observation_path(&opened)?, 1 << 20)?;
                case.noise(&opened)?;
                for (_, sampled) in case.expected.stages() {
                    sampled.read(&opened)?;
                }
            }
        }
        infer(&mut load(bundle)?)
    });
    match tried {
        Ok(got) if got == want => Verdict::Equal,
        Ok(_) => Verdict::Escaped("other actions".into()),
        Err(e) => of_text(&e.to_string(), |c| c.is_control() && c != '\n'),
    }
}

/// Runs the program with the bundle as its verb's argument.
fn try_program(arguments: &[String], bundle: &Path) -> Verdict {
    let mut command = pi0_edge();
    command.arg(&arguments[0]).arg(bundle).args(&arguments[1..]).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("XDG_CACHE_HOME", bundle.parent().unwrap());
    // SAFETY: setrlimit may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            limit(libc::RLIMIT_CPU, MAX_CPU_S);
            Ok(())
        });
    }
    let mut child = command.spawn().unwrap();
    let mut pipes: [Box<dyn Read + Send>; 2] =
        [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
    let readers = std::thread::scope(|scope| {
        let [out, err] = &mut pipes;
        let read = |pipe: &mut Box<dyn Read + Send>| {
            let mut text = Vec::new();
            _ = pipe.read_to_end(&mut text);
            text
        };
        let (out, err) = (scope.spawn(move || read(out)), scope.spawn(move || read(err)));
        let give_up = Instant::now() + SILENCE / 2;
        // Sleeping for so long is a hang, using up the time a signal.
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > give_up {
                child.kill().unwrap();
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        [out.join().unwrap(), err.join().unwrap()]
    });
    let status = child.wait().unwrap();
    let text = readers.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    match (status.code(), status.signal()) {
        (_, Some(signal)) => Verdict::Escaped(format!("signal {signal}: {}", text[1])),
        _ if text[0].contains(|c: char| c.is_control() && c != '\n') => {
            Verdict::Escaped("a control character on stdout".into())
        }
        (Some(1 | 2), _) => of_text(&text[1], |c| c.is_control() && c != '\n'),
        (Some(0), _) => Verdict::Equal,
        (code, _) => Verdict::Escaped(format!("exit code {code:?}")),
    }
}

/// The verdict on what is said of a bundle that is not accepted.
fn of_text(text: &str, is_raw: impl Fn(char) -> bool) -> Verdict {
    match text {
        text if text.contains("panicked") => Verdict::Escaped(text.to_owned()),
        text if text.len() > MAX_TEXT => Verdict::Escaped(format!("{} bytes of text", text.len())),
        text if text.contains(is_raw) => Verdict::Escaped("a control character in the text".into()),
        "" => Verdict::Escaped("no word".into()),
        _ => Verdict::Refused,
    }
}

fn limit(which: libc::__rlimit_resource_t, most: u64) {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: a valid limit; the call has no other preconditions.
    unsafe { libc::setrlimit(which, &limit) };
}

/// The CPU time of this process and of the children it has waited for.
fn cpu_time() -> Duration {
    // SAFETY: all zeros is a valid value to be filled in.
    let mut usage: [libc::rusage; 2] = unsafe { std::mem::zeroed() };
    for (usage, who) in usage.iter_mut().zip([libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN]) {
        // SAFETY: `usage` is valid to write to.
        unsafe { libc::getrusage(who, usage) };
    }
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    usage.iter().map(|u| time(u.ru_utime) + time(u.ru_stime)).sum()
}

/// The most memory that this process had since its peak was last reset, in bytes.
fn own_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// The most memory that any child had so far, in bytes.
fn children_peak() -> u64 {
    // SAFETY: all zeros is a valid value to be filled in, and valid to write to.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage);
        (usage.ru_maxrss as u64) << 10
    }
}

/// Tells whether a file of a directory was opened.
struct Opened(std::fs::File);

impl Opened {
    fn watch(directory: &Path) -> Self {
        use std::os::fd::{AsRawFd, FromRawFd};
        use std::os::unix::ffi::OsStrExt;
        let path = std::ffi::CString::new(directory.as_os_str().as_bytes()).unwrap();
        // SAFETY: the descriptor is new and nobody else's; the path ends with NUL.
        unsafe {
            let file = std::fs::File::from_raw_fd(libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC));
            assert!(libc::inotify_add_watch(file.as_raw_fd(), path.as_ptr(), libc::IN_OPEN) >= 0);
            Opened(file)
        }
    }

    fn any(&self) -> bool {
        (&self.0).read(&mut [0; 4096]).is_ok_and(|n| n > 0)
    }
}
