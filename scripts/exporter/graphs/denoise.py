"""denoise_step: one Euler step of the flow, guidance by the previous chunk included."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..blocks import GemmaStack
from ..config import PI05
from ..forms.portable import Modulation
from ..graph import Graph
from ..model import EXPERT, Model
from ..sources import Rows, Values
from . import time_conditioning


def build(g: Graph, model: Model) -> None:
    d, config = model.dimensions, model.config
    horizon, actions = d.action_horizon, config.max_action_dim
    token = config.policy != PI05  # there is a state token
    has_state = token and not g.forms.state_in_prefill
    suffix = horizon + has_state

    x_t = g.input("x_t", "f32", [1, horizon, actions])
    step = g.input("step", "i64", [1])
    schedule = g.input("schedule", "f32", ["steps", 3])
    time_table = g.input("time_table", "f32", ["steps", time_conditioning.row_width(model)])
    state = g.input("state", "f32", [1, config.max_state_dim]) if has_state else None
    previous = g.input("prev_actions", "f32", [1, horizon, actions])
    prefix_weights = g.input("prefix_weights", "f32", [1, horizon, 1])
    rotary = g.forms.rotary(g, suffix, d.head_dim)
    padding = g.forms.padding(g)
    cached = "cache" if token and not has_state else "prefix"
    past = [
        [g.input(f"past_key_values.{i}.{name}", g.compute, [1, cached, d.head_dim]) for name in ("key", "value")]
        for i in range(d.layers)
    ]

    clean = CleanPrefix.inputs(g, model, previous) if config.rtc_max_delay else None
    with g.scope("suffix"):
        x_t = clean.put(g, "x_t_clean", x_t) if clean else x_t
        time = g.op("Gather", "time", [time_table, step], axis=0)
        x = g.forms.residual(g, _embed_suffix(g, model, x_t, time, state) if token else _embed_actions(g, model, x_t))
    modulation = None if token else _modulation(g, model, time)
    if clean:
        modulation = clean.modulation(g, modulation, _modulation(g, model, clean.time, "clean_modulation"))
    stack = GemmaStack(model, EXPERT, d.expert_width, modulation)
    attend = g.forms.suffix(g, d, suffix, token, padding)
    for i in range(d.layers):
        with g.scope(f"layer.{i}.attention"):
            query, key, value = stack.queries_keys_values(g, x, i, rotary)
            stack.attention_output(g, attend(query, key, value, past[i]), x, i)
        with g.scope(f"layer.{i}.mlp"):
            stack.mlp(g, x, i)

    with g.scope("velocity"):
        # The state token has done its part: only the actions' rows are read.
        rows = x.actions(1 if has_state else 0).rms_norm("norm", stack.scale(EXPERT + "norm"), "f32")
        rows = linear_f32(g, model, "action_out_proj", rows)
    v_t = g.named_output("Reshape", "v_t", [rows, g.ints(1, horizon, actions)], "f32", [1, horizon, actions])
    now = g.op("Gather", "step_schedule", [schedule, step], axis=0)
    _euler_step(g, x_t, v_t, now, previous, prefix_weights, clean, [1, horizon, actions])


def _embed_suffix(g: Graph, model: Model, x_t: str, time: str, state: str | None) -> str:
    """The state token, if it is one of the rows, then one token per action."""
    config_width = model["action_in_proj.weight"].shape[1]
    rows = g.op("Reshape", "x_t_rows", [x_t, g.ints(-1, config_width)])
    # action_in_proj is only ever followed by its half of action_time_mlp_in: one product in place of two.
    width = model.dimensions.expert_width
    into = model.vector("action_time_mlp_in.weight")[:, :width].astype(np.float64)
    folded = into @ model.vector("action_in_proj.weight").astype(np.float64)
    hidden = g.op("Gemm", "action_time_in", [rows, g.weight("action_time_in.weight", Values(folded), "f32"), time], transB=1)
    hidden = g.op("Mul", "silu", [hidden, g.op("Sigmoid", "sigmoid", [hidden])])
    tokens = linear_f32(g, model, "action_time_mlp_out", hidden)
    return g.op("Concat", "tokens", [linear_f32(g, model, "state_proj", state), tokens], axis=0) if state else tokens


def _embed_actions(g: Graph, model: Model, x_t: str) -> str:
    """One token per action, and nothing else: PI0.5 has the state in its prompt and the time in its norms."""
    rows = g.op("Reshape", "x_t_rows", [x_t, g.ints(-1, model.config.max_action_dim)])
    return linear_f32(g, model, "action_in_proj", rows)


@dataclass(frozen=True)
class CleanPrefix:
    """For a policy trained for real-time chunking: the first rows are actions that will be executed while the chunk is computed.

    They stand as they are in every step, and for them the flow's time is 0. How many they are is an input; none is legal.
    """

    previous: str  # the actions [1, horizon, width]
    time: str  # the row of the time table for time 0, [1, row width]
    rows: str  # which rows are clean, [horizon, 1]
    values: str  # the same for a chunk, [1, horizon, 1]

    @classmethod
    def inputs(cls, g: Graph, model: Model, previous: str) -> CleanPrefix:
        count = g.input("clean_rows", "i64", [1])
        time = g.input("clean_time", "f32", [1, time_conditioning.row_width(model)])
        with g.scope("clean"):
            numbers = g.op("Reshape", "row_numbers", [g.ints(*range(model.dimensions.action_horizon)), g.ints(-1, 1)])
            rows = g.op("Less", "rows", [numbers, count])
            return cls(previous, time, rows, g.op("Reshape", "values", [rows, g.ints(1, -1, 1)]))

    def put(self, g: Graph, name: str, x: str) -> str:
        """``x`` with the previous actions in the clean rows."""
        return g.op("Where", name, [self.values, self.previous, x])

    def modulation(self, g: Graph, now: dict[str, Modulation], clean: dict[str, Modulation]) -> dict[str, Modulation]:
        """Each row's own scale, shift and gate, [horizon, width]."""
        with g.scope("clean"):
            return {
                norm: Modulation(values.width, *(
                    g.op("Where", f"{norm.removeprefix(EXPERT)}.{part}", [self.rows, getattr(clean[norm], part), getattr(values, part)])
                    for part in ("scale", "shift", "gate")
                ), rows=True)
                for norm, values in now.items()
            }


def _modulation(g: Graph, model: Model, time: str, scope: str = "modulation") -> dict[str, Modulation]:
    """A row of the time table [1, width], taken apart."""
    norms = model.expert_norms()
    with g.scope(scope):
        names = [f"{norm.removeprefix(EXPERT)}.{part}" for norm in norms for part in ("scale", "shift", "gate")]
        values = g.forms.spread(g, time, model.dimensions.expert_width, names)
    return {norm: Modulation(model.dimensions.expert_width, *values[3 * i : 3 * i + 3]) for i, norm in enumerate(norms)}


def linear_f32(g: Graph, model: Model, name: str, x: str) -> str:
    """A layer that stays in f32: it lies between what is f32 on both sides."""
    weights = [g.weight(f"{name}.{part}", Rows(model[f"{name}.{part}"]), "f32") for part in ("weight", "bias")]
    return g.op("Gemm", name, [x, *weights], transB=1)


def _euler_step(
    g: Graph, x_t: str, v_t: str, schedule: str, previous: str, prefix_weights: str, held: CleanPrefix | None, shape: list[int]
) -> None:
    """Guides the velocity towards the previous chunk and moves ``x_t`` along it. A guidance of zero changes nothing.

    ``x_next`` may be bound to the memory of ``x_t``: the node that writes it comes after all that read it.
    """
    with g.scope("euler"):
        time, dt, guidance = g.split_op("Split", ["time", "dt", "guidance"], [schedule], axis=1, num_outputs=3)
        clean = g.op("Sub", "clean", [x_t, g.op("Mul", "way_left", [time, v_t])])
        error = g.op("Mul", "error", [g.op("Sub", "difference", [previous, clean]), prefix_weights])
        guided = g.op("Sub", "guided", [v_t, g.op("Mul", "correction", [guidance, error])])
        way = g.op("Mul", "way", [dt, guided])
        moved = g.op("Add", "moved", [x_t, way]) if held else None
    if held:
        g.named_output("Where", "x_next", [held.values, previous, moved], "f32", shape)
    else:
        g.named_output("Add", "x_next", [x_t, way], "f32", shape)
