"""How the products of a quantised bundle are computed, and what decides it: the activations of calibration observations.

The graphs are built once in f32, with weights that stay in the checkpoint, and run by numpy. For the input of every product, its range
in each run and a sample of its rows are kept; the rest is arithmetic on those and on the weights, which are streamed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Callable, Iterator

import numpy as np
import onnx

from .errors import ExportError
from .evaluate import Evaluator, in_blocks
from .gptq import gptq
from .graph import Graph
from .sources import Source

SMOOTHING = 0.5  # how much of an input's range its weights take over: none at 0, all at 1
BLOCK = 32  # values of a row with a scale of their own, where one scale is not enough
# The relative L2 error up to which a product is computed in a form, and not in the next one.
LIMIT = 3e-2
SAMPLE = 96  # rows of every input that are looked at
OUTPUTS = 1024  # of every product that are looked at, about
# 8-bit products with one scale for the whole input; with one for every BLOCK values of a row, on both sides; products as wide as the
# activations are, with 8-bit weights in such blocks, or with a scale for each row; or with weights as wide.
INT8, BLOCKS, WIDE, ROWS, PLAIN = "int8", "blocks", "wide", "rows", "plain"
# Weights of 4 bits with a scale for every BLOCK values; of the denoise step in precision int4. What they may be off by themselves.
INT4 = "int4"
INT4_LIMIT = 0.2
EXPERT = "denoise_step"
# What the gated MLP ends with: its inputs vary most, and it is two fifths of the weights.
DOWN = "mlp.down"


@dataclass(frozen=True)
class Scheme:
    """What a target has kernels for: the forms from the fastest to the most exact. ``static``: the scale of an input is the largest that
    the calibration saw, and its zero is zero; else each run finds its own. ``smooths``: activations are rounded, so that it helps."""

    name: str
    forms: tuple[str, ...]
    static: bool = False
    smooths: bool = True


SCHEMES = {
    ("int8", "cpu"): Scheme("w8a8_dynamic", (INT8, BLOCKS, WIDE)),
    ("int4", "cpu"): Scheme("w4_gptq_denoise", (INT8, BLOCKS, WIDE)),
    ("int8", "cuda"): Scheme("w8a16", (WIDE, PLAIN), smooths=False),
    ("int4", "cuda"): Scheme("w4_gptq_denoise_w8a16", (WIDE, PLAIN), smooths=False),
    ("int8", "tensorrt"): Scheme("w8a8_static", (INT8, ROWS), static=True),
}


class SourceGraph(Graph):
    """A graph in f32 whose weights are not written: they stay where they come from."""

    def __init__(self, directory: Path, name: str, forms, padded: bool):
        super().__init__(directory, name, "f32", forms=forms, padded_prefix=padded)
        self.data.__exit__()
        self.data.path.unlink()
        self.sources: dict[str, Source] = {}
        self.products: dict[str, str] = {}  # what a product reads, by the name of the product
        self._narrow: set[str] = set()  # weights that are not f32 in every precision

    def weight(self, name: str, source: Source, dtype: str | None = None) -> str:
        self.sources[self.full(name)] = source
        if dtype is None:
            self._narrow.add(self.full(name))
        return super().weight(name, source, dtype)

    def node(self, kind: str, names: list[str], inputs: list[str], **attributes) -> list[str]:
        if kind == "Gemm" and inputs[1] in self._narrow:
            self.products[names[0]] = inputs[0]
        return super().node(kind, names, inputs, **attributes)

    def _store(self, source: Source, kind: np.dtype, blocks: Iterator[np.ndarray]) -> tuple[int, int]:
        return 0, 0


class SourceEvaluator(Evaluator):
    """Evaluates a ``SourceGraph``; a weight is read when it is used."""

    def __init__(self, graph: SourceGraph, observe):
        self._sources = graph.sources
        super().__init__(graph.path, observe=observe)

    def _open(self, tensor: onnx.TensorProto):
        return None if tensor.data_location == onnx.TensorProto.EXTERNAL else super()._open(tensor)

    def _weight(self, name: str) -> tuple[np.ndarray, str]:
        source = self._sources[name] if self._weights[name] is None else None
        return self._weights[name] if source is None else (np.concatenate(list(source.blocks())).reshape(source.shape), "f32")


@dataclass
class Activations:
    """An input of products over all runs: the ends of every column's values in each run, and some rows with the run they are of."""

    lows: list[np.ndarray] = field(default_factory=list)
    highs: list[np.ndarray] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)
    gram: np.ndarray | float = 0.0  # of all rows, where it is wanted

    def add(self, values: np.ndarray, runs: int, gram: bool) -> None:
        if not np.isfinite(values).all():
            raise ExportError("the calibration observations make values that are not finite; the checkpoint is damaged")
        if gram:
            self.gram += values.T @ values
        self.lows.append(values.min(0))
        self.highs.append(values.max(0))
        count = min(len(values), -(-SAMPLE // runs))
        self.rows.append(values[np.linspace(0, len(values) - 1, count).astype(int)])

    def largest(self) -> np.ndarray:
        return np.maximum(np.max(self.highs, 0), -np.min(self.lows, 0))

    def scale(self, smoothing: np.ndarray | float) -> float:
        """The scale that takes all values, divided by ``smoothing``, to signed 8 bits."""
        return float((self.largest() / smoothing).max() / 127)

    def smoothed(self, smoothing: np.ndarray | float, static: bool) -> tuple[np.ndarray, np.ndarray]:
        """The sample [rows, columns] divided by ``smoothing``, and as 8 bits have it: those of each run, or with one scale for all."""
        exact, rounded = [], []
        for low, high, rows in zip(self.lows, self.highs, self.rows):
            rows = rows / smoothing
            if static:
                exact.append(rows)
                rounded.append(np.rint(rows / self.scale(smoothing)) * self.scale(smoothing))
                continue
            low, high = min((low / smoothing).min(), 0), max((high / smoothing).max(), 0)
            scale = np.float32((high - low) / 255 or 1)
            zero = np.rint(-low / scale)
            exact.append(rows)
            rounded.append((np.clip(np.rint(rows / scale) + zero, 0, 255) - zero) * scale)
        return np.concatenate(exact), np.concatenate(rounded).astype(np.float32)


class Calibration:
    """Looks on while graphs are evaluated. ``int4``: for weights of 4 bits in the denoise step."""

    def __init__(self, graphs: dict[str, SourceGraph], runs: dict[str, int], int4: bool = False):
        self._wanted = {name: set(graph.products.values()) for name, graph in graphs.items()}
        self._grams = {value for product, value in graphs[EXPERT].products.items() if int4 and not product.endswith(DOWN)}
        self._runs = runs
        self.activations: dict[tuple[str, str], Activations] = {}

    def observe(self, graph: onnx.GraphProto, name: str, dtype: str, values: np.ndarray) -> None:
        if name in self._wanted[graph.name]:
            gram = graph.name == EXPERT and name in self._grams
            self.activations.setdefault((graph.name, name), Activations()).add(values, self._runs[graph.name], gram)


@dataclass(frozen=True)
class Product:
    """One product: the form it is computed in, and its relative L2 error in that form and in the one that the precision has. ``kept``:
    it is another one, and ``why``: ``measured``, ``asked`` by the user, or ``rule``."""

    graph: str
    name: str
    form: str
    error: float
    plain_error: float
    kept: bool = False
    why: str = "measured"

    @property
    def kind(self) -> str:
        """The product's place in a layer, such as ``mlp.down``."""
        parts = self.name.split(".")
        return ".".join(parts[2:] if parts[0] == "layer" else parts)

    def to_json(self) -> dict:
        kept = {"graph": self.graph, "product": self.name, "form": self.form}
        return kept | {"why": self.why} | ({"error": _short(self.plain_error)} if self.why == "measured" else {})


class Plan:
    """The form of every product, and what its input is smoothed by; by graph, and the value's or product's name, as the portable
    forms in f32 have it."""

    def __init__(self, scheme: Scheme) -> None:
        self.scheme = scheme
        self.products: dict[tuple[str, str], Product] = {}
        self.smoothing: dict[tuple[str, str], np.ndarray] = {}
        self.inputs: dict[tuple[str, str], str] = {}  # what a product reads
        self.scales: dict[tuple[str, str], float] = {}  # of a product's input, where it is static
        # Weights of 4 bits, which are rounded for the inputs: bytes [rows, blocks, BLOCK / 2] and scales [rows, blocks].
        self.int4: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}

    def form(self, graph: str, product: str) -> str:
        return self.products[graph, product].form

    def weights_in_blocks(self, form: str, key: tuple[str, str], weight: Source) -> tuple[np.ndarray, np.ndarray]:
        """A product's weights times their smoothing, in blocks of 4 or 8 bits: bytes [rows, blocks, bytes of a block], scales [rows, blocks]."""
        if form == INT4:
            values, scales = self.int4[key]
            # The half of a gated MLP that divides its columns: they are rows here, and rows are rounded one by one.
            graph, name = key
            divided = self.smoothing.get((graph, f"{name.removesuffix('up')}hidden")) if name.endswith(".up") else None
            return values, scales if divided is None else scales / divided[:, None]
        return whole(weight, self.smoothed(*key), rounded_blocks)

    def smoothed(self, graph: str, product: str) -> np.ndarray | float:
        """What the input of a product is divided by."""
        return self.smoothing.get((graph, self.inputs[graph, product]), 1.0)

    def kept(self) -> list[Product]:
        return [product for product in self.products.values() if product.kept]


def make_plan(
    scheme: Scheme, graphs: dict[str, SourceGraph], calibration: Calibration, keep: tuple[str, ...],
    progress: Callable[[int], None] = lambda done: None, int4: bool = False,
) -> Plan:
    """Smooths what can be smoothed, and measures every product. ``keep``: patterns of ``graph.product`` that are to be more exact than the
    precision says; ``int4``: that is 4 bits in the denoise step."""
    plan, unused = Plan(scheme), set(keep)
    for graph in graphs.values():
        readers: dict[str, list[str]] = {}
        for product, value in graph.products.items():
            readers.setdefault(value, []).append(product)
        for value, products in readers.items():
            seen = calibration.activations[graph.name, value]
            looked = [_look(f"{graph.name}: {name}", graph.sources[name + ".weight"]) for name in products]
            smoothing: np.ndarray | float = 1.0
            if scheme.smooths and can_be_smoothed(value):
                smoothing = _smoothing(seen.largest(), np.max([largest for largest, _ in looked], 0))
                plan.smoothing[graph.name, value] = smoothing
            inputs = seen.smoothed(smoothing, scheme.static)
            for name, (_, rows) in zip(products, looked):
                patterns = {pattern for pattern in keep if fnmatchcase(f"{graph.name}.{name}", pattern)}
                unused -= patterns
                plan.inputs[graph.name, name] = value
                plan.scales[graph.name, name] = seen.scale(smoothing)
                why = "asked" if patterns else "rule" if int4 and graph.name == EXPERT and name.endswith(DOWN) else "measured"
                product = None
                if int4 and graph.name == EXPERT and why == "measured":
                    product = _in_4_bits(plan, name, graph.sources[name + ".weight"], seen, inputs[0], smoothing)
                if product is None or product.error > INT4_LIMIT:
                    wider = _measured(scheme, graph.name, name, inputs, rows * smoothing, why)
                    product = replace(wider, kept=True, plain_error=product.error) if product else wider
                plan.products[graph.name, name] = product
                progress(len(plan.products))
    if unused:
        some = next(iter(plan.products))
        raise ExportError(f"--keep: no product is named {sorted(unused)[0]}; products are named like {'.'.join(some)}, and * stands for anything")
    return plan


def can_be_smoothed(value: str) -> bool:
    """Whether what makes ``value`` can divide its columns: a norm, and the product that gates an MLP."""
    return value.rsplit(".", 1)[-1] in ("scaled", "shifted", "norm", "hidden")


def rounded_rows(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows as int8, and the scale of each."""
    scales = np.abs(weight).max(1) / np.float32(127)
    scales[scales == 0] = 1
    return np.rint(weight / scales[:, None]).astype(np.int8), scales


def rounded_blocks(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows in blocks [rows, blocks, BLOCK] as bytes about 128, and scales [rows, blocks]."""
    blocks = np.pad(weight, ((0, 0), (0, -weight.shape[1] % BLOCK))).reshape(len(weight), -1, BLOCK)
    scales = np.abs(blocks).max(-1) / np.float32(127)
    scales[scales == 0] = 1
    return (np.rint(blocks / scales[..., None]) + 128).astype(np.uint8), scales


def whole(weight: Source, smoothing: np.ndarray | float, rounded: Callable) -> tuple[np.ndarray, np.ndarray]:
    """A weight times its smoothing, rounded block of rows by block of rows."""
    parts = [rounded(block * smoothing) for block in weight.blocks()]
    return tuple(np.concatenate(part) for part in zip(*parts))


def _look(name: str, source: Source) -> tuple[np.ndarray, np.ndarray]:
    """The largest magnitude of every column of a weight, and some of its rows."""
    largest, rows, step = np.zeros(source.shape[1], np.float32), [], max(1, source.shape[0] // OUTPUTS)
    for block in source.blocks():
        np.maximum(largest, np.abs(block).max(0), out=largest)
        rows.append(block[::step].copy())
    if not largest.any():
        raise ExportError(f"{name}: every weight is zero, so that there is nothing to quantise; the checkpoint is not a trained one")
    return largest, np.concatenate(rows)


def _smoothing(inputs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """What each column is divided by, about one in the middle. Columns that nothing is in stay as they are."""
    counts = (inputs > 1e-5 * inputs.max()) & (weights > 1e-5 * weights.max())
    smoothing = np.ones(len(inputs), np.float32)
    smoothing[counts] = inputs[counts] ** SMOOTHING / weights[counts] ** (1 - SMOOTHING)
    return (smoothing / np.exp(np.log(smoothing).mean())).clip(1e-3, 1e3).astype(np.float32)


def _in_4_bits(
    plan: Plan, name: str, source: Source, seen: Activations, inputs: np.ndarray, smoothing: np.ndarray | float,
) -> Product:
    """A product of the denoise step with weights of 4 bits, which become the plan's."""
    weight = np.concatenate(list(source.blocks())) * smoothing
    wanted, columns = inputs @ weight.T, weight.shape[1]
    fill = -columns % BLOCK
    gram = seen.gram / (smoothing * np.reshape(smoothing, (-1, 1)))
    integers, scales = gptq(np.pad(weight, ((0, 0), (0, fill))), np.pad(gram, (0, fill)), BLOCK)
    inputs = in_blocks(inputs, BLOCK) if BLOCKS in plan.scheme.forms else inputs
    got = inputs @ (integers.reshape(*scales.shape, BLOCK) * scales[..., None]).reshape(len(weight), -1)[:, :columns].T
    error = relative_l2(got, wanted)
    halves = (integers + 8).astype(np.uint8).reshape(*scales.shape, BLOCK)
    plan.int4[EXPERT, name] = halves[..., ::2] | halves[..., 1::2] << 4, scales
    return Product(EXPERT, name, INT4, error, error)


def _measured(scheme: Scheme, graph: str, name: str, inputs: tuple[np.ndarray, np.ndarray], weight: np.ndarray, why: str) -> Product:
    exact, rounded = inputs
    wanted = exact @ weight.T
    errors: dict[str, float] = {}
    for form in scheme.forms:
        if form == PLAIN:
            near = weight
        elif form in (INT8, ROWS):
            integers, scales = rounded_rows(weight)
            near = integers * scales[:, None]
        else:
            values, scales = rounded_blocks(weight)
            near = ((values.astype(np.float32) - 128) * scales[..., None]).reshape(len(weight), -1)[:, : weight.shape[1]]
        got = {INT8: rounded, BLOCKS: in_blocks(exact, BLOCK)}.get(form, exact) @ near.T
        errors[form] = relative_l2(got, wanted)
        # What the user asked to be more exact is not in the first form, and what takes the place of 4 bits not in one that rounds inputs as a whole.
        passed = why == "asked" and form == scheme.forms[0] or why == "rule" and form == INT8
        if errors[form] <= LIMIT and not passed:
            break
    return Product(graph, name, form, errors[form], errors[scheme.forms[0]], why == "rule" or form != scheme.forms[0], why)


def relative_l2(got: np.ndarray, wanted: np.ndarray) -> float:
    """The length of the difference as a share of the length of what was wanted."""
    got, wanted = (np.asarray(values, np.float64).ravel() for values in (got, wanted))
    length = np.linalg.norm(wanted)
    return float(np.linalg.norm(got - wanted) / length) if length else float(bool(got.any()))


def _short(value: float) -> float:
    return float(f"{value:.3g}")
