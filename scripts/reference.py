#!/usr/bin/env python3
"""Runs lerobot on a PI0 or PI0.5 checkpoint, its own or openpi's, and writes what it computes to CHECKPOINT_DIR/golden.

export.py takes that directory into the bundle, and `pi0-edge check` replays it on the device:

  scripts/reference.py CHECKPOINT_DIR

Any Python 3.10 does: it goes on in .reference, the environment with lerobot, which scripts/reference_env.sh makes the first
time (Python 3.12 and gcc; 0.7 GB to download, 1.8 GB on disk). The weights of a full-size checkpoint take 14 GB of memory in float32.

Without --observation, frames, states and prompts are made up from the seed: one case at 10 and one at 4 steps with the last
camera absent, and one with every camera present. With it, the golden data are of your own robot:

  scripts/reference.py CHECKPOINT_DIR --observation grasp --observation place
"""

import argparse
import contextlib
import importlib.util
import os
import pathlib
import shlex
import subprocess
import sys

from exporter.directory import appearing
from exporter.progress import run_command
from reference import environment

SCRIPTS = pathlib.Path(__file__).resolve().parent


def main(arguments=None):
    usage = parser()
    options = usage.parse_args(arguments)
    if options.num_steps and not options.observation:
        usage.error("--num-steps goes with --observation; the made-up cases have their own")
    if options.cases and options.observation:
        usage.error("--cases picks from the made-up cases, and --observation replaces them")
    output = options.output or options.checkpoint / "golden"

    def record(progress):
        if not options.checkpoint.is_dir():
            raise OSError(f"{options.checkpoint}: no such directory")
        if not importlib.util.find_spec("lerobot"):
            return in_the_environment(sys.argv[1:] if arguments is None else arguments)
        error = record_all(options, output, usage, progress)
        if error:
            raise OSError(error)

    status = run_command(record, (OSError,))
    if status:
        return status
    print(output)
    told = shlex.join(to_tell(options))
    print(f"next: .venv/bin/python scripts/export.py {options.checkpoint} BUNDLE{told and ' ' + told}, and: pi0-edge check BUNDLE", file=sys.stderr)
    return 0


def in_the_environment(arguments):
    """Runs the same command in .reference, which is made or brought up to date before."""
    made = subprocess.run([SCRIPTS / "reference_env.sh"])
    if made.returncode:
        return made.returncode
    python = SCRIPTS.parent / ".reference/bin/python"
    os.execv(python, [str(python), str(SCRIPTS / "reference.py"), *arguments])


def record_all(options, output, usage, progress):
    """Records every case into `output`, which appears whole or not at all; returns what is wrong with the checkpoint."""
    environment.prepare(options.threads)
    progress.start("loading lerobot", 0)
    # lerobot takes seconds to import; --help and usage errors should not.
    from reference import golden, observations, openpi, recording, rtc, trained_rtc
    from reference.dimensions import CheckpointError
    from reference.loading import VISION_HEADS, Reference

    progress.done("loading lerobot")
    try:
        heads, told = options.vision_heads or VISION_HEADS, {name: getattr(options, name) for name in (*OPENPI, "tokenizer")}
        with appearing(output, force=True) as whole:
            progress.start("loading the checkpoint", 0)
            if openpi.wrote(options.checkpoint):
                if options.rtc:
                    usage.error("--rtc: openpi has no real-time chunking")
                reference, recorder = openpi.OpenpiReference(options.checkpoint, heads, told), openpi
            else:
                reference = Reference(options.checkpoint, heads, options.pad_state_in_prompt, options.tokenizer)
                recorder = recording
            progress.done("loading the checkpoint")
            if options.observation:
                cases = [
                    observations.from_directory(reference, directory, options.seed, steps)
                    for directory in options.observation
                    for steps in options.num_steps or [None]
                ]
            else:
                cases = observations.made_up(reference, options.seed, options.cases)
            cases = with_distinct_names(cases)
            recorded = []
            for number, case in enumerate(cases, 1):
                what = f"{case.name} ({number} of {len(cases)}, {len(case.images)} views)"
                with counted(reference, progress.start(what, recorder.RUNS * case.num_steps, "denoise steps"), recording.tap):
                    recorded.append((case, recorder.record(reference, case)))
                progress.done(what)
            golden.write(recorded, whole, options.stride)
            if options.rtc and reference.rtc_max_delay:
                trained_rtc.write(reference, cases[0], options.rtc, reference.rtc_max_delay)
            elif options.rtc:
                rtc.write(reference, cases[0], options.rtc)
    except (CheckpointError, recording.DisagreementError, OSError) as error:
        return error
    return None


@contextlib.contextmanager
def counted(reference, advance, tap):
    """Tells `advance` of every denoise step."""
    steps = []
    with tap(reference.policy.model, "denoise_step", steps, lambda args, result: advance(len(steps) + 1)):
        yield


def to_tell(options):
    """What export.py has to be told as well."""
    for name, kind in {"tokenizer": str, "vision_heads": int, "pad_state_in_prompt": bool, **OPENPI}.items():
        value, flag = getattr(options, name), name.replace("_", "-")
        if kind is bool and value is not None and (value or name in OPENPI):
            yield f"--{flag}" if value else f"--no-{flag}"
        elif kind is not bool and value is not None:
            yield from (f"--{flag}", str(value))


# What export.py is told of an openpi checkpoint, this has to be told as well.
OPENPI = {
    "norm_stats": str, "delta_actions": str, "state_dim": int, "action_dim": int, "max_tokens": int, "action_horizon": int,
    "rotary": str, "state_in_prompt": bool, "adapt_to_pi": bool,
}  # fmt: skip


def with_distinct_names(cases):
    """One observation at several step counts, or two directories of one name: number them."""
    seen = {}
    for case in cases:
        seen[case.name] = seen.get(case.name, 0) + 1
        if seen[case.name] > 1:
            case.name = f"{case.name}_{seen[case.name]}"
    return cases


def parser():
    described, _, examples = __doc__.partition("\n\n")
    result = argparse.ArgumentParser(
        description=described, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("checkpoint", type=pathlib.Path, metavar="CHECKPOINT_DIR")
    result.add_argument("--output", type=pathlib.Path, metavar="DIR", help="default: CHECKPOINT_DIR/golden; replaced if it exists")
    result.add_argument("--vision-heads", type=int, metavar="N", help="heads of a SigLIP layer (default: 16, as released)")
    result.add_argument("--pad-state-in-prompt", action="store_true", help="PI0.5: as lerobot 0.4.4 and older wrote the prompt")
    result.add_argument("--observation", type=pathlib.Path, action="append", metavar="DIR", help="use this observation; repeatable")
    result.add_argument("--num-steps", type=positive, action="append", metavar="N", help="with --observation; repeatable")
    result.add_argument("--cases", type=lambda text: text.split(","), metavar="NAME,...", help="only these of the made-up cases")
    result.add_argument("--seed", type=int, default=0, metavar="N", help="of the made-up observations and of the noise (default: 0)")
    result.add_argument("--stride", type=stride, metavar="N|auto", help="keep every N-th number of the large arrays (default: auto)")
    result.add_argument("--rtc", type=pathlib.Path, metavar="DIR", help="also join the first case to a previous chunk by real-time chunking, to DIR")
    result.add_argument("--tokenizer", type=pathlib.Path, metavar="FILE", help="as export.py takes it")
    openpi = result.add_argument_group("openpi", "what export.py is to be told of an openpi checkpoint as well")
    for name, kind in OPENPI.items():
        flag = "--" + name.replace("_", "-")
        if kind is bool:
            openpi.add_argument(flag, action=argparse.BooleanOptionalAction)
        else:
            openpi.add_argument(flag, type=kind, metavar=name.split("_")[-1].upper())
    result.add_argument("--threads", type=positive, metavar="N", help="default: all cores")
    return result


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def stride(text):
    return None if text == "auto" else positive(text)


if __name__ == "__main__":
    sys.exit(main())
