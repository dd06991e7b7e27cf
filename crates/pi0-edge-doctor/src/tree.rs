//! Reading below a root directory as if it were `/`.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// More than any file read whole has; the largest are `/proc` and `/etc` texts.
const MAX_TEXT: u64 = 1 << 20;

/// The kernel's own bound on links in one path.
const MAX_LINKS: usize = 40;

/// A file tree whose paths are written as seen from inside it.
#[derive(Debug)]
pub(super) struct Tree {
    base: PathBuf,
}

impl Tree {
    pub fn new(base: &Path) -> Self {
        Tree { base: base.to_path_buf() }
    }

    /// The path with every symbolic link followed, none of them out of the tree; `None` if nothing is there.
    pub fn resolve(&self, path: &Path) -> Option<PathBuf> {
        let mut done = PathBuf::from("/");
        let mut todo = parts(path);
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == ".." {
                done.pop();
                continue;
            }
            let next = done.join(&part);
            if !fs::symlink_metadata(self.outside(&next)).ok()?.is_symlink() {
                done = next;
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return None;
            }
            let target = fs::read_link(self.outside(&next)).ok()?;
            if target.is_absolute() {
                done = PathBuf::from("/");
            }
            todo.extend(parts(&target));
        }
        Some(done)
    }

    /// Returns the target of a link, as it is written. Works for the links of `/proc/self` too.
    pub fn link(&self, path: &str) -> Option<PathBuf> {
        let path = Path::new(path);
        let parent = self.resolve(path.parent()?)?;
        fs::read_link(self.outside(&parent.join(path.file_name()?))).ok()
    }

    /// The path to hand to the operating system for something inside the tree.
    pub fn real(&self, path: &Path) -> Option<PathBuf> {
        self.resolve(path).map(|p| self.outside(&p))
    }

    /// Owner, mode and size of what `path` leads to.
    pub fn metadata(&self, path: &Path) -> Option<Metadata> {
        fs::metadata(self.real(path)?).ok()
    }

    pub fn exists(&self, path: &str) -> bool {
        self.resolve(Path::new(path)).is_some()
    }

    pub fn is_file(&self, path: &Path) -> bool {
        self.metadata(path).is_some_and(|m| m.is_file())
    }

    pub fn open(&self, path: &Path) -> Option<File> {
        File::open(self.real(path)?).ok()
    }

    /// The bytes of a file, or of its first mebibyte.
    pub fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(Path::new(path))?.take(MAX_TEXT).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// A text file without the white space and NULs at its ends (device-tree strings carry a NUL).
    pub fn text(&self, path: &str) -> Option<String> {
        let text = String::from_utf8_lossy(&self.bytes(path)?).into_owned();
        Some(text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned())
    }

    /// A file holding one number.
    pub fn number<T: FromStr>(&self, path: &str) -> Option<T> {
        self.text(path)?.parse().ok()
    }

    /// The names in a directory, sorted; none if it cannot be read.
    pub fn list(&self, path: &str) -> Vec<String> {
        let entries = self.real(Path::new(path)).and_then(|p| fs::read_dir(p).ok());
        let mut names: Vec<String> = entries
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        names
    }

    fn outside(&self, inside: &Path) -> PathBuf {
        self.base.join(inside.strip_prefix("/").unwrap_or(inside))
    }
}

/// The components of a path, last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let parts = path.components().filter_map(|c| match c {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    });
    parts.rev().collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("usr/lib")).unwrap();
        fs::write(dir.path().join("usr/lib/libx.so.1.2"), "x\n").unwrap();
        symlink("libx.so.1.2", dir.path().join("usr/lib/libx.so.1")).unwrap();
        symlink("/usr/lib", dir.path().join("lib")).unwrap();
        symlink("../../../../../../../../etc", dir.path().join("usr/out")).unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();
        let tree = Tree::new(dir.path());
        (dir, tree)
    }

    #[test]
    fn links_are_followed_inside_the_tree() {
        let (_dir, tree) = tree();
        assert_eq!(tree.resolve(Path::new("/lib/libx.so.1")), Some("/usr/lib/libx.so.1.2".into()));
        assert_eq!(tree.text("/lib/libx.so.1").as_deref(), Some("x"));
        assert_eq!(tree.link("/lib/libx.so.1"), Some("libx.so.1.2".into()));
    }

    #[test]
    fn nothing_outside_the_tree_is_reached() {
        let (_dir, tree) = tree();
        assert_eq!(tree.resolve(Path::new("/usr/out/passwd")), None);
        assert_eq!(tree.resolve(Path::new("/../../lib")), Some("/usr/lib".into()));
        assert_eq!(tree.resolve(Path::new("/loop")), None);
    }
}
