"""Writes recordings as the golden data of a bundle (format version 1)."""

import json
import math

import numpy as np

from . import environment, observations

FORMAT_VERSION = 1
TOLERANCE = {"stages": 1e-5, "actions": 1e-5}

SAMPLED = ("pixel_values", "image_embeds", "keys", "values")
WHOLE = ("v_t", "actions_normalized", "actions")
PER_LAYER = ("keys", "values")

# Numbers kept of one sampled array when the stride is chosen for the user: 64 KiB.
AUTO_BUDGET = 16384


def write(recorded, directory, stride=None):
    """`recorded`: (case, recording) pairs."""
    cases = []
    for case, recording in recorded:
        observations.write(case, directory / case.name)
        cases.append(_write_case(case, recording, directory / case.name, stride))
    described = {
        "format_version": FORMAT_VERSION,
        "reference": {**environment.versions(), "dtype": "float32"},
        "tolerance": TOLERANCE,
        "cases": cases,
    }
    (directory / "golden.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


def _write_case(case, recording, directory, stride):
    expected = {"tokens": recording.tokens}
    for name in SAMPLED:
        array = getattr(recording, name)
        step = stride or auto_stride(array.size)
        expected[name] = _save(directory, name, sampled(array, step, name in PER_LAYER), stride=step)
    for name in WHOLE:
        expected[name] = _save(directory, name, getattr(recording, name), stride=1)
    return {
        "name": case.name,
        "observation": f"{case.name}/observation.json",
        "noise": f"{case.name}/noise.npy",
        "num_steps": case.num_steps,
        "expected": expected,
    }


def _save(directory, name, array, stride):
    array = np.ascontiguousarray(array, "<f4")
    np.save(directory / f"{name}.npy", array)
    return {"file": f"{directory.name}/{name}.npy", "stride": stride}


def sampled(array, stride, per_layer):
    """Every `stride`-th number of the flattened array, of each layer's flattened rows if `per_layer`."""
    return array.reshape(array.shape[0], -1)[:, ::stride] if per_layer else array.reshape(-1)[::stride]


def auto_stride(size):
    """A stride that keeps about AUTO_BUDGET numbers.

    Prime when above one, so that it shares no factor with the rows' width and every column
    gets sampled.
    """
    stride = math.ceil(size / AUTO_BUDGET)
    while stride > 1 and any(stride % factor == 0 for factor in range(2, math.isqrt(stride) + 1)):
        stride += 1
    # Widths are often multiples of two.
    return 3 if stride == 2 else stride
