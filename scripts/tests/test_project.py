"""The scripts that watch over the project itself: code lines, licences."""
import check_dependencies
import code_lines
import pytest

SOURCE = '''\
//! Says what it is.
use a::{b, c}; // kept

/* a comment /* in a comment */ over
   two lines */
fn f() -> &'static str {
    let quote = '"'; let brace = '{';
    unsafe { g("// no comment", r#"/* " */"#, quote, brace) }
}

#[cfg(test)]
use only::{in_tests};

#[cfg(test)]
mod more_tests;

#[cfg(all(test, other))]
mod tests {
    fn h() { let x = "}"; }
}
const LAST: [u8; 1] = [b'}'];
'''


def test_lines_of_code(tmp_path):
    path = tmp_path / "lib.rs"
    path.write_text(SOURCE)
    lines, tests = code_lines.counted(path)
    assert [line.strip() for line in lines] == [
        "use a::{b, c};", "fn f() -> &'static str {", "let quote = '\"'; let brace = '{';",
        'unsafe { g("// no comment", r#"/* " */"#, quote, brace) }', "}", "const LAST: [u8; 1] = [b'}'];",
    ]
    assert tests == [tmp_path / "more_tests.rs", tmp_path / "more_tests"]


@pytest.mark.parametrize("licence, fine", [
    ("MIT", True), ("MIT OR GPL-3.0", True), ("MIT/GPL-3.0", True), ("GPL-3.0", False), ("MIT AND GPL-3.0", False),
    ("(MIT OR GPL-3.0) AND ISC", True), ("(MIT OR ISC) AND GPL-3.0", False), ("Apache-2.0 WITH LLVM-exception", False),
    ("Apache-2.0 WITH LLVM-exception OR MIT", True), ("none", False),
])
def test_licences(licence, fine):
    assert check_dependencies.allowed(licence, ["MIT", "ISC", "Apache-2.0"]) is fine
