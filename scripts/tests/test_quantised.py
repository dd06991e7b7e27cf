"""Precision int8: what is rounded and what is not, how far off it is, and what an export refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from conftest import SCRIPTS, edit_json, edit_weights
from exporter.accuracy import MARGIN, USUAL, outputs
from exporter.bundle import export
from exporter.errors import ExportError
from exporter.evaluate import Evaluator
from exporter.forms.int8 import DynamicInt8
from exporter.forms.portable import Portable
from exporter.golden_inputs import golden_inputs, observed_inputs
from exporter.gptq import gptq, round_to_nearest
from exporter.graph import Graph
from exporter.manifest import Options
from exporter.pipeline import Pipeline
from exporter.quantization import relative_l2
from exporter.quantised import Quantised
from exporter.synthetic.spec import make_spec
from host import Host
from make_checkpoint import make_checkpoint
from test_precision import Notes
from test_tensorrt_operators import graphs_of

CASE = "two_cameras_4_steps"
LANGUAGE = "model.paligemma_with_expert.paligemma.model.language_model."
KEEP = "prefix_prefill.layer.0.mlp.down,denoise_step.layer.*.attention.output"


@pytest.fixture(scope="session", params=["pi0", "pi05"])
def checkpoint(request, tmp_path_factory) -> Path:
    """The checkpoint that models/*-tiny was made of, with one golden case; for reading only."""
    directory = tmp_path_factory.mktemp("one_case") / request.param
    make_checkpoint(directory, make_spec("tiny", seed=0, policy=request.param))
    shutil.copytree(SCRIPTS.parent / f"models/{request.param}-tiny/golden", directory / "golden")
    edit_json(directory / "golden/golden.json", lambda index: index.update(cases=[case for case in index["cases"] if case["name"] == CASE]))
    return directory


@pytest.fixture(scope="session")
def made(checkpoint, tmp_path_factory) -> tuple[Path, Notes]:
    """Its bundle in int8, and what the export said."""
    bundle, notes = tmp_path_factory.mktemp("int8") / "bundle", Notes()
    export(checkpoint, bundle, Options(precision="int8", keep=KEEP), notes)
    return bundle, notes


def test_onnx_runtime_computes_what_was_measured(made):
    """Within what a value that falls to the other side of a rounding makes, and within what the bundle declares."""
    bundle, _ = made
    host, evaluated = Host(bundle), Pipeline(bundle, Evaluator)
    declared = json.loads((bundle / "golden/golden.json").read_text())["tolerance"]["relative_l2"]
    for inputs in golden_inputs(bundle, host.manifest):
        wanted = outputs(evaluated, inputs)
        for stage, got in outputs(host, inputs).items():
            assert relative_l2(got, wanted[stage]) < declared[stage] / 3, stage
            golden = np.load(bundle / f"golden/{CASE}/{stage}.npy")
            assert relative_l2(got, golden) < declared[stage] < 10 * relative_l2(wanted[stage], golden), stage


def test_the_loss_is_told_by_stage_and_by_kind_of_layer(made):
    bundle, notes = made
    (said,) = [note for note in notes.said if note.startswith("against f32")]
    lines = {line.rsplit(maxsplit=4)[0].strip(): line.split() for line in said.splitlines()[1:] if len(line.split()) > 4}
    layers = json.loads((bundle / "manifest.json").read_text())["dimensions"]["layers"]
    assert lines["denoise_step attention.output"][-4:-2] == ["0", str(layers)]
    assert lines["denoise_step mlp.up"][-4:-2] == [str(layers), "0"]
    tolerance = json.loads((bundle / "golden/golden.json").read_text())["tolerance"]
    actions = float(next(line for line in said.splitlines() if line.startswith("actions ")).split()[1])
    assert tolerance["relative_l2"]["actions"] == pytest.approx(max(1e-3, MARGIN * actions), rel=0.05) and actions < USUAL["int8"][0]


def test_products_of_layers_have_bytes_and_nothing_else_has(made):
    bundle, _ = made
    manifest = json.loads((bundle / "manifest.json").read_text())
    kept = {(entry["graph"], entry["product"]): entry for entry in manifest["quantization"]["kept"]}
    assert kept["prefix_prefill", "layer.0.mlp.down"]["why"] == "asked"
    assert manifest["onnxruntime"] == "1.23" and manifest["quantization"]["calibration"] == {"source": "golden", "observations": 1, "steps": 4}
    for name in manifest["graphs"]:
        graph = onnx.load(bundle / f"{name}.onnx", load_external_data=False).graph
        types = {tensor.name: tensor.data_type for tensor in graph.initializer}
        products = {node.name for node in graph.node if node.op_type in ("MatMulIntegerToFloat", "MatMulNBits")}
        for node in graph.node:
            if node.op_type == "MatMulIntegerToFloat":
                assert types[node.input[1]] == onnx.TensorProto.INT8, node.name
            if node.op_type == "MatMulNBits":
                assert types[node.input[1]] == onnx.TensorProto.UINT8 and (name, node.name.removesuffix(".product")) in kept
            if node.op_type in ("Gemm", "Conv") and len(node.input) > 1 and node.input[1] in types:
                assert types[node.input[1]] == onnx.TensorProto.FLOAT and not node.name.startswith("layer."), node.name
        assert products or name == "time_conditioning"


def test_smoothing_alone_changes_no_result(checkpoint, tmp_path, monkeypatch):
    """Norms, gates and the time's modulation divide by what the weights are multiplied by."""

    class Smoothed:
        def __init__(self, source, factor):
            self._source, self._factor, self.shape, self.count = source, factor, source.shape, source.count

        def blocks(self):
            return (block * self._factor for block in self._source.blocks())

    def product(self, g: Graph, name: str, x: str, weight, bias=None) -> str:
        return Portable.product(self, g, name, x, Smoothed(weight, self.smoothing(g.name, x)), bias)

    found: list = []
    monkeypatch.setattr(DynamicInt8, "product", product)
    monkeypatch.setattr(Quantised, "tolerance", lambda self: found.append(self._plan) or {})
    export(checkpoint, tmp_path / "bundle", Options(precision="int8"))
    factors = np.concatenate(list(found[0].smoothing.values()))
    assert factors.min() < 0.8 and factors.max() > 1.25
    pipeline = Pipeline(tmp_path / "bundle", Evaluator)
    for inputs in golden_inputs(tmp_path / "bundle", pipeline.manifest):
        for stage, got in outputs(pipeline, inputs).items():
            assert relative_l2(got, np.load(checkpoint / f"golden/{CASE}/{stage}.npy")) < 1e-5, stage


def test_observations_of_a_directory_are_tokenised_as_lerobot_does():
    for name in ("pi0-tiny", "pi05-tiny", "pi05-openpi"):
        bundle = SCRIPTS.parent / "models" / name
        manifest = json.loads((bundle / "manifest.json").read_text())
        observed = {inputs.name: inputs for inputs in observed_inputs(bundle / "golden", manifest, bundle / "tokenizer.json")}
        for golden in golden_inputs(bundle, manifest):
            assert observed[golden.name].tokens == golden.tokens
            assert np.array_equal(observed[golden.name].pixels, golden.pixels)


def test_a_product_whose_input_does_not_bear_it_is_found_and_kept(broken, tmp_path):
    """One hidden unit is 64 times as large as the others, and its weights as small: the bundle would compute little else."""
    layer = "model.paligemma_with_expert.paligemma.model.vision_tower.vision_model.encoder.layers.1.mlp."

    def edit(tensors):
        up, down = (np.frombuffer(tensors[f"{layer}{name}.weight"][2], np.float32).reshape(tensors[f"{layer}{name}.weight"][1]).copy()
                    for name in ("fc1", "fc2"))
        up[5] *= 64
        down[:, 5] /= 64
        tensors[layer + "fc1.weight"][2], tensors[layer + "fc2.weight"][2] = up.tobytes(), down.tobytes()

    edit_weights(broken / "model.safetensors", edit)
    given = SCRIPTS.parent / f"models/pi0-tiny/golden/{CASE}"
    export(broken, tmp_path / "bundle", Options(precision="int8", calibrate=given, num_steps=1))
    manifest = json.loads((tmp_path / "bundle/manifest.json").read_text())
    (kept,) = manifest["quantization"]["kept"]
    assert (kept["graph"], kept["product"], kept["why"]) == ("vision_encoder", "layer.1.mlp.down", "measured")
    assert kept["form"] in ("blocks", "wide") and kept["error"] > 5e-2
    assert manifest["golden"] is None and manifest["quantization"]["calibration"] == {"source": CASE, "observations": 1, "steps": 1}


# -- refusals ---------------------------------------------------------------------------------------------------------------


def refused(checkpoint: Path, bundle: Path, words: str, **options) -> None:
    with pytest.raises(ExportError, match=words):
        export(checkpoint, bundle, Options(precision="int8", **options))
    assert not bundle.exists() and not list(bundle.parent.glob(".bundle*"))


def test_what_cannot_be_calibrated_is_refused(tiny, broken, tmp_path):
    bundle = tmp_path / "bundle"
    refused(tiny, bundle, "needs observations to calibrate with.*--calibrate DIR")
    refused(tiny, bundle, "neither an observation.*nor a directory of such", calibrate=tmp_path)
    given = SCRIPTS.parent / "models/pi0-openpi/golden"
    refused(tiny, bundle, "is of another policy: it has the camera", calibrate=given)
    other = shutil.copytree(SCRIPTS.parent / f"models/pi0-tiny/golden/{CASE}", tmp_path / "other")
    edit_json(other / "observation.json", lambda observation: observation["state"].pop())
    refused(tiny, bundle, "is of another policy: its state has 5 values, this policy's has 6", calibrate=other)
    (other / "observation.json").write_text("{")
    refused(tiny, bundle, "observation.json: not a JSON file", calibrate=other)
    with pytest.raises(ExportError, match="--calibrate, --keep: are for --precision int8 and int4; fp16"):
        export(tiny, bundle, Options(precision="fp16", calibrate=given))
    with pytest.raises(ExportError, match="int4: is for --target cpu or cuda; there are no graphs of it for tensorrt's kernels"):
        export(tiny, bundle, Options(precision="int4", target="tensorrt", calibrate=given))


@pytest.mark.parametrize("value, words", [(np.nan, "holds a value that is not finite"), (0.0, "layer.1.mlp.up: every weight is zero")])
def test_a_checkpoint_that_is_damaged_is_refused(broken, tmp_path, value, words):
    def edit(tensors):
        values = np.frombuffer(tensors[LANGUAGE + "layers.1.mlp.up_proj.weight"][2], np.float32) * np.float32(value)
        tensors[LANGUAGE + "layers.1.mlp.up_proj.weight"][2] = values.tobytes()

    edit_weights(broken / "model.safetensors", edit)
    refused(broken, tmp_path / "bundle", words, calibrate=SCRIPTS.parent / f"models/pi0-tiny/golden/{CASE}", num_steps=1)


def test_a_product_that_there_is_not_cannot_be_kept(tiny, tmp_path):
    refused(tiny, tmp_path / "bundle", "--keep: no product is named nothing.*vision_encoder.layer.0.attention",
            calibrate=SCRIPTS.parent / f"models/pi0-tiny/golden/{CASE}", num_steps=1, keep="*.mlp.down,nothing")


# -- TensorRT ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["10.3", "10.14"])
def test_tensorrt_has_scales_that_were_measured(checkpoint, tmp_path, version):
    bundle = tmp_path / "bundle"
    export(checkpoint, bundle, Options(precision="int8", target="tensorrt", tensorrt_version=version, keep="*.mlp.down", range_scan=False))
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["quantization"]["scheme"] == "w8a8_static" and manifest["token_embedding"]["dtype"] == "f16"
    for name in ("vision_encoder", "prefix_prefill", "denoise_step"):
        graph = onnx.load(bundle / f"{name}.onnx").graph
        made = {output: node for node in graph.node for output in node.output}
        stored = {tensor.name: tensor for tensor in graph.initializer}
        products = [node for node in graph.node if node.op_type == "Gemm" and node.name.startswith("layer.") and node.input[1] in made]
        products = [node for node in products if made[node.input[1]].op_type == "DequantizeLinear"]
        assert len(products) > 4
        for node in products:
            weight, scale = made[node.input[1]].input
            assert stored[weight].data_type == onnx.TensorProto.INT8 and stored[scale].dims == stored[weight].dims[:1], node.name
            rounded = node.input[0] in made and made[node.input[0]].op_type == "DequantizeLinear"
            assert rounded != node.name.endswith("mlp.down"), node.name
    if version == "10.3":
        assert not any(graphs_of(bundle).values())
    declared = json.loads((bundle / "golden/golden.json").read_text())["tolerance"]["relative_l2"]
    assert 5e-3 < declared["v_t"] < 1e-1 and declared["actions"] < 3e-2


# -- CUDA -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_cuda_has_weights_in_blocks_of_32_and_no_bias_in_them(checkpoint, tmp_path, precision):
    """Those of the state token, which the prefill computes there, are the expert's."""
    bundle = tmp_path / "bundle"
    export(checkpoint, bundle, Options(precision=precision, target="cuda", keep="denoise_step.layer.0.mlp.gate", range_scan=False))
    manifest = json.loads((bundle / "manifest.json").read_text())
    found = {}
    for name in manifest["graphs"]:
        for node in onnx.load(bundle / f"{name}.onnx", load_external_data=False).graph.node:
            if node.op_type == "MatMulNBits":
                attributes = {attribute.name: attribute.i for attribute in node.attribute}
                assert len(node.input) == 3 and attributes["block_size"] == 32
                found[name, node.name] = attributes["bits"]
    bits = 8 if precision == "int8" else 4
    assert found["denoise_step", "layer.1.mlp.gate"] == bits
    assert ("denoise_step", "layer.0.mlp.gate") not in found
    assert found["denoise_step", "layer.1.mlp.down"] == found["prefix_prefill", "layer.1.mlp.up"] == 8
    assert found.get(("prefix_prefill", "state.layer.1.mlp.gate")) == (bits if manifest["policy"] == "pi0" else None)
    tolerance = json.loads((bundle / "golden/golden.json").read_text())["tolerance"]["relative_l2"]
    assert tolerance["keys"] < 2e-2 and tolerance["actions"] < (1.5e-2 if precision == "int8" else 8e-2)


# -- int4 -------------------------------------------------------------------------------------------------------------------


def test_int4_has_4_bits_in_the_denoise_step_alone(checkpoint, tmp_path):
    bundle = tmp_path / "bundle"
    export(checkpoint, bundle, Options(precision="int4"))
    manifest = json.loads((bundle / "manifest.json").read_text())
    kept = {entry["product"].split(".", 2)[2] for entry in manifest["quantization"]["kept"] if entry["why"] == "rule"}
    assert kept == {"mlp.down"} and manifest["quantization"]["scheme"] == "w4_gptq_denoise"
    for name in manifest["graphs"]:
        bits = {
            node.name: attribute.i for node in onnx.load(bundle / f"{name}.onnx", load_external_data=False).graph.node
            for attribute in node.attribute if attribute.name == "bits"
        }
        assert (4 in bits.values()) == (name == "denoise_step")
        assert all(found == 8 for product, found in bits.items() if product.endswith("mlp.down"))
    tolerance = json.loads((bundle / "golden/golden.json").read_text())["tolerance"]["relative_l2"]
    assert tolerance["actions"] < MARGIN * USUAL["int4"][0]
    host, evaluated = Host(bundle), Pipeline(bundle, Evaluator)
    for inputs in golden_inputs(bundle, manifest):
        wanted = outputs(evaluated, inputs)
        for stage, got in outputs(host, inputs).items():
            assert relative_l2(got, wanted[stage]) < tolerance[stage] / 3, stage


def test_4_bits_for_the_inputs_beat_the_nearest_ones():
    random = np.random.default_rng(0)
    inputs = random.standard_normal((500, 8), np.float32) @ random.standard_normal((8, 128), np.float32)
    inputs += random.standard_normal(inputs.shape, np.float32) / 4
    weight = random.standard_normal((64, 128), np.float32)
    errors = []
    for integers, scales in (gptq(weight, inputs.T @ inputs, 32), round_to_nearest(weight, 32)):
        assert integers.min() >= -8 and integers.max() <= 7
        rounded = (integers.reshape(64, 4, 32) * scales[..., None]).reshape(64, 128)
        errors.append(relative_l2(inputs @ rounded.T, inputs @ weight.T))
    assert errors[1] > 1.7 * errors[0]
