//! The repository's place, for the tests of every crate.

use std::path::Path;

/// The repository's root: the directory with Cargo.lock.
pub fn project() -> &'static Path {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|dir| dir.join("Cargo.lock").is_file());
    root.expect("Cargo.lock in a directory above")
}
