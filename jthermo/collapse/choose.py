"""`compare`: which of several scaling laws do the curves obey?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special
from threadpoolctl import threadpool_limits

from jthermo.collapse.comparison import STATUSES, Comparison, FormScore
from jthermo.collapse.fit import fit_collapse
from jthermo.collapse.forms import Crossover, Form
from jthermo.collapse.outliers import without_outliers
from jthermo.collapse.prediction import Prediction, Records, predict
from jthermo.collapse.predictive_score import Judge, noise_for_all
from jthermo.collapse.read import read_curves, with_resolution
from jthermo.collapse.result import CollapseFit
from jthermo.collapse.settings import DEFAULT, Settings
from jthermo.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

Fitter = Callable[[Form], CollapseFit]


@dataclass(frozen=True)
class _Candidate:
    """The fits of a form, and what they predict together."""

    fits: tuple[CollapseFit, ...]
    prediction: Prediction

    @property
    def refused(self) -> bool:
        return any(fit.collapsed is False for fit in self.fits)

    @property
    def num_unknowns(self) -> int:
        """Number of fitted exponents and the like, without those of the curves."""
        return sum(len(fit.free) for fit in self.fits) + self.prediction.chosen

    @property
    def p_value(self) -> float:
        return min(1.0, len(self.fits) * min(fit.p_value for fit in self.fits))


def compare(
    data: xr.DataArray | pd.DataFrame,
    controls: Sequence[str] = ("learning_rate", "batch_size"),
    forms: Mapping[str, Form | Crossover] | None = None,
    *,
    time: str = "step",
    replicate: str | None = "seed",
    value: str = "value",
    error: str | xr.DataArray | None = None,
    time_resolution: float | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    settings: Settings = DEFAULT,
) -> Comparison:
    """Which of several scaling laws the curves obey, by the prediction of left-out replicates.

    Each form predicts every replicate from the others, S = −½ Σ (y − m)'Ω⁻¹(y − m). One is rejected
    if its own curves miss each other (p < 0.01), or if its score is worse than the highest beyond
    error and beyond what its further unknowns cost. Of those within one standard error of the
    highest, the one with the fewest numbers is called best, and the others that are not rejected
    are tied with it.

    Args:
        data: as for :func:`fit_collapse`.
        controls: names of the controls.
        forms: name → :class:`Form`, or :class:`Crossover` of two; "one clock" and "value scaled" by
            default.
        time: name of t.
        replicate: name of the replicate's label; None if each curve was recorded once.
        value: the table's column of values.
        error: published standard errors, which are the noise where there are no replicates.
        time_resolution: step of a discrete or coarse clock, as for :func:`fit_collapse`.
        confidence: of the fits' intervals, and with which a worse score rejects.
        seed: of the verdicts' random draws.
        settings: the constants of the fits.

    Returns:
        Comparison: the forms with their scores, ``best``, ``tied`` and ``rejected``.

    Raises:
        InputError: the input is wrong, or a form cannot be fitted. The message names the form.

    Example:
        >>> import numpy as np, pandas as pd
        >>> rng = np.random.default_rng(0)
        >>> rows = [
        ...     {"L": c, "seed": s, "step": t, "value": c / (1 + t * c) + 0.02 * rng.normal()}
        ...     for c in (1, 2, 4) for s in range(6) for t in np.geomspace(0.01, 30, 40)
        ... ]
        >>> forms = {"one clock": Form(), "value scaled": Form(rescale=["L"])}
        >>> answer = compare(pd.DataFrame(rows), ["L"], forms)
        >>> print(answer.best, answer.rejected)
        value scaled ('one clock',)
    """
    given = _checked(forms, controls)
    columns: dict[str, Any] = {
        "time": time,
        "replicate": replicate,
        "value": value,
        "error": error,
        "settings": settings,
    }

    def fitted(form: Form) -> CollapseFit:
        law = {field.name: getattr(form, field.name) for field in fields(form)}
        return fit_collapse(
            data,
            controls,
            **columns,
            **law,
            time_resolution=time_resolution,
            confidence=confidence,
            seed=seed,
        )

    reading = _reading(given)
    curves = with_resolution(read_curves(data, controls, **columns, form=reading), time_resolution)
    curves = without_outliers(curves, settings)
    with threadpool_limits(1, "blas"):
        records = Records.of(curves, reading, settings)
        candidates: dict[str, list[_Candidate]] = {}
        for name, form in given.items():
            try:
                candidates[name] = _candidates(records, form, fitted)
            except InputError as wrong:
                where = f"forms[{name!r}].{wrong.field}"
                raise InputError(where, wrong.value, wrong.remedy) from None
        return _judged(records, candidates, confidence)


def _checked(
    forms: Mapping[str, Form | Crossover] | None, controls: Sequence[str]
) -> dict[str, Form | Crossover]:
    """The forms, of which there must be one."""
    names = [controls] if isinstance(controls, str) else list(controls)
    if forms is None:
        return {"one clock": Form(), "value scaled": Form(rescale=names)}
    remedy = 'give Forms by name, such as {"one clock": Form(), "scaled": Form(rescale=["L"])}'
    if not isinstance(forms, Mapping) or not forms:
        raise InputError("forms", forms, remedy)
    for name, form in forms.items():
        if not isinstance(name, str) or not isinstance(form, Form | Crossover):
            raise InputError(f"forms[{name!r}]", form, remedy)
    return dict(forms)


def _reading(forms: Mapping[str, Form | Crossover]) -> Form:
    """How the common records are read: without windows, from a critical point if there is one.

    Values are compared by their logs if all forms do so, from the same number.
    """
    several = [(f,) if isinstance(f, Form) else (f.early, f.late) for f in forms.values()]
    laws = [law for each in several for law in each]
    given = next((law.critical_point for law in laws if law.critical_point is not None), None)
    critical = float(np.mean(given)) if isinstance(given, tuple) else given
    above = {law.log_above for law in laws}
    if len(above) == 1 and None not in above:
        offset = laws[0].offset if isinstance(laws[0].offset, float) else None
        return Form(critical_point=critical, scale="log", offset=offset)
    return Form(critical_point=critical)


def _candidates(records: Records, form: Form | Crossover, fitted: Fitter) -> list[_Candidate]:
    """The fits of a form: one, or one for each range of a crossover that is tried."""
    if isinstance(form, Crossover):
        if form.laws is None:
            return _crossovers(records, form, fitted)
        fits = tuple(fitted(law) for law in form.laws)
    else:
        fits = (fitted(form),)
    return [_Candidate(fits, predict(records, fits))]


def _crossovers(records: Records, crossover: Crossover, fitted: Fitter) -> list[_Candidate]:
    """Fits of both laws, below and above every range of the early clock that is tried."""
    powers = _early_powers(records, crossover, fitted)
    controls, clock = records.curves.controls, records.curves.clock
    origin = crossover.early.critical_point or 0.0
    shifts = records.log_controls @ [powers.get(name, 0.0) for name in controls]
    with np.errstate(invalid="ignore", divide="ignore"):
        places = np.concatenate(
            [
                np.log(clock.time(condition.log_time) - origin) + shift
                for condition, shift in zip(records.curves.conditions, shifts, strict=True)
            ]
        )
    shares = records.averages.settings.crossover_places
    edges = np.exp(np.quantile(places[np.isfinite(places)], shares))
    laws: tuple[dict[int, CollapseFit], ...] = ({}, {})
    refusal: InputError | None = None
    for i, edge in enumerate(edges.tolist()):
        for part, form in zip(laws, crossover.parted(edge, edge, powers), strict=True):
            try:
                part[i] = fitted(form)
            except InputError as wrong:
                # Too few records are left there.
                refusal = wrong
    early, late = laws
    pairs = [
        (early[i], late[j])
        for i, j in combinations_with_replacement(range(len(edges)), 2)
        if i in early and j in late
    ]
    if not pairs and refusal is not None:
        raise refusal
    return [_Candidate(pair, predict(records, pair, chosen=2)) for pair in pairs]


def _early_powers(records: Records, crossover: Crossover, fitted: Fitter) -> dict[str, float]:
    """Exponents of the early clock: those that are held, else by a fit of the first half."""
    controls = records.curves.controls
    held = {name: p for name, p in crossover.early.fixed.items() if name in controls}
    if len(held) == len(controls):
        return held
    times = np.concatenate([c.log_time for c in records.curves.conditions])
    middle = float(records.curves.clock.time(np.median(times)))
    window = crossover.early.window or (-np.inf if records.curves.clock.signed else 0.0, np.inf)
    try:
        fit = fitted(replace(crossover.early, window=(window[0], min(window[1], middle))))
    except InputError:
        return held
    known = {name: fit.exponents[name].value for name in controls}
    return {name: p for name, p in known.items() if math.isfinite(p)}


def _judged(
    records: Records, candidates: Mapping[str, list[_Candidate]], confidence: float
) -> Comparison:
    """The forms with their scores, in order."""
    settings = records.averages.settings
    every = [one.prediction for several in candidates.values() for one in several]
    judge = Judge(records, *noise_for_all(records, every))
    chosen: dict[str, _Candidate] = {}
    for name, several in candidates.items():
        holding = [one for one in several if not one.refused] or several
        chosen[name] = max(holding, key=lambda one: judge.score(one.prediction))
    scores = {name: judge.score(one.prediction) for name, one in chosen.items()}
    held = [name for name in chosen if not chosen[name].refused] or list(chosen)
    top = max(held, key=lambda name: scores[name])
    shared = max(fit.common_noise for fit in chosen[top].fits)
    ahead = chosen[top].prediction
    judge = judge.with_common(shared, ahead)
    lags = {name: _Lag.of(judge, one.prediction, ahead) for name, one in chosen.items()}
    close = [name for name in held if lags[name].size <= lags[name].error]
    best = min(close, key=lambda name: chosen[name].prediction.num_fitted)
    rows = []
    for name, one in chosen.items():
        lag, numbers = lags[name], one.prediction.num_fitted
        if one.refused:
            status, reason = "rejected", f"its curves miss each other (p = {one.p_value:.2g})"
        elif name == best:
            status, reason = "best", "predicts best"
            if name != top:
                reason = f"predicts as well as {top}, and is simpler"
        elif lag.size <= (allowed := max(lag.allowed(confidence), settings.limit_loss)):
            status, reason = "tied", "predicts as well, within error"
        # A law that contains the true one loses no more than one for each further unknown.
        elif lag.size <= allowed + max(one.num_unknowns - chosen[top].num_unknowns, 0):
            status, reason = "tied", "holds as well, with more unknowns than the data need"
        else:
            status, reason = "rejected", "predicts worse"
        gap = scores[name] - scores[best]
        error, _ = judge.error(one.prediction, chosen[best].prediction)
        rows.append(FormScore(name, status, reason, gap, error, numbers, one.p_value, one.fits))

    def place(row: FormScore) -> tuple[bool, int, float]:
        within = row.num_fitted if row.status == "tied" else -row.score
        return row.name != best, STATUSES.index(row.status), within

    return Comparison(
        forms=tuple(sorted(rows, key=place)),
        no_law=judge.score(records.own) - scores[best],
        no_law_error=judge.error(records.own, chosen[best].prediction)[0],
        num_no_law=records.own.num_fitted,
        replicates=judge.replicated,
        confidence=confidence,
    )


@dataclass(frozen=True)
class _Lag:
    """How much worse a prediction is than the best one, its standard error and degrees."""

    size: float
    error: float
    degrees: float

    @classmethod
    def of(cls, judge: Judge, prediction: Prediction, top: Prediction) -> _Lag:
        return cls(judge.score(top) - judge.score(prediction), *judge.error(prediction, top))

    def allowed(self, confidence: float) -> float:
        """The largest lag that is within error."""
        return float(special.stdtrit(self.degrees, 0.5 + confidence / 2)) * self.error
