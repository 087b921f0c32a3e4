"""The averaged records, and where exponents θ put them on the common curve.

Every form of the scaling law (value − v₀) = Π c^q·F(τ), τ = (t − t_c)·Π cᵖ, is a transformation of
a record to three numbers, and nothing else in the fit depends on the form:

* its place u on the axis of the curve: log τ, or asinh τ if τ takes both signs, which is smooth
  through τ = 0 and logarithmic far from it;
* its ordinate y, which the curve should equal there: (value − v₀)/Π c^q, or the log of that;
* its weight w, so that w·(y − F(u)) has the noise of the mean itself: Π c^q, or 1 − v₀/value for
  logs, where the noise is that of log value.

Where an offset of logs is fitted, noise takes some values below it, and the log of a distance d of
the size of its noise is nothing to compare. So y = asinh(d/2k) + log k with d = (value − v₀)/Π c^q,
which is log d far above k and linear below it. F is another function then, and the law is the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from jthermo.collapse.spline import Lattice, Span, spread

# ∂(basis)/∂θ, (N, q), and ∂(target)/∂θ, (N,), of one component of θ.
Move = tuple[np.ndarray, np.ndarray | float]


@dataclass(frozen=True)
class Means:
    """The averaged curves, all conditions one after the other, and the bins of their points.

    θ holds the shifts first, then the heights, then the critical point and the offset if they are
    fitted.

    Attributes:
        x: place of every point at θ = 0, with the shifts that are held fixed, (n,).
        log_time: log t of each bin, or asinh t if times are signed, (N,).
        controls: the centred log controls of every point in the fitted directions, (n, P).
        starts: first point of each bin, (N,).
        mean: average over replicates and bin, (N,).
        condition: index of the condition of each bin, (N,).
        heights: centred log controls of each bin that scale the value, in the fitted directions,
            (N, R).
        log_height: log of the part of the value's scale that is held fixed, (N,).
        lead: factor of the held shifts on the critical point, (n,); None for a clock log τ.
        critical: whether the critical point is fitted.
        offset_unit: unit of the offset in those of `mean`, or 1 if `level` is given; None unless
            the offset is fitted.
        log_unit: unit of log values, in which `mean` counts; None if values are not logs.
        level: the value in units of its offset, (N,); None unless an offset of logs is fitted.
        bend: distance k from the offset below which logs become linear, in units of the offset.
        held_offset: offset that is held, as `offset_unit` would count it.
    """

    x: np.ndarray
    log_time: np.ndarray
    controls: np.ndarray
    starts: np.ndarray
    mean: np.ndarray
    condition: np.ndarray
    heights: np.ndarray
    log_height: np.ndarray
    lead: np.ndarray | None = None
    critical: bool = False
    offset_unit: float | None = None
    log_unit: float | None = None
    level: np.ndarray | None = None
    bend: float = 0.0
    held_offset: float = 0.0

    @property
    def num_shifts(self) -> int:
        """Number of components of θ that shift log τ."""
        return self.controls.shape[1]

    @property
    def num_heights(self) -> int:
        """Number of components of θ that scale the value."""
        return self.heights.shape[1]

    def binned(self, rows: np.ndarray) -> np.ndarray:
        """Average rows given at the points over the bins."""
        if len(self.starts) == len(self.x):
            return rows
        total = np.add.reduceat(rows, self.starts, axis=0)
        return total / self.counts.reshape(-1, *[1] * (rows.ndim - 1))

    @cached_property
    def counts(self) -> np.ndarray:
        """Number of points of each bin, (N,)."""
        return np.diff(np.r_[self.starts, len(self.x)])

    @cached_property
    def bin_of(self) -> np.ndarray:
        """The bin of each point, (n,)."""
        return np.repeat(np.arange(len(self.starts)), self.counts)

    def _spread(self, columns: np.ndarray, values: np.ndarray, span: Span) -> np.ndarray:
        """Splines at the points, as :meth:`Lattice.splines` gives them, averaged, (N, q)."""
        total = spread(self.bin_of, columns, values, (len(self.starts), span.number))
        return total if len(self.starts) == len(self.x) else total / self.counts[:, None]

    def noise_unit(self, fitted: np.ndarray) -> float:
        """Standard deviation of a bin if that of every record is the range of the fitted curve."""
        return float(np.ptp(fitted) * np.sqrt(np.mean(1 / self.counts))) or 1.0

    # ---- the place on the curve

    def log_tau(self, theta: np.ndarray) -> np.ndarray:
        """Place u of every point, (n,): log τ, or asinh τ if times are signed."""
        shift = self.controls @ theta[: self.num_shifts]
        if self.lead is None:
            return self.x + shift
        return np.arcsinh((np.sinh(self.x) - self._critical(theta) * self.lead) * np.exp(shift))

    def _critical(self, theta: np.ndarray) -> float:
        return float(theta[self.num_shifts + self.num_heights]) if self.critical else 0.0

    def place_moves(self, theta: np.ndarray) -> np.ndarray:
        """∂u/∂θ of every point for the shifts and then the critical point, (n, P or P + 1)."""
        if self.lead is None:
            return self.controls
        moves = self.controls * np.tanh(self.log_tau(theta))[:, None]
        if not self.critical:
            return moves
        scale = self.lead * np.exp(self.controls @ theta[: self.num_shifts])
        return np.column_stack([moves, -scale / np.cosh(self.log_tau(theta))])

    @property
    def movers(self) -> list[int]:
        """Components of θ that move u: the columns of :meth:`place_moves`."""
        last = [self.num_shifts + self.num_heights] if self.critical else []
        return [*range(self.num_shifts), *last]

    # ---- ordinate and weight

    def height(self, theta: np.ndarray) -> np.ndarray:
        """Scale of the value of every bin, (N,)."""
        return np.exp(self.log_scale(theta))

    def log_scale(self, theta: np.ndarray) -> np.ndarray:
        """Log of :meth:`height`, (N,)."""
        end = self.num_shifts + self.num_heights
        return self.log_height + self.heights @ theta[self.num_shifts : end]

    def _offset(self, theta: np.ndarray) -> float:
        unit = self.offset_unit
        return self.held_offset if unit is None else unit * float(theta[-1])

    def _distance(self, theta: np.ndarray, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance d and √(d² + 4k²) of every bin if an offset of logs is fitted, (N,) each."""
        far = (level - self._offset(theta)) / self.height(theta)
        return far, np.hypot(far, 2 * self.bend)

    def weight(self, theta: np.ndarray) -> np.ndarray:
        """W of every bin, (N,)."""
        if self.log_unit is None:
            return self.height(theta)
        if self.level is None:
            return np.ones(len(self.mean))
        return self.height(theta) * self._distance(theta, self.level)[1] / self.level

    def target(self, theta: np.ndarray) -> np.ndarray:
        """w·y of every bin, (N,)."""
        if self.log_unit is None:
            offset = self._offset(theta)
            return self.mean - offset if offset else self.mean
        if self.level is None:
            return self.mean - self.log_scale(theta) / self.log_unit
        return self.weight(theta) * self.bent(self._distance(theta, self.level)[0], self.level)

    def bent(self, far: np.ndarray, level: np.ndarray) -> np.ndarray:
        """Ordinate y of every bin at distances d from the offset, (N,)."""
        log = np.arcsinh(far / (2 * self.bend)) + np.log(self.bend)
        return self.mean + (log - np.log(level)) / (self.log_unit or 1.0)

    def basis(self, lattice: Lattice, theta: np.ndarray, span: Span) -> np.ndarray:
        """The splines behind each mean, times w, (N, q)."""
        rows = self._spread(*lattice.splines(self.log_tau(theta), span), span)
        return rows * self.weight(theta)[:, None]

    def pace(self, lattice: Lattice, theta: np.ndarray, span: Span, beta: np.ndarray) -> np.ndarray:
        """∂(fitted)/∂ log τ of every bin, (N,)."""
        columns, slope = lattice.splines(self.log_tau(theta), span, slope=True)
        if self.lead is not None:
            slope = slope * np.tanh(self.log_tau(theta))[:, None]
        return (self._spread(columns, slope, span) * self.weight(theta)[:, None]) @ beta

    # ---- derivatives

    def gradient(
        self, lattice: Lattice, theta: np.ndarray, span: Span, beta: np.ndarray, fitted: np.ndarray
    ) -> np.ndarray:
        """Derivative of the fitted means with respect to θ at a fixed curve, (N, P)."""
        slope = lattice.design(self.log_tau(theta), span, slope=True) @ beta
        weight = self.weight(theta)
        out = np.zeros((len(self.mean), len(theta)))
        moved = self.binned(slope[:, None] * self.place_moves(theta))
        out[:, self.movers] = moved * weight[:, None]
        heights = slice(self.num_shifts, self.num_shifts + self.num_heights)
        if self.log_unit is None:
            out[:, heights] = self.heights * (fitted - self._offset(theta))[:, None]
        elif self.level is None:
            out[:, heights] = self.heights / self.log_unit
        else:
            part = self.height(theta) * self._distance(theta, self.level)[0] / self.level
            out[:, heights] = self.heights * (part / self.log_unit)[:, None]
        if self.offset_unit is not None and self.log_unit is None:
            out[:, -1] = self.offset_unit
        elif self.offset_unit and self.level is not None and self.log_unit is not None:
            out[:, -1] = 1 / (self.level * self.log_unit)
        return out

    def moves(self, lattice: Lattice, theta: np.ndarray, span: Span) -> list[Move]:
        """∂(basis)/∂θ, (N, q), and ∂(target)/∂θ, (N,), for each component of θ."""
        nothing = np.zeros((len(self.mean), span.number))
        columns, slope = lattice.splines(self.log_tau(theta), span, slope=True)
        weight = self.weight(theta)
        out: list[Move] = [(nothing, 0.0)] * len(theta)
        for i, column in zip(self.movers, self.place_moves(theta).T, strict=True):
            moved = self._spread(columns, slope * column[:, None], span)
            out[i] = (moved * weight[:, None], 0.0)
        if self.num_heights or self.level is not None:
            basis = self.basis(lattice, theta, span)
        if self.level is not None and self.log_unit is not None:
            target, (far, root) = self.target(theta), self._distance(theta, self.level)
            # How log w depends on log Π c^q and, but for a factor, on the offset.
            bend, fall = (2 * self.bend / root) ** 2, far / root**2
            slope = self.height(theta) * far / (self.level * self.log_unit)
        for i, column in enumerate(self.heights.T, self.num_shifts):
            if self.log_unit is None:
                out[i] = (basis * column[:, None], 0.0)
            elif self.level is None:
                out[i] = (nothing, -column / self.log_unit)
            else:
                out[i] = (basis * (bend * column)[:, None], column * (bend * target - slope))
        if self.offset_unit is not None and self.log_unit is None:
            out[-1] = (nothing, -self.offset_unit)
        elif self.offset_unit and self.level is not None and self.log_unit is not None:
            part = -fall / self.height(theta)
            change = part * target - 1 / (self.level * self.log_unit)
            out[-1] = (basis * part[:, None], change)
        return out

    def holding(self, position: int, value: float) -> Means:
        """The same with one component of θ held; the later components move up."""
        column = position - self.num_shifts
        if position < self.num_shifts:
            held = value * self.controls[:, position]
            controls = np.delete(self.controls, position, axis=1)
            if self.lead is None:
                return replace(self, x=self.x + held, controls=controls)
            x = np.arcsinh(np.sinh(self.x) * np.exp(held))
            return replace(self, x=x, lead=self.lead * np.exp(held), controls=controls)
        if column < self.num_heights:
            log_height = self.log_height + value * self.heights[:, column]
            heights = np.delete(self.heights, column, axis=1)
            return replace(self, log_height=log_height, heights=heights)
        if self.lead is not None and self.critical and column == self.num_heights:
            x = np.arcsinh(np.sinh(self.x) - value * self.lead)
            return replace(self, x=x, critical=False)
        return replace(self, held_offset=value * (self.offset_unit or 1.0), offset_unit=None)
