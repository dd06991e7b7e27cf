"""A bundle's pipeline over ONNX Runtime, or over the numpy evaluation."""

from __future__ import annotations

import os
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the library is loaded

import onnxruntime as ort  # noqa: E402

from exporter.pipeline import Pipeline, Run  # noqa: E402


class Host(Pipeline):
    def __init__(self, bundle: Path):
        super().__init__(bundle, _session)


def _session(path: Path) -> Run:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    # As the runtime has it: products of 8 bits must not overflow on processors without VNNI.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs)))
