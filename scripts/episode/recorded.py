"""Takes an episode out of a lerobot dataset, for the cameras and the state that a bundle has."""

from __future__ import annotations

from pathlib import Path

from exporter.errors import ExportError
from exporter.json_file import JsonObject
from exporter.progress import Progress

from .dataset import Dataset
from .folder import observation_name, write_episode, write_observation

STATE = "observation.state"
# What `replay` holds at most, decoded.
MOST_BYTES = 4 << 30


def take(
    dataset: Path, number: int, directory: Path, progress: Progress,
    bundle: Path | None = None, rename: dict[str, str] | None = None, seconds: float | None = None, prompt: str | None = None,
) -> int:
    """Writes the first ``seconds`` of episode ``number`` into ``directory``; returns how many observations they have.

    ``rename`` gives features of the dataset the robot's names that the bundle knows. Without a bundle all cameras are
    taken. Raises ExportError about anything that does not fit, before the first frame is decoded where that can be told.
    """
    source, bundle, rename = Dataset(dataset), _Wanted(bundle) if bundle else None, rename or {}
    feature = next((key for key, name in rename.items() if name == STATE), STATE)
    dim = source.state_dim(feature)
    unknown = set(rename) - {*source.cameras, feature}
    if unknown:
        raise ExportError(f"--rename {', '.join(sorted(unknown))}: the dataset's cameras are {', '.join(source.cameras)}")
    names = {key: rename.get(key, key) for key in source.cameras}
    if len(set(names.values())) < len(names):
        raise ExportError("--rename gives two cameras one name")
    if bundle:
        bundle.check_state(dim, f"{dataset}: {feature}")
        names = bundle.choose(names)
        for key in source.cameras:
            if key not in names:
                progress.note(f"{key} is left out: {bundle.path} has no such camera; --rename {key}=CAMERA gives it to one")
    episode = source.episode(number, feature)
    times = [time for time in episode.times if seconds is None or time - episode.times[0] < seconds]
    size = sum(map(source.frame_bytes, names))
    if len(times) * size > MOST_BYTES:
        raise ExportError(f"the frames of {len(times)} observations come to {len(times) * size / 2**30:.1f} GiB decoded, and replay takes "
                          f"{MOST_BYTES >> 30}; take the beginning: --seconds {int(MOST_BYTES / size / source.fps)}")
    if prompt is None and len(episode.tasks) > 1:
        raise ExportError(f"episode {number} has {len(episode.tasks)} tasks ({'; '.join(episode.tasks)}), and replay takes one: --prompt TEXT")
    folders = [directory / observation_name(i) for i in range(len(times))]
    for folder in folders:
        folder.mkdir()
    files = {key: key.replace("/", "_") + ".png" for key in names}
    for key in names:
        advance = progress.start(key, len(times), "frames")
        for i, image in enumerate(episode.frames(key, len(times))):
            # Lossless, and packed in haste: it is read once or twice.
            image.save(folders[i] / files[key], compress_level=1)
            advance(i + 1)
        progress.done(key)
    for folder, state in zip(folders, episode.states):
        write_observation(folder, {name: files[key] for key, name in names.items()}, state)
    write_episode(directory, prompt or episode.tasks[0], times)
    return len(times)


class _Wanted:
    """The cameras and the state that a bundle has."""

    def __init__(self, path: Path):
        manifest = JsonObject.read(path / "manifest.json", "; give the directory that export.py made")
        self.path = path
        self._rename = manifest.get("rename", dict)
        self._required = {camera.get("name", str): camera.get("required", bool) for camera in manifest.objects("cameras")}
        self._state_dim = manifest.object("state").get("dim", int)

    def check_state(self, dim: int, feature: str) -> None:
        if dim != self._state_dim:
            raise ExportError(f"{feature} has {dim} values a frame, the state of {self.path} has {self._state_dim}: they are of different robots")

    def choose(self, names: dict[str, str]) -> dict[str, str]:
        """Those of the robot's cameras, {feature: name}, that the bundle has."""
        of_policy = {key: self._rename.get(name, name) for key, name in names.items()}
        missing = [name for name, required in self._required.items() if required and name not in of_policy.values()]
        chosen = {key: names[key] for key, name in of_policy.items() if name in self._required}
        if missing or not chosen:
            wanted, spare = missing or [*self._required], [key for key in names if key not in chosen]
            advice = f"; say which is which: --rename {spare[0]}={wanted[0]}" if spare else ""
            raise ExportError(f"{self.path} wants {', '.join(wanted)}, and the dataset's cameras are {', '.join(names) or 'none'}{advice}")
        return chosen
