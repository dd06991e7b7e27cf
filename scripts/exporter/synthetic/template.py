"""The graphs of a bundle without its weights, and for every weight where it goes and how its values are distributed.

A few hundred kilobytes describe a bundle of many gigabytes. ``pi0-edge bench device --synthetic`` fills the weights in, on the device
and with random values: enough to measure how fast a policy runs there, and of no other use. The graphs are built by the exporter
itself, from a checkpoint that exists in name only.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from math import prod
from pathlib import Path
from typing import Iterator

import numpy as np

from ..forms import Portable
from ..graph import ALIGNMENT, NUMPY, Graph
from ..graphs import GRAPHS
from ..manifest import Options, build_manifest, embedding_factor
from ..model import Model
from ..processors import read_lerobot
from ..sources import Rows, Source
from ..weights_file import Tensor, WeightsFile
from .processors import write_config, write_processors
from .spec import CheckpointSpec
from .tensors import TensorSpec, checkpoint_tensors
from .tokenizer import write_tokenizer

RECIPE = "weights.json"
RECIPE_VERSION = 1
# Tensors of more values than this are only looked at for how their values are distributed.
POOL = 1 << 21
# And so many of them are looked at.
LOOKED_AT = 1 << 16
# A weight of at most so many different values is a constant, such as a mask, and is kept as it is.
FEW = 4


def write_template(directory: Path, spec: CheckpointSpec, options: Options) -> None:
    """Writes graphs, tokenizer, manifest and recipe of ``spec`` to the new directory ``directory``."""
    compute = options.compute
    directory.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint = Path(temporary)
        write_config(checkpoint, spec)
        write_processors(checkpoint, spec)
        write_tokenizer(checkpoint / "tokenizer")
        shutil.copyfile(checkpoint / "tokenizer/tokenizer.json", directory / "tokenizer.json")
        config, processing = read_lerobot(checkpoint)
    model = Model(ImaginaryWeights(spec), config, spec.vision_heads)

    recipe: dict[str, dict] = {}
    graphs = []
    for name, _, build in GRAPHS:
        graph = TemplateGraph(directory, name, compute, options.forms)
        build(graph, model)
        graph.write()
        graphs.append(graph)
        if graph.recipe.size:
            recipe[graph.data.path.name] = graph.recipe.to_json()
    table = Recipe()
    table.append(Rows((model.embedding, embedding_factor(model.dimensions.prefix_width))), NUMPY[compute])
    recipe["token_embedding.bin"] = table.to_json()

    text = json.dumps({"version": RECIPE_VERSION, "files": recipe}, separators=(",", ":"))
    (directory / RECIPE).write_text(text + "\n", encoding="utf-8")
    kept = sorted(path.name for path in directory.iterdir() if path.name != RECIPE)
    files = {name: _record(directory / name) for name in kept}
    digest = hashlib.sha256(text.encode()).hexdigest()
    manifest = build_manifest(
        f"{spec.policy}, random weights", digest, config, processing, model.dimensions, graphs, set(), None, files, options,
    )
    manifest["source"]["format"] = "synthetic"
    (directory / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


class TemplateGraph(Graph):
    """A graph whose weights are described and not written."""

    def __init__(self, directory: Path, name: str, compute: str, forms: Portable):
        super().__init__(directory, name, compute, forms=forms)
        self.recipe = Recipe()
        self.data.__exit__()
        self.data.path.unlink()

    def _store(self, source: Source, kind: np.dtype, blocks: Iterator[np.ndarray]) -> tuple[int, int]:
        return self.recipe.append(source, kind)


class Recipe:
    """What a file of weights holds: runs of values of one distribution, at increasing offsets."""

    def __init__(self) -> None:
        self.size = 0
        self._runs: list[dict] = []

    def append(self, source: Source, kind: np.dtype) -> tuple[int, int]:
        """Describes a weight at the next aligned place; returns where that is and how long it is."""
        start = self.size = -(-self.size // ALIGNMENT) * ALIGNMENT
        dtype = next(name for name, known in NUMPY.items() if known == kind)
        for piece in source.pieces():
            block = next(iter(piece.blocks())).reshape(-1)
            runs = _constant_runs(block) if block.size == piece.count else None
            some = block[:LOOKED_AT]
            for mean, spread, count in runs or [(float(some.mean(dtype=float)), float(some.std(dtype=float)), piece.count)]:
                # Few digits of what was measured; a constant stays exactly itself.
                mean, spread = (_short(mean), _short(spread)) if spread else (mean, 0.0)
                run = {"offset": self.size, "count": count, "dtype": dtype, "mean": mean, "std": spread}
                self._runs.append(run)
                self.size += count * kind.itemsize
        return start, self.size - start

    def to_json(self) -> dict:
        return {"size": self.size, "runs": self._runs}


class ImaginaryWeights(WeightsFile):
    """A weights file that is not there: its tensors have the shapes and distributions of a checkpoint's."""

    def __init__(self, spec: CheckpointSpec):
        self.path = Path(f"{spec.policy} with random weights")
        self._specs: dict[str, TensorSpec] = {}
        self.tensors = {}
        for tensor in checkpoint_tensors(spec):
            self._specs[tensor.name] = tensor
            self.tensors[tensor.name] = Tensor(self, tensor.name, "F32", tensor.shape, 0)
        self._pool = np.random.default_rng(spec.seed).standard_normal(2 * POOL, dtype=np.float32)

    def values(self, tensor: Tensor) -> np.ndarray:
        known = self._specs[tensor.name]
        # Another part of the pool for every tensor, so that products of two do not correlate.
        start = int.from_bytes(hashlib.sha256(tensor.name.encode()).digest()[:4], "little") % POOL
        if known.count <= POOL:
            return (self._pool[start : start + known.count] * known.scale + known.offset).reshape(tensor.shape)
        return FirstRows(self._pool[start : start + max(LOOKED_AT, prod(tensor.shape[1:]))] * known.scale + known.offset, tensor.shape)

    def release(self, tensor: Tensor) -> None:
        pass


class FirstRows:
    """A tensor of which only the first block is ever read: any slice of its rows has the values of the first rows."""

    def __init__(self, values: np.ndarray, shape: tuple[int, ...]):
        columns = prod(shape[1:])
        self._rows = values[: values.size // columns * columns].reshape(-1, *shape[1:])

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self._rows[: rows.stop - rows.start]


def _constant_runs(values: np.ndarray) -> list[tuple[float, float, int]] | None:
    if np.unique(values[:LOOKED_AT]).size > FEW or np.unique(values).size > FEW:
        return None
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    lengths = np.diff(np.r_[starts, values.size])
    return [(float(values[start]), 0.0, int(length)) for start, length in zip(starts, lengths)]


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _record(path: Path) -> dict:
    content = path.read_bytes()
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
