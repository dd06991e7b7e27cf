"""What TensorRT's compiler makes of the graphs of --target tensorrt: everything builds, and attention becomes one kernel each.

TensorRT for RTX runs on no Jetson: it stands for the parser and the compiler's family. Nothing here runs what was compiled.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

SCRIPTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(SCRIPTS))

from exporter.bundle import export  # noqa: E402
from exporter.forms import TENSORRT  # noqa: E402
from exporter.golden_inputs import Inputs  # noqa: E402
from exporter.manifest import Options  # noqa: E402
from exporter.synthetic.spec import make_spec  # noqa: E402
from make_checkpoint import make_checkpoint  # noqa: E402
from tensorrt.compiler import CompilerError, compile_graph  # noqa: E402
from tensorrt.dimensions import dimensions_of  # noqa: E402

CAPABILITIES = ("SM86", "SM89", "SM120")
# The smallest dimensions of models/ (make_tiny.sh).
LEAST = {
    "layers": 2, "prefix_width": 32, "prefix_mlp": 64, "expert_width": 16, "expert_mlp": 48, "head_dim": 8, "vision_layers": 1,
    "vision_width": 32, "vision_mlp": 48, "image_size": (28, 28),
}
CHECKPOINTS = {
    "pi0-tiny": {"policy": "pi0"},
    "pi05-tiny": {"policy": "pi05"},
    "pi0-openpi": {"policy": "pi0", **LEAST},
    "pi05-openpi": {"policy": "pi05", **LEAST},
    "pi05-trained-rtc": {"policy": "pi05", "rtc_max_delay": 4, **LEAST},
}
# The runtime hands int64 where TensorRT would take int32 too.
KNOWN_WARNINGS = ("Make sure input step has Int64 binding", "Make sure input clean_rows has Int64 binding")

# Kernels of one layer and of the rest, by TensorRT and graph, for size small in 16 bits. The prefix's last layer is keys and values.
BUDGETS = {
    ("10.3", "vision_encoder"): (10, 7), ("10.3", "prefix_prefill"): (12, 6), ("10.3", "denoise_step"): (9, 14),
    ("10.14", "vision_encoder"): (9, 7), ("10.14", "prefix_prefill"): (11, 6), ("10.14", "denoise_step"): (9, 14),
}


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """Bundles, each made once: checkpoint, then export, by size, dimensions and options."""
    made: dict[tuple, Path] = {}

    def make(size: str, changes: dict, **options) -> Path:
        key = (size, *map(str, changes.items()), *map(str, options.items()))
        if key not in made:
            directory = tmp_path_factory.mktemp("bundle")
            make_checkpoint(directory / "checkpoint", make_spec(size, seed=0, **changes))
            export(directory / "checkpoint", directory / "bundle", Options(target="tensorrt", golden=False, **options))
            made[key] = directory / "bundle"
        return made[key]

    return make


def compiled(bundle: Path, capability: str, static: bool):
    """Every graph by name; a warning that is not known fails."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    found = {}
    for name, graph in manifest["graphs"].items():
        found[name] = compile_graph(bundle / graph["file"], capability, dimensions_of(manifest, static))
        unknown = [text for text in found[name].warnings if not any(known in text for known in KNOWN_WARNINGS)]
        assert not unknown, (name, unknown)
    return found


@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
@pytest.mark.parametrize("version", TENSORRT)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_every_graph_of_models_builds(bundle, checkpoint, precision, version, static):
    made = bundle("tiny", CHECKPOINTS[checkpoint], precision=precision, tensorrt_version=version)
    for capability in CAPABILITIES if checkpoint.endswith("tiny") and not static else CAPABILITIES[:1]:
        compiled(made, capability, static)


@pytest.mark.parametrize("precision, version", [("fp16", "10.3"), ("fp16", "10.14"), ("bf16", "10.3")])
@pytest.mark.parametrize("policy", ["pi0", "pi05"])
def test_attention_is_one_kernel_within_the_budget(bundle, policy, precision, version):
    made = bundle("small", {"policy": policy}, precision=precision, tensorrt_version=version)
    d = json.loads((made / "manifest.json").read_text())["dimensions"]
    layers = {"vision_encoder": d["vision_layers"], "prefix_prefill": d["layers"] - 1, "denoise_step": d["layers"]}
    found = compiled(made, "SM86", static=False)
    assert {name: graph.attention_kernels for name, graph in found.items()} == layers | {"time_conditioning": 0}
    for name, count in layers.items():
        each, rest = BUDGETS[version, name]
        assert len(found[name].kernels) <= each * count + rest, (name, found[name].kernels)


def test_8_bit_products_are_kernels_of_their_own_and_weights_stay_8_bits(tmp_path, monkeypatch):
    """Gate and up are one; rounding is part of the norm before. A weight that is expanded in every run would be a kernel without a product."""
    spec = make_spec("small", seed=0, layers=2, vision_layers=2)
    make_checkpoint(tmp_path / "checkpoint", spec)

    def observed(_place, manifest, _tokenizer):
        random = np.random.default_rng(0)
        d, shape = manifest["dimensions"], (spec.chunk_size, spec.max_action_dim)
        pixels = random.uniform(-1, 1, (1, 3, d["image_height"], d["image_width"])).astype(np.float32)
        state, noise = random.standard_normal(spec.max_state_dim, np.float32), random.standard_normal(shape, np.float32)
        yield Inputs("made up", pixels, [2, 5, 7], state, noise, 1)

    monkeypatch.setattr("exporter.quantised.observed_inputs", observed)
    options = Options(precision="int8", target="tensorrt", calibrate=tmp_path, keep="*.attention.output")
    export(tmp_path / "checkpoint", tmp_path / "bundle", options)
    for name, graph in compiled(tmp_path / "bundle", "SM86", static=False).items():
        kernels = [kernel for kernel in graph.kernels if ".mlp." in kernel]
        if name == "denoise_step":
            assert len(kernels) == 2 * spec.layers and sum("gate" in kernel and "up" in kernel for kernel in kernels) == spec.layers, kernels
            each, rest = BUDGETS["10.3", name]
            assert len(graph.kernels) <= (each + 1) * spec.layers + rest, graph.kernels
        stored = (tmp_path / f"bundle/{name}.onnx.data").stat().st_size if name != "time_conditioning" else 0
        assert name == "time_conditioning" or graph.engine_bytes < 1.25 * stored + (2 << 20), (name, graph.engine_bytes, stored)


def test_a_graph_that_is_refused_says_why(bundle):
    """An operator that the parser does not have, by its name."""
    made = bundle("tiny", {"policy": "pi0"}, precision="fp16", tensorrt_version="10.3")
    graph = onnx.load(made / "time_conditioning.onnx")
    graph.graph.node[0].op_type = "Elsewhere"
    onnx.save(graph, made / "spoiled.onnx")
    with pytest.raises(CompilerError, match="Elsewhere"):
        compile_graph(made / "spoiled.onnx", "SM86", {"steps": (1, 1, 1)})
