"""What a bundle holds: files, hashes, graphs, manifest."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from safetensors.numpy import load_file

from conftest import SCRIPTS, edit_json
from exporter.bundle import export
from exporter.golden import TOLERANCES
from exporter.graph import ALIGNMENT
from exporter.lerobot_files import write_lerobot_files
from exporter.manifest import Options
from exporter.synthetic.spec import make_spec
from make_checkpoint import make_checkpoint

LEROBOT_FILES = ("config.json", "policy_preprocessor.json", "policy_postprocessor.json")  # that may be edited
GRAPHS = ("vision_encoder", "prefix_prefill", "time_conditioning", "denoise_step")


@pytest.fixture(scope="module")
def bundle(tiny, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("bundle") / "bundle"
    export(tiny, directory, Options(prompt="pick up the cube", num_steps=7))
    return directory


@pytest.fixture(scope="module")
def manifest(bundle) -> dict:
    return json.loads((bundle / "manifest.json").read_text())


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_same_checkpoint_gives_the_same_bytes(tiny, bundle, tmp_path):
    again = tmp_path / "checkpoint"
    make_checkpoint(again, make_spec("tiny", seed=1))
    assert contents(again) == contents(tiny)
    export(again, tmp_path / "again", Options(prompt="pick up the cube", num_steps=7))
    first, second = contents(bundle), contents(tmp_path / "again")
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_every_file_is_listed_with_its_hash(bundle, manifest):
    found = contents(bundle)
    for name in ("manifest.json", *LEROBOT_FILES):
        del found[name]
    assert manifest["files"] == {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in sorted(found.items())
    }
    expected = {"token_embedding.bin", "tokenizer.json"} | {f"{name}.onnx{part}" for name in GRAPHS for part in ("", ".data")}
    assert found.keys() == expected


def test_manifest(tiny, manifest):
    assert manifest["format_version"] == 1
    assert manifest["policy"] == "pi0"
    assert manifest["source"] == {
        "format": "lerobot", "checkpoint": "checkpoint", "dtype": "float32", "conventions": {"letterbox_pad": -1.0},
        "model_sha256": hashlib.sha256((tiny / "model.safetensors").read_bytes()).hexdigest(),
    }
    assert manifest["dimensions"] == {
        "image_height": 56, "image_width": 56, "patch_size": 14, "tokens_per_view": 16, "prefix_width": 64, "prefix_mlp": 160,
        "expert_width": 32, "expert_mlp": 96, "layers": 3, "query_heads": 4, "kv_heads": 1, "head_dim": 16, "vision_width": 48,
        "vision_layers": 2, "vision_heads": 16, "vision_mlp": 112, "vocab_size": 512, "action_horizon": 10,
    }
    assert manifest["cameras"] == [{"name": f"observation.images.{name}", "required": False} for name in ("base", "wrist", "side")]
    assert manifest["flow"] == {"convention": "noise_at_one", "num_steps": 7, "min_period": 0.004, "max_period": 4.0}
    assert manifest["prompt"] == {
        "format": "append_newline", "max_tokens": 24, "truncation": True, "default": "pick up the cube", "tokenizer": "tokenizer.json",
    }
    assert manifest["rope"] == {"theta": 10000.0, "inv_freq": "f32"}
    assert manifest["token_embedding"] == {"file": "token_embedding.bin", "dtype": "f32", "rows": 512, "width": 64}
    assert manifest["action"]["names"][-1] == "gripper.pos"
    assert manifest["golden"] is None


def test_statistics_read_back_bit_for_bit(tiny, manifest):
    state = load_file(next(tiny.glob("*_normalizer_processor.safetensors")))
    for feature in ("state", "action"):
        rule = manifest[feature]["normalization"]
        assert (rule["mode"], rule["eps"]) == ("mean_std", 1e-8)
        for name in ("mean", "std"):
            stored = state[f"{manifest[feature]['name']}.{name}"]
            assert np.array_equal(np.array(rule[name]).astype(np.float32), stored)


@pytest.mark.parametrize("mode, name, statistics", [
    ("MIN_MAX", "min_max", {"min", "max"}), ("QUANTILES", "quantiles", {"q01", "q99"}),
    ("QUANTILE10", "quantile10", {"q10", "q90"}), ("IDENTITY", "identity", set()),
])
def test_normalization_modes(tmp_path, mode, name, statistics):
    make_checkpoint(tmp_path / "checkpoint", make_spec("tiny", normalization=mode))
    export(tmp_path / "checkpoint", tmp_path / "bundle")
    rule = json.loads((tmp_path / "bundle/manifest.json").read_text())["action"]["normalization"]
    assert rule.keys() == {"mode", "eps"} | statistics and rule["mode"] == name


def test_token_rows_are_scaled(tiny, bundle):
    rows = np.fromfile(bundle / "token_embedding.bin", np.float32).reshape(512, 64)
    stored = load_file(tiny / "model.safetensors")["model.paligemma_with_expert.paligemma.lm_head.weight"]
    assert np.array_equal(rows, stored * np.float32(8))


@pytest.mark.parametrize("changes, mask", [
    ({"exclude_joints": ("gripper",)}, [True] * 5 + [False]),
    ({"exclude_joints": ("JOINT_1", "Grip")}, [True, False, True, True, True, False]),
    ({"exclude_joints": ()}, [True] * 6),
])
def test_relative_actions(tmp_path, changes, mask):
    make_checkpoint(tmp_path / "checkpoint", make_spec("tiny", relative=True, action_dim=6, **changes))
    export(tmp_path / "checkpoint", tmp_path / "bundle")
    assert json.loads((tmp_path / "bundle/manifest.json").read_text())["action"]["relative_mask"] == mask


@pytest.mark.parametrize("names, mask", [(None, [True] * 6), (["gripper"], [False] + [True] * 5)])
def test_relative_actions_without_all_names(tmp_path, names, mask):
    make_checkpoint(tmp_path / "checkpoint", make_spec("tiny", relative=True, action_dim=6))

    def edit(pipeline):
        # The step's name in lerobot 0.5.
        pipeline["steps"][5].update(registry_name="delta_actions_processor")
        pipeline["steps"][5]["config"].update(action_names=names)

    edit_json(tmp_path / "checkpoint/policy_preprocessor.json", edit)
    export(tmp_path / "checkpoint", tmp_path / "bundle")
    assert json.loads((tmp_path / "bundle/manifest.json").read_text())["action"]["relative_mask"] == mask


def test_options_reach_the_manifest(tmp_path):
    spec = make_spec("tiny", policy_dtype="bfloat16", rename={"front": "observation.images.base"}, empty_cameras=2)
    make_checkpoint(tmp_path / "checkpoint", spec)
    (tmp_path / "checkpoint/tokenizer").rename(tmp_path / "elsewhere")
    options = Options(
        letterbox_pad=-3.0, tokenizer=tmp_path / "elsewhere", require_cameras="observation.images.side", precision="fp16",
    )
    export(tmp_path / "checkpoint", tmp_path / "bundle", options)
    manifest = json.loads((tmp_path / "bundle/manifest.json").read_text())
    assert manifest["image"]["pad_value"] == manifest["source"]["conventions"]["letterbox_pad"] == -3.0
    assert manifest["rope"]["inv_freq"] == "bf16"
    assert manifest["rename"] == {"front": "observation.images.base"}
    assert [camera["required"] for camera in manifest["cameras"]] == [False, False, True]
    assert manifest["precision"] == "fp16" and manifest["token_embedding"]["dtype"] == "f16"
    assert (tmp_path / "bundle/token_embedding.bin").stat().st_size == 512 * 64 * 2


# -- graphs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRAPHS)
def test_graph_matches_manifest(bundle, manifest, name):
    graph = onnx.load(bundle / f"{name}.onnx", load_external_data=False).graph
    kinds = {1: "f32", 7: "i64"}
    for values, listed in ((graph.input, manifest["graphs"][name]["inputs"]), (graph.output, manifest["graphs"][name]["outputs"])):
        found = [
            {
                "name": value.name,
                "dtype": kinds[value.type.tensor_type.elem_type],
                "shape": [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim],
            }
            for value in values
        ]
        assert found == listed


@pytest.mark.parametrize("name", GRAPHS)
def test_graph_is_portable(bundle, name):
    model = onnx.load(bundle / f"{name}.onnx", load_external_data=False)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert {node.domain for node in model.graph.node} == {""}
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    # Nothing of f64, no positions or masks computed, nothing repeated.
    assert not {node.op_type for node in model.graph.node} & {"Where", "Expand", "Range", "CumSum", "Sin", "Cos", "Tile", "Pad"}
    assert 11 not in {tensor.data_type for tensor in model.graph.initializer}


@pytest.mark.parametrize("name", GRAPHS)
def test_weights_are_aligned(bundle, name):
    model = onnx.load(bundle / f"{name}.onnx", load_external_data=False)
    end = 0
    for tensor in model.graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if entries:
            assert entries["location"] == f"{name}.onnx.data"
            offset, length = int(entries["offset"]), int(entries["length"])
            assert offset % ALIGNMENT == 0 and offset >= end
            end = offset + length
        else:
            assert len(tensor.raw_data) < 1024
    assert end == (bundle / f"{name}.onnx.data").stat().st_size


@pytest.mark.parametrize("name, norms", [("prefix_prefill", 5), ("denoise_step", 7)])
def test_norms_are_fused_by_onnx_runtime(bundle, tmp_path, name, norms):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(str(bundle / f"{name}.onnx"), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx", load_external_data=False).graph.node]
    assert kinds.count("SimplifiedLayerNormalization") == norms
    assert "Pow" not in kinds


def test_last_prefix_layer_is_only_keys_and_values(bundle):
    graph = onnx.load(bundle / "prefix_prefill.onnx", load_external_data=False).graph
    last = {tensor.name for tensor in graph.initializer if tensor.name.startswith("layer.2.")}
    assert last == {"layer.2.attention.norm.scale", "layer.2.attention.key_value.weight"}


def test_x_next_is_written_after_x_t_is_read(bundle):
    """x_next lies in the memory of x_t, so the node that writes it must need the result of all that read x_t."""
    nodes = onnx.load(bundle / "denoise_step.onnx", load_external_data=False).graph.node
    maker = {output: node for node in nodes for output in node.output}
    needed, queue = set(), [maker["x_next"]]
    while queue:
        node = queue.pop()
        if node.name not in needed:
            needed.add(node.name)
            queue += [maker[name] for name in node.input if name in maker]
    assert {node.name for node in nodes if "x_t" in node.input} <= needed


def test_x_next_may_share_the_memory_of_x_t(bundle, manifest):
    """Bound in place, the step computes the same."""
    random = np.random.default_rng(0)
    session = ort.InferenceSession(str(bundle / "denoise_step.onnx"), providers=["CPUExecutionProvider"])
    sizes = {"steps": 4, "prefix": 21}
    feeds = {
        value["name"]: random.standard_normal([sizes.get(size, size) for size in value["shape"]]).astype(np.float32)
        for value in manifest["graphs"]["denoise_step"]["inputs"]
    }
    feeds["step"] = np.array([2])
    (apart,) = session.run(["x_next"], feeds)
    binding = session.io_binding()
    shared = ort.OrtValue.ortvalue_from_numpy(feeds["x_t"].copy())
    for name, value in feeds.items():
        binding.bind_ortvalue_input(name, shared if name == "x_t" else ort.OrtValue.ortvalue_from_numpy(value))
    binding.bind_ortvalue_output("x_next", shared)
    binding.bind_output("v_t")
    session.run_with_iobinding(binding)
    assert np.array_equal(shared.numpy(), apart)


# -- golden ---------------------------------------------------------------------------------------------------------------


def make_golden(checkpoint: Path, cases: dict[str, list[str]]) -> None:
    """A golden directory of the right form; what its files hold is the reference's business."""
    listed = []
    for name, cameras in cases.items():
        directory = checkpoint / "golden" / name
        directory.mkdir(parents=True)
        images = {f"observation.images.{camera}": f"{camera}.png" for camera in cameras}
        (directory / "observation.json").write_text(json.dumps({"images": images, "state": [0.0] * 6, "prompt": "go"}))
        for file in ("noise.npy", "v_t.npy", *images.values()):
            (directory / file).write_bytes(name.encode())
        listed.append({
            "name": name, "observation": f"{name}/observation.json", "noise": f"{name}/noise.npy", "num_steps": 10,
            "expected": {"tokens": [2], "v_t": {"file": f"{name}/v_t.npy", "stride": 1}},
        })
    (checkpoint / "golden/golden.json").write_text(json.dumps({"format_version": 1, "cases": listed}))


def test_golden_is_carried_along(broken, tmp_path):
    make_golden(broken, {"a": ["base", "side"], "b": ["base", "wrist"]})
    (broken / "golden/left_over.txt").write_text("not part of any case")
    export(broken, tmp_path / "bundle")
    manifest = json.loads((tmp_path / "bundle/manifest.json").read_text())
    assert manifest["golden"] == "golden/golden.json"
    wanted = contents(broken / "golden")
    del wanted["left_over.txt"]
    assert contents(tmp_path / "bundle/golden") == wanted
    assert {name for name in manifest["files"] if name.startswith("golden/")} == {f"golden/{name}" for name in wanted}
    # What is there in every case is what the policy needs.
    assert [camera["required"] for camera in manifest["cameras"]] == [True, False, False]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_is_held_to_its_own_tolerance(broken, tmp_path, precision):
    make_golden(broken, {"a": ["base"]})
    export(broken, tmp_path / "bundle", Options(precision=precision, range_scan=False))
    index = json.loads((tmp_path / "bundle/golden/golden.json").read_text())
    assert index["tolerance"] == TOLERANCES[precision] and [case["name"] for case in index["cases"]] == ["a"]
    listed = json.loads((tmp_path / "bundle/manifest.json").read_text())["files"]["golden/golden.json"]
    assert listed["sha256"] == hashlib.sha256((tmp_path / "bundle/golden/golden.json").read_bytes()).hexdigest()


@pytest.mark.parametrize("option, required", [
    ("all", [True, True, True]), ("none", [False, False, False]), ("observation.images.wrist", [False, True, False]),
])
def test_required_cameras_can_be_given(broken, tmp_path, option, required):
    make_golden(broken, {"a": ["base"]})
    export(broken, tmp_path / "bundle", Options(require_cameras=option, golden=False))
    manifest = json.loads((tmp_path / "bundle/manifest.json").read_text())
    assert [camera["required"] for camera in manifest["cameras"]] == required
    assert manifest["golden"] is None and not (tmp_path / "bundle/golden").exists()


def test_a_padded_prefix_takes_a_bias(tiny, bundle, tmp_path):
    export(tiny, tmp_path / "padded", Options(prefix_bucket=64))
    manifest = json.loads((tmp_path / "padded/manifest.json").read_text())
    assert manifest["prefix_bucket"] == 64
    for name in GRAPHS:
        takes_bias = name in ("prefix_prefill", "denoise_step")
        names = [tensor["name"] for tensor in manifest["graphs"][name]["inputs"]]
        assert ("prefix_bias" in names) == takes_bias
        assert takes_bias or (tmp_path / f"padded/{name}.onnx").read_bytes() == (bundle / f"{name}.onnx").read_bytes()
    # The exact prefix is the default, and nothing of this is in it.
    assert "prefix_bias" not in (bundle / "manifest.json").read_text() and "prefix_bucket" not in (bundle / "manifest.json").read_text()


def test_replacing_a_bundle(tiny, bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "bundle")
    (tmp_path / "bundle/manifest.json").write_text("old")
    export(tiny, tmp_path / "bundle", Options(force=True))
    assert json.loads((tmp_path / "bundle/manifest.json").read_text())["format_version"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("name", ["pi0-tiny", "pi0-sort", "pi05-tiny", "pi0-openpi", "pi05-openpi", "pi05-trained-rtc"])
def test_lerobot_s_files_are_those_of_the_manifest(name, tmp_path):
    bundle = SCRIPTS.parent / "models" / name
    shutil.copy(bundle / "manifest.json", tmp_path)
    write_lerobot_files(tmp_path)
    for file in LEROBOT_FILES:
        assert (tmp_path / file).read_text() == (bundle / file).read_text()
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["type"] == "pi0_edge" and all(key.startswith("observation.") for key in config["input_features"])
