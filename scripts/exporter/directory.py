"""Directories that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator


@contextmanager
def appearing(path: Path, force: bool = False) -> Iterator[Path]:
    """A directory beside ``path`` that takes its name when all went well, and is gone when anything did not.

    ``force`` replaces what is there under that name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield directory
        directory.chmod(0o777 & ~_umask())
        if force and path.exists():
            _swap(directory, path)
        else:
            # A rename onto a directory that appeared meanwhile fails, unless that is empty.
            os.rename(directory, path)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _swap(directory: Path, path: Path) -> None:
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    os.rename(path, old / path.name)
    try:
        os.rename(directory, path)
    except BaseException:
        os.rename(old / path.name, path)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
