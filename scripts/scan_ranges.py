#!/usr/bin/env python3
"""Says how near a bundle's values come to overflowing half precision, on its golden observations.

Evaluates the graphs in f32, so that a value beyond half precision shows as the number it is. export.py --precision fp16 does
this by itself; here it tells more, and of a bundle in any precision. Exit code 1: a tensor is beyond the margin.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from exporter.errors import ExportError
from exporter.progress import run_command
from exporter.ranges import LARGEST, MARGIN, Range, scan_ranges

EXAMPLES = """examples:
  python scripts/scan_ranges.py bundle
  python scripts/scan_ranges.py bundle --top 50 --margin 8 --format json
"""


def main(arguments: list[str] | None = None) -> int:
    chosen = _parser().parse_args(arguments)
    ranges: list[Range] = []
    status = run_command(lambda progress: ranges.extend(scan_ranges(chosen.bundle, progress)), (ExportError, OSError), chosen.quiet)
    if status:
        return status
    near = [found for found in ranges if found.headroom < chosen.margin]
    shown = ranges[: max(chosen.top, len(near))]
    print(_as_json(shown, near, chosen) if chosen.format == "json" else _as_text(shown, near, chosen))
    return 1 if near else 0


def _as_json(shown: list[Range], near: list[Range], chosen: argparse.Namespace) -> str:
    tensors = [asdict(found) | {"max_abs": min(found.max_abs, sys.float_info.max), "headroom": found.headroom} for found in shown]
    return json.dumps({"pass": not near, "margin": chosen.margin, "largest": LARGEST, "tensors": tensors}, indent=1)


def _as_text(shown: list[Range], near: list[Range], chosen: argparse.Namespace) -> str:
    width = max(len(f"{found.graph}: {found.tensor}") for found in shown)
    lines = [f"{'tensor':<{width}}  {'max abs':>10}  {'headroom':>10}  case"]
    for found in shown:
        mark = "  OVERFLOWS" if found.headroom < 1 else "  NEAR" if found.headroom < chosen.margin else ""
        name = f"{found.graph}: {found.tensor}"
        lines.append(f"{name:<{width}}  {found.max_abs:>10.4g}  {found.headroom:>8.3g} x  {found.case}{mark}")
    margin = f"within a factor of {chosen.margin:g} of {LARGEST:.0f}, the largest number of half precision"
    lines += ["", f"FAIL: {len(near)} tensors are {margin}" if near else f"PASS: nothing comes {margin}"]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE_DIR", help="a bundle with golden observations")
    parser.add_argument("--margin", type=float, default=MARGIN, metavar="X", help="headroom a tensor must have (default: %(default)g)")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="tensors to list (default: %(default)s)")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="what to print on stdout")
    parser.add_argument("--quiet", action="store_true", help="say nothing on stderr but errors")
    return parser


if __name__ == "__main__":
    sys.exit(main())
