"""Finding the library: a missing one, a foreign one and another version are told in words."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib

import pytest

from conftest import PACKAGE, ROOT
from pi0_edge import __version__
from pi0_edge._library import SONAME, load


def load_elsewhere(**environment: str) -> str:
    program = f"import sys; sys.path.insert(0, {str(PACKAGE)!r}); from pi0_edge._library import load; load()"
    run = subprocess.run([sys.executable, "-c", program], env={**os.environ, **environment}, capture_output=True, text=True)
    return run.stderr.splitlines()[-1] if run.stderr else ""


def test_versions_are_one():
    package = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]
    assert __version__ == package["version"] == load().pi0_version().decode()
    assert SONAME == "libpi0_edge.so." + __version__.rpartition(".")[0]


def test_a_library_that_is_missing(tmp_path):
    assert load_elsewhere() == ""
    words = load_elsewhere(PI0_EDGE_LIBRARY=str(tmp_path / "no.so"))
    assert "no.so" in words and "correct PI0_EDGE_LIBRARY" in words
    words = load_elsewhere(PI0_EDGE_LIBRARY="")
    assert words == "" or "install a wheel of pi0-edge" in words


@pytest.mark.parametrize("source, words", [
    ('const char *pi0_version(void) { return "0.9.1"; }', "is version 0.9.1"),
    ("int other(void) { return 1; }", "pi0_version"),
])
def test_a_library_that_is_another(tmp_path, source, words):
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler (cc)")
    (tmp_path / "other.c").write_text(source)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "other.so", tmp_path / "other.c"], check=True)
    assert words in load_elsewhere(PI0_EDGE_LIBRARY=str(tmp_path / "other.so"))
