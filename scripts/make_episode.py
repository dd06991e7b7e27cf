#!/usr/bin/env python3
"""Makes an episode for `pi0-edge replay`: one that a robot recorded, out of a lerobot dataset, or a made-up one.

With --dataset, frames, states and task are those of an episode of a dataset in layout v3, at its rate and without loss; needs
scripts/requirements-dataset.txt. Without, every camera of the bundle sees a ball that wanders over a background, and the
state swings about the mean that the policy was trained with; needs nothing but Python 3.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from exporter.directory import appearing
from exporter.errors import ExportError
from exporter.progress import Progress, run_command

EXAMPLES = """examples:
  .venv/bin/python -m pip install -r scripts/requirements-dataset.txt
  .venv/bin/python scripts/make_episode.py BUNDLE --dataset ~/.cache/huggingface/lerobot/ME/DATASET --episode 0 --output episode
  .venv/bin/python scripts/make_episode.py BUNDLE --dataset DATASET --episode 3 --seconds 20 --output episode \\
      --rename observation.images.front=observation.images.base
  scripts/make_episode.py models/pi0-tiny --output episode
  scripts/make_episode.py BUNDLE --output episode --seconds 10 --fps 30 --frame-size 240x320
"""


def main(arguments: list[str] | None = None) -> int:
    usage = _parser()
    options = usage.parse_args(arguments)
    if (options.dataset is None) != (options.episode is None):
        usage.error("--dataset DIR and --episode N go together")
    if options.dataset is None and options.bundle is None:
        usage.error("say which bundle the made-up episode is for, or which --dataset and --episode to take")
    if options.dataset is None and options.rename:
        usage.error("--rename goes with --dataset")
    if options.dataset and (options.fps or options.frame_size):
        usage.error("--fps and --frame-size are of a made-up episode; a recorded one has its own")

    def make(progress: Progress) -> None:
        if options.output.exists():
            raise ExportError(f"{options.output} exists already; give a directory that does not")
        with appearing(options.output) as directory:
            count = _make(options, directory, progress)
        print(f"{count} observations in {options.output}; next: pi0-edge replay {options.bundle or 'BUNDLE'} "
              f"--episode {options.output} --rate 200", file=sys.stderr)

    return run_command(make, (ExportError, OSError, ValueError, KeyError), options.quiet)


def _make(options: argparse.Namespace, directory: Path, progress: Progress) -> int:
    if options.dataset is None:
        from episode.made_up import make_up

        height, width = options.frame_size or (72, 96)
        return make_up(options.bundle, directory, options.seconds or 3.0, options.fps or 15.0, height, width,
                       options.prompt or "pick up the red ball")
    try:
        from episode.recorded import take
    except ModuleNotFoundError as error:
        wanted = Path(__file__).parent / "requirements-dataset.txt"
        raise ExportError(f"--dataset needs {error.name}, which is not there: {sys.executable} -m pip install -r {wanted}") from None
    return take(options.dataset, options.episode, directory, progress, options.bundle, dict(options.rename or {}), options.seconds,
                options.prompt)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0], epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE",
                        help="the bundle whose cameras and state it is for; with --dataset it may be absent, and all cameras are taken")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="directory to create")
    parser.add_argument("--seconds", type=_positive, metavar="S", help="length (default: 3, or the whole recorded episode)")
    parser.add_argument("--prompt", metavar="TEXT", help="the task (default: the recorded one)")
    parser.add_argument("--quiet", action="store_true", help="say nothing on the way")
    recorded = parser.add_argument_group("a recorded episode")
    recorded.add_argument("--dataset", type=Path, metavar="DIR", help="a lerobot dataset of layout v3: the directory with meta, data and videos")
    recorded.add_argument("--episode", type=int, metavar="N", help="which of its episodes, from 0")
    recorded.add_argument("--rename", type=_rename, metavar="FROM=TO,...",
                          help="features of the dataset and what the robot, or the bundle, calls them")
    made_up = parser.add_argument_group("a made-up episode")
    made_up.add_argument("--fps", type=_positive, metavar="HZ", help="observations per second (default: 15)")
    made_up.add_argument("--frame-size", type=_extent, metavar="HxW", help="size of the frames (default: 72x96)")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e4:
        raise argparse.ArgumentTypeError("use a positive number")
    return value


def _extent(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return int(height), int(width)


def _rename(text: str) -> list[tuple[str, str]]:
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if not all(name and equal and to for name, equal, to in pairs):
        raise argparse.ArgumentTypeError("use FROM=TO, several with commas between")
    return [(name, to) for name, _, to in pairs]


if __name__ == "__main__":
    sys.exit(main())
