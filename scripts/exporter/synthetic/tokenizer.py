"""A small tokenizer of PaliGemma's kind: byte-pair encoding over sentencepiece-like text, bytes as the last resort.

It has the special tokens and their ids, the space written as U+2581, single digits and the newline token of the real one, and
merges learnt from a list of words, by default ones that occur in manipulation tasks.
"""

from __future__ import annotations

import json
import string
from collections import Counter
from pathlib import Path

SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>")
SPACE = "\u2581"
WORDS = tuple("""
the pick up and place cube block red green blue yellow white black box bin cup mug bowl plate into onto on in from to of a with
left right hand arm gripper robot table drawer open close push pull move put take grasp lift lower stack fold towel shirt cloth
bottle lid sponge spoon fork knife banana apple orange tape pen marker button switch door handle shelf cabinet pot pan stove
then next first it all objects object clean wipe pour water sort hang insert peg hole cable plug slowly carefully
""".split())
MERGES = 152


def tokenizer_json(words: tuple[str, ...] = WORDS) -> dict:
    """The content of ``tokenizer.json``, as Hugging Face's tokenizers read it."""
    merges = _learn_merges(words)
    pieces = list(SPECIAL)
    pieces += [f"<0x{byte:02X}>" for byte in range(256)]
    pieces += ["\n", SPACE, *string.ascii_letters, *string.digits, *".,;:!?'\"()-_/"]
    pieces += ["".join(pair) for pair in merges]
    pieces = list(dict.fromkeys(pieces))  # two merges may spell the same piece
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
            for i, token in enumerate(SPECIAL)
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                {"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "<bos>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
            "vocab": {piece: i for i, piece in enumerate(pieces)},
            "merges": [list(pair) for pair in merges],
        },
    }


def tokenizer_config() -> dict:
    """The content of ``tokenizer_config.json``: a class that loads ``tokenizer.json`` as it stands."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>",
        "padding_side": "right", "clean_up_tokenization_spaces": False, "model_max_length": 1000000,
    }


def write_tokenizer(directory: Path, words: tuple[str, ...] = WORDS) -> None:
    directory.mkdir(parents=True)
    for name, content in (("tokenizer.json", tokenizer_json(words)), ("tokenizer_config.json", tokenizer_config())):
        (directory / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _learn_merges(known: tuple[str, ...]) -> list[tuple[str, str]]:
    """Byte-pair encoding of the word list: join the most frequent pair, the alphabetically first one on a tie."""
    words = [[*word] for plain in known for word in (plain, SPACE + plain)]
    merges: list[tuple[str, str]] = []
    while len(merges) < MERGES and (pairs := Counter(pair for word in words for pair in zip(word, word[1:]))):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = [_join(word, best) for word in words]
    return merges


def _join(word: list[str], pair: tuple[str, str]) -> list[str]:
    joined: list[str] = []
    for piece in word:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined
