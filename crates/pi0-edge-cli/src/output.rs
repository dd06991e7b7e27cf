//! Writing results: to stdout, and to files that exist whole or not at all.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use ndarray::ArrayView2;
use pi0_edge::internals;
use pi0_edge::{Error, ErrorKind, Result};

/// Output formats of the verbs that know two.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Prints to stdout. A reader that went away (`| head`) is not an error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::with_source(ErrorKind::Io, "cannot write to stdout", e))
        }
        _ => Ok(()),
    }
}

/// Prints a JSON value and a newline.
pub fn print_json(value: &serde_json::Value) -> Result<()> {
    print(&format!("{value:#}\n"))
}

/// Writes `array` as an .npy file, whole or not at all.
pub fn write_npy(path: &Path, array: ArrayView2<'_, f32>) -> Result<()> {
    write_whole(path, |file| {
        let mut file = BufWriter::new(file);
        internals::write_npy(&mut file, array)?;
        Ok(file.flush()?)
    })
}

/// Lets `fill` write a file under a temporary name and renames it, so that a failure leaves nothing behind.
pub fn write_whole(
    path: &Path,
    fill: impl FnOnce(&File) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>>,
) -> Result<()> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let part = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
    let write = || -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let file = File::create_new(&part)?;
        fill(&file)?;
        file.sync_all()?;
        std::fs::rename(&part, path)?;
        Ok(())
    };
    write().map_err(|e| {
        let _ = std::fs::remove_file(&part);
        Error::with_source(ErrorKind::Io, format!("cannot write {}", path.display()), e)
    })
}

/// Text in HTML and SVG.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
