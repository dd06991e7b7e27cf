#!/usr/bin/env python3
"""The CUDA 13 libraries that ONNX Runtime's CUDA provider loads: the system's, this Python's, or from Python packages in .cache/cuda.

usage: cuda.py install
"""

from __future__ import annotations

import ctypes
import glob
import importlib.util
import subprocess
import sys
from pathlib import Path

NEEDED = ("libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13", "libcurand.so.10", "libcudnn.so.9")
TARGET = Path(".cache/cuda")
REQUIREMENTS = "scripts/gpu_bench/requirements-cuda.txt"


def directories() -> list[str]:
    """Where installed packages have their libraries: those beside PyTorch, if this Python has it, and our own."""
    spec = importlib.util.find_spec("nvidia")
    roots = [f"{TARGET}/nvidia", *(spec.submodule_search_locations or () if spec else ())]
    found = (path for root in roots for name in NEEDED for path in glob.glob(f"{root}/**/{name}", recursive=True))
    return sorted({str(Path(path).parent.resolve()) for path in found})


def missing() -> list[str]:
    """Those that neither the system's loader nor an installed package has."""
    installed = {path.name for directory in directories() for path in Path(directory).iterdir()}
    return [name for name in NEEDED if name not in installed and not _loads(name)]


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def install() -> int:
    if not missing():
        return 0
    print(f"not on this machine: {', '.join(missing())}; installing {REQUIREMENTS} to {TARGET}", file=sys.stderr)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--upgrade"]
    code = subprocess.run([*pip, "--target", str(TARGET), "-r", REQUIREMENTS]).returncode
    if not code and missing():
        print(f"cuda: still not found: {', '.join(missing())}", file=sys.stderr)
        return 1
    return code


if __name__ == "__main__":
    if sys.argv[1:] != ["install"]:
        sys.exit(__doc__.splitlines()[-1])
    sys.exit(install())
