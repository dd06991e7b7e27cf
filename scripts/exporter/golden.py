"""The reference's outputs, which a bundle carries to check itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from .config import PolicyConfig
from .errors import ExportError
from .json_file import JsonObject
from .processors import Processing

DIRECTORY = "golden"
INDEX = "golden.json"
FORMAT_VERSION = 1

# What a bundle in half precision may be off from outputs computed in f32: the largest error as a share of the largest value,
# and the cosine. Three to six times the errors measured on small models with random weights; bf16 has three bits less than
# f16. Pixels are f32 in either.
PIXELS = {"pixel_values": 1e-5}
TOLERANCES = {
    "fp16": {"stages": 5e-3, "actions": 2e-3, "cosine": 0.99999, "by_stage": PIXELS},
    "bf16": {"stages": 4e-2, "actions": 1.6e-2, "cosine": 0.9998, "by_stage": PIXELS},
}


class Golden:
    """The golden directory of a checkpoint, checked to be complete."""

    def __init__(self, checkpoint: Path):
        self.directory = checkpoint / DIRECTORY
        self._index = JsonObject.read(self.directory / INDEX)
        version = self._index.get("format_version", int)
        if version != FORMAT_VERSION:
            raise self._index.error("format_version", f"is {version}, must be {FORMAT_VERSION}; make it anew with reference.py")
        self._files = {INDEX}
        self._cases: list[tuple[JsonObject, set[str]]] = []
        cases = self._index.objects("cases")
        if not cases:
            raise self._index.error("cases", "is empty")
        for case in cases:
            self._read_case(case)

    def present_cameras(self, config: PolicyConfig, processing: Processing) -> set[str]:
        """The policy's cameras that every case has."""
        present = set(config.cameras)
        for observation, keys in self._cases:
            cameras = {processing.rename.get(key, key) for key in keys}
            for name in cameras - set(config.cameras):
                raise observation.error(f"images.{name}", "is not a camera of the policy; make the golden outputs anew")
            present &= cameras
        return present

    def copy(self, bundle: Path, tolerance: dict | None) -> list[str]:
        """Copies the files into the bundle, with ``tolerance`` in place of their own if there is one; returns their names there."""
        names = []
        for name in sorted(self._files):
            target = bundle / DIRECTORY / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.directory / name, target)
            names.append(f"{DIRECTORY}/{name}")
        if tolerance is not None:
            index = self._index.content | {"tolerance": tolerance}
            (bundle / DIRECTORY / INDEX).write_text(json.dumps(index, indent=1) + "\n")
        return names

    def _read_case(self, case: JsonObject) -> None:
        name = self._need(case, "observation", case.get("observation", str))
        self._need(case, "noise", case.get("noise", str))
        expected = case.object("expected")
        for key, value in expected.content.items():
            if isinstance(value, dict):
                self._need(expected, key, expected.object(key).get("file", str))
        observation = JsonObject.read(self.directory / name)
        images = observation.object("images")
        for camera in images.content:
            frame = str((Path(name).parent / images.get(camera, str)).as_posix())
            self._need(images, camera, frame)
        self._cases.append((observation, set(images.content)))

    def _need(self, place: JsonObject, key: str, name: str) -> str:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise place.error(key, f'"{name}" is not a path inside {self.directory}')
        if not (self.directory / name).is_file():
            raise place.error(key, f"{self.directory / name}: no such file")
        self._files.add(name)
        return name


def required_cameras(option: str | None, config: PolicyConfig, golden: set[str]) -> set[str]:
    """The cameras without which the runtime must refuse an observation."""
    if option is None:
        return golden
    if option in ("all", "none"):
        return set(config.cameras) if option == "all" else set()
    names = {name for name in option.split(",") if name}
    for name in sorted(names - set(config.cameras)):
        raise ExportError(f"--require-cameras: {name} is not a camera of {config.path}; it has {', '.join(config.cameras)}")
    return names
