#!/usr/bin/env python
"""Score the collapse fitter on fresh draws of every family: coverage, sharpness, verdicts, time.

python scripts/collapse_study.py --draws 20 --salt 1 --families white_3 false_plateau
python scripts/collapse_study.py --draws 5 --salt 1 --rivals
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.collapse.families import FAMILIES
from tests.collapse.rivals import RULES, rival
from tests.collapse.scoring import ours, score_family, table

ONE_CONTROL = [
    name for name in FAMILIES if name.split("_")[0] not in ("false", "hidden", "correction", "physics", "two")
]


def compare(families: list[str], draws: int, salt: int) -> None:
    """One row a fitter, over the families of one control whose bound is known."""
    print(f"{'fitter':<12}{'cover':>7}{'worst':>7}{'score':>7}{'rmse':>7}{'crash':>7}{'ms':>7}")
    for label, fitter in {"jthermo": ours, **{rule: rival(rule) for rule in RULES}}.items():
        scores = [score_family(name, draws, fitter, salt) for name in families]
        hits = np.mean([hit for s in scores for hit in s.hits])
        worst = min(s.coverage for s in scores if s.hits)
        score, rmse = (np.nanmedian([getattr(s, n) for s in scores]) for n in ("interval_score", "rmse"))
        crashes, ms = sum(s.crashes for s in scores), 1000 * np.median([t for s in scores for t in s.seconds])
        print(
            f"{label:<12}{hits:>7.3f}{worst:>7.2f}{score:>7.2f}{rmse:>7.2f}{crashes:>7}{ms:>7.0f}", flush=True
        )


def main() -> None:
    """Print one row a family and the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=20, help="data sets of each family")
    parser.add_argument("--salt", type=int, default=1, help="another number, other draws")
    parser.add_argument("--families", nargs="*", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument(
        "--rivals", action="store_true", help="the quality S beside, where there is one control"
    )
    args = parser.parse_args()
    if args.rivals:
        compare([name for name in args.families if name in ONE_CONTROL], args.draws, args.salt)
        return
    scores = {}
    for name in args.families:
        scores[name] = score_family(name, args.draws, salt=args.salt)
        print(".", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    print("\n".join(table(scores)))


if __name__ == "__main__":
    main()
