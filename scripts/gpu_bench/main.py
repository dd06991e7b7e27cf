#!/usr/bin/env python3
"""Runs the plan of the GPU measurement: resumable, within a time budget, the most telling steps first. See scripts/gpu_bench.sh."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cuda
import pack
import report
from plan import ROOT, Choices, Command, Step, make_plan
from quick import make_quick_plan

PRECISIONS = ("fp16", "bf16", "fp32")
# What `timeout` says.
OUT_OF_TIME = 124


def main() -> int:
    options = _parser().parse_args()
    os.chdir(ROOT)
    try:
        if options.pack:
            pack.pack(options.pack, options.compute, options.size or "full", dict(options.bundle), options.prebuilt)
            return 0
        choices, plan = _quick(options) if options.quick else _whole(options)
    except pack.PackError as error:
        print(f"gpu_bench: {error}", file=sys.stderr)
        return 1
    unknown = set(options.only or ()) - {step.name for step in plan}
    if unknown:
        print(f"gpu_bench: no step named {sorted(unknown)[0]}; there are {', '.join(step.name for step in plan)}", file=sys.stderr)
        return 2
    if options.dry_run:
        _show(plan, choices)
        return 0
    for directory in ("results", "logs", "done"):
        (choices.state / directory).mkdir(parents=True, exist_ok=True)
    choices.out.mkdir(parents=True, exist_ok=True)
    if options.quick:
        pack.unpack(options.packed, choices.packed)
    outcomes = _run(plan, choices, options)
    waiting = [step.name for step in plan if outcomes[step.name] == "not run"]
    print(f"\nreport: {choices.out / 'report.md'}" + (f"; still to run: {', '.join(waiting)}" if waiting else ""))
    return 1 if "failed" in outcomes.values() else 0


def _whole(options: argparse.Namespace) -> tuple[Choices, list[Step]]:
    choices = Choices(
        provider=options.provider, size=options.size or "full", out=options.out, work=options.work or options.out / "work", packed=None,
        prebuilt=options.prebuilt, cameras=options.cameras, precisions=options.precisions, chunks=options.chunks,
        reference=options.reference, threads=options.threads,
    )
    return choices, make_plan(choices)


def _quick(options: argparse.Namespace) -> tuple[Choices, list[Step]]:
    contents = pack.contents(options.packed)
    work = (options.work or options.out / "work").absolute()
    choices = Choices(
        provider=options.provider, size=contents["size"], out=options.out, work=work, packed=work / "packed", prebuilt=None,
        cameras=options.cameras, precisions=[], chunks=options.chunks, reference=options.reference, threads=options.threads,
    )
    return choices, make_quick_plan(choices, contents)


def _show(plan: list[Step], choices: Choices) -> None:
    print(f"# {len(plan)} steps, about {sum(step.minutes for step in plan):.0f} minutes at full size")
    for index, step in enumerate(plan, 1):
        needs = f" (after {', '.join(step.after)})" if step.after else ""
        print(f"\n# {index}. {step.name}: {step.what}; about {step.minutes:g} min{needs}")
        for command in step.commands:
            print(command)
    print(f"\n# then {choices.out}/report.json and {choices.out}/report.md")


def _run(plan: list[Step], choices: Choices, options: argparse.Namespace) -> dict[str, str]:
    """Runs what is not done yet, and reports after every step; returns each step's outcome: done, failed, blocked or not run."""
    began, outcomes = time.monotonic(), dict.fromkeys((step.name for step in plan), "not run")
    for step in plan:
        mark = choices.state / "done" / step.name
        if mark.exists() and mark.read_text() == step.fingerprint() and step.name not in (options.again or ()):
            outcomes[step.name] = "done"
            continue
        left = options.minutes - (time.monotonic() - began) / 60
        if (options.only and step.name not in options.only) or step.minutes > left:
            continue
        if any(outcomes.get(name, "done") in ("failed", "blocked") for name in step.after):
            outcomes[step.name] = "blocked"
            print(f"-- {step.name}: left out, it needs {', '.join(step.after)}")
            continue
        print(f"== {step.name}: {step.what}", flush=True)
        start = time.monotonic()
        failure = _run_step(step, choices, start + 60 * min(step.limit, left))
        took = time.monotonic() - start
        if failure:
            outcomes[step.name] = "failed"
            print(f"   FAILED after {took:.0f} s: {failure}; see {choices.state / 'logs' / step.name}.log", flush=True)
        else:
            mark.write_text(step.fingerprint())
            outcomes[step.name] = "done"
            print(f"   {took:.1f} s", flush=True)
        _report(choices, plan, outcomes)
    _report(choices, plan, outcomes)
    return outcomes


def _report(choices: Choices, plan: list[Step], outcomes: dict[str, str]) -> None:
    report.write(choices, plan, outcomes)
    if choices.packed:
        # One file that can be brought back, in place of dozens.
        with tarfile.open(choices.out / "logs.tar.gz", "w:gz") as tar:
            for directory in (choices.state / "logs", choices.state / "results", choices.work / "profiles"):
                if directory.exists():
                    tar.add(directory, directory.name)


def _run_step(step: Step, choices: Choices, deadline: float) -> str | None:
    """Runs a step's commands until `deadline` of the monotonic clock; returns what failed."""
    with open(choices.state / "logs" / f"{step.name}.log", "w", encoding="utf-8") as log:

        def run(command: Command) -> str | None:
            print(f"$ {command}", file=log, flush=True)
            code = _call(command, choices, log, deadline)
            if code == OUT_OF_TIME or (code and not command.may_fail):
                return f"{'out of time' if code == OUT_OF_TIME else f'exit code {code}'} in {' '.join(command.argv[:3])}"
            return None

        if step.together:
            with ThreadPoolExecutor(len(step.commands)) as pool:
                return next(filter(None, list(pool.map(run, step.commands))), None)
        return next(filter(None, map(run, step.commands)), None)


def _call(command: Command, choices: Choices, log, deadline: float) -> int:
    environment = os.environ | command.environment | {"ORT_DISABLE_TELEMETRY": "1"}
    if choices.cuda:
        environment["LD_LIBRARY_PATH"] = os.pathsep.join([*cuda.directories(), os.environ.get("LD_LIBRARY_PATH", "")])
    try:
        with contextlib.ExitStack() as files:
            out = files.enter_context(open(command.result, "w", encoding="utf-8")) if command.result else log
            # In a session of its own, so that what it has started ends with it.
            process = subprocess.Popen(command.argv, env=environment, stdout=out, stderr=log, start_new_session=True)
            try:
                return process.wait(None if math.isinf(deadline) else max(0, deadline - time.monotonic()))
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if isinstance(error, subprocess.TimeoutExpired):
                    return OUT_OF_TIME
                raise
    except OSError as error:
        print(error, file=log)
        return 127


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpu_bench.sh", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu-bench"), metavar="DIR", help="reports, results, logs (default: gpu-bench)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="checkpoint and bundles, 45 GB at full size (default: OUT/work)")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and run nothing")
    parser.add_argument("--minutes", type=float, default=float("inf"), metavar="M", help="begin no step that would end later than this")
    parser.add_argument("--only", type=_names, metavar="STEP,...", help="only these steps")
    parser.add_argument("--again", type=_names, metavar="STEP,...", help="run these though they are done")
    parser.add_argument("--provider", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", choices=("full", "small", "tiny"), help="of the random weights (default: full; --quick: as packed)")
    parser.add_argument("--cameras", type=_counts, default=[1, 2, 3], metavar="N,...", help="default: 1,2,3")
    parser.add_argument("--precisions", type=_precisions, default=list(PRECISIONS), metavar="P,...",
                        help=f"default: {','.join(PRECISIONS)}")
    parser.add_argument("--chunks", type=int, default=100, metavar="N", help="chunks to measure in each run (default: 100)")
    parser.add_argument("--threads", type=int, default=min(8, os.cpu_count() or 1), metavar="N", help="CPU threads (default: at most 8)")
    parser.add_argument("--no-reference", dest="reference", action="store_false", help="without PyTorch: no side by side, no full parity")
    parser.add_argument("--prebuilt", type=Path, metavar="DIR", help="directory with pi0-edge and stage_runner, so that nothing is built")
    parser.add_argument("--pack", type=Path, metavar="DIR", help="pack what --quick needs on a machine without a network, and end")
    parser.add_argument("--compute", type=int, default=90, metavar="N",
                        help="with --pack: the compute capability of that machine's GPU (default: 90)")
    parser.add_argument("--bundle", type=_bundle, action="append", default=[], metavar="NAME=DIR",
                        help="with --pack: one more to measure, a bundle with golden data for parity or a template of full size for time")
    parser.add_argument("--quick", action="store_true", help="measure what is packed: no network, nothing installed, in minutes")
    parser.add_argument("--packed", type=Path, default=Path(".carry"), metavar="DIR", help="with --quick: where that is (default: .carry)")
    return parser


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _bundle(text: str) -> tuple[str, Path]:
    name, sign, directory = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError("NAME=DIR, such as pi0-fp16-fused=target/templates/pi0-fp16")
    return name, Path(directory)


def _counts(text: str) -> list[int]:
    counts = sorted({int(number) for number in _names(text)})
    if not counts or not all(1 <= n <= 3 for n in counts):
        raise argparse.ArgumentTypeError("numbers from 1 to 3, separated by commas")
    return counts


def _precisions(text: str) -> list[str]:
    if unknown := set(_names(text)) - set(PRECISIONS):
        raise argparse.ArgumentTypeError(f"no {sorted(unknown)[0]}; there are {', '.join(PRECISIONS)}")
    return _names(text)


if __name__ == "__main__":
    sys.exit(main())
