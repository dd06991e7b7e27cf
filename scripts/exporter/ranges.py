"""How large the values of a bundle's graphs get on its golden observations, next to the largest number of half precision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from .errors import ExportError
from .evaluate import Evaluator
from .golden_inputs import golden_inputs
from .pipeline import Pipeline, read_manifest
from .progress import Progress

LARGEST = float(np.finfo(np.float16).max)
# Golden observations are a few of all those a robot will make: what comes within this factor of the largest number is a risk.
MARGIN = 4.0
PRODUCTS = ("Gemm", "MatMul")


@dataclass(frozen=True)
class Range:
    """The largest magnitude of one tensor over all cases and steps, computed in f32."""

    graph: str
    tensor: str
    dtype: str
    max_abs: float
    case: str

    @property
    def headroom(self) -> float:
        """How many times larger it may get before half precision overflows; below one, it does."""
        return LARGEST / self.max_abs if self.max_abs else float("inf")

    def __str__(self) -> str:
        return f"{self.graph}: {self.tensor}: reaches {self.max_abs:.4g} in {self.case}; half precision ends at {LARGEST:.0f}"


class _Scan:
    """The largest magnitudes so far, of the case that is being computed and those before it."""

    def __init__(self) -> None:
        self.case = ""
        self.found: dict[tuple[str, str], Range] = {}
        self._scores: dict[str, set[str]] = {}

    def open(self, path: Path) -> Evaluator:
        evaluator = Evaluator(path, rounding=False, observe=self._observe)
        self._scores[evaluator.graph.name] = _scores(evaluator.graph)
        return evaluator

    def _observe(self, graph: onnx.GraphProto, name: str, dtype: str, array: np.ndarray) -> None:
        if name in self._scores[graph.name]:
            # A mask pushes scores far down, where they may be: a row's largest is what softmax needs to be a number.
            array = array.max(-1)
        # Of both ends, and without a copy. A value that is not finite has overflowed already.
        largest = max(-float(array.min()), float(array.max()))
        largest = largest if np.isfinite(largest) else float("inf")
        key = (graph.name, name)
        if key not in self.found or largest > self.found[key].max_abs:
            self.found[key] = Range(graph.name, name, dtype, largest, self.case)


def scan_ranges(bundle: Path, progress: Progress = Progress()) -> list[Range]:
    """The tensors that half precision stores, the largest first.

    In a bundle of half precision those that it stores so; in one of f32 those that matrix products read and write, which is
    what an export in half precision would.
    """
    manifest, scan = read_manifest(bundle), _Scan()
    if manifest["golden"] is None:
        raise ExportError(f"{bundle}: has no golden observations to compute with; scripts/reference.py records them")
    pipeline = Pipeline(bundle, scan.open)
    for inputs in golden_inputs(bundle, manifest):
        scan.case, what = inputs.name, f"ranges of {inputs.name}"
        progress.start(what, 0)
        cache = pipeline.prefix(pipeline.images(inputs.pixels), inputs.tokens, inputs.state)
        pipeline.denoise(inputs.noise, inputs.state, cache, inputs.num_steps)
        progress.done(what)
    stored = {key for key, found in scan.found.items() if found.dtype in ("f16", "bf16")}
    if manifest["precision"] == "fp32":
        stored = {(name, tensor) for name, evaluator in pipeline.graphs.items() for tensor in _of_products(evaluator.graph)}
    return sorted((scan.found[key] for key in stored & scan.found.keys()), key=lambda found: -found.max_abs)


def _of_products(graph: onnx.GraphProto) -> set[str]:
    products = [node for node in graph.node if node.op_type in PRODUCTS]
    return {name for node in products for name in (*node.input, *node.output)}


def _scores(graph: onnx.GraphProto) -> set[str]:
    """What softmax reads, back to the products it comes from."""
    makers = {name: node for node in graph.node for name in node.output}
    found, queue = set(), [node.input[0] for node in graph.node if node.op_type == "Softmax"]
    while queue:
        name = queue.pop()
        found.add(name)
        if name in makers and makers[name].op_type in ("Cast", "Concat", "Add"):
            queue += makers[name].input
    return found
