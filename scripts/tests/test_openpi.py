"""openpi's checkpoints: what the exporter makes of what it finds, and what it refuses to guess."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import edit_json, edit_weights
from exporter.bundle import export
from exporter.errors import ExportError
from exporter.manifest import Options
from exporter.progress import Progress
from exporter.synthetic.spec import make_spec
from make_checkpoint import make_checkpoint

STATISTICS = "assets/arm/norm_stats.json"


class Notes(Progress):
    """Keeps what the exporter says."""

    def __init__(self):
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module", params=["pi0", "pi05"])
def policy(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def checkpoint(policy, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("openpi") / "checkpoint"
    make_checkpoint(directory, make_spec("tiny", policy=policy, format="openpi", seed=1, state_dim=7))
    return directory


@pytest.fixture
def broken(checkpoint, tmp_path) -> Path:
    return shutil.copytree(checkpoint, tmp_path / "checkpoint")


def exported(checkpoint: Path, **options) -> tuple[dict, list[str]]:
    notes = Notes()
    bundle = checkpoint.parent / "bundle"
    export(checkpoint, bundle, Options(golden=False, force=True, **options), notes)
    return json.loads((bundle / "manifest.json").read_text()), notes.said


def statistics(checkpoint: Path) -> dict:
    return json.loads((checkpoint / STATISTICS).read_text())["norm_stats"]


def test_manifest(checkpoint, policy):
    manifest, said = exported(checkpoint)
    stats, pi05 = statistics(checkpoint), policy == "pi05"
    assert manifest["policy"] == policy
    assert manifest["source"]["format"] == "openpi"
    assert manifest["source"]["norm_stats"] == STATISTICS
    assert manifest["image"] == {"resize": "bilinear", "antialias": True, "pad_value": -1.0, "pad_side": "center"}
    assert [camera["name"] for camera in manifest["cameras"]] == ["base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"]
    assert manifest["prompt"]["format"] == ("pi05_state" if pi05 else "cleaned_newline")
    assert manifest["prompt"]["max_tokens"] == (200 if pi05 else 48)
    assert manifest["flow"]["times"] == "accumulated"
    for feature, name in (("state", "state"), ("action", "actions")):
        names = ("q01", "q99") if pi05 else ("mean", "std")
        expected = {"mode": "quantile_range" if pi05 else "z_score", "eps": 1e-6, **{n: stats[name][n] for n in names}}
        assert manifest[feature]["normalization"] == expected
        assert (manifest[feature]["dim"], manifest[feature]["padded_dim"]) == (7, 32)
    assert manifest["action"]["relative_mask"] is None
    warned = [option for option in ("--delta-actions", "--state-in-prompt", "--rotary") if any(option in note for note in said)]
    assert warned == (["--delta-actions", "--state-in-prompt"] if pi05 else ["--delta-actions"])


def test_nothing_is_asked_twice(checkpoint, policy):
    told = {"delta_actions": "none"} | ({"state_in_prompt": True} if policy == "pi05" else {})
    assert [note for note in exported(checkpoint, **told)[1] if "openpi" in note] == []


def test_same_weights_same_graphs(checkpoint, policy, tmp_path):
    """The graphs are those of a lerobot checkpoint with these weights."""
    cameras = ("observation.images.a", "observation.images.b", "observation.images.c")
    spec = make_spec("tiny", policy=policy, seed=1, state_dim=7, cameras=cameras, embed_name="embed_tokens", model_prefix=False)
    make_checkpoint(tmp_path / "checkpoint", spec)
    theirs, ours = exported(tmp_path / "checkpoint")[0], exported(checkpoint)[0]
    assert {name: file for name, file in ours["files"].items() if "onnx" in name} == {
        name: file for name, file in theirs["files"].items() if "onnx" in name
    }


@pytest.mark.parametrize("mask, expected", [
    ("6,-1", [True] * 6 + [False]), ("7", [True] * 7), ("2,-3,1", [True] * 2 + [False] * 3 + [True, False]), ("none", None),
])
def test_deltas(checkpoint, mask, expected):
    assert exported(checkpoint, delta_actions=mask)[0]["action"]["relative_mask"] == expected


@pytest.mark.parametrize("mask, problem", [
    ("6,x", "not a list of whole numbers"), ("8", "marks 8 of 8 actions"), ("-7", "marks 0 of 7"), ("", "not a list"),
])
def test_bad_deltas(checkpoint, mask, problem):
    with pytest.raises(ExportError, match=f"--delta-actions: .*{problem}"):
        exported(checkpoint, delta_actions=mask)


def test_deltas_need_a_state(checkpoint):
    with pytest.raises(ExportError, match="makes action 7 a delta to a state of 5 values"):
        exported(checkpoint, delta_actions="7", state_dim=5)


def test_without_config(broken, policy):
    """As openpi's PyTorch training saves it."""
    (broken / "config.json").unlink()
    with pytest.raises(ExportError, match="config.json: no such file.*--action-horizon"):
        exported(broken)
    manifest, _ = exported(broken, action_horizon=10)
    assert (manifest["policy"], manifest["dimensions"]["action_horizon"], manifest["source"]["dtype"]) == (policy, 10, "float32")


def test_a_horizon_that_contradicts(checkpoint):
    with pytest.raises(ExportError, match="--action-horizon: 9 contradicts"):
        exported(checkpoint, action_horizon=9)


def test_statistics_of_several_robots(broken):
    other = broken / "assets/lab/other/norm_stats.json"
    other.parent.mkdir(parents=True)
    edit = json.loads((broken / STATISTICS).read_text())
    edit["norm_stats"]["state"]["mean"][0] = edit["norm_stats"]["state"]["q01"][0] = -7.5
    other.write_text(json.dumps(edit))
    with pytest.raises(ExportError, match="several robots: arm, lab/other; choose one with --norm-stats"):
        exported(broken)
    for given in (Path("lab/other"), other):
        manifest, _ = exported(broken, norm_stats=given)
        assert manifest["source"]["norm_stats"] == "assets/lab/other/norm_stats.json"
        rule = manifest["state"]["normalization"]
        assert (rule.get("mean") or rule["q01"])[0] == -7.5
    with pytest.raises(ExportError, match="--norm-stats: neither .* nor nowhere is a file"):
        exported(broken, norm_stats=Path("nowhere"))


def test_no_statistics(broken):
    shutil.rmtree(broken / "assets")
    with pytest.raises(ExportError, match="holds no norm_stats.json.*--norm-stats"):
        exported(broken)


def edit_statistics(checkpoint: Path, edit) -> None:
    edit_json(checkpoint / STATISTICS, lambda content: edit(content["norm_stats"]))


@pytest.mark.parametrize("values, problem", [
    (None, "compute the statistics anew"), ([1.0, "x"], "not a list of finite numbers"),
    ([1.0, float("inf")], "not a list of finite numbers"), ([0.5] * 6, "has 6 values, .* has 7|has 7 values, .* has 6"),
    ([0.5] * 33, "has"),
])
def test_bad_statistics(broken, policy, values, problem):
    name = "q99" if policy == "pi05" else "std"
    edit_statistics(broken, lambda stats: stats["state"].update({name: values}))
    with pytest.raises(ExportError, match=f"norm_stats.state.{name}: .*({problem})"):
        exported(broken)


def test_disordered_statistics(broken, policy):
    edit_statistics(broken, lambda stats: stats["actions"].update(q99=[-9.0] * 7, std=[-1.0] * 7))
    with pytest.raises(ExportError, match="above -9.0 of q99" if policy == "pi05" else "holds a negative value"):
        exported(broken)


def test_padded_statistics_are_not_taken_for_joints(broken):
    def pad(stats):
        for feature in stats.values():
            for values in feature.values():
                values.extend([0.0] * 9)

    edit_statistics(broken, pad)
    with pytest.raises(ExportError, match="the last 9 of 16 values have never been anything but zero.*--state-dim"):
        exported(broken)
    with pytest.raises(ExportError, match="--action-dim"):
        exported(broken, state_dim=7)
    manifest, _ = exported(broken, state_dim=7, action_dim=16)
    assert (manifest["state"]["dim"], manifest["action"]["dim"]) == (7, 16)
    with pytest.raises(ExportError, match="--state-dim: 17 is more than the 16"):
        exported(broken, state_dim=17)


def test_state_in_prompt(checkpoint, policy):
    if policy == "pi0":
        with pytest.raises(ExportError, match="--state-in-prompt"):
            exported(checkpoint, state_in_prompt=True)
    else:
        manifest, _ = exported(checkpoint, state_in_prompt=False)
        assert manifest["prompt"]["format"] == "cleaned_newline"
        assert "pad_state_in_prompt" not in manifest["source"]["conventions"]


def test_rotary(broken):
    edit_json(broken / "config.json", lambda content: content.update(precision="bfloat16"))
    manifest, said = exported(broken)
    assert manifest["rope"]["inv_freq"] == "f32" and any("--rotary" in note for note in said)
    manifest, said = exported(broken, rotary="bf16")
    assert manifest["rope"]["inv_freq"] == "bf16" and not any("--rotary" in note for note in said)


def test_rename(checkpoint):
    manifest, _ = exported(checkpoint, rename="observation/image=base_0_rgb,wrist=left_wrist_0_rgb")
    assert manifest["rename"] == {"observation/image": "base_0_rgb", "wrist": "left_wrist_0_rgb"}
    for bad in ("top=roof_rgb", "base_0_rgb", "=base_0_rgb"):
        with pytest.raises(ExportError, match="--rename: .* is not FROM=TO"):
            exported(checkpoint, rename=bad)


@pytest.mark.parametrize("option, value", [("letterbox_pad", -3.0), ("pad_state_in_prompt", True)])
def test_what_is_lerobots(checkpoint, option, value):
    with pytest.raises(ExportError, match="is an openpi checkpoint"):
        exported(checkpoint, **{option: value})


def test_what_is_openpis(tiny, tmp_path):
    with pytest.raises(ExportError, match="--delta-actions: is for openpi's checkpoints"):
        export(tiny, tmp_path / "bundle", Options(delta_actions="6,-1"))


def test_lora(broken):
    edit_json(broken / "config.json", lambda content: content.update(paligemma_variant="gemma_2b_lora"))
    with pytest.raises(ExportError, match="merge the adapters"):
        exported(broken)


def test_no_tokenizer(broken):
    shutil.rmtree(broken / "tokenizer")
    with pytest.raises(ExportError, match="--tokenizer"):
        exported(broken)


def test_images_that_are_not_square(broken):
    name = "paligemma_with_expert.paligemma.model.vision_tower.vision_model.embeddings.position_embedding.weight"
    edit_weights(broken / "model.safetensors", lambda tensors: tensors.update({name: ["F32", [15, 48], np.zeros(720, "<f4").tobytes()]}))
    with pytest.raises(ExportError, match="15 patches do not make a square image"):
        exported(broken)
