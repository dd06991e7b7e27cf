//! The crate's one error type, and the macros that make one.

use std::fmt::{self, Write};

use crate::text::{Line, MAX_MESSAGE};

/// Makes an [`Error`]: its kind, then what `format!` takes.
macro_rules! err {
    ($kind:ident, $($text:tt)+) => {
        $crate::error::Error::new($crate::error::ErrorKind::$kind, format!($($text)+))
    };
}

/// Returns an [`Error`] from the function around it.
macro_rules! bail {
    ($kind:ident, $($text:tt)+) => { return Err(err!($kind, $($text)+)) };
}

/// Returns an [`Error`] from the function around it unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $kind:ident, $($text:tt)+) => {
        if !$holds {
            bail!($kind, $($text)+);
        }
    };
}

/// Names the kind of failure, for code that decides; [`Error`]'s `Display` is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A file or directory could not be read or written.
    Io,
    /// The manifest is missing, unreadable, of an unknown version, or contradicts itself.
    Manifest,
    /// A bundle file is missing, has the wrong size or hash, or holds what a bundle may not hold.
    Integrity,
    /// ONNX Runtime's shared library was not found, or is too old.
    Library,
    /// An execution provider that was asked for could not be used.
    Provider,
    /// TensorRT engines are missing, damaged, not the user's own, or made for something else.
    Engine,
    /// A graph could not be loaded, does not match the manifest, or failed while running.
    Graph,
    /// The observation does not fit the bundle: camera, image, state or prompt.
    Observation,
    /// An argument outside its range, or of the wrong shape.
    InvalidArgument,
    /// A value that must be finite is NaN or infinite.
    NonFinite,
    /// An action is outside of the bundle's limits.
    OutOfLimits,
    /// The outputs differ from the reference policy's by more than the bundle's tolerance.
    Parity,
    /// A real-time right that was insisted on (priority, CPU affinity, locked memory) is missing.
    RealtimeDenied,
    /// The real-time runtime could not start, has given up, or is gone.
    Runtime,
}

words!(ErrorKind {
    Io => "io",
    Manifest => "manifest",
    Integrity => "integrity",
    Library => "library",
    Provider => "provider",
    Engine => "engine",
    Graph => "graph",
    Observation => "observation",
    InvalidArgument => "invalid_argument",
    NonFinite => "non_finite",
    OutOfLimits => "out_of_limits",
    Parity => "parity",
    RealtimeDenied => "realtime_denied",
    Runtime => "runtime",
});

/// An error: its kind, what was being done to what, and the cause underneath if there was one.
///
/// `Display` prints the whole chain, so `error!("{e}")` loses nothing: one line of at most 2000 characters, in which
/// whatever could act on a terminal is escaped.
pub struct Error {
    kind: ErrorKind,
    context: String,
    source: Option<Box<dyn std::error::Error + Send + Sync + 'static>>,
}

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error without an underlying cause. `context` says what, where and what to do.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Error { kind, context: context.into(), source: None }
    }

    /// An error caused by another one.
    pub fn with_source(
        kind: ErrorKind,
        context: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync + 'static>>,
    ) -> Self {
        Error { kind, context: context.into(), source: Some(source.into()) }
    }

    /// Returns the kind of failure.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The same error with `what` put before its text.
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.context = format!("{what}: {}", self.context);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = Line::new(f, MAX_MESSAGE);
        line.write_str(&self.context)?;
        let mut cause = std::error::Error::source(self);
        while let Some(c) = cause {
            write!(line, ": {c}")?;
            cause = c.source();
        }
        line.end()
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|s| s.as_ref() as &(dyn std::error::Error + 'static))
    }
}

/// Adds context to results of any error type.
pub(crate) trait ResultExt<T> {
    fn or_kind(self, kind: ErrorKind, context: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E> ResultExt<T> for std::result::Result<T, E>
where
    E: Into<Box<dyn std::error::Error + Send + Sync + 'static>>,
{
    fn or_kind(self, kind: ErrorKind, context: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::with_source(kind, context(), e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_says_neither_acts_on_a_terminal_nor_fills_it() {
        let cause = Error::new(ErrorKind::Io, "x\x1b]0;owned\x07\n".repeat(100_000));
        let text = Error::with_source(ErrorKind::Graph, "camera \u{202e}gnp", cause).to_string();
        assert!(text.starts_with(r"camera \u202egnp: x\u001b]0;owned\u0007 x"), "{text}");
        assert!(text.ends_with("(cut)") && text.chars().count() < 2 * MAX_MESSAGE, "{}", text.len());
        assert!(!text.chars().any(crate::text::is_hidden));
    }
}
