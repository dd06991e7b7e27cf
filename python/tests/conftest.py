"""The library that was built, the recorded bundles, and their observations."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python/pi0_edge/src"
sys.path.insert(0, str(PACKAGE))
os.environ.setdefault("PI0_EDGE_LIBRARY", str(ROOT / "target/debug/libpi0_edge.so"))
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
if not Path(os.environ["PI0_EDGE_LIBRARY"]).exists():
    pytest.exit(f"there is no {os.environ['PI0_EDGE_LIBRARY']}: run cargo build -p pi0-edge-c", returncode=2)

import pi0_edge  # noqa: E402


class Case(NamedTuple):
    """A recorded inference of lerobot's: what went in, and the actions that came out."""

    bundle: Path
    images: dict[str, np.ndarray]
    state: np.ndarray
    prompt: str
    noise: np.ndarray
    num_steps: int
    actions: np.ndarray


def recorded(policy: str, name: str = "two_cameras_4_steps") -> Case:
    bundle = ROOT / f"models/{policy}-tiny"
    directory = bundle / "golden" / name
    observation = json.loads((directory / "observation.json").read_text())
    images = {camera: np.asarray(Image.open(directory / file).convert("RGB")) for camera, file in observation["images"].items()}
    state = np.array(observation["state"], np.float32)
    noise, actions = (np.load(directory / f"{part}.npy").squeeze() for part in ("noise", "actions"))
    steps = int(name.split("_")[2])
    return Case(bundle, images, state, observation["prompt"], noise, steps, actions)


@pytest.fixture(scope="session")
def case() -> Case:
    return recorded("pi0")


@pytest.fixture(scope="session")
def shared_policy(case):
    """A policy that tests use one after the other, and leave as it is."""
    with pi0_edge.Policy.load(case.bundle, threads=1) as policy:
        yield policy


@pytest.fixture
def policy(case):
    """A policy of the test's own."""
    with pi0_edge.Policy.load(case.bundle, threads=1, verify="size") as policy:
        yield policy
