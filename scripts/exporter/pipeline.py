"""Runs a bundle's graphs the way the runtime does, by its manifest alone; what computes a graph is the caller's."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Callable

import numpy as np

from .errors import ExportError
from .graph import NUMPY

# Added to the scores of rows that only fill a padded prefix up.
MASKED = -30000.0

# A graph that was opened: inputs by name in, outputs by name out.
Run = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def read_manifest(bundle: Path) -> dict:
    try:
        return json.loads((bundle / "manifest.json").read_text())
    except FileNotFoundError:
        raise ExportError(f"{bundle / 'manifest.json'}: no such file; give the directory of a bundle") from None


class Pipeline:
    def __init__(self, bundle: Path, open_graph: Callable[[Path], Run]):
        self.manifest = read_manifest(bundle)
        self.dimensions = self.manifest["dimensions"]
        self.state_in_prefill = self.manifest.get("state_in_prefill", False)
        self.length = 0  # rows of the prefix that the cache holds
        self.marks: dict[str, np.ndarray] = {}  # what tells them from those that fill it up
        self.graphs = {name: open_graph(bundle / graph["file"]) for name, graph in self.manifest["graphs"].items()}
        table = self.manifest["token_embedding"]
        self.rows = np.memmap(bundle / table["file"], NUMPY[table["dtype"]], "r", 0, (table["rows"], table["width"]))

    def run(self, name: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        return self.graphs[name](inputs)

    def rope(self, first: int, count: int) -> dict[str, np.ndarray]:
        rule, head_dim = self.manifest["rope"], self.dimensions["head_dim"]
        powers = np.array([rule["theta"] ** (2 * i / head_dim) for i in range(head_dim // 2)])
        inverse = np.float32(1) / powers.astype(np.float32)
        if rule["inv_freq"] == "bf16":
            inverse = inverse.astype(NUMPY["bf16"]).astype(np.float32)
        angle = (np.arange(first, first + count, dtype=np.float32)[:, None] * inverse).astype(np.float64)
        return {"rope_cos": np.cos(angle).astype(np.float32), "rope_sin": np.sin(angle).astype(np.float32)}

    def images(self, pixels: np.ndarray) -> np.ndarray:
        """pixels of the present views [V, 3, h, w] -> image_embeds."""
        return self.run("vision_encoder", pixel_values=pixels)["image_embeds"]

    def prefix(self, embeds: np.ndarray, tokens: list[int], state: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The keys and values of the prefix: the views' embeddings, then the tokens' rows; before them those of the state token,
        where it is the prefill's."""
        rows = self.rows[tokens].astype(embeds.dtype)
        whole = np.concatenate([embeds.reshape(-1, embeds.shape[-1]), rows])[None]
        self.length = whole.shape[1]
        if "prefix_bucket" in self.manifest:
            whole = np.pad(whole, ((0, 0), (0, -self.length % self.manifest["prefix_bucket"]), (0, 0)))
            bias = np.zeros((1, whole.shape[1]), embeds.dtype)
            bias[:, self.length :] = MASKED
            marks = {"prefix_bias": bias, "valid_rows": np.array([self.length])}
            taken = {tensor["name"] for tensor in self.manifest["graphs"]["prefix_prefill"]["inputs"]}
            self.marks = {name: mark for name, mark in marks.items() if name in taken}
        token = {}
        if self.state_in_prefill:
            token = {f"state_{name}": table for name, table in self.rope(self.length, 1).items()}
            token["state"] = state[None].astype(np.float32)
        return self.run("prefix_prefill", prefix_embeds=whole, **self.rope(0, whole.shape[1]), **token, **self.marks)

    def schedule(self, steps: int, guidance: list[float] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The rows (time, dt, guidance) of every step and the table of time conditioning."""
        times = np.array([1.0 + k * (-1.0 / steps) for k in range(steps)]).astype(np.float32)
        if self.manifest["flow"].get("times") == "accumulated":
            for k in range(1, steps):
                times[k] = times[k - 1] + np.float32(-1.0 / steps)
        rows = np.stack([times, np.full(steps, -1.0 / steps), guidance or [0.0] * steps], 1).astype(np.float32)
        return rows, self.time_table(times)

    def time_table(self, times: np.ndarray) -> np.ndarray:
        flow, width = self.manifest["flow"], self.dimensions["expert_width"]
        period = flow["min_period"] * (flow["max_period"] / flow["min_period"]) ** np.linspace(0, 1, width // 2)
        angle = times.astype(np.float64)[:, None] * (2 * math.pi / period)
        embedding = np.concatenate([np.sin(angle), np.cos(angle)], 1).astype(np.float32)
        return self.run("time_conditioning", time_embedding=embedding)["time_table"]

    def denoise(self, noise, state, cache, steps, previous=None, weights=None, guidance=None, clean=0):
        """The Euler loop from the cache of ``prefix``: the final x_t and every step's velocity. The first ``clean`` rows are the
        previous ones, for a policy trained for that."""
        horizon, width = noise.shape
        rows, table = self.schedule(steps, guidance)
        has_state = self.manifest["policy"] == "pi0" and not self.state_in_prefill
        fixed = {
            "schedule": rows, "time_table": table,
            "prev_actions": np.zeros((1, horizon, width), np.float32) if previous is None else previous[None],
            "prefix_weights": np.zeros((1, horizon, 1), np.float32) if weights is None else weights[None, :, None],
            **self.rope(self.length + self.state_in_prefill, horizon + has_state),
            **self.marks,
            **{name.replace("present", "past_key_values"): value for name, value in cache.items()},
        }
        if "rtc_training_max_delay" in self.manifest["flow"]:
            fixed |= {"clean_rows": np.array([clean]), "clean_time": self.time_table(np.zeros(1, np.float32))}
        if has_state:
            fixed["state"] = state[None].astype(np.float32)
        x, velocities = noise[None].astype(np.float32), []
        for step in range(steps):
            result = self.run("denoise_step", x_t=x, step=np.array([step]), **fixed)
            x = result["x_next"]
            velocities.append(result["v_t"][0])
        return x[0], np.stack(velocities)
