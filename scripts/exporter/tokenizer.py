"""Finds the checkpoint's tokenizer, and writes it as the bundle has it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Iterator

from .errors import ExportError, refuse_lfs_pointer
from .sentencepiece import read_sentencepiece

FILE = "tokenizer.json"
SENTENCEPIECE = ".model"
# Does nothing, because none are left when it is its turn.
CUTS_AT_SPACES = {"type": "Split", "pattern": {"String": " "}, "invert": False}
PALIGEMMA = "google/paligemma-3b-pt-224"
GATED = (
    f"PaliGemma's is gated: accept its licence on Hugging Face, at {PALIGEMMA}, then type hf auth login and hf download {PALIGEMMA} "
    "tokenizer.json tokenizer_config.json, and export again; or give openpi's, which needs no account "
    "(gsutil cp gs://big_vision/paligemma_tokenizer.model .), with --tokenizer paligemma_tokenizer.model"
)


def find_tokenizer(directory: Path, tokenizer_name: str | None, given: Path | None) -> Path:
    """The file to take: the one given, the one saved with the checkpoint, or the one of that name in the cache of Hugging Face or of
    openpi. Without a name it is PaliGemma's, which every released policy was trained with."""
    if given is not None:
        path = given / FILE if given.is_dir() else given
        if not path.is_file():
            raise ExportError(f"{path}: no such file; --tokenizer names a tokenizer.json, a directory with one, or a sentencepiece .model")
    else:
        # The pipeline names a directory beside it or anywhere, or a model on a hub that lerobot would fetch.
        name = tokenizer_name or PALIGEMMA
        places = [directory / name / FILE, directory / "tokenizer" / FILE, directory / FILE, *_cached(name)]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise ExportError(
                f"{directory / 'tokenizer' / FILE}: no such file, and no tokenizer {name} in {_hub_cache()}; give its tokenizer.json with "
                "--tokenizer" + (f". {GATED}" if name == PALIGEMMA else "")
            )
    if path.suffix != SENTENCEPIECE:
        _check(path)
    return path


def _cached(name: str) -> Iterator[Path]:
    """Where the tokenizer of a model on the hub is once it was downloaded: that of the main branch first, then the latest."""
    repository = _hub_cache() / f"models--{name.replace('/', '--')}"
    try:
        yield repository / "snapshots" / (repository / "refs/main").read_text().strip() / FILE
    except OSError:
        pass
    yield from sorted(repository.glob(f"snapshots/*/{FILE}"), key=lambda path: path.stat().st_mtime, reverse=True)
    if name == PALIGEMMA:
        yield _directory("OPENPI_DATA_HOME", "~/.cache/openpi") / "big_vision/paligemma_tokenizer.model"


def _hub_cache() -> Path:
    """Hugging Face's cache of repositories, found by the rules of its own library."""
    home = _directory("HF_HOME", _directory("XDG_CACHE_HOME", "~/.cache") / "huggingface")
    return _directory("HF_HUB_CACHE", _directory("HUGGINGFACE_HUB_CACHE", home / "hub"))


def _directory(variable: str, default: str | Path) -> Path:
    return Path(os.environ.get(variable) or default).expanduser()


def write_tokenizer(path: Path, target: Path) -> None:
    """Copies a tokenizer.json; makes one of a sentencepiece model."""
    if path.suffix == SENTENCEPIECE:
        content = read_sentencepiece(path)
        target.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    else:
        shutil.copyfile(path, target)


def _check(path: Path) -> None:
    refuse_lfs_pointer(path)
    try:
        content = json.loads(path.read_bytes())
        vocabulary = content["model"]["vocab"]
    except (ValueError, KeyError, TypeError):
        vocabulary = None
    if not vocabulary:
        raise ExportError(f"{path}: not a tokenizer.json of Hugging Face's tokenizers: model.vocab is missing")
    fault = _fault(content)
    if fault is not None:
        raise ExportError(
            f"{path}: not a tokenizer of PaliGemma's kind, which is what policies have and the runtime reads: {fault}; "
            "give the one that the policy was trained with by --tokenizer"
        )


def _fault(content: dict) -> str | None:
    """What the runtime would refuse in a tokenizer.json, if anything: src/observation/tokenizer_file.rs has the same rules."""
    model = content["model"]
    if content.get("version") != "1.0" or model.get("type") != "BPE":
        return f"version {content.get('version')} and model {model.get('type')}, not 1.0 and BPE"
    if content.get("normalizer") != {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}:
        return "its normalizer does more or less than to replace spaces"
    cuts = content.get("pre_tokenizer")
    if cuts is not None and {k: cuts.get(k) for k in ("type", "pattern", "invert")} != CUTS_AT_SPACES:
        return "it cuts texts into words of its own kind"
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return "it marks the insides or ends of words"
    if model.get("dropout") or model.get("ignore_merges"):
        return "it merges at random, or not at all"
    if not model.get("byte_fallback") or any(f"<0x{byte:02X}>" not in model["vocab"] for byte in range(256)):
        return "it does not spell unknown characters in bytes"
    around = content.get("post_processor")
    if around is not None and (
        around.get("type") != "TemplateProcessing"
        or [part["Sequence"]["id"] for part in around["single"] if "Sequence" in part] != ["A"]
    ):
        return "it puts something other than fixed tokens around texts"
    for token in content.get("added_tokens", []):
        if token.get("single_word") or token.get("lstrip") or token.get("rstrip"):
            return f"its token {token.get('content')!r} depends on what is around it"
    return None
