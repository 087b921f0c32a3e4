"""What to measure next: how much more replicates, values or records would narrow an interval.

A design is a set of records. Their covariance Ω at any time and condition is that of the fit's
noise model. With the curve's splines B and the gradient G of the curve along the exponents, the
information on these is

    I = G'Ω⁻¹G − C'M⁻¹C,   C = B'Ω⁻¹G,   M = B'Ω⁻¹B + λD'D,

computed once for the present records and once with others added. A new record is assumed to be as
noisy as the nearest present one, and it counts only where the curve is already known, so the true
gain may be larger. The law is assumed to hold wherever it would be measured, and the power of a
correction to be known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
from scipy import special
from scipy.linalg import solve_triangular
from scipy.optimize import brentq

from jthermo.collapse import linalg
from jthermo.collapse.exponent_drift import Drift
from jthermo.collapse.fit_state import FitState
from jthermo.collapse.noise_covariance import Bins, ages_of, kernels
from jthermo.collapse.noise_fit import learn_noise
from jthermo.collapse.spline import penalty
from jthermo.errors import InputError, finite_number


@dataclass(frozen=True)
class Advice:
    """One change of the design.

    Attributes:
        control: whose exponent it concerns.
        change: "replicates", "value", "end" or "records".
        value: replicates per condition; the further value of the control; the time to which every
            curve is recorded; the largest number of records per curve, with the new ones in
            `window`.
        ratio: width of the interval afterwards over the present one.
        window: for "records", (first, last) time of the records that contribute most: they alone
            give an interval at most 1.1 times as wide.
    """

    control: str
    change: str
    value: float
    ratio: float
    window: tuple[float, float] | None = None

    def __str__(self) -> str:
        low, high = self.window or (0.0, 0.0)
        change = {
            "replicates": f"{self.value:g} replicates at every condition",
            "value": f"one more value, {self.control} = {self.value:.4g}",
            "end": f"records to {self.value:.4g} for every curve",
            "records": (
                f"{self.value:g} records per curve, the new ones between {low:.4g} and {high:.4g}"
            ),
        }[self.change]
        return f"{change}: interval of p({self.control}) × {self.ratio:.2f}"


@dataclass(frozen=True)
class Records:
    """A design, one row per record.

    Attributes:
        condition: index of the condition, (n,).
        log_time: log t, (n,).
        log_tau: log τ, (n,).
        controls: centred log controls in the fitted directions, (n, P).
        heights: the same for the value's scale, (n, R).
        height: scale of the value, (n,).
        source: the present record that it is as noisy as, (n,).
    """

    condition: np.ndarray
    log_time: np.ndarray
    log_tau: np.ndarray
    controls: np.ndarray
    heights: np.ndarray
    height: np.ndarray
    source: np.ndarray

    @classmethod
    def of(cls, fit: FitState) -> Records:
        """The present records."""
        means, theta = fit.likelihood.means, fit.solution.theta
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
        picked = Records(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})
        log_time, log_tau = picked.log_time + moved, picked.log_tau + moved
        return replace(picked, log_time=log_time, log_tau=log_tau)

    def __add__(self, other: Records) -> Records:
        pairs = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        return Records(**{name: np.concatenate(pair) for name, pair in pairs.items()})

    def within(self, low: float, high: float) -> Records:
        """Those between two values of log τ."""
        return self.at((self.log_tau >= low - 1e-9) & (self.log_tau <= high + 1e-9))


class Planner:
    """The noise and the curve of one fit, for any design."""

    def __init__(self, fit: FitState) -> None:
        self.fit = fit
        noise, _ = learn_noise(fit.averages, fit.likelihood, fit.solution)
        unit = fit.averages.means.noise_unit(fit.solution.fitted)
        self.noise = replace(noise, common=fit.common_noise * unit)
        self.sd, self.point_sd = np.zeros((2, len(fit.solution.fitted)))
        for rows, kernel in zip(self.noise.blocks, self.noise.components, strict=True):
            diagonal = dict(zip(self.noise.names, np.einsum("mii->mi", kernel), strict=True))
            sds = np.sqrt([diagonal["point"], diagonal["point_scaled"]])
            self.point_sd[rows], self.sd[rows] = sds
        refused = fit.p_value < fit.settings.verdict_p_value
        self.drift = Drift(fit.drift, fit.drift_p_values, refused, fit.settings)
        self.now = Records.of(fit)
        self.spread_now = self.spread(self.now)

    def add(self, new: Records) -> np.ndarray:
        """Covariance of θ, (P, P), with records added where the curve is known."""
        return self.spread(self.now + new.within(self.now.log_tau.min(), self.now.log_tau.max()))

    def spread(self, records: Records, more: float = 1.0) -> np.ndarray:
        """Covariance of θ, (P, P), from these records, with `more` times the replicates."""
        likelihood, best = self.fit.likelihood, self.fit.solution
        lattice, height = likelihood.lattice, records.height[:, None]
        basis = lattice.design(records.log_tau, best.span) * height
        slope = lattice.design(records.log_tau, best.span, slope=True) @ best.beta * records.height
        fitted = basis @ best.beta
        gradient = np.column_stack(
            [slope[:, None] * records.controls, records.heights * fitted[:, None]]
        )
        white = np.zeros((len(fitted), basis.shape[1] + gradient.shape[1]))
        both = np.column_stack([basis, gradient])
        for rows, omega in self._covariances(records, slope, fitted, more):
            factor = linalg.cholesky(omega)
            white[rows] = solve_triangular(factor, both[rows], lower=True)
        basis, gradient = np.split(white, [basis.shape[1]], axis=1)
        cross = basis.T @ gradient
        normal = basis.T @ basis + likelihood.stiffness * penalty(best.span)
        information = gradient.T @ gradient - cross.T @ np.linalg.solve(normal, cross)
        try:
            return np.linalg.inv(information)
        except np.linalg.LinAlgError:
            return np.full(information.shape, np.inf)

    def _covariances(
        self, records: Records, slope: np.ndarray, fitted: np.ndarray, more: float
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows and Ω of each block of the means."""
        fit = self.fit
        means, best, reps = fit.likelihood.means, fit.solution, fit.averages.replicates
        progress = (fitted - best.fitted.min()) / max(float(np.ptp(best.fitted)), 1e-300)
        # Between the present records the curve may overshoot, which no share of counts does.
        progress = np.clip(progress, 0.0, 1.0)
        for old in self.noise.blocks:
            rows = np.flatnonzero(np.isin(records.source, old))
            source, condition = records.source[rows], means.condition[old]
            times = means.log_time[old]
            length = np.median([np.ptp(times[condition == k]) for k in np.unique(condition)])
            bins = Bins(
                log_time=records.log_time[rows],
                log_tau=records.log_tau[rows],
                condition=records.condition[rows],
                sd=self.sd[source],
                point_sd=self.point_sd[source],
                slope=slope[rows],
                progress=progress[rows],
            )
            _, kernel = kernels(
                bins,
                ages=ages_of(self.now.log_tau, fit.settings),
                paired=reps.paired and reps.counts.min() > 1,
                settings=fit.settings,
                unit=(float(length) or 1.0, float(np.mean(self.sd[old] ** 2))),
            )
            of_replicate = np.tensordot(self.noise.weights, kernel, axes=1)
            omega = of_replicate * fit.averages.share[np.ix_(source, source)] / more
            yield rows, omega + self.noise.of_means * np.eye(len(rows))

    def ratio(self, name: str, spread: np.ndarray) -> float:
        """Standard error of an exponent over the present one. Its drift stays as it is."""
        position = self.fit.directions.position(name)
        square = spread[position, position] / self.spread_now[position, position]
        # Records that do not determine the exponent have a singular information.
        if not square > 0:
            return np.inf
        drift = self.drift.spread(name) / self.fit.exponents[name].standard_error
        return float(np.sqrt(square * (1 - drift**2) + drift**2))

    def quantile_ratio(self, more: float) -> float:
        """Student's quantile with `more` times the replicates over the present one.

        The replicates' own degrees of freedom grow; those of the noise model are kept.
        """
        fit = self.fit
        number = float(np.mean([len(c.values) for c in fit.curves.conditions]))
        if fit.num_replicates[0] < 2:
            return 1.0
        model = min(fit.settings.model_degrees, fit.degrees)
        degrees = model + (fit.degrees - model) * (more * number - 1) / (number - 1)
        at = 0.5 + fit.confidence / 2
        return float(special.stdtrit(degrees, at) / special.stdtrit(fit.degrees, at))

    def further(self, name: str, end: int, move: float) -> Records:
        """A condition `move` in log c beyond the outermost one, recorded at the same times."""
        fit = self.fit
        position = fit.directions.position(name)
        new = self.now.at(self.now.condition == end)
        columns = np.zeros(len(fit.solution.theta))
        columns[position] = move
        for correction in fit.corrections:
            if correction.control == name and correction.name in fit.free:
                column = fit.curves.controls.index(name)
                old = np.exp(fit.curves.conditions[end].log_controls[column])
                change = correction.size(old * np.exp(move)) - correction.size(old)
                columns[fit.directions.position(correction.name)] = change
        if f"value_{name}" in fit.free:
            columns[fit.directions.position(f"value_{name}")] = move
        shifts = fit.likelihood.num_shifts
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
        """The time `factor` times the last one, and equally dense records up to it."""
        end = self.now.log_time.max() + np.log(factor)
        rows, moves = [], []
        for last in self._lasts():
            mine = self.now.log_time[self.now.condition == self.now.condition[last]]
            step = float(np.median(np.diff(mine))) if len(mine) > 1 else 1.0
            # Beyond the largest τ the curve is not known, so records there don't count.
            room = min(end - mine[-1], self.now.log_tau.max() - self.now.log_tau[last])
            ahead = np.arange(step, room + 1e-9, step)
            rows.append(np.full(len(ahead), last))
            moves.append(ahead)
        return float(np.exp(end)), self.now.at(np.concatenate(rows), np.concatenate(moves))

    def _lasts(self) -> np.ndarray:
        """The last record of each condition."""
        return np.r_[np.flatnonzero(np.diff(self.now.condition)), len(self.now.condition) - 1]

    def informative(self, name: str) -> tuple[float, float]:
        """Log times between which the records alone give nearly the present interval."""
        settings, times = self.fit.settings, self.now.log_time
        edges = np.unique(np.quantile(times, np.linspace(0, 1, settings.advice_window_edges)))
        low, high = 0, len(edges) - 1
        most = settings.advice_window_ratio
        for allowed, side in ((0.5 * (1 + most), "low"), (most, "high")):
            while high - low > 2:
                tried = (low + 1, high) if side == "low" else (low, high - 1)
                inside = times >= edges[tried[0]] - 1e-9
                inside &= times <= edges[tried[1]] + 1e-9
                if self.ratio(name, self.spread(self.now.at(inside))) > allowed:
                    break
                low, high = tried
        return float(edges[low]), float(edges[high])

    def denser(self, low: float, high: float) -> Records:
        """A new record between every two neighbours of a curve that lie in a window."""
        times, condition = self.now.log_time, self.now.condition
        inside = (times >= low - 1e-9) & (times <= high + 1e-9)
        first = np.flatnonzero((condition[1:] == condition[:-1]) & inside[1:] & inside[:-1])
        return self.now.at(first, 0.5 * np.diff(times)[first])


def advise(fit: FitState) -> tuple[Advice, ...]:
    """For each exponent: more replicates, a further value, a later end, denser records."""
    names = [name for name in fit.curves.controls if name in fit.free and fit.identifiable[name]]
    _check_predictable(fit, "advice", True)
    if not names:
        return ()
    planner, settings = Planner(fit), fit.settings
    later = [planner.later(factor) for factor in settings.advice_ends]
    ends = [(time, planner.add(new)) for time, new in later]
    more = settings.advice_replicates
    repeated = planner.spread(planner.now, more)
    advice = []
    for name in names:
        replicates = more * fit.num_replicates[1]
        ratio = planner.ratio(name, repeated) * planner.quantile_ratio(more)
        advice.append(Advice(name, "replicates", replicates, ratio))
        advice.append(_best_value(planner, name))
        trials = [Advice(name, "end", time, planner.ratio(name, spread)) for time, spread in ends]
        advice.append(_early_enough(planner, trials))
        advice.append(_denser(planner, name))
    return tuple(advice)


def replicates_for(fit: FitState, name: str, half_width: float) -> int | None:
    """The replicates per condition with which the interval of an exponent has this half-width.

    None if :attr:`Settings.advice_limit` times the present replicates are not enough, as where
    noise that all replicates share sets the width.
    """
    _check_predictable(fit, "replicates_for", name)
    finite_number("half_width", half_width, above=0)
    if name not in fit.free or not fit.identifiable[name]:
        raise InputError("replicates_for", name, "name a fitted exponent that is identifiable")
    planner, exponent = Planner(fit), fit.exponents[name]
    present = (exponent.high - exponent.low) / 2

    def excess(log_more: float) -> float:
        more = float(np.exp(log_more))
        ratio = planner.ratio(name, planner.spread(planner.now, more))
        return present * ratio * planner.quantile_ratio(more) - half_width

    most = float(np.log(fit.settings.advice_limit))
    if not excess(most) <= 0:
        return None
    more = 1.0 if excess(0.0) <= 0 else np.exp(brentq(excess, 0.0, most, xtol=1e-3))
    return math.ceil(more * fit.num_replicates[1])


def _check_predictable(fit: FitState, field: str, value: object) -> None:
    """Refuse fits whose further records the noise model does not predict."""
    means = fit.likelihood.means
    formed = means.lead is not None or means.log_unit is not None or means.offset_unit is not None
    if formed or fit.averages.errors is not None:
        remedy = (
            "is predicted only without critical point, offset, published errors and log scale; "
            "omit it"
        )
        raise InputError(field, value, remedy)


def _denser(planner: Planner, name: str) -> Advice:
    """Twice the records in the window that contributes most."""
    low, high = planner.informative(name)
    new = planner.denser(low, high)
    most = int(np.bincount((planner.now + new).condition).max())
    window = (float(np.exp(low)), float(np.exp(high)))
    return Advice(name, "records", float(most), planner.ratio(name, planner.add(new)), window)


def _best_value(planner: Planner, name: str) -> Advice:
    """The further value of a control that narrows the interval most."""
    column = planner.fit.curves.controls.index(name)
    logs = np.array([c.log_controls[column] for c in planner.fit.curves.conditions])
    gap = float(np.median(np.diff(np.unique(np.round(logs, 9)))))
    trials = []
    for end, sign in ((int(np.argmin(logs)), -1), (int(np.argmax(logs)), 1)):
        for step in planner.fit.settings.advice_gaps:
            spread = planner.add(planner.further(name, end, sign * gap * step))
            value = float(np.exp(np.clip(logs[end] + sign * gap * step, -700.0, 700.0)))
            trials.append(Advice(name, "value", value, planner.ratio(name, spread)))
    return min(trials, key=lambda trial: trial.ratio)


def _early_enough(planner: Planner, trials: list[Advice]) -> Advice:
    """The earliest end that halves the interval, or else does nearly what the latest one does."""
    settings = planner.fit.settings
    least = min(trial.ratio for trial in trials) + settings.advice_min_gain
    return next(trial for trial in trials if trial.ratio <= max(settings.advice_ratio, least))
