#!/usr/bin/env python3
"""Python packages for a machine without a network, cut into files small enough to be carried one by one.

usage: wheels.py join PARTS_DIR WHEELS_DIR
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PART_BYTES = 60 << 20
MARK = ".part"
PIP = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]


def _for_python(version: str) -> list[str]:
    tag = "cp" + version.replace(".", "")
    # pip takes a wheel only of a platform that is named: of every glibc up to the one that most systems have.
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in range(34, 4, -1)] + ["--platform=manylinux2014_x86_64"]
    return ["--implementation=cp", f"--python-version={version}", f"--abi={tag}", "--abi=abi3", "--abi=none", *platforms]


def _downloads() -> list[list[str]]:
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    return [
        [*_for_python("3.11"), "--no-deps", "onnxruntime-gpu==1.31.1"],
        [*_for_python(ours), "-r", "scripts/requirements.txt"],
        [*_for_python("3.12"), "--no-deps", "-r", "scripts/reference/requirements.txt"],
        [*_for_python("3.12"), "--no-deps", "-r", "scripts/reference/requirements-nodeps.txt"],
        [*_for_python("3.12"), "--no-deps", "-r", "scripts/reference/requirements-gpu.txt"],
    ]


def pack(target: Path) -> int:
    """Downloads everything that the measurement installs and cuts it up in ``target``."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        for arguments in _downloads():
            print(f"pip download {' '.join(arguments[-2:])}", file=sys.stderr, flush=True)
            if subprocess.run([*PIP, "--dest", temporary, *arguments]).returncode:
                return 1
        for wheel in sorted(Path(temporary).glob("*.whl")):
            split(wheel, target)
    size = sum(path.stat().st_size for path in target.iterdir())
    print(f"{len(list(target.iterdir()))} files, {size / 1e9:.2f} GB in {target}", file=sys.stderr)
    return 0


def split(wheel: Path, target: Path) -> None:
    """Copies ``wheel``, as parts numbered from 000 if it is larger than one may be."""
    if wheel.stat().st_size <= PART_BYTES:
        shutil.copyfile(wheel, target / wheel.name)
        return
    with open(wheel, "rb") as source:
        for index in range(10**3):
            content = source.read(PART_BYTES)
            if not content:
                return
            (target / f"{wheel.name}{MARK}{index:03}").write_bytes(content)


def join(parts: Path, target: Path) -> int:
    """Puts the wheels together again; every missing part is an error."""
    target.mkdir(parents=True, exist_ok=True)
    cut: dict[str, list[Path]] = {}
    for path in sorted(parts.iterdir()):
        name, mark, index = path.name.rpartition(MARK)
        if mark and index.isdigit():
            cut.setdefault(name, []).append(path)
        elif path.suffix == ".whl":
            shutil.copyfile(path, target / path.name)
    for name, pieces in cut.items():
        short = [piece for piece in pieces[:-1] if piece.stat().st_size != PART_BYTES]
        if [piece.name for piece in pieces] != [f"{name}{MARK}{i:03}" for i in range(len(pieces))] or short:
            print(f"wheels: parts of {name} are missing or cut short; there are {len(pieces)}", file=sys.stderr)
            return 1
        with open(target / name, "wb") as whole:
            for piece in pieces:
                with open(piece, "rb") as source:
                    shutil.copyfileobj(source, whole)
    if not list(target.glob("*.whl")):
        print(f"wheels: {parts} has no wheels; make it with scripts/gpu_bench.sh --pack-wheels", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] != "join":
        sys.exit(__doc__.splitlines()[-1])
    sys.exit(join(Path(sys.argv[2]), Path(sys.argv[3])))
