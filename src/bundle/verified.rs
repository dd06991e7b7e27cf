//! Files whose every byte was verified before, and that have not changed since.
//!
//! A record of each bundle and each set of engines is kept where only the user can write, see [`user_cache`]. It says of
//! a file which one it is and when it last changed, by the file system's word: whoever writes to a file, or puts
//! another in its place, changes that, whatever time they give it. A file system without change times of its own, such
//! as FAT, cannot keep that promise; nor can a clock that is set back to the very nanosecond.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::files::open_regular;
use super::integrity::{Verify, hex};
use crate::error::ErrorKind;
use crate::tensorrt::directory::{
    effective_uid, fault_above, faults_of_directory, faults_of_file, modes, user_cache,
};

/// No record is larger.
const MAX_BYTES: u64 = 1 << 20;

/// A file that changed less than this before it was read could change again and keep its time: clocks of file systems
/// are this coarse.
const SETTLED: Duration = Duration::from_secs(2);

const FORMAT_VERSION: u32 = 1;

/// The identity of a file and of what it holds: device, inode, size, and times of the last modification and change, in
/// seconds and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp([i64; 7]);

/// A file that was verified: its name, its identity when it was read, and its hash.
pub(crate) type Hashed = (String, Stamp, String);

impl Stamp {
    pub(crate) fn of(found: &Metadata) -> Self {
        let (device, inode, size) = (found.dev() as i64, found.ino() as i64, found.size() as i64);
        Stamp([device, inode, size, found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()])
    }

    /// Returns true if a later change would show: at `now` since the epoch, the last one is long enough ago.
    fn settled(&self, now: Duration) -> bool {
        let [.., seconds, nanoseconds] = self.0;
        let changed = u64::try_from(seconds).ok().zip(u32::try_from(nanoseconds).ok());
        changed.is_some_and(|(s, n)| Duration::new(s, n) + SETTLED < now)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    stamp: Stamp,
    sha256: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    format_version: u32,
    /// The directory that the files are in, for people.
    directory: String,
    files: BTreeMap<String, Entry>,
}

/// The files of one directory that were verified before.
#[derive(Debug, Default)]
pub(crate) struct Verified {
    /// The record's own file; nothing where none can be kept.
    place: Option<PathBuf>,
    uid: u32,
    directory: String,
    files: BTreeMap<String, Entry>,
}

impl Verified {
    /// Reads what is recorded of the files in `root`, in the user's cache directory, if `level` believes it. Never fails:
    /// without a record, or with one that others could have written, nothing was verified before, and the log says why.
    pub(crate) fn read(root: &Path, level: Verify) -> Self {
        match level {
            Verify::Changed => {
                Self::read_in(root, user_cache(&|name| std::env::var_os(name).map(PathBuf::from)))
            }
            Verify::Full | Verify::Size => Verified::default(),
        }
    }

    /// As [`read`](Self::read) of what changed, with the user's cache directory.
    pub(crate) fn read_in(root: &Path, cache: Option<PathBuf>) -> Self {
        let Ok(root) = root.canonicalize() else { return Verified::default() };
        let found = private_directory(cache).and_then(|(directory, uid)| {
            let place = directory.join(format!("{}.json", hex(&Sha256::digest(root.as_os_str().as_bytes()))));
            let files =
                if place.symlink_metadata().is_ok() { read_record(&place, uid)? } else { BTreeMap::new() };
            Ok((place, files, uid))
        });
        match found {
            Ok((place, files, uid)) => {
                Verified { place: Some(place), uid, directory: root.to_string_lossy().into_owned(), files }
            }
            Err(why) => {
                log::warn!("every byte of {} is read, now and the next time: {why}", root.display());
                Verified::default()
            }
        }
    }

    /// Returns true if the file `name`, which is `found` to be this, had this hash when it was verified and has not
    /// changed since.
    pub(crate) fn knows(&self, name: &str, found: &Metadata, sha256: &str) -> bool {
        self.files.get(name).is_some_and(|e| e.stamp == Stamp::of(found) && e.sha256 == sha256)
    }

    /// Adds a file that was found to have this hash, and records it. What cannot be recorded is verified again.
    pub(crate) fn add(&mut self, verified: impl IntoIterator<Item = Hashed>) {
        let Some(place) = self.place.clone() else { return };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut changed = false;
        for (name, stamp, sha256) in verified.into_iter().filter(|(_, stamp, _)| stamp.settled(now)) {
            self.files.insert(name, Entry { stamp, sha256 });
            changed = true;
        }
        if changed && let Err(e) = self.write(&place) {
            log::warn!(
                "{} cannot be written, so that every byte is read the next time too: {e}",
                place.display()
            );
        }
    }

    fn write(&self, place: &Path) -> std::io::Result<()> {
        let record = Record {
            format_version: FORMAT_VERSION,
            directory: self.directory.clone(),
            files: self.files.clone(),
        };
        let part = place.with_extension(format!("{}.part", std::process::id()));
        let mut file = File::options().write(true).create_new(true).mode(modes(self.uid).1).open(&part)?;
        let written =
            serde_json::to_vec(&record).map_err(Into::into).and_then(|bytes| file.write_all(&bytes));
        let renamed = written.and_then(|()| fs::rename(&part, place));
        if renamed.is_err() {
            _ = fs::remove_file(&part);
        }
        renamed
    }
}

/// Makes the directory of records where there is none, and checks that nobody but the user and root can write to it or
/// put another in its place. Returns it with the user.
fn private_directory(cache: Option<PathBuf>) -> Result<(PathBuf, u32), String> {
    let path = cache.ok_or("neither XDG_CACHE_HOME nor HOME is set")?.join("verified");
    let uid = effective_uid().ok_or("the user cannot be told from /proc/self/status")?;
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    DirBuilder::new().recursive(true).mode(modes(uid).0).create(&path).map_err(failed)?;
    let faults = faults_of_directory(&path.symlink_metadata().map_err(failed)?, uid);
    let path = path.canonicalize().map_err(failed)?;
    let above = fault_above(&path, uid, &|above| fs::symlink_metadata(above).ok());
    match faults.first().or(above.as_ref()) {
        Some(fault) => Err(format!("{}; what it says is not believed", fault.describe(&path))),
        None => Ok((path, uid)),
    }
}

fn read_record(place: &Path, uid: u32) -> Result<BTreeMap<String, Entry>, String> {
    let file = open_regular(place, ErrorKind::Io).map_err(|e| e.to_string())?;
    let failed = |e: std::io::Error| format!("{}: {e}", place.display());
    if let Some(fault) = faults_of_file(&file.metadata().map_err(failed)?, uid).first() {
        return Err(format!("{}; what it says is not believed", fault.describe(place)));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    match serde_json::from_slice::<Record>(&bytes) {
        Ok(record) if record.format_version == FORMAT_VERSION => Ok(record.files),
        // Of another version, or damaged: made anew.
        _ => Ok(BTreeMap::new()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A directory with one file, another for records, and what is known of the file.
    struct Case {
        root: tempfile::TempDir,
        cache: tempfile::TempDir,
    }

    const FILE: &str = "weights.data";
    const HASH: &str = "0123";

    impl Case {
        /// The file was verified, and long enough ago that a change would show.
        fn verified() -> Self {
            let case = Case { root: tempfile::tempdir().unwrap(), cache: tempfile::tempdir().unwrap() };
            fs::write(case.file(), b"weights").unwrap();
            let mut verified = case.read();
            assert!(!case.known());
            let mut stamp = Stamp::of(&case.metadata());
            stamp.0[5] -= 10;
            assert!(stamp.settled(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap()));
            verified
                .files
                .insert(FILE.into(), Entry { stamp: Stamp::of(&case.metadata()), sha256: HASH.into() });
            verified.add([("other".to_owned(), stamp, HASH.to_owned())]);
            assert!(case.known());
            // The clock of file systems is coarser than what follows.
            std::thread::sleep(Duration::from_millis(20));
            case
        }

        fn file(&self) -> PathBuf {
            self.root.path().join(FILE)
        }

        fn metadata(&self) -> Metadata {
            self.file().metadata().unwrap()
        }

        fn read(&self) -> Verified {
            Verified::read_in(self.root.path(), Some(self.cache.path().to_path_buf()))
        }

        fn known(&self) -> bool {
            self.read().knows(FILE, &self.metadata(), HASH)
        }

        fn directory(&self) -> PathBuf {
            self.cache.path().join("verified")
        }

        fn record(&self) -> PathBuf {
            let mut entries = self.directory().read_dir().unwrap();
            let record = entries.next().unwrap().unwrap().path();
            assert!(entries.next().is_none());
            record
        }
    }

    #[test]
    fn a_file_is_known_until_it_changes_in_any_way() {
        assert!(!Case::verified().read().knows(FILE, &Case::verified().metadata(), HASH), "another file");
        let case = Case::verified();
        assert!(!case.read().knows(FILE, &case.metadata(), "4567"), "the manifest wants another");
        assert!(!case.read().knows("x.data", &case.metadata(), HASH));
        // Written to, and its time put back.
        let before = case.metadata();
        fs::write(case.file(), b"w3ights").unwrap();
        let file = File::options().write(true).open(case.file()).unwrap();
        file.set_modified(before.modified().unwrap()).unwrap();
        assert_eq!(case.metadata().modified().unwrap(), before.modified().unwrap());
        assert!(!case.known());
        // Replaced by a file of the same size and time.
        let case = Case::verified();
        let copy = case.root.path().join("copy");
        fs::write(&copy, b"w3ights").unwrap();
        let file = File::options().write(true).open(&copy).unwrap();
        file.set_modified(case.metadata().modified().unwrap()).unwrap();
        fs::rename(&copy, case.file()).unwrap();
        assert!(!case.known());
        // Only touched: read again rather than believed.
        let case = Case::verified();
        File::options().write(true).open(case.file()).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(!case.known());
    }

    #[test]
    fn a_file_that_changed_a_moment_ago_is_not_remembered() {
        let case = Case::verified();
        fs::write(case.file(), b"new").unwrap();
        case.read().add([(FILE.to_owned(), Stamp::of(&case.metadata()), HASH.to_owned())]);
        assert!(!case.known());
        let stamp = Stamp([0, 0, 0, 0, 0, 100, 5]);
        assert!(stamp.settled(Duration::from_secs(103)) && !stamp.settled(Duration::from_secs(102)));
        assert!(!Stamp([0, 0, 0, 0, 0, -1, 0]).settled(Duration::from_secs(102)), "a time before all others");
    }

    #[test]
    fn a_record_that_others_could_have_written_is_not_believed() {
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let case = Case::verified();
        let (directory, file) = modes(effective_uid().unwrap());
        assert_eq!(case.directory().metadata().unwrap().permissions().mode() & 0o777, directory);
        assert_eq!(case.record().metadata().unwrap().permissions().mode() & 0o777, file);
        for path in [case.record(), case.directory(), case.cache.path().to_path_buf()] {
            let before = path.metadata().unwrap().permissions().mode();
            mode(&path, before | 0o002);
            assert!(!case.known(), "{}", path.display());
            mode(&path, before);
            assert!(case.known());
        }
        // A link to it, and a second name.
        let (record, real) = (case.record(), case.root.path().join("real"));
        fs::hard_link(&record, &real).unwrap();
        assert!(!case.known());
        fs::remove_file(&record).unwrap();
        std::os::unix::fs::symlink(&real, &record).unwrap();
        assert!(!case.known());
        if effective_uid() == Some(0) {
            let case = Case::verified();
            std::os::unix::fs::chown(case.record(), Some(1234), None).unwrap();
            assert!(!case.known());
            let case = Case::verified();
            std::os::unix::fs::chown(case.directory(), Some(1234), None).unwrap();
            assert!(!case.known());
            assert!(case.read().place.is_none(), "nor is anything written there");
        }
    }

    #[test]
    fn a_record_that_is_none_is_made_anew() {
        let newer = r#"{"format_version": 2, "directory": "", "files": {}}"#;
        for damage in ["", "{", "[]", newer, &" ".repeat(2 << 20)] {
            let case = Case::verified();
            fs::write(case.record(), damage).unwrap();
            assert!(!case.known());
            let mut stamp = Stamp::of(&case.metadata());
            stamp.0[5] -= 10;
            case.read().add([(FILE.to_owned(), stamp, HASH.to_owned())]);
            assert_eq!(case.read().files.len(), 1);
        }
    }

    #[test]
    fn without_a_home_nothing_is_remembered() {
        let case = Case::verified();
        let mut nowhere = Verified::read_in(case.root.path(), None);
        assert!(!nowhere.knows(FILE, &case.metadata(), HASH));
        nowhere.add([(FILE.to_owned(), Stamp([0; 7]), HASH.to_owned())]);
        assert!(!nowhere.knows(FILE, &case.metadata(), HASH));
    }
}
