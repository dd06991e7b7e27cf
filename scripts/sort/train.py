#!/usr/bin/env python3
"""Trains a small PI0 or PI0.5 checkpoint to sort from the belt, with lerobot's own policy, processors and loss.

CHECKPOINT_DIR is one with untrained weights (scripts/make_checkpoint.py); it gets the trained ones, the demonstrations'
statistics, and training.json, the record. Ctrl-C keeps what there is, and the same command goes on from there:

  .reference/bin/python scripts/sort/train.py DEMONSTRATIONS CHECKPOINT_DIR
"""

import argparse
import json
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np

from reference import environment

RESUME = "training.pt"
RECORD = "training.json"
# Steps from one line of progress, and from one checkpoint to resume from, to the next.
REPORT, KEEP = 20, 200


def main():
    usage = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    usage.add_argument("demonstrations", type=pathlib.Path, metavar="DEMONSTRATIONS", help="directory that the sort example wrote")
    usage.add_argument("checkpoint", type=pathlib.Path, metavar="CHECKPOINT_DIR")
    usage.add_argument("--steps", type=int, default=3140, metavar="N")
    usage.add_argument("--batch", type=int, default=64, metavar="N")
    usage.add_argument("--muon", type=float, default=0.02, metavar="RATE", help="learning rate of the layers' matrices")
    usage.add_argument("--adamw", type=float, default=2e-3, metavar="RATE", help="learning rate of everything else")
    usage.add_argument("--positions", type=float, default=0.5, metavar="WEIGHT", help="of the blocks' positions in the loss")
    usage.add_argument("--seed", type=int, default=0, metavar="N")
    usage.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N")
    options = usage.parse_args()
    environment.prepare(options.threads)
    from demonstrations import DemonstrationError

    try:
        return train(options)
    except (DemonstrationError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def train(options):
    # torch and lerobot take seconds to import; --help and usage errors should not.
    from demonstrations import Demonstrations
    from training import Training

    recipe = {name: getattr(options, name) for name in ("steps", "batch", "muon", "adamw", "positions", "seed")}
    demonstrations = Demonstrations(options.demonstrations)
    training = Training(options.checkpoint, demonstrations, recipe)
    resume = options.checkpoint / RESUME
    training.resume(resume)
    started, first = time.monotonic(), training.step
    try:
        while training.step < options.steps:
            training.advance()
            if training.step % REPORT == 0:
                pace = (time.monotonic() - started) / (training.step - first)
                _, loss, positions = training.report(REPORT)
                left = pace * (options.steps - training.step) / 60
                print(f"step {training.step} of {options.steps}  loss {loss:.4f}  positions {positions:.4f}  {pace:.3f} s a step, {left:.1f} min left", flush=True)
            if training.step % KEEP == 0:
                training.keep(resume)
    except KeyboardInterrupt:
        training.keep(resume)
        print(f"stopped at step {training.step}; the same command goes on from there", file=sys.stderr)
        return 130
    record = training.finish()
    (options.checkpoint / RECORD).write_text(json.dumps(record) + "\n")
    resume.unlink(missing_ok=True)
    print(options.checkpoint)
    return 0


if __name__ == "__main__":
    sys.exit(main())
