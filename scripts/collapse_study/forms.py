"""Families of scaling forms: critical points, published errors, scales and offsets of the value.

    value = v₀ + L^q·F((t − t_c)·L^p·exp(a·(L/L₀)^w)) + noise

Every draw has fresh exponents, sizes, times and curves. Noise is in units of each curve's range, or
of the value itself on a log scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from jthermo.collapse import CollapseFit
from jthermo.collapse.search import search_bounds
from scripts.collapse_study.families import Draw

Curve = Callable[[np.ndarray], np.ndarray]
SIZES = np.array([12.0, 16, 24, 32, 48, 64, 96, 128, 192, 256])


def step(rng: np.random.Generator) -> Curve:
    """A cumulant: from one level to another, smooth through τ = 0."""
    wide, skew = rng.uniform(0.6, 1.4), rng.uniform(-0.3, 0.3)
    return lambda s: 0.5 + 0.5 * np.tanh(s / wide + skew) + 0.1 * np.exp(-((s - 1) ** 2))


def order(rng: np.random.Generator) -> Curve:
    """An order parameter: a tail below τ = 0, a slow power above it."""
    beta, wide = rng.uniform(0.1, 0.5), rng.uniform(0.4, 1.2)
    return lambda s: np.logaddexp(0.0, (s / wide) + 0.5) ** beta


def peak(rng: np.random.Generator) -> Curve:
    """A susceptibility: a skew peak near τ = 0 that falls as powers."""
    at, wide, gamma = rng.uniform(-0.4, 0.4), rng.uniform(0.5, 1.0), rng.uniform(0.6, 0.9)
    return lambda s: (1 + ((s - at) / wide) ** 2) ** -gamma * (1.2 + 0.4 * np.tanh(s))


def crossover(rng: np.random.Generator) -> Curve:
    """One power of τ at small times and another at large ones."""
    early, late = rng.uniform(-0.2, 0.4), rng.uniform(-1.2, -0.6)
    return lambda s: s**early * (1 + s**1.5) ** ((late - early) / 1.5)


def decay(rng: np.random.Generator) -> Curve:
    """From 1 to 0."""
    sharp = rng.uniform(0.8, 1.6)
    return lambda s: 1 / (1 + s**sharp)


def wings(rng: np.random.Generator) -> Curve:
    """Another function on either side of τ = 0, both powers of |τ| at either end."""
    left, right = rng.uniform(-1.2, -0.7), rng.uniform(0.4, 0.8)

    def curve(s: np.ndarray) -> np.ndarray:
        size = np.abs(s)
        return np.where(s < 0, (0.3 + size) ** left, 3.0 * (0.3 + size) ** right)

    return curve


@dataclass(frozen=True)
class Plan:
    """One family.

    Attributes:
        curve: draws F.
        sides: "both", "above" or "below" the critical point, or "clock" for times from 0.
        value: exponent q, or the range from which it is drawn; None without `rescale`.
        critical: "given", "fitted" or None.
        errors: whether standard errors are published instead of replicates.
        logs: whether the noise is in proportion to the value and scale="log".
        offset: "given", "fitted" or None.
        correction: whether τ carries a correction of power −1, which is fitted.
        branches: of the curve.
        options: further ones of the fit.
    """

    curve: Callable[[np.random.Generator], Curve]
    sides: str = "both"
    value: float | tuple[float, float] | None = None
    critical: str | None = "fitted"
    errors: bool = True
    logs: bool = False
    offset: str | None = None
    correction: bool = False
    branches: int = 1
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, rng: np.random.Generator) -> Draw:
        """One data set with its truth."""
        number = int(rng.integers(3, 6))
        sizes = SIZES[np.sort(rng.choice(len(SIZES), number, replace=False))]
        while sizes[-1] < 4 * sizes[0]:
            sizes = SIZES[np.sort(rng.choice(len(SIZES), number, replace=False))]
        p = float(rng.uniform(0.5, 1.5))
        middle = np.exp(np.log(sizes).mean())
        t_c = float(rng.uniform(0.5, 3.0)) if self.critical else 0.0
        truth = {"L": p}
        q = 0.0
        if self.value is not None:
            q = self.value if isinstance(self.value, float) else float(rng.uniform(*self.value))
            truth["value_L"] = q
        amplitude = float(rng.choice([-1, 1]) * rng.uniform(0.2, 0.6)) if self.correction else 0.0
        if self.correction:
            truth["correction_L"] = amplitude
        reach = 0.15 * t_c if self.critical else 1.0
        # The curves show their features within |τ| < 4 at the middle size.
        unit = reach * middle**p / float(rng.uniform(2.5, 5.0))
        curve, points = self.curve(rng), int(rng.integers(16, 34))
        times = self._times(rng, points)
        clean = []
        for size in sizes:
            tau = reach * times * size**p * np.exp(amplitude * sizes[0] / size) / unit
            clean.append((size / middle) ** q * curve(tau))
        level = np.concatenate(clean)
        base = float(np.ptp(level)) * float(rng.uniform(0.3, 1.5)) if self.offset else 0.0
        noise = float(np.exp(rng.uniform(np.log(0.002), np.log(0.02))))
        labels = 1 if self.errors else int(rng.integers(5, 10))
        frames = []
        for size, mean in zip(sizes, clean, strict=True):
            whole = base + mean
            spread = noise * (np.abs(whole) if self.logs else np.full(points, np.ptp(mean)))
            error = spread * rng.uniform(0.6, 1.6, points) if self.errors else spread
            for label in range(labels):
                draws = error * rng.standard_normal(points)
                # Noise in proportion to the value never changes its sign.
                value = whole * np.exp(draws / whole) if self.logs else whole + draws
                columns = {"L": size, "t": t_c + reach * times, "value": value, "error": error}
                frames.append(pd.DataFrame({**columns, "seed": f"{size:g}/{label}"}))
        return Draw(
            pd.concat(frames, ignore_index=True),
            ("L",),
            truth | self._places(t_c, base),
            {},
            options=self._options(rng, t_c, base, float(np.ptp(level)), reach),
        )

    def _times(self, rng: np.random.Generator, points: int) -> np.ndarray:
        """Times from the critical point, the largest of which is ± 1."""
        if self.sides == "both" and self.branches == 1:
            return np.linspace(-1, 1, points) + 0.2 / points * rng.uniform(-1, 1, points)
        decades = np.geomspace(rng.uniform(0.003, 0.02), 1.0, points)
        if self.sides == "both":
            return np.sort(np.r_[-decades[::2], decades[points % 2 :: 2]])[:points]
        return -decades[::-1] if self.sides == "below" else decades

    def _places(self, t_c: float, base: float) -> dict[str, float]:
        """The critical point and the offset, if they are fitted."""
        places = {"critical_point": t_c} if self.critical == "fitted" else {}
        return places | ({"offset": base} if self.offset == "fitted" else {})

    def _options(
        self, rng: np.random.Generator, t_c: float, base: float, unit: float, reach: float
    ) -> dict[str, Any]:
        """The options of the fit that belong to the form."""
        options: dict[str, Any] = {"time": "t", "branches": self.branches, **self.options}
        ends = rng.uniform(0.3, 0.8, 2) * np.array([-1, 1])
        if self.sides == "above":
            ends = np.array([-0.3, 0.0])
        if self.critical is not None:
            fitted = tuple((t_c + reach * ends).tolist())
            options["critical_point"] = fitted if self.critical == "fitted" else t_c
        if self.offset is not None:
            fitted = (base - 0.4 * unit, base + 0.4 * unit)
            options["offset"] = fitted if self.offset == "fitted" else base
        if self.errors:
            options["error"] = "error"
        if self.value is not None:
            options["rescale"] = ["L"]
        if self.logs:
            options["scale"] = "log"
        if self.correction:
            options["correction"] = {"L": -1.0}
        return options


FORMS: dict[str, Plan] = {
    "step_given_errors": Plan(step, critical="given"),
    "step_fitted_errors": Plan(step),
    "step_fitted_replicates": Plan(step, errors=False),
    "step_correction": Plan(step, correction=True),
    "order_eighth": Plan(order, value=-0.125),
    "order_twentieth": Plan(order, value=-0.05),
    "order_half_replicates": Plan(order, value=-0.5, errors=False),
    "order_one_given": Plan(order, value=-1.0, critical="given"),
    "order_log": Plan(order, value=-5 / 48, logs=True),
    "order_log_replicates": Plan(order, value=(-1.0, -0.1), logs=True, errors=False),
    "peak_linear": Plan(peak, value=1.75),
    "peak_log": Plan(peak, value=1.75, logs=True),
    "peak_log_replicates": Plan(peak, value=(0.5, 2.0), logs=True, errors=False),
    "peak_correction": Plan(peak, value=1.75, logs=True, correction=True, critical="given"),
    "above_given_log": Plan(crossover, "above", (-1.0, 1.0), "given", logs=True),
    "above_fitted_log": Plan(crossover, "above", None, "fitted", logs=True),
    "below_given": Plan(lambda rng: lambda s: 1 / (1 + s**2), "below", (-0.5, 0.5), "given"),
    "clock_log": Plan(crossover, "clock", None, None, logs=True),
    "clock_log_rescaled": Plan(crossover, "clock", (-1.0, 1.0), None, logs=True, errors=False),
    "clock_errors": Plan(decay, "clock", None, None),
    "offset_given": Plan(decay, "clock", (-1.0, 1.0), None, offset="given"),
    "offset_fitted": Plan(decay, "clock", (-1.0, 1.0), None, offset="fitted", errors=False),
    "offset_log": Plan(decay, "clock", (-1.0, 1.0), None, offset="fitted", logs=True, errors=False),
    "branches_log": Plan(wings, value=(-0.5, 0.5), critical="given", logs=True, branches=2),
}


def lost(fit: CollapseFit, truth: dict[str, float]) -> float:
    """Log likelihood by which the minimum nearest to the exact values is better than the fit."""
    likelihood, directions = fit.likelihood, fit.directions
    bounds = search_bounds(fit.averages)
    theta = np.zeros(len(bounds))
    for name in directions.free:
        theta[directions.position(name)] = directions.component(name, truth[name])
    exact = likelihood.solve(np.clip(theta, *bounds.T))
    return fit.solution.objective - likelihood.minimise(exact, bounds).objective
