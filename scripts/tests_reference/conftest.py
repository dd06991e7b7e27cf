"""Opt-in tests that run lerobot itself.

  scripts/reference_env.sh
  .reference/bin/python -m pytest scripts/tests_reference

They run make_checkpoint.py and export.py with the exporter's Python: PI0_EXPORT_PYTHON, or
the project's .venv. The bundles are checked with the pi0-edge binary named by PI0_EDGE_BIN,
or the one in target/, and with ONNX Runtime's Python package where there is none.
"""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from reference import environment  # noqa: E402

environment.prepare(threads=1)


@pytest.fixture(scope="session")
def export_python():
    python = pathlib.Path(os.environ.get("PI0_EXPORT_PYTHON", ROOT / ".venv" / "bin" / "python"))
    if not python.exists():
        pytest.skip(f"{python} not found: set PI0_EXPORT_PYTHON to a Python with scripts/requirements.txt installed")
    return python


@pytest.fixture(scope="session")
def make_checkpoint(export_python, tmp_path_factory):
    def make(name, *flags):
        directory = tmp_path_factory.mktemp(name) / "checkpoint"
        run(export_python, ROOT / "scripts" / "make_checkpoint.py", directory, *flags)
        return directory

    return make


@pytest.fixture(scope="session")
def tiny(make_checkpoint):
    return make_checkpoint("tiny", "--size", "tiny", "--seed", "7")


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout
