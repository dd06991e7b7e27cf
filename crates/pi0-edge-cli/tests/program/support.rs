//! The program as its user starts it, and what its failures have in common.

#![allow(dead_code)] // each test crate uses its part

use std::process::{Command, Output};

/// The program, which says no more than it has to.
pub fn pi0_edge() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pi0-edge"));
    command.env("RUST_LOG", "warn");
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The run ended with this exit code, with every word on stderr and without a panic.
pub fn assert_says(output: &Output, code: i32, words: &[&str]) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "stderr does not say {word:?}: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

/// As [`assert_says`], and nothing is on stdout.
pub fn assert_fails_with(output: &Output, code: i32, words: &[&str]) {
    assert_says(output, code, words);
    assert!(output.stdout.is_empty(), "stdout holds {}", text(&output.stdout));
}

/// The run failed, which is exit code 1, and said nothing on stdout but every word on stderr.
pub fn assert_fails(output: &Output, words: &[&str]) {
    assert_fails_with(output, 1, words);
}
