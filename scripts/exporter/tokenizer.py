"""Finds the checkpoint's tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

from .errors import ExportError

FILE = "tokenizer.json"


def find_tokenizer(directory: Path, tokenizer_name: str | None, given: Path | None) -> Path:
    """The tokenizer.json to take: the one given, or the one saved with the checkpoint."""
    if given is not None:
        path = given / FILE if given.is_dir() else given
        if not path.is_file():
            raise ExportError(f"{path}: no such file; --tokenizer names a tokenizer.json or a directory with one")
    else:
        # The pipeline names a directory beside it, or a model on a hub that lerobot would fetch.
        inside = tokenizer_name and not Path(tokenizer_name).is_absolute() and ".." not in Path(tokenizer_name).parts
        named = [directory / tokenizer_name / FILE] if inside else []
        places = [*named, directory / "tokenizer" / FILE, directory / FILE]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise ExportError(
                f"{directory / 'tokenizer' / FILE}: no such file"
                + (f'; the checkpoint was trained with the tokenizer "{tokenizer_name}"' if tokenizer_name else "")
                + "; give its tokenizer.json with --tokenizer"
            )
    _check(path)
    return path


def _check(path: Path) -> None:
    try:
        content = json.loads(path.read_bytes())
        vocabulary = content["model"]["vocab"]
    except (ValueError, KeyError, TypeError):
        vocabulary = None
    if not vocabulary:
        raise ExportError(f"{path}: not a tokenizer.json of Hugging Face's tokenizers: model.vocab is missing")
