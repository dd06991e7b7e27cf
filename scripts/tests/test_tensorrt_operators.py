"""Every graph the exporter makes, held against the operators and types that TensorRT 10.3's ONNX parser accepts.

TensorRT is not needed for it, and cannot be replaced by it: that an operator is in the table says that the parser takes it,
not that the engine computes right. That is `check`'s to say, on the device.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporter.bundle import export
from exporter.manifest import UNQUANTISED, Options
from exporter.synthetic.spec import make_spec
from make_checkpoint import make_checkpoint

TABLE = Path(__file__).with_name("tensorrt_10_3_operators.tsv")
OPSETS = range(9, 21)
TYPES = {
    TensorProto.FLOAT: "FP32", TensorProto.FLOAT16: "FP16", TensorProto.BFLOAT16: "BF16", TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64", TensorProto.INT8: "INT8", TensorProto.UINT8: "UINT8", TensorProto.BOOL: "BOOL",
    TensorProto.DOUBLE: "DOUBLE",
}
MODELS = Path(__file__).resolve().parents[2] / "models"


def read_table() -> dict[str, tuple[set[str], str]]:
    rows = (line.split("\t") for line in TABLE.read_text().splitlines() if not line.startswith("#"))
    return {operator: (set(types.split()), restriction) for operator, types, restriction in rows}


def objections(model: onnx.ModelProto) -> list[str]:
    """What TensorRT 10.3's parser would not take, in words."""
    table, found = read_table(), []
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets.get("") not in OPSETS:
        found.append(f"opset {opsets.get('')}")
    if set(opsets) - {"", "ai.onnx"}:
        found.append(f"operators of {sorted(set(opsets) - {''})}")
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*graph.input, *graph.output, *graph.value_info]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    types.update({name: tensor.data_type for name, tensor in constants.items()})
    for node in graph.node:
        place = f"{node.op_type} {node.name}"
        if node.domain not in ("", "ai.onnx") or node.op_type not in table:
            found.append(f"{place}: not in the table")
            continue
        accepted, restriction = table[node.op_type]
        schema = onnx.defs.get_schema(node.op_type, min(opsets[""], max(OPSETS)))
        for index, name in enumerate(node.input):
            if name and types[name] and data_input(schema, index) and TYPES.get(types[name]) not in accepted:
                found.append(f"{place}: input {index} is {TYPES.get(types[name], types[name])}")
        if restriction != "-" and (why := RESTRICTIONS[restriction](node, constants)):
            found.append(f"{place}: {why}")
    return found


def data_input(schema: onnx.defs.OpSchema, index: int) -> bool:
    """Whether an input holds what is computed on, in contrast to shapes, axes and indices."""
    formal = schema.inputs[min(index, len(schema.inputs) - 1)]
    return formal.type_str == schema.inputs[0].type_str


def _constant(index: int, attribute: str):
    def check(node, constants):
        given = len(node.input) > index and node.input[index]
        if given and node.input[index] not in constants:
            return f"{attribute} is computed"
    return check


def _zero_point(node, constants):
    if len(node.input) > 2 and node.input[2]:
        tensor = constants.get(node.input[2])
        if tensor is None or np.any(numpy_helper.to_array(tensor)):
            return "the zero point is not zero"


RESTRICTIONS = {
    "axes_constant": _constant(1, "axes"),
    "axis_constant": _constant(1, "axis"),
    "zero_point_zero": _zero_point,
    "first_output_only": lambda node, constants: "it has more outputs than the first" if len(node.output) > 1 else None,
    "no_axes_input": lambda node, constants: "axes are given" if len(node.input) > 3 and node.input[3] else None,
    "no_reduction": lambda node, constants: "it reduces" if any(
        a.name == "reduction" and a.s not in (b"", b"none") for a in node.attribute) else None,
}


def graphs_of(bundle: Path) -> dict[str, list[str]]:
    paths = sorted(bundle.glob("*.onnx"))
    assert len(paths) >= 4, bundle
    return {path.name: objections(onnx.load(path, load_external_data=False)) for path in paths}


def test_the_table_is_whole():
    table = read_table()
    assert len(table) > 70 and {r for _, r in table.values()} == {"-", *RESTRICTIONS}
    known = {*TYPES.values(), "FP8", "INT4"} - {"DOUBLE"}
    assert all(types <= known for types, _ in table.values())


# Quantised graphs for the CPU are for it alone.
PORTABLE = sorted(path.parent for path in MODELS.glob("*/manifest.json") if json.loads(path.read_text())["precision"] in UNQUANTISED)


@pytest.mark.parametrize("bundle", PORTABLE, ids=lambda path: path.name)
def test_committed_bundles(bundle):
    assert {name: found for name, found in graphs_of(bundle).items() if found} == {}


@pytest.mark.parametrize("prefix_bucket", [None, 16], ids=["exact", "padded"])
@pytest.mark.parametrize("precision", UNQUANTISED)
@pytest.mark.parametrize("policy", ["pi0", "pi05"])
@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
def test_exported_bundles(tmp_path, target, policy, precision, prefix_bucket):
    make_checkpoint(tmp_path / "checkpoint", make_spec("tiny", policy=policy, seed=1))
    export(tmp_path / "checkpoint", tmp_path / "bundle", Options(precision=precision, target=target, prefix_bucket=prefix_bucket))
    assert {name: found for name, found in graphs_of(tmp_path / "bundle").items() if found} == {}


# -- a graph with something outside is not let through ------------------------------------------------------------------------


def model(nodes, inputs, *, opset=20, domains=(), constants=()) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)], [numpy_helper.from_array(v, n) for n, v in constants],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


X = ("x", TensorProto.FLOAT, [2, 8])
AXES = ("axes", TensorProto.INT64, [1])


@pytest.mark.parametrize("broken, words", [
    (model([helper.make_node("Mish", ["x"], ["y"])], [X]), "Mish : not in the table"),
    (model([helper.make_node("FusedMatMul", ["x", "x"], ["y"], domain="com.microsoft", transB=1)], [X],
           domains=["com.microsoft"]), "not in the table"),
    (model([helper.make_node("Relu", ["x"], ["y"])], [X], opset=21), "opset 21"),
    (model([helper.make_node("Sin", ["x"], ["y"])], [("x", TensorProto.DOUBLE, [2])]), "input 0 is DOUBLE"),
    (model([helper.make_node("ReduceMean", ["x", "axes"], ["y"])], [X, AXES]), "axes is computed"),
    (model([helper.make_node("LayerNormalization", ["x", "w", ""], ["y", "mean"])], [X],
           constants=[("w", np.ones(8, np.float32))]), "more outputs than the first"),
    (model([helper.make_node("DequantizeLinear", ["x", "s", "z"], ["y"])], [("x", TensorProto.INT8, [4])],
           constants=[("s", np.float32(1)), ("z", np.int8(3))]), "the zero point is not zero"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_outside_is_found(broken, words):
    assert any(words in found for found in objections(broken)), objections(broken)


def test_a_graph_spoiled_in_one_node_is_found(tmp_path):
    """As it would happen: one operator of a later opset slips into the exporter."""
    spoiled = onnx.load(MODELS / "pi0-tiny/vision_encoder.onnx", load_external_data=False)
    node = next(node for node in spoiled.graph.node if node.op_type == "Softmax")
    node.op_type = "Hardmax"
    assert objections(spoiled) == [f"Hardmax {node.name}: not in the table"]
