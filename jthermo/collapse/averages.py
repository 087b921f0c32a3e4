"""From curves to the numbers of the fit: binned means, deviations, and knowable directions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy.linalg import block_diag

from jthermo.collapse.likelihood import Means
from jthermo.collapse.noise_covariance import Replicates
from jthermo.collapse.read import Curves, LeftOut

TOTAL_BINS = 330  # bins over all conditions: more cost time and tell nothing new
FEWEST_BINS = 20
OUTLIER = 5.0  # robust standard deviations, root mean square along the curve


@dataclass(frozen=True)
class Term:
    """One unknown a of the fit: it multiplies τ, or the value where `height`, by exp(a·column).

    Attributes:
        name: of the unknown.
        column: at the conditions, centred, (K,).
        height: whether it scales the value in place of τ.
    """

    name: str
    column: np.ndarray
    height: bool = False


def terms(curves: Curves, rescale: tuple[str, ...], corrections: tuple[Correction, ...]) -> tuple[Term, ...]:
    """The exponent of every control, then amplitudes of corrections, then exponents of the value's scale."""
    logs = np.array([c.log_controls for c in curves.conditions])
    column = dict(zip(curves.controls, (logs - logs.mean(axis=0)).T, strict=True))
    return (
        *(Term(name, column[name]) for name in curves.controls),
        *(Term(each.name, each.column(curves)) for each in corrections),
        *(Term(f"value_{name}", column[name], height=True) for name in rescale),
    )


@dataclass(frozen=True)
class Correction:
    """A leading correction to scaling: τ = t·Π cᵖ·exp(a·(c/c₀)ʷ), that is 1 + a·(c/c₀)ʷ where it is small.

    Attributes:
        control: c.
        power: w.
        reference: c₀, the value where the correction is largest.
    """

    control: str
    power: float
    reference: float

    @property
    def name(self) -> str:
        """The name of a among the exponents."""
        return f"correction_{self.control}"

    @property
    def power_name(self) -> str:
        """The name of w among the exponents, where it is fitted."""
        return f"power_{self.control}"

    def size(self, control: np.ndarray | float, power: float | None = None) -> np.ndarray:
        """(c/c₀)ʷ, with another w where one is given."""
        ratio = np.asarray(control, dtype=float) / self.reference
        return ratio ** (self.power if power is None else power)

    def column(self, curves: Curves, power: float | None = None) -> np.ndarray:
        """Its size at the conditions, centred, (K,)."""
        column = curves.controls.index(self.control)
        size = self.size(np.exp([c.log_controls[column] for c in curves.conditions]), power)
        return size - size.mean()


@dataclass(frozen=True)
class Directions:
    """Which unknowns the values of the controls can tell apart.

    With the centred columns C (K, P) of the free terms only C·p enters, that of the shifts and that of the
    heights apart. `basis` (P, r) spans the row space of C, so p = basis·θ + anything in the null space.

    Attributes:
        free: names of the terms that are not fixed, shifts first.
        basis: (P, r) orthonormal; the identity when every free term can be told apart.
        known: whether each free unknown is determined by θ alone, (P,).
        shifts: columns of the shifts' directions, (K, r₁).
        heights: of the heights', (K, r − r₁).
    """

    free: tuple[str, ...]
    basis: np.ndarray
    known: np.ndarray
    shifts: np.ndarray
    heights: np.ndarray

    def position(self, name: str) -> int:
        """Which component of θ a known unknown is."""
        return int(np.argmax(np.abs(self.basis[self.free.index(name)])))


def directions(unknown: tuple[Term, ...], fixed: dict[str, float]) -> Directions:
    """Rank of the free terms; a constant control, or two that only vary together, lose a direction."""
    free = [term for term in unknown if term.name not in fixed]
    bases, columns = [], []
    for height in (False, True):
        part = [term.column for term in free if term.height == height]
        column = np.array(part).reshape(len(part), -1).T if part else np.zeros((len(unknown[0].column), 0))
        bases.append(_row_space(column))
        columns.append(column @ bases[-1])
    basis = block_diag(*bases)
    known = np.sum(basis**2, axis=1) > 1 - 1e-12
    return Directions(tuple(term.name for term in free), basis, known, *columns)


def _row_space(columns: np.ndarray) -> np.ndarray:
    """Orthonormal basis (P, r), with an axis of its own for each column that is independent of all others."""
    number = columns.shape[1]
    if not number:
        return np.zeros((0, 0))
    _, singular, rows = np.linalg.svd(columns, full_matrices=False)
    rank = int(np.sum(singular > 1e-9 * max(singular.max(initial=0.0), 1e-9)))
    alone = np.sum(rows[:rank] ** 2, axis=0) > 1 - 1e-12
    mixed = np.linalg.svd(rows[:rank] * ~alone)[2][: rank - alone.sum()]
    return np.column_stack([np.eye(number)[:, alone], mixed.T])


@dataclass(frozen=True)
class Prepared:
    """Everything the fit computes with; values are divided by `scale` after subtracting `centre`."""

    means: Means
    replicates: Replicates
    share: (
        np.ndarray
    )  # (N, N): n_ij/(n_i n_j), what makes the covariance of a mean out of that of a replicate
    levels: dict[str, np.ndarray]  # control → its centred logs at the conditions, the fixed ones too
    scale: float
    centre: float


def prepare(curves: Curves, unknown: tuple[Term, ...], ways: Directions, fixed: dict[str, float]) -> Prepared:
    """Average over replicates and bins."""
    number = len(curves.conditions)
    per_curve = max(FEWEST_BINS, TOTAL_BINS // number)
    held = np.zeros((2, number))
    for term in unknown:
        held[int(term.height)] += fixed.get(term.name, 0.0) * term.column
    xs, starts, means, conditions, rows, log_times = [], [], [], [], [], []
    total = 0
    for k, condition in enumerate(curves.conditions):
        start = _bins(condition.log_time, per_curve)
        binned = _bin_rows(condition.values, start)
        counts = np.isfinite(binned).sum(axis=0)
        means.append(np.nansum(binned, axis=0) / np.maximum(counts, 1))
        rows.append(binned)
        xs.append(condition.log_time)
        size = np.diff(np.r_[start, len(condition.log_time)])
        log_times.append(np.add.reduceat(condition.log_time, start) / size)
        starts.append(start + total)
        conditions.append(np.full(len(start), k))
        total += len(condition.log_time)
    per_point = np.concatenate([np.full(len(x), k) for k, x in enumerate(xs)])
    mean = np.concatenate(means)
    scale = float(np.ptp(mean)) or float(np.abs(mean).max()) or 1.0
    scaled = any(term.height for term in unknown)
    centre = 0.0 if scaled else float(np.median(mean))  # a factor moves everything but 0
    condition_of = np.concatenate(conditions)
    assembled = Means(
        x=np.concatenate(xs) + held[0][per_point],
        log_time=np.concatenate(log_times),
        controls=ways.shifts[per_point],
        starts=np.concatenate(starts),
        mean=(mean - centre) / scale,
        condition=condition_of,
        heights=ways.heights[condition_of],
        log_height=held[1][condition_of],
    )
    replicates, share = _replicates(curves, rows, means, condition_of, scale)
    levels = {term.name: term.column for term in unknown[: len(curves.controls)]}
    return Prepared(assembled, replicates, share, levels, scale, centre)


def _bins(x: np.ndarray, most: int) -> np.ndarray:
    """First point of each bin: equal steps of log t, never splitting evenly spaced points unevenly."""
    if len(x) <= most:
        return np.arange(len(x))
    step = np.median(np.diff(x))
    width = np.ceil(np.ptp(x) / most / step - 1e-9) * step * (1 - 1e-6)
    starts = [0]
    for i in range(1, len(x)):
        if x[i] - x[starts[-1]] >= width:
            starts.append(i)
    return np.array(starts)


def _bin_rows(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    finite = np.isfinite(values)
    total = np.add.reduceat(np.where(finite, values, 0.0), starts, axis=1)
    number = np.add.reduceat(finite.astype(int), starts, axis=1)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def _replicates(
    curves: Curves, rows: list[np.ndarray], means: list[np.ndarray], condition: np.ndarray, scale: float
) -> tuple[Replicates, np.ndarray]:
    """Deviations by label over all conditions, and n_ij/(n_i n_j) of the means."""
    paired = curves.paired
    if paired:
        labels = np.unique(np.concatenate([c.labels for c in curves.conditions]))
        place = [np.searchsorted(labels, c.labels) for c in curves.conditions]
        number = len(labels)
    else:
        edges = np.cumsum([0, *(len(c.labels) for c in curves.conditions)])
        place = [np.arange(a, b) for a, b in pairwise(edges)]
        number = int(edges[-1])
    deviations = np.zeros((number, len(condition)))
    present = np.zeros((number, len(condition)), bool)
    for k, (binned, mean) in enumerate(zip(rows, means, strict=True)):
        where = np.ix_(place[k], np.flatnonzero(condition == k))
        finite = np.isfinite(binned)
        deviations[where] = np.where(finite, (binned - mean) / scale, 0.0)
        present[where] = finite
    counts = present.sum(axis=0)
    together = present.T.astype(float) @ present
    share = together / np.outer(counts, counts)
    return Replicates(deviations, present, counts, paired), share


def without_outliers(curves: Curves) -> Curves:
    """Leave out replicates that lie far from their fellows: stuck, or from another law.

    The distance is the root mean square along the curve of (value − median over replicates)/(1.4826·MAD),
    with the MAD pooled over conditions when there are few replicates; offsets make it a |N(0, 1)|, so 5 is
    far out for any memory of the noise.
    """
    kept, left_out = [], list(curves.left_out)
    spreads = []
    for condition in curves.conditions:
        distance = np.abs(condition.values - np.nanmedian(condition.values, axis=0))
        enough = len(condition.values) >= 3
        spreads.append(
            1.4826 * np.sqrt(np.nanmean(np.nanmedian(distance, axis=0) ** 2)) if enough else np.nan
        )
    pooled = np.nanmedian(spreads) if np.isfinite(spreads).any() else np.nan
    for condition, spread in zip(curves.conditions, spreads, strict=True):
        number = len(condition.values)
        if number < 4 or not np.isfinite(pooled):
            kept.append(condition)
            continue
        distance = condition.values - np.nanmedian(condition.values, axis=0)
        own = (number * spread**2 + 8 * pooled**2) / (number + 8)
        size = np.sqrt(np.nanmean(distance**2, axis=1) / max(own, 1e-300))
        far = (size > OUTLIER) & (size > 3 * np.median(size))
        if not far.any() or far.mean() > 0.4:
            kept.append(condition)
            continue
        setting = dict(zip(curves.controls, np.exp(condition.log_controls).tolist(), strict=True))
        left_out += [
            LeftOut(setting, curves.label_names[label], "outlier") for label in condition.labels[far]
        ]
        kept.append(replace(condition, values=condition.values[~far], labels=condition.labels[~far]))
    return replace(curves, conditions=tuple(kept), left_out=tuple(left_out))
