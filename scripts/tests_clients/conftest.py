"""A server over a small bundle, and what its clients send."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PROJECT = Path(__file__).resolve().parents[2]
# What `cargo test` has built, or another one.
PROGRAM = Path(os.environ.get("PI0_EDGE", PROJECT / "target/debug/pi0-edge"))
sys.path.insert(0, str(PROJECT / "scripts"))

from serving import Served  # noqa: E402


@pytest.fixture(scope="session")
def program() -> Path:
    assert PROGRAM.is_file(), f"{PROGRAM} is not there: cargo build, or name one as $PI0_EDGE"
    return PROGRAM


@pytest.fixture
def serve(program):
    """Starts servers, which are stopped at the end of the test and must then have ended well."""
    started = []

    def start(bundle: str, *options: str) -> Served:
        started.append(Served(program, PROJECT / "models" / bundle, *options))
        return started[-1]

    yield start
    for served in started:
        assert served.stop() == 0, served.log()


def golden(bundle: str) -> tuple[Path, dict]:
    """A recorded observation of a bundle: its directory, and what openpi's client sends for it."""
    directory = sorted(path for path in (PROJECT / "models" / bundle / "golden").iterdir() if path.is_dir())[0]
    stored = json.loads((directory / "observation.json").read_text())
    observation = {name: np.asarray(Image.open(directory / file).convert("RGB")) for name, file in stored["images"].items()}
    observation["observation/state"] = np.asarray(stored["state"], dtype=np.float32)
    if stored.get("prompt"):
        observation["prompt"] = stored["prompt"]
    return directory, observation


def run(program: Path, bundle: str, observation: Path, output: Path, *options: str) -> np.ndarray:
    """The actions that `run` computes."""
    subprocess.run([program, "run", PROJECT / "models" / bundle, "--observation", observation, "--threads", "1",
                    "--output", output, *options], check=True, stdout=subprocess.DEVNULL)
    return np.load(output)
