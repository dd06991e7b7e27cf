"""A bundle's golden observations as the inputs of its graphs: what the runtime's preprocessing makes of them, in plain numpy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import numpy as np
from PIL import Image, UnidentifiedImageError

from .errors import ExportError
from .json_file import JsonObject
from .prompt import tokens

INDEX = "observation.json"


@dataclass(frozen=True)
class Inputs:
    """One observation. Only present cameras have pixels, in the policy's order."""

    name: str
    pixels: np.ndarray  # [views, 3, height, width]
    tokens: list[int]
    state: np.ndarray  # [padded state width], normalised
    noise: np.ndarray  # [action horizon, padded action width]
    num_steps: int
    actions: np.ndarray | None = None  # the reference's, in the robot's units


def golden_inputs(bundle: Path, manifest: dict) -> Iterator[Inputs]:
    index = bundle / manifest["golden"]
    for case in json.loads(index.read_text())["cases"]:
        pixels, state, _ = _observation(index.parent / case["observation"], manifest)
        yield Inputs(
            case["name"], pixels, case["expected"]["tokens"], state, np.load(index.parent / case["noise"]), case["num_steps"],
            np.load(index.parent / case["expected"]["actions"]["file"]).reshape(-1, manifest["action"]["dim"]),
        )


def observed_inputs(directory: Path, manifest: dict, tokenizer: Path) -> Iterator[Inputs]:
    """The observations of ``directory``, which is one as ``pi0-edge run`` takes it or holds such, with noise of their own."""
    single = (directory / INDEX).is_file()
    places = [directory] if single else sorted(place.parent for place in directory.glob(f"*/{INDEX}"))
    if not places:
        raise ExportError(f"{directory}: neither an observation, with {INDEX}, nor a directory of such; pi0-edge run takes the same")
    size = (manifest["dimensions"]["action_horizon"], manifest["action"]["padded_dim"])
    for number, place in enumerate(places):
        pixels, state, text = _observation(place / INDEX, manifest)
        if text is None:
            raise ExportError(f"{place / INDEX}: has no prompt, and there is no --prompt")
        noise = np.random.default_rng(number).standard_normal(size, np.float32)
        yield Inputs(place.name, pixels, tokens(text, state, manifest, tokenizer), state, noise, manifest["flow"]["num_steps"])


def _observation(place: Path, manifest: dict) -> tuple[np.ndarray, np.ndarray, str | None]:
    """The views, the state as the model takes it, and the prompt of an observation.json."""
    observation = JsonObject.read(place)
    images = observation.object("images").content
    frames = {manifest["rename"].get(key, key): place.parent / str(name) for key, name in images.items()}
    names = [camera["name"] for camera in manifest["cameras"]]
    present = [name for name in names if name in frames]
    if unknown := sorted(frames.keys() - set(names)) or ([] if present else ["none"]):
        raise ExportError(f"{place}: is of another policy: it has the camera {unknown[0]}, this policy's are {', '.join(names)}")
    state, wanted = np.array(observation.get("state", list), np.float32), manifest["state"]["dim"]
    if state.shape != (wanted,):
        raise ExportError(f"{place}: is of another policy: its state has {state.size} values, this policy's has {wanted}")
    views = np.stack([view(_frame(frames[name]), manifest) for name in present])
    return views, model_state(state, manifest), observation.get("prompt", str, None) or manifest["prompt"]["default"]


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
