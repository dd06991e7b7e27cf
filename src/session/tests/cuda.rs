//! The GPU's memory over a stand-in for the CUDA runtime, see `tests/fake_cudart.c` for what that can show.

use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::bundle::Dtype;
use crate::error::ErrorKind;
use crate::session::memory::fake;
use crate::session::tensors::{Tensors, Transfers};

/// One copy of the stand-in with state of its own.
struct Fake {
    fake: fake::Fake,
    library: PathBuf,
    _directory: tempfile::TempDir,
}

impl std::ops::Deref for Fake {
    type Target = fake::Fake;

    fn deref(&self) -> &fake::Fake {
        &self.fake
    }
}

impl Fake {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (fake, library) = fake::Fake::in_directory(directory.path());
        Fake { fake, library, _directory: directory }
    }

    fn runtime(&self) -> CudaRuntime {
        CudaRuntime::open(&self.library).unwrap()
    }

    fn memory(&self, mapped: bool) -> Arc<CudaMemory> {
        Arc::new(CudaMemory::on(self.runtime(), 0, mapped, false).unwrap())
    }

    fn live(&self) -> c_int {
        self.number(c"fake_live")
    }
}

#[test]
fn a_copy_happens_when_the_stream_gets_to_it_and_not_before() {
    let fake = Fake::new();
    let mut t = Tensors::new(fake.memory(false));
    let a = t.add("a", Dtype::F32, 4, Access::Host).unwrap();
    t.f32_mut(a).unwrap().copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
    t.upload(a, 0..4).unwrap();
    assert_eq!(fake.number(c"fake_queued"), 1, "queued, and nothing waited");
    // Filling it again has to wait: the copy still reads it.
    t.f32_mut(a).unwrap().fill(9.0);
    assert_eq!(fake.number(c"fake_queued"), 0);
    assert_eq!(t.read_f32(a, 0..4).unwrap(), [1.0, 2.0, 3.0, 4.0], "what was there when it was sent");
    t.download(a, 0..2).unwrap();
    t.synchronize().unwrap();
    assert_eq!(t.f32(a), [1.0, 2.0, 9.0, 9.0]);
    assert_eq!(t.transfers(), Transfers { to_device: 16, from_device: 8 });
}

#[test]
#[should_panic(expected = "tensor a read before what writes it is done")]
fn what_is_on_its_way_to_the_host_is_not_read() {
    let fake = Fake::new();
    let mut t = Tensors::new(fake.memory(false));
    let a = t.add("a", Dtype::F32, 4, Access::Host).unwrap();
    t.download(a, 0..4).unwrap();
    t.f32(a);
}

#[test]
fn work_on_other_tensors_is_not_waited_for() {
    let fake = Fake::new();
    let mut t = Tensors::new(fake.memory(false));
    let a = t.add("a", Dtype::F32, 4, Access::Host).unwrap();
    let b = t.add("b", Dtype::F32, 4, Access::Host).unwrap();
    t.upload(a, 0..4).unwrap();
    t.f32_mut(b).unwrap().fill(1.0);
    t.upload(b, 0..4).unwrap();
    t.copy((b, 2), a, 2).unwrap();
    assert_eq!(fake.number(c"fake_queued"), 3);
    assert_eq!(t.read_f32(a, 0..4).unwrap(), [1.0, 1.0, 0.0, 0.0]);
}

#[test]
fn mapped_memory_needs_no_copies_but_waits_for_runs() {
    let fake = Fake::new();
    let mut t = Tensors::new(fake.memory(true));
    let a = t.add("a", Dtype::F32, 4, Access::Host).unwrap();
    let table = t.add("table", Dtype::F32, 4, Access::Graphs).unwrap();
    t.write_once(table, &[5.0f32, 6.0, 7.0, 8.0]).unwrap();
    t.restart();
    t.f32_mut(a).unwrap().fill(1.0);
    t.upload(a, 0..4).unwrap();
    assert_eq!((fake.number(c"fake_queued"), t.transfers()), (0, Transfers::default()));
    // The device writes what the host sees: reading it waits.
    t.copy((table, 0), a, 2).unwrap();
    assert_eq!(fake.number(c"fake_queued"), 1);
    assert_eq!(t.f32_mut(a).unwrap(), [5.0, 6.0, 1.0, 1.0]);
}

#[test]
fn run_times_are_the_devices() {
    let fake = Fake::new();
    let mut t = Tensors::new(fake.memory(false));
    for _ in 0..MAX_TIMED_RUNS + 3 {
        t.timed(|| Ok(())).unwrap();
    }
    let times = t.run_times().unwrap();
    assert_eq!(times.len(), MAX_TIMED_RUNS, "more are run, not kept");
    assert!(times.iter().all(|time| *time == Duration::from_micros(1500)));
}

#[test]
fn everything_taken_is_given_back() {
    let fake = Fake::new();
    for mapped in [false, true] {
        let memory = fake.memory(mapped);
        let mut t = Tensors::new(Arc::clone(&memory) as Arc<dyn Memory>);
        t.add("a", Dtype::F32, 4, Access::Host).unwrap();
        t.add("b", Dtype::F16, 0, Access::Graphs).unwrap();
        let usage = memory.usage().unwrap().unwrap();
        assert_eq!((usage.used, usage.total), (if mapped { 20 } else { 30 }, 1000));
        drop((t, memory));
        assert_eq!(fake.live(), 0, "mapped: {mapped}");
    }
}

#[test]
fn whatever_fails_says_so_and_leaves_nothing_behind() {
    for function in [c"cudaGetDeviceCount", c"cudaSetDevice", c"cudaMemGetInfo", c"cudaStreamCreateWithFlags"]
    {
        let fake = Fake::new();
        fake.fail(function, 0);
        let error = CudaMemory::on(fake.runtime(), 0, false, false).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Provider);
        assert!(
            text.contains(function.to_str().unwrap()) && text.contains("out of memory (CUDA error 2)"),
            "{text}"
        );
        assert_eq!((fake.live(), fake.number(c"fake_last_error")), (0, 0), "{text}");
    }
    let fake = Fake::new();
    fake.fail(c"cudaEventCreateWithFlags", 5);
    assert!(CudaMemory::on(fake.runtime(), 0, false, false).is_err());
    assert_eq!(fake.live(), 0);
    for (function, mapped) in [
        (c"cudaMalloc", false),
        (c"cudaHostAlloc", false),
        (c"cudaHostAlloc", true),
        (c"cudaHostGetDevicePointer", true),
        (c"cudaMemsetAsync", false),
        (c"cudaStreamSynchronize", false),
    ] {
        let fake = Fake::new();
        let mut t = Tensors::new(fake.memory(mapped));
        let before = fake.live();
        fake.fail(function, 0);
        let text = t.add("kv", Dtype::F32, 4, Access::Host).unwrap_err().to_string();
        assert!(text.starts_with("kv: ") && text.contains("out of memory"), "{text}");
        assert_eq!(fake.live(), before, "{text}");
    }
}

#[test]
fn a_gpu_that_is_not_there_is_named_with_those_that_are() {
    let fake = Fake::new();
    let text = CudaMemory::on(fake.runtime(), 2, false, false).unwrap_err().to_string();
    assert_eq!(text, "there is no GPU 2; CUDA sees 2, counted from 0");
    let memory = CudaMemory::on(fake.runtime(), 1, false, true).unwrap();
    memory.synchronize().unwrap();
    assert_eq!(fake.number(c"fake_device"), 1);
}

#[test]
fn a_capture_that_failed_half_way_is_left() {
    let fake = Fake::new();
    let memory = fake.memory(false);
    fake.spoil_capture();
    memory.abandon_capture();
    assert_eq!(fake.number(c"fake_last_error"), 0, "the next call is not blamed for it");
}

#[test]
fn a_library_without_the_functions_is_no_runtime() {
    let error = CudaRuntime::open(Path::new("libc.so.6")).unwrap_err().to_string();
    assert_eq!(error, "libc.so.6 has no cudaGetErrorString; it is not a CUDA runtime");
}
