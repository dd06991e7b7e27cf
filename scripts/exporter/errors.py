"""The one error a user of the exporter and of make_episode.py meets."""

from __future__ import annotations

from pathlib import Path

LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class ExportError(Exception):
    """Something about the input keeps it from becoming a bundle, or an episode. The message names the file and key, and says what to do."""


def refuse_lfs_pointer(path: Path) -> None:
    """Raises if ``path`` is what git leaves of a large file that it did not download."""
    try:
        with open(path, "rb") as file:
            beginning = file.read(1024)
    except OSError:
        return  # Whoever opens it has more to say.
    if beginning.startswith(LFS_POINTER):
        size = next((f" of {int(line[5:]) / 1e6:.1f} MB" for line in beginning.splitlines() if line.startswith(b"size ")), "")
        raise ExportError(f"{path}: a git-LFS pointer in place of the file{size}; fetch it: git -C {path.parent} lfs pull")
