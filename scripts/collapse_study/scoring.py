"""The score of a fitter on the families: coverage, sharpness against the bound, verdicts, candour, time."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from jthermo.collapse import CollapseFit, fit_collapse
from jthermo.collapse.settings import DEFAULT, Settings
from scripts.collapse_study.families import FAMILIES, Draw
from scripts.collapse_study.rivals import Answer

ALPHA = 0.05
BEST_SCORE = 4.676  # expected interval score of the exact 95 % interval of a normal with standard deviation 1

Fitter = Callable[[Draw], CollapseFit | Answer]


def ours(draw: Draw, settings: Settings = DEFAULT) -> CollapseFit:
    """The fitter under test."""
    return fit_collapse(draw.table, draw.controls, settings=settings)


@dataclass
class Score:
    """What happened to one family."""

    draws: int = 0
    hits: list[bool] = field(default_factory=list)  # one for each exponent with a truth
    scores: list[float] = field(default_factory=list)  # interval score over that of the bound
    errors: list[float] = field(default_factory=list)  # error over the bound
    p_values: list[float] = field(default_factory=list)
    accepted: int = 0
    refused: int = 0
    undecided: int = 0
    admitted: int = 0  # hidden controls called not identifiable
    hidden: int = 0
    wrongly_hidden: int = 0  # exponents with a truth called not identifiable
    silent_misses: int = 0  # intervals that miss without the note drifting_exponent
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
    """The random stream of one draw: it depends on its name and number only."""
    return np.random.default_rng([zlib.crc32(name.encode()), number, salt])


def score_family(name: str, draws: int, fitter: Fitter = ours, salt: int = 0) -> Score:
    """Fit `draws` fresh data sets of a family."""
    score = Score()
    for number in range(draws):
        draw = FAMILIES[name](source(name, number, salt))
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
    """Enter one fit."""
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
        found = fit.exponents[name]
        hit = found.low <= truth <= found.high
        score.hits.append(hit)
        score.silent_misses += not hit and not drifting
        if not fit.identifiable[name]:
            score.wrongly_hidden += 1
        elif name in draw.bound:
            bound = draw.bound[name]
            miss = max(found.low - truth, truth - found.high, 0.0)
            score.scores.append((found.high - found.low + 2 / ALPHA * miss) / (BEST_SCORE * bound))
            score.errors.append((found.value - truth) / bound)


def table(scores: dict[str, Score]) -> Iterable[str]:
    """The scores as lines of text: a row a family, then the bars."""
    yield (
        f"{'family':<22}{'cover':>7}{'score':>7}{'rmse':>7}{'accept':>8}{'refuse':>8}{'?':>4}"
        f"{'admit':>8}{'lost':>6}{'drift':>7}{'silent':>8}{'crash':>7}{'ms':>6}"
    )
    for name, s in scores.items():
        yield (
            f"{name:<22}{s.coverage:>7.3f}{s.interval_score:>7.2f}{s.rmse:>7.2f}{s.accepted:>8}{s.refused:>8}"
            f"{s.undecided:>4}{f'{s.admitted}/{s.hidden}':>8}{s.wrongly_hidden:>6}{s.drifting:>7}"
            f"{s.silent_misses:>8}{s.crashes:>7}{1000 * float(np.median(s.seconds or [0])):>6.0f}"
        )
    kinds = {n: n.split("_")[0] for n in scores}
    true = [s for n, s in scores.items() if kinds[n] not in ("false", "hidden", "correction")]
    false = [s for n, s in scores.items() if kinds[n] == "false"]
    hits = [h for s in true for h in s.hits]
    yield ""
    if true:
        yield f"coverage over all     {np.mean(hits):.3f} of {len(hits)}; worst {min(s.coverage for s in true):.3f}"
        bounded = [s for s in true if s.errors]
        yield f"interval score        {np.median([s.interval_score for s in bounded]):.3f} × the bound's (median)"
        yield f"rmse                  {np.median([s.rmse for s in bounded]):.3f} × the bound (median)"
        yield f"true collapses        {sum(s.accepted for s in true)} of {sum(s.draws for s in true)} accepted"
        p = np.array([p for s in true for p in s.p_values])
        shares = ", ".join(f"{np.mean(p < a):.4f} < {a}" for a in (0.003, 0.01, 0.05, 0.1, 0.5))
        yield f"their p-values        {shares}"
    yield f"false collapses       {sum(s.refused for s in false)} of {sum(s.draws for s in false)} refused"
    admitted, hidden = (sum(getattr(s, n) for s in scores.values()) for n in ("admitted", "hidden"))
    yield f"hidden controls       {admitted} of {hidden} admitted"
    corrected = [s for n, s in scores.items() if kinds[n] == "correction"]
    silent, draws = (sum(getattr(s, n) for s in corrected) for n in ("silent_misses", "draws"))
    yield f"corrections           {silent} silent misses of {draws}"
    yield f"drift wrongly seen    {sum(s.drifting for s in true)} of {sum(s.draws for s in true)}"
    yield f"crashes               {sum(s.crashes for s in scores.values())}"
    seconds = [t for s in scores.values() for t in s.seconds]
    yield f"median time of a fit  {np.median(seconds):.3f} s"
