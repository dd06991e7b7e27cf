#!/usr/bin/env python3
"""Writes demonstrated frames as observations, which scripts/reference.py and `pi0-edge run` take.

  .venv/bin/python scripts/sort/observations.py DEMONSTRATIONS OUT 2
"""

import json
import pathlib
import sys

import numpy as np
from PIL import Image

from demonstrations import Demonstrations


def main(demonstrations, out, count):
    """Makes directories frame_N of frames spread evenly over the demonstrations."""
    data = Demonstrations(pathlib.Path(demonstrations))
    for row in np.linspace(0, data.frames, int(count), endpoint=False, dtype=int):
        directory = pathlib.Path(out) / f"frame_{row}"
        directory.mkdir(parents=True, exist_ok=True)
        for name in ("base", "wrist"):
            Image.fromarray(getattr(data, name)[row]).save(directory / f"{name}.png")
        observation = {
            "images": {f"observation.images.{name}": f"{name}.png" for name in ("base", "wrist")},
            "state": data.state[row].tolist(),
            "prompt": data.prompts[data.prompt[row]],
        }
        (directory / "observation.json").write_text(json.dumps(observation, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
