#!/usr/bin/env python
"""Give jthermo thousands of hostile inputs, and print how each part took them.

An input may be accepted or refused by a message of one line. Anything else is an offender: a
traceback, a message of several lines, a hang, more than 2 GB, or a crash.

python scripts/fuzz --count 5000 --seed 0
python scripts/fuzz --count 200 --parts fields arrays --all
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

# Run as a folder, Python puts only this folder on its path.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.fuzz import arrays, command_lines, fields, json_files, tables
from scripts.fuzz.trial import OUTCOMES

# Each part has run(count, seed) -> list[Outcome].
PARTS = {
    "fields": fields,
    "json": json_files,
    "arrays": arrays,
    "command lines": command_lines,
    "tables": tables,
}


def main() -> None:
    """Run the parts, and exit with 1 if there are offenders."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=5000, help="number of inputs of all parts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--all", action="store_true", help="print every input and its outcome")
    args = parser.parse_args()
    heads = "".join(f"{name:>15}" for name in (*OUTCOMES, "seconds"))
    print(f"{'part':<14}{'inputs':>7}{heads}")
    offenders = []
    for i, name in enumerate(args.parts):
        count = args.count // len(args.parts) + (i < args.count % len(args.parts))
        began = time.monotonic()
        outcomes = PARTS[name].run(count, args.seed)
        kinds = Counter(outcome.kind for outcome in outcomes)
        numbers = "".join(f"{kinds[kind]:>15}" for kind in OUTCOMES)
        print(f"{name:<14}{count:>7}{numbers}{time.monotonic() - began:>15.0f}", flush=True)
        offenders += [outcome for outcome in outcomes if outcome.bad]
        for outcome in outcomes if args.all else ():
            print(f"  {outcome.kind:<10} {outcome.text}\n    {outcome.message}")
    for outcome in offenders:
        print(f"\n{outcome.kind}: {outcome.text}\n{outcome.message}")
    sys.exit(bool(offenders))


if __name__ == "__main__":
    main()
