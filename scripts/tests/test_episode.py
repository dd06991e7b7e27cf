"""make_episode.py on a dataset that lerobot 0.6.1 wrote (recorded_dataset.py), and on what is wrong with datasets."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("av", reason="datasets are not read: scripts/python_env.sh --test installs what it takes")
import pyarrow.parquet  # noqa: E402

import make_episode  # noqa: E402
import recorded_dataset as recorded  # noqa: E402
from conftest import SCRIPTS, edit_json  # noqa: E402
from episode.recorded import take  # noqa: E402
from exporter.errors import ExportError  # noqa: E402
from exporter.progress import Progress  # noqa: E402

RECORDED = Path(recorded.__file__).with_name("recorded")
BUNDLE = SCRIPTS.parent / "models/pi0-tiny"
RENAME = {recorded.FRONT: "observation.images.base"}
VIDEO = f"videos/{recorded.FRONT}/chunk-000/file-000.mp4"


@pytest.fixture
def dataset(tmp_path) -> Path:
    """A copy to break."""
    return shutil.copytree(RECORDED, tmp_path / "dataset")


@pytest.fixture
def out(tmp_path) -> Path:
    directory = tmp_path / "episode"
    directory.mkdir()
    return directory


class Notes(Progress):
    """Keeps what was noted, and how far each piece of work came."""

    def __init__(self):
        self.notes, self.work = [], {}

    def start(self, what, total, unit="bytes"):
        self.work[what] = (0, total, unit)
        return lambda size: self.work.update({what: (size, total, unit)})

    def note(self, text):
        self.notes.append(text)


def run(*arguments, **more) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(SCRIPTS / "make_episode.py"), *map(str, arguments)], capture_output=True, text=True, **more)


@pytest.mark.parametrize("number", range(len(recorded.EPISODES)))
def test_every_episode_of_a_dataset_is_what_was_recorded(number, out):
    task, length = recorded.EPISODES[number]
    progress = Notes()
    assert take(RECORDED, number, out, progress) == length
    episode = json.loads((out / "episode.json").read_text())
    assert episode["prompt"] == task
    assert [one["time_s"] for one in episode["observations"]] == [i / recorded.FPS for i in range(length)]
    for i, one in enumerate(episode["observations"]):
        observation = json.loads((out / one["path"] / "observation.json").read_text())
        assert observation["state"] == recorded.state(number, i).tolist()
        assert set(observation["images"]) == {recorded.FRONT, recorded.WRIST}
        for camera, off in ((recorded.FRONT, 6), (recorded.WRIST, 0)):
            # The next frame's right half and the next episode's left half are 30 and 60 away.
            pixels = np.asarray(Image.open(out / one["path"] / observation["images"][camera]), int)
            middle = np.abs(pixels - recorded.frame(camera, number, i))[:, [8, -8]]
            assert middle.max() <= off, f"{camera} {i}"
    assert progress.work == {camera: (length, length, "frames") for camera in (recorded.FRONT, recorded.WRIST)}


def test_for_a_bundle_its_cameras_are_taken_and_the_rest_is_told(tmp_path):
    done = run(BUNDLE, "--dataset", RECORDED, "--episode", 1, "--output", tmp_path / "episode", "--seconds", "0.35",
               "--rename", f"{recorded.FRONT}=observation.images.base", "--prompt", "open the drawer")
    assert done.returncode == 0, done.stderr
    assert f"4 observations in {tmp_path / 'episode'}; next: pi0-edge replay" in done.stderr
    assert "observation.images.wrist: 4 frames in" in done.stderr
    episode = json.loads((tmp_path / "episode/episode.json").read_text())
    assert episode["prompt"] == "open the drawer" and len(episode["observations"]) == 4
    observation = json.loads((tmp_path / "episode/0003/observation.json").read_text())
    assert set(observation["images"]) == {"observation.images.base", "observation.images.wrist"}


def test_a_camera_that_the_bundle_has_not_is_left_out_and_told(out, tmp_path):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    shutil.copy(BUNDLE / "manifest.json", bundle)
    edit_json(bundle / "manifest.json", lambda m: m.update(cameras=[{"name": "observation.images.wrist", "required": True}]))
    progress = Notes()
    take(RECORDED, 0, out, progress, bundle)
    assert progress.notes == [f"{recorded.FRONT} is left out: {bundle} has no such camera; --rename {recorded.FRONT}=CAMERA gives it to one"]
    assert set(json.loads((out / "0000/observation.json").read_text())["images"]) == {recorded.WRIST}


def test_the_bundles_own_names_for_the_robots_cameras_hold(out, tmp_path):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    shutil.copy(BUNDLE / "manifest.json", bundle)
    edit_json(bundle / "manifest.json", lambda m: m.update(rename=RENAME))
    take(RECORDED, 0, out, Progress(), bundle)
    assert set(json.loads((out / "0000/observation.json").read_text())["images"]) == {recorded.FRONT, recorded.WRIST}


@pytest.mark.parametrize(("more", "said"), [
    ({"number": 3}, "there is no episode 3; it has 3, counted from 0"),
    ({"number": -1}, "there is no episode -1"),
    ({"bundle": BUNDLE}, "pi0-tiny wants observation.images.base, and the dataset's cameras are observation.images.front, "
                         "observation.images.wrist; say which is which: --rename observation.images.front=observation.images.base"),
    ({"rename": {"observation.images.top": "observation.images.base"}}, "--rename observation.images.top: the dataset's cameras are"),
    ({"rename": {recorded.FRONT: recorded.WRIST}}, "gives two cameras one name"),
    ({"rename": {"joints": "observation.state"}}, "has no joints"),
])
def test_a_request_that_does_not_fit_is_refused_in_words(more, said, out):
    with pytest.raises(ExportError) as refused:
        take(RECORDED, **{"number": 0, "directory": out, "progress": Progress()} | more)
    assert said in str(refused.value)


def info(**changes):
    return lambda root: edit_json(root / "meta/info.json", lambda content: content.update(changes))


def feature(name, **changes):
    return lambda root: edit_json(root / "meta/info.json", lambda content: content["features"][name].update(changes))


def remove(name):
    return lambda root: (root / name).unlink()


def replace(name, content):
    return lambda root: (root / name).write_bytes(content if isinstance(content, bytes) else content((root / name).read_bytes()))


def tables(pattern, edit):
    """Edits the rows of every parquet file."""
    def change(root):
        for path in root.glob(pattern):
            table = pyarrow.parquet.read_table(path)
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(edit(table.to_pylist()), table.schema), path)
    return change


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1234567\n"


@pytest.mark.parametrize(("break_it", "said"), [
    (info(codebase_version="v2.1"), "is v2.1, read is v3.0; bring it up to date with lerobot 0.6: python -m lerobot.scripts.convert_dataset_v21_to_v30"),
    (info(codebase_version="v2.0"), "is v2.0, read is v3.0; bring it to v2.1 with the lerobot that wrote it"),
    (info(codebase_version="v4.0"), "is v4.0, read is v3.0"),
    (info(fps=0), "fps: is 0, which is no rate"),
    (remove("meta/info.json"), "info.json: no such file; give the directory of a lerobot dataset"),
    (remove("meta/tasks.parquet"), "tasks.parquet: no such file; was the dataset downloaded whole?"),
    (remove("meta/episodes/chunk-000/file-000.parquet"), "no row about episode 1 in 0 files; was the dataset downloaded whole?"),
    (remove("data/chunk-000/file-000.parquet"), "data/chunk-000/file-000.parquet: no such file"),
    (replace("data/chunk-000/file-000.parquet", b"PAR1"), "not a parquet file that can be read"),
    (replace("data/chunk-000/file-000.parquet", LFS), "a git-LFS pointer in place of the file of 1.2 MB"),
    (remove(VIDEO), "file-000.mp4: no such file; was the dataset downloaded with its videos?"),
    (replace(VIDEO, LFS), "a git-LFS pointer in place of the file"),
    (replace(VIDEO, b"nothing"), "the video (av1 by meta/info.json) cannot be decoded"),
    (replace(VIDEO, lambda video: video.replace(b"av01", b"zz01")), "there is no decoder for its video (av1 by meta/info.json)"),
    (info(data_path="{where}.parquet"), "data_path: cannot be filled in"),
    (feature(recorded.FRONT, shape=[40000, 30000, 3]), "GiB decoded, and replay takes 4; take the beginning: --seconds 0"),
    (tables("data/*/*.parquet", lambda rows: rows[:-6]), "has 5 frames of episode 1, which is said to have 7"),
    (tables("data/*/*.parquet", lambda rows: [row | {"task_index": i % 2} for i, row in enumerate(rows)]),
     "episode 1 has 2 tasks (öffne die Schublade; pick up the cube), and replay takes one: --prompt TEXT"),
    (tables("data/*/*.parquet", lambda rows: [row | {"task_index": 7} for row in rows]), "a task of episode 1 is not in it"),
    (tables("data/*/*.parquet", lambda rows: [row | {"timestamp": 0.5} for row in rows]), "is at 0.5 s, not after the one before"),
    (tables("data/*/*.parquet", lambda rows: [row | {recorded.WRIST: {"bytes": None, "path": "a.png"}} for row in rows]), "is not in the file"),
    (tables("data/*/*.parquet", lambda rows: [row | {recorded.WRIST: {"bytes": b"PNG", "path": None}} for row in rows]), "cannot be decoded"),
    (tables("meta/episodes/*/*.parquet", lambda rows: [row | {f"videos/{recorded.FRONT}/from_timestamp": 5.0} for row in rows]),
     "no frame at 5.0000 s, where frame 0 of the episode is; the nearest is at 1.5000 s"),
])
def test_a_dataset_that_is_not_whole_is_refused_in_words(break_it, said, dataset, tmp_path, capsys):
    break_it(dataset)
    assert make_episode.main(["--dataset", str(dataset), "--episode", "1", "--output", str(tmp_path / "episode")]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and said in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset"], "nothing is left behind"


def test_another_robots_state_is_refused(dataset, out):
    feature("observation.state", shape=[7])(dataset)
    with pytest.raises(ExportError, match="observation.state has 7 values a frame, the state of .* has 6: they are of different robots"):
        take(dataset, 0, out, Progress(), BUNDLE, RENAME)


def test_depth_is_no_camera(dataset, out):
    feature(recorded.FRONT, info={"is_depth_map": True})(dataset)
    take(dataset, 0, out, Progress())
    assert set(json.loads((out / "0000/observation.json").read_text())["images"]) == {recorded.WRIST}


@pytest.mark.parametrize("arguments", [
    [], [BUNDLE], ["--output", "x"], ["--dataset", RECORDED, "--output", "x"], ["--episode", "0", "--output", "x"],
    [BUNDLE, "--output", "x", "--rename", "a=b"], ["--dataset", RECORDED, "--episode", "0", "--output", "x", "--fps", "3"],
    ["--dataset", RECORDED, "--episode", "0", "--output", "x", "--rename", "a"],
])
def test_wrong_usage(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        make_episode.main([*map(str, arguments)])
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_stays(tmp_path, capsys):
    assert make_episode.main([str(BUNDLE), "--output", str(tmp_path)]) == 1
    assert "exists already" in capsys.readouterr().err


def test_without_the_libraries_it_says_what_to_install(tmp_path):
    (tmp_path / "av.py").write_text("raise ModuleNotFoundError(name='av')")
    refused = run("--dataset", RECORDED, "--episode", "0", "--output", tmp_path / "episode", env={"PYTHONPATH": str(tmp_path)})
    assert refused.returncode == 1 and "--dataset needs av, which is not there: " in refused.stderr
    assert "-m pip install -r" in refused.stderr and not (tmp_path / "episode").exists()


def test_stopped_halfway_it_leaves_nothing(tmp_path):
    process = subprocess.Popen(
        [sys.executable, str(SCRIPTS / "make_episode.py"), str(BUNDLE), "--output", str(tmp_path / "episode"), "--seconds", "9000"],
        stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".episode.*/0002")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "nothing was written" in said, said
    assert list(tmp_path.iterdir()) == []
