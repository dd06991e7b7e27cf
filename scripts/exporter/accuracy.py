"""What a bundle's precision costs, stage by stage: its outputs against those of the same graphs in f32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable

import numpy as np

from .golden_inputs import Inputs
from .pipeline import Pipeline
from .quantization import Product, relative_l2

# The relative L2 error and the cosine of the actions; what is further off a user should know.
USUAL = {"int8": (3e-2, 0.9995), "int4": (8e-2, 0.996)}
# A bundle is held to what was measured when it was made, times this: other processors round otherwise, and errors grow on the way.
MARGIN = 1.5
LEAST = 1e-3


@dataclass(frozen=True)
class Deviation:
    """The largest error as a share of the largest value, the L2 error as a share of the length, and the cosine; of the worst part."""

    relative: float = 0.0
    l2: float = 0.0
    cosine: float = 1.0

    @classmethod
    def between(cls, got: np.ndarray, wanted: np.ndarray) -> Deviation:
        got, wanted = (np.asarray(values, np.float64).ravel() for values in (got, wanted))
        lengths = np.linalg.norm(got) * np.linalg.norm(wanted)
        largest = np.abs(wanted).max() or 1.0
        return cls(float(np.abs(got - wanted).max() / largest), relative_l2(got, wanted), float(got @ wanted / lengths) if lengths else 1.0)

    def worst(self, other: Deviation) -> Deviation:
        return Deviation(max(self.relative, other.relative), max(self.l2, other.l2), min(self.cosine, other.cosine))


def outputs(pipeline: Pipeline, inputs: Inputs) -> dict[str, np.ndarray]:
    """The outputs of every stage, [parts, values]: layers and steps are parts, each compared for itself."""
    embeds = pipeline.images(inputs.pixels)
    cache = pipeline.prefix(embeds, inputs.tokens, inputs.state)
    actions, velocities = pipeline.denoise(inputs.noise, inputs.state, cache, inputs.num_steps)
    layers = range(pipeline.dimensions["layers"])
    keys, values = (np.stack([_rows(pipeline, cache[f"present.{i}.{part}"]) for i in layers]) for part in ("key", "value"))
    found = {"image_embeds": embeds[None], "keys": keys, "values": values, "v_t": velocities, "actions_normalized": actions[None]}
    return {stage: array.reshape(len(array), -1) for stage, array in found.items()}


def _rows(pipeline: Pipeline, cached: np.ndarray) -> np.ndarray:
    """The rows of the prefix in a cache [1, rows, head_dim]: those of the state token come before it, those that fill it up after it."""
    first = int(pipeline.state_in_prefill)
    return cached[0, first : first + pipeline.length]


def compared(manifest: dict, inputs: Inputs, got: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> dict[str, Deviation]:
    """The deviation of every stage; of ``actions``, which are in the robot's units, where the observation comes with them."""
    found = {}
    for stage, parts in wanted.items():
        found[stage] = Deviation()
        for part, want in zip(got[stage], parts):
            found[stage] = found[stage].worst(Deviation.between(part, want))
    if inputs.actions is not None:
        off = (got["actions_normalized"] - wanted["actions_normalized"]).reshape(inputs.noise.shape)
        off = off[:, : inputs.actions.shape[1]] * _units(manifest)[: inputs.actions.shape[1]]
        found["actions"] = Deviation.between(inputs.actions + off, inputs.actions)
    return found


def worst(found: Iterable[dict[str, Deviation]]) -> dict[str, Deviation]:
    total: dict[str, Deviation] = {}
    for case in found:
        for stage, deviation in case.items():
            total[stage] = total.get(stage, deviation).worst(deviation)
    return total


def tolerance(stages: dict[str, Deviation], pixels: dict[str, float]) -> dict:
    """What a bundle declares for ``check`` to hold it to."""

    def room(value: float) -> float:
        return float(f"{max(LEAST, MARGIN * value):.2g}")

    relative = {stage: room(found.relative) for stage, found in stages.items()}
    cosine = min(found.cosine for found in stages.values())
    return {
        "stages": max(relative.values()),
        "actions": relative["actions"],
        # The angle has the same room as the length.
        "cosine": float(f"{1 - max(LEAST**2, MARGIN**2 * (1 - cosine)):.7f}"),
        "by_stage": {**relative, **pixels},
        "relative_l2": {stage: room(found.l2) for stage, found in stages.items()},
    }


def table(stages: dict[str, Deviation], products: Iterable[Product]) -> str:
    """The loss by stage, and by kind of layer: products in each form, and their own errors."""
    lines = [f"{'stage':<34} {'relative L2':>11} {'cosine':>10}"]
    lines += [f"{stage:<34} {found.l2:>11.2e} {found.cosine:>10.6f}" for stage, found in stages.items()]
    lines += ["", f"{'products of a layer':<34} {'plain':>5} {'kept':>5} {'median':>9} {'worst':>9}"]
    kinds: dict[str, list[Product]] = {}
    for product in products:
        kinds.setdefault(f"{product.graph} {product.kind}", []).append(product)
    for kind, found in kinds.items():
        kept = sum(product.kept for product in found)
        errors = [product.error for product in found]
        lines.append(f"{kind:<34} {len(found) - kept:>5} {kept:>5} {np.median(errors):>9.1e} {max(errors):>9.1e}")
    return "\n".join(lines)


def _units(manifest: dict) -> np.ndarray:
    """What one in each of the model's actions is in the robot's units."""
    rule = {name: np.array(value, np.float32) for name, value in manifest["action"]["normalization"].items() if name not in ("mode", "eps")}
    mode = manifest["action"]["normalization"]["mode"]
    if mode == "identity":
        return np.ones(manifest["action"]["dim"], np.float32)
    if "std" in rule:
        return rule["std"]
    low, high = rule.values()
    return (high - low) / 2
