"""prefix_prefill: embedded images and prompt in, the keys and values of every layer out."""

from __future__ import annotations

from ..blocks import GemmaStack
from ..config import PI05
from ..graph import Graph
from ..model import EXPERT, PREFIX, Model
from .denoise import linear_f32


def build(g: Graph, model: Model) -> None:
    d = model.dimensions
    stack = GemmaStack(model, PREFIX, d.prefix_width)
    embeds = g.input("prefix_embeds", g.compute, [1, "prefix", d.prefix_width])
    padding = g.forms.padding(g)
    rotary = g.forms.rotary(g, "prefix", d.head_dim)
    state = StateToken(g, model, padding) if g.forms.state_in_prefill and model.config.policy != PI05 else None
    rows = g.op("Reshape", "prefix_rows", [embeds, g.ints(-1, d.prefix_width)])
    x = g.forms.embedded(g, rows)
    for i in range(d.layers):
        cache = None if state else f"present.{i}"
        with g.scope(f"layer.{i}.attention"):
            last = i == d.layers - 1
            if last:
                # Only keys and values leave the graph: the rest of the last layer would be computed for nobody.
                key, value = stack.keys_values(g, x, i, rotary, cache)
            else:
                query, key, value = stack.queries_keys_values(g, x, i, rotary, cache)
        if state:
            state.layer(i, key, value, last)
        else:
            g.forms.cache(g, d, i, key, value)
        if last:
            break
        with g.scope(f"layer.{i}.attention"):
            stack.attention_output(g, g.forms.attend(g, d, query, key, value, padding), x, i)
        with g.scope(f"layer.{i}.mlp"):
            stack.mlp(g, x, i)


class StateToken:
    """PI0's state token, where it is computed once and not in every step: it sees the prefix and itself. Its keys and values are the
    first rows of the cache."""

    def __init__(self, g: Graph, model: Model, padding: list[str]):
        d = model.dimensions
        self._g, self._d = g, d
        self._stack = GemmaStack(model, EXPERT, d.expert_width)
        state = g.input("state", "f32", [1, model.config.max_state_dim])
        self._rotary = g.forms.rotary(g, 1, d.head_dim, "state_")
        with g.scope("state"):
            self._count = [g.op("Add", "key_rows", [*padding, g.ints(1)])] if padding else []
            self._rows = g.forms.residual(g, linear_f32(g, model, "state_proj", state))

    def layer(self, i: int, key: str, value: str, last: bool) -> None:
        """Puts the token's key and value before those of the prefix, and takes it through the layer."""
        g, d, x = self._g, self._d, self._rows
        with g.scope(f"state.layer.{i}.attention"):
            if last:
                own = self._stack.keys_values(g, x, i, self._rotary)
            else:
                query, *own = self._stack.queries_keys_values(g, x, i, self._rotary)
        cached = [
            g.named_output("Concat", f"present.{i}.{name}", [first, rest], g.compute, [1, "cache", d.head_dim], axis=1)
            for name, first, rest in zip(("key", "value"), own, (key, value))
        ]
        if last:
            return
        with g.scope(f"state.layer.{i}.attention"):
            self._stack.attention_output(g, g.forms.attend(g, d, query, *cached, self._count), x, i)
        with g.scope(f"state.layer.{i}.mlp"):
            self._stack.mlp(g, x, i)
