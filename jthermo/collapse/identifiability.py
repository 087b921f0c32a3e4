"""What the data determine: directions of the exponents in which another value would do nearly as well.

A fitted exponent says nothing where the curve is flat, where the curves meet only by extrapolation, or where
a shift by a whole feature fits as well. So the objective is followed along the eigenvectors of its Hessian
through the whole range of exponents; the information is compared with that of a curve without a roughness
penalty, which extrapolates nothing; and other minima are judged by their residuals alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jthermo.collapse.likelihood import Lattice, Model, Solution, penalty
from jthermo.collapse.result import Note

FAR_POINTS = 16  # on each line through the best exponents
AS_GOOD = 5.0  # log likelihood lost; a quadratic would lose 8 at twice the 95 % interval
FEATURES = 6.0  # χ² that each number of the curve must gain over a constant
AT_END = 1.92  # log likelihood lost at the end of a 95 % interval
WIDE = 0.25  # share of the range on either side beyond which nothing is known
RIVAL = 30.0  # log likelihood lost, beyond which a rival is none: less overlap costs some, misfit more
EXTRAPOLATED = 4.0  # ratio of standard errors without and with the penalty
FREE_CELLS = 24  # of the curve without penalty, on the length of one record
OVERLAP = 0.25  # of a curve that must lie over others
APART = 0.1  # of all records, over which others must lie: curves that hardly touch fit at any exponent


@dataclass(frozen=True)
class Identified:
    """Orthonormal directions of θ in columns, which of them are determined, how far beyond its standard error an
    interval must reach to either side, and why others are not determined.
    """

    axes: np.ndarray
    known: np.ndarray
    reaches: np.ndarray
    notes: tuple[Note, ...]


def identify(
    model: Model,
    best: Solution,
    rivals: list[Solution],
    spread: np.ndarray,
    t: float,
    bounds: np.ndarray,
) -> Identified:
    """Judge every direction of θ.

    Args:
        model: the final one.
        best: its best solution.
        rivals: other minima, at their bottoms.
        spread: covariance of θ.
        t: quantile of the intervals.
        bounds: range of θ that was searched.
    """
    num = len(best.theta)
    if not num:
        return Identified(np.zeros((0, 0)), np.zeros(0, bool), np.zeros((0, 2)), ())
    hessian, _ = model.information(best)
    _, axes = np.linalg.eigh(hessian)
    known = np.ones(num, bool)
    reaches = np.zeros((num, 2))
    notes: list[Note] = []
    loose, flat = _without_penalty(model, best), _featureless(model, best)
    if flat:
        notes.append(
            Note("flat_curve", "a constant fits as well as any curve, so nothing tells how to shift it")
        )
    for d, axis in enumerate(axes.T):
        error = np.sqrt(max(axis @ spread @ axis, 0.0))
        extrapolated = axis @ loose @ axis * EXTRAPOLATED**2 < axis @ hessian @ axis
        known[d] = np.isfinite(error) and not extrapolated and not flat
        if known[d]:
            reach = _reach(model, best, axis, t * error, bounds)
            known[d] = reach is not None
            reaches[d] = reach or (0.0, 0.0)
    overlaps = _overlaps(model, best)
    if overlaps.min() < OVERLAP:
        notes.append(
            Note(
                "poor_overlap",
                f"a curve has only {100 * overlaps.min():.0f} % of its length in common with others at the best fit",
            )
        )
        known &= overlaps.mean() > APART
    width = np.ptp(bounds, axis=1)
    if np.any(np.minimum(best.theta - bounds[:, 0], bounds[:, 1] - best.theta) < 1e-3 * width):
        notes.append(Note("at_bound", f"an exponent ran to the end of the range searched, {bounds.tolist()}"))
        known &= np.abs(axes.T @ (np.abs(best.theta) / np.maximum(bounds[:, 1], 1e-9) > 0.998)) < 0.1
    for rival in rivals:
        if _fits_as_well(model, best, rival):
            away = np.abs(axes.T @ (rival.theta - best.theta))
            known &= away < 0.1 * away.max()
            where = np.array2string(rival.theta, precision=4)
            notes.append(
                Note("second_minimum", f"exponents {where} fit nearly as well as {best.theta.round(4)}")
            )
            break
    return Identified(axes, known, reaches, tuple(notes))


def _reach(
    model: Model, best: Solution, axis: np.ndarray, half: float, bounds: np.ndarray
) -> tuple[float, float] | None:
    """How far the interval must reach along a line, (low, high) as steps from the best; None if anywhere.

    Mostly f is a parabola, and ± half will do: (0, 0). Where f is flatter, the steps at which it has lost what it
    should at the interval's ends. Where it comes back down beyond a rise, or stays low up to the end of the range
    or over much of it, nothing is known.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.where(axis[:, None] != 0, (bounds - best.theta[:, None]) / axis[:, None], np.inf)
    ends = np.sort(np.where(np.isfinite(steps), steps, np.array([-np.inf, np.inf])), axis=1)
    low, high = ends[:, 0].max(), ends[:, 1].min()
    if 2 * half > 0.8 * max(high, -low):
        return None  # the interval is as wide as the range itself

    def lost(step: float) -> float:
        return model.solve(best.theta + step * axis).objective - best.objective

    far = [step for step in np.linspace(low, high, FAR_POINTS) if abs(step) > 2 * half]
    if all(lost(step) >= AS_GOOD for step in far):
        return 0.0, 0.0
    found = []
    for end in (low, high):
        line = np.linspace(0.0, end, FAR_POINTS + 1)
        loss = np.array([lost(step) for step in line])
        out = np.flatnonzero(loss >= AS_GOOD)
        if not len(out) or np.any(loss[out[0] :] < AS_GOOD) or abs(line[out[0]]) > WIDE * (high - low):
            return None
        inside = np.interp(AT_END, np.maximum.accumulate(loss[: out[0] + 1]), np.abs(line[: out[0] + 1]))
        found.append(float(inside) if inside > half else 0.0)
    return -found[0], found[1]


def _featureless(model: Model, best: Solution) -> bool:
    """Whether a constant would do: then the shifts follow the noise. A curve of q numbers gains about q by chance."""
    target = model.whiten(model.means.mean)
    level = model.whiten(model.means.height(best.theta)[:, None])[:, 0]
    constant = target @ target - (level @ target) ** 2 / (level @ level)
    left, freedom = _residual(model, best)
    return bool(constant - left < FEATURES * (len(target) - freedom))


def _without_penalty(model: Model, best: Solution) -> np.ndarray:
    """Information on θ when the curve is free in every cell of a lattice, (P, P)."""
    means = model.means
    length = np.median([np.ptp(means.log_time[means.condition == k]) for k in np.unique(means.condition)])
    at = means.log_tau(best.theta)
    lattice = Lattice(max((length or 1.0) / FREE_CELLS, model.lattice.spacing))
    basis = model.whiten(means.basis(lattice, best.theta, lattice.span(at)))
    white = model.whiten(model.gradient(best))
    left = white - basis @ np.linalg.lstsq(basis, white, rcond=1e-8)[0]
    return left.T @ left


def _overlaps(model: Model, best: Solution) -> np.ndarray:
    """Share of each curve's records that lie within the span of another curve, (K,)."""
    at = model.means.binned(model.means.log_tau(best.theta))
    condition = model.means.condition
    parts = [at[condition == k] for k in np.unique(condition)]
    shares = []
    for k, mine in enumerate(parts):
        covered = np.zeros(len(mine), bool)
        for j, other in enumerate(parts):
            if j != k:
                covered |= (mine >= other.min()) & (mine <= other.max())
        shares.append(covered.mean())
    return np.array(shares)


def _fits_as_well(model: Model, best: Solution, rival: Solution) -> bool:
    """Residuals no larger than chance allows, over an overlap in which the curve has half its features."""
    if rival.objective > best.objective + RIVAL:
        return False
    (size, freedom), (other, other_freedom) = (_residual(model, s) for s in (best, rival))
    if min(freedom, other_freedom) < 5:
        return False
    if other / other_freedom > size / freedom * (1 + 3 * np.sqrt(2 / other_freedom)):
        return False
    at = model.means.binned(model.means.log_tau(rival.theta))
    condition = model.means.condition
    spans = [(at[condition == k].min(), at[condition == k].max()) for k in np.unique(condition)]
    shared = np.sum([(at >= low) & (at <= high) for low, high in spans], axis=0) >= 2
    if _overlaps(model, rival).min() < OVERLAP or not shared.any():
        return False
    return bool(np.ptp(rival.fitted[shared]) > 0.5 * np.ptp(rival.fitted))


def _residual(model: Model, solution: Solution) -> tuple[float, float]:
    """Weighted sum of squares and its degrees of freedom."""
    resid = model.whiten(model.means.mean) - solution.whitened_basis @ solution.beta
    gram = solution.whitened_basis.T @ solution.whitened_basis
    used = np.trace(np.linalg.solve(gram + model.stiffness * penalty(solution.span[1]), gram))
    return float(resid @ resid), float(len(resid) - used)
