"""What an export in a quantised precision does beyond others: calibrates before its graphs are written, and measures after."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Callable

import numpy as np

from .accuracy import USUAL, compared, outputs, table, tolerance, worst
from .errors import ExportError
from .evaluate import Evaluator
from .forms import Portable
from .forms.int8 import DynamicInt8
from .forms.int8_cuda import Bytes
from .forms.int8_tensorrt import FORMS
from .golden import DIRECTORY, PIXELS, Golden
from .golden_inputs import Inputs, golden_inputs, observed_inputs
from .graph import Graph
from .graphs import GRAPHS
from .manifest import QUANTISED, Options
from .model import Model
from .pipeline import Pipeline
from .progress import Progress
from .quantization import BLOCK, SCHEMES, SMOOTHING, Calibration, SourceEvaluator, SourceGraph, make_plan

# Observations that the accuracy is measured with, where there are no golden ones.
MEASURED = 4


def check_quantised(options: Options, golden: Golden | None) -> None:
    """Refuses options that make no quantised bundle, and of others those that are for one."""
    if options.precision not in QUANTISED:
        if options.calibrate or options.keep:
            raise ExportError(f"--calibrate, --keep: are for --precision {' and '.join(QUANTISED)}; {options.precision} rounds everything alike")
        return
    if (options.precision, options.runs_on) not in SCHEMES:
        targets = " or ".join(target for precision, target in SCHEMES if precision == options.precision)
        raise ExportError(
            f"--precision {options.precision}: is for --target {targets}; there are no graphs of it for {options.runs_on}'s kernels. Take fp16 or "
            "bf16 there"
        )
    if golden is None and options.calibrate is None:
        raise ExportError(
            f"--precision {options.precision}: needs observations to calibrate with: golden ones beside the checkpoint, which "
            "scripts/reference.py makes, or --calibrate DIR, an observation as pi0-edge run takes it or a directory of such"
        )


class Quantised:
    """The checkpoint in f32, run over calibration observations, and what follows from that for the bundle in ``directory``, which has
    the token table and the tokenizer. ``manifest`` makes a manifest of graphs."""

    def __init__(
        self, directory: Path, checkpoint: Path, model: Model, options: Options, manifest: Callable[..., dict], progress: Progress,
    ):
        self._directory, self._precision, self._progress = directory, options.precision, progress
        # Graphs whose weights stay in the checkpoint: nothing of the size of the model is written.
        self._place = directory / "calibration"
        self._place.mkdir()
        os.link(directory / "token_embedding.bin", self._place / "token_embedding.bin")
        self._graphs: dict[str, SourceGraph] = {}
        for name, _, build in GRAPHS:
            graph = self._graphs[name] = SourceGraph(self._place, name, Portable(), options.prefix_bucket is not None)
            build(graph, model)
            graph.write()
        self._manifest = manifest(list(self._graphs.values()), forms=Portable())
        (self._place / "manifest.json").write_text(json.dumps(self._manifest))

        golden = list(golden_inputs(checkpoint, self._manifest)) if self._manifest["golden"] else []
        observations, self._source = golden, DIRECTORY
        if options.calibrate:
            observations = list(observed_inputs(options.calibrate, self._manifest, directory / "tokenizer.json"))
            self._source = options.calibrate.resolve().name
        self._checked = golden or observations[:MEASURED]
        self._steps = sum(inputs.num_steps for inputs in observations)
        self._observations = len(observations)

        runs = {name: len(observations) for name in self._graphs} | {"denoise_step": self._steps}
        self._int4 = options.precision == "int4"
        calibration = Calibration(self._graphs, runs, self._int4)
        # Of what is measured with, the outputs in f32 are wanted too.
        self._wanted = {inputs.name: self._run(inputs, calibration) for inputs in observations}
        self._wanted |= {inputs.name: self._run(inputs, None) for inputs in self._checked if inputs.name not in self._wanted}
        watch = progress.start("products", sum(len(graph.products) for graph in self._graphs.values()), "products")
        keep = tuple(pattern for pattern in (options.keep or "").split(",") if pattern)
        scheme = SCHEMES[options.precision, options.runs_on]
        self._plan = make_plan(scheme, self._graphs, calibration, keep, watch, self._int4)
        progress.done("products")
        forms = {"cpu": DynamicInt8, "cuda": Bytes, "tensorrt": FORMS[options.tensorrt_version]}[options.runs_on]
        self.forms: Portable = forms(self._plan)
        shutil.rmtree(self._place)

    def to_json(self) -> dict:
        """What the manifest says of it."""
        return {
            "scheme": self._plan.scheme.name, "smoothing": SMOOTHING, "block_size": BLOCK,
            "kept": [product.to_json() for product in self._plan.kept()],
            "calibration": {"source": self._source, "observations": self._observations, "steps": self._steps},
        }

    def tolerance(self) -> dict:
        """Evaluates the bundle, whose graphs and manifest are written, prints what quantising it costs, and returns what it is held to."""
        pipeline, found = Pipeline(self._directory, Evaluator), []
        for inputs in self._checked:
            what = f"outputs of {inputs.name}"
            self._progress.start(what, 0)
            found.append(compared(self._manifest, inputs, outputs(pipeline, inputs), self._wanted[inputs.name]))
            self._progress.done(what)
        stages = worst(found)
        self._progress.note(f"against f32, over {len(found)} observations:\n{table(stages, self._plan.products.values())}")
        actions = stages.get("actions", stages["actions_normalized"])
        usual_l2, usual_cosine = USUAL[self._precision]
        if actions.l2 > usual_l2 or actions.cosine < usual_cosine:
            self._progress.note(
                f"the actions are off by {actions.l2:.1e} in relative L2, cosine {actions.cosine:.5f}: more than {usual_l2:.0e} and "
                f"{usual_cosine}. Try it on the robot's task before you trust it, keep more with --keep, or take fp32"
            )
        return tolerance({"actions": actions, **stages}, PIXELS)

    def _run(self, inputs: Inputs, calibration: Calibration | None) -> dict[str, np.ndarray]:
        what = f"f32 outputs of {inputs.name}"
        self._progress.start(what, 0)
        observe = calibration.observe if calibration else None
        found = outputs(Pipeline(self._place, lambda path: SourceEvaluator(self._graphs[path.stem], observe)), inputs)
        self._progress.done(what)
        return found
