"""Reads an episode of a lerobot dataset, layout v3: numbers from parquet, frames from mp4 or from parquet.

The numbers of the episode are held in memory; frames come one at a time.
"""

from __future__ import annotations

import io
from math import prod
from pathlib import Path
from typing import Any, Iterator

import av
import pyarrow
import pyarrow.parquet
from PIL import Image, UnidentifiedImageError

from exporter.errors import ExportError, refuse_lfs_pointer
from exporter.json_file import JsonObject

VERSION = "v3."
# Frames read from parquet at a time.
ROWS = 8
# A frame may be this far from its time, in periods of the dataset.
TOLERANCE = 0.25


class Dataset:
    """A dataset's description. ``cameras`` holds the keys of its images and videos but depth's."""

    def __init__(self, root: Path):
        self.root = root
        self._info = JsonObject.read(root / "meta/info.json", "; give the directory of a lerobot dataset, which holds meta, data and videos")
        version = self._info.get("codebase_version", str)
        if not version.startswith(VERSION):
            raise self._info.error("codebase_version", _advice(version, root))
        self.fps = self._info.get("fps", (int, float))
        if not 0 < self.fps < 1e4:
            raise self._info.error("fps", f"is {self.fps}, which is no rate")
        self.episodes = self._info.count("total_episodes", least=0)
        self._features = self._info.object("features")
        self.cameras = [key for key in self._features.content if self._is_camera(key)]

    def state_dim(self, key: str) -> int:
        """Values of the feature ``key``, one vector a frame."""
        if key not in self._features.content:
            raise self._info.error("features", f"has no {key}; it has {', '.join(self._features.content)}; --rename FEATURE={key} takes another")
        shape = self._features.object(key).get("shape", list)
        if len(shape) != 1:
            raise self._info.error(f"features.{key}.shape", f"is {shape}, which is not a vector")
        return shape[0]

    def frame_bytes(self, camera: str) -> int:
        """Bytes of a decoded frame."""
        return prod(self._features.object(camera).get("shape", list))

    def episode(self, number: int, state: str) -> Episode:
        """Reads what there is to episode ``number`` but its frames; ``state`` is the feature with the robot's state."""
        if not 0 <= number < self.episodes:
            raise ExportError(f"{self.root}: there is no episode {number}; it has {self.episodes}, counted from 0")
        files = sorted((self.root / "meta/episodes").glob("*/*.parquet"))
        for file in files:
            for row in _rows(file, "episode_index", number):
                return Episode(self, row, state)
        raise ExportError(f"{self.root / 'meta/episodes'}: no row about episode {number} in {len(files)} files; was the dataset downloaded whole?")

    def codec(self, camera: str) -> str:
        """What the dataset says its videos are coded in."""
        about = self._features.object(camera).get("info", dict, {})
        return str(about.get("video.codec", "not told"))

    def is_video(self, camera: str) -> bool:
        return self._features.object(camera).get("dtype", str) == "video"

    def file(self, pattern: str, default: str, **indices: Any) -> Path:
        try:
            return self.root / self._info.get(pattern, str, default).format(**indices)
        except (KeyError, IndexError, ValueError) as error:
            raise self._info.error(pattern, f"cannot be filled in: {error}") from None

    def tasks(self) -> dict[int, str]:
        """The tasks by their number."""
        path = self.root / "meta/tasks.parquet"
        table = _open(path).read()
        # pandas calls the column "task" or leaves it without a name.
        texts = next((f.name for f in table.schema if pyarrow.types.is_string(f.type) or pyarrow.types.is_large_string(f.type)), None)
        if texts is None or "task_index" not in table.column_names:
            raise ExportError(f"{path}: has no task_index and text; it has {', '.join(table.column_names)}")
        return dict(zip(table["task_index"].to_pylist(), table[texts].to_pylist()))

    def _is_camera(self, key: str) -> bool:
        feature = self._features.object(key)
        about = feature.get("info", dict, {})
        depth = about.get("is_depth_map") or about.get("video.is_depth_map")
        return feature.get("dtype", str) in ("image", "video") and not depth


class Episode:
    """One episode: ``states`` and ``times`` (seconds from its beginning) of every frame, and its ``tasks``, each once."""

    def __init__(self, dataset: Dataset, row: dict, state: str):
        self._dataset, self._row, self._number = dataset, row, row["episode_index"]
        self._data = dataset.file("data_path", "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
                                  **self._indices("data"))
        rows = list(_rows(self._data, "episode_index", self._number, ["frame_index", "timestamp", "task_index", state]))
        if not rows or len(rows) != row.get("length", len(rows)):
            raise ExportError(f"{self._data}: has {len(rows)} frames of episode {self._number}, which is said to have {row.get('length')}")
        self.states = [value if isinstance(value, list) else [value] for value in (row[state] for row in rows)]
        self.times = [row["timestamp"] for row in rows]
        for i, (before, time) in enumerate(zip(self.times, self.times[1:]), 1):
            if not time > before:
                raise ExportError(f"{self._data}: frame {i} of episode {self._number} is at {time} s, not after the one before ({before} s)")
        tasks = dataset.tasks()
        self.tasks = [tasks.get(index) for index in dict.fromkeys(row["task_index"] for row in rows)]
        if None in self.tasks:
            raise ExportError(f"{dataset.root / 'meta/tasks.parquet'}: a task of episode {self._number} is not in it")

    def frames(self, camera: str, count: int) -> Iterator[Image.Image]:
        """The first ``count`` frames of a camera, RGB, one after the other."""
        if not self._dataset.is_video(camera):
            return _images(self._data, self._number, camera, count)
        path = self._dataset.file("video_path", "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
                                  video_key=camera, **self._indices(f"videos/{camera}"))
        start = self._get(f"videos/{camera}/from_timestamp")
        return _video(path, [start + time for time in self.times[:count]], TOLERANCE / self._dataset.fps, self._dataset.codec(camera))

    def _indices(self, what: str) -> dict[str, int]:
        return {name: self._get(f"{what}/{name}") for name in ("chunk_index", "file_index")}

    def _get(self, key: str) -> Any:
        if self._row.get(key) is None:
            raise ExportError(f"{self._dataset.root / 'meta/episodes'}: episode {self._number} has no {key}")
        return self._row[key]


def _advice(version: str, root: Path) -> str:
    if version.startswith("v2.1"):
        return (f"is {version}, read is v3.0; bring it up to date with lerobot 0.6: python -m lerobot.scripts.convert_dataset_v21_to_v30 "
                f"--repo-id=local/{root.resolve().name} --root={root} --push-to-hub=false")
    if version.startswith(("v1.", "v2.")):
        return f"is {version}, read is v3.0; bring it to v2.1 with the lerobot that wrote it, then to v3.0 with lerobot.scripts.convert_dataset_v21_to_v30 of lerobot 0.6"
    return f"is {version}, read is v3.0"


def _open(path: Path) -> pyarrow.parquet.ParquetFile:
    refuse_lfs_pointer(path)
    try:
        return pyarrow.parquet.ParquetFile(path)
    except FileNotFoundError:
        raise ExportError(f"{path}: no such file; was the dataset downloaded whole?") from None
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ExportError(f"{path}: not a parquet file that can be read: {error}") from None


def _rows(path: Path, key: str, number: int, columns: list[str] | None = None) -> Iterator[dict]:
    """The rows whose ``key`` is ``number``. Of the other row groups only that column is read."""
    file = _open(path)
    missing = {key, *(columns or ())} - set(file.schema_arrow.names)
    if missing:
        raise ExportError(f"{path}: has no column {', '.join(sorted(missing))}; it has {', '.join(file.schema_arrow.names)}")
    try:
        for group in range(file.num_row_groups):
            if number not in file.read_row_group(group, [key])[key].to_pylist():
                continue
            for batch in file.iter_batches(ROWS, [group], columns and [key, *columns]):
                yield from (row for row in batch.to_pylist() if row[key] == number)
    except (pyarrow.ArrowException, OSError) as error:
        raise ExportError(f"{path}: cannot be read: {error}") from None


def _images(path: Path, number: int, camera: str, count: int) -> Iterator[Image.Image]:
    for i, row in enumerate(_rows(path, "episode_index", number, [camera])):
        if i == count:
            return
        content = row[camera].get("bytes") if isinstance(row[camera], dict) else None
        if content is None:
            raise ExportError(f"{path}: frame {i} of {camera} is not in the file, as lerobot keeps it")
        try:
            yield Image.open(io.BytesIO(content)).convert("RGB")
        except (UnidentifiedImageError, OSError) as error:
            raise ExportError(f"{path}: frame {i} of {camera} cannot be decoded: {error}") from None


def _video(path: Path, times: list[float], tolerance: float, codec: str) -> Iterator[Image.Image]:
    """The frames of a video that are nearest to the times, which rise."""
    refuse_lfs_pointer(path)
    try:
        with av.open(str(path)) as container:
            if not container.streams.video or container.streams.video[0].codec_context is None:
                raise ExportError(f"{path}: there is no decoder for its video ({codec} by meta/info.json) in FFmpeg as PyAV "
                                  f"{av.__version__} has it; encode it anew, for instance: ffmpeg -i VIDEO -c:v libx264 -crf 18 NEW")
            stream = container.streams.video[0]
            # The key frame at or before the first, with a frame to spare.
            container.seek(max(0, round(times[0] / stream.time_base) - 1), stream=stream)
            yield from _nearest(path, ((float(f.pts * stream.time_base), f) for f in container.decode(stream) if f.pts is not None), times, tolerance)
    except FileNotFoundError:
        raise ExportError(f"{path}: no such file; was the dataset downloaded with its videos?") from None
    except (av.FFmpegError, OSError) as error:
        raise ExportError(f"{path}: the video ({codec} by meta/info.json) cannot be decoded: {error}") from None


def _nearest(path: Path, decoded: Iterator[tuple[float, av.VideoFrame]], times: list[float], tolerance: float) -> Iterator[Image.Image]:
    before = after = next(decoded, None)
    for i, time in enumerate(times):
        while after and after[0] < time:
            before, after = after, next(decoded, None)
        found = min((one for one in (before, after) if one), key=lambda one: abs(one[0] - time), default=None)
        if found is None or abs(found[0] - time) > tolerance:
            nearest = f"the nearest is at {found[0]:.4f} s" if found else "there is none"
            raise ExportError(f"{path}: no frame at {time:.4f} s, where frame {i} of the episode is; {nearest}")
        yield found[1].to_image()
