"""Drift: local exponents of neighbouring controls and of windows of τ; are they equal?

Corrections to scaling bend the collapse: each pair of curves still coincides, but at an exponent of
its own. So the gradient of the fit along one exponent is cut into pieces, by intervals of the
control and by windows of log τ. Each piece gets its own deviation from the common exponent. All
deviations come from one linear step at the fit, with the covariance of the replicates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import special

from jthermo.collapse.likelihood import CurveLikelihood, Solution
from jthermo.collapse.scatter import Spread
from jthermo.collapse.settings import DEFAULT, Settings

# Ways to cut the data.
KINDS = ("between", "window")


@dataclass(frozen=True)
class Local:
    """The exponent of one control in a part of the data.

    Attributes:
        control: its name.
        kind: "between" two values of the control, or "window" of τ.
        low: lower end of the part.
        high: upper end.
        value: the exponent there.
        standard_error: its standard error.
    """

    control: str
    kind: str
    low: float
    high: float
    value: float
    standard_error: float

    def counted_from(self, log_unit: float) -> Local:
        """The same part in units of exp(−log_unit)."""
        # τ of a control near 1e300 can be larger than any float.
        with np.errstate(over="ignore"):
            factor = float(np.exp(log_unit))
        return replace(self, low=self.low * factor, high=self.high * factor)


@dataclass(frozen=True)
class Drift:
    """The local exponents and the p-values of their being equal.

    Attributes:
        table: local exponents.
        p_values: control → p-value.
        refused: whether the collapse is refused.
        settings: the constants of the fit.
    """

    table: tuple[Local, ...]
    p_values: dict[str, float]
    refused: bool
    settings: Settings = field(default=DEFAULT, repr=False)

    def caveat(self, control: str) -> str | None:
        """A sentence if the exponent of a control drifts, or may drift in a refused collapse."""
        if self._doubt(control) >= self.settings.drift_p_value:
            return None
        along = f"along the data (p = {self.p_values[control]:.2g}); see drift"
        if self.p_values[control] < self.settings.drift_p_value:
            return f"the exponent of {control} changes {along}"
        return f"the curves do not collapse, and the exponent of {control} may change {along}"

    def _doubt(self, control: str) -> float:
        """The p-value, divided by the odds of a drift if the collapse is refused."""
        odds = self.settings.drift_odds_if_refused if self.refused else 1.0
        return self.p_values.get(control, 1.0) / odds

    def spread(self, control: str) -> float:
        """Standard deviation that the interval takes in.

        It is that of the local exponents beyond their errors, times a weight from 0 to 1 that grows
        as the p-value falls.
        """
        whole, nothing = np.log(self.settings.drift_interval_p_values)
        plain = (nothing - np.log(self._doubt(control) + 1e-300)) / (nothing - whole)
        weight = np.clip(plain, 0.0, 1.0)
        if not weight:
            return 0.0
        largest = 0.0
        for kind in KINDS:
            part = [row for row in self.table if row.control == control and row.kind == kind]
            if len(part) > 1:
                largest = max(largest, _excess_variance(part))
        return float(weight * np.sqrt(largest))


def _excess_variance(part: list[Local]) -> float:
    """Variance of local exponents beyond that of their errors."""
    value = np.array([row.value for row in part])
    weight = np.array([row.standard_error**-2 for row in part])
    centre = weight @ value / weight.sum()
    excess = weight @ (value - centre) ** 2 - (len(part) - 1)
    return excess / (weight.sum() - weight @ weight / weight.sum())


SpreadOf = Callable[[np.ndarray], Spread]


def drift(
    likelihood: CurveLikelihood,
    best: Solution,
    names: tuple[str, ...],
    exponents: np.ndarray,
    logs: list[np.ndarray],
    spread_of: SpreadOf,
    refused: bool,
) -> Drift:
    """Local exponents of the named controls.

    Args:
        likelihood: the final one.
        best: its best solution.
        names: controls whose exponent is known.
        exponents: their exponents, (P,).
        logs: their centred logs at the conditions, (K,) each.
        spread_of: rows (G, N) → the spread of rows·means.
        refused: whether the collapse is refused.
    """
    means, settings = likelihood.means, likelihood.settings
    at = means.binned(means.log_tau(best.theta))
    slope = likelihood.pace(best)
    others = likelihood.gradient(best)
    table: list[Local] = []
    p_values: dict[str, float] = {}
    for name, exponent, level in zip(names, exponents, logs, strict=True):
        p_by_kind: dict[str, float] = {}
        cuts = (
            _between(level, means.condition, settings),
            _windows(level, means.condition, at, settings),
        )
        for kind, (pieces, edges) in zip(KINDS, cuts, strict=True):
            if len(edges) < 3:
                continue
            rows = _influence(likelihood, best, pieces * slope[:, None], others)
            local = rows @ (means.mean - best.fitted)
            spread = spread_of(rows)
            error = np.sqrt(np.maximum(np.diag(spread.covariance), 0.0))
            if not np.all(np.isfinite(error)) or np.any(error <= 0):
                continue
            p_by_kind[kind] = _p_value(local, spread, settings)
            number = np.sinh if kind == "window" and means.lead is not None else np.exp
            table += [
                Local(name, kind, float(number(a)), float(number(b)), float(exponent + x), float(e))
                for a, b, x, e in zip(edges[:-1], edges[1:], local, error, strict=True)
            ]
        if p_by_kind:
            p_values[name] = _combined(p_by_kind, settings)
    return Drift(tuple(table), p_values, refused, settings)


def _combined(p_by_kind: dict[str, float], settings: Settings) -> float:
    """One p-value of both kinds, by a weighted Bonferroni correction."""
    prior = {"between": settings.control_drift_weight, "window": 1.0}
    total = sum(prior[kind] for kind in p_by_kind)
    return float(min(1.0, *(p / (prior[kind] / total) for kind, p in p_by_kind.items())))


def _between(
    level: np.ndarray, condition: np.ndarray, settings: Settings
) -> tuple[np.ndarray, np.ndarray]:
    """Columns whose sum is log c, each growing between two values of c only; and the values."""
    edges = np.sort(level[np.unique(np.round(level, 9), return_index=True)[1]])
    most = settings.max_drift_pieces + 1
    if len(edges) > most:
        edges = edges[np.linspace(0, len(edges) - 1, most).astype(int)]
    steps = np.minimum(np.maximum(level[:, None], edges[:-1]), edges[1:]) - edges[:-1]
    return (steps - steps.mean(axis=0))[condition], edges


def _windows(
    level: np.ndarray, condition: np.ndarray, at: np.ndarray, settings: Settings
) -> tuple[np.ndarray, np.ndarray]:
    """Columns whose sum is log c, one per window of log τ; and the edges of the windows."""
    number = settings.drift_windows
    edges = np.quantile(at, [k / number for k in range(number + 1)])
    inside = np.searchsorted(edges[1:-1], at)
    centred = (level - level.mean())[condition]
    return centred[:, None] * (inside[:, None] == np.arange(number)), edges


def _influence(
    likelihood: CurveLikelihood, best: Solution, pieces: np.ndarray, others: np.ndarray
) -> np.ndarray:
    """Rows that estimate each piece's deviation from the residuals, with a free curve."""
    span = np.linalg.svd(pieces, full_matrices=False)[0]
    rest = others - span @ (span.T @ others)
    left, size, _ = np.linalg.svd(rest, full_matrices=False)
    kept = np.flatnonzero(size > 1e-6 * float(np.linalg.norm(others)))
    design = np.column_stack([pieces, left[:, kept]])
    white = likelihood.whiten(design)
    free = likelihood.project_out_curve(best, white)
    inverse = np.linalg.pinv(white.T @ free, rcond=1e-10, hermitian=True)
    return (likelihood.whiten.transposed(free) @ inverse).T[: pieces.shape[1]]


def _p_value(local: np.ndarray, spread: Spread, settings: Settings) -> float:
    """The p-value of equal local exponents: Wald's F of their differences and of their trend."""
    number = len(local)
    p_values = []
    for contrast in (np.diff(np.eye(number), axis=0), np.linspace(-1, 1, number)[None]):
        gap = contrast @ local
        inverse = np.linalg.pinv(contrast @ spread.covariance @ contrast.T, hermitian=True)
        statistic = float(gap @ inverse @ gap) / len(gap)
        p_values.append(float(special.fdtrc(len(gap), spread.degrees, statistic)))
    return min(1.0, settings.drift_tests * min(p_values))
