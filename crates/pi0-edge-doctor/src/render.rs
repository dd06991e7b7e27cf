//! The report in words.

use std::fmt::Write;

use pi0_edge::internals::escaped;
use serde_json::{Value, json};

use super::finding::{Report, Severity};

impl Report {
    /// The report for people: by subject, with a remedy under everything that has one.
    ///
    /// `colour` adds terminal colours; the caller knows whether there is a terminal.
    pub fn text(&self, colour: bool) -> String {
        let mut out = String::new();
        let mut group = None;
        for finding in &self.findings {
            if group != Some(finding.code.group()) {
                group = Some(finding.code.group());
                let title = finding.code.group().title();
                let space = if out.is_empty() { "" } else { "\n" };
                _ = writeln!(out, "{space}{}", paint(title, "1", colour));
            }
            let label = format!("{:<7}", finding.severity.as_str());
            let code = finding.code.as_str();
            _ = writeln!(
                out,
                "  {} {code}: {}",
                paint(&label, ink(finding.severity), colour),
                escaped(&finding.message)
            );
            if let Some(remedy) = finding.remedy.as_ref().filter(|_| finding.severity != Severity::Ok) {
                _ = writeln!(out, "          → {}", escaped(remedy));
            }
        }
        _ = writeln!(out, "\n{}", self.verdict());
        out
    }

    /// The report for programs: `findings`, their `summary`, and what they were made from.
    pub fn json(&self) -> Value {
        json!({
            "pi0_edge": env!("CARGO_PKG_VERSION"),
            "findings": self.findings,
            "summary": {
                "error": self.count(Severity::Error),
                "warning": self.count(Severity::Warning),
                "info": self.count(Severity::Info),
                "ok": self.count(Severity::Ok),
            },
            "facts": self.facts,
            "bundle": self.bundle,
        })
    }

    /// The last line: the verdict in words.
    fn verdict(&self) -> String {
        let count = |severity: Severity| match self.count(severity) {
            0 => format!("no {}", severity.as_str()),
            1 => format!("1 {}", severity.as_str()),
            n => format!("{n} {}s", severity.as_str()),
        };
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        if self.is_usable() {
            let bundle = self.bundle.as_ref().map_or("BUNDLE", |bundle| &bundle.path);
            format!(
                "Nothing found that stops it ({errors}, {warnings}). Next, to see whether it computes rightly: \
                 pi0-edge check {bundle}"
            )
        } else {
            format!("It will not run ({errors}, {warnings}).")
        }
    }
}

/// The terminal's number for a colour.
fn ink(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "1;31",
        Severity::Warning => "33",
        Severity::Info => "36",
        Severity::Ok => "32",
    }
}

fn paint(text: &str, ink: &str, colour: bool) -> String {
    if colour { format!("\x1b[{ink}m{text}\x1b[0m") } else { text.to_owned() }
}
