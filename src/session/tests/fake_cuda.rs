//! Stand-ins for NVIDIA's libraries, for tests: see `tests/fake_cudart.c` for what they can show.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr::NonNull;

#[path = "../../../tests/common/exports.rs"]
pub(crate) mod exports;
#[path = "../../../tests/common/gpu_build.rs"]
pub(crate) mod gpu_build;
#[path = "../../../tests/common/project.rs"]
mod project;

/// Tells a test in a child process the path of the GPU build of ONNX Runtime.
const GPU_BUILD: &str = "PI0_EDGE_TEST_GPU_BUILD";

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn compile(library: &Path, arguments: &[&str], sources: &[PathBuf]) {
    let soname = format!("-Wl,-soname,{}", library.file_name().unwrap().to_str().unwrap());
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-w", "-o"]).arg(library).arg(soname).args(arguments).args(sources);
    assert!(cc.status().expect("a C compiler").success());
}

/// One CUDA runtime that is none.
#[derive(Debug)]
pub(crate) struct Fake(NonNull<c_void>);

impl Fake {
    /// One with state of its own, in a file in `directory`, and the file.
    pub(crate) fn in_directory(directory: &Path) -> (Self, PathBuf) {
        let library = directory.join("libcudart.so.13");
        compile(&library, &[], &[source("fake_cudart.c")]);
        let name = CString::new(library.to_str().unwrap()).unwrap();
        (Self::open(&name, libc::RTLD_NOW), library)
    }

    /// The one that a library of this process has brought in.
    pub(crate) fn of_this_process() -> Self {
        Self::open(c"libcudart.so.13", libc::RTLD_NOW | libc::RTLD_NOLOAD)
    }

    fn open(name: &CStr, flags: c_int) -> Self {
        // SAFETY: a library without initialisers, never closed.
        let handle = unsafe { libc::dlopen(name.as_ptr(), flags | libc::RTLD_LOCAL) };
        Fake(NonNull::new(handle).expect("the stand-in loads"))
    }

    fn symbol(&self, name: &CStr) -> *mut c_void {
        // SAFETY: an open library and a NUL-terminated name.
        let symbol = unsafe { libc::dlsym(self.0.as_ptr(), name.as_ptr()) };
        assert!(!symbol.is_null(), "{name:?}");
        symbol
    }

    /// Reads one of the stand-in's own counters.
    pub(crate) fn number(&self, name: &CStr) -> c_int {
        // SAFETY: the C signature of all that begin with `fake_` and take nothing.
        unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> c_int>(self.symbol(name))() }
    }

    /// Makes `function` fail once, after `skip` calls that go well.
    pub(crate) fn fail(&self, function: &CStr, skip: c_int) {
        let symbol = self.symbol(c"fake_fail");
        // SAFETY: the C signature.
        let fail =
            unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*const c_char, c_int)>(symbol) };
        // SAFETY: a NUL-terminated name, copied by the call.
        unsafe { fail(function.as_ptr(), skip) }
    }

    /// Leaves the stream in the middle of a capture that came to nothing.
    pub(crate) fn spoil_capture(&self) {
        let symbol = self.symbol(c"fake_capture");
        // SAFETY: the C signature.
        let capture = unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn(c_int)>(symbol) };
        // SAFETY: takes any number.
        unsafe { capture(2) }
    }
}

/// Runs the ignored test `name` in a process of its own, where the GPU build's real CUDA provider finds stand-ins for
/// all that it needs of NVIDIA's.
pub(crate) fn in_a_child(name: &str) {
    let Some(library) = gpu_build::gpu_build() else { return };
    let directory = tempfile::tempdir().unwrap();
    let provider = library.with_file_name("libonnxruntime_providers_cuda.so");
    let listed = Command::new("nm").args(["-D", "--undefined-only"]).arg(provider).output().expect("nm");
    let wanted = String::from_utf8(listed.stdout).unwrap();
    let names =
        wanted.lines().filter_map(|l| l.split_whitespace().last()).map(|n| n.split('@').next().unwrap());
    let nvidias = names.filter(|n| ["cuda", "__cuda", "cublas", "cuTensor"].iter().any(|p| n.starts_with(p)));
    let weak: String =
        nvidias.map(|n| format!("__attribute__((weak)) int {n}(void) {{ return 0; }}\n")).collect();
    assert!(weak.contains("cublasCreate_v2"), "nm lists what the provider wants");
    let rest = directory.path().join("rest.c");
    std::fs::write(&rest, weak).unwrap();
    let sources = [rest, source("fake_cudart.c"), source("fake_cuda_provider.c")];
    compile(&directory.path().join("libcudart.so.13"), &["-DFAKE_AT_ONCE"], &sources);
    for empty in ["libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcuda.so.1"] {
        compile(&directory.path().join(empty), &["-xc", "/dev/null"], &[]);
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env("LD_LIBRARY_PATH", directory.path())
        .env(GPU_BUILD, library)
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// In such a process: the GPU build of ONNX Runtime.
pub(crate) fn environment_of_child() -> &'static crate::Environment {
    let library = std::env::var(GPU_BUILD).expect("run by its parent test");
    crate::Environment::get(Some(Path::new(&library))).unwrap()
}
