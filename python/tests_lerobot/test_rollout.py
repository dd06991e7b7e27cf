"""lerobot's own rollout, from its command line, on the plugin: the synchronous engine and the real-time chunking one."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("datasets", reason="lerobot's rollout wants its dataset extra: rollout was NOT tested")
sys.path.insert(0, str(Path(__file__).parent))

from lerobot.policies.utils import prepare_observation_for_inference  # noqa: E402
from lerobot.scripts.lerobot_rollout import rollout  # noqa: E402
from lerobot_policy_pi0_edge.modeling_pi0_edge import Pi0EdgePolicy  # noqa: E402
from lerobot_robot_recorder import CAMERAS, JOINTS, Recorder  # noqa: E402

TASK = "pick up the cube"


def run(pair, monkeypatch, tmp_path, *arguments: str) -> Recorder:
    """lerobot-rollout with the recorder as its robot."""
    command = [
        "lerobot-rollout", f"--policy.path={pair.bundle}", "--policy.threads=1", "--robot.type=recorder", "--robot.id=one",
        f"--robot.calibration_dir={tmp_path}", f"--task={TASK}", "--return_to_initial_position=false", "--play_sounds=false",
        *arguments,
    ]
    monkeypatch.setattr(sys, "argv", command)
    torch.manual_seed(21)
    rollout()
    return Recorder.last


def test_the_synchronous_engine_sends_what_lerobot_s_policy_would(pair, monkeypatch, tmp_path):
    robot = run(pair, monkeypatch, tmp_path, "--fps=20", "--duration=6")
    count = len(robot.told)
    assert count >= 50 and not robot.is_connected
    reference = pair.reference
    reference.policy.config.n_action_steps = 10
    reference.policy.reset()
    torch.manual_seed(21)
    worst = 0.0
    # The first observation is that of connecting.
    for shown, told in zip(robot.shown[1:], robot.told, strict=True):
        raw = {f"observation.images.{camera}": shown[camera] for camera in CAMERAS}
        raw["observation.state"] = np.array([shown[joint] for joint in JOINTS], np.float32)
        batch = reference.preprocessor(prepare_observation_for_inference(raw, torch.device("cpu"), TASK))
        expected = reference.postprocessor(reference.policy.select_action(batch))[0].numpy()
        worst = max(worst, float(np.abs(expected - np.array(list(told.values()))).max()))
    print(f"\nlargest difference over {count} actions: {worst:.1e}")
    assert worst < 1e-5


def test_the_real_time_chunking_engine_runs_guided(pair, monkeypatch, tmp_path, caplog):
    guided, infer = [], Pi0EdgePolicy.predict_action_chunk

    def spied(self, batch, **arguments):
        guided.append(arguments["prev_chunk_left_over"] is not None and self._guidance(arguments["prev_chunk_left_over"], None)[0] is not None)
        return infer(self, batch, **arguments)

    monkeypatch.setattr(Pi0EdgePolicy, "predict_action_chunk", spied)
    with caplog.at_level(logging.ERROR):
        robot = run(pair, monkeypatch, tmp_path, "--fps=10", "--duration=6", "--inference.type=rtc", "--inference.rtc.execution_horizon=6")
    assert len(robot.told) >= 20 and np.isfinite([list(told.values()) for told in robot.told]).all()
    assert sum(guided) >= 3 and not guided[0]
    assert not [record for record in caplog.records if "RTC inference error" in record.getMessage()]
