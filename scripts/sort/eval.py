#!/usr/bin/env python3
"""Measures policies in closed loop: the sort example over every combination of the options given, appended to a file as it goes.

Cells that the file has already are not run again: stopped, the same command goes on from there. Options of the example have
lists, separated by commas, in which "-" leaves the option out, and "+" gives it without a value:

  scripts/sort/eval.py results.jsonl --bundle models/pi0-sort --delay 0,100,200,400 --rtc -,4 --episodes 500
  scripts/sort/eval.py results.jsonl --bundle models/pi0-sort --prompt-swap + --episodes 200
  scripts/sort/eval.py results.jsonl --table
"""

import argparse
import itertools
import json
import pathlib
import subprocess
import sys
import time

PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "target/release/examples/sort"


def main():
    described, _, examples = __doc__.partition("\n\n")
    usage = argparse.ArgumentParser(description=described, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter)
    usage.add_argument("results", type=pathlib.Path, metavar="FILE", help="JSON lines, one a cell")
    usage.add_argument("--table", action="store_true", help="print what the file has as a table of Markdown")
    usage.add_argument("--program", type=pathlib.Path, default=PROGRAM, metavar="FILE", help="default: target/release/examples/sort")
    options, rest = usage.parse_known_args()
    cells = [json.loads(line) for line in options.results.read_text().splitlines()] if options.results.exists() else []
    if options.table:
        table(cells)
        return 0
    if len(rest) % 2 or not all(name.startswith("--") for name in rest[::2]):
        usage.error(f"options of the example come with a value each, but there are {rest}")
    known = {json.dumps(cell["options"], sort_keys=True) for cell in cells}
    lists = [[(name[2:], value) for value in values.split(",")] for name, values in zip(rest[::2], rest[1::2])]
    for chosen in itertools.product(*lists):
        chosen = {name: value for name, value in chosen if value != "-"}
        if json.dumps(chosen, sort_keys=True) in known:
            continue
        started = time.monotonic()
        given = (part for name, value in chosen.items() for part in (f"--{name}", value) if part != "+")
        command = [options.program, *given, "--format", "json"]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if run.returncode:
            print(f"error: {' '.join(map(str, command))} failed: exit status {run.returncode}", file=sys.stderr)
            return 1
        cell = {"options": chosen, "seconds": round(time.monotonic() - started, 1), "result": json.loads(run.stdout)}
        with options.results.open("a") as file:
            file.write(json.dumps(cell) + "\n")
        print(json.dumps(cell), flush=True)
    return 0


def table(cells):
    """One row a cell: the options, and the numbers of the result."""
    columns = [*dict.fromkeys(name for cell in cells for name in cell["options"])]
    numbers = [*dict.fromkeys(name for cell in cells for name, value in cell["result"].items() if shown(value) is not None)]
    print("|", " | ".join([*columns, *numbers]), "|")
    print("|" + "---|" * len(columns) + "--:|" * len(numbers))
    for cell in cells:
        row = [cell["options"].get(name, "") for name in columns] + [shown(cell["result"].get(name)) or "" for name in numbers]
        print("|", " | ".join(row), "|")


def shown(value):
    """A number or an interval as text; None of anything else."""
    if isinstance(value, list) and value and all(isinstance(item, (int, float)) for item in value):
        return "–".join(f"{item:.4g}" for item in value)
    return f"{value:.4g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else None


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("stopped; the same command goes on from there", file=sys.stderr)
        sys.exit(130)
