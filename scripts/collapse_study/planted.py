"""Data sets with planted exponents: random curves, grids and noise, and the best possible error.

A replicate is F(log τ) plus a Gaussian process whose covariance is known here, so that the
information on the exponents with F unknown, the semiparametric Cramér–Rao bound, is a matter of
linear algebra.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from jthermo.collapse.spline import Lattice

Curve = Callable[[np.ndarray], np.ndarray]
# Lattice cells per length of one curve that the unknown F may use in the bound. Chosen.
RESOLUTION = 24


def random_curve(rng: np.random.Generator, centre: float, length: float) -> Curve:
    """One of eight shapes of range about 1, with its features inside the length of the records."""
    at = centre + rng.uniform(-0.1, 0.1) * length
    wide = rng.uniform(0.08, 0.16) * length
    sign = rng.choice([-1.0, 1.0])
    kind = rng.integers(8)

    def shape(u: np.ndarray) -> np.ndarray:
        z = (u - at) / wide
        if kind == 0:
            return 1 / (1 + np.exp(-z))
        if kind == 1:
            # exponential relaxation in t
            return np.exp(-np.exp(np.clip(z, -50, 50)))
        if kind == 2:
            # a power law that ends in a plateau
            return 0.35 * np.logaddexp(0.0, -z)
        if kind == 3:
            return np.exp(-0.5 * (z / 1.6) ** 2)
        if kind == 4:
            # log-periodic
            return 0.12 * z + 0.4 * np.sin(1.7 * z)
        if kind == 5:
            return 0.5 * np.tanh(z + 2) + 0.3 * np.tanh(2 * (z - 2))
        if kind == 6:
            # overshoot
            return 1 / (1 + np.exp(-z)) + 0.5 * np.exp(-0.5 * ((z - 2) / 1.2) ** 2)
        return 0.3 * z / np.sqrt(1 + 0.15 * z**2)

    return lambda u: sign * shape(u)


@dataclass(frozen=True)
class PlantedNoise:
    """Covariance of one replicate, with standard deviations in units of the curve's range.

    Attributes:
        point: amplitude of noise that is independent from record to record.
        memory: amplitude of noise with correlation exp(−|Δ log t|/reach).
        reach: correlation length of that noise, in log t.
        offset: amplitude of a constant along the replicate.
        walk: amplitude of a random walk in log t, at the end of the record.
        lead: standard deviation, in log t, of running ahead. Only its linear effect is drawn.
        growth: factor by which all amplitudes grow along the record.
        shared: share of all variance except point noise that a seed keeps at every control.
    """

    point: float = 0.0
    memory: float = 0.0
    reach: float = 0.8
    offset: float = 0.0
    walk: float = 0.0
    lead: float = 0.0
    growth: float = 1.0
    shared: float = 0.0


@dataclass(frozen=True)
class Planted:
    """What is planted: value = F(log t + Σ p log c) + noise, and how it is recorded.

    Attributes:
        curve: F.
        exponents: p, (P,).
        log_controls: log c of each condition, (K, P).
        log_times: log t of each condition, (T,) each.
        num_replicates: of each condition.
        noise: covariance of one replicate.
        names: of the controls.
        bend: (k, log τ, F) → values of condition k, for curves that do not collapse.
    """

    curve: Curve
    exponents: np.ndarray
    log_controls: np.ndarray
    log_times: tuple[np.ndarray, ...]
    num_replicates: tuple[int, ...]
    noise: PlantedNoise
    names: tuple[str, ...]
    bend: Callable[[int, np.ndarray, np.ndarray], np.ndarray] = field(default=lambda k, u, y: y)

    def log_tau(self, k: int) -> np.ndarray:
        """Log τ of the records of condition k, (T,)."""
        return self.log_times[k] + self.log_controls[k] @ self.exponents

    def slope(self, k: int) -> np.ndarray:
        """F′ at the records of condition k, (T,)."""
        u = self.log_tau(k)
        return (self.curve(u + 1e-4) - self.curve(u - 1e-4)) / 2e-4

    def mean(self, k: int) -> np.ndarray:
        """The values of condition k without noise, (T,)."""
        u = self.log_tau(k)
        return self.bend(k, u, self.curve(u))

    def covariance(self, a: int, b: int) -> np.ndarray:
        """Covariance of one seed's deviations at two conditions, (T_a, T_b)."""
        n = self.noise
        x, y = self.log_times[a], self.log_times[b]
        start, length = x[0], np.ptp(x)
        gx, gy = ((n.growth ** ((z - start) / length)) for z in (x, y))
        apart = np.abs(x[:, None] - y[None, :])
        walked = np.minimum.outer(x - start, y - start) / length
        long = (
            n.memory**2 * np.exp(-apart / n.reach) + n.offset**2 + n.walk**2 * np.maximum(walked, 0)
        )
        out = np.outer(gx, gy) * long + n.lead**2 * np.outer(self.slope(a), self.slope(b))
        if a != b:
            return n.shared * out
        return out + np.diag((n.point * gx) ** 2)

    def table(self, rng: np.random.Generator) -> pd.DataFrame:
        """A tidy table of one draw."""
        number = len(self.log_times)
        most = max(self.num_replicates)
        roots = [np.linalg.cholesky(_jitter(self.covariance(k, k))) for k in range(number)]
        if self.noise.shared:
            whole = np.block(
                [[self.covariance(a, b) for b in range(number)] for a in range(number)]
            )
            root = np.linalg.cholesky(_jitter(whole))
            edges = np.cumsum([0, *(len(x) for x in self.log_times)])
            drawn = [root @ rng.standard_normal(len(root)) for _ in range(most)]
        frames = []
        for k in range(number):
            for r in range(self.num_replicates[k]):
                if self.noise.shared:
                    deviation, label = drawn[r][edges[k] : edges[k + 1]], r
                else:
                    deviation = roots[k] @ rng.standard_normal(len(roots[k]))
                    label = sum(self.num_replicates[:k]) + r
                setting = dict(zip(self.names, np.exp(self.log_controls[k]), strict=True))
                frames.append(
                    pd.DataFrame(
                        {
                            **setting,
                            "seed": label,
                            "step": np.exp(self.log_times[k]),
                            "value": self.mean(k) + deviation,
                        }
                    )
                )
        return pd.concat(frames, ignore_index=True)

    def bound(self) -> np.ndarray:
        """The least standard deviation of each exponent, with F unknown and known noise, (P,)."""
        number = len(self.log_times)
        centred = self.log_controls - self.log_controls.mean(axis=0)
        gradient = np.concatenate([self.slope(k)[:, None] * centred[k] for k in range(number)])
        length = np.median([np.ptp(x) for x in self.log_times])
        u = np.concatenate([self.log_tau(k) for k in range(number)])
        lattice = Lattice(length / RESOLUTION)
        basis = lattice.design(u, lattice.span(u))
        blocks = [
            [
                self.covariance(a, b) * min(self.num_replicates[a], self.num_replicates[b])
                / (self.num_replicates[a] * self.num_replicates[b])
                if a == b or self.noise.shared
                else np.zeros((len(self.log_times[a]), len(self.log_times[b])))
                for b in range(number)
            ]
            for a in range(number)
        ]  # fmt: skip
        root = np.linalg.cholesky(_jitter(np.block(blocks)))
        white = np.linalg.solve(root, np.column_stack([gradient, basis]))
        free, nuisance = white[:, : gradient.shape[1]], white[:, gradient.shape[1] :]
        left = free - nuisance @ np.linalg.lstsq(nuisance, free, rcond=1e-9)[0]
        return np.sqrt(np.diag(np.linalg.inv(left.T @ left)))


def _jitter(matrix: np.ndarray) -> np.ndarray:
    """The matrix plus a diagonal far below the noise, so that it is positive definite."""
    return matrix + (1e-10 * np.trace(matrix) / len(matrix) + 1e-14) * np.eye(len(matrix))


def plant(
    rng: np.random.Generator,
    *,
    num_controls: int = 1,
    replicates: int | tuple[int, int] = 8,
    noise: PlantedNoise | None = None,
    steps: str = "log",
    relative: float = 1.0,
) -> Planted:
    """Draw exponents, levels, curve and records.

    Args:
        rng: source of the draws.
        num_controls: 1 or 2; two make a grid.
        replicates: of every condition, or a range from which each condition's number is drawn.
        noise: in units of the range; point noise of 1–6 % by default.
        steps: "log", "linear", or "ragged" (each condition has its own end and number of records).
        relative: factor on the amplitude of the noise.
    """
    length = rng.uniform(5.0, 9.0)
    # The shifts may take this much of a curve's length from its overlap with others.
    most = 0.45 * length / num_controls
    levels, exponents = [], []
    for _ in range(num_controls):
        number = int(rng.integers(3, 6)) if num_controls == 1 else int(rng.integers(2, 4))
        gaps = rng.uniform(0.8, 1.25, number - 1) * np.log(rng.uniform(1.5, 4.0))
        level = np.cumsum(np.r_[np.log(rng.choice([0.01, 0.1, 1.0, 16.0])), gaps])
        bound = min(2.5, most / np.ptp(level))
        levels.append(level)
        exponents.append(rng.uniform(-bound, bound))
    log_controls = np.stack([g.ravel() for g in np.meshgrid(*levels, indexing="ij")], axis=1)
    shift = log_controls @ np.array(exponents)
    times: list[np.ndarray] = []
    for _ in range(len(log_controls)):
        points, end = int(rng.integers(35, 110)), length
        if steps != "ragged" and times:
            times.append(times[0])
            continue
        if steps == "linear":
            times.append(np.log(np.linspace(np.exp(length) / 400, np.exp(length), 400)))
            continue
        if steps == "ragged":
            end = length - rng.uniform(0, 1.2)
        times.append(np.linspace(0, end, points))
    start = times[0][0]
    centre = shift.mean() + 0.5 * (start + length)
    kind = noise or PlantedNoise(point=float(np.exp(rng.uniform(np.log(0.01), np.log(0.06)))))
    scaled = replace(
        kind,
        **{n: relative * getattr(kind, n) for n in ("point", "memory", "offset", "walk", "lead")},
    )
    return Planted(
        curve=random_curve(rng, centre, length - start),
        exponents=np.array(exponents),
        log_controls=log_controls,
        log_times=tuple(times),
        num_replicates=tuple(
            replicates
            if isinstance(replicates, int)
            else int(rng.integers(replicates[0], replicates[1] + 1))
            for _ in times
        ),
        noise=scaled,
        names=("rate", "size")[:num_controls],
    )
