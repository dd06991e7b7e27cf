"""make_episode.py beside lerobot on a dataset that lerobot writes now, and `replay` on what comes of it.

Needs lerobot's dataset packages on top of the reference environment:

  .reference/bin/python -m pip install --no-deps -r scripts/reference/requirements-dataset.txt
"""

import json
import os
import pathlib
import sys

import numpy as np
import pytest
from conftest import ROOT, run
from PIL import Image

pytest.importorskip("datasets", reason="lerobot's datasets need scripts/reference/requirements-dataset.txt")
pytest.importorskip("av", reason="lerobot's datasets need scripts/reference/requirements-dataset.txt")

sys.path.insert(0, str(ROOT / "scripts" / "tests"))
import recorded_dataset as recorded  # noqa: E402
from episode.recorded import take  # noqa: E402
from exporter.progress import Progress  # noqa: E402
from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402


@pytest.fixture(scope="module", params=["libsvtav1", "h264", "hevc"])
def written(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("dataset") / request.param
    recorded.write(root, request.param)
    return root


def read(directory):
    episode = json.loads((directory / "episode.json").read_text(encoding="utf-8"))
    for one in episode["observations"]:
        observation = json.loads((directory / one["path"] / "observation.json").read_text(encoding="utf-8"))
        images = {name: np.asarray(Image.open(directory / one["path"] / file)) for name, file in observation["images"].items()}
        yield one["time_s"], images, observation["state"], episode["prompt"]


def test_every_frame_and_number_is_what_lerobot_reads(written, tmp_path):
    dataset = LeRobotDataset("local/recorded", root=written, video_backend="pyav", return_uint8=True)
    rows = iter(range(len(dataset)))
    for number, (task, length) in enumerate(recorded.EPISODES):
        directory = tmp_path / str(number)
        directory.mkdir()
        assert take(written, number, directory, Progress()) == length
        for time, images, state, prompt in read(directory):
            theirs = dataset[next(rows)]
            assert theirs["episode_index"] == number and prompt == theirs["task"] == task
            assert time == pytest.approx(theirs["timestamp"].item(), abs=1e-6)
            assert state == theirs["observation.state"].tolist()
            for camera in (recorded.FRONT, recorded.WRIST):
                # What is no video is a float in [0, 1] to lerobot.
                pixels = theirs[camera] * 255 if theirs[camera].is_floating_point() else theirs[camera]
                np.testing.assert_array_equal(images[camera], pixels.round().permute(1, 2, 0).numpy().astype(np.uint8))
    assert next(rows, None) is None, "every frame of the dataset was compared"


def test_replay_runs_on_it(make_checkpoint, export_python, tmp_path):
    program = pathlib.Path(os.environ.get("PI0_EDGE_BIN", ROOT / "target/release/pi0-edge"))
    if not program.exists():
        pytest.skip(f"{program} not found: set PI0_EDGE_BIN to the program")
    checkpoint = make_checkpoint("robot", "--cameras", f"{recorded.FRONT},{recorded.WRIST}", "--state-dim", "6", "--action-dim", "6")
    bundle = tmp_path / "bundle"
    run(export_python, ROOT / "scripts/export.py", checkpoint, bundle, "--quiet")
    directory = tmp_path / "episode"
    directory.mkdir()
    written = tmp_path / "dataset"
    recorded.write(written)
    take(written, 1, directory, Progress(), bundle)
    report = json.loads(run(program, "replay", bundle, "--episode", directory, "--rate", "100", "--duration", "2", "--realtime", "off", "--format", "json"))
    control = report["runs"][0]["runtime"]["control"]
    assert control["ok"] > 0 and report["runs"][0]["runtime"]["inference"]["published"] > 0
