"""jthermo's engines beside what one would write in their place, on this machine, in turns.

Each contestant of a case runs in its own process. It compiles and finds a number of steps that
takes long enough to be timed; then all contestants are timed in turns, and the median counts. A
time is nanoseconds of wall time per step of one run on the whole machine, and nanoseconds of
processor time, which other work on the machine disturbs less. The first call, which compiles, and
the peak memory of the process, libraries included, are given separately.

    python scripts/benchmark                     every case → results/benchmark.json and its tables
    python scripts/benchmark --missing           continue a benchmark that was stopped
    python scripts/benchmark --only small wide   measure some cases again
    python scripts/benchmark --into README.md docs/speed.md    tables and figure from the JSON
    python scripts/benchmark --table             tables from the JSON, in the terminal
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from jthermo import figures
from jthermo.results.atomic import write_whole
from scripts.benchmark import figure, measure, report
from scripts.benchmark.cases import CASES, EVERYONE, TORCH
from scripts.benchmark.contestant import ROOT
from scripts.benchmark.contestants import taking_part


def run(cases: list[str], found: dict[str, Any], given: argparse.Namespace) -> list[str]:
    """Measure cases and keep what is found after each; returns what went wrong."""
    failed, began = [], time.monotonic()
    for case in cases:
        try:
            who, turns = taking_part(case, given.without), given.turns or CASES[case].turns
            found["cases"][case] = measure.compare(case, who, turns, given.seconds)
        except RuntimeError as error:  # the others may still run
            failed.append(str(error))
            continue
        given.out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(given.out, (json.dumps(found, indent=1) + "\n").encode())
        times = ", ".join(f"{name} {row['ns']:,.4g}" for name, row in found["cases"][case].items())
        print(f"{time.monotonic() - began:5.0f} s  {case}: {times} ns", file=sys.stderr, flush=True)
    return failed


def main() -> None:
    """Measure, write the JSON, print the tables."""
    parser = argparse.ArgumentParser(
        prog="scripts/benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--missing", action="store_true", help="only cases that the JSON lacks")
    parser.add_argument(
        "--without", nargs="*", choices=EVERYONE, default=[], help="leave these out"
    )
    parser.add_argument(
        "--turns", type=int, help="of each contestant; 5, and 3 for the scaling curves"
    )
    parser.add_argument("--seconds", type=float, default=0.6, help="about how long a turn takes")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "benchmark.json")
    parser.add_argument(
        "--into",
        type=Path,
        nargs="+",
        metavar="PAGE",
        help="write tables and figure; measures nothing",
    )
    parser.add_argument("--table", action="store_true", help="print the tables; measures nothing")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        case, name, seconds = given.worker
        measure.work(case, name, float(seconds))
        return
    failed: list[str] = []
    if given.into or given.table:
        found = json.loads(given.out.read_text())
    else:
        here = measure.machine()
        found = {"machine": here, "cases": {}}
        if given.out.exists() and (given.missing or given.only):
            found = json.loads(given.out.read_text())
            if any(found["machine"].get(k) != here[k] for k in ("cpu", "cores", "versions")):
                parser.error(
                    f"{given.out} is from another machine or versions; omit --only and --missing"
                )
        cases = [c for c in given.only or CASES if not (given.missing and c in found["cases"])]
        if "torch" not in here["versions"] and set(TORCH) - set(given.without):
            print("PyTorch is not installed (pip install '.[bench]'): left out", file=sys.stderr)
        failed = run(cases, found, given)
    if given.into:
        figures.save({"benchmark": figure.draw(found)}, ROOT / "results" / "figures")
        for page in given.into:
            report.write(found, page)
    else:
        print(report.page(found), report.table(found), sep="\n\n")
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
