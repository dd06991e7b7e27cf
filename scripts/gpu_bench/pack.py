"""Packs what the quick measurement needs on a machine without a network, and unpacks it there.

PACK/part1 is what runs pi0-edge: ONNX Runtime with the device code of one compute capability, the programs, small bundles with golden
data, templates of full-size ones, observations. PACK/part2 is what runs lerobot beside an installed PyTorch. Each part is small enough
to be carried on its own, and PACK/part1/contents.json says what to measure.
"""

from __future__ import annotations

import concurrent.futures
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import fatbin

PART_BYTES = 50 << 20
CONTENTS = "part1/contents.json"
EXPORTER = ".venv/bin/python"
POLICIES, PRECISIONS = ("pi0", "pi05"), ("fp16", "bf16", "fp32")
# Templates of full size: the first is measured in every way, the others with all cameras.
FULL = ("pi0-fp16", "pi0-bf16", "pi05-fp16", "pi0-fp32")
CUDA_PROVIDER = "libonnxruntime_providers_cuda.so"
RUNTIME = ("libonnxruntime.so.1", "libonnxruntime_providers_shared.so", CUDA_PROVIDER)
PROGRAMS = ("pi0-edge", "stage_runner")
# What lerobot's policies import and an image with PyTorch, NumPy and OpenCV does not have, or has in another version.
MODULES = ("lerobot", "transformers", "tokenizers", "draccus", "gymnasium", "Farama-Notifications", "mergedeep", "toml", "termcolor",
           "typing-inspect")
# What nothing imports: sources that modules are generated from, and what is for other programs.
UNUSED = ("bin", "tests", "examples", "transformers/models/*/modular_*.py", "transformers/models/*/convert_*.py", "gymnasium/envs/*/assets",
          "lerobot/*/**/*.md", "lerobot/templates")
PINS = ("scripts/reference/requirements.txt", "scripts/reference/requirements-nodeps.txt")


class PackError(Exception):
    """What is wrong, in words."""


def pack(target: Path, compute: int, size: str, bundles: dict[str, Path], prebuilt: Path | None = None) -> None:
    """Writes both parts to `target`. `bundles`: more to measure, each a bundle with golden data or a template."""
    for name, directory in bundles.items():
        if name.partition("-")[0] not in POLICIES or not (directory / "manifest.json").is_file():
            raise PackError(f"{name}={directory}: not the directory of a bundle, or the name does not begin with 'pi0-' or 'pi05-'")
    (target / "part1").mkdir(parents=True, exist_ok=True)
    (target / "part2").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target) as temporary:
        made = Path(temporary)
        _make_programs(made / "bin", prebuilt)
        _make_bundles(made, size)
        for name, directory in bundles.items():
            kind = "templates" if (directory / "weights.json").is_file() else "small"
            shutil.copytree(directory, made / kind / name, dirs_exist_ok=True)
        _archive(target / "part1/pi0-edge.tar.xz", made)
        small = sorted(path.name for path in (made / "small").iterdir())
        first = [name for name in bundles if (made / "templates" / name).is_dir()]
        full = [FULL[0], *first, *(name for name in FULL[1:] if name not in first)]
        contents = {"compute": compute, "size": size, "small": small, "full": full}
        (target / CONTENTS).write_text(json.dumps(contents, indent=1) + "\n")
    _make_runtime(target / f"part1/onnxruntime-sm{compute}.tar.xz", compute)
    _make_modules(target / "part2/modules.tar.xz")
    for part in sorted(target.glob("part?")):
        held = sum(path.stat().st_size for path in part.iterdir())
        print(f"{part}: {held / 2**20:.1f} MiB", file=sys.stderr)
        if held > PART_BYTES:
            raise PackError(f"{part} has {held / 2**20:.1f} MiB; a part may have {PART_BYTES >> 20}")


def contents(packed: Path) -> dict:
    """What is packed there."""
    try:
        return json.loads((packed / CONTENTS).read_text())
    except OSError as error:
        raise PackError(f"{packed} is not packed: {error}; pack with scripts/gpu_bench.sh --pack {packed} --compute 90") from error


def unpack(packed: Path, target: Path) -> None:
    """Unpacks every part that is there, all archives at once; those unpacked before are left as they are."""
    def one(archive: Path) -> None:
        mark = target / f".{archive.name}"
        state = f"{archive.stat().st_size} {archive.stat().st_mtime_ns}"
        if not mark.exists() or mark.read_text() != state:
            with tarfile.open(archive) as tar:
                tar.extractall(target, filter="tar")
            mark.write_text(state)

    target.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(one, sorted(packed.glob("part?/*.tar.xz"))))


def _run(*argv: object) -> None:
    words = [str(word) for word in argv]
    print(" ".join(words), file=sys.stderr, flush=True)
    if subprocess.run(words, stdout=sys.stderr).returncode:
        raise PackError(f"failed: {' '.join(words)}")


def _archive(target: Path, source: Path) -> None:
    """Writes the files under `source` as a compressed archive that appears when it is complete."""
    part = target.with_suffix(".part")
    # Device code and template code repeat over more than the default dictionary's 8 MiB.
    filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 64 << 20}]
    with lzma.open(part, "wb", filters=filters) as out, tarfile.open(fileobj=out, mode="w|") as tar:
        for path in sorted(source.iterdir()):
            tar.add(path, path.name)
    part.replace(target)


def _make_programs(target: Path, prebuilt: Path | None) -> None:
    target.mkdir()
    if prebuilt:
        sources = [prebuilt / name for name in PROGRAMS]
    else:
        _run("cargo", "build", "--release", "--bin", "pi0-edge")
        _run("cargo", "build", "--release", "--bench", "stage_runner")
        built = Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "release"
        runners = [path for path in (built / "deps").glob("stage_runner-*") if not path.suffix]
        sources = [built / "pi0-edge", max(runners, key=lambda path: path.stat().st_mtime)]
    for name, source in zip(PROGRAMS, sources):
        shutil.copy2(source, target / name)


def _make_bundles(made: Path, size: str) -> None:
    """Small bundles of every precision with golden data, templates, and for each policy observations and lerobot's configuration."""
    _run(EXPORTER, "scripts/make_templates.py", made / "templates", "--size", size)
    for policy in POLICIES:
        checkpoint = made / "checkpoint"
        # The checkpoint that models/*-tiny and its golden data were made of.
        _run(EXPORTER, "scripts/make_checkpoint.py", checkpoint, "--policy", policy, "--size", "tiny", "--seed", 0)
        shutil.copytree(f"models/{policy}-tiny/golden", checkpoint / "golden")
        for precision in PRECISIONS:
            bundle = made / f"small/{policy}-{precision}"
            _run(EXPORTER, "scripts/export.py", checkpoint, bundle, "--precision", precision, "--quiet")
        shutil.rmtree(checkpoint)
        _run(EXPORTER, "scripts/gpu_bench/observations.py", made / f"policies/{policy}", "--policy", policy, "--size", size)
    for unused in {path.name for path in (made / "templates").iterdir()} - set(FULL):
        shutil.rmtree(made / "templates" / unused)


def _make_runtime(target: Path, compute: int) -> None:
    """ONNX Runtime with code for one compute capability. Compressing takes a minute: an archive of the same version stays."""
    _run("scripts/fetch_onnxruntime.sh", "--gpu")
    source = Path(".cache/onnxruntime-gpu")
    version, mark = (source / "VERSION").read_text(), target.with_suffix(".version")
    if target.exists() and mark.exists() and mark.read_text() == version:
        return
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        there = Path(temporary, "onnxruntime")
        there.mkdir()
        for name in RUNTIME:
            library = (source / name).read_bytes()
            try:
                (there / name).write_bytes(fatbin.prune(library, compute) if name == CUDA_PROVIDER else library)
            except ValueError as error:
                raise PackError(f"{source / name}: {error}") from error
        _archive(target, Path(temporary))
    mark.write_text(version)


def _make_modules(target: Path) -> None:
    """lerobot and what it imports, for Python 3.12; an archive of the same versions stays."""
    pins = {line.partition("==")[0]: line for path in PINS for line in Path(path).read_text().splitlines() if "==" in line}
    wanted, mark = "\n".join(pins[name] for name in MODULES), target.with_suffix(".version")
    if target.exists() and mark.exists() and mark.read_text() == wanted:
        return
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        site = Path(temporary, "modules")
        # pip takes a wheel only of a platform that is named.
        platforms = [f"--platform={name}_x86_64" for name in ("manylinux2014", "manylinux_2_28", "manylinux_2_17")]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile"]
        for_python = ["--only-binary=:all:", "--ignore-requires-python", "--implementation=cp", "--python-version=3.12", *platforms]
        _run(*pip, *for_python, "--target", site, *wanted.splitlines())
        for unused in UNUSED:
            for path in site.glob(unused):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        _archive(target, Path(temporary))
    mark.write_text(wanted)
