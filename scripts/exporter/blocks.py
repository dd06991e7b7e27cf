"""The Gemma layers that prefill and denoise step are made of. Batch is always one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .forms.portable import Modulation, Residual, Rotary, linear
from .graph import Graph
from .model import Dimensions, Model
from .sources import Rows


@dataclass(frozen=True)
class GemmaStack:
    """One of the two Gemma models: where its tensors are, how wide it is, and its norms' modulation if time has any part in them."""

    model: Model
    root: str
    width: int
    modulation: dict[str, Modulation] | None = None

    @property
    def dimensions(self) -> Dimensions:
        return self.model.dimensions

    def layer(self, index: int) -> str:
        return f"{self.root}layers.{index}."

    def scale(self, norm: str) -> np.ndarray | Modulation:
        return self.model.vector(norm + ".weight") if self.modulation is None else self.modulation[norm]

    def _gate(self, norm: str) -> str | None:
        """What a branch is multiplied by: the gate of the norm it began with."""
        return None if self.modulation is None else self.modulation[norm].gate

    def queries_keys_values(
        self, g: Graph, residual: Residual, index: int, rotary: Rotary, cache: str | None = None,
    ) -> tuple[str, str, str]:
        """The norm before attention, and queries, scaled and rotated, keys, rotated, and values, in the layout of the forms."""
        d, attention = self.dimensions, self.layer(index) + "self_attn."
        x = residual.rms_norm("norm", self.scale(self.layer(index) + "input_layernorm"))
        scaled = (self.model[attention + "q_proj.weight"], d.head_dim**-0.5)
        weights = Rows(scaled, self.model[attention + "k_proj.weight"], self.model[attention + "v_proj.weight"])
        return g.forms.project(g, d, x, weights, rotary, cache)

    def keys_values(self, g: Graph, residual: Residual, index: int, rotary: Rotary, cache: str | None = None) -> tuple[str, str]:
        """Keys and values alone, for the layer of which nothing else is used."""
        d, attention = self.dimensions, self.layer(index) + "self_attn."
        x = residual.rms_norm("norm", self.scale(self.layer(index) + "input_layernorm"))
        weights = Rows(self.model[attention + "k_proj.weight"], self.model[attention + "v_proj.weight"])
        return g.forms.project_keys(g, d, x, weights, rotary, cache)

    def attention_output(self, g: Graph, heads: str, residual: Residual, index: int) -> None:
        """Puts the heads of each token side by side, projects them, and adds them to the residual stream."""
        d, layer = self.dimensions, self.layer(index)
        together = g.op("Reshape", "heads", [heads, g.ints(-1, d.query_heads * d.head_dim)])
        weight = Rows(self.model[layer + "self_attn.o_proj.weight"])
        residual.add("output", together, weight, gate=self._gate(layer + "input_layernorm"))

    def mlp(self, g: Graph, residual: Residual, index: int) -> None:
        """The gated MLP with its norm, added to the residual stream."""
        layer = self.layer(index)
        x = residual.rms_norm("norm", self.scale(layer + "post_attention_layernorm"))
        # Two products: splitting one product in two would copy the widest activation of the model.
        factors = {"gate": 1.0, "up": 1 / g.forms.smoothing(g.name, g.full("hidden"))}
        gate, up = (linear(g, name, x, Rows((self.model[f"{layer}mlp.{name}_proj.weight"], factor))) for name, factor in factors.items())
        hidden = g.op("Mul", "hidden", [g.op("Gelu", "gelu", [gate], approximate="tanh"), up])
        residual.add("down", hidden, Rows(self.model[layer + "mlp.down_proj.weight"]), gate=self._gate(layer + "post_attention_layernorm"))
