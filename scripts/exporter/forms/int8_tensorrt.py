"""8-bit products in the pattern that TensorRT makes one kernel of: inputs rounded by scales that were measured, weights stored in 8 bits.

A product that this is too coarse for has weights of 8 bits and activations of 16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..quantization import INT8, Plan, rounded_rows, whole
from ..sources import Source, Values
from .int8 import Ready
from .tensorrt import AttentionTensorRt, TensorRt

if TYPE_CHECKING:
    from ..graph import Graph


class StaticInt8(TensorRt):
    """The forms of precision ``int8`` for the target ``tensorrt``; what is computed how, ``plan`` says."""

    def __init__(self, plan: Plan):
        self._plan = plan

    def smoothing(self, graph: str, value: str) -> np.ndarray | float:
        return self._plan.smoothing.get((graph, value), 1.0)

    def product(self, g: Graph, name: str, x: str, weight: Source, bias: Source | None = None) -> str:
        full = g.full(name)
        values, scales = whole(weight, self._plan.smoothed(g.name, full), rounded_rows)
        with g.scope(name):
            stored = [g.weight("weight", Ready(values), "i8"), g.weight("scale", Values(scales))]
            operands = [x, g.op("DequantizeLinear", "weight_wide", stored, axis=0)]
            if bias is not None:
                operands.append(g.weight("bias", bias))
        if self._plan.form(g.name, full) == INT8:
            operands[0] = self._rounded(g, x, self._plan.scales[g.name, full])
        return g.op("Gemm", name, operands, transB=1)

    def _rounded(self, g: Graph, x: str, scale: float) -> str:
        """``x`` rounded to signed 8 bits and back; once for all products that read it."""
        names = [f"{x}.{part}" for part in ("bytes", "rounded")]
        if not g.has(names[1]):
            parts = [g.small("scale", np.array(scale), g.compute), g.small("zero", np.array(0), "i8")]
            g.node("QuantizeLinear", names[:1], [x, *parts])
            g.node("DequantizeLinear", names[1:], [names[0], *parts])
        return names[1]


class StaticInt8Attention(StaticInt8, AttentionTensorRt):
    """As ``StaticInt8``, for TensorRT 10.14 and newer."""


FORMS = {forms.version: forms for forms in (StaticInt8, StaticInt8Attention)}
