//! Machines for the doctor's tests: unpacked from text, and given libraries.
#![allow(dead_code)] // each test file uses its part

pub mod library;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use pi0_edge_doctor::{BundleFacts, Code, Facts, Finding, Options, Provider, Report, Severity, diagnose};

use library::{AARCH64, Library, X86_64};

/// The machines as text, as the tests of the doctor and of the program find them.
const TREES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../pi0-edge-doctor/tests/machine/trees");

/// A file tree in a temporary directory.
pub struct Machine {
    dir: tempfile::TempDir,
    env: Vec<(String, String)>,
    pub options: Options,
}

impl Machine {
    /// Unpacks `trees/NAME.txt`, and runs the doctor as if it were `/usr/bin/pi0-edge`.
    pub fn tree(name: &str) -> Self {
        let machine = Machine::empty();
        let path = Path::new(TREES).join(format!("{name}.txt"));
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for section in text.split("==> ").skip(1) {
            let (name, contents) = section.split_once(" <==\n").expect("a line `==> /path <==`");
            // The empty line before the next file is not the file's.
            machine.file(
                name,
                contents.strip_suffix("\n\n").unwrap_or(contents).replace("\\0", "\0").as_bytes(),
            );
        }
        machine.link("/proc/self/exe", "/usr/bin/pi0-edge");
        machine.link("/proc/self/cwd", "/home/robot");
        machine
    }

    /// A tree with nothing in it.
    pub fn empty() -> Self {
        Machine { dir: tempfile::tempdir().unwrap(), env: Vec::new(), options: Options::default() }
    }

    pub fn real(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    pub fn file(&self, path: &str, contents: &[u8]) -> &Self {
        let real = self.real(path);
        fs::create_dir_all(real.parent().unwrap()).unwrap();
        fs::write(real, contents).unwrap();
        self
    }

    pub fn link(&self, path: &str, target: &str) -> &Self {
        let real = self.real(path);
        fs::create_dir_all(real.parent().unwrap()).unwrap();
        symlink(target, real).unwrap();
        self
    }

    /// Takes everybody else's rights to a directory and the files in it.
    pub fn private(&self, path: &str) -> &Self {
        self.mode(path, 0o700);
        for entry in fs::read_dir(self.real(path)).unwrap() {
            fs::set_permissions(entry.unwrap().path(), fs::Permissions::from_mode(0o600)).unwrap();
        }
        self
    }

    pub fn mode(&self, path: &str, mode: u32) -> &Self {
        fs::set_permissions(self.real(path), fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    pub fn remove(&self, path: &str) -> &Self {
        let real = self.real(path);
        if real.is_dir() {
            fs::remove_dir_all(real).unwrap()
        } else {
            fs::remove_file(real).unwrap()
        }
        self
    }

    pub fn env(&mut self, name: &str, value: &str) -> &mut Self {
        self.env.push((name.into(), value.into()));
        self
    }

    pub fn library(&self, path: &str, library: &Library) -> &Self {
        self.file(path, &library.bytes())
    }

    /// Gives the process in the tree the user who owns the tree's files.
    pub fn own_files(&self) -> &Self {
        let uid = fs::metadata(self.dir.path()).unwrap().uid();
        self.file(
            "/proc/self/status",
            format!("Name:\tpi0-edge\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n").as_bytes(),
        )
    }

    pub fn facts(&self) -> Facts {
        let env = |name: &str| self.env.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        Facts::gather(self.dir.path(), &env, &self.options)
    }

    pub fn examine(&self) -> Report {
        diagnose(&self.facts(), None, None)
    }

    pub fn examine_for(&self, provider: Provider) -> Report {
        diagnose(&self.facts(), None, Some(provider))
    }

    pub fn examine_with(&self, bundle: &BundleFacts) -> Report {
        diagnose(&self.facts(), Some(bundle), None)
    }
}

/// The findings as `severity CODE`, without those in order.
pub fn trouble(report: &Report) -> Vec<String> {
    report.findings.iter().filter(|f| f.severity != Severity::Ok).map(line).collect()
}

/// The codes of what is in order.
pub fn in_order(report: &Report) -> Vec<&'static str> {
    report.findings.iter().filter(|f| f.severity == Severity::Ok).map(|f| f.code.as_str()).collect()
}

fn line(finding: &Finding) -> String {
    format!("{} {}", finding.severity.as_str(), finding.code)
}

/// The only finding with this code.
pub fn the(report: &Report, code: Code) -> &Finding {
    let mut all = report.findings.iter().filter(|f| f.code == code);
    let found = all.next().unwrap_or_else(|| panic!("no {code} in {:#?}", report.findings));
    assert!(all.next().is_none(), "{code} twice in {:#?}", report.findings);
    found
}

/// The worst finding with this code.
pub fn worst(report: &Report, code: Code) -> &Finding {
    let found = report.findings.iter().filter(|f| f.code == code).min_by_key(|f| f.severity);
    found.unwrap_or_else(|| panic!("no {code} in {:#?}", report.findings))
}

/// Puts the libraries of a system into `/usr/lib/TRIPLET`: the C library and NVIDIA's, for this CUDA.
pub fn install_libraries(machine: &Machine, cuda: u32) {
    let (elf, triplet) = match machine.facts().system.architecture.as_deref() {
        Some("aarch64") => (AARCH64, "aarch64-linux-gnu"),
        _ => (X86_64, "x86_64-linux-gnu"),
    };
    let plain = |name: &str| Library::new(elf).soname(name);
    let dir = format!("/usr/lib/{triplet}");
    let libc = plain("libc.so.6").defines(&["libc.so.6", "GLIBC_2.17", "GLIBC_2.28", "GLIBC_2.34"]);
    machine.library(&format!("{dir}/libc.so.6"), &libc);
    machine.library(&format!("{dir}/libstdc++.so.6"), &plain("libstdc++.so.6").needs(&["libc.so.6"]));
    machine.library(&format!("{dir}/libcuda.so.1"), &plain("libcuda.so.1"));
    let versioned = [
        ("libcudart", cuda.to_string(), if cuda == 13 { "13.0.48" } else { "12.6.68" }),
        ("libcublas", cuda.to_string(), "12.6.1"),
        ("libcublasLt", cuda.to_string(), "12.6.1"),
        ("libcurand", "10".into(), "10.3.7"),
        ("libcudnn", "9".into(), "9.3.0"),
        ("libnvinfer", "10".into(), "10.3.0"),
        ("libnvonnxparser", "10".into(), "10.3.0"),
    ];
    for (name, major, version) in versioned {
        let file = format!("{name}.so.{version}");
        machine
            .library(&format!("{dir}/{file}"), &plain(&format!("{name}.so.{major}")).needs(&["libc.so.6"]));
        machine.link(&format!("{dir}/{name}.so.{major}"), &file);
    }
}

/// ONNX Runtime's library as a CPU build has it.
pub fn onnxruntime(machine: u16, version: &str) -> Library {
    Library::new(machine)
        .soname("libonnxruntime.so.1")
        .needs(&["libstdc++.so.6", "libc.so.6"])
        .runpath("$ORIGIN")
        .defines(&["libonnxruntime.so.1", &format!("VERS_{version}")])
        .requires("libc.so.6", "GLIBC_2.28")
        .exports(&["OrtGetApiBase", "OrtSessionOptionsAppendExecutionProvider_CPU"])
        .text("ORT Build Info: git-branch=main, git-commit-id=0123abc, build type=Release")
}

/// Puts a GPU build of ONNX Runtime with all its parts into `dir`.
pub fn install_gpu_runtime(machine: &Machine, dir: &str, elf: u16, cuda: u32, kernels: &[(u16, u32)]) {
    let core = onnxruntime(elf, "1.31.1").exports(&[
        "OrtSessionOptionsAppendExecutionProvider_CUDA",
        "OrtSessionOptionsAppendExecutionProvider_Tensorrt",
    ]);
    let of_cuda =
        |names: &[&str]| -> Vec<String> { names.iter().map(|n| format!("{n}.so.{cuda}")).collect() };
    let needs = |library: Library, names: Vec<String>| {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        library.needs(&names).needs(&["libstdc++.so.6", "libc.so.6"])
    };
    let provider = |names: &[&str]| needs(Library::new(elf).exports(&["GetProvider"]), of_cuda(names));
    machine.library(&format!("{dir}/libonnxruntime.so.1"), &core);
    machine.library(
        &format!("{dir}/libonnxruntime_providers_shared.so"),
        &Library::new(elf).soname("libonnxruntime_providers_shared.so").needs(&["libc.so.6"]),
    );
    machine.library(
        &format!("{dir}/libonnxruntime_providers_cuda.so"),
        &provider(&["libcublasLt", "libcublas", "libcudart"])
            .needs(&["libcurand.so.10", "libcuda.so.1"])
            .kernels(kernels),
    );
    machine.library(
        &format!("{dir}/libonnxruntime_providers_tensorrt.so"),
        &provider(&["libcublas", "libcudart"]).needs(&[
            "libnvinfer.so.10",
            "libnvonnxparser.so.10",
            "libcudnn.so.9",
        ]),
    );
}
