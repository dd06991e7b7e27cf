//! JSON files that say by `format_version` which layout they have.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::text::{MAX_NAME, is_hidden};

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
    // The version first, so that a newer file is refused for that and not for its first new field.
    let entries: Map<String, Value> = serde_json::from_slice(bytes)
        .or_kind(kind, || format!("{name} cannot be read: it is not a JSON object with a format_version"))?;
    let found = match entries.get("format_version") {
        Some(found) if found.as_u64() == Some(version) => {
            let file = serde_json::from_slice(bytes).or_kind(kind, || {
                format!(
                    "{name} cannot be read: it does not have the layout of format_version {version}; {remedy}"
                )
            })?;
            check_texts("", &Value::Object(entries))
                .map_err(|what| Error::new(kind, format!("{name}: {what}")))?;
            return Ok(file);
        }
        Some(found) => format!("is {found}"),
        None => "is missing".to_owned(),
    };
    let text = format!("{name}: format_version {found}, this release reads {version}; {remedy}");
    Err(Error::new(kind, text))
}

/// Checks all texts below `key`: they are shown to people, who are not to be misled by what acts on their terminal.
/// Only prompts may hold anything, because they are shown quoted.
fn check_texts(key: &str, value: &Value) -> Result<(), String> {
    match value {
        Value::String(text) if key != "prompt" => check_text(key, text),
        Value::Array(values) => values.iter().try_for_each(|value| check_texts(key, value)),
        // No deeper than the parser lets a file be.
        Value::Object(entries) => entries.iter().try_for_each(|(name, value)| {
            check_text(key, name)?;
            check_texts(if key == "prompt" { key } else { name }, value)
        }),
        _ => Ok(()),
    }
}

fn check_text(key: &str, text: &str) -> Result<(), String> {
    if let Some(c) = text.chars().find(|&c| is_hidden(c)) {
        return Err(format!("{key} has a text with the character {c:?}, which may not be in one"));
    }
    if text.chars().nth(MAX_NAME).is_some() {
        return Err(format!("{key} has a text of more than {MAX_NAME} characters"));
    }
    Ok(())
}
