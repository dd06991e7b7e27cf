"""A sentencepiece model, as openpi has PaliGemma's tokenizer, written as the tokenizer.json that the runtime reads.

Only models of PaliGemma's kind can be: byte-pair encoding without any normalisation, bytes as the last resort. Sentencepiece joins
the two neighbours whose joined piece scores best; a tokenizer.json lists the pairs in that order.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Iterator

from .errors import ExportError

SPACE = "\u2581"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
BPE = 2
BEGIN = "<bos>"


def read_sentencepiece(path: Path) -> dict:
    """The content of a tokenizer.json that gives the model's ids, with the beginning of a sentence before every text."""
    try:
        return _tokenizer(path, path.read_bytes())
    except (IndexError, UnicodeDecodeError, struct.error):
        raise ExportError(f"{path}: not a sentencepiece model") from None


def _tokenizer(path: Path, data: bytes) -> dict:
    pieces, trainer, normalizer = [], {}, {}
    for field, value in _fields(data):
        if field == 1:
            piece = dict(_fields(value))
            score = struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0
            pieces.append((piece.get(1, b"").decode(), score, piece.get(3, NORMAL)))
        elif field == 2:
            trainer = dict(_fields(value))
        elif field == 3:
            normalizer = dict(_fields(value))
    if not pieces or trainer.get(3, 1) != BPE:
        raise ExportError(f"{path}: not a sentencepiece model for byte-pair encoding")
    vocabulary = {piece: i for i, (piece, _, _) in enumerate(pieces)}
    for byte in range(256):
        if f"<0x{byte:02X}>" not in vocabulary:
            raise ExportError(f"{path}: has no piece <0x{byte:02X}>; only models that spell unknown characters in bytes can be used")
    # A space before every text, fewer spaces, other characters: what PaliGemma's leaves alone. On unless said otherwise.
    if normalizer.get(2) or normalizer.get(3, 1) or normalizer.get(4, 1) or not normalizer.get(5, 1):
        raise ExportError(f"{path}: changes texts before it cuts them, which PaliGemma's tokenizer does not")
    if BEGIN not in vocabulary:
        raise ExportError(f"{path}: has no piece {BEGIN}")
    unknown = next((piece for piece, _, kind in pieces if kind == UNKNOWN), None)
    whole = [(i, piece, kind) for i, (piece, _, kind) in enumerate(pieces) if kind in (UNKNOWN, CONTROL, USER_DEFINED)]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        # Control pieces are never found in a text by sentencepiece itself; a prompt that spells one is nothing to serve.
        "added_tokens": [
            {"id": i, "content": piece, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": kind == USER_DEFINED, "special": kind != USER_DEFINED}
            for i, piece, kind in whole
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": BEGIN, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                {"SpecialToken": {"id": BEGIN, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {BEGIN: {"id": BEGIN, "ids": [vocabulary[BEGIN]], "tokens": [BEGIN]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
            "vocab": vocabulary,
            "merges": _merges(pieces),
        },
    }


def _merges(pieces: list[tuple[str, float, int]]) -> list[list[str]]:
    """Every pair of pieces that makes a piece; the best piece first."""
    normal = {piece: score for piece, score, kind in pieces if kind == NORMAL}
    merges = [
        (-score, piece[:cut], piece[cut:])
        for piece, score in normal.items()
        for cut in range(1, len(piece))
        if piece[:cut] in normal and piece[cut:] in normal
    ]
    merges.sort(key=lambda merge: merge[0])
    return [[left, right] for _, left, right in merges]


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protocol buffer message: numbers of variable length as they are, everything else as bytes."""
    at = 0
    while at < len(data):
        key, at = _number(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _number(data, at)
        else:
            if kind == 2:
                length, at = _number(data, at)
            else:
                length = {1: 8, 5: 4}.get(kind, len(data))
            if at + length > len(data):
                raise IndexError
            value, at = data[at : at + length], at + length
        yield key >> 3, value


def _number(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        number, shift, at = number | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return number, at
