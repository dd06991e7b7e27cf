"""The forms of each target compute what the portable ones do, and are made of what they promise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from exporter.bundle import export
from exporter.errors import ExportError
from exporter.evaluate import Evaluator
from exporter.golden_inputs import golden_inputs
from exporter.manifest import Options
from exporter.pipeline import Pipeline
from exporter.synthetic.spec import make_spec
from host import Host
from make_checkpoint import make_checkpoint
from test_precision import STAGES, deviation, outputs

TARGETS = {
    "cuda": {"target": "cuda"},
    "cuda-1.31": {"target": "cuda", "onnxruntime_version": "1.31"},
    "tensorrt": {"target": "tensorrt"},
    "tensorrt-10.14": {"target": "tensorrt", "tensorrt_version": "10.14"},
}


def opened(bundle: Path) -> Pipeline:
    """Over ONNX Runtime's CPU provider; over the evaluation where that has no products."""
    precision = json.loads((bundle / "manifest.json").read_text())["precision"]
    return Pipeline(bundle, Evaluator) if precision == "bf16" else Host(bundle)


@pytest.mark.parametrize("prefix_bucket", [None, 16], ids=["exact", "padded"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("target", TARGETS)
def test_parity_by_stage(recorded, tmp_path, target, precision, prefix_bucket):
    bundle = tmp_path / "bundle"
    export(recorded, bundle, Options(precision=precision, **TARGETS[target], prefix_bucket=prefix_bucket))
    tolerance = json.loads((bundle / "golden/golden.json").read_text())["tolerance"]
    pipeline = opened(bundle)
    for inputs in golden_inputs(bundle, pipeline.manifest):
        found = outputs(pipeline, inputs)
        for stage in STAGES:
            want = np.load(bundle / f"golden/{inputs.name}/{stage}.npy")
            got = found[stage]
            if stage in ("keys", "values"):
                # Without the state token's row before them, and the rows that fill the prefix up after them.
                first = int(pipeline.state_in_prefill)
                got = got.reshape(pipeline.dimensions["layers"], -1, pipeline.dimensions["head_dim"])
                got = got[:, first : first + pipeline.length]
            error, cosine = deviation(got, want)
            assert error < tolerance["actions" if stage == "actions_normalized" else "stages"], stage
            assert cosine > tolerance.get("cosine", 0), stage


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("target", TARGETS)
def test_addresses_of_every_split_fit_its_launch(recorded, tmp_path, target, precision):
    """The CUDA provider fetches them from the host for two uneven parts, or more than three, and for more than 32 even ones."""
    export(recorded, tmp_path / "bundle", Options(precision=precision, **TARGETS[target], golden=False))
    check_splits(tmp_path / "bundle")


@pytest.mark.parametrize("target", TARGETS)
def test_modulation_of_as_many_layers_as_the_published_model_has(tmp_path, target):
    make_checkpoint(tmp_path / "checkpoint", make_spec("tiny", policy="pi05", layers=18))
    export(tmp_path / "checkpoint", tmp_path / "bundle", Options(precision="fp16", **TARGETS[target], golden=False))
    if target.startswith("cuda"):
        check_splits(tmp_path / "bundle")


def check_splits(bundle: Path) -> None:
    for path in bundle.glob("*.onnx"):
        graph = onnx.load(path, load_external_data=False).graph
        for node in (node for node in graph.node if node.op_type == "Split"):
            even = len(node.input) == 1
            assert len(node.output) <= 32 if even else len(node.output) == 3, node.name


@pytest.mark.parametrize("options, recorded", [
    ({"target": "cpu"}, {}), ({"target": "tensorrt"}, {"tensorrt": "10.3"}),
    ({"target": "tensorrt", "tensorrt_version": "10.14"}, {"onnxruntime": "1.23", "tensorrt": "10.14"}),
    ({"target": "cuda"}, {"onnxruntime": "1.23"}), ({"target": "cuda", "onnxruntime_version": "1.31"}, {"onnxruntime": "1.31"}),
    ({"target": "cuda", "precision": "bf16"}, {"onnxruntime": "1.31"}), ({"target": "cuda", "prefix_bucket": 16}, {"onnxruntime": "1.31"}),
])
def test_the_manifest_says_what_the_graphs_need(options, recorded):
    assert Options(**options).forms.recorded("pi05") == recorded


def test_forms_that_an_older_onnxruntime_cannot_have_are_refused():
    with pytest.raises(ExportError, match="only 1.31 has the operators"):
        Options(target="cuda", precision="bf16", onnxruntime_version="1.23").forms
