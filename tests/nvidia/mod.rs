//! Libraries that bear the names of NVIDIA's, so that ONNX Runtime's TensorRT provider loads where there are none.
//!
//! They know who they are: TensorRT's version, that there is one GPU, and its name. Whatever else is called of them
//! aborts, or waits for ever as a long build does. Nothing of pi0-edge or ONNX Runtime is replaced.

#![allow(dead_code)] // each test crate uses its part

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use object::{Object, ObjectSymbol};

/// The behaviour of a function that is not about versions and names.
#[derive(Clone, Copy)]
pub enum Otherwise {
    Abort,
    Wait,
}

/// The provider's own library beside ONNX Runtime's.
pub fn provider(library: &Path) -> PathBuf {
    library.with_file_name("libonnxruntime_providers_tensorrt.so")
}

/// A Jetson Orin's driver, and TensorRT 10.3.0.
const KNOWN: [(&str, &str); 6] = [
    ("getInferLibVersion", "int getInferLibVersion(void) { return 100300; }"),
    ("cudaGetDeviceCount", "int cudaGetDeviceCount(int *n) { *n = 1; return 0; }"),
    ("cuInit", "int cuInit(unsigned flags) { return 0; }"),
    ("cuDeviceGet", "int cuDeviceGet(int *device, int n) { *device = n; return 0; }"),
    (
        "cuDeviceGetName",
        "int cuDeviceGetName(char *name, int n, int d) { strcpy(name, \"Orin\"); return 0; }",
    ),
    (
        "cuDeviceGetAttribute",
        "int cuDeviceGetAttribute(int *v, int which, int d) { *v = which == 75 ? 8 : which == 76 ? 7 : 16; return 0; }",
    ),
];

/// A function that is not expected to be called says who it is, on stderr.
const PRELUDE: &str = "#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n\
    static void say(const char *name) { write(2, name, strlen(name)); write(2, \"\\n\", 1); }\n";

/// The library that has a function of NVIDIA's, by how NVIDIA names them.
fn library_of(function: &str) -> Option<&'static str> {
    const PREFIXES: [(&str, &str); 12] = [
        ("cublasLt", "libcublasLt.so.13"),
        ("cublas", "libcublas.so.13"),
        ("cudnn", "libcudnn.so.9"),
        ("curand", "libcurand.so.10"),
        ("cuda", "libcudart.so.13"),
        ("__cuda", "libcudart.so.13"),
        ("createNvOnnx", "libnvonnxparser.so.10"),
        ("createInfer", "libnvinfer.so.10"),
        ("getInfer", "libnvinfer.so.10"),
        ("getPluginRegistry", "libnvinfer.so.10"),
        ("cuTensorMap", "libcuda.so.1"),
        ("cuDevice", "libcuda.so.1"),
    ];
    PREFIXES.iter().find(|(prefix, _)| function.starts_with(prefix)).map(|(_, library)| *library)
}

/// Makes, in `dir`, every library of NVIDIA's that the TensorRT provider beside `library` needs (it needs the CUDA
/// provider, and what that needs), with just the functions they ask for. `false` if there is no C compiler.
pub fn make_libraries(library: &Path, dir: &Path, otherwise: Otherwise) -> bool {
    let mut functions: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for provider in ["tensorrt", "cuda"] {
        let path = library.with_file_name(format!("libonnxruntime_providers_{provider}.so"));
        let bytes = std::fs::read(path).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        for symbol in file.dynamic_symbols().filter(|s| s.is_undefined()) {
            let name = symbol.name().unwrap();
            if let Some(library) = library_of(name) {
                functions.entry(library).or_default().insert(name.to_owned());
            }
        }
    }
    // Needed without asking for a function of it; and the driver's, which pi0-edge asks for.
    functions.entry("libcurand.so.10").or_default();
    let driver = KNOWN
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .filter(|n| n == "cuInit" || n.starts_with("cuDevice"));
    functions.entry("libcuda.so.1").or_default().extend(driver);
    let does = match otherwise {
        Otherwise::Abort => "say(__func__); abort();",
        Otherwise::Wait => "say(__func__); for (;;) pause();",
    };
    functions.iter().all(|(library, functions)| {
        let body = |function: &String| match KNOWN.iter().find(|(name, _)| name == function) {
            Some((_, body)) => format!("{body}\n"),
            // Called for the kernels in the CUDA provider while it is loaded.
            None if function.starts_with("__cuda") => {
                format!("void *{function}(void) {{ static char handle[64]; return handle; }}\n")
            }
            None => format!("void {function}(void) {{ {does} }}\n"),
        };
        let bodies: String = functions.iter().map(body).collect();
        let (source, versions) = (dir.join(format!("{library}.c")), dir.join(format!("{library}.map")));
        std::fs::write(&source, format!("{PRELUDE}{bodies}")).unwrap();
        // CUDA's libraries version their symbols by their own name, and the loader insists.
        std::fs::write(&versions, format!("{library} {{ global: *; }};\n")).unwrap();
        Command::new("cc")
            .args(["-shared", "-fPIC", "-fno-builtin", "-w", "-o"])
            .arg(dir.join(library))
            .arg(&source)
            .arg(format!("-Wl,-soname,{library}"))
            .arg(format!("-Wl,--version-script={}", versions.display()))
            .status()
            .is_ok_and(|s| s.success())
    })
}
