//! Fills a template's weights: streamed, hashed while they are written, and either whole or not there.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use pi0_edge::bundle::Dtype;
use pi0_edge::internals::hex;
use pi0_edge::{Error, ErrorKind, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::random::Stream;
use super::template::{MANIFEST, Run, Template, WeightsFile};
use crate::interrupt::{self, Begun};
use crate::output::{cannot, file_name};

/// Values made at a time; even, as [`Stream::fill`] wants.
const BLOCK: usize = 1 << 18;

/// Making, hashing and writing take about a core each gigabyte a second; two keep most disks busy.
const WRITERS: usize = 2;

/// Left free on the disk.
const SPARE: u64 = 256 << 20;

/// Makes `directory` the filled template, in place of an older one; calls `progress` with the bytes written so far.
pub fn fill(template: &Template, directory: &Path, seed: u64, progress: &mut dyn FnMut(u64)) -> Result<()> {
    let parent = directory.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(cannot("create", parent))?;
    expect_space(parent, template.bytes())?;
    let part = parent.join(format!(".{}.{}.part", file_name(directory), std::process::id()));
    let (part, ()) = Begun::create(part, |part| fs::create_dir(part)).map_err(cannot("create", directory))?;
    template.copy_to(part.path())?;
    let entries = fill_all(template, part.path(), seed, progress)?;
    let mut manifest = template.marked(seed);
    for (name, entry) in entries {
        manifest["files"][name] = entry;
    }
    let path = part.path().join(MANIFEST);
    fs::write(&path, format!("{manifest:#}\n")).map_err(cannot("write", &path))?;
    if directory.exists() {
        fs::remove_dir_all(directory).map_err(cannot("remove", directory))?;
    }
    part.rename(directory).map_err(cannot("create", directory))
}

fn expect_space(parent: &Path, needed: u64) -> Result<()> {
    let disk = rustix::fs::statvfs(parent).map_err(cannot("examine", parent))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < needed.saturating_add(SPARE) {
        let (parent, free, needed) = (parent.display(), free as f64 / 1e9, needed as f64 / 1e9);
        let text = format!(
            "{parent} has {free:.1} GB free and the weights take {needed:.1}: name a directory on another disk, or a \
             smaller precision"
        );
        return Err(Error::new(ErrorKind::Io, text));
    }
    Ok(())
}

/// Fills every file; returns what the manifest says of each.
fn fill_all(
    template: &Template,
    directory: &Path,
    seed: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<(String, Value)>> {
    let mut todo: Vec<(&String, &WeightsFile)> = template.weights.iter().collect();
    // The largest is taken first, from the end, so that no thread is left alone with it.
    todo.sort_by_key(|(_, file)| file.size);
    let todo = Mutex::new(todo);
    let next = || todo.lock().unwrap_or_else(|e| e.into_inner()).pop();
    std::thread::scope(|scope| {
        let (report, reports) = mpsc::sync_channel::<u64>(16);
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                let (report, next) = (report.clone(), &next);
                scope.spawn(move || {
                    let mut entries = Vec::new();
                    while let Some((name, file)) = next() {
                        let sha256 = fill_file(directory, name, file, seed, &report)?;
                        entries.push((name.clone(), json!({"size": file.size, "sha256": sha256})));
                    }
                    Ok(entries)
                })
            })
            .collect();
        drop(report);
        let mut done = 0;
        for bytes in &reports {
            done += bytes;
            progress(done);
            if interrupt::requested() {
                break;
            }
        }
        drop(reports);
        let joined = writers.into_iter().map(|w| match w.join() {
            Ok(entries) => entries,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        let mut entries = joined.collect::<Result<Vec<_>>>()?.concat();
        // In the same order, whichever thread was faster.
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(entries)
    })
}

fn fill_file(
    directory: &Path,
    name: &str,
    file: &WeightsFile,
    seed: u64,
    report: &mpsc::SyncSender<u64>,
) -> Result<String> {
    let path = directory.join(name);
    let mut out = Output {
        file: File::create_new(&path).map_err(cannot("create", &path))?,
        hash: Sha256::new(),
        written: 0,
        path: &path,
        report,
    };
    let mut values = vec![0f32; BLOCK];
    let mut bytes = Vec::with_capacity(BLOCK * 4);
    for run in &file.runs {
        out.zeros(run.offset)?;
        let stream = Stream::new(seed, name, run.offset, run.mean, run.std);
        let mut first = 0;
        while first < run.count {
            let some = &mut values[..BLOCK.min((run.count - first) as usize)];
            stream.fill(first, some);
            encode(some, run, &mut bytes);
            out.write(&bytes)?;
            first += some.len() as u64;
        }
    }
    out.zeros(file.size)?;
    out.file.sync_all().map_err(cannot("write", &path))?;
    Ok(hex(&out.hash.finalize()))
}

/// The values as little-endian bytes of the run's type.
fn encode(values: &[f32], run: &Run, bytes: &mut Vec<u8>) {
    bytes.clear();
    match run.dtype {
        Dtype::F16 => {
            let mut halves = vec![f16::ZERO; values.len()];
            halves.convert_from_f32_slice(values);
            bytes.extend(halves.iter().flat_map(|h| h.to_le_bytes()));
        }
        Dtype::Bf16 => {
            let mut halves = vec![bf16::ZERO; values.len()];
            halves.convert_from_f32_slice(values);
            bytes.extend(halves.iter().flat_map(|h| h.to_le_bytes()));
        }
        // A template with any other type was refused when it was read.
        _ => bytes.extend(values.iter().flat_map(|v| v.to_le_bytes())),
    }
}

/// A file, its hash, and what has been reported of it.
struct Output<'a> {
    file: File,
    hash: Sha256,
    written: u64,
    path: &'a Path,
    report: &'a mpsc::SyncSender<u64>,
}

impl Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(cannot("write", self.path))?;
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        // The receiver goes when it is interrupted.
        let interrupted = |_| Error::new(ErrorKind::Io, "interrupted; nothing is left of it");
        self.report.send(bytes.len() as u64).map_err(interrupted)
    }

    /// Zeros up to the offset `end`: what lies between aligned tensors.
    fn zeros(&mut self, end: u64) -> Result<()> {
        let gap = vec![0; (end - self.written) as usize];
        if gap.is_empty() { Ok(()) } else { self.write(&gap) }
    }
}
