"""Opt-in tests of the lerobot plugin, beside lerobot's own policies. They need torch and lerobot 0.6.1:

  cargo build -p pi0-edge-c
  scripts/reference_env.sh && scripts/python_env.sh
  .reference/bin/python -m pytest python/tests_lerobot

lerobot's rollout wants its `dataset` extra besides (datasets, pandas<3, av<16, torchcodec<0.12): without it, those tests
are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
for place in ("scripts", "python/pi0_edge/src", "python/lerobot_policy_pi0_edge/src"):
    sys.path.insert(0, str(ROOT / place))
os.environ.setdefault("PI0_EDGE_LIBRARY", str(ROOT / "target/debug/libpi0_edge.so"))
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
pytest.importorskip("torch", reason="torch is not there: scripts/reference_env.sh makes an environment that has it")
pytest.importorskip("lerobot", reason="lerobot is not there: scripts/reference_env.sh makes an environment that has it")

from reference import environment  # noqa: E402

environment.prepare(threads=1)

import lerobot_policy_pi0_edge  # noqa: E402, F401
from lerobot.configs import PreTrainedConfig  # noqa: E402
from reference.loading import Reference  # noqa: E402


class Pair:
    """A policy as lerobot computes it and as pi0-edge does, with one robot's observations."""

    def __init__(self, kind: str, checkpoint: Path) -> None:
        from lerobot_policy_pi0_edge.modeling_pi0_edge import Pi0EdgePolicy

        self.bundle = ROOT / f"models/{kind}-tiny"
        python = os.environ.get("PI0_EXPORT_PYTHON", ROOT / ".venv/bin/python")
        script = ROOT / "scripts/make_checkpoint.py"
        subprocess.run([python, script, checkpoint, "--size", "tiny", "--seed", "0", "--policy", kind], check=True, capture_output=True)
        manifest = json.loads((self.bundle / "manifest.json").read_text())
        self.reference = Reference(checkpoint, manifest["dimensions"]["vision_heads"])
        self.policy = Pi0EdgePolicy.from_pretrained(self.bundle, config=self.config())

    def config(self, **changes):
        config = PreTrainedConfig.from_pretrained(self.bundle, cli_overrides=[f"--{k}={v}" for k, v in changes.items()])
        config.threads = 1
        return config


@pytest.fixture(scope="session", params=["pi0", "pi05"])
def pair(request, tmp_path_factory) -> Pair:
    return Pair(request.param, tmp_path_factory.mktemp(request.param) / "checkpoint")
