"""Normalisation of one feature: its mode and the statistics that mode needs, read from a pipeline's state file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from .errors import ExportError, refuse_lfs_pointer
from .json_file import JsonObject
from .weights_file import WeightsFile

# Names of statistics among the weights.
BUFFERS = re.compile(r"(un)?normalize_(inputs|targets|outputs)\.buffer_.*")

# lerobot's name of a mode -> the bundle's name, and the statistics it reads.
MODES = {
    "IDENTITY": ("identity", ()),
    "MEAN_STD": ("mean_std", ("mean", "std")),
    "MIN_MAX": ("min_max", ("min", "max")),
    "QUANTILES": ("quantiles", ("q01", "q99")),
    "QUANTILE10": ("quantile10", ("q10", "q90")),
}


@dataclass(frozen=True)
class Normalization:
    """How one vector is brought to the model's scale, or back from it."""

    mode: str
    eps: float
    statistics: dict[str, np.ndarray]

    @property
    def width(self) -> int | None:
        """Entries that there are statistics of; None where none are needed."""
        return next((len(values) for values in self.statistics.values()), None)

    def to_json(self) -> dict:
        # An f32 written as a double reads back to the same f32.
        return {"mode": self.mode, "eps": self.eps, **{name: [float(x) for x in v] for name, v in self.statistics.items()}}


def mode_of(modes: JsonObject, kind: str) -> str:
    """lerobot's mode for features of ``kind``; a kind the map does not list is left as it is."""
    mode = modes.get(kind, str, "IDENTITY")
    if mode not in MODES:
        raise modes.error(kind, f'unknown normalisation mode "{mode}"; known are {", ".join(MODES)}')
    return mode


def read_normalization(step: JsonObject, state_file: Path | None, feature: str, kind: str, length: int) -> Normalization:
    """The normalisation a normalizer or unnormalizer step applies to ``feature``, which has ``length`` entries by config.json.

    The statistics may be of another length: they are those of the data, and config.json keeps the base model's widths when that is
    trained further.
    """
    eps = step.get("eps", float, 1e-8)
    if not 0 <= eps < 1:
        raise step.error("eps", f"is {eps}, must be a small number")
    mode, names = MODES[mode_of(step.object("norm_map"), kind)]
    if not names:
        return Normalization(mode, eps, {})
    if state_file is None:
        raise step.error("state_file", f"missing, and {kind} is normalised by {' and '.join(names)} of {feature}")
    return _normalization(mode, eps, names, _read_state(state_file), state_file, feature, length)


def read_buffers(file: WeightsFile, modes: JsonObject, place: str, feature: str, kind: str, length: int) -> Normalization:
    """The normalisation that lerobot 0.3 and older kept among the weights, in the module ``place``."""
    mode, names = MODES[mode_of(modes, kind)]
    stored = {name: tensor.read() for name, tensor in file.tensors.items() if BUFFERS.match(name)}
    return _normalization(mode, 1e-8, names, stored, file.path, f"{place}.buffer_{feature.replace('.', '_')}", length)


def _normalization(
    mode: str, eps: float, names: tuple[str, ...], stored: dict[str, np.ndarray], path: Path, feature: str, length: int
) -> Normalization:
    statistics = {name: _statistic(stored, path, f"{feature}.{name}") for name in names}
    if names:
        first, second = (len(values) for values in statistics.values())
        if first != second or (first == 1 != length):
            expected = first if first != second else length
            raise ExportError(f"{path}: {feature}.{names[1]}: has shape [{second}], expected [{expected}]: one value for each entry")
    return Normalization(mode, eps, statistics)


def _read_state(path: Path) -> dict[str, np.ndarray]:
    refuse_lfs_pointer(path)
    try:
        return load_file(path)
    except FileNotFoundError:
        raise ExportError(f"{path}: no such file, though a processor step names it as its state_file") from None
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ExportError(f"{path}: not a readable safetensors file: {error}") from None


def _statistic(stored: dict[str, np.ndarray], path: Path, key: str) -> np.ndarray:
    if key not in stored:
        raise ExportError(f"{path}: {key}: missing statistic; save the processors with the statistics of the training data")
    values = stored[key]
    if not np.issubdtype(values.dtype, np.floating):
        raise ExportError(f"{path}: {key}: has dtype {values.dtype}, expected float32")
    if values.ndim == 2 and len(values) == 1:
        values = values[0]  # As some data sets keep them; lerobot broadcasts it over the batch.
    if values.ndim != 1 or not len(values):
        raise ExportError(f"{path}: {key}: has shape {list(values.shape)}, expected one value for each entry")
    if not np.isfinite(values).all():
        raise ExportError(f"{path}: {key}: holds a value that is not finite")
    return values.astype(np.float32)
