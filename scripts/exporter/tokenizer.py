"""Finds the checkpoint's tokenizer, and writes it as the bundle has it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from .errors import ExportError
from .sentencepiece import read_sentencepiece

FILE = "tokenizer.json"
SENTENCEPIECE = ".model"


def find_tokenizer(directory: Path, tokenizer_name: str | None, given: Path | None) -> Path:
    """The file to take: the one given, or the one saved with the checkpoint."""
    if given is not None:
        path = given / FILE if given.is_dir() else given
        if not path.is_file():
            raise ExportError(f"{path}: no such file; --tokenizer names a tokenizer.json, a directory with one, or a sentencepiece .model")
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
                + "; give its tokenizer.json, or the sentencepiece model that openpi keeps as paligemma_tokenizer.model, with --tokenizer"
            )
    if path.suffix != SENTENCEPIECE:
        _check(path)
    return path


def write_tokenizer(path: Path, target: Path) -> None:
    """Copies a tokenizer.json; makes one of a sentencepiece model."""
    if path.suffix == SENTENCEPIECE:
        content = read_sentencepiece(path)
        target.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    else:
        shutil.copyfile(path, target)


def _check(path: Path) -> None:
    try:
        content = json.loads(path.read_bytes())
        vocabulary = content["model"]["vocab"]
    except (ValueError, KeyError, TypeError):
        vocabulary = None
    if not vocabulary:
        raise ExportError(f"{path}: not a tokenizer.json of Hugging Face's tokenizers: model.vocab is missing")
