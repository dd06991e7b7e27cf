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

from exporter.forms import TARGETS
from exporter.manifest import COMPUTE, QUANTISED, Options
from exporter.synthetic.spec import SIZES, make_spec
from exporter.synthetic.template import write_template

POLICIES = ("pi0", "pi05")
# Quantised ones want a checkpoint and observations.
PLAIN = [precision for precision in COMPUTE if precision not in QUANTISED]


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    # All of them or none: the directory takes its name when it is complete.
    with tempfile.TemporaryDirectory(dir=options.out.parent, prefix=f".{options.out.name}.") as temporary:
        made = Path(temporary) / "templates"
        for policy in options.policy or POLICIES:
            for precision in options.precision or PLAIN:
                for target in options.target or (None,):
                    name = "-".join(filter(None, (policy, precision, target)))
                    chosen = Options(precision=precision, target=target)
                    write_template(made / name, make_spec(options.size, policy=policy), chosen)
        size = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
        print(f"{', '.join(sorted(path.name for path in made.iterdir()))}: {size / 1e6:.1f} MB", file=sys.stderr)
        if options.out.exists():
            shutil.rmtree(options.out)
        made.rename(options.out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("out", metavar="OUT", type=Path, help="directory to create or replace")
    parser.add_argument("--size", choices=list(SIZES), default="full", help="dimensions of the policies (default: full)")
    parser.add_argument("--policy", choices=POLICIES, action="append", help="only this kind of policy")
    parser.add_argument("--precision", choices=PLAIN, action="append", help="only this precision")
    parser.add_argument("--target", choices=TARGETS, action="append",
                        help="graphs for this target, in a directory with its name at the end (default: those that any provider runs)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
