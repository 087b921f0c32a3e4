#!/usr/bin/env python
"""Score the collapse fitter on fresh draws of every family: coverage, sharpness, verdicts, time.

python scripts/collapse_study.py --draws 20 --salt 1 --families white_3 false_plateau
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.collapse.families import FAMILIES
from tests.collapse.scoring import score_family, table


def main() -> None:
    """Print one row a family and the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=20, help="data sets of each family")
    parser.add_argument("--salt", type=int, default=1, help="another number, other draws")
    parser.add_argument("--families", nargs="*", default=list(FAMILIES), choices=list(FAMILIES))
    args = parser.parse_args()
    scores = {}
    for name in args.families:
        scores[name] = score_family(name, args.draws, salt=args.salt)
        print(".", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    print("\n".join(table(scores)))


if __name__ == "__main__":
    main()
