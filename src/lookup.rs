//! Where ONNX Runtime's library is looked for: one list for the session layer, which loads it, and for the doctor,
//! which only reads files.

use std::path::{Path, PathBuf};

/// The library's file name on Linux.
pub const RUNTIME_LIBRARY: &str = "libonnxruntime.so.1";

/// The oldest ONNX Runtime with the API the session layer asks for (`ort`'s `api-24`), as major and minor version.
pub(crate) const OLDEST_RUNTIME: [u64; 2] = [1, 24];

/// The files to try when none was asked for, in order, each with why it is looked at. After them comes whatever
/// the dynamic loader finds under [`RUNTIME_LIBRARY`].
pub(crate) fn places(
    executable: Option<&Path>,
    is_file: impl Fn(&Path) -> bool,
) -> Vec<(PathBuf, &'static str)> {
    let mut places = Vec::new();
    if let Some(dir) = executable.and_then(Path::parent) {
        places.push((dir.join(RUNTIME_LIBRARY), "beside the executable"));
        places.push((dir.join("lib").join(RUNTIME_LIBRARY), "beside the executable"));
        let fetched = |dir: &Path| dir.join(".cache/onnxruntime").join(RUNTIME_LIBRARY);
        let above = dir.ancestors().map(fetched).find(|p| is_file(p));
        places.push((above.unwrap_or_else(|| fetched(dir)), "the project's fetched copy"));
    }
    places.push((Path::new("/usr/lib/pi0-edge").join(RUNTIME_LIBRARY), "installed with pi0-edge"));
    places
}

/// Why the dynamic loader's find is looked at.
pub(crate) const SYSTEM: &str = "the system's library path";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fetched_copy_is_found_in_any_directory_above_the_executable() {
        let wanted = Path::new("/project/.cache/onnxruntime").join(RUNTIME_LIBRARY);
        let places = places(Some(Path::new("/project/target/release/pi0-edge")), |p| p == wanted);
        let origins: Vec<_> = places.iter().map(|(_, origin)| *origin).collect();
        assert_eq!(origins[..2], ["beside the executable"; 2]);
        assert_eq!(places[2], (wanted, "the project's fetched copy"));
        assert_eq!(origins[3..], ["installed with pi0-edge"]);
    }

    #[test]
    fn an_unknown_executable_leaves_the_installed_place() {
        assert_eq!(places(None, |_| false).len(), 1);
    }
}
