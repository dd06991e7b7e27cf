"""Writes the folder that an episode is."""

from __future__ import annotations

import json
from pathlib import Path


def observation_name(index: int) -> str:
    """The folder of an observation, in the order of their times."""
    return f"{index:04}"


def write_observation(folder: Path, images: dict[str, str], state: list[float]) -> None:
    """Writes an observation beside its frames, whose file names ``images`` has by camera."""
    _write_json(folder / "observation.json", {"images": images, "state": state})


def write_episode(directory: Path, prompt: str, times: list[float]) -> None:
    """Names the observations, and when each was captured, in seconds."""
    observations = [{"time_s": round(time, 6), "path": observation_name(i)} for i, time in enumerate(times)]
    _write_json(directory / "episode.json", {"prompt": prompt, "observations": observations})


def _write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
