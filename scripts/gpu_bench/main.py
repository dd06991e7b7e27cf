#!/usr/bin/env python3
"""Runs the plan of the GPU measurement: resumable, within a time budget, the most telling steps first. See scripts/gpu_bench.sh."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import cuda
import report
import wheels
from plan import ROOT, Choices, Command, Step, make_plan

PRECISIONS = ("fp16", "bf16", "fp32")


def main() -> int:
    options = _parser().parse_args()
    os.chdir(ROOT)
    if options.pack_wheels:
        return wheels.pack(options.pack_wheels)
    choices = Choices(
        provider=options.provider, size=options.size, out=options.out, work=options.work or options.out / "work",
        wheels=options.wheels, prebuilt=options.prebuilt, cameras=options.cameras, precisions=options.precisions,
        chunks=options.chunks, reference=options.reference, threads=options.threads,
    )
    plan = make_plan(choices)
    unknown = set(options.only or ()) - {step.name for step in plan}
    if unknown:
        print(f"gpu_bench: no step named {sorted(unknown)[0]}; there are {', '.join(step.name for step in plan)}", file=sys.stderr)
        return 2
    if options.dry_run:
        _show(plan, choices)
        return 0
    for directory in ("results", "logs", "done"):
        (choices.out / directory).mkdir(parents=True, exist_ok=True)
    outcomes = _run(plan, choices, options)
    report.write(choices, plan, outcomes)
    waiting = [step.name for step in plan if outcomes[step.name] == "not run"]
    print(f"\nreport: {choices.out / 'report.md'}" + (f"; still to run: {', '.join(waiting)}" if waiting else ""))
    return 1 if "failed" in outcomes.values() else 0


def _show(plan: list[Step], choices: Choices) -> None:
    print(f"# {len(plan)} steps, about {sum(step.minutes for step in plan):.0f} minutes at full size")
    for index, step in enumerate(plan, 1):
        needs = f" (after {', '.join(step.after)})" if step.after else ""
        print(f"\n# {index}. {step.name}: {step.what}; about {step.minutes:g} min{needs}")
        for command in step.commands:
            print(command)
    print(f"\n# then {choices.out}/report.json and {choices.out}/report.md")


def _run(plan: list[Step], choices: Choices, options: argparse.Namespace) -> dict[str, str]:
    """Runs what is not done yet; returns each step's outcome: done, failed, blocked or not run."""
    began, outcomes = time.monotonic(), {}
    for step in plan:
        mark = choices.out / "done" / step.name
        if mark.exists() and mark.read_text() == step.fingerprint() and step.name not in (options.again or ()):
            outcomes[step.name] = "done"
            continue
        left = options.minutes - (time.monotonic() - began) / 60
        if (options.only and step.name not in options.only) or step.minutes > left:
            outcomes[step.name] = "not run"
            continue
        if any(outcomes.get(name, "done") in ("failed", "blocked") for name in step.after):
            outcomes[step.name] = "blocked"
            print(f"-- {step.name}: left out, it needs {', '.join(step.after)}")
            continue
        print(f"== {step.name}: {step.what}", flush=True)
        start = time.monotonic()
        failure = _run_step(step, choices)
        took = time.monotonic() - start
        if failure:
            outcomes[step.name] = "failed"
            print(f"   FAILED after {took:.0f} s: {failure}; see {choices.out / 'logs' / step.name}.log")
        else:
            mark.write_text(step.fingerprint())
            outcomes[step.name] = "done"
            print(f"   {took:.1f} s")
    return outcomes


def _run_step(step: Step, choices: Choices) -> str | None:
    """Runs a step's commands; returns what failed."""
    with open(choices.out / "logs" / f"{step.name}.log", "w", encoding="utf-8") as log:
        for command in step.commands:
            print(f"$ {command}", file=log, flush=True)
            code = _call(command, choices, log)
            if code and not command.may_fail:
                return f"exit code {code} from {' '.join(command.argv[:3])}"
    return None


def _call(command: Command, choices: Choices, log) -> int:
    environment = os.environ | command.environment | {"ORT_DISABLE_TELEMETRY": "1"}
    if choices.cuda:
        environment["LD_LIBRARY_PATH"] = os.pathsep.join([*cuda.directories(), os.environ.get("LD_LIBRARY_PATH", "")])
    if choices.wheels:
        environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str((choices.work / "wheels").resolve())}
    try:
        if command.result is None:
            return subprocess.run(command.argv, env=environment, stdout=log, stderr=log).returncode
        with open(command.result, "w", encoding="utf-8") as result:
            return subprocess.run(command.argv, env=environment, stdout=result, stderr=log).returncode
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
    parser.add_argument("--size", choices=("full", "small", "tiny"), default="full", help="of the random weights (default: full)")
    parser.add_argument("--cameras", type=_counts, default=[1, 2, 3], metavar="N,...", help="default: 1,2,3")
    parser.add_argument("--precisions", type=_precisions, default=list(PRECISIONS), metavar="P,...",
                        help=f"default: {','.join(PRECISIONS)}")
    parser.add_argument("--chunks", type=int, default=100, metavar="N", help="chunks to measure in each run (default: 100)")
    parser.add_argument("--threads", type=int, default=min(8, os.cpu_count() or 1), metavar="N", help="CPU threads (default: at most 8)")
    parser.add_argument("--no-reference", dest="reference", action="store_false", help="without PyTorch: no side by side, no full parity")
    parser.add_argument("--prebuilt", type=Path, metavar="DIR", help="directory with pi0-edge and stage_runner, so that nothing is built")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="Python packages from here and from no network; see --pack-wheels")
    parser.add_argument("--pack-wheels", type=Path, metavar="DIR",
                        help="download those packages for this version of Python, in parts of at most 60 MiB, and end")
    return parser


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


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
