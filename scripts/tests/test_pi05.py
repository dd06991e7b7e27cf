"""What is different in a bundle of PI0.5: no state token, a table of modulations, the state in the prompt."""

from __future__ import annotations

import json
import shutil
from math import prod
from pathlib import Path

import onnx
import pytest

from conftest import edit_json, edit_weights
from exporter.bundle import export
from exporter.errors import ExportError
from exporter.manifest import Options
from exporter.progress import Progress
from exporter.synthetic.spec import make_spec
from make_checkpoint import make_checkpoint

# The rules of every bundle's graphs, held against the one made here.
from test_bundle import (  # noqa: F401
    test_graph_is_portable,
    test_graph_matches_manifest,
    test_norms_are_fused_by_onnx_runtime,
    test_weights_are_aligned,
    test_x_next_is_written_after_x_t_is_read,
    test_x_next_may_share_the_memory_of_x_t,
)

EXPERT = "model.paligemma_with_expert.gemma_expert.model."
PREPROCESSOR = "policy_preprocessor.json"


class Notes(Progress):
    """Keeps what the exporter says."""

    def __init__(self):
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("pi05") / "checkpoint"
    make_checkpoint(directory, make_spec("tiny", policy="pi05", seed=1))
    return directory


@pytest.fixture(scope="module")
def bundle(checkpoint, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("bundle") / "bundle"
    export(checkpoint, directory)
    return directory


@pytest.fixture(scope="module")
def manifest(bundle) -> dict:
    return json.loads((bundle / "manifest.json").read_text())


@pytest.fixture
def broken(checkpoint, tmp_path) -> Path:
    return shutil.copytree(checkpoint, tmp_path / "checkpoint")


def exported(checkpoint: Path, **options) -> tuple[dict, list[str]]:
    """The manifest, and what was said meanwhile."""
    notes = Notes()
    export(checkpoint, checkpoint.parent / "bundle", Options(golden=False, force=True, **options), notes)
    return json.loads((checkpoint.parent / "bundle/manifest.json").read_text()), notes.said


def test_manifest(manifest):
    assert manifest["policy"] == "pi05"
    assert manifest["prompt"]["format"] == "pi05_state" and manifest["prompt"]["max_tokens"] == 200
    assert manifest["source"]["conventions"] == {"letterbox_pad": -1.0, "pad_state_in_prompt": False}
    assert manifest["state"]["normalization"]["mode"] == manifest["action"]["normalization"]["mode"] == "quantiles"
    (table,) = manifest["graphs"]["time_conditioning"]["outputs"]
    assert table["shape"] == ["steps", (2 * 3 + 1) * 3 * 32]
    inputs = {value["name"]: value["shape"] for value in manifest["graphs"]["denoise_step"]["inputs"]}
    assert "state" not in inputs and inputs["time_table"] == table["shape"]
    assert inputs["rope_cos"] == [10, 8]


def test_modulations_leave_the_step(bundle):
    """None of the layers that make modulations is streamed in every step: only attention, MLP and the two projections are."""
    graph = onnx.load(bundle / "denoise_step.onnx", load_external_data=False).graph
    attention, mlp = (64 + 2 * 16) * 32 + 64 * 32, 3 * 96 * 32
    values = sum(prod(tensor.dims) for tensor in graph.initializer if len(tensor.dims) == 2)
    assert values == 3 * (attention + mlp) + 2 * 32 * 32


def test_what_only_pi0_has_may_remain(broken):
    """A PI0.5 that began as a PI0 still holds its state token, and lerobot skips it."""
    edit_weights(broken / "model.safetensors", lambda tensors: tensors.update({
        "state_proj.weight": ["F32", [32, 32], bytes(4096)], "state_proj.bias": ["F32", [32], bytes(128)],
    }))
    exported(broken)


@pytest.mark.parametrize("name", ["time_mlp_in.bias", EXPERT + "layers.1.input_layernorm.dense.weight", EXPERT + "norm.dense.bias"])
def test_missing_tensor(broken, name):
    name = name if name.startswith("model.") else f"model.{name}"
    edit_weights(broken / "model.safetensors", lambda tensors: tensors.pop(name))
    with pytest.raises(ExportError, match=name.removeprefix("model.")):
        exported(broken)


def test_a_plain_norm_is_unknown(broken):
    name = EXPERT + "norm.weight"
    edit_weights(broken / "model.safetensors", lambda tensors: tensors.update({name: ["F32", [32], bytes(128)]}))
    with pytest.raises(ExportError, match=f"{name}: unknown tensor; pi05"):
        exported(broken)


@pytest.mark.parametrize("edit, problem", [
    (lambda steps: steps.pop(4), "pi05_prepare_state_tokenizer_processor_step"),
    (lambda steps: steps.insert(2, steps.pop(4)), "must come earlier"),
    (lambda steps: steps.append({"registry_name": "pi0_new_line_processor", "config": {}}), "pi0_new_line_processor"),
    (lambda steps: steps[4]["config"].update(task_key="instruction"), "task_key"),
])
def test_processor_steps(broken, edit, problem):
    edit_json(broken / PREPROCESSOR, lambda content: edit(content["steps"]))
    with pytest.raises(ExportError, match=problem):
        exported(broken)


def old(checkpoint: Path) -> None:
    """Takes away the step by which newer pipelines are known."""
    edit_json(checkpoint / PREPROCESSOR, lambda content: content["steps"].pop(2))
    edit_json(checkpoint / "policy_postprocessor.json", lambda content: content["steps"].pop(1))


@pytest.mark.parametrize("option, padded, warned", [(None, False, True), (False, False, False), (True, True, False)])
def test_padded_state(broken, option, padded, warned):
    old(broken)
    manifest, said = exported(broken, pad_state_in_prompt=option)
    assert manifest["source"]["conventions"]["pad_state_in_prompt"] == padded
    assert manifest["prompt"]["format"] == ("pi05_padded_state" if padded else "pi05_state")
    assert bool([note for note in said if "--pad-state-in-prompt" in note]) == warned


@pytest.mark.parametrize("policy", ["pi0", "pi05"])
@pytest.mark.parametrize("option, value, warned", [(None, -1.0, True), (-1.0, -1.0, False), (-3.0, -3.0, False)])
def test_letterbox(tmp_path, policy, option, value, warned):
    make_checkpoint(tmp_path / "checkpoint", make_spec("tiny", policy=policy, old_processors=True))
    manifest, said = exported(tmp_path / "checkpoint", letterbox_pad=option)
    assert manifest["image"]["pad_value"] == manifest["source"]["conventions"]["letterbox_pad"] == value
    assert bool([note for note in said if "--letterbox-pad" in note]) == warned


def test_no_warning_where_the_checkpoint_tells(broken, tmp_path):
    assert exported(broken)[1] == ["prompts of more than 200 tokens are cut there, as in training"]
    make_checkpoint(tmp_path / "whole/checkpoint", make_spec("tiny", policy="pi05", state_dim=32, old_processors=True))
    said = [note for note in exported(tmp_path / "whole/checkpoint")[1] if not note.startswith("prompts of more than 200 tokens")]
    assert [note for note in said if "state" in note] == []


def test_pi0_has_no_state_in_its_prompt(tiny, tmp_path):
    with pytest.raises(ExportError, match="--pad-state-in-prompt"):
        export(tiny, tmp_path / "bundle", Options(pad_state_in_prompt=True))
