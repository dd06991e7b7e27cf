//! Whose files may be trusted: the rules for the directory of engines and for what is in it.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bits that let group or others write.
const FOREIGN_WRITE: u32 = 0o022;
/// In a directory with this bit, only its owner renames or removes a file.
const STICKY: u32 = 0o1000;
const ROOT: u32 = 0;

/// A reason not to trust a file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A symbolic link: what it leads to can be changed by whoever owns a directory on the way.
    Link,
    /// Neither file nor directory, or one in place of the other.
    WrongKind,
    /// It belongs to this user.
    ForeignOwner(u32),
    /// Group or others may write; the permission bits.
    ForeignWrite(u32),
    /// The file has this many names, and who knows the others can change it.
    Names(u64),
    /// This directory above it lets others put something else in its place.
    Above(PathBuf),
}

impl Fault {
    /// Says what is wrong with `path`.
    pub fn describe(&self, path: &Path) -> String {
        let path = path.display();
        match self {
            Fault::Link => format!("{path} is a symbolic link"),
            Fault::WrongKind => format!("{path} is not what it should be: a directory of plain files"),
            Fault::ForeignOwner(uid) => {
                format!("{path} belongs to user {uid}, who may put code into it that would run as yours")
            }
            Fault::ForeignWrite(mode) => format!("{path} has mode {mode:04o}: others may write to it"),
            Fault::Names(n) => format!("{path} has {n} hard links"),
            Fault::Above(above) => {
                format!("{path} can be replaced by others, who may write to {}", above.display())
            }
        }
    }

    /// Says what to type about it.
    pub fn remedy(&self, path: &Path) -> String {
        let shown = path.display();
        match self {
            Fault::Link => format!("name the directory itself: --engine-cache $(realpath {shown})"),
            Fault::WrongKind | Fault::Names(_) => {
                format!("rm -r {shown}, then build again: pi0-edge engines build BUNDLE")
            }
            // Giving the files to oneself would trust what somebody else wrote.
            Fault::ForeignOwner(_) => {
                format!("remove {shown} (sudo rm -r {shown}) and build again: pi0-edge engines build BUNDLE")
            }
            Fault::ForeignWrite(_) => format!("chmod go-w {shown}, and build again if others had access"),
            Fault::Above(above) => format!("chmod go-w {}", above.display()),
        }
    }
}

/// The faults of the directory itself, by what `lstat` says of it.
pub fn faults_of_directory(found: &Metadata, uid: u32) -> Vec<Fault> {
    if found.is_symlink() {
        return vec![Fault::Link];
    }
    if !found.is_dir() {
        return vec![Fault::WrongKind];
    }
    ownership(found, uid)
}

/// The faults of a file in it, by what `lstat` says of the file.
pub fn faults_of_file(found: &Metadata, uid: u32) -> Vec<Fault> {
    if found.is_symlink() {
        return vec![Fault::Link];
    }
    if !found.is_file() {
        return vec![Fault::WrongKind];
    }
    let mut faults = ownership(found, uid);
    if found.nlink() != 1 {
        faults.push(Fault::Names(found.nlink()));
    }
    faults
}

fn ownership(found: &Metadata, uid: u32) -> Vec<Fault> {
    let mut faults = Vec::new();
    // Root can do anything anyway, and builds the engines that services of other users load.
    if found.uid() != uid && found.uid() != ROOT {
        faults.push(Fault::ForeignOwner(found.uid()));
    }
    if found.mode() & FOREIGN_WRITE != 0 {
        faults.push(Fault::ForeignWrite(found.mode() & 0o7777));
    }
    faults
}

/// The first directory above `path` (absolute, without links) in which others could rename it and put their own in
/// its place. `look` says what a directory is.
pub fn fault_above(path: &Path, uid: u32, look: &dyn Fn(&Path) -> Option<Metadata>) -> Option<Fault> {
    path.ancestors().skip(1).find_map(|above| {
        let found = look(above)?;
        let trusted = found.uid() == uid || found.uid() == ROOT;
        let guarded = found.mode() & FOREIGN_WRITE == 0 || found.mode() & STICKY != 0;
        (!trusted || !guarded).then(|| Fault::Above(above.to_path_buf()))
    })
}

/// Permission bits for a new directory and a new file: for their user alone, but readable by all where root builds
/// for services that run as somebody else. Nobody else may ever write.
pub(crate) fn modes(uid: u32) -> (u32, u32) {
    if uid == ROOT { (0o755, 0o644) } else { (0o700, 0o600) }
}

/// The user whose rights this process has; `None` where there is no `/proc`.
pub fn effective_uid() -> Option<u32> {
    parse_uid(&fs::read_to_string("/proc/self/status").ok()?)
}

/// The second of the numbers behind `Uid:`.
pub fn parse_uid(status: &str) -> Option<u32> {
    status.lines().find_map(|l| l.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

/// Returns the directory of engines unless told otherwise: `pi0-edge/engines` in the user's cache directory. `None`
/// without a home directory.
pub fn default_path(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    Some(user_cache(&|name| env(name).map(PathBuf::from))?.join("engines"))
}

/// Returns the directory of what `pi0-edge` keeps for its user: `pi0-edge` in the user's cache directory,
/// `XDG_CACHE_HOME` or else `.cache` in `HOME`. `None` without a home directory. `env` looks a variable up.
pub fn user_cache(env: &dyn Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let set = |name| env(name).filter(|v| v.is_absolute());
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(cache.join("pi0-edge"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_user_is_the_second_number() {
        assert_eq!(parse_uid("Name:\tx\nUid:\t1000\t7\t1000\t1000\n"), Some(7));
        assert_eq!(parse_uid("nothing"), None);
        assert!(effective_uid().is_some());
    }

    #[test]
    fn the_users_cache_is_where_the_environment_says() {
        let of = |pairs: &[(&str, &str)]| {
            default_path(&|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
        };
        assert_eq!(of(&[("HOME", "/home/r")]), Some("/home/r/.cache/pi0-edge/engines".into()));
        let both = [("HOME", "/home/r"), ("XDG_CACHE_HOME", "/var/cache")];
        assert_eq!(of(&both), Some("/var/cache/pi0-edge/engines".into()));
        assert_eq!(of(&[("XDG_CACHE_HOME", "relative")]), None);
    }
}
