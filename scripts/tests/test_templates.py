"""Templates of synthetic bundles: what the exporter would make of such a checkpoint, but for the values of its weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from exporter.bundle import export
from exporter.graph import NUMPY
from exporter.manifest import UNQUANTISED, Options
from exporter.synthetic.spec import make_spec
from exporter.synthetic.template import RECIPE, write_template
from make_checkpoint import make_checkpoint

GRAPHS = ("vision_encoder", "prefix_prefill", "time_conditioning", "denoise_step")


def made(policy: str, options: Options, directory: Path) -> tuple[Path, Path]:
    """The template, and the bundle that the exporter makes of a checkpoint of the same dimensions."""
    spec = make_spec("tiny", policy=policy)
    write_template(directory / "template", spec, options)
    make_checkpoint(directory / "checkpoint", spec)
    export(directory / "checkpoint", directory / "bundle", options)
    return directory / "template", directory / "bundle"


def structure(path: Path) -> bytes:
    """A graph without the values of the weights that it holds itself."""
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.INT64 and len(tensor.raw_data) > 4:
            tensor.raw_data = bytes(len(tensor.raw_data))
    return model.SerializeToString(deterministic=True)


@pytest.mark.parametrize("target", [None, "cuda", "tensorrt"])
@pytest.mark.parametrize("precision", UNQUANTISED)
@pytest.mark.parametrize("policy", ["pi0", "pi05"])
def test_a_template_is_the_exporters_bundle_without_weights(policy, precision, target, tmp_path):
    template, bundle = made(policy, Options(precision=precision, target=target, golden=False), tmp_path)
    for name in GRAPHS:
        assert structure(template / f"{name}.onnx") == structure(bundle / f"{name}.onnx"), name
    ours, theirs = (json.loads((d / "manifest.json").read_text()) for d in (template, bundle))
    recipe = json.loads((template / RECIPE).read_text())["files"]
    assert ours["files"].keys() | recipe.keys() == theirs["files"].keys()
    assert {name: file["size"] for name, file in recipe.items()} == {name: theirs["files"][name]["size"] for name in recipe}
    assert ours.pop("source")["format"] == "synthetic" and theirs.pop("source")
    assert {k: v for k, v in ours.items() if k != "files"} == {k: v for k, v in theirs.items() if k != "files"}


def test_the_recipe_has_the_distribution_of_the_weights(tmp_path):
    template, bundle = made("pi0", Options(golden=False), tmp_path)
    constants = 0
    for name, file in json.loads((template / RECIPE).read_text())["files"].items():
        content = (bundle / name).read_bytes()
        for run in file["runs"]:
            values = np.frombuffer(content, NUMPY[run["dtype"]], run["count"], run["offset"]).astype(float)
            if run["std"] == 0:
                constants += 1
                assert (values == run["mean"]).all()
            else:
                # The draws differ; so many standard errors apart they are not of one distribution.
                assert abs(values.mean() - run["mean"]) < 8 * run["std"] / np.sqrt(run["count"])
                assert 0.6 < values.std() / run["std"] < 1.6, (name, run)
    assert constants > 2, "the mask of the suffix is not random"
