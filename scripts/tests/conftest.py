"""Paths and checkpoints the tests share."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1]
for place in (SCRIPTS, SCRIPTS / "tests"):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))

import host  # noqa: E402, F401  (opts out of ONNX Runtime's telemetry before anything can load it)
from exporter.synthetic.spec import make_spec  # noqa: E402
from make_checkpoint import make_checkpoint  # noqa: E402


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A tiny checkpoint, for reading only."""
    directory = tmp_path_factory.mktemp("tiny") / "checkpoint"
    make_checkpoint(directory, make_spec("tiny", seed=1))
    return directory


@pytest.fixture
def broken(tiny, tmp_path) -> Path:
    """A copy of the tiny checkpoint to break."""
    return shutil.copytree(tiny, tmp_path / "checkpoint")


@pytest.fixture(scope="session", params=["pi0", "pi05"])
def recorded(request, tmp_path_factory) -> Path:
    """The checkpoint that models/*-tiny was made of, with lerobot's golden outputs; for reading only."""
    directory = tmp_path_factory.mktemp("recorded") / request.param
    make_checkpoint(directory, make_spec("tiny", seed=0, policy=request.param))
    shutil.copytree(SCRIPTS.parent / f"models/{request.param}-tiny/golden", directory / "golden")
    return directory


def edit_json(path: Path, edit) -> None:
    """Changes a JSON file by a function that is given its content."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def edit_weights(path: Path, edit) -> None:
    """Changes a safetensors file by a function that is given {name: [dtype, shape, bytes]}."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header, data = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    header.pop("__metadata__", None)
    tensors = {
        name: [entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])]] for name, entry in header.items()
    }
    edit(tensors)
    offset, header = 0, {}
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(content)]}
        offset += len(content)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(content for *_, content in tensors.values()))
