#!/usr/bin/env python3
"""Writes a PI0 or PI0.5 checkpoint of lerobot or openpi with seeded random weights.

The directory has what lerobot 0.6 saves: config.json, model.safetensors, both processor pipelines with their statistics, and a
tokenizer; or what openpi's conversion to PyTorch leaves: config.json, model.safetensors and assets, and a tokenizer beside it. Weights are written in blocks, so that any size needs little memory.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from exporter.directory import appearing
from exporter.progress import Progress, run_command
from exporter.synthetic.openpi import write_openpi
from exporter.synthetic.processors import write_config, write_processors
from exporter.synthetic.spec import SIZES, CheckpointSpec, make_spec
from exporter.synthetic.tensors import checkpoint_tensors, storage_dtype
from exporter.synthetic.tokenizer import tokenizer_json, write_tokenizer
from exporter.synthetic.weights import write_weights

EXAMPLES = """examples:
  python scripts/make_checkpoint.py checkpoint --size tiny --seed 0
  python scripts/make_checkpoint.py checkpoint --size full            # 3.5 billion parameters, 14 GB
  python scripts/make_checkpoint.py checkpoint --policy pi05 --size tiny
  python scripts/make_checkpoint.py checkpoint --policy pi05 --format openpi
  python scripts/make_checkpoint.py checkpoint --size tiny --cameras 1 --image-size 70x98 --layers 5 --dtype bf16
"""


def make_checkpoint(directory: Path, spec: CheckpointSpec, progress=lambda done, total: None) -> None:
    """Writes the checkpoint; ``directory`` must not exist yet."""
    problems = spec.problems()
    pieces = len(tokenizer_json(spec.words)["model"]["vocab"])
    if spec.vocab < pieces:
        problems.append(f"a vocabulary of {spec.vocab} is smaller than the tokenizer's {pieces}")
    if problems:
        raise ValueError("; ".join(problems))
    directory.mkdir(parents=True)
    if spec.format == "openpi":
        write_openpi(directory, spec)
    else:
        write_config(directory, spec)
        write_processors(directory, spec)
    write_tokenizer(directory / "tokenizer", spec.words)
    write_weights(
        directory / "model.safetensors", checkpoint_tensors(spec), lambda name: storage_dtype(spec, name), spec.seed, spec.outliers, progress,
    )


def main(arguments: list[str] | None = None) -> int:
    options = vars(_parser().parse_args(arguments))
    directory, size = Path(options.pop("directory")), options.pop("size")

    def make(progress: Progress) -> None:
        if directory.exists():
            raise ValueError(f"{directory} exists already; give a directory that does not")
        tell = None

        def advance(done: int, total: int) -> None:
            nonlocal tell
            tell = tell or progress.start("weights", total)
            tell(done)

        with appearing(directory) as whole:
            whole.rmdir()  # make_checkpoint makes it
            make_checkpoint(whole, make_spec(size, **options), advance)
        progress.done("weights")

    return run_command(make, (OSError, ValueError))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", metavar="OUT", help="directory to create")
    parser.add_argument("--size", choices=list(SIZES), default="tiny", help="named size the flags below change (default: tiny)")
    parser.add_argument("--policy", choices=["pi0", "pi05"], default="pi0", help="kind of policy (default: pi0)")
    parser.add_argument("--format", choices=["lerobot", "openpi"], default="lerobot", help="who saved it (default: lerobot)")
    parser.add_argument("--seed", type=int, default=0)

    data = parser.add_argument_group("robot")
    data.add_argument("--cameras", type=_cameras, help="number of cameras, or their names separated by commas")
    data.add_argument("--empty-cameras", type=int, help="slots lerobot fills with blank images")
    data.add_argument("--frame-size", type=_extent, metavar="HxW", help="size of the raw frames")
    data.add_argument("--chunk-size", type=int)
    for name in ("state-dim", "action-dim", "max-state-dim", "max-action-dim", "max-tokens", "num-steps"):
        data.add_argument(f"--{name}", type=int)
    data.add_argument("--normalization", choices=["MEAN_STD", "MIN_MAX", "QUANTILES", "QUANTILE10", "IDENTITY"])
    data.add_argument("--relative", action="store_true", default=None, help="actions relative to the state")
    data.add_argument("--joints", type=_names, metavar="NAME,...", help="names of an action's values (default: joint_0.pos and so on)")
    data.add_argument("--exclude-joints", type=_names, help="joints that stay absolute (default: gripper)")
    data.add_argument("--rtc-max-delay", type=int, metavar="N", help="PI0.5 trained for real-time chunking with delays up to this")
    data.add_argument("--rename", type=_rename, metavar="FROM=TO,...", help="observation keys to rename")

    model = parser.add_argument_group("model")
    model.add_argument("--words", type=_names, metavar="WORD,...", help="words that the tokenizer learns (default: of manipulation tasks)")
    model.add_argument("--image-size", type=_extent, metavar="N or HxW", help="size the vision encoder sees")
    for name in ("prefix-width", "prefix-mlp", "expert-width", "expert-mlp", "layers", "heads", "head-dim", "vision-width",
                 "vision-mlp", "vision-layers", "vision-heads", "patch-size", "vocab"):
        model.add_argument(f"--{name}", type=int)

    model.add_argument("--outliers", action="store_true", default=None,
                       help="channels, weights and hidden units that stand out, as trained policies have them and rounding suffers from: "
                            "one channel in 200 with a gain of 8 to 40, heavy-tailed matrices, one hidden unit in 200 eight times as large")

    storage = parser.add_argument_group("storage")
    storage.add_argument("--dtype", dest="storage", choices=["f32", "bf16", "mixed"],
                         help="how weights are stored; mixed: bf16 but for what lerobot's bfloat16 policy keeps in f32")
    storage.add_argument("--policy-dtype", choices=["float32", "bfloat16"], help="dtype in config.json")
    storage.add_argument("--no-model-prefix", dest="model_prefix", action="store_false", default=None,
                         help="keys without the leading 'model.'")
    storage.add_argument("--embed-name", choices=["lm_head", "embed_tokens", "both"], help="name of the vocabulary matrix")
    storage.add_argument("--old-mlp-names", action="store_true", default=None, help="time_mlp_* for action_time_mlp_*, or for PI0.5 the other way round")
    storage.add_argument("--old-processors", action="store_true", default=None, help="no relative and absolute steps")
    return parser


def _extent(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return int(height), int(width or height)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _cameras(text: str) -> tuple[str, ...]:
    if text.isdigit():
        return tuple(f"observation.images.camera_{i}" for i in range(int(text)))
    return tuple(name if "." in name else f"observation.images.{name}" for name in _names(text))


def _rename(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in _names(text))


if __name__ == "__main__":
    sys.exit(main())
