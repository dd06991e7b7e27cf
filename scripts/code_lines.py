#!/usr/bin/env python3
"""Counts lines of Rust code by crate, as they stand or at a revision.

    scripts/code_lines.py [REVISION]

Comments, blank lines, everything under #[cfg(test)] and files of tests are left out. An unsafe line is one with the keyword in
what is counted.
"""
from __future__ import annotations

import io
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
# Strings and characters come first, so that what looks like a comment in them is none.
TOKEN = re.compile(
    r"""(?P<literal>b?r(?P<hashes>\#*)".*?"(?P=hashes)|[bc]?"(?:\\.|[^"\\])*"|b?'(?:\\(?:u\{[^}]*\}|x..|.)|[^'\\])')"""
    r"""|(?P<line>//[^\n]*)|(?P<block>/\*)""",
    re.DOTALL,
)
TEST = re.compile(r"#\[cfg\((?:test|all\(test\b[^\]]*\))\)\]")
MODULE = re.compile(r"(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*;")


def without_comments(text: str) -> tuple[str, str]:
    """The text without its comments, and the same with literals blanked, which has every brace where it is."""
    code, bare, at = [], [], 0

    def add(piece: str, literal: bool = False) -> None:
        code.append(piece)
        bare.append(re.sub(r"[^\n]", "_", piece) if literal else piece)

    while found := TOKEN.search(text, at):
        add(text[at:found.start()])
        at = found.end()
        if found["literal"]:
            add(found[0], literal=True)
        elif found["block"]:
            depth = 1
            while depth:
                mark = re.compile(r"/\*|\*/").search(text, at)
                depth += 1 if mark[0] == "/*" else -1
                at = mark.end()
            add("\n" * text.count("\n", found.start(), at))
    add(text[at:])
    return "".join(code), "".join(bare)


def item_end(bare: str, at: int) -> int:
    """Where the item that begins at `at`, with its attributes, ends."""
    depth = 0
    while True:
        mark = re.compile(r"[{}()\[\];,]").search(bare, at)
        if mark is None:
            return len(bare)
        at = mark.end()
        if mark[0] in "([{":
            depth += 1
        elif mark[0] in ")]}":
            depth -= 1
            if depth < 0:
                return mark.start()
            if depth == 0 and mark[0] == "}":
                return at + bare.startswith(";", at)
        elif depth == 0:
            return at


def counted(path: Path) -> tuple[list[str], list[Path]]:
    """The lines of code, and the modules that are tests."""
    code, bare = without_comments(path.read_text(encoding="utf-8"))
    kept, tests, at = [], [], 0
    home = path.parent if path.name in ("mod.rs", "lib.rs", "main.rs") else path.with_suffix("")
    while found := TEST.search(bare, at):
        kept.append(code[at:found.start()])
        at = item_end(bare, found.end())
        if module := MODULE.match(code[found.end():at].strip()):
            given = re.search(r'path\s*=\s*"([^"]*)"', code[found.end():at])
            tests += [(path.parent / given[1]).resolve()] if given else [home / f"{module[1]}.rs", home / module[1]]
    kept.append(code[at:])
    return [line for line in "".join(kept).splitlines() if line.strip()], tests


def report(root: Path) -> None:
    crates = {"pi0-edge": root / "src"} | {path.parent.name: path for path in sorted(root.glob("crates/*/src"))}
    programs = root / "src/bin"
    crates |= {"src/bin": programs} if programs.is_dir() else {}
    total, unsafe = 0, []
    print(f"{'crate':20} {'code':>6} {'files':>6} {'median':>7}   longest file")
    for name, directory in crates.items():
        files = {path: counted(path) for path in sorted(directory.rglob("*.rs"))
                 if directory == programs or not path.is_relative_to(programs)}
        tests = [test for _, found in files.values() for test in found]
        # A module of a test is a test too, also where the test names its file.
        named = [test.parent / path for test in tests if test.is_file()
                 for path in re.findall(r'#\[path = "([^"]*)"\]', test.read_text(encoding="utf-8"))]
        tests += [path.resolve() for path in named]
        sizes = {}
        for path, (lines, _) in files.items():
            if not any(path.is_relative_to(test) for test in tests):
                sizes[path] = len(lines)
                unsafe.append((sum(bool(re.search(r"\bunsafe\b", line)) for line in lines), path))
        longest = max(sizes, key=sizes.get)
        total += sum(sizes.values())
        print(f"{name:20} {sum(sizes.values()):6} {len(sizes):6} {statistics.median(sizes.values()):7.0f}   "
              f"{sizes[longest]} {longest.relative_to(root)}")
    print(f"{'all':20} {total:6}\n\nunsafe lines: {sum(n for n, _ in unsafe)}")
    for n, path in sorted(unsafe, key=lambda pair: (-pair[0], pair[1])):
        if n:
            print(f"{n:6} {path.relative_to(root)}")


def main() -> None:
    if len(sys.argv) == 1:
        report(PROJECT)
    elif len(sys.argv) == 2 and not sys.argv[1].startswith("-"):
        archive = subprocess.run(["git", "archive", sys.argv[1]], cwd=PROJECT, check=True, stdout=subprocess.PIPE).stdout
        with tempfile.TemporaryDirectory() as directory:
            tarfile.open(fileobj=io.BytesIO(archive)).extractall(directory, filter="data")
            report(Path(directory))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
