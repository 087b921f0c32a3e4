"""Does the exponent hold everywhere? Local exponents between neighbouring controls and in windows of τ.

Corrections to scaling bend the collapse: each pair of curves still falls on one another, at an exponent of its
own. So the gradient of the fit along one exponent is cut into pieces, by intervals of the control and by
windows of log τ, and each piece gets its own deviation from the common exponent, all in one linear step from
the fit, with the covariance of the replicates behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from jthermo.collapse.likelihood import Model, Solution
from jthermo.collapse.noise_fit import Spread

MOST_PIECES = 4
SIGNIFICANT = 0.05  # of the drift, for the note
WIDENS = (0.01, 0.03)  # p-values at which the interval takes in all of the drift, and nothing
SHARES = {"between": 3.0, "window": 1.0}  # what is thought of them beforehand: corrections go with a control
SUSPECT = 10.0  # how much likelier a drift is beforehand, where the curves miss each other


@dataclass(frozen=True)
class Local:
    """The exponent of one control in part of the data.

    Attributes:
        control: its name.
        kind: "between" two values of the control, or "window" of τ.
        low: lower end of the part.
        high: upper end.
        value: the effective exponent there.
        standard_error: its own.
    """

    control: str
    kind: str
    low: float
    high: float
    value: float
    standard_error: float

    def counted_from(self, log_unit: float) -> Local:
        """The same part in units of exp(−log_unit)."""
        factor = float(np.exp(log_unit))
        return replace(self, low=self.low * factor, high=self.high * factor)


@dataclass(frozen=True)
class Drift:
    """Table of local exponents and the p-value of their being equal, by control; `refused` where the curves
    miss each other beyond chance.
    """

    table: tuple[Local, ...]
    p_values: dict[str, float]
    refused: bool

    def caveat(self, control: str) -> str | None:
        """That the exponent of a control changes beyond chance, or may where the curves miss each other."""
        if self._doubt(control) >= SIGNIFICANT:
            return None
        along = f"along the data (p = {self.p_values[control]:.2g}); see drift"
        if self.p_values[control] < SIGNIFICANT:
            return f"the exponent of {control} changes {along}"
        return f"the curves miss each other, and the exponent of {control} may change {along}"

    def _doubt(self, control: str) -> float:
        """The p-value, less where a drift is likely beforehand."""
        return self.p_values.get(control, 1.0) / (SUSPECT if self.refused else 1.0)

    def spread(self, control: str) -> float:
        """Standard deviation of the local exponents beyond their errors, by as much as the drift is plain."""
        whole, nothing = np.log(WIDENS)
        plain = np.clip((nothing - np.log(self._doubt(control) + 1e-300)) / (nothing - whole), 0.0, 1.0)
        if not plain:
            return 0.0
        out = 0.0
        for kind in ("between", "window"):
            part = [row for row in self.table if row.control == control and row.kind == kind]
            if len(part) < 2:
                continue
            value = np.array([row.value for row in part])
            weight = np.array([row.standard_error**-2 for row in part])
            centre = weight @ value / weight.sum()
            excess = weight @ (value - centre) ** 2 - (len(part) - 1)
            out = max(out, excess / (weight.sum() - weight @ weight / weight.sum()))
        return float(plain * np.sqrt(out))


SpreadOf = Callable[[np.ndarray], Spread]


def drift(
    model: Model,
    best: Solution,
    names: tuple[str, ...],
    powers: np.ndarray,
    logs: list[np.ndarray],
    spread_of: SpreadOf,
    refused: bool,
) -> Drift:
    """Local exponents of the named controls.

    Args:
        model: the final one.
        best: its best solution.
        names: controls whose exponent is known.
        powers: their exponents, (P,).
        logs: their centred logs at the conditions, (K,) each.
        spread_of: rows (G, N) → the spread of rows·means.
        refused: whether the curves miss each other beyond chance.
    """
    means = model.means
    at = means.binned(means.log_tau(best.theta))
    slope = model.pace(best)
    others = model.gradient(best)
    table: list[Local] = []
    p_values: dict[str, float] = {}
    for name, power, level in zip(names, powers, logs, strict=True):
        found: dict[str, float] = {}
        for kind, pieces, edges in (
            ("between", *_between(level, means.condition)),
            ("window", *_windows(level, means.condition, at)),
        ):
            if len(edges) < 3:
                continue
            rows = _influence(model, best, pieces * slope[:, None], others)
            local = rows @ (means.mean - best.fitted)
            spread = spread_of(rows)
            error = np.sqrt(np.maximum(np.diag(spread.covariance), 0.0))
            if not np.all(np.isfinite(error)) or np.any(error <= 0):
                continue
            found[kind] = _p_value(local, spread.covariance, spread.degrees)
            table += [
                Local(name, kind, float(np.exp(a)), float(np.exp(b)), float(power + x), float(e))
                for a, b, x, e in zip(edges[:-1], edges[1:], local, error, strict=True)
            ]
        if found:
            shares = {kind: SHARES[kind] / sum(SHARES[each] for each in found) for kind in found}
            p_values[name] = float(min(1.0, *(p / shares[kind] for kind, p in found.items())))
    return Drift(tuple(table), p_values, refused)


def _between(level: np.ndarray, condition: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns whose sum is log c, each growing only between two of its values; and the values."""
    edges = np.sort(level[np.unique(np.round(level, 9), return_index=True)[1]])
    if len(edges) > MOST_PIECES + 1:
        edges = edges[np.linspace(0, len(edges) - 1, MOST_PIECES + 1).astype(int)]
    steps = np.minimum(np.maximum(level[:, None], edges[:-1]), edges[1:]) - edges[:-1]
    return (steps - steps.mean(axis=0))[condition], edges


def _windows(level: np.ndarray, condition: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns whose sum is log c, each for one third of log τ; and the edges of the thirds."""
    edges = np.quantile(at, [0, 1 / 3, 2 / 3, 1])
    inside = np.searchsorted(edges[1:-1], at)
    centred = (level - level.mean())[condition]
    return centred[:, None] * (inside[:, None] == np.arange(3)), edges


def _influence(model: Model, best: Solution, pieces: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Rows that estimate the deviation of each piece from the residuals, the curve being free to follow."""
    span = np.linalg.svd(pieces, full_matrices=False)[0]
    rest = others - span @ (span.T @ others)
    left, size, _ = np.linalg.svd(rest, full_matrices=False)
    kept = np.flatnonzero(size > 1e-6 * float(np.linalg.norm(others)))
    design = np.column_stack([pieces, left[:, kept]])
    white = model.whiten(design)
    free = model.project_out_curve(best, white)
    inverse = np.linalg.pinv(white.T @ free, rcond=1e-10, hermitian=True)
    return (model.whiten.transposed(free) @ inverse).T[: pieces.shape[1]]


def _p_value(local: np.ndarray, spread: np.ndarray, degrees: float) -> float:
    """Of all local exponents being equal: Wald's F of their differences, and that of their trend."""
    number = len(local)
    p = []
    for contrast in (np.diff(np.eye(number), axis=0), np.linspace(-1, 1, number)[None]):
        gap = contrast @ local
        form = float(gap @ np.linalg.pinv(contrast @ spread @ contrast.T, hermitian=True) @ gap) / len(gap)
        p.append(float(stats.f.sf(form, len(gap), degrees)))
    return min(1.0, 1.5 * min(p))
