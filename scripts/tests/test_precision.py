"""Half precision: the arithmetic of bf16, which nothing here can run, and the range of fp16."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from conftest import SCRIPTS, edit_weights
from exporter.bundle import export
from exporter.errors import ExportError
from exporter.evaluate import Evaluator
from exporter.golden_inputs import golden_inputs, view
from exporter.graph import NUMPY
from exporter.manifest import Options
from exporter.pipeline import Pipeline
from exporter.progress import Progress
from exporter.ranges import scan_ranges
from host import Host
from test_commands import run

STAGES = ("image_embeds", "keys", "values", "v_t", "actions_normalized")
UP = "model.paligemma_with_expert.paligemma.model.language_model.layers.1.mlp.up_proj.weight"


def outputs(pipeline: Pipeline, inputs) -> dict[str, np.ndarray]:
    embeds = pipeline.images(inputs.pixels)
    cache = pipeline.prefix(embeds, inputs.tokens, inputs.state)
    actions, velocities = pipeline.denoise(inputs.noise, inputs.state, cache, inputs.num_steps)
    layers = range(pipeline.dimensions["layers"])
    keys, values = (np.stack([cache[f"present.{i}.{part}"].ravel() for i in layers]) for part in ("key", "value"))
    return dict(zip(STAGES, (embeds, keys, values, velocities, actions)))


def deviation(got: np.ndarray, want: np.ndarray) -> tuple[float, float]:
    """The largest error as a share of the largest value, and the cosine."""
    got, want = (np.asarray(array, np.float64).ravel() for array in (got, want))
    return np.abs(got - want).max() / np.abs(want).max(), got @ want / np.linalg.norm(got) / np.linalg.norm(want)


def worst_by_stage(bundle: Path) -> dict[str, tuple[float, float]]:
    """Over the golden cases, against lerobot in f32."""
    pipeline, worst = Pipeline(bundle, Evaluator), {stage: (0.0, 1.0) for stage in STAGES}
    for inputs in golden_inputs(bundle, pipeline.manifest):
        for stage, got in outputs(pipeline, inputs).items():
            error, cosine = deviation(got, np.load(bundle / f"golden/{inputs.name}/{stage}.npy"))
            worst[stage] = max(worst[stage][0], error), min(worst[stage][1], cosine)
    return worst


# -- the evaluation itself --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pi0-tiny", "pi05-tiny"])
def test_evaluation_agrees_with_onnx_runtime(name):
    bundle = SCRIPTS.parent / "models" / name
    host, evaluated = Host(bundle), Pipeline(bundle, Evaluator)
    for inputs in golden_inputs(bundle, host.manifest):
        wanted = outputs(host, inputs)
        for stage, got in outputs(evaluated, inputs).items():
            assert deviation(got, wanted[stage])[0] < 5e-6, stage


@pytest.mark.parametrize("name", ["pi0-tiny", "pi05-tiny"])
def test_golden_observations_become_the_references_pixels(name):
    bundle = SCRIPTS.parent / "models" / name
    manifest = json.loads((bundle / "manifest.json").read_text())
    index = {case["name"]: case for case in json.loads((bundle / "golden/golden.json").read_text())["cases"]}
    for inputs in golden_inputs(bundle, manifest):
        wanted = index[inputs.name]["expected"]["pixel_values"]
        assert np.abs(inputs.pixels.ravel()[:: wanted["stride"]] - np.load(bundle / "golden" / wanted["file"])).max() < 1e-4


def test_frame_of_the_right_size_is_not_resampled():
    manifest = json.loads((SCRIPTS.parent / "models/pi0-tiny/manifest.json").read_text())
    frame = np.random.default_rng(0).integers(0, 256, (56, 56, 3), np.uint8)
    assert np.array_equal(view(frame, manifest), (frame.astype(np.float32) / 255 * 2 - 1).transpose(2, 0, 1))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_every_edge_is_rounded(recorded, tmp_path, precision):
    export(recorded, tmp_path / "bundle", Options(precision=precision, golden=False))
    half = {"fp16": "f16", "bf16": "bf16"}[precision]
    seen = {"f32": 0, half: 0}

    def observe(_graph, _name, dtype, array):
        if dtype in seen:
            seen[dtype] += 1
            assert array.dtype == np.float32

    pipeline = Pipeline(tmp_path / "bundle", lambda path: Evaluator(path, observe=observe))
    manifest = json.loads((tmp_path / "bundle/manifest.json").read_text()) | {"golden": "golden/golden.json"}
    shutil.copytree(recorded / "golden", tmp_path / "bundle/golden")
    found = outputs(pipeline, next(golden_inputs(tmp_path / "bundle", manifest)))
    assert [found[stage].dtype for stage in STAGES] == [NUMPY[half]] * 3 + [np.float32] * 2
    assert seen[half] > 500 and seen["f32"] > 500


# -- bf16 -------------------------------------------------------------------------------------------------------------------


def test_declared_tolerances_hold_and_are_not_loose(recorded, tmp_path):
    """Against lerobot's outputs: each precision is within its bundle's tolerance, and bf16, of three bits less, not within fp16's."""
    worst, declared = {}, {}
    for precision in ("fp16", "bf16"):
        export(recorded, tmp_path / precision, Options(precision=precision))
        worst[precision] = worst_by_stage(tmp_path / precision)
        declared[precision] = json.loads((tmp_path / precision / "golden/golden.json").read_text())["tolerance"]
        for stage, (error, cosine) in worst[precision].items():
            bound = declared[precision]["actions" if stage == "actions" else "stages"]
            assert bound / 30 < error < bound, stage
            assert cosine > declared[precision]["cosine"], stage
    for stage in STAGES:
        assert 5 < worst["bf16"][stage][0] / worst["fp16"][stage][0] < 12


def test_islands_stay_f32(recorded, tmp_path):
    """What a bf16 graph computes in f32: norms, softmax, the residual stream, the rotation, and the Euler step."""
    export(recorded, tmp_path / "bundle", Options(precision="bf16", golden=False))
    manifest = json.loads((tmp_path / "bundle/manifest.json").read_text())
    assert (manifest["precision"], manifest["target"], manifest["token_embedding"]["dtype"]) == ("bf16", "cuda", "bf16")
    for name in ("vision_encoder", "prefix_prefill", "denoise_step"):
        model = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / f"bundle/{name}.onnx", load_external_data=False), True)
        dtypes = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.output)}
        islands = ("Pow", "ReduceMean", "Sqrt", "LayerNormalization", "Softmax", "Conv", "Sub", "Neg")
        for node in model.graph.node:
            leaf = node.name.split(".")[-1]
            if node.op_type in islands or leaf in ("residual", "rotated", "x_next", "v_t"):
                assert dtypes[node.output[0]] == onnx.TensorProto.FLOAT, node.name
            if node.op_type == "Gelu" or leaf in ("query_key_value", "up", "down", "scores", "scores_prefix", "weighted_values"):
                assert dtypes[node.output[0]] == onnx.TensorProto.BFLOAT16, node.name


def test_weights_are_rounded_to_nearest(recorded, tmp_path):
    export(recorded, tmp_path / "bundle", Options(precision="bf16", golden=False))
    graph = onnx.load(tmp_path / "bundle/prefix_prefill.onnx").graph
    (stored,) = (tensor for tensor in graph.initializer if tensor.name == "layer.1.mlp.up.weight")
    bits = load_file(recorded / "model.safetensors")[UP].view(np.uint32)
    wanted = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    assert stored.data_type == onnx.TensorProto.BFLOAT16 and stored.raw_data == wanted.tobytes()


# -- the range of fp16 ------------------------------------------------------------------------------------------------------


class Notes(Progress):
    def __init__(self):
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def scaled(recorded, tmp_path):
    """A checkpoint with one matrix of the prefix times a factor; the next one is divided by it, and nothing else changes."""

    def scale(factor: float) -> Path:
        checkpoint = shutil.copytree(recorded, tmp_path / "checkpoint")

        def edit(tensors):
            for name, by in ((UP, factor), (UP.replace("up_proj", "down_proj"), 1 / factor)):
                tensors[name][2] = (np.frombuffer(tensors[name][2], np.float32) * np.float32(by)).tobytes()

        edit_weights(checkpoint / "model.safetensors", edit)
        return checkpoint

    return scale


def test_overflow_is_refused_by_name(scaled, tmp_path):
    checkpoint = scaled(2.0**15)
    with pytest.raises(ExportError) as refused:
        export(checkpoint, tmp_path / "bundle", Options(precision="fp16"))
    text = str(refused.value)
    assert text.startswith("2 tensors overflow half precision; export with --precision bf16 or fp32:")
    assert "prefix_prefill: layer.1.mlp.up: reaches" in text and "prefix_prefill: layer.1.mlp.hidden: reaches" in text
    assert not (tmp_path / "bundle").exists()
    # It is the range alone: in bf16 the same checkpoint is as good as any.
    export(checkpoint, tmp_path / "bundle", Options(precision="bf16"))
    assert all(error < 4e-2 for error, _ in worst_by_stage(tmp_path / "bundle").values())
    # And what was foretold comes true.
    export(checkpoint, tmp_path / "fp16", Options(precision="fp16", range_scan=False))
    pipeline = Pipeline(tmp_path / "fp16", Evaluator)
    inputs = next(golden_inputs(tmp_path / "fp16", pipeline.manifest))
    assert not np.isfinite(outputs(pipeline, inputs)["keys"].astype(np.float32)).all()


def test_what_comes_near_is_noted(scaled, tmp_path):
    notes = Notes()
    export(scaled(2.0**12), tmp_path / "bundle", Options(precision="fp16"), notes)
    assert [note for note in notes.said if "prefix_prefill: layer.1.mlp.hidden" in note and "--precision bf16" in note]


def test_nothing_to_say_of_a_plain_model(recorded, tmp_path):
    """The mask's large constant is not taken for a score."""
    notes = Notes()
    export(recorded, tmp_path / "bundle", Options(precision="fp16"), notes)
    assert not [note for note in notes.said if "half precision" in note]
    exact, half = (scan_ranges(bundle) for bundle in (_exported(recorded, tmp_path / "fp32"), tmp_path / "bundle"))
    names = {(found.graph, found.tensor): found.max_abs for found in exact}
    assert (half[0].graph, half[0].tensor) in names
    assert all(found.dtype == "f16" for found in half) and all(found.max_abs < 100 for found in half)
    shared = [found for found in half if (found.graph, found.tensor) in names]
    assert len(shared) > 50
    # Weights apart, which are rounded, it is the same computation.
    assert all(abs(found.max_abs / names[found.graph, found.tensor] - 1) < 0.02 for found in shared)


def _exported(checkpoint: Path, bundle: Path) -> Path:
    export(checkpoint, bundle)
    return bundle


def test_scan_as_a_command(scaled, tmp_path):
    bundle = _exported(scaled(2.0**15), tmp_path / "bundle")
    said = run("scan_ranges.py", bundle, "--quiet")
    assert said.returncode == 1 and said.stderr == ""
    first = said.stdout.splitlines()[1]
    assert first.startswith("prefix_prefill: layer.1.mlp.hidden") and first.endswith("OVERFLOWS")
    assert "FAIL: " in said.stdout.splitlines()[-1]
    report = json.loads(run("scan_ranges.py", bundle, "--quiet", "--format", "json", "--margin", "0.001").stdout)
    assert report["pass"] and len(report["tensors"]) == 10
    assert report["tensors"][0]["tensor"] == "layer.1.mlp.hidden" and report["tensors"][0]["headroom"] < 1


def test_scan_needs_golden_observations(tiny, tmp_path):
    export(tiny, tmp_path / "bundle")
    said = run("scan_ranges.py", tmp_path / "bundle")
    assert said.returncode == 1 and "no golden observations" in said.stderr and "Traceback" not in said.stderr
    said = run("scan_ranges.py", tmp_path / "nowhere")
    assert said.returncode == 1 and "give the directory of a bundle" in said.stderr
