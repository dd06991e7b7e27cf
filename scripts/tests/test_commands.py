"""The two commands as a user runs them, and what they cost."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import SCRIPTS
from exporter.synthetic.spec import SIZES, make_spec
from exporter.synthetic.tensors import checkpoint_tensors
from exporter.synthetic.tokenizer import tokenizer_json
from make_checkpoint import make_checkpoint


def run(script: str, *arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPTS / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_from_nothing_to_a_bundle(tmp_path):
    made = run("make_checkpoint.py", tmp_path / "checkpoint", "--size", "tiny", "--cameras", "2", "--chunk-size", "6")
    assert made.returncode == 0, made.stderr
    exported = run("export.py", tmp_path / "checkpoint", tmp_path / "bundle", "--verbose")
    assert exported.returncode == 0, exported.stderr
    assert exported.stdout == ""
    assert "golden" in exported.stderr and "anonymous memory" in exported.stderr
    assert f"{tmp_path / 'bundle'} is complete; next: pi0-edge check {tmp_path / 'bundle'}" in exported.stderr
    manifest = json.loads((tmp_path / "bundle/manifest.json").read_text())
    assert len(manifest["cameras"]) == 2 and manifest["dimensions"]["action_horizon"] == 6


def test_quiet(tiny, tmp_path):
    exported = run("export.py", tiny, tmp_path / "bundle", "--quiet")
    assert (exported.returncode, exported.stdout, exported.stderr) == (0, "", "")


@pytest.mark.parametrize("script", ["export.py", "make_checkpoint.py", "make_episode.py"])
def test_help_shows_examples(script):
    shown = run(script, "--help")
    assert shown.returncode == 0 and "examples:" in shown.stdout


def test_golden_data_is_one_command(tmp_path):
    """reference.py, of a Python without lerobot, has its environment made and goes on there with the same arguments."""
    for name in ("reference.py", "reference/__init__.py", "reference/environment.py", *(f"exporter/{f}.py" for f in ("__init__", "directory", "progress"))):
        (tmp_path / "scripts" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SCRIPTS / name, tmp_path / "scripts" / name)
    script, checkpoint, python = tmp_path / "scripts/reference_env.sh", tmp_path / "checkpoint", tmp_path / ".reference/bin/python"
    script.write_text(f"#!/bin/sh\nmkdir -p {python.parent} && printf '#!/bin/sh\\necho went on with \"$@\"\\n' > {python} && chmod +x {python}\n")
    script.chmod(0o755)
    command = [sys.executable, tmp_path / "scripts/reference.py", checkpoint, "--seed", "3"]

    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 1 and refused.stderr == f"error: {checkpoint}: no such directory\n"
    assert not python.exists(), "nothing is downloaded for a checkpoint that is not there"

    checkpoint.mkdir()
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"went on with {tmp_path}/scripts/reference.py {checkpoint} --seed 3\n"), done.stderr

    script.write_text("#!/bin/sh\necho no gcc >&2; exit 1\n")
    failed = subprocess.run(command, capture_output=True, text=True)
    assert (failed.returncode, failed.stdout, failed.stderr) == (1, "", "no gcc\n")


@pytest.mark.parametrize("arguments", [["only-one"], ["a", "b", "--precision", "fp8"], ["a", "b", "--num-steps", "0"]])
def test_wrong_usage(arguments):
    assert run("export.py", *arguments).returncode == 2


def test_failure(tmp_path):
    failed = run("export.py", tmp_path / "nowhere", tmp_path / "bundle")
    assert failed.returncode == 1 and failed.stderr.startswith("error: ") and "Traceback" not in failed.stderr


def test_checkpoint_that_cannot_be(tmp_path):
    failed = run("make_checkpoint.py", tmp_path / "checkpoint", "--vision-heads", "7")
    assert failed.returncode == 1 and "vision heads" in failed.stderr
    (tmp_path / "there").mkdir()
    assert "exists already" in run("make_checkpoint.py", tmp_path / "there").stderr


@pytest.fixture(scope="module")
def medium(tmp_path_factory) -> Path:
    """A checkpoint of 350 MB: a vocabulary for the mass, and wide layers."""
    directory = tmp_path_factory.mktemp("medium") / "checkpoint"
    make_checkpoint(directory, make_spec(
        "tiny", prefix_width=1024, prefix_mlp=4096, expert_width=256, layers=3, vocab=32000, vision_width=256, head_dim=64,
    ))
    return directory


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_stopped_halfway(medium, tmp_path, stop):
    command = [sys.executable, str(SCRIPTS / "export.py"), str(medium), str(tmp_path / "bundle")]
    # A shell's background job ignores SIGINT, and so do its children unless they are told otherwise.
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".bundle.*/prefix_prefill.onnx.data")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(stop)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "nothing was written" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="anonymous memory is only told on Linux")
def test_memory_does_not_grow_with_the_model(tiny, medium, tmp_path):
    peaks = []
    for index, checkpoint in enumerate((tiny, medium)):
        exported = run("export.py", checkpoint, tmp_path / f"bundle{index}", "--verbose")
        assert exported.returncode == 0, exported.stderr
        peaks.append(int(re.search(r"anonymous memory: (\d+) MB", exported.stderr)[1]))
    weights = os.path.getsize(medium / "model.safetensors") / 1e6
    assert weights > 300
    # A few blocks in flight, whatever the model's size.
    assert peaks[1] - peaks[0] < 64 < weights / 4


# -- synthetic checkpoints ------------------------------------------------------------------------------------------------


def test_full_size_has_the_published_layout():
    tensors = checkpoint_tensors(SIZES["full"])
    assert len(tensors) == 777 == len({tensor.name for tensor in tensors})

    def count(*parts: str) -> int:
        return sum(tensor.count for tensor in tensors if any(part in tensor.name for part in parts))

    assert count("vision_tower") == 412_442_352
    assert count("multi_modal_projector") == 2_361_344
    assert count("language_model.layers", "language_model.norm") == 1_981_884_416
    assert count("paligemma.lm_head") == 526_647_296
    assert count("gemma_expert.model") == 311_464_960
    assert count("gemma_expert.lm_head") == 263_323_648
    assert sum(tensor.count for tensor in tensors) == 3_501_372_176


def test_tokenizer_is_of_paligemmas_kind():
    tokenizer = tokenizer_json()
    vocabulary, merges = tokenizer["model"]["vocab"], tokenizer["model"]["merges"]
    assert [vocabulary[token] for token in ("<pad>", "<eos>", "<bos>", "<unk>")] == [0, 1, 2, 3]
    assert sorted(vocabulary.values()) == list(range(len(vocabulary))) and len(vocabulary) <= 512
    assert {f"<0x{byte:02X}>" for byte in range(256)} <= vocabulary.keys()
    assert {"\n", "\u2581", *"0123456789"} <= vocabulary.keys()
    # A merge joins pieces that exist into one that exists, and never joins digits.
    assert all({a, b, a + b} <= vocabulary.keys() and not (a + b).isdigit() for a, b in merges)
