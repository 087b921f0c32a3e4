"""The score of a fitter on the families: coverage, sharpness, verdicts, admissions, time."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from jthermo.collapse import CollapseFit, fit_collapse
from jthermo.collapse.settings import DEFAULT, Settings
from scripts.collapse_study.families import FAMILIES, Draw, Family
from scripts.collapse_study.rivals import Answer

ALPHA = 0.05
# Expected interval score of the exact 95 % interval of a normal with standard deviation 1.
BEST_SCORE = 4.676

Fitter = Callable[[Draw], CollapseFit | Answer]


def ours(draw: Draw, settings: Settings = DEFAULT) -> CollapseFit:
    """The fitter under test."""
    return fit_collapse(draw.table, draw.controls, **draw.options, settings=settings)


@dataclass
class Score:
    """What happened to one family.

    Attributes:
        draws: data sets.
        hits: per exponent with a truth, whether the interval holds it.
        scores: interval scores over that of the bound.
        errors: errors over the bound.
        p_values: of the verdicts.
        accepted: verdicts "collapse".
        refused: verdicts "no collapse".
        undecided: verdicts "cannot be said".
        admitted: hidden controls that are called not identifiable.
        hidden: hidden controls.
        wrongly_hidden: exponents with a truth that are called not identifiable.
        silent_misses: intervals that miss without the note drifting_exponent.
        drifting: fits with that note.
        crashes: fits that raised an error.
        seconds: processor time of each fit.
    """

    draws: int = 0
    hits: list[bool] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    p_values: list[float] = field(default_factory=list)
    accepted: int = 0
    refused: int = 0
    undecided: int = 0
    admitted: int = 0
    hidden: int = 0
    wrongly_hidden: int = 0
    silent_misses: int = 0
    drifting: int = 0
    crashes: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def coverage(self) -> float:
        """Share of intervals that hold the truth."""
        return float(np.mean(self.hits)) if self.hits else math.nan

    @property
    def rmse(self) -> float:
        """Root mean square error in units of the bound."""
        return float(np.sqrt(np.mean(np.square(self.errors)))) if self.errors else math.nan

    @property
    def interval_score(self) -> float:
        """Mean interval score in units of that of the bound."""
        return float(np.mean(self.scores)) if self.scores else math.nan


def source(name: str, number: int, salt: int = 0) -> np.random.Generator:
    """The random stream of one draw. It depends on family, number and salt only."""
    return np.random.default_rng([zlib.crc32(name.encode()), number, salt])


def score_family(
    name: str,
    draws: int,
    fitter: Fitter = ours,
    salt: int = 0,
    families: Mapping[str, Family] = FAMILIES,
) -> Score:
    """Fit `draws` fresh data sets of a family."""
    score = Score()
    for number in range(draws):
        draw = families[name](source(name, number, salt))
        begun = time.process_time()
        score.draws += 1
        try:
            fit = fitter(draw)
        except Exception:
            score.crashes += 1
            continue
        score.seconds.append(time.process_time() - begun)
        add(score, draw, fit)
    return score


def add(score: Score, draw: Draw, fit: CollapseFit | Answer) -> None:
    """Add one fit to the score."""
    score.p_values.append(fit.p_value)
    score.accepted += fit.collapsed is True
    score.refused += fit.collapsed is False
    score.undecided += fit.collapsed is None
    drifting = "drifting_exponent" in {note.code for note in fit.notes}
    score.drifting += drifting
    for name in draw.hidden:
        score.hidden += 1
        score.admitted += not fit.identifiable[name]
    for name, truth in draw.truth.items():
        exponent = fit.exponents[name]
        hit = exponent.low <= truth <= exponent.high
        score.hits.append(hit)
        score.silent_misses += not hit and not drifting
        if not fit.identifiable[name]:
            score.wrongly_hidden += 1
        elif name in draw.bound:
            bound = draw.bound[name]
            miss = max(exponent.low - truth, truth - exponent.high, 0.0)
            width = exponent.high - exponent.low
            score.scores.append((width + 2 / ALPHA * miss) / (BEST_SCORE * bound))
            score.errors.append((exponent.value - truth) / bound)


def kind(family: str) -> str:
    """What the verdict on a family should be: "true", "false", "hidden" or "correction"."""
    first = family.split("_")[0]
    return first if first in ("false", "hidden", "correction") else "true"


def table(scores: dict[str, Score]) -> Iterable[str]:
    """The scores as lines of text: one row per family, then the totals."""
    yield (
        f"{'family':<22}{'cover':>7}{'score':>7}{'rmse':>7}{'accept':>8}{'refuse':>8}{'?':>4}"
        f"{'admit':>8}{'lost':>6}{'drift':>7}{'silent':>8}{'crash':>7}{'ms':>6}"
    )
    for name, s in scores.items():
        yield (
            f"{name:<22}{s.coverage:>7.3f}{s.interval_score:>7.2f}{s.rmse:>7.2f}"
            f"{s.accepted:>8}{s.refused:>8}{s.undecided:>4}{f'{s.admitted}/{s.hidden}':>8}"
            f"{s.wrongly_hidden:>6}{s.drifting:>7}{s.silent_misses:>8}{s.crashes:>7}"
            f"{1000 * float(np.median(s.seconds or [0])):>6.0f}"
        )
    yield ""
    yield from _totals(scores)


def _totals(scores: dict[str, Score]) -> Iterable[str]:
    """The numbers that docs/collapse.md states."""
    true = [s for name, s in scores.items() if kind(name) == "true"]
    false = [s for name, s in scores.items() if kind(name) == "false"]
    corrected = [s for name, s in scores.items() if kind(name) == "correction"]
    if true:
        hits = [hit for s in true for hit in s.hits]
        worst = min(s.coverage for s in true)
        bounded = [s for s in true if s.errors]
        score, rmse = (
            np.median([getattr(s, name) for s in bounded]) if bounded else math.nan
            for name in ("interval_score", "rmse")
        )
        p = np.array([p for s in true for p in s.p_values])
        shares = ", ".join(f"{np.mean(p < a):.4f} < {a}" for a in (0.003, 0.01, 0.05, 0.1, 0.5))
        yield f"coverage over all     {np.mean(hits):.3f} of {len(hits)}; worst {worst:.3f}"
        yield f"interval score        {score:.3f} × the bound's (median)"
        yield f"rmse                  {rmse:.3f} × the bound (median)"
        yield f"true collapses        {_sum(true, 'accepted')} of {_sum(true, 'draws')} accepted"
        yield f"their p-values        {shares}"
    everyone = list(scores.values())
    admitted, hidden = _sum(everyone, "admitted"), _sum(everyone, "hidden")
    silent, draws = _sum(corrected, "silent_misses"), _sum(corrected, "draws")
    yield f"false collapses       {_sum(false, 'refused')} of {_sum(false, 'draws')} refused"
    yield f"hidden controls       {admitted} of {hidden} admitted"
    yield f"corrections           {silent} silent misses of {draws}"
    yield f"drift wrongly seen    {_sum(true, 'drifting')} of {_sum(true, 'draws')}"
    yield f"crashes               {_sum(everyone, 'crashes')}"
    seconds = [second for s in everyone for second in s.seconds]
    yield f"median time of a fit  {np.median(seconds):.3f} s"


def _sum(scores: list[Score], name: str) -> int:
    return sum(getattr(s, name) for s in scores)
