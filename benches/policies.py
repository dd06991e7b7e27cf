#!/usr/bin/env python3
"""Times the stages of several bundles side by side, alternated in one run: PI0 against PI0.5.

  cargo build --release --bench stage_runner
  python3 benches/policies.py BUNDLE BUNDLE ... --threads 2 --stages denoise_step

Each bundle has every camera and the longest prompt it takes. Every round runs each bundle once, beginning with another one each
time. Ratios are to the first bundle; of medians for the times, and of operations as the manifests' sizes give them.
"""

import argparse
import json
import pathlib
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from side_by_side import Runner  # noqa: E402


def operations(manifest, stage, prefix):
    """Multiplications and additions of one run, two a product; what is not a matrix product is left out."""
    d = manifest["dimensions"]
    attention = d["query_heads"] * d["head_dim"]

    def layer(rows, seen, width, mlp):
        weights = width * (2 * attention + 2 * d["head_dim"]) + 3 * width * mlp
        return 2 * rows * weights + 4 * rows * seen * attention

    if stage == "vision":
        views, tokens, width = len(manifest["cameras"]), d["tokens_per_view"], d["vision_width"]
        per_layer = 2 * tokens * (4 * width * width + 2 * width * d["vision_mlp"]) + 4 * tokens * tokens * width
        ends = 2 * tokens * width * (3 * d["patch_size"] ** 2 + d["prefix_width"])
        return views * (d["vision_layers"] * per_layer + ends)
    if stage == "prefix":
        # Of the last layer, keys and values only.
        whole = (d["layers"] - 1) * layer(prefix, prefix, d["prefix_width"], d["prefix_mlp"])
        return whole + 4 * prefix * d["prefix_width"] * d["head_dim"]
    horizon, width, actions = d["action_horizon"], d["expert_width"], manifest["action"]["padded_dim"]
    rows = horizon + (manifest["policy"] == "pi0")
    step = d["layers"] * layer(rows, prefix + rows, width, d["expert_mlp"]) + 4 * horizon * width * actions
    return step + (2 * horizon * width * width + 2 * width * actions if manifest["policy"] == "pi0" else 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundles", nargs="+", type=pathlib.Path, metavar="BUNDLE")
    parser.add_argument("--stages", nargs="+", choices=["vision", "prefix", "denoise_step"], default=["denoise_step"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--runner", help="how to start the stage runner (default: the one cargo built)")
    options = parser.parse_args()
    manifests = [json.loads((bundle / "manifest.json").read_text()) for bundle in options.bundles]
    options.provider = options.ort_library = None
    options.views = 3
    runners = [Runner(argparse.Namespace(**vars(options) | {"bundle": bundle})).__enter__() for bundle in options.bundles]
    print("| stage | bundle | prefix rows | n | least ms | median ms | ratio | ratio of operations | GF | GF/s |")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for stage in options.stages:
        times = [[] for _ in runners]
        for round_ in range(options.rounds + 1):
            for k in range(len(runners)):
                k = (k + round_) % len(runners)
                times[k].append(runners[k].run(stage))
        medians = [statistics.median(list_[1:]) for list_ in times]
        work = [operations(manifest, stage, runner.prefix_rows) / 1e9 for manifest, runner in zip(manifests, runners)]
        for k, bundle in enumerate(options.bundles):
            print(
                f"| {stage} | {bundle.name} | {runners[k].prefix_rows} | {options.rounds} | {min(times[k][1:]):.1f} | {medians[k]:.1f} "
                f"| {medians[k] / medians[0]:.3f} | {work[k] / work[0]:.3f} | {work[k]:.2f} | {work[k] / medians[k] * 1e3:.0f} |",
                flush=True,
            )
    for runner in runners:
        runner.__exit__()


if __name__ == "__main__":
    main()
