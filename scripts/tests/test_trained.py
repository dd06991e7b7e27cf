"""The trained bundles in models, and what their training is made of that needs no torch."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from tokenizers import Tokenizer

from conftest import SCRIPTS
from exporter.synthetic.spec import make_spec
from exporter.synthetic.tokenizer import tokenizer_json

MODELS = SCRIPTS.parent / "models"
TRAINED = sorted(path.parent.name for path in MODELS.glob("*/training.json"))


@pytest.mark.parametrize("name", TRAINED)
def test_a_record_is_of_its_bundle(name):
    record, manifest = (json.loads((MODELS / name / file).read_text()) for file in ("training.json", "manifest.json"))
    assert record["model_sha256"] == manifest["source"]["model_sha256"]
    assert record["policy"] == manifest["policy"]
    rows = record["curve"]["rows"]
    assert rows[-1][0] == record["recipe"]["steps"]
    assert rows[-1][1] < rows[0][1] / 10
    assert sum(path.stat().st_size for path in (MODELS / name).rglob("*") if path.is_file()) <= 2_000_000


def test_there_is_a_trained_bundle():
    assert "pi0-sort" in TRAINED


def test_named_joints():
    named = make_spec("tiny", action_dim=2, joints=("x", "suction"))
    assert (named.action_names, named.problems()) == (["x", "suction"], [])
    assert any("2 joints" in problem for problem in make_spec("tiny", joints=("x", "suction")).problems())


def test_a_tokenizer_of_few_words_has_a_token_of_each():
    tokenizer = Tokenizer.from_str(json.dumps(tokenizer_json(("put", "the", "block"))))
    assert tokenizer.encode("put the block\n").tokens == ["<bos>", "put", "\u2581the", "\u2581block", "\n"]


PROGRAM = """\
import json, sys
with open({log!r}, "a") as log: print(*sys.argv[1:], file=log)
print(json.dumps(dict(episodes=4, success=0.5, interval=[0.15, 0.85])))
"""


def test_an_evaluation_goes_on_from_where_it_was(tmp_path):
    program, log, results = tmp_path / "sort", tmp_path / "log", tmp_path / "results.jsonl"
    program.write_text(f"#!{sys.executable}\n" + PROGRAM.format(log=str(log)))
    program.chmod(0o755)

    def run(*flags):
        command = [sys.executable, SCRIPTS / "sort/eval.py", results, "--program", program, *flags]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    run("--delay", "0", "--swap", "-,+")
    run("--delay", "0,100", "--swap", "-,+")
    assert sorted(log.read_text().splitlines()) == [
        "--delay 0 --format json", "--delay 0 --swap --format json", "--delay 100 --format json", "--delay 100 --swap --format json",
    ]
    assert run("--table").splitlines()[2:4] == ["| 0 |  | 4 | 0.5 | 0.15–0.85 |", "| 0 | + | 4 | 0.5 | 0.15–0.85 |"]


def test_demonstrations_that_do_not_fit_are_refused(tmp_path):
    sys.path.insert(0, str(SCRIPTS / "sort"))
    from demonstrations import DemonstrationError, Demonstrations

    np.save(tmp_path / "base.npy", np.zeros((3, 48, 64, 3), np.uint8))
    with pytest.raises(DemonstrationError, match=r"base\.npy.*\[3, 48, 64, 3\]"):
        Demonstrations(tmp_path)
