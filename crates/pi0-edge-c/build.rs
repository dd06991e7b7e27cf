//! Makes the shared library one that programs can rely on: its name, and that it stays.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let version = |part: &str| std::env::var(format!("CARGO_PKG_VERSION_{part}")).expect("cargo sets it");
    // Before 1.0, a new minor version may change the interface.
    let soname = match version("MAJOR").as_str() {
        "0" => format!("libpi0_edge.so.0.{}", version("MINOR")),
        major => format!("libpi0_edge.so.{major}"),
    };
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,{soname}");
    // dlclose must not take code away that a thread may be running and exit will call.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
