"""A robot of lerobot's whose joints go where they are told at once, and which keeps what it showed and was told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from lerobot.robots import Robot, RobotConfig

CAMERAS = ("base", "wrist", "side")
JOINTS = tuple(f"joint_{number}.pos" for number in range(6))


@RobotConfig.register_subclass("recorder")
@dataclass(kw_only=True)
class RecorderConfig(RobotConfig):
    pass


class Recorder(Robot):
    config_class = RecorderConfig
    name = "recorder"
    last: Recorder | None = None

    def __init__(self, config: RecorderConfig) -> None:
        super().__init__(config)
        self._connected = False
        self.shown: list[dict[str, Any]] = []
        self.told: list[dict[str, float]] = []
        self._joints = dict.fromkeys(JOINTS, 0.0)
        Recorder.last = self

    @property
    def observation_features(self) -> dict:
        return {**dict.fromkeys(JOINTS, float), **dict.fromkeys(CAMERAS, (60, 80, 3))}

    @property
    def action_features(self) -> dict:
        return dict.fromkeys((*JOINTS, "gripper.pos"), float)

    @property
    def is_connected(self) -> bool:
        return self._connected

    is_calibrated = True

    def connect(self, calibrate: bool = True) -> None:
        self._connected = True

    def calibrate(self) -> None:
        pass

    def configure(self) -> None:
        pass

    def get_observation(self) -> dict[str, Any]:
        random = np.random.default_rng([3, len(self.shown)])
        images = {camera: random.integers(0, 256, (60, 80, 3), np.uint8) for camera in CAMERAS}
        self.shown.append({**self._joints, **images})
        return dict(self.shown[-1])

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        self.told.append({name: float(value) for name, value in action.items()})
        self._joints = {joint: self.told[-1][joint] for joint in JOINTS}
        return action

    def disconnect(self) -> None:
        self._connected = False
