"""The GPU measurement: its plan, how it goes on after an interruption, and what it makes of results."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from conftest import SCRIPTS

sys.path.append(str(SCRIPTS / "gpu_bench"))

import hot_spots  # noqa: E402
import main as runner  # noqa: E402
import report  # noqa: E402
import wheels  # noqa: E402
from plan import Choices, Command, Step, make_plan  # noqa: E402


def choices(out: Path, **changes) -> Choices:
    given = {
        "provider": "cuda", "size": "full", "out": out, "work": out / "work", "wheels": None, "prebuilt": None, "cameras": [1, 2, 3],
        "precisions": ["fp16", "bf16", "fp32"], "chunks": 100, "reference": True, "threads": 8,
    }
    return Choices(**given | changes)


def test_dry_run_prints_every_command_and_does_nothing(tmp_path):
    said = subprocess.run(
        [SCRIPTS / "gpu_bench.sh", "--dry-run", "--out", tmp_path / "out", "--wheels", tmp_path], capture_output=True, text=True,
    )
    assert said.returncode == 0, said.stderr
    for step in make_plan(choices(tmp_path / "out", wheels=tmp_path)):
        assert f". {step.name}: {step.what}" in said.stdout
    assert "--cuda-graphs off" in said.stdout and "PI0_REFERENCE_GPU=1" in said.stdout and "wheels.py join" in said.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_most_telling_comes_first_and_nothing_before_what_it_needs(tmp_path):
    plan = make_plan(choices(tmp_path))
    names = [step.name for step in plan]
    assert len(set(names)) == len(names)
    order = ["small-parity", "bench-fp16-3-graphs-on", "bench-fp16-3-graphs-off", "profile", "torch-bfloat16-3", "bench-fp16-2-graphs-on",
             "bench-bf16-3-graphs-on", "bench-fp32-3-graphs-on", "check-bf16"]
    assert sorted(order, key=names.index) == order
    for index, step in enumerate(plan):
        assert set(step.after) <= set(names[:index]), step.name
        assert step.minutes < 10


def test_on_the_cpu_bf16_is_left_out(tmp_path):
    names = [step.name for step in make_plan(choices(tmp_path, provider="cpu", size="tiny"))]
    assert not [name for name in names if "bf16" in name] and "check-fp16" in names
    assert not [name for name in (step.name for step in make_plan(choices(tmp_path, reference=False))) if "torch" in name]


@pytest.mark.parametrize("arguments", [["--cameras", "4"], ["--precisions", "fp8"], ["--only", "nothing"]])
def test_wrong_usage(arguments):
    said = subprocess.run([SCRIPTS / "gpu_bench.sh", *arguments], capture_output=True, text=True)
    assert said.returncode == 2 and "Traceback" not in said.stderr


# -- going on -----------------------------------------------------------------------------------------------------------------


def run(plan: list[Step], c: Choices, minutes: float = math.inf) -> dict[str, str]:
    for directory in ("results", "logs", "done"):
        (c.out / directory).mkdir(parents=True, exist_ok=True)
    return runner._run(plan, c, argparse.Namespace(minutes=minutes, only=None, again=None))


def test_goes_on_where_it_stopped(tmp_path):
    c, trace = choices(tmp_path, provider="cpu"), tmp_path / "trace"

    def step(name: str, code: int, minutes: float = 1, after: tuple[str, ...] = (), may_fail: bool = False) -> Step:
        command = f"echo {name} >> {trace}; echo '{{}}'; exit {code}"
        return Step(name, "", minutes, [Command(["sh", "-c", command], c.result(name), may_fail=may_fail)], after)

    plan = [step("a", 0), step("b", 1), step("c", 0, after=("b",)), step("d", 0, after=("c",)), step("e", 0, 20), step("f", 3, may_fail=True)]
    assert run(plan, c, 5) == {"a": "done", "b": "failed", "c": "blocked", "d": "blocked", "e": "not run", "f": "done"}
    assert trace.read_text().split() == ["a", "b", "f"]
    # Done is done; what failed is tried again, and what waits for it follows.
    plan[1] = step("b", 0)
    assert set(run(plan, c).values()) == {"done"}
    assert trace.read_text().split() == ["a", "b", "f", "b", "c", "d", "e"]
    # A step that became another one is not done.
    plan[0] = step("a", 0 * 1, 1, (), True)
    changed = Step("a", "", 1, [*plan[0].commands, Command(["true"])])
    assert run([changed], c) == {"a": "done"}
    assert trace.read_text().split()[-1] == "a"
    assert "$ sh -c" in (tmp_path / "logs/b.log").read_text()


# -- wheels in parts ------------------------------------------------------------------------------------------------------------


def test_wheels_survive_being_carried_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(wheels, "PART_BYTES", 1000)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    contents = {"large-1.whl": np.random.default_rng(0).bytes(2500), "even-1.whl": b"x" * 2000, "small-1.whl": b"y"}
    for name, content in contents.items():
        (whole / name).write_bytes(content)
        wheels.split(whole / name, parts)
    assert max(path.stat().st_size for path in parts.iterdir()) <= 1000
    assert sorted(path.name for path in parts.iterdir())[2:] == [
        "large-1.whl.part000", "large-1.whl.part001", "large-1.whl.part002", "small-1.whl",
    ]
    assert wheels.join(parts, tmp_path / "joined") == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "joined").iterdir()} == contents


@pytest.mark.parametrize("damage", ["part000", "part001"])
def test_a_missing_part_is_an_error(tmp_path, monkeypatch, capsys, damage):
    monkeypatch.setattr(wheels, "PART_BYTES", 1000)
    (tmp_path / "a.whl").write_bytes(b"z" * 2500)
    parts = tmp_path / "parts"
    parts.mkdir()
    wheels.split(tmp_path / "a.whl", parts)
    (parts / f"a.whl.{damage}").unlink()
    assert wheels.join(parts, tmp_path / "joined") == 1
    assert "parts of a.whl are missing" in capsys.readouterr().err


# -- what is made of results ------------------------------------------------------------------------------------------------------


def test_a_real_profile_is_summed_up(tmp_path):
    options = ort.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "vision_encoder")
    options.log_severity_level = 3
    session = ort.InferenceSession(str(SCRIPTS.parent / "models/pi0-tiny/vision_encoder.onnx"), options, providers=["CPUExecutionProvider"])
    for _ in range(6):
        session.run(None, {"pixel_values": np.zeros((2, 3, 56, 56), np.float32)})
    session.end_profiling()
    summary = hot_spots.main(tmp_path)["vision_encoder"]
    operators = {entry["operator"]: entry for entry in summary["operators"]}
    assert summary["runs"] == 3 and summary["nodes_by_provider"].keys() == {"CPUExecutionProvider"}
    # Two layers and what surrounds them: four products in a layer besides attention, one in the projector.
    assert operators["Conv"]["nodes"] == 1 and operators["Softmax"]["nodes"] == 2
    assert sum(entry["ms"] for entry in summary["operators"]) + summary["ms_outside_nodes"] == pytest.approx(summary["ms_per_run"], abs=0.01)
    assert [entry["ms"] for entry in summary["operators"]] == sorted((entry["ms"] for entry in summary["operators"]), reverse=True)


def test_a_directory_without_profiles_is_an_error(tmp_path):
    said = subprocess.run([sys.executable, SCRIPTS / "gpu_bench/hot_spots.py", tmp_path], capture_output=True, text=True)
    assert said.returncode == 1 and "no profiles" in said.stderr


def test_the_report_holds_what_was_measured_against_the_aims(tmp_path):
    c = choices(tmp_path)
    plan = make_plan(c)
    (tmp_path / "results").mkdir()
    stage = {"n": 100, "p50_ms": 9.0, "p90_ms": 9.5, "p99_ms": None, "max_ms": 11.0}
    bench = {"stages": {name: stage for name in report.STAGES}, "prefix_len": 816, "num_steps": 10,
             "host_device_bytes": {"to_device": 1000, "from_device": 6400}, "device_memory": {"used_mb": 8000.0}}
    times = {"n": 30, "min_ms": 1.0, "p50_ms": 2.0, "p90_ms": 3.0}
    torch = {"stages": {"chunk": {
        "variants": {"lerobot bfloat16": times, "lerobot bfloat16 compiled": times, "pi0-edge": times},
        "ratios": {"lerobot bfloat16": 12.0, "lerobot bfloat16 compiled": 2.5},
    }}}
    row = {"max_abs_error": 1e-3, "relative_error": 2e-4, "tolerance": 5e-3, "cosine": 0.9999999, "pass": True}
    bad = row | {"max_abs_error": None, "relative_error": None, "cosine": 0.0, "pass": False}
    check = {"cases": [{"stages": {"keys": row}}, {"stages": {"keys": bad, "v_t": row}}]}
    for name, content in {"bench-fp16-3-graphs-on": bench, "torch-bfloat16-3": torch, "check-fp16": check, "check-bf16": ""}.items():
        (tmp_path / f"results/{name}.json").write_text(json.dumps(content) if content else "")
    report.write(c, plan, {step.name: "not run" for step in plan})
    text, content = (tmp_path / "report.md").read_text(), json.loads((tmp_path / "report.json").read_text())
    assert [(aim["measured"], aim["met"]) for aim in content["aims"]] == [(1.43, True), (12.0, True), (2.5, False)]
    assert "| fp16 | 3 | on | 816 | 9.00 / 9.50 / – |" in text and "1000 / 6400 | 8000 MB |" in text
    assert "| fp16 | keys | not finite | not finite of 5e-03 | 0.0000000 | **FAIL** |" in text
    assert "| bf16 | **did not run** |" in text and "trial run" not in text
    report.write(choices(tmp_path, provider="cpu", size="tiny"), plan, {step.name: "done" for step in plan})
    assert "trial run" in (tmp_path / "report.md").read_text() and not json.loads((tmp_path / "report.json").read_text())["aims"]
