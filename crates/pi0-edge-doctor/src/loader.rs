//! The dynamic loader's search for libraries, done over files, and the libraries it would miss.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::Serialize;

use super::elf::{Elf, architecture, expand_origin};
use super::tree::Tree;

/// A shared library that is needed and not found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Missing {
    /// The name that is looked for, such as `libcublasLt.so.13`.
    pub library: String,
    /// File name of the library that needs it.
    pub needed_by: String,
    /// A directory that has it but is not searched.
    pub elsewhere: Option<String>,
}

/// A shared library that is found but older than what another was built against.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct TooOld {
    /// Path of the library that was found.
    pub library: String,
    /// The symbol version it lacks, such as `GLIBC_2.38`.
    pub version: String,
    /// File name of the library that needs the version.
    pub needed_by: String,
}

/// The outcome of loading one library.
#[derive(Debug, Default)]
pub(super) struct Closure {
    pub missing: Vec<Missing>,
    pub too_old: Vec<TooOld>,
    /// Every library that would be loaded with it, by the name it was needed as.
    pub loaded: BTreeMap<String, PathBuf>,
}

/// The search, with what it has read so far.
#[derive(Debug)]
pub(super) struct Loader<'a> {
    tree: &'a Tree,
    library_path: Vec<PathBuf>,
    /// `ld.so.cache`, or what its sources would put into it.
    cache: Option<HashMap<String, Vec<PathBuf>>>,
    configured: Vec<PathBuf>,
    /// Directories where libraries often lie unsearched.
    unsearched: Vec<PathBuf>,
    read: RefCell<HashMap<PathBuf, Option<Rc<Elf>>>>,
}

struct Object {
    path: PathBuf,
    elf: Rc<Elf>,
    loaded_by: Option<usize>,
}

impl<'a> Loader<'a> {
    pub fn new(tree: &'a Tree, env: &dyn Fn(&str) -> Option<String>) -> Self {
        let library_path = env("LD_LIBRARY_PATH").unwrap_or_default();
        let cache = tree.bytes("/etc/ld.so.cache").as_deref().and_then(parse_cache);
        let mut configured = Vec::new();
        if cache.is_none() {
            configuration(tree, "/etc/ld.so.conf", &mut configured, 0);
        }
        Loader {
            tree,
            library_path: library_path
                .split([':', ';'])
                .filter(|d| d.starts_with('/'))
                .map(PathBuf::from)
                .collect(),
            cache,
            configured,
            unsearched: unsearched(tree, env),
            read: RefCell::default(),
        }
    }

    /// The linking facts of a library file; `None` if it is none.
    pub fn elf(&self, path: &Path) -> Option<Rc<Elf>> {
        let path = self.tree.resolve(path)?;
        let known = self.read.borrow().get(&path).cloned();
        known.unwrap_or_else(|| {
            let elf = self.tree.open(&path).and_then(|f| Elf::read(f).ok()).map(Rc::new);
            self.read.borrow_mut().insert(path, elf.clone());
            elf
        })
    }

    /// Finds a library that a program of this architecture opens by name.
    pub fn find(&self, name: &str, machine: u16) -> Option<PathBuf> {
        let dirs = self.library_path.iter().chain(&self.configured);
        self.in_directories(dirs, name, machine).or_else(|| self.in_system(name, machine))
    }

    /// Everything that loading `path` would load, and what would be missing.
    pub fn closure(&self, path: &Path) -> Closure {
        let mut closure = Closure::default();
        let Some(first) = self.elf(path) else { return closure };
        let machine = first.machine;
        let mut objects = vec![Object { path: path.to_path_buf(), elf: first, loaded_by: None }];
        let mut todo = VecDeque::from([0]);
        let mut missing = BTreeSet::new();
        while let Some(index) = todo.pop_front() {
            for name in objects[index].elf.needed.clone() {
                if closure.loaded.contains_key(&name) || missing.contains(&name) {
                    continue;
                }
                let Some(found) = self.dependency(&name, index, &objects, machine) else {
                    missing.insert(name.clone());
                    closure.missing.push(Missing {
                        elsewhere: self.elsewhere(&name, path, machine),
                        library: name,
                        needed_by: file_name(&objects[index].path),
                    });
                    continue;
                };
                if let Some(elf) = self.elf(&found) {
                    todo.push_back(objects.len());
                    objects.push(Object { path: found.clone(), elf, loaded_by: Some(index) });
                }
                closure.loaded.insert(name, found);
            }
        }
        closure.too_old = self.too_old(&objects[0], &closure.loaded);
        closure.missing.sort();
        closure
    }

    fn dependency(&self, name: &str, of: usize, objects: &[Object], machine: u16) -> Option<PathBuf> {
        if name.contains('/') {
            return self.tree.resolve(Path::new(name));
        }
        let object = &objects[of];
        let expand = |o: &Object, dirs: &[String]| -> Vec<PathBuf> {
            dirs.iter().map(|d| PathBuf::from(expand_origin(d, &o.path))).collect()
        };
        let mut dirs = Vec::new();
        if object.elf.runpath.is_empty() {
            // The older RPATH is inherited along the chain of libraries, RUNPATH is not.
            let mut chain = Some(of);
            while let Some(o) = chain.map(|i| &objects[i]) {
                if o.elf.runpath.is_empty() {
                    dirs.extend(expand(o, &o.elf.rpath));
                }
                chain = o.loaded_by;
            }
        }
        dirs.extend(self.library_path.iter().cloned());
        dirs.extend(expand(object, &object.elf.runpath));
        dirs.extend(self.configured.iter().cloned());
        self.in_directories(&dirs, name, machine).or_else(|| self.in_system(name, machine))
    }

    fn in_directories<D>(&self, directories: D, name: &str, machine: u16) -> Option<PathBuf>
    where
        D: IntoIterator<Item: AsRef<Path>>,
    {
        let mut files = directories.into_iter().map(|d| d.as_ref().join(name));
        files.find(|p| self.elf(p).is_some_and(|e| e.machine == machine))
    }

    fn in_system(&self, name: &str, machine: u16) -> Option<PathBuf> {
        let cached = self.cache.as_ref().and_then(|c| c.get(name)).map(Vec::as_slice).unwrap_or_default();
        let fits = |p: &&PathBuf| self.elf(p).is_some_and(|e| e.machine == machine);
        let cached = cached.iter().find(fits).cloned();
        cached.or_else(|| self.in_directories(default_directories(machine), name, machine))
    }

    fn elsewhere(&self, name: &str, beside: &Path, machine: u16) -> Option<String> {
        let dirs = beside.parent().into_iter().chain(self.unsearched.iter().map(PathBuf::as_path));
        let found = self.in_directories(dirs, name, machine)?;
        found.parent().map(|d| d.to_string_lossy().into_owned())
    }

    /// Symbol versions that `object` asks of libraries which do not define them.
    fn too_old(&self, object: &Object, loaded: &BTreeMap<String, PathBuf>) -> Vec<TooOld> {
        let mut all = Vec::new();
        for (name, versions) in &object.elf.requires {
            let Some(path) = loaded.get(name) else { continue };
            let Some(elf) = self.elf(path) else { continue };
            // A library that defines no versions at all is not checked by the loader either.
            if elf.defines.is_empty() {
                continue;
            }
            // The loader reports the first; the newest is what tells how new the library must be.
            let mut lacking: Vec<_> = versions.iter().filter(|v| !elf.defines.contains(v)).collect();
            lacking.sort_by_key(|v| numbers(v));
            if let Some(version) = lacking.pop() {
                all.push(TooOld {
                    library: path.to_string_lossy().into_owned(),
                    version: version.clone(),
                    needed_by: file_name(&object.path),
                });
            }
        }
        all
    }
}

/// The numbers in a text, for comparing versions: `GLIBC_2.38` and `1.31.1` alike.
pub(super) fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect()
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

fn default_directories(machine: u16) -> [String; 6] {
    let multiarch = format!("{}-linux-gnu", architecture(machine));
    [
        format!("/lib/{multiarch}"),
        format!("/usr/lib/{multiarch}"),
        "/lib".into(),
        "/usr/lib".into(),
        "/lib64".into(),
        "/usr/lib64".into(),
    ]
}

/// Reads the current format of `ld.so.cache`, also where it follows the old one in the same file.
fn parse_cache(bytes: &[u8]) -> Option<HashMap<String, Vec<PathBuf>>> {
    const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
    const HEADER: usize = 48;
    const ENTRY: usize = 24;
    let start = bytes.windows(MAGIC.len()).position(|w| w == MAGIC)?;
    let bytes = &bytes[start..];
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
    let text = |at: usize| {
        let rest = bytes.get(at..)?;
        let end = rest.iter().position(|&b| b == 0)?;
        Some(String::from_utf8_lossy(&rest[..end]).into_owned())
    };
    let mut cache: HashMap<String, Vec<PathBuf>> = HashMap::new();
    for i in 0..word(MAGIC.len())? {
        let entry = HEADER + i * ENTRY;
        let (name, path) = (text(word(entry + 4)?)?, text(word(entry + 8)?)?);
        cache.entry(name).or_default().push(path.into());
    }
    Some(cache)
}

/// Collects the directories of `ld.so.conf` and the files it includes.
fn configuration(tree: &Tree, path: &str, directories: &mut Vec<PathBuf>, depth: usize) {
    const MAX_DEPTH: usize = 4;
    for line in tree.text(path).unwrap_or_default().lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        match line.strip_prefix("include ").map(str::trim) {
            Some(pattern) if depth < MAX_DEPTH => {
                // The only pattern in use is a directory's `*.conf`.
                let (dir, names) = pattern.rsplit_once('/').unwrap_or(("/etc", pattern));
                let (head, tail) = names.split_once('*').unwrap_or((names, ""));
                for name in tree.list(dir).iter().filter(|n| n.starts_with(head) && n.ends_with(tail)) {
                    configuration(tree, &format!("{dir}/{name}"), directories, depth + 1);
                }
            }
            None if line.starts_with('/') => directories.push(line.into()),
            _ => {}
        }
    }
}

/// Lists where NVIDIA's libraries lie on machines whose loader was not told about them.
fn unsearched(tree: &Tree, env: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    for name in
        tree.list("/usr/local").iter().rev().filter(|n| n.starts_with("cuda") || n.starts_with("TensorRT"))
    {
        let base = format!("/usr/local/{name}");
        dirs.extend([format!("{base}/lib64"), format!("{base}/lib")]);
        dirs.extend(tree.list(&format!("{base}/targets")).iter().map(|t| format!("{base}/targets/{t}/lib")));
    }
    for triplet in ["aarch64-linux-gnu", "x86_64-linux-gnu"] {
        dirs.extend(["nvidia", "tegra"].map(|d| format!("/usr/lib/{triplet}/{d}")));
    }
    if let Some(venv) = env("VIRTUAL_ENV") {
        for python in tree.list(&format!("{venv}/lib")) {
            let packages = format!("{venv}/lib/{python}/site-packages");
            let nvidia = format!("{packages}/nvidia");
            dirs.extend(tree.list(&nvidia).iter().map(|p| format!("{nvidia}/{p}/lib")));
            dirs.push(format!("{packages}/tensorrt_libs"));
        }
    }
    dirs.into_iter().map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_their_numbers() {
        assert!(numbers("GLIBC_2.9") < numbers("GLIBC_2.38"));
        assert_eq!(numbers("VERS_1.31.1"), [1, 31, 1]);
    }

    #[test]
    fn the_cache_is_read_behind_an_old_one() {
        let mut bytes = b"ld.so-1.7.0\0\0\0\0\0".to_vec();
        let mut cache = b"glibc-ld.so.cache1.1".to_vec();
        cache.extend(1u32.to_le_bytes());
        cache.resize(48, 0);
        let strings = 48 + 24;
        for word in [0x303u32, strings, strings + 10, 0, 0, 0] {
            cache.extend(word.to_le_bytes());
        }
        cache.extend(b"libx.so.1\0/opt/libx.so.1\0");
        bytes.extend(cache);
        let parsed = parse_cache(&bytes).unwrap();
        assert_eq!(parsed["libx.so.1"], [PathBuf::from("/opt/libx.so.1")]);
        assert!(parse_cache(&bytes[..60]).is_none());
        assert!(parse_cache(b"nothing").is_none());
    }
}
