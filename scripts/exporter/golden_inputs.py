"""A bundle's golden observations as the inputs of its graphs: what the runtime's preprocessing makes of them, in plain numpy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import numpy as np
from PIL import Image, UnidentifiedImageError

from .errors import ExportError


@dataclass(frozen=True)
class Inputs:
    """One observation. Only present cameras have pixels, in the policy's order."""

    name: str
    pixels: np.ndarray  # [views, 3, height, width]
    tokens: list[int]
    state: np.ndarray  # [padded state width], normalised
    noise: np.ndarray  # [action horizon, padded action width]
    num_steps: int


def golden_inputs(bundle: Path, manifest: dict) -> Iterator[Inputs]:
    index = bundle / manifest["golden"]
    for case in json.loads(index.read_text())["cases"]:
        place = index.parent / case["observation"]
        observation = json.loads(place.read_text())
        frames = {manifest["rename"].get(key, key): place.parent / name for key, name in observation["images"].items()}
        present = [camera["name"] for camera in manifest["cameras"] if camera["name"] in frames]
        yield Inputs(
            case["name"],
            np.stack([view(_frame(frames[name]), manifest) for name in present]),
            case["expected"]["tokens"],
            model_state(np.array(observation["state"], np.float32), manifest),
            np.load(index.parent / case["noise"]),
            case["num_steps"],
        )


def view(frame: np.ndarray, manifest: dict) -> np.ndarray:
    """``frame`` [height, width, 3] bytes -> one view of pixel_values: resized to fit, in [-1, 1], between bars."""
    rule, sizes = manifest["image"], manifest["dimensions"]
    if rule["resize"] != "bilinear" or rule["pad_side"] not in ("center", "top_left"):
        raise ExportError(f"images resized by the rule {rule} cannot be made here")
    target = (sizes["image_height"], sizes["image_width"])
    ratio = max(size / wanted for size, wanted in zip(frame.shape, target))
    fitted = [min(int(size / ratio), wanted) for size, wanted in zip(frame.shape, target)]
    resize = frame.shape[:2] != target
    if resize and rule["antialias"]:
        frame = np.asarray(Image.fromarray(frame).resize(fitted[::-1], Image.Resampling.BILINEAR))
    image = frame.astype(np.float32) / np.float32(255)
    if resize and not rule["antialias"]:
        rows, columns = (_bilinear(size, wanted) for size, wanted in zip(image.shape, fitted))
        image = np.einsum("ri,ijc,sj->rsc", rows, image, columns, optimize=True).clip(0, 1)
    whole = np.full((*target, 3), rule["pad_value"], np.float32)
    share = 2 if rule["pad_side"] == "center" else 1
    top, left = ((wanted - size) // share for size, wanted in zip(image.shape, target))
    whole[top : top + image.shape[0], left : left + image.shape[1]] = image * 2 - 1
    return whole.transpose(2, 0, 1)


def _bilinear(size: int, wanted: int) -> np.ndarray:
    """The weights [wanted, size] of linear interpolation about pixel centres."""
    centres = ((np.arange(wanted) + 0.5) * (size / wanted) - 0.5).clip(0, size - 1)
    return (1 - np.abs(np.arange(size)[None] - centres[:, None])).clip(0).astype(np.float32)


def _frame(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError:
        raise ExportError(f"{path}: not an image that can be read") from None


def model_state(state: np.ndarray, manifest: dict) -> np.ndarray:
    """The robot's state as the model takes it: normalised, and zero to the padded width."""
    feature = manifest["state"]
    if manifest.get("adapt_to_pi"):
        state = _of_aloha(state)
    state = np.pad(state, (0, feature.get("normalized_dim", len(state)) - len(state)))
    rule = {name: np.array(value, np.float32) for name, value in feature["normalization"].items() if name not in ("mode", "eps")}
    eps, mode = np.float32(feature["normalization"]["eps"]), feature["normalization"]["mode"]
    if mode in ("mean_std", "z_score"):
        state = (state - rule["mean"]) / (rule["std"] + eps)
    elif mode == "quantile_range":
        state = (state - rule["q01"]) / (rule["q99"] - rule["q01"] + eps) * 2 - 1
    elif mode != "identity":
        low, high = rule.values()
        span = high - low
        state = 2 * (state - low) / np.where(span == 0, eps, span) - 1
    return np.pad(state, (0, feature["padded_dim"] - len(state)))


def _of_aloha(state: np.ndarray) -> np.ndarray:
    """ALOHA's state as openpi's policies know it: some joints turn the other way, and grippers are angles between two stops."""
    state = state.astype(np.float64)
    for arm in (state[:7], state[7:]):
        arm[1:3] *= -1
        opening = arm[6] * (0.058 - 0.01844) + 0.01844
        sine = (0.022**2 + opening**2 - 0.036**2) / (2 * 0.022 * opening)
        arm[6] = (np.arcsin(np.clip(sine, -1, 1)) - 0.5476) / (1.6296 - 0.5476)
    return state.astype(np.float32)
