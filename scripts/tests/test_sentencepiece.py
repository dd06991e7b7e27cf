"""A tokenizer.json made of a sentencepiece model gives the ids that sentencepiece gives."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import sentencepiece
from tokenizers import Tokenizer

from exporter.bundle import export
from exporter.errors import ExportError
from exporter.manifest import Options
from exporter.sentencepiece import read_sentencepiece
from exporter.synthetic.spec import make_spec
from exporter.synthetic.tokenizer import WORDS
from make_checkpoint import make_checkpoint

# What of PaliGemma's training shows in its model.
PALIGEMMA = dict(
    model_type="bpe", byte_fallback=True, add_dummy_prefix=False, remove_extra_whitespaces=False, split_digits=True,
    normalization_rule_name="identity", allow_whitespace_only_pieces=True, pad_id=0, eos_id=1, bos_id=2, unk_id=3,
    pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>", user_defined_symbols=["\n", "\n\n", "<loc0001>"],
)  # fmt: skip
TEXTS = (
    "pick up the red cube and place it into the bin\n", "Task: open the drawer, State: 0 255 -1 128;\nAction: ", "", " ", "  a  b ",
    "cafés, naïve; 机器人\n\n\n", "<loc0001>push<loc0001> the", "\t\u2581mixed \u2581", "zzz\U0001f916qqq", "the thethe  the\nthe",
)


def train(directory: Path, **changes) -> Path:
    random.seed(0)
    lines = [" ".join(random.choices(WORDS, k=random.randint(2, 9))) for _ in range(3000)]
    corpus = directory / "corpus.txt"
    corpus.write_text("\n".join(lines + ["State: 0 12 255 -1;"] * 50))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(directory / "m"), vocab_size=480, minloglevel=2, **(PALIGEMMA | changes),
    )
    return directory / "m.model"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("sentencepiece"))


def test_same_ids(model, tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(read_sentencepiece(model)))
    ours = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(model))
    random.seed(1)
    made_up = ["".join(random.choices([*WORDS, " ", "_", "\n", "0", "7", ".", "é"], k=random.randint(1, 30))) for _ in range(500)]
    for text in (*TEXTS, *made_up):
        assert ours.encode(text).ids == theirs.encode(text, add_bos=True), repr(text)


def test_in_a_bundle(model, tmp_path):
    make_checkpoint(tmp_path / "checkpoint", make_spec("tiny", policy="pi05", format="openpi"))
    export(tmp_path / "checkpoint", tmp_path / "bundle", Options(tokenizer=model, golden=False))
    assert json.loads((tmp_path / "bundle/tokenizer.json").read_text()) == read_sentencepiece(model)


@pytest.mark.parametrize("changes, problem", [
    ({"model_type": "unigram"}, "byte-pair encoding"), ({"byte_fallback": False}, "<0x00>"), ({"add_dummy_prefix": True}, "changes texts"),
    ({"remove_extra_whitespaces": True}, "changes texts"), ({"normalization_rule_name": "nfkc"}, "changes texts"),
    ({"bos_piece": "<s>"}, "no piece <bos>"),
])
def test_other_kinds_are_refused(tmp_path, changes, problem):
    with pytest.raises(ExportError, match=f"m.model: .*{problem}"):
        read_sentencepiece(train(tmp_path, **changes))


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, b"\x0a\x7f\x00", b'{"model": {}}'])
def test_no_model(tmp_path, content):
    (tmp_path / "x.model").write_bytes(content)
    with pytest.raises(ExportError, match="not a sentencepiece model"):
        read_sentencepiece(tmp_path / "x.model")
