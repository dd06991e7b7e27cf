#!/usr/bin/env python3
"""Compiles a bundle's graphs ahead of time with TensorRT for RTX, without a GPU, and says what each became.

Prints one line for each graph and capability: seconds, peak memory, engine and kernels, with those that hold a whole attention. It
says nothing about speed or results, and TensorRT for RTX is not what a Jetson runs: it is the same parser and a compiler of the same
family. A full-size fp16 bundle takes minutes and three times its largest graph's weights in memory.

Run it with .tensorrt/bin/python, which scripts/tensorrt_env.sh makes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
from pathlib import Path

from tensorrt.compiler import CAPABILITIES, Compiled, CompilerError, compile_graph
from tensorrt.dimensions import dimensions_of


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    manifest = json.loads((options.bundle / "manifest.json").read_text())
    dimensions = dimensions_of(manifest, options.static)
    failed = False
    # A process for each, so that each has a peak of its own.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name, graph in manifest["graphs"].items():
            for capability in options.capability or ["SM86"]:
                try:
                    made, peak = pool.apply(_measured, (options.bundle / graph["file"], capability, dimensions))
                except CompilerError as error:
                    print(f"{name} {capability}: {error}", file=sys.stderr)
                    failed = True
                    continue
                print(f"{name} {capability}: {made.seconds:.0f} s, peak {peak / 1e9:.1f} GB, engine {made.engine_bytes / 1e6:.0f} MB, "
                      f"{len(made.kernels)} kernels, {made.attention_kernels} of attention", flush=True)
                for warning in made.warnings:
                    print(f"  warning: {warning}", flush=True)
    return int(failed)


def _measured(path: Path, capability: str, dimensions: dict) -> tuple[Compiled, int]:
    made = compile_graph(path, capability, dimensions)
    return made, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", metavar="BUNDLE_DIR", type=Path, help="a bundle, best of --target tensorrt")
    parser.add_argument("--capability", choices=CAPABILITIES, action="append", help="GPU to compile for (default: SM86)")
    parser.add_argument("--static", action="store_true", help="for the longest prefix and all cameras alone (default: for every length)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
