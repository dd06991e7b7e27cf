"""Writes a whole bundle, or nothing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Callable

import onnx

from . import openpi
from .config import OPENPI, PolicyConfig
from .directory import appearing
from .errors import ExportError
from .golden import DIRECTORY, INDEX, TOLERANCES, Golden, required_cameras
from .graph import NUMPY, DataFile, Graph, narrowed
from .graphs import GRAPHS
from .lerobot_files import write_lerobot_files
from .manifest import QUANTISED, Options, build_manifest, embedding_factor, undecided
from .model import Model
from .processors import Processing, read_lerobot
from .progress import Progress
from .quantised import Quantised, check_quantised
from .ranges import MARGIN, scan_ranges
from .sources import Rows
from .tokenizer import find_tokenizer, write_tokenizer
from .weights_file import WeightsFile

READ_BYTES = 4 << 20
TOKENS_PER_VALUE = 4  # of a state in a prompt: a space and three digits at most
LISTED = 10  # tensors named in one message

def export(checkpoint: Path, bundle: Path, options: Options = Options(), progress: Progress = Progress()) -> None:
    """Exports ``checkpoint`` to the new directory ``bundle``.

    Everything small is read and checked first, so that most complaints come within a second. The bundle appears under its name
    only when it is complete.
    """
    if bundle.exists() and not options.force:
        raise ExportError(f"{bundle}: exists already; give another name, or --force to replace it")
    config, processing = _read(checkpoint, options)
    tokenizer = find_tokenizer(checkpoint, processing.tokenizer_name, options.tokenizer)
    if options.tokenizer is None and not tokenizer.is_relative_to(checkpoint):
        progress.note(f"the checkpoint holds no tokenizer; taken from {tokenizer}")
    golden = _golden(checkpoint, options, progress)
    present = golden.present_cameras(config, processing) if golden else set()
    required = required_cameras(options.require_cameras, config, present)
    for note in (*config.notes, *([] if config.format == OPENPI else undecided(config, processing, options))):
        progress.note(note)
    if processing.truncates:
        progress.note(_cut(config, processing))
    model = Model(WeightsFile(checkpoint / "model.safetensors"), config, options.vision_heads)
    compute, forms = options.compute, options.forms
    check_quantised(options, golden)

    with appearing(bundle, options.force) as directory:
        files: dict[str, dict] = {}
        # First, so that what follows finds the file in the page cache where it fits there.
        model_sha256 = _checksum(model.file.path, progress)
        files["token_embedding.bin"] = _write_embedding(directory, model, compute, progress)
        write_tokenizer(tokenizer, directory / "tokenizer.json")
        index = f"{DIRECTORY}/{INDEX}" if golden else None

        def manifest_of(graphs: list[Graph], **more) -> dict:
            listed = dict(sorted(files.items()))
            return build_manifest(
                checkpoint.resolve().name, model_sha256, config, processing, model.dimensions, graphs, required, index, listed, options, **more,
            )

        quantised = None
        if options.precision in QUANTISED:
            quantised = Quantised(directory, checkpoint, model, options, manifest_of, progress)
            forms = quantised.forms
        graphs = []
        for name, chosen, build in GRAPHS:
            watch = progress.start(name, model.size(chosen) * NUMPY[compute].itemsize)
            graph = Graph(directory, name, compute, watch, forms, options.prefix_bucket is not None)
            with graph.data:
                build(graph, model)
            graph.write()
            progress.done(name)
            graphs.append(graph)
            _add(files, directory, graph.path.name)
            if graph.data.size:
                files[graph.data.path.name] = graph.data.record()
            else:
                graph.data.path.unlink()
        for graph in graphs:
            onnx.checker.check_model(str(graph.path), full_check=True)
        more = {"forms": forms, "quantization": quantised.to_json()} if quantised else {}
        tolerance = TOLERANCES.get(options.precision)
        if quantised:
            _write_manifest(directory, manifest_of(graphs, **more))
            tolerance = quantised.tolerance()
        copied = golden.copy(directory, tolerance) if golden else []
        for name in ["tokenizer.json", *copied]:
            _add(files, directory, name)
        _write_manifest(directory, manifest_of(graphs, **more))
        write_lerobot_files(directory)
        if compute == "f16" and golden and options.range_scan:
            _check_ranges(directory, progress)


def _write_manifest(directory: Path, manifest: dict) -> None:
    (directory / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _cut(config: PolicyConfig, processing: Processing) -> str:
    """What becomes of long prompts, and whether the state alone may make one long."""
    said = f"prompts of more than {processing.max_tokens} tokens are cut there, as in training"
    values = processing.state.width or config.state_dim
    if processing.prompt_format == "pi05_state" and TOKENS_PER_VALUE * values > processing.max_tokens // 2:
        said += f"; {values} values of the state take up to {TOKENS_PER_VALUE * values} of them, and come after the task"
    return said


def _read(checkpoint: Path, options: Options) -> tuple[PolicyConfig, Processing]:
    """What the checkpoint's small files say, as the one or the other of its writers has them."""
    _check_directory(checkpoint)
    if openpi.is_openpi(checkpoint):
        return openpi.read_openpi(checkpoint, options)
    for name in openpi.OPTIONS:
        if getattr(options, name) is not None:
            raise ExportError(f"--{name.replace('_', '-')}: is for openpi's checkpoints; {checkpoint} is not one, its config.json has a "
                              "type or no action_horizon")
    ignored = [name for name in (options.ignore_keys or "").split(",") if name]
    return read_lerobot(checkpoint, ignored)


def _check_directory(checkpoint: Path) -> None:
    """Refuses what is near a checkpoint, and says where that is."""
    if not checkpoint.is_dir():
        raise ExportError(f"{checkpoint}: no such directory; give the directory that lerobot saved the policy in")
    if (checkpoint / "model.safetensors").exists():
        return
    if (checkpoint / "pretrained_model").is_dir():
        raise ExportError(f"{checkpoint}: the policy is one directory deeper; give {checkpoint / 'pretrained_model'}")
    if any((checkpoint / name).exists() for name in ("params", "_METADATA")):
        raise ExportError(
            f"{checkpoint}: an openpi checkpoint as JAX saves it; convert it in openpi: uv run examples/convert_jax_model_to_pytorch.py "
            f"--checkpoint_dir {checkpoint} --config_name CONFIG --output_path OUT, and export OUT with --norm-stats {checkpoint / 'assets'}"
        )


def _golden(checkpoint: Path, options: Options, progress: Progress) -> Golden | None:
    if not options.golden:
        return None
    if not (checkpoint / DIRECTORY).is_dir():
        progress.note(f"{checkpoint / DIRECTORY}: not there, so that `check` can show self-consistency only, not parity; scripts/reference.py {checkpoint} records it")
        return None
    return Golden(checkpoint)


def _check_ranges(directory: Path, progress: Progress) -> None:
    """Refuses a bundle whose values overflow half precision on its own golden observations, and notes those that come near."""
    ranges = scan_ranges(directory, progress)
    overflowing = [found for found in ranges if found.headroom < 1]
    if overflowing:
        listed = "\n  ".join(map(str, overflowing[:LISTED]))
        raise ExportError(f"{len(overflowing)} tensors overflow half precision; export with --precision bf16 or fp32:\n  {listed}")
    for found in ranges:
        if found.headroom < MARGIN:
            progress.note(f"{found}: another observation may overflow it; --precision bf16 has the room")


def _write_embedding(directory: Path, model: Model, compute: str, progress: Progress) -> dict:
    """The table of token rows, already multiplied by what the model multiplies them with."""
    kind = NUMPY[compute]
    rows = Rows((model.embedding, embedding_factor(model.dimensions.prefix_width)))
    with DataFile(directory / "token_embedding.bin", progress.start("token_embedding", rows.count * kind.itemsize)) as file:
        file.append(narrowed(rows, kind, "token_embedding"))
    progress.done("token_embedding")
    return file.record()


def _checksum(path: Path, progress: Progress) -> str:
    what = f"checksum of {path.name}"
    digest = _sha256(path, progress.start(what, path.stat().st_size))
    progress.done(what)
    return digest


def _add(files: dict[str, dict], directory: Path, name: str) -> None:
    path = directory / name
    files[name] = {"size": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path: Path, progress: Callable[[int], None] = lambda size: None) -> str:
    digest, done = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
            done += len(block)
            progress(done)
    return digest.hexdigest()
