//! Text that comes from a bundle or another file, on its way to a terminal, a log or an error.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Most characters of an error's text, or of one message of ONNX Runtime's; the rest is cut.
pub const MAX_MESSAGE: usize = 2_000;
/// Most characters of any name or note in a manifest, in golden data and in an engine record.
pub const MAX_NAME: usize = 1_000;

/// Tells whether a character acts on what shows it: control characters, line separators, and those that turn the
/// direction of the text around them.
pub fn is_hidden(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns `text`, lines and all, with everything hidden written as JSON would escape it, so that JSON stays what it
/// was.
pub fn escaped(text: &str) -> Cow<'_, str> {
    let hidden = |c: char| c != '\n' && is_hidden(c);
    if !text.contains(hidden) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 64);
    text.chars().for_each(|c| _ = if hidden(c) { escape(c, &mut out) } else { out.write_char(c) });
    out.into()
}

/// Returns `text` as one line of at most `most` characters: its own lines are joined by spaces, the rest of what is
/// hidden is escaped, and what is too much is cut.
pub fn one_line(text: &str, most: usize) -> String {
    let mut out = String::new();
    let mut line = Line::new(&mut out, most);
    // Writing to a string cannot fail.
    _ = line.write_str(text);
    _ = line.end();
    out
}

/// Writes what [`one_line`] returns.
pub(crate) struct Line<W> {
    out: W,
    left: usize,
    cut: bool,
}

impl<W: Write> Line<W> {
    pub fn new(out: W, most: usize) -> Self {
        Line { out, left: most, cut: false }
    }

    /// Ends the line, saying whether something was cut.
    pub fn end(mut self) -> fmt::Result {
        if self.cut { self.out.write_str(" … (cut)") } else { Ok(()) }
    }
}

impl<W: Write> Write for Line<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.left == 0 {
                self.cut = true;
                break;
            }
            self.left -= 1;
            match character {
                '\n' | '\r' | '\t' => self.out.write_char(' ')?,
                c if is_hidden(c) => {
                    // What is shown is counted, and an escape has six characters.
                    self.left = self.left.saturating_sub(5);
                    escape(c, &mut self.out)?;
                }
                c => self.out.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// All that is hidden has four digits.
fn escape(character: char, out: &mut impl Write) -> fmt::Result {
    write!(out, "\\u{:04x}", u32::from(character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_acts_on_a_terminal() {
        let hostile = "a\x1b[2J\u{9b}31m\u{202e}txt\u{2066}\x07\0\u{2028}é – 日本";
        let shown = r"a\u001b[2J\u009b31m\u202etxt\u2066\u0007\u0000\u2028é – 日本";
        assert_eq!(escaped(hostile), shown);
        assert_eq!(one_line(hostile, 100), shown);
        assert_eq!(escaped("a\nb"), "a\nb");
        assert_eq!(one_line("a\nb\tc", 100), "a b c");
    }

    #[test]
    fn json_is_still_the_same_json() {
        let value = serde_json::json!({"a\u{202e}": "\u{7f}\u{9b}\x1b\n\"\\"});
        let text = format!("{value:#}");
        let shown = escaped(&text);
        assert!(!shown.chars().any(|c| c != '\n' && is_hidden(c)), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        assert_eq!(one_line("éé", 2), "éé");
        assert_eq!(one_line("ééé", 2), "éé … (cut)");
    }
}
