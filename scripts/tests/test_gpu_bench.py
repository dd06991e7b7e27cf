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

import fatbin  # noqa: E402
import hot_spots  # noqa: E402
import main as runner  # noqa: E402
import pack  # noqa: E402
import report  # noqa: E402
from plan import Choices, Command, Step, make_plan  # noqa: E402
from quick import make_quick_plan  # noqa: E402


def choices(out: Path, **changes) -> Choices:
    given = {
        "provider": "cuda", "size": "full", "out": out, "work": out / "work", "packed": None, "prebuilt": None, "cameras": [1, 2, 3],
        "precisions": ["fp16", "bf16", "fp32"], "chunks": 100, "reference": True, "threads": 8,
    }
    return Choices(**given | changes)


def test_dry_run_prints_every_command_and_does_nothing(tmp_path):
    said = subprocess.run(
        [SCRIPTS / "gpu_bench.sh", "--dry-run", "--out", tmp_path / "out"], capture_output=True, text=True,
    )
    assert said.returncode == 0, said.stderr
    for step in make_plan(choices(tmp_path / "out")):
        assert f". {step.name}: {step.what}" in said.stdout
    assert "--cuda-graphs off" in said.stdout and "PI0_REFERENCE_GPU=1" in said.stdout
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


CONTENTS = {"compute": 90, "size": "full", "small": ["pi0-bf16", "pi0-fp32", "pi05-fp16"],
            "full": ["pi0-fp16", "pi0-fp16-fused", "pi0-bf16", "pi05-fp16"]}


def test_the_quick_plan_measures_what_is_packed_within_its_minutes(tmp_path):
    c = choices(tmp_path, packed=tmp_path / "packed")
    plan = make_quick_plan(c, CONTENTS)
    names = [step.name for step in plan]
    order = ["doctor", "parity", "fill-pi0-fp16", "bench-pi0-fp16-3-graphs-on", "bench-pi0-fp16-3-graphs-off", "profile", "torch-eager-3",
             "bench-pi0-fp16-fused-3-graphs-on", "bench-pi0-bf16-3-graphs-on", "bench-pi05-fp16-3-graphs-on", "torch-compiled-3"]
    assert sorted(order, key=names.index) == order and sum(step.minutes for step in plan) < 8
    assert all(step.minutes < step.limit <= 2 for step in plan[:-1]), "one that hangs must not take what is left"
    parity = next(step for step in plan if step.name == "parity")
    assert len(parity.commands) == 2 * len(CONTENTS["small"])
    said = [str(command) for step in plan for command in step.commands]
    assert any("synthesize pi0 " in line and "--precision fp16-fused " in line for line in said)
    # Nothing of it is built or installed there.
    assert not [line for line in said if ".venv" in line or ".reference" in line or "cargo" in line or ".cache" in line]
    on_cpu = make_quick_plan(choices(tmp_path, packed=tmp_path / "packed", provider="cpu"), CONTENTS)
    assert not [step.name for step in on_cpu if "bf16" in step.name]


@pytest.mark.parametrize("arguments", [["--cameras", "4"], ["--precisions", "fp8"], ["--only", "nothing"], ["--bundle", "pi0-fp16"]])
def test_wrong_usage(arguments):
    said = subprocess.run([SCRIPTS / "gpu_bench.sh", *arguments], capture_output=True, text=True)
    assert said.returncode == 2 and "Traceback" not in said.stderr


# -- going on -----------------------------------------------------------------------------------------------------------------


def run(plan: list[Step], c: Choices, minutes: float = math.inf) -> dict[str, str]:
    for directory in ("results", "logs", "done"):
        (c.state / directory).mkdir(parents=True, exist_ok=True)
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


def test_a_step_that_hangs_is_ended_and_the_rest_runs(tmp_path):
    c = choices(tmp_path, provider="cpu", packed=tmp_path / "packed")
    hangs = Step("hangs", "", 0, [Command(["sh", "-c", "sleep 600 & sleep 600"], may_fail=True)], limit=0.01)
    both = [Command(["sh", "-c", f"echo '[{n}]'"], c.result(f"both-{n}")) for n in (1, 2)]
    assert run([hangs, Step("both", "", 0, both, together=True)], c) == {"hangs": "failed", "both": "done"}
    results = json.loads((c.out / "report.json").read_text())["results"]
    assert (results["both-1"], results["both-2"]) == ([1], [2])
    # What comes back is three files.
    assert sorted(path.name for path in c.out.iterdir() if path.is_file()) == ["logs.tar.gz", "report.json", "report.md"]


# -- what is packed ---------------------------------------------------------------------------------------------------------------


def fat_binary(*codes: tuple[int, int, bytes]) -> bytes:
    entries = b"".join(fatbin.ENTRY.pack(kind, 0x101, 64, len(code), compute).ljust(64, b"\1") + code for kind, compute, code in codes)
    return fatbin.HEADER.pack(0xBA55ED50, 1, fatbin.HEADER.size, len(entries)) + entries


def test_device_code_of_other_chips_goes_and_nothing_moves():
    several = fat_binary((2, 80, b"a" * 40), (2, 90, b"b" * 48), (1, 90, b"c" * 8))
    library = b"host" + several + fatbin.MAGIC + b"\xff" * 30 + fat_binary((2, 90, b"d" * 16)) + b"end"
    pruned = fatbin.prune(library, 90)
    assert pruned == library.replace(b"a" * 40, bytes(40)).replace(b"c" * 8, bytes(8)).replace(b"d" * 16, bytes(16))
    with pytest.raises(ValueError, match=r"for compute capability 87; there is \[80, 90\]"):
        fatbin.prune(library, 87)
    with pytest.raises(ValueError, match="no device code"):
        fatbin.prune(b"host", 90)


def test_the_real_provider_keeps_code_for_one_chip():
    provider = SCRIPTS.parent / ".cache/onnxruntime-gpu" / pack.CUDA_PROVIDER
    if not provider.exists():
        pytest.skip("scripts/fetch_onnxruntime.sh --gpu was not run")
    library = provider.read_bytes()
    pruned = fatbin.prune(library, 90)
    assert len(pruned) == len(library)
    for before, after in zip(fatbin.fat_binaries(library), fatbin.fat_binaries(pruned), strict=True):
        assert before == after
        for code in before:
            content = pruned[code.offset : code.offset + code.size]
            kept = code.compute == 90 and len(before) > 1
            assert content == (library[code.offset : code.offset + code.size] if kept else bytes(code.size))


def test_what_is_packed_comes_out_again(tmp_path):
    made, packed, target = tmp_path / "made", tmp_path / "packed", tmp_path / "target"
    for directory in (made / "bin", packed / "part1", packed / "part2"):
        directory.mkdir(parents=True)
    (made / "bin/program").write_text("#!/bin/sh\n")
    (made / "bin/program").chmod(0o755)
    pack._archive(packed / "part1/a.tar.xz", made)
    assert [path.name for path in (packed / "part1").iterdir()] == ["a.tar.xz"]
    pack.unpack(packed, target)
    assert (target / "bin/program").stat().st_mode & 0o111
    (target / "bin/program").write_text("changed")
    pack.unpack(packed, target)
    assert (target / "bin/program").read_text() == "changed", "unpacked once"
    # The second part may come later.
    pack._archive(packed / "part2/b.tar.xz", made)
    pack.unpack(packed, target)
    assert (target / "bin/program").read_text() == "#!/bin/sh\n"


def test_what_is_not_packed_is_said(tmp_path):
    said = subprocess.run([SCRIPTS / "gpu_bench.sh", "--quick", "--packed", tmp_path, "--out", tmp_path / "out"], capture_output=True, text=True)
    assert said.returncode == 1 and "is not packed" in said.stderr and "--pack" in said.stderr and "Traceback" not in said.stderr
    said = subprocess.run([SCRIPTS / "gpu_bench.sh", "--pack", tmp_path, "--bundle", f"pi0-x={tmp_path}"], capture_output=True, text=True)
    assert said.returncode == 1 and "not the directory of a bundle" in said.stderr and "Traceback" not in said.stderr


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
    times = {"n": 30, "first_ms": 9000.0, "min_ms": 1.0, "p50_ms": 2.0, "p90_ms": 3.0}
    torch = {"stages": {"chunk": {
        "variants": {"lerobot bfloat16": times, "lerobot bfloat16 compiled": times, "pi0-edge": times},
        "ratios": {"lerobot bfloat16": 12.0, "lerobot bfloat16 compiled": 2.5},
    }}}
    row = {"max_abs_error": 1e-3, "relative_error": 2e-4, "tolerance": 5e-3, "cosine": 0.9999999, "pass": True}
    bad = row | {"max_abs_error": None, "relative_error": None, "cosine": 0.0, "pass": False}
    check = {"cases": [{"stages": {"keys": row}}, {"stages": {"keys": bad, "v_t": row}}]}
    gpu = "name, driver_version\nNVIDIA H200, 580"
    (tmp_path / "results/gpu.json").write_text(gpu)
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
