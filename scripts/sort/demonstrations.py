"""The sort example's demonstrations, as lerobot's policies are trained on them."""

import json

import numpy as np

ROWS = {
    "base": (np.uint8, (56, 56, 3)), "wrist": (np.uint8, (56, 56, 3)), "state": (np.float32, (5,)), "prompt": (np.uint8, ()),
    "chunk": (np.float32, (20, 4)), "blocks": (np.float32, (6,)),
}  # fmt: skip
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


class DemonstrationError(Exception):
    """The demonstrations do not fit; the message names the file."""


class Demonstrations:
    """Arrays of one row a frame, memory-mapped; ``prompts`` are the texts that ``prompt`` counts."""

    def __init__(self, directory):
        for name, (dtype, shape) in ROWS.items():
            path = directory / f"{name}.npy"
            try:
                array = np.load(path, mmap_mode="r")
            except ValueError as error:
                raise DemonstrationError(f"{path}: {error}") from error
            if array.dtype != dtype or array.shape[1:] != shape:
                raise DemonstrationError(f"{path}: {array.dtype}{list(array.shape)}, expected {np.dtype(dtype)} rows of {list(shape)}")
            setattr(self, name, array)
        self.frames = len(self.state)
        if lengths := {name: len(getattr(self, name)) for name in ROWS if len(getattr(self, name)) != self.frames}:
            raise DemonstrationError(f"{directory}: state.npy has {self.frames} rows, but {lengths}")
        self.prompts = json.loads((directory / "prompts.json").read_text())

    def tasks(self, rows):
        return [self.prompts[number] for number in self.prompt[rows]]


def statistics(values):
    """What lerobot keeps of a feature: ``values`` [n, width] to {name: [width]}."""
    values = values.astype(np.float64)
    result = {"mean": values.mean(0), "std": values.std(0), "min": values.min(0), "max": values.max(0)}
    result |= {name: np.quantile(values, at, axis=0) for name, at in QUANTILES.items()}
    return {name: value.astype(np.float32) for name, value in result.items()} | {"count": np.array([len(values)], np.float32)}
