"""The steps of the quick measurement: what was packed, in minutes, the most telling first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from plan import Choices, Command, Step, ask_doctor, measure, profile, side_by_side, which_gpu

PYTHON = "python3"


def make_quick_plan(c: Choices, contents: dict) -> list[Step]:
    """`contents`: what `pack.contents` says."""
    most = max(c.cameras)
    # On the CPU provider there is nothing to run bf16 with.
    main, *others = [name for name in contents["full"] if c.cuda or "bf16" not in name]
    small = [name for name in contents["small"] if c.cuda or "bf16" not in name]
    steps = [Step("doctor", "what this machine is and lacks", 0.1, [which_gpu(c), ask_doctor(c)] if c.cuda else [ask_doctor(c)], limit=0.5)]
    steps.append(_parity(c, small))
    steps.append(Step(f"fill-{main}", f"random weights for {main}", 0.2, [_fill(c, main)], limit=2))
    for cameras, graphs in ((most, "on"), (most, "off"), *((n, "on") for n in reversed(c.cameras) if n != most)):
        # The headline with ten times as many: a p99 is the tenth largest of a thousand.
        counted = replace(c, chunks=10 * c.chunks) if (cameras, graphs) == (most, "on") else c
        name, what, command = measure(counted, main, c.work / main, _observation(c, main, cameras), graphs)
        steps.append(Step(name, what, 0.4, [command], (f"fill-{main}",), limit=1.5))
    commands = profile(c, c.work / main, _observation(c, main, most))
    steps.append(Step("profile", "which operators take the time", 0.3, commands, (f"fill-{main}",), limit=1))
    if c.reference:
        steps.append(_torch(c, main, most, "eager"))
    for name in others:
        step, what, command = measure(c, name, c.work / name, _observation(c, name, most), "on")
        # Not kept: together they are larger than many disks.
        remove = Command(["rm", "-rf", str(c.work / name)])
        steps.append(Step(step, what, 0.6, [_fill(c, name), command, remove], limit=2))
    if c.reference:
        # Last, because nobody knows how long compiling takes: what is left.
        steps.append(_torch(c, main, most, "compiled"))
    return steps


def _policy(name: str) -> str:
    return name.partition("-")[0]


def _observation(c: Choices, name: str, cameras: int) -> Path:
    return c.packed / f"policies/{_policy(name)}/{cameras}"


def _parity(c: Choices, names: list[str]) -> Step:
    commands = []
    for name in names:
        for graphs in ("on", "off") if c.cuda else ("off",):
            argv = c.pi0_edge("check", c.packed / "small" / name, "--cuda-graphs", graphs)
            commands.append(Command(argv, c.result(f"check-{name}-graphs-{graphs}"), may_fail=True))
    return Step("parity", "every stage against lerobot, small policies, CUDA graphs on and off", 0.3, commands, limit=1.5, together=True)


def _fill(c: Choices, name: str) -> Command:
    policy, _, precision = name.partition("-")
    given = ["--precision", precision, "--templates", str(c.packed / "templates")]
    return Command([c.program, "synthesize", policy, str(c.work / name), *given])


def _torch(c: Choices, main: str, cameras: int, way: str) -> Step:
    """lerobot with random weights made on the device."""
    # Compiled as lerobot does it, but for its mode: max-autotune tries every kernel out and takes longer than all the rest.
    mode = ["--compiled", "--compile-mode", "reduce-overhead" if c.cuda else "default"] if way == "compiled" else []
    checkpoint, name = c.packed / "policies" / _policy(main), f"torch-{way}-{cameras}"
    command = side_by_side(c, name, PYTHON, checkpoint, c.work / main, cameras, "--random-weights", "--dtypes", "bfloat16", *mode)
    command.environment["PYTHONPATH"] = str(c.packed / "modules")
    what = f"side by side with lerobot's PyTorch in bfloat16, {way}, {cameras} cameras"
    return Step(name, what, 1.5 if mode else 0.5, [command], (f"fill-{main}",), limit=6 if mode else 2)
