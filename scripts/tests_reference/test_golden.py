"""The golden data of a small checkpoint: complete, reproducible, and what the sampling rule says."""

import json
import shutil

import numpy as np
import pytest
import reference_script
from PIL import Image
from reference import golden, observations
from reference.loading import Reference
from reference.recording import record


@pytest.fixture(scope="module")
def written(tiny, tmp_path_factory):
    output = tmp_path_factory.mktemp("golden") / "golden"
    assert reference_script.main([str(tiny), "--output", str(output), "--seed", "3"]) == 0
    return output, json.loads((output / "golden.json").read_text())


def test_every_file_is_there_and_finite(written):
    output, described = written
    assert described["format_version"] == 1
    assert [case["num_steps"] for case in described["cases"]] == [10, 4, 10]
    for case in described["cases"]:
        observation = json.loads((output / case["observation"]).read_text())
        for file in observation["images"].values():
            Image.open(output / case["name"] / file).verify()
        arrays = {name: np.load(output / entry["file"]) for name, entry in case["expected"].items() if name != "tokens"}
        for array in [np.load(output / case["noise"]), *arrays.values()]:
            assert array.dtype == np.dtype("<f4") and np.isfinite(array).all()
        assert arrays["v_t"].shape == (case["num_steps"], 10, 32)
        assert arrays["actions_normalized"].shape == (10, 32)
        assert arrays["actions"].shape == (10, 7)


def test_it_says_how_far_it_is_and_what_to_type_next(tiny, tmp_path, capsys):
    output = tmp_path / "golden"
    told = ["--vision-heads", "16", "--cases", "two_cameras_4_steps"]
    assert reference_script.main([str(tiny), "--output", str(output), *told]) == 0
    said = capsys.readouterr()
    assert said.out == f"{output}\n"
    # Three runs of four steps each.
    assert "two_cameras_4_steps (1 of 1, 2 views): 12 denoise steps in" in said.err
    assert f"next: .venv/bin/python scripts/export.py {tiny} BUNDLE --vision-heads 16, and: pi0-edge check BUNDLE" in said.err


def test_stopped_halfway_it_leaves_what_was_there(tiny, tmp_path, monkeypatch, capsys):
    kept = tmp_path / "golden/golden.json"
    kept.parent.mkdir()
    kept.write_text("of before")

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("reference.recording.record", stopped)
    assert reference_script.main([str(tiny), "--output", str(kept.parent)]) == 130
    assert "nothing was written" in capsys.readouterr().err
    assert [*tmp_path.rglob("*.json")] == [kept] and kept.read_text() == "of before" and len([*tmp_path.iterdir()]) == 1


def test_cameras_are_absent_in_some_cases_only(written):
    output, described = written
    present = [len(json.loads((output / case["observation"]).read_text())["images"]) for case in described["cases"]]
    assert present == [2, 2, 3]


def test_same_seed_same_bytes(written, tiny, tmp_path):
    output, _ = written
    assert reference_script.main([str(tiny), "--output", str(tmp_path / "again"), "--seed", "3"]) == 0
    files = sorted(path.relative_to(output) for path in output.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*") if path.is_file())
    for file in files:
        assert (output / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file


def test_sampling_takes_every_nth_number(tiny):
    reference = Reference(tiny)
    case = observations.made_up(reference, seed=3)[0]
    recording = record(reference, case)
    layers, rows, width = recording.keys.shape
    assert rows == 2 * reference.dimensions.image_tokens + len(recording.tokens)
    sampled = golden.sampled(recording.keys, 7, per_layer=True)
    assert sampled.shape == (layers, -(-rows * width // 7))
    assert np.array_equal(sampled[1], recording.keys[1].reshape(-1)[::7])
    assert np.array_equal(golden.sampled(recording.image_embeds, 5, per_layer=False), recording.image_embeds.reshape(-1)[::5])


@pytest.mark.parametrize("size", [1, 16384, 16385, 451584, 3 * 256 * 2048, 18 * 816 * 256])
def test_automatic_stride_stays_near_its_budget(size):
    stride = golden.auto_stride(size)
    assert size / stride <= golden.AUTO_BUDGET
    assert stride == 1 or stride % 2


def test_own_observations(written, tiny, tmp_path):
    """An observation directory gives the golden data of the case it was copied from."""
    output, described = written
    case = described["cases"][1]
    mine = tmp_path / "mine"
    arguments = ["--observation", str(output / case["name"]), "--num-steps", "4", "--seed", "3"]
    assert reference_script.main([str(tiny), "--output", str(mine), *arguments]) == 0
    for name in ("actions", "v_t", "keys"):
        assert (mine / case["name"] / f"{name}.npy").read_bytes() == (output / case["name"] / f"{name}.npy").read_bytes()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"state": [0.0] * 5}, "6 finite numbers"),
        ({"state": [0.0] * 5 + [float("nan")]}, "6 finite numbers"),
        ({"prompt": "pick up the cube " * 20}, "more than 24 tokens"),
        ({"images": {"observation.images.roof": "base.png"}}, "no camera of this policy"),
        ({"images": {"observation.images.base": "none.png"}}, "none.png"),
    ],
)
def test_a_wrong_observation_is_an_error(written, tiny, tmp_path, capsys, change, message):
    output, described = written
    observation = json.loads((output / described["cases"][0]["observation"]).read_text())
    (tmp_path / "observation.json").write_text(json.dumps(observation | change))
    for file in observation["images"].values():
        (tmp_path / file).write_bytes((output / described["cases"][0]["name"] / file).read_bytes())
    checkpoint = without_truncation(tiny, tmp_path / "checkpoint")
    assert reference_script.main([str(checkpoint), "--output", str(tmp_path / "out"), "--observation", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def without_truncation(checkpoint, copy):
    shutil.copytree(checkpoint, copy)
    path = copy / "policy_preprocessor.json"
    pipeline = json.loads(path.read_text())
    next(step for step in pipeline["steps"] if step["registry_name"] == "tokenizer_processor")["config"]["truncation"] = False
    path.write_text(json.dumps(pipeline))
    return copy


def test_truncated_sizes_do_truncate():
    for resolution in (56, 70, 112, 224):
        for aspect in (4 / 3, 9 / 16):
            width, height = observations.truncated_size(resolution, aspect)
            ratio = max(width / resolution, height / resolution)
            assert int(max(width, height) / ratio) == resolution - 1, (resolution, width, height)
