#!/usr/bin/env python3
"""Writes the bundles that `pi0-edge bench device --synthetic` fills with random weights: everything but the weights.

One directory for each policy and precision, such as OUT/pi0-fp16: graphs, tokenizer, manifest, and where each weight goes. They are
made by the exporter, at full size, and are part of the pi0-edge package.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from exporter.forms import CUDA, TARGETS
from exporter.manifest import UNQUANTISED, Options
from exporter.progress import Progress, run_command
from exporter.synthetic.spec import SIZES, make_spec
from exporter.synthetic.template import write_template

POLICIES = ("pi0", "pi05")


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    return run_command(lambda progress: _make(options, progress), (OSError,))


def _make(options: argparse.Namespace, progress: Progress) -> None:
    options.out.parent.mkdir(parents=True, exist_ok=True)
    # All of them or none: the directory takes its name when it is complete.
    with tempfile.TemporaryDirectory(dir=options.out.parent, prefix=f".{options.out.name}.") as temporary:
        made = Path(temporary) / "templates"
        for policy in options.policy or POLICIES:
            for precision in options.precision or UNQUANTISED:
                for target in options.target or (None,):
                    name = "-".join(filter(None, (policy, precision, target)))
                    chosen = Options(precision=precision, target=target, onnxruntime_version=options.onnxruntime_version)
                    progress.start(name, 0)
                    write_template(made / name, make_spec(options.size, policy=policy), chosen)
                    progress.close()
        size = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
        print(f"{', '.join(sorted(path.name for path in made.iterdir()))}: {size / 1e6:.1f} MB", file=sys.stderr)
        if options.out.exists():
            shutil.rmtree(options.out)
        made.rename(options.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("out", metavar="OUT", type=Path, help="directory to create or replace")
    parser.add_argument("--size", choices=list(SIZES), default="full", help="dimensions of the policies (default: full)")
    parser.add_argument("--policy", choices=POLICIES, action="append", help="only this kind of policy")
    parser.add_argument("--precision", choices=UNQUANTISED, action="append", help="only this precision")
    parser.add_argument("--target", choices=TARGETS, action="append",
                        help="graphs for this target, in a directory with its name at the end (default: those that any provider runs)")
    parser.add_argument("--onnxruntime-version", choices=list(CUDA), help="as export.py has it, for --target cuda")
    return parser


if __name__ == "__main__":
    sys.exit(main())
