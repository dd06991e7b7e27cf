"""Products with weights of 8 and 4 bits as ONNX Runtime's CPU provider has kernels for them; everything else as the portable forms have it.

One scale for the whole input, found while it runs, and one for every row of the weights; or scales for blocks of both, for an input
that one scale is not enough for. Activations are unsigned and weights signed, which is what processors multiply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterator

import numpy as np

from ..quantization import BLOCK, BLOCKS, INT4, INT8, WIDE, Plan, rounded_rows, whole
from ..sources import Source, Values
from .fused import CONTRIB
from .portable import Portable

if TYPE_CHECKING:
    from ..graph import Graph

# Of MatMulNBits, how exact the activations are: f32, and 8 bits.
EXACT, BYTES = 1, 4


class DynamicInt8(Portable):
    """The forms of the precisions ``int8`` and ``int4`` for the target ``cpu``; what is computed how, ``plan`` says."""

    domains = {CONTRIB: 1}

    def __init__(self, plan: Plan):
        self._plan = plan
        if any(product.form in (BLOCKS, WIDE) for product in plan.products.values()):
            self.onnxruntime = "1.23"  # an older one has blocks of 4 bits alone

    def smoothing(self, graph: str, value: str) -> np.ndarray | float:
        return self._plan.smoothing.get((graph, value), 1.0)

    def product(self, g: Graph, name: str, x: str, weight: Source, bias: Source | None = None) -> str:
        full = g.full(name)
        form = self._plan.form(g.name, full)
        with g.scope(name):
            added = [] if bias is None else [g.weight("bias", bias)]
            if form == INT8:
                values, scales = whole(weight, self._plan.smoothed(g.name, full), rounded_rows)
                weights = [
                    g.weight("weight", Ready(np.ascontiguousarray(values.T)), "i8"),
                    g.weight("scale", Values(scales)),
                    # Each weight's own: where ONNX Runtime makes weights unsigned, 1.23 ends the process without one, and all refuse a shared one.
                    g.weight("zero", Ready(np.zeros(1, np.int8)), "i8"),
                ]
            else:
                values, scales = self._plan.weights_in_blocks(form, (g.name, full), weight)
                weights = [g.weight("weight", Ready(values), "u8"), g.weight("scale", Values(scales.reshape(-1)))]
        if form == INT8:
            rounded, scale, zero = self._rounded(g, x)
            operands = [rounded, weights[0], scale, weights[1], zero, weights[2], *added]
            return g.op("MatMulIntegerToFloat", name, operands, domain=CONTRIB)
        level = EXACT if form == WIDE else BYTES
        sizes = block_sizes(weight, form) | {"accuracy_level": level}
        place = f"{name}.product" if added else name
        product = g.op("MatMulNBits", place, [x, *weights], domain=CONTRIB, **sizes)
        return g.op("Add", name, [product, *added]) if added else product

    def _rounded(self, g: Graph, x: str) -> list[str]:
        """``x`` in 8 bits, its scale and its zero; made once for all products that read it."""
        names = [f"{x}.{part}" for part in ("bytes", "scale", "zero")]
        return names if g.has(names[0]) else g.node("DynamicQuantizeLinear", names, [x])


class Ready:
    """Values in their own dtype."""

    def __init__(self, values: np.ndarray):
        self._values, self.shape, self.count = values, values.shape, values.size

    def blocks(self) -> Iterator[np.ndarray]:
        yield self._values

    def pieces(self) -> Iterator[Ready]:
        yield self


def block_sizes(weight: Source, form: str) -> dict[str, int]:
    """The attributes of MatMulNBits that say how large its weights are."""
    return {"N": weight.shape[0], "K": weight.shape[1], "bits": 4 if form == INT4 else 8, "block_size": BLOCK}
