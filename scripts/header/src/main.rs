//! Writes the C header, as crates/pi0-edge-c/src says it, to standard output.

use std::error::Error;
use std::path::Path;

use cbindgen::{Builder, Config, DocumentationStyle, Language};

/// Files of crates/pi0-edge-c/src, in the order in which a reader needs them.
const SOURCES: [&str; 14] = [
    "version",
    "status",
    "boundary",
    "policy",
    "inference",
    "config",
    "rtc",
    "runtime",
    "frame",
    "observation",
    "controller",
    "event",
    "stats",
    "log",
];

const INTRODUCTION: &str = "\
/*
 * pi0-edge: PI0 and PI0.5 policies on robots, from C and C++.
 *
 * Open a bundle (pi0_policy_new), then either compute chunks one by one (pi0_policy_infer), or start the real-time
 * runtime (pi0_runtime_start): it computes on a thread of its own, and the control loop reads the action for now
 * (pi0_controller_read) without a lock, a system call or an allocation.
 *
 * Statuses    Every function returns one: 0 done, negative an error, positive a condition. pi0_status_str has words;
 *             functions that can fail in many ways take a pi0_error for details. Outputs are written on success only.
 * Handles     Opaque, and never followed as pointers: one that was freed, or never was one, is PI0_ERR_HANDLE. Free
 *             each by its ..._free, in any order; NULL is fine there.
 * Structures  Begin with struct_size. Settings come from their ..._default function, which sets it; for results,
 *             set it to sizeof before the call. Programs run with later libraries of the same major and minor version.
 * Memory      Buffers are the caller's; nothing that a function is given is kept, unless it says so.
 * Threads     \"RT-safe: yes\" functions may be called from a real-time thread: no lock, no system call, no allocation,
 *             a bounded number of steps. \"Thread: control\" and \"Thread: sensor\" functions belong to the first thread
 *             that calls them with a handle; from another they return PI0_ERR_THREAD (see ..._attach). \"Thread: any,
 *             one at a time\" ones return PI0_ERR_BUSY while another call with the handle is going on.
 * Times       Nanoseconds on CLOCK_MONOTONIC (pi0_now_ns).
 * Processes   Signals are left to the program's threads. At exit, threads are ended before ONNX Runtime goes. In the
 *             child of a fork every call is PI0_ERR_FORKED. dlclose leaves the library in place.
 *
 * Written by scripts/header.sh from crates/pi0-edge-c/src; do not edit.
 */";

fn main() -> Result<(), Box<dyn Error>> {
    // As `cargo run` says it, so that a build that was copied reads the sources beside it.
    let project = std::env::var("CARGO_MANIFEST_DIR").map(|dir| Path::new(&dir).join("../.."))?;
    let manifest = std::fs::read_to_string(project.join("Cargo.toml"))?;
    let version = manifest.lines().find_map(|line| line.strip_prefix("version = "));
    let version = version.ok_or("Cargo.toml has no version")?.trim_matches('"');
    let numbers: Vec<&str> = version.split('.').collect();
    let [major, minor, patch] = numbers[..] else {
        return Err(format!("version {version} is not three numbers").into());
    };
    let config = Config {
        language: Language::C,
        cpp_compat: true,
        include_guard: Some("PI0_EDGE_H".into()),
        header: Some(INTRODUCTION.into()),
        after_includes: Some(format!(
            "\n/** The version of this header; that of the running library is pi0_version(). */\n\
             #define PI0_VERSION \"{version}\"\n\
             #define PI0_VERSION_MAJOR {major}\n\
             #define PI0_VERSION_MINOR {minor}\n\
             #define PI0_VERSION_PATCH {patch}"
        )),
        no_includes: true,
        sys_includes: vec!["stddef.h".into(), "stdint.h".into()],
        usize_is_size_t: true,
        documentation_style: DocumentationStyle::Doxy,
        line_length: 110,
        tab_width: 4,
        ..Config::default()
    };
    let sources = SOURCES.iter().map(|name| project.join("crates/pi0-edge-c/src").join(name).with_extension("rs"));
    let builder = sources.fold(Builder::new().with_config(config), |builder, path| builder.with_src(path));
    builder.generate()?.write(std::io::stdout());
    Ok(())
}
