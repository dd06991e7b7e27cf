//! CUDA, cuDNN and TensorRT: the versions a provider would load, and what package manager says of them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use object::elf::{EM_AARCH64, EM_X86_64};
use serde::Serialize;

use super::system::System;
use crate::loader::{Loader, file_name};
use crate::tree::Tree;

/// Versions of NVIDIA's user-space libraries.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Software {
    /// The CUDA runtime.
    pub cuda: Option<Component>,
    /// cuDNN.
    pub cudnn: Option<Component>,
    /// TensorRT.
    pub tensorrt: Option<Component>,
    /// GPU architectures TensorRT can build engines for, where its files are named by them.
    pub tensorrt_builders: Vec<u32>,
    /// The C library, by its package.
    pub glibc: Option<String>,
}

/// One library that the loader finds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Component {
    /// Its version, as exact as its files or its package tell.
    pub version: String,
    /// The file that would be loaded; `None` if a package is recorded but no such file is found.
    pub library: Option<String>,
}

/// Packages whose versions are of interest, by a prefix of their name.
const PACKAGES: [&str; 8] = [
    "nvidia-l4t-core",
    "nvidia-jetpack",
    "cuda-cudart-",
    "libcudnn8",
    "libcudnn9",
    "libnvinfer8",
    "libnvinfer10",
    "libc6",
];

/// Installed packages of interest and their versions, from dpkg's own list.
pub(crate) fn packages(tree: &Tree) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let Some(file) = tree.open(Path::new("/var/lib/dpkg/status")) else { return found };
    let (mut name, mut installed) = (String::new(), false);
    // Streamed: the list of a desktop has several megabytes.
    for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        if let Some(package) = line.strip_prefix("Package: ") {
            (name, installed) = (package.trim().to_owned(), false);
        } else if let Some(status) = line.strip_prefix("Status: ") {
            installed = status.trim().ends_with(" installed");
        } else if let Some(version) = line.strip_prefix("Version: ")
            && installed
            && PACKAGES.iter().any(|p| name.starts_with(p))
        {
            found.insert(name.clone(), version.trim().to_owned());
        }
    }
    found
}

impl Software {
    pub(crate) fn read(
        tree: &Tree,
        loader: &Loader<'_>,
        packages: &BTreeMap<String, String>,
        system: &System,
    ) -> Software {
        let machine = if system.architecture.as_deref() == Some("aarch64") { EM_AARCH64 } else { EM_X86_64 };
        let component = |name: &str, majors: &[u32], package: &str| {
            let found = majors.iter().map(u32::to_string).find_map(|major| {
                let path = loader.find(&format!("{name}.so.{major}"), machine)?;
                Some((major, path))
            });
            let packaged = packages.iter().rev().filter(|(n, _)| n.starts_with(package));
            let mut packaged = packaged.map(|(_, v)| upstream(v));
            let Some((major, path)) = found else {
                return packaged.next().map(|version| Component { version, library: None });
            };
            // `libcudnn.so.9` is a link to `libcudnn.so.9.3.0`.
            let real = file_name(&tree.resolve(&path).unwrap_or_else(|| path.clone()));
            let exact = real.split_once(".so.").map(|(_, v)| v.to_owned()).filter(|v| v.contains('.'));
            let version = exact.or_else(|| packaged.find(|v| v.split('.').next() == Some(&major)));
            let library = Some(path.to_string_lossy().into_owned());
            Some(Component { version: version.unwrap_or(major), library })
        };
        let tensorrt = component("libnvinfer", &[11, 10, 8], "libnvinfer");
        Software {
            cuda: component("libcudart", &[13, 12, 11], "cuda-cudart-"),
            cudnn: component("libcudnn", &[9, 8], "libcudnn"),
            tensorrt_builders: builders(tree, tensorrt.as_ref()),
            tensorrt,
            glibc: packages.get("libc6").map(|v| upstream(v)),
        }
    }

    /// The major version of the CUDA runtime that the loader finds.
    pub fn cuda_major(&self) -> Option<u32> {
        self.cuda.as_ref().filter(|c| c.library.is_some())?.version.split('.').next()?.parse().ok()
    }
}

/// A package's version without its revision, such as `10.3.0.30` of `10.3.0.30-1+cuda12.5`.
fn upstream(version: &str) -> String {
    version.split('-').next().unwrap_or(version).to_owned()
}

/// Architectures in names such as `libnvinfer_builder_resource_sm87.so.10.13.3` beside TensorRT's library.
fn builders(tree: &Tree, tensorrt: Option<&Component>) -> Vec<u32> {
    let library = tensorrt.and_then(|t| t.library.as_deref());
    let Some(directory) = library.and_then(|l| Path::new(l).parent()) else { return Vec::new() };
    let name = |n: &String| n.strip_prefix("libnvinfer_builder_resource_sm")?.split('.').next()?.parse().ok();
    let mut found: Vec<u32> = tree.list(&directory.to_string_lossy()).iter().filter_map(name).collect();
    found.sort_unstable();
    found.dedup();
    found
}
