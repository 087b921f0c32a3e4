"""What a fitted law predicts for the records, and how that follows from the records themselves.

Laws with other windows, clocks or scales are fitted to other numbers, so they are compared on the
same ones: the bins of the data that are read without a law. A prediction is the value in every bin
and its derivative H with respect to all bins. Outside the windows of its laws a form says nothing,
so there every condition has a smooth curve of its own.

With H the prediction for a replicate that was left out follows without another fit. Leaving it out
changes the means by δ, and the prediction by Hδ. The trace of H is the number of fitted numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from jthermo.collapse import linalg
from jthermo.collapse.averages import Averages, average
from jthermo.collapse.forms import Form
from jthermo.collapse.likelihood import CurveLikelihood, Solution, Whitener
from jthermo.collapse.means import Means
from jthermo.collapse.noise_fit import Course, noise_around, rough_variance
from jthermo.collapse.read import Condition, Curves
from jthermo.collapse.result import CollapseFit
from jthermo.collapse.search import knot_spacing
from jthermo.collapse.settings import Settings
from jthermo.collapse.spline import Lattice
from jthermo.collapse.unknowns import find_directions, list_unknowns

# Step of θ in numerical derivatives. Safe bound: far above rounding, far below a feature.
STEP = 1e-5


@dataclass(frozen=True)
class Prediction:
    """The value of every bin by one form, in units of the data's averages.

    Attributes:
        mean: (N,).
        hat: its derivative with respect to the means, (N, N).
        chosen: numbers that were chosen by comparing fits.
    """

    mean: np.ndarray
    hat: np.ndarray
    chosen: int = 0

    @property
    def num_fitted(self) -> float:
        """Effective number of fitted numbers, those of the curves included."""
        return float(np.trace(self.hat)) + self.chosen

    def without(self, changes: np.ndarray) -> np.ndarray:
        """The prediction if the means change, (L, N), by the rows of `changes`."""
        return self.mean + changes @ self.hat.T


@dataclass(frozen=True)
class Records:
    """The data that all forms predict, read without a law.

    Attributes:
        curves: the replicates.
        averages: their averages.
        own: a smooth curve for each condition.
        slope: its slope, (N,).
    """

    curves: Curves
    averages: Averages
    own: Prediction
    slope: np.ndarray

    @classmethod
    def of(cls, curves: Curves, form: Form, settings: Settings) -> Records:
        """Of curves that were read with this form, of which only the places matter."""
        unknowns = list_unknowns(curves, replace(form, rescale=()), ())
        held = {unknown.name: unknown.origin for unknown in unknowns}
        averages = average(curves, unknowns, find_directions(unknowns, held), held, settings)
        variance = rough_variance(averages)
        own, slope = _own_curves(averages, np.diag(variance))
        if averages.errors is None and averages.replicates.counts.min() > 1:
            noise, share = noise_around(averages, cls(curves, averages, own, slope).course, own.hat)
            whole = np.zeros((len(variance),) * 2)
            for rows, block in zip(noise.blocks, noise.covariances(share), strict=True):
                whole[np.ix_(rows, rows)] = block
            own, slope = _own_curves(averages, whole)
        return cls(curves, averages, own, slope)

    @property
    def course(self) -> Course:
        """The curves of the conditions, on the axis of time."""
        means = self.averages.means
        return Course(means.binned(means.log_tau(np.zeros(0))), self.own.mean, self.slope)

    @property
    def log_controls(self) -> np.ndarray:
        """Of the conditions, (K, P)."""
        return np.array([condition.log_controls for condition in self.curves.conditions])

    def bin_of(self, k: int) -> np.ndarray:
        """The bin of each point of a condition, (T,)."""
        means = self.averages.means
        bins = np.flatnonzero(means.condition == k)
        edges = np.r_[means.starts, len(means.x)][np.r_[bins, bins[-1] + 1]]
        return np.repeat(bins, np.diff(edges))

    def changes(self) -> np.ndarray:
        """What the means change by if a replicate is left out, one row per label, (L, N)."""
        reps = self.averages.replicates
        return -reps.deviations / np.maximum(reps.counts - 1, 1)


def _own_curves(averages: Averages, covariance: np.ndarray) -> tuple[Prediction, np.ndarray]:
    """A smooth curve for each condition under a covariance of the means, and its slope."""
    means, lattice = averages.means, Lattice(knot_spacing(averages), averages.broken)
    number, nothing = len(means.mean), np.zeros(0)
    fitted, slope, hat = np.zeros(number), np.zeros(number), np.zeros((number, number))
    for k in np.unique(means.condition):
        bins = np.flatnonzero(means.condition == k)
        whiten = Whitener.of([covariance[np.ix_(bins, bins)]])
        likelihood = CurveLikelihood(_single(means, bins), lattice, whiten, 1.0, averages.settings)
        likelihood, best = likelihood.with_best_stiffness(nothing)
        basis = likelihood.means.basis(lattice, nothing, best.span)
        fitted[bins], slope[bins] = best.fitted, likelihood.pace(best)
        hat[np.ix_(bins, bins)] = basis @ _coefficients(likelihood, best)
    return Prediction(fitted, hat), slope


def _single(means: Means, bins: np.ndarray) -> Means:
    """The means of one condition."""
    edges = np.r_[means.starts, len(means.x)]
    points = slice(edges[bins[0]], edges[bins[-1] + 1])
    return replace(
        means,
        x=means.x[points],
        log_time=means.log_time[bins],
        controls=means.controls[points],
        starts=means.starts[bins] - points.start,
        mean=means.mean[bins],
        condition=np.zeros(len(bins), int),
        heights=means.heights[bins],
        log_height=means.log_height[bins],
        lead=None if means.lead is None else means.lead[points],
    )


def _coefficients(likelihood: CurveLikelihood, best: Solution) -> np.ndarray:
    """Derivative of the splines' coefficients with respect to the means, M⁻¹B'Ω⁻¹, (q, N)."""
    return likelihood.whiten.transposed(linalg.solve(best.factor, best.whitened_basis.T).T).T


def predict(records: Records, fits: Sequence[CollapseFit], chosen: int = 0) -> Prediction:
    """The prediction of a form whose laws are fitted; where two hold, that of the first.

    Args:
        records: what is predicted.
        fits: one per law.
        chosen: numbers that were chosen by comparing fits, such as the ends of a crossover.
    """
    mean, hat = records.own.mean.copy(), records.own.hat.copy()
    for fit in reversed(fits):
        bins, part = _law(records, fit)
        mean[bins], hat[bins] = part.mean, part.hat
        # The power of a correction is one too.
        chosen += len(fit.fitted) - len(fit.free)
    return Prediction(mean, hat, chosen)


@dataclass(frozen=True)
class _Place:
    """A condition of the data and the same one of a fit."""

    condition: Condition
    position: int
    fitted: Condition
    index: int


def _places(records: Records, fit: CollapseFit) -> Iterator[_Place]:
    for j, fitted in enumerate(fit.curves.conditions):
        gaps = np.abs(records.log_controls - fitted.log_controls).max(axis=1)
        k = int(np.argmin(gaps))
        if gaps[k] < 1e-9:
            yield _Place(records.curves.conditions[k], k, fitted, j)


def _law(records: Records, fit: CollapseFit) -> tuple[np.ndarray, Prediction]:
    """The bins in which the law of a fit holds, (n,), and what it predicts there, (n,), (n, N)."""
    points = _Points.of(records, fit)
    likelihood, best = fit.likelihood, fit.solution
    gradient = likelihood.gradient(best)
    by_mean = _coefficients(likelihood, best)
    hessian, free = likelihood.information(best)
    # θ as a function of the means, (P, N).
    pulled = np.linalg.pinv(hessian, hermitian=True) @ likelihood.whiten.transposed(free).T
    value, by_curve = points.value(best.theta), points.by_curve(best.theta)
    moved = by_mean - by_mean @ gradient @ pulled
    derivative = by_curve @ moved + points.by_theta(best.theta) @ pulled
    shown, change = points.shown(records, value)
    derivative = (change[:, None] * derivative) @ _from_common_bins(records, fit)
    bins, first = np.unique(points.bins, return_index=True)
    count = np.diff(np.r_[first, len(points.bins)])
    mean = np.add.reduceat(shown, first) / count
    return bins, Prediction(mean, np.add.reduceat(derivative, first, axis=0) / count[:, None])


def _from_common_bins(records: Records, fit: CollapseFit) -> np.ndarray:
    """Derivative of the fit's own means with respect to the common ones, (M, N)."""
    own, means = fit.averages, records.averages.means
    matrix = np.zeros((len(own.means.mean), len(means.mean)))
    sizes = own.means.counts
    row_of = np.repeat(np.arange(len(sizes)), sizes)
    condition = own.means.condition[row_of]
    for place in _places(records, fit):
        rows = row_of[condition == place.index]
        times = fit.curves.clock.time(place.fitted.log_time)
        there = records.curves.clock.time(place.condition.log_time)
        nearest = np.abs(times[:, None] - there).argmin(axis=1)
        columns = records.bin_of(place.position)[nearest]
        np.add.at(matrix, (rows, columns), 1 / sizes[rows])
    unit = np.full(len(sizes), records.averages.scale / own.scale)
    if fit.curves.log_above is not None and records.curves.log_above is None:
        unit = unit / np.exp(own.centre + own.scale * fit.solution.fitted)
    return unit[:, None] * matrix


@dataclass(frozen=True)
class _Points:
    """The recorded points in the bins in which the law of a fit holds.

    Attributes:
        fit: the fit.
        means: its map to the curve, at these points.
        bins: the common bin of each, (n,).
        lift: the mean of the replicates over their geometric mean, (n,).
    """

    fit: CollapseFit
    means: Means
    bins: np.ndarray
    lift: np.ndarray

    @classmethod
    def of(cls, records: Records, fit: CollapseFit) -> _Points:
        means = fit.likelihood.means
        first = np.unique(means.condition, return_index=True)[1]
        xs, bins, lifts, sources = [], [], [], []
        for place in sorted(_places(records, fit), key=lambda place: place.position):
            times = records.curves.clock.time(place.condition.log_time)
            low, high = fit.curves.clock.time(place.fitted.log_time[[0, -1]])
            inside = (times >= low - 1e-9 * abs(low)) & (times <= high + 1e-9 * abs(high))
            bin_of = records.bin_of(place.position)
            outside = np.unique(bin_of[~inside])
            picked = ~np.isin(bin_of, outside)
            # A time at the edge of the window is moved to the edge, so that it has a place.
            x = fit.curves.clock.place(np.clip(times[picked], low, high))
            i = first[place.index]
            point = means.starts[i]
            if means.lead is not None:
                x = np.arcsinh(np.sinh(x) * means.lead[point])
            else:
                x = x + (means.x[point] - place.fitted.log_time[0])
            xs.append(x)
            bins.append(bin_of[picked])
            lifts.append(_lift(place.condition.values[:, picked], records, fit))
            sources.append(np.full(len(x), i))
        source = np.concatenate(sources)
        at = means.starts[source]
        number = len(source)
        return cls(
            fit,
            replace(
                means,
                x=np.concatenate(xs),
                log_time=np.zeros(number),
                controls=means.controls[at],
                starts=np.arange(number),
                mean=np.zeros(number),
                condition=means.condition[source],
                heights=means.heights[source],
                log_height=means.log_height[source],
                lead=None if means.lead is None else means.lead[at],
                level=None,
            ),
            np.concatenate(bins),
            np.concatenate(lifts),
        )

    @property
    def _logs(self) -> bool:
        return self.fit.curves.log_above is not None

    def _above(self, theta: np.ndarray) -> float:
        """The number whose distance to the value has a log."""
        directions, above = self.fit.directions, self.fit.curves.log_above
        if "offset" in directions.free:
            return float(directions.numbers(theta)[directions.free.index("offset")])
        return 0.0 if above is None else above

    def _design(self, theta: np.ndarray) -> np.ndarray:
        likelihood, best = self.fit.likelihood, self.fit.solution
        return likelihood.lattice.design(self.means.log_tau(theta), best.span)

    def value(self, theta: np.ndarray) -> np.ndarray:
        """The value by the law, at the fitted coefficients of the curve, (n,)."""
        curve, own = self._design(theta) @ self.fit.solution.beta, self.fit.averages
        if self._logs:
            return self._above(theta) + self.means.height(theta) * own.of_log(curve)
        # The mean is 0, so the target is minus the offset.
        return own.centre + own.scale * (
            self.means.height(theta) * curve - self.means.target(theta)
        )

    def by_curve(self, theta: np.ndarray) -> np.ndarray:
        """Derivative of the value with respect to the coefficients of the curve, (n, q)."""
        own, design, factor = self.fit.averages, self._design(theta), self.means.height(theta)
        slope = own.per_log(design @ self.fit.solution.beta) if self._logs else own.scale
        return (factor * slope)[:, None] * design

    def by_theta(self, theta: np.ndarray) -> np.ndarray:
        """Derivative of the value with respect to θ, (n, P)."""
        steps = STEP * np.eye(len(theta))
        columns = [(self.value(theta + s) - self.value(theta - s)) / (2 * STEP) for s in steps]
        return np.reshape(columns, (len(theta), len(self.bins))).T

    def shown(self, records: Records, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values in the units of the common averages, and the derivative of that, (n,) each."""
        common, above = records.averages, records.curves.log_above
        if above is not None:
            far = value - above
            return (np.log(far) - common.centre) / common.scale, 1 / (far * common.scale)
        start = self._above(self.fit.solution.theta) if self._logs else 0.0
        raised = start + self.lift * (value - start)
        return (raised - common.centre) / common.scale, self.lift / common.scale


def _lift(values: np.ndarray, records: Records, fit: CollapseFit) -> np.ndarray:
    """Mean of the replicates over their geometric mean, (T,): a law of logs predicts the latter."""
    above = fit.curves.log_above
    if above is None or records.curves.log_above is not None or len(values) == 1:
        return np.ones(values.shape[1])
    far = np.where(values > above, values - above, np.nan)
    seen = np.isfinite(far).sum(axis=0)
    mean = np.nansum(far, axis=0) / np.maximum(seen, 1)
    log = np.nansum(np.log(far), axis=0) / np.maximum(seen, 1)
    return np.where(seen > 0, mean / np.exp(log), 1.0)
