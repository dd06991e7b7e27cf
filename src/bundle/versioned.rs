//! JSON files that say by `format_version` which layout they have.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{ErrorKind, Result, ResultExt};

/// Only the version, so that a newer file is refused for its version and not for its first new field.
#[derive(Deserialize)]
struct Peek {
    format_version: Option<serde_json::Value>,
}

/// Parses the file `name`, whose layout has the given version. `remedy` says what to do about another one.
///
/// # Errors
///
/// An error of `kind` for anything else, in words.
pub fn parse<T: DeserializeOwned>(
    bytes: &[u8],
    name: &str,
    kind: ErrorKind,
    version: u64,
    remedy: &str,
) -> Result<T> {
    let peek: Peek = serde_json::from_slice(bytes)
        .or_kind(kind, || format!("{name} cannot be read: it is not a JSON object with a format_version"))?;
    let found = match peek.format_version {
        Some(found) if found.as_u64() == Some(version) => {
            return serde_json::from_slice(bytes).or_kind(kind, || {
                format!(
                    "{name} cannot be read: it does not have the layout of format_version {version}; {remedy}"
                )
            });
        }
        Some(found) => format!("is {found}"),
        None => "is missing".to_owned(),
    };
    let text = format!("{name}: format_version {found}, this release reads {version}; {remedy}");
    Err(crate::Error::new(kind, text))
}
