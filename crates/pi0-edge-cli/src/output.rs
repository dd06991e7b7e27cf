//! Reading and writing files and stdout, with errors that name the file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use ndarray::ArrayView2;
use pi0_edge::internals::{escaped, read_inside};
use pi0_edge::{Error, ErrorKind, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::interrupt::{self, Begun};
use crate::progress::say;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Output formats of the verbs that know two.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

impl Format {
    /// Prints the form that is asked for, marked if the work was interrupted. What could act on a terminal is escaped.
    pub fn print(self, text: impl FnOnce() -> String, json: impl FnOnce() -> Value) -> Result<()> {
        let interrupted = interrupt::requested();
        print(&escaped(&match self {
            Format::Text if interrupted => format!("INTERRUPTED: what there was until then\n\n{}", text()),
            Format::Text => text(),
            Format::Json => {
                let mut json = json();
                if let Some(object) = json.as_object_mut().filter(|_| interrupted) {
                    object.insert("interrupted".into(), true.into());
                }
                format!("{json:#}\n")
            }
        }))
    }

    /// Says on stderr what to type next, where people read.
    pub fn next(self, words: impl FnOnce() -> String) {
        if self == Format::Text && !interrupt::requested() {
            say(&format!("next: {}", words()));
        }
    }
}

/// Output formats of the verbs that also have a table to paste.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub enum TableFormat {
    /// For people
    Text,
    /// A table to paste
    Md,
    /// For programs
    Json,
}

impl TableFormat {
    /// Prints the form that is asked for.
    pub fn print(
        self,
        text: impl FnOnce() -> String,
        markdown: impl FnOnce() -> String,
        json: impl FnOnce() -> Value,
    ) -> Result<()> {
        match self {
            TableFormat::Text => Format::Text.print(text, json),
            TableFormat::Md => Format::Text.print(markdown, json),
            TableFormat::Json => Format::Json.print(text, json),
        }
    }

    /// As [`Format::next`].
    pub fn next(self, words: impl FnOnce() -> String) {
        if let TableFormat::Text = self {
            Format::Text.next(words);
        }
    }
}

/// A path as it is typed in a shell.
pub fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:@,".contains(c);
    match text.chars().all(plain) {
        true => text.into_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// Prints to stdout as it is. A reader that went away (`| head`) is not an error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::with_source(ErrorKind::Io, "cannot write to stdout", e))
        }
        _ => Ok(()),
    }
}

/// An error of the file system or the like, where `what` was to be done to `path`.
pub fn cannot<E: Into<Cause>>(what: &str, path: &Path) -> impl Fn(E) -> Error {
    move |e| Error::with_source(ErrorKind::Io, format!("cannot {what} {}", path.display()), e)
}

/// Fails with [`ErrorKind::InvalidArgument`].
pub fn refuse<T>(text: impl Into<String>) -> Result<T> {
    Err(Error::new(ErrorKind::InvalidArgument, text))
}

/// Reads a regular JSON file of at most `max` bytes; `kind` is the error of one that is not, or is malformed.
pub fn read_json<T: DeserializeOwned>(path: &Path, max: u64, kind: ErrorKind) -> Result<T> {
    let directory = path.parent().unwrap_or(Path::new("."));
    parse_json(&read_inside(directory, &file_name(path), max, kind)?, path, kind)
}

/// Parses the content of the JSON file at `path`; `kind` is the error of one that is malformed.
pub fn parse_json<T: DeserializeOwned>(text: &[u8], path: &Path, kind: ErrorKind) -> Result<T> {
    // What an editor may put before a text in UTF-8.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    serde_json::from_slice(text)
        .map_err(|e| Error::with_source(kind, format!("{} is malformed", path.display()), e))
}

/// Writes `array` as an .npy file, whole or not at all.
pub fn write_npy(file: NewFile, array: ArrayView2<'_, f32>) -> Result<()> {
    file.write(|file| Ok(pi0_edge_golden::write_npy(file, array)?))
}

/// A file that is begun before the work whose results it will hold, so that a place where none can be fails at once. It has
/// its name when it is whole; until then, and if it never is, nothing is there but what was before.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    file: File,
    /// None where the name is that of a device or a pipe, which is written to as it is.
    part: Option<Begun>,
}

impl NewFile {
    pub fn create(path: &Path) -> Result<Self> {
        let create = || -> std::io::Result<_> {
            let there = std::fs::metadata(path).ok().map(|m| m.file_type());
            if there.is_some_and(|there| there.is_dir()) {
                return Err(std::io::ErrorKind::IsADirectory.into());
            }
            if there.is_some_and(|there| !there.is_file()) {
                return Ok((None, File::options().write(true).open(path)?));
            }
            let part = path.with_file_name(format!(".{}.{}.part", file_name(path), std::process::id()));
            let (part, file) = Begun::create(part, |part| File::create_new(part))?;
            Ok((Some(part), file))
        };
        let (part, file) = create().map_err(cannot("write", path))?;
        Ok(NewFile { path: path.to_owned(), file, part })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name until it is whole, for those who write it themselves.
    pub fn part(&self) -> &Path {
        self.part.as_ref().map_or(&self.path, Begun::path)
    }

    /// Lets `fill` write it, and gives it its name.
    pub fn write(
        self,
        fill: impl FnOnce(&mut BufWriter<&File>) -> std::result::Result<(), Cause>,
    ) -> Result<()> {
        let NewFile { path, file, part } = self;
        let write = || -> std::result::Result<(), Cause> {
            let mut buffered = BufWriter::new(&file);
            fill(&mut buffered)?;
            buffered.flush()?;
            if let Some(part) = part {
                file.sync_all()?;
                part.rename(&path)?;
            }
            Ok(())
        };
        write().map_err(cannot("write", &path))
    }

    /// As [`write`](Self::write), of content that is at hand.
    pub fn write_bytes(self, content: impl AsRef<[u8]>) -> Result<()> {
        self.write(|file| Ok(file.write_all(content.as_ref())?))
    }
}

/// The last part of a path, for people.
pub fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Text in HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
