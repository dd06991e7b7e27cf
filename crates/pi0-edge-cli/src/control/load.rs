//! Load beside the control loop: arithmetic on every CPU, copies of more memory than caches hold, and writes that go
//! through to the disk. At ordinary priority, as other programs on the robot's computer would.

use std::fs::{File, OpenOptions};
use std::io::{Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pi0_edge::{Error, ErrorKind, Result};
use serde::Serialize;

/// Bytes of each of the two buffers that are copied to and fro.
const COPY: usize = 64 << 20;
/// Bytes written before the disk must have them, and how large the file gets before it is begun anew.
const BLOCK: usize = 4 << 20;
const FILE: u64 = 128 << 20;

/// The load that was made.
#[derive(Debug, Serialize)]
pub struct Done {
    /// Threads that computed.
    pub cpu_threads: usize,
    /// Memory copied, in gigabytes a second.
    pub memory_gb_s: f64,
    /// Data written to the disk, in megabytes a second.
    pub disk_mb_s: f64,
}

/// The threads that make it.
pub struct Load {
    stop: Arc<AtomicBool>,
    cpu: Vec<JoinHandle<()>>,
    memory: JoinHandle<f64>,
    disk: JoinHandle<std::io::Result<f64>>,
}

impl Load {
    /// Starts it, with a file in `directory` that has no name once it is open.
    pub fn start(directory: &Path) -> Result<Self> {
        let path = directory.join(format!(".pi0-edge-load-{}", std::process::id()));
        let open = || {
            let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        };
        let file = open().map_err(cannot_write(directory))?;
        let stop = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let stopped = || {
            let stop = Arc::clone(&stop);
            // Relaxed: nothing is handed over by it.
            move || stop.load(Ordering::Relaxed)
        };
        let compute = |stopped| std::thread::spawn(move || compute(stopped));
        let cpu = (0..cores).map(|_| compute(stopped())).collect();
        let (memory, disk) = (stopped(), stopped());
        let memory = std::thread::spawn(move || copy(memory));
        let disk = std::thread::spawn(move || write(file, disk));
        Ok(Load { cpu, memory, disk, stop })
    }

    /// Ends it and says what it did.
    pub fn finish(self) -> Result<Done> {
        self.stop.store(true, Ordering::Relaxed);
        let panicked = |_| Error::new(ErrorKind::Runtime, "a thread of the load panicked");
        let cpu_threads = self.cpu.len();
        for thread in self.cpu {
            thread.join().map_err(panicked)?;
        }
        let memory = self.memory.join().map_err(panicked)?;
        let disk = self.disk.join().map_err(panicked)?.map_err(cannot_write(Path::new("its file")))?;
        Ok(Done { cpu_threads, memory_gb_s: memory / 1e9, disk_mb_s: disk / 1e6 })
    }
}

fn cannot_write(to: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let what =
        format!("the load on the disk cannot write to {}; --load-dir names another place", to.display());
    move |e| Error::with_source(ErrorKind::Io, what, e)
}

fn compute(stopped: impl Fn() -> bool) {
    let mut x = 1.0f64;
    while !stopped() {
        for _ in 0..10_000 {
            x = (x * 1.000_000_1).sqrt() + 0.5;
        }
        std::hint::black_box(x);
    }
}

/// Bytes a second.
fn copy(stopped: impl Fn() -> bool) -> f64 {
    let (mut from, mut to) = (vec![1u8; COPY], vec![0u8; COPY]);
    let (begun, mut copies) = (Instant::now(), 0u32);
    while !stopped() {
        to.copy_from_slice(std::hint::black_box(&from));
        std::mem::swap(&mut from, &mut to);
        copies += 1;
    }
    f64::from(copies) * COPY as f64 / begun.elapsed().max(Duration::from_millis(1)).as_secs_f64()
}

/// Bytes a second that the disk has.
fn write(mut file: File, stopped: impl Fn() -> bool) -> std::io::Result<f64> {
    let block = vec![0x5au8; BLOCK];
    let (begun, mut written) = (Instant::now(), 0u64);
    while !stopped() {
        if file.stream_position()? >= FILE {
            file.rewind()?;
        }
        file.write_all(&block)?;
        file.sync_data()?;
        written += BLOCK as u64;
    }
    Ok(written as f64 / begun.elapsed().max(Duration::from_millis(1)).as_secs_f64())
}
