//! The places where ONNX Runtime's library is looked for: one list for the session layer, which loads it, and for the
//! doctor, which only reads files.

use std::path::{Path, PathBuf};

/// The library's file name on Linux.
pub const RUNTIME_LIBRARY: &str = "libonnxruntime.so.1";

/// The oldest ONNX Runtime with the API the session layer asks for (`ort`'s `api-20`), as major and minor version.
pub const OLDEST_RUNTIME: [u64; 2] = [1, 20];

/// The first ONNX Runtime that tells which provider runs which node.
pub const TELLS_PLACEMENT: [u64; 2] = [1, 24];

/// The first ONNX Runtime whose CUDA provider keeps the host memory that a captured copy reads at every replay. In older
/// ones it may hold something else by then, and results are wrong without an error.
pub const SAFE_REPLAYS: [u64; 3] = [1, 31, 1];

/// Returns the numbers that a version begins with: `[1, 24, 4]` of `1.24.4 (0123abc)`. Such lists compare as versions do.
pub fn numbers_of(version: &str) -> Vec<u64> {
    let release = version.split_whitespace().next().unwrap_or_default();
    release.split('.').map_while(|n| n.parse().ok()).collect()
}

/// The files to try when none was asked for, in order, each with why it is looked at. After them comes whatever
/// the dynamic loader finds under [`RUNTIME_LIBRARY`].
///
/// `library` is the file that this code is in, where that is not the executable: libpi0_edge.so.
pub fn places(
    library: Option<&Path>,
    executable: Option<&Path>,
    is_file: impl Fn(&Path) -> bool,
) -> Vec<(PathBuf, &'static str)> {
    let mut places = Vec::new();
    let files = [(library, "beside libpi0_edge"), (executable, "beside the executable")];
    for (dir, beside) in files.into_iter().filter_map(|(file, why)| Some((file?.parent()?, why))) {
        places.push((dir.join(RUNTIME_LIBRARY), beside));
        places.push((dir.join("lib").join(RUNTIME_LIBRARY), beside));
        // Where scripts/install.sh puts it, as seen from the library and from the program.
        places.push((dir.join("pi0-edge").join(RUNTIME_LIBRARY), beside));
        if let Some(prefix) = dir.parent() {
            places.push((prefix.join("lib/pi0-edge").join(RUNTIME_LIBRARY), beside));
        }
        let fetched = |dir: &Path| dir.join(".cache/onnxruntime").join(RUNTIME_LIBRARY);
        let above = dir.ancestors().map(fetched).find(|p| is_file(p));
        places.push((above.unwrap_or_else(|| fetched(dir)), "the project's fetched copy"));
    }
    places.push((Path::new("/usr/lib/pi0-edge").join(RUNTIME_LIBRARY), "installed with pi0-edge"));
    places
}

/// The reason to look at the dynamic loader's find.
pub const SYSTEM: &str = "the system's library path";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fetched_copy_is_found_in_any_directory_above_the_executable() {
        let wanted = Path::new("/project/.cache/onnxruntime").join(RUNTIME_LIBRARY);
        let program = Path::new("/project/target/release/pi0-edge");
        let places = places(None, Some(program), |p| p == wanted);
        let origins: Vec<_> = places.iter().map(|(_, origin)| *origin).collect();
        assert_eq!(origins[..4], ["beside the executable"; 4]);
        assert_eq!(places[4], (wanted, "the project's fetched copy"));
        assert_eq!(origins[5..], ["installed with pi0-edge"]);
    }

    #[test]
    fn an_installed_copy_is_found_from_the_library_before_the_program_that_uses_it() {
        let library = Path::new("/opt/robot/lib/x86_64-linux-gnu/libpi0_edge.so.0.1.0");
        let places = places(Some(library), Some(Path::new("/home/me/loop")), |_| false);
        let wanted = library.with_file_name("pi0-edge").join(RUNTIME_LIBRARY);
        let at = |path: &Path| places.iter().position(|(p, _)| p == path);
        assert!(
            at(&wanted).expect("looked at") < at(&Path::new("/home/me").join(RUNTIME_LIBRARY)).expect("too")
        );
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(numbers_of("1.24.4 (0123abc)"), [1, 24, 4]);
        assert!(numbers_of("1.9.0") < numbers_of("1.31"));
        assert!(numbers_of("1.31.0 (commit unknown)") < SAFE_REPLAYS.to_vec());
        assert!(numbers_of("1.31.1") >= SAFE_REPLAYS.to_vec());
        assert!(numbers_of("1.24.0") >= TELLS_PLACEMENT.to_vec());
        assert!(numbers_of("main").is_empty());
    }

    #[test]
    fn an_unknown_executable_leaves_the_installed_place() {
        assert_eq!(places(None, None, |_| false).len(), 1);
    }
}
