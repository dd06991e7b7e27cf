#!/usr/bin/env python3
"""Runs lerobot on a PI0 or PI0.5 checkpoint, its own or openpi's, and writes what it computes to CHECKPOINT_DIR/golden.

export.py takes that directory into the bundle, and `pi0-edge check` replays it on the
device. Needs the environment that scripts/reference_env.sh makes:

  scripts/reference_env.sh
  .reference/bin/python scripts/reference.py CHECKPOINT_DIR

Without --observation, frames, states and prompts are made up from the seed: one case at 10
and one at 4 steps with the last camera absent, and one with every camera present. With it,
the golden data are of your own robot:

  .reference/bin/python scripts/reference.py CHECKPOINT_DIR --observation grasp --observation place
"""

import argparse
import pathlib
import sys
import time

from reference import environment


def main(arguments=None):
    usage = parser()
    options = usage.parse_args(arguments)
    if options.num_steps and not options.observation:
        usage.error("--num-steps goes with --observation; the made-up cases have their own")
    if options.cases and options.observation:
        usage.error("--cases picks from the made-up cases, and --observation replaces them")
    environment.prepare(options.threads)
    # lerobot takes seconds to import; --help and usage errors should not.
    from reference import golden, observations, openpi, rtc, trained_rtc
    from reference.dimensions import CheckpointError
    from reference.loading import VISION_HEADS, Reference
    from reference.recording import DisagreementError, record

    output = options.output or options.checkpoint / "golden"
    try:
        heads, told = options.vision_heads or VISION_HEADS, {name: getattr(options, name) for name in (*OPENPI, "tokenizer")}
        if openpi.wrote(options.checkpoint):
            if options.rtc:
                usage.error("--rtc: openpi has no real-time chunking")
            reference, record = openpi.OpenpiReference(options.checkpoint, heads, told), openpi.record
        else:
            reference = Reference(options.checkpoint, heads, options.pad_state_in_prompt, options.tokenizer)
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
        for case in cases:
            start = time.monotonic()
            recorded.append((case, record(reference, case)))
            print(f"{case.name}: {len(case.images)} views, {case.num_steps} steps, {time.monotonic() - start:.1f} s", file=sys.stderr)
        golden.write(recorded, output, options.stride)
        if options.rtc and reference.rtc_max_delay:
            trained_rtc.write(reference, cases[0], options.rtc, reference.rtc_max_delay)
        elif options.rtc:
            rtc.write(reference, cases[0], options.rtc)
    except (CheckpointError, DisagreementError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(output)
    return 0


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
