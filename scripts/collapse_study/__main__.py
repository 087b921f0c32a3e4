#!/usr/bin/env python
"""Score the collapse fitter on fresh draws of every family: coverage, sharpness, verdicts, time.

python scripts/collapse_study --draws 20 --salt 1 --families white_3 false_plateau
python scripts/collapse_study --draws 5 --salt 1 --rivals
python scripts/collapse_study --draws 40 --salt 1 --powers
python scripts/collapse_study --draws 20 --salt 1 --forms
python scripts/collapse_study --draws 21 --salt 1 --minima
python scripts/collapse_study --draws 4 --salt 1 --perturb
python scripts/collapse_study --published FOLDER
"""

import argparse
import sys
from pathlib import Path

import numpy as np

# Run as a folder, Python puts only this folder on its path.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from jthermo.collapse import fit_collapse
from scripts.collapse_study import perturb, published
from scripts.collapse_study.families import FAMILIES
from scripts.collapse_study.forms import FORMS, lost
from scripts.collapse_study.planted import Planted, PlantedNoise, random_curve
from scripts.collapse_study.rivals import RULES, rival
from scripts.collapse_study.scoring import Fitter, ours, score_family, source, table

ONE_CONTROL = [
    name
    for name in FAMILIES
    if name.split("_")[0] not in ("false", "hidden", "correction", "physics", "two")
]


def compare(families: list[str], draws: int, salt: int) -> None:
    """One row per fitter, over the families of one control whose bound is known."""
    columns = ("cover", "worst", "score", "rmse", "crash", "ms")
    print(f"{'fitter':<12}" + "".join(f"{column:>7}" for column in columns))
    fitters: dict[str, Fitter] = {"jthermo": ours, **{rule: rival(rule) for rule in RULES}}
    for label, fitter in fitters.items():
        scores = [score_family(name, draws, fitter, salt) for name in families]
        hits = np.mean([hit for s in scores for hit in s.hits])
        worst = min(s.coverage for s in scores if s.hits)
        score = np.nanmedian([s.interval_score for s in scores])
        rmse = np.nanmedian([s.rmse for s in scores])
        crashes = sum(s.crashes for s in scores)
        ms = 1000 * np.median([t for s in scores for t in s.seconds])
        numbers = f"{hits:>7.3f}{worst:>7.2f}{score:>7.2f}{rmse:>7.2f}{crashes:>7}{ms:>7.0f}"
        print(f"{label:<12}{numbers}", flush=True)


def correction_powers(draws: int, salt: int) -> None:
    """Coverage if the power of a correction is fitted, and if the fitted one is taken as known."""
    sizes = np.array([8.0, 12.0, 16.0, 32.0, 64.0, 128.0])
    hits = dict.fromkeys(("L", "correction_L", "power_L", "power taken as known: L"), 0)
    unbounded = 0
    for draw in range(draws):
        rng = np.random.default_rng([salt, draw])
        p, w = rng.uniform(-1, 1), rng.uniform(-2, -0.7)
        a = rng.choice([-1, 1]) * rng.uniform(0.3, 0.9)
        log_tau = p * np.log(sizes) + a * (sizes / 8) ** w
        plan = Planted(
            curve=random_curve(rng, log_tau.mean() + 3.5, 7.0),
            exponents=np.ones(1),
            log_controls=log_tau[:, None],
            log_times=(np.linspace(0, 7, 50),) * len(sizes),
            num_replicates=(8,) * len(sizes),
            noise=PlantedNoise(point=float(rng.uniform(0.005, 0.02)), offset=0.005),
            names=("shift",),
        )
        table = plan.table(rng)
        nearest = np.abs(np.log(table["shift"].to_numpy())[:, None] - log_tau).argmin(axis=1)
        table["L"] = sizes[nearest]
        fit = fit_collapse(table, ["L"], correction={"L": (-4, -0.25)})
        known = fit_collapse(table, ["L"], correction={"L": fit.corrections[0].power})
        answers = (*fit.exponents.values(), known.exponents["L"])
        for name, exponent, truth in zip(hits, answers, (p, a, w, p), strict=True):
            hits[name] += exponent.low <= truth <= exponent.high
        unbounded += "correction_power" in {note.code for note in fit.notes}
    shares = {name: float(hit / draws) for name, hit in hits.items()}
    print(shares, "unbounded:", unbounded / draws)


def lost_minima(draws: int, salt: int) -> None:
    """Fits of scaling forms whose minimum is worse than one that is near the exact values."""
    losses = []
    for name, plan in FORMS.items():
        for number in range(draws):
            draw = plan(source(name, number, salt))
            losses.append(lost(ours(draw), draw.truth))
            if losses[-1] > 0.01:
                print(f"{name} {number}: {losses[-1]:.2f}")
    print(f"{sum(loss > 0.01 for loss in losses)} of {len(losses)} minima lost")


def main() -> None:
    """Print one row per family and the totals."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=20, help="data sets per family")
    parser.add_argument("--salt", type=int, default=1, help="another number gives other draws")
    parser.add_argument(
        "--families",
        nargs="*",
        choices=[*FAMILIES, *FORMS],
        metavar="NAME",
        help="all by default, or with --perturb one of each kind: " + ", ".join(FAMILIES),
    )
    parser.add_argument("--forms", action="store_true", help="the families of scaling forms")
    parser.add_argument(
        "--minima", action="store_true", help="does the search find the minimum of each form?"
    )
    parser.add_argument("--rivals", action="store_true", help="compare with the quality S")
    parser.add_argument("--powers", action="store_true", help="fit the power of a correction")
    parser.add_argument(
        "--perturb", action="store_true", help="halve and double every setting; resumable"
    )
    parser.add_argument(
        "--lines",
        type=Path,
        default=Path("results/collapse_perturbation.jsonl"),
        help="file of --perturb, one line per fit",
    )
    parser.add_argument(
        "--published",
        type=Path,
        metavar="FOLDER",
        help="compare with other tools on published data",
    )
    args = parser.parse_args()
    known = FORMS if args.forms else FAMILIES
    families = args.families or list(known)
    if args.published is not None:
        for line in published.table(args.published):
            print(line, flush=True)
    elif args.powers:
        correction_powers(args.draws, args.salt)
    elif args.minima:
        lost_minima(args.draws, args.salt)
    elif args.rivals:
        compare([name for name in families if name in ONE_CONTROL], args.draws, args.salt)
    elif args.perturb:
        chosen = args.families or list(perturb.REPRESENTATIVE)
        perturb.run(args.lines, chosen, args.draws, args.salt)
        print("\n".join(perturb.table(perturb.read_lines(args.lines))))
    else:
        scores = {}
        for name in families:
            scores[name] = score_family(name, args.draws, salt=args.salt, families=known)
            print(".", end="", flush=True, file=sys.stderr)
        print(file=sys.stderr)
        print("\n".join(table(scores)))


if __name__ == "__main__":
    main()
