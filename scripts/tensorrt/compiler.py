"""Compiles one ONNX graph ahead of time for a GPU that need not be there, and reads what it became from the compiler's own log."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

import onnx
import tensorrt_rtx_bindings as trt

# The architectures that TensorRT for RTX compiles for.
CAPABILITIES = ("SM75", "SM80", "SM86", "SM89", "SM120", "SM121")
KERNEL = re.compile(r"^Name: (\S+), LayerType: (\S+),", re.MULTILINE)
COMPLAINTS = (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR, trt.ILogger.Severity.WARNING)
# Said by every compilation on a machine without a GPU, and of no graph.
NO_DEVICE = ("cudaError", "CUDA initialization failure", "CUDA driver", "deserializeCudaEngine")

# Least, usual and most of every dimension with a name; one number where it is fixed.
Range = tuple[int, int, int]


class CompilerError(Exception):
    """What the parser or the compiler refused, in its words."""


@dataclass(frozen=True)
class Compiled:
    kernels: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: float
    engine_bytes: int

    @property
    def attention_kernels(self) -> int:
        """Kernels that hold a whole attention, scores and softmax included."""
        return sum("mha" in name for name in self.kernels)


class _Log(trt.ILogger):
    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.complaints: list[str] = []

    def log(self, severity: trt.ILogger.Severity, message: str) -> None:
        self.text.append(message)
        if severity in COMPLAINTS and not any(known in message for known in NO_DEVICE):
            self.complaints.append(message)


def compile_graph(path: Path, capability: str, dimensions: dict[str, Range]) -> Compiled:
    """Compiles ``path``, typed as the graph is, for one compute capability. A dimension of one size is built in; others are a range.

    Raises ``CompilerError`` if it is not parsed or not built.
    """
    log = _Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(path)):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        raise CompilerError("; ".join(f"{error.node_name()} ({error.node_operator()}): {error.desc()}" for error in errors))
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    if profile := _profile(builder, network, path, dimensions):
        config.add_optimization_profile(profile)
    start = time.monotonic()
    engine = builder.build_serialized_network(network, config)
    seconds = time.monotonic() - start
    if engine is None:
        raise CompilerError("; ".join(log.complaints) or "no engine, and no reason given")
    names = dict.fromkeys(name for name, kind in KERNEL.findall("\n".join(log.text)) if kind != "shape_call")
    return Compiled(tuple(names), tuple(dict.fromkeys(log.complaints)), seconds, engine.nbytes)


def _profile(builder: trt.Builder, network: trt.INetworkDefinition, path: Path, dimensions: dict[str, Range]):
    """Fixes the inputs' dimensions of one size, and returns a profile of the others; none if there are no others."""
    graph = onnx.load(path, load_external_data=False).graph
    declared = {value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in graph.input}
    profile, ranged = builder.create_optimization_profile(), False
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        ranges = [dimensions[dim] if isinstance(dim, str) else (dim, dim, dim) for dim in declared[tensor.name]]
        tensor.shape = [least if least == most else -1 for least, _, most in ranges]
        if -1 in tensor.shape:
            ranged = True
            profile.set_shape(tensor.name, *zip(*ranges))
    return profile if ranged else None
