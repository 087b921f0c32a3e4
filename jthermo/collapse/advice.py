"""What to measure next: by how much replicates, control values, later or denser records would narrow an interval.

A design is a set of records; their covariance Ω is that of the fit's noise model, at any time and condition. With the
curve's splines B and the gradient G of the curve along the exponents the information on these is

    I = G'Ω⁻¹G − C'M⁻¹C,   C = B'Ω⁻¹G,   M = B'Ω⁻¹B + λD'D,

once at the records that there are and once with others added. A new record is taken to be as noisy as the one
nearest to it, and counts only where the curve is known: what lies beyond may tell more than is promised. The law is taken
to hold wherever it would be measured, and the power of a correction to be known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solve_triangular

from jthermo.collapse.likelihood import penalty
from jthermo.collapse.noise_covariance import ages_of, kernels
from jthermo.collapse.noise_fit import learn_noise

if TYPE_CHECKING:
    from jthermo.collapse.result import CollapseFit

FURTHER = (1.0, 2.0)  # gaps of log c by which a control is moved out
LATER = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0)  # times the last record
ENOUGH = 0.5  # of the present width: a design that reaches it need not be made larger
NO_GAIN = 0.02  # of the width: less is not worth a larger design
KEEPS = 1.1  # times the present width, by the records of the informative window alone
EDGES = 24  # places at which this window may begin and end


@dataclass(frozen=True)
class Advice:
    """One change of the design.

    Attributes:
        control: whose exponent it concerns.
        change: "replicates", "value", "end" or "records".
        value: replicates at every condition; the further value of the control; the time to which every curve is
            recorded; the number of records of a curve (the largest), the new ones in `window`.
        ratio: width of the interval afterwards over that at present.
        window: (first, last) time of the records that tell most of what is known, for "records" only: they alone give
            an interval at most 1.1 times as wide.
    """

    control: str
    change: str
    value: float
    ratio: float
    window: tuple[float, float] | None = None

    def __str__(self) -> str:
        low, high = self.window or (0.0, 0.0)
        done = {
            "replicates": f"{self.value:g} replicates at every condition",
            "value": f"one more value, {self.control} = {self.value:.4g}",
            "end": f"records to {self.value:.4g} for every curve",
            "records": f"{self.value:g} records a curve, the new ones between {low:.4g} and {high:.4g}",
        }[self.change]
        return f"{done}: interval of p({self.control}) × {self.ratio:.2f}"


@dataclass(frozen=True)
class Records:
    """A design: condition, log t and log τ of each record, the columns of the exponents, the scale of the value, and
    the present record that it is as noisy as; one row a record.
    """

    condition: np.ndarray
    log_time: np.ndarray
    log_tau: np.ndarray
    controls: np.ndarray
    heights: np.ndarray
    height: np.ndarray
    source: np.ndarray

    @classmethod
    def of(cls, fit: CollapseFit) -> Records:
        """Those that there are."""
        means, theta = fit.model.means, fit.solution.theta
        return cls(
            means.condition,
            means.log_time,
            means.binned(means.log_tau(theta)),
            means.binned(means.controls),
            means.heights,
            means.height(theta),
            np.arange(len(means.mean)),
        )

    def at(self, rows: np.ndarray, moved: np.ndarray | float = 0.0) -> Records:
        """Some of them, each `moved` along log t."""
        picked = Records(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})
        return replace(picked, log_time=picked.log_time + moved, log_tau=picked.log_tau + moved)

    def __add__(self, other: Records) -> Records:
        parts = {
            f.name: np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)
        }
        return Records(**parts)

    def within(self, low: float, high: float) -> Records:
        """Those at which the curve is known."""
        return self.at((self.log_tau >= low - 1e-9) & (self.log_tau <= high + 1e-9))


class Planner:
    """The noise and the curve of one fit, at the records of any design."""

    def __init__(self, fit: CollapseFit) -> None:
        self.fit = fit
        noise, _ = learn_noise(fit.ready, fit.model, fit.solution)
        self.noise = replace(noise, common=fit.common_noise)
        self.sd, self.point_sd = np.zeros((2, len(fit.solution.fitted)))
        for rows, kernel in zip(self.noise.blocks, self.noise.components, strict=True):
            diagonal = dict(zip(self.noise.names, np.einsum("mii->mi", kernel), strict=True))
            self.point_sd[rows], self.sd[rows] = np.sqrt([diagonal["point"], diagonal["point_scaled"]])
        self.now = Records.of(fit)
        self.spread_now = self.spread(self.now)

    def add(self, new: Records) -> np.ndarray:
        """Covariance of θ with records added where the curve is known."""
        return self.spread(self.now + new.within(self.now.log_tau.min(), self.now.log_tau.max()))

    def spread(self, records: Records) -> np.ndarray:
        """Covariance of θ by these records, (P, P)."""
        model, best = self.fit.model, self.fit.solution
        height = records.height[:, None]
        basis = model.lattice.design(records.log_tau, best.span) * height
        slope = model.lattice.design(records.log_tau, best.span, slope=True) @ best.beta * records.height
        fitted = basis @ best.beta
        gradient = np.column_stack([slope[:, None] * records.controls, records.heights * fitted[:, None]])
        white = np.zeros((len(fitted), basis.shape[1] + gradient.shape[1]))
        for rows, omega in self._covariances(records, slope, fitted):
            factor = np.linalg.cholesky(omega)
            white[rows] = solve_triangular(factor, np.column_stack([basis, gradient])[rows], lower=True)
        basis, gradient = np.split(white, [basis.shape[1]], axis=1)
        cross = basis.T @ gradient
        normal = basis.T @ basis + model.stiffness * penalty(basis.shape[1])
        return np.linalg.inv(gradient.T @ gradient - cross.T @ np.linalg.solve(normal, cross))

    def _covariances(
        self, records: Records, slope: np.ndarray, fitted: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows and Ω of each block of the means."""
        means, best, reps = self.fit.model.means, self.fit.solution, self.fit.ready.replicates
        progress = (fitted - best.fitted.min()) / max(float(np.ptp(best.fitted)), 1e-300)
        for old in self.noise.blocks:
            rows = np.flatnonzero(np.isin(records.source, old))
            source, condition = records.source[rows], means.condition[old]
            length = np.median([np.ptp(means.log_time[old][condition == k]) for k in np.unique(condition)])
            _, kernel = kernels(
                records.log_time[rows],
                records.log_tau[rows],
                records.condition[rows],
                self.sd[source],
                self.point_sd[source],
                slope[rows],
                progress[rows],
                ages=ages_of(self.now.log_tau),
                paired=reps.paired and reps.counts.min() > 1,
                unit=(float(length) or 1.0, float(np.mean(self.sd[old] ** 2))),
            )
            omega = (
                np.tensordot(self.noise.weights, kernel, axes=1)
                * self.fit.ready.share[np.ix_(source, source)]
            )
            yield rows, omega + self.noise.of_means * np.eye(len(rows))

    def ratio(self, name: str, spread: np.ndarray) -> float:
        """Standard error of an exponent over the present one."""
        position = self.fit.ways.position(name)
        return float(np.sqrt(spread[position, position] / self.spread_now[position, position]))

    def further(self, name: str, end: int, move: float) -> Records:
        """A condition `move` in log c away from the outermost one, recorded at the same times."""
        fit = self.fit
        position = fit.ways.position(name)
        new = self.now.at(self.now.condition == end)
        columns = np.zeros(len(fit.solution.theta))
        columns[position] = move
        for each in fit.corrections:
            if each.control == name and each.name in fit.free:
                old = np.exp(fit.curves.conditions[end].log_controls[fit.curves.controls.index(name)])
                columns[fit.ways.position(each.name)] = each.size(old * np.exp(move)) - each.size(old)
        if f"value_{name}" in fit.free:
            columns[fit.ways.position(f"value_{name}")] = move
        shifts = fit.model.num_shifts
        reach, lift = columns[:shifts], columns[shifts:]
        return replace(
            new,
            condition=np.full(len(new.condition), len(fit.curves.conditions)),
            log_tau=new.log_tau + reach @ fit.solution.theta[:shifts],
            controls=new.controls + reach,
            heights=new.heights + lift,
            height=new.height * np.exp(lift @ fit.solution.theta[shifts:]),
        )

    def later(self, factor: float) -> tuple[float, Records]:
        """Every curve recorded up to `factor` times the last time of all, as densely as before; that time."""
        end = self.now.log_time.max() + np.log(factor)
        rows, moves = [], []
        for last in self._lasts():
            mine = self.now.log_time[self.now.condition == self.now.condition[last]]
            step = float(np.median(np.diff(mine))) if len(mine) > 1 else 1.0
            ahead = np.arange(step, end - mine[-1] + 1e-9, step)
            rows.append(np.full(len(ahead), last))
            moves.append(ahead)
        return float(np.exp(end)), self.now.at(np.concatenate(rows), np.concatenate(moves))

    def _lasts(self) -> np.ndarray:
        return np.r_[np.flatnonzero(np.diff(self.now.condition)), len(self.now.condition) - 1]

    def informative(self, name: str) -> tuple[float, float]:
        """Log times between which the records alone give nearly the present interval."""
        times = self.now.log_time
        edges = np.unique(np.quantile(times, np.linspace(0, 1, EDGES)))
        low, high = 0, len(edges) - 1
        for allowed, side in ((0.5 * (1 + KEEPS), "low"), (KEEPS, "high")):
            while high - low > 2:
                tried = (low + 1, high) if side == "low" else (low, high - 1)
                inside = (times >= edges[tried[0]] - 1e-9) & (times <= edges[tried[1]] + 1e-9)
                if self.ratio(name, self.spread(self.now.at(inside))) > allowed:
                    break
                low, high = tried
        return float(edges[low]), float(edges[high])

    def denser(self, low: float, high: float) -> Records:
        """A record in the middle between every two of a curve that lie in a window."""
        times, condition = self.now.log_time, self.now.condition
        inside = (times >= low - 1e-9) & (times <= high + 1e-9)
        first = np.flatnonzero((condition[1:] == condition[:-1]) & inside[1:] & inside[:-1])
        return self.now.at(first, 0.5 * np.diff(times)[first])


def advice(fit: CollapseFit) -> tuple[Advice, ...]:
    """For each exponent: four times the replicates, which halves any interval, the best further value, how far to
    record, and where to record more densely.
    """
    names = [name for name in fit.curves.controls if name in fit.free and fit.identifiable[name]]
    if not names:
        return ()
    planner = Planner(fit)
    ends = [(time, planner.add(new)) for time, new in map(planner.later, LATER)]
    out = []
    for name in names:
        out.append(Advice(name, "replicates", 4.0 * fit.num_replicates[1], 0.5))
        out.append(_best_value(planner, name))
        out.append(
            _far_enough([Advice(name, "end", time, planner.ratio(name, spread)) for time, spread in ends])
        )
        out.append(_denser(planner, name))
    return tuple(out)


def _denser(planner: Planner, name: str) -> Advice:
    low, high = planner.informative(name)
    new = planner.denser(low, high)
    most = int(np.bincount((planner.now + new).condition).max())
    window = (float(np.exp(low)), float(np.exp(high)))
    return Advice(name, "records", float(most), planner.ratio(name, planner.add(new)), window)


def _best_value(planner: Planner, name: str) -> Advice:
    column = planner.fit.curves.controls.index(name)
    logs = np.array([c.log_controls[column] for c in planner.fit.curves.conditions])
    gap = float(np.median(np.diff(np.unique(np.round(logs, 9)))))
    trials = []
    for end, sign in ((int(np.argmin(logs)), -1), (int(np.argmax(logs)), 1)):
        for step in FURTHER:
            spread = planner.add(planner.further(name, end, sign * gap * step))
            value = float(np.exp(logs[end] + sign * gap * step))
            trials.append(Advice(name, "value", value, planner.ratio(name, spread)))
    return min(trials, key=lambda trial: trial.ratio)


def _far_enough(trials: list[Advice]) -> Advice:
    """The least design that halves the interval, or else does nearly what the largest does."""
    least = min(trial.ratio for trial in trials)
    return next(trial for trial in trials if trial.ratio <= max(ENOUGH, least + NO_GAIN))
