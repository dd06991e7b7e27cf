"""Products of 16 bits with weights of 8 and 4 bits, as ONNX Runtime's CUDA provider has kernels for them: in blocks of 32, without a bias."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..quantization import EXPERT, PLAIN, Plan
from ..sources import Source, Values
from .fused import CONTRIB, Fused
from .int8 import Ready, block_sizes

if TYPE_CHECKING:
    from ..graph import Graph

STATE = "state."


class Bytes(Fused):
    """The forms of the precisions ``int8`` and ``int4`` for the target ``cuda``; what is computed how, ``plan`` says."""

    def __init__(self, plan: Plan):
        self._plan = plan

    def product(self, g: Graph, name: str, x: str, weight: Source, bias: Source | None = None) -> str:
        full = g.full(name)
        # The state token, which the prefill computes, goes through the expert's layers.
        key = (EXPERT, full.removeprefix(STATE)) if full.startswith(STATE) else (g.name, full)
        product = self._plan.products.get(key)
        if product is None or product.form == PLAIN:
            return super().product(g, name, x, weight, bias)
        values, scales = self._plan.weights_in_blocks(product.form, key, weight)
        with g.scope(name):
            stored = [g.weight("weight", Ready(values), "u8"), g.weight("scale", Values(scales.reshape(-1)))]
            added = [] if bias is None else [g.weight("bias", bias)]
        place = f"{name}.product" if added else name
        result = g.op("MatMulNBits", place, [x, *stored], domain=CONTRIB, **block_sizes(weight, product.form))
        return g.op("Add", name, [result, *added]) if added else result
