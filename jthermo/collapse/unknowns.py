"""The unknowns of a fit, and which of them the values of the controls can tell apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import block_diag

from jthermo.collapse.forms import Form
from jthermo.collapse.read import Curves

# Exponents of τ and amplitudes of its corrections; exponents of the value; t_c; v₀.
KINDS = ("shift", "height", "critical_point", "offset")


@dataclass(frozen=True)
class Unknown:
    """One number of the law that is fitted or held.

    Attributes:
        name: its name among the exponents.
        column: at the conditions, centred, (K,). A number a of the kinds "shift" and "height"
            multiplies τ or the value by exp(a·column).
        kind: one of `KINDS`.
        origin: the number at θ = 0.
        unit: change of the number per unit of θ.
        ends: range in which it is fitted; None if the data set it.
    """

    name: str
    column: np.ndarray
    kind: str = "shift"
    origin: float = 0.0
    unit: float = 1.0
    ends: tuple[float, float] | None = None


@dataclass(frozen=True)
class Correction:
    """A leading correction to scaling: τ = t·Π cᵖ·exp(a·(c/c₀)ʷ), ≈ 1 + a·(c/c₀)ʷ if it is small.

    Attributes:
        control: c.
        power: w.
        reference: c₀, the value at which the correction is largest.
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
        """The name of w among the exponents, if it is fitted."""
        return f"power_{self.control}"

    def size(self, control: np.ndarray | float, power: float | None = None) -> np.ndarray:
        """(c/c₀)ʷ, with another w if one is given."""
        ratio = np.asarray(control, dtype=float) / self.reference
        return ratio ** (self.power if power is None else power)

    def column(self, curves: Curves, power: float | None = None) -> np.ndarray:
        """Its size at the conditions, centred, (K,)."""
        column = curves.controls.index(self.control)
        size = self.size(np.exp([c.log_controls[column] for c in curves.conditions]), power)
        return size - size.mean()


def list_unknowns(
    curves: Curves, form: Form, corrections: tuple[Correction, ...]
) -> tuple[Unknown, ...]:
    """Exponents of the controls, amplitudes of corrections, exponents of the value, t_c and v₀."""
    logs = np.array([c.log_controls for c in curves.conditions])
    column = dict(zip(curves.controls, (logs - logs.mean(axis=0)).T, strict=True))
    return (
        *(Unknown(name, column[name]) for name in curves.controls),
        *(Unknown(correction.name, correction.column(curves)) for correction in corrections),
        *(Unknown(f"value_{name}", column[name], "height") for name in form.rescale),
        *_places(curves, form),
    )


def _places(curves: Curves, form: Form) -> Iterator[Unknown]:
    """The critical point and the offset, if the form has them."""
    clock, nothing = curves.clock, np.zeros(len(curves.conditions))
    if clock.given is not None:
        ends = clock.given if isinstance(clock.given, tuple) else None
        yield Unknown("critical_point", nothing, "critical_point", clock.origin, clock.unit, ends)
    if form.offset is not None:
        if not isinstance(form.offset, tuple):
            yield Unknown("offset", nothing, "offset", form.offset)
            return
        low, high = form.offset
        # The weights of logs refer to an offset of 0.
        origin = 0.0 if form.scale == "log" else 0.5 * (low + high)
        yield Unknown("offset", nothing, "offset", origin, high - low, form.offset)


@dataclass(frozen=True)
class Directions:
    """Which unknowns the values of the controls can tell apart.

    Of exponents, only C·p enters the fit, where C (K, P) has the centred columns of the free
    unknowns. `basis` (P, r) spans the row space of C, so p = basis·θ + anything in the null space.
    Shifts of log τ and heights of the value are treated separately. A critical point and an offset
    are components of θ of their own, in their units.

    Attributes:
        free: names of the unknowns that are not fixed, shifts first.
        basis: (P, r) orthonormal but for units; the identity if every free exponent can be told
            apart.
        known: whether θ alone determines each free unknown, (P,).
        shifts: columns of the shifts' directions, (K, r₁).
        heights: columns of the heights' directions, (K, r₂).
        origin: of each free unknown, (P,).
        limits: range of the components of θ that are fitted in a given one, (r − r₁ − r₂, 2).
    """

    free: tuple[str, ...]
    basis: np.ndarray
    known: np.ndarray
    shifts: np.ndarray
    heights: np.ndarray
    origin: np.ndarray
    limits: np.ndarray

    def numbers(self, theta: np.ndarray) -> np.ndarray:
        """The free unknowns at θ, (P,)."""
        return self.origin + self.basis @ theta

    def component(self, name: str, number: float) -> float:
        """The component of θ at which a known unknown is this number."""
        i, j = self.free.index(name), self.position(name)
        return float((number - self.origin[i]) / self.basis[i, j])

    def position(self, name: str) -> int:
        """The component of θ that a known unknown is."""
        return int(np.argmax(np.abs(self.basis[self.free.index(name)])))


def find_directions(unknowns: tuple[Unknown, ...], fixed: dict[str, float]) -> Directions:
    """Rank of the free unknowns. Constant controls, or two that vary together, lose a direction."""
    free = [unknown for unknown in unknowns if unknown.name not in fixed]
    bases, columns = [], []
    for kind in ("shift", "height"):
        part = [unknown.column for unknown in free if unknown.kind == kind]
        empty = np.zeros((len(unknowns[0].column), 0))
        column = np.array(part).reshape(len(part), -1).T if part else empty
        bases.append(_row_space(column))
        columns.append(column @ bases[-1])
    placed = [unknown for unknown in free if unknown.ends is not None]
    known = np.r_[np.sum(block_diag(*bases) ** 2, axis=1) > 1 - 1e-12, [True] * len(placed)]
    basis = block_diag(*bases, *(np.eye(1) * unknown.unit for unknown in placed))
    return Directions(
        tuple(unknown.name for unknown in free),
        basis,
        known.astype(bool),
        shifts=columns[0],
        heights=columns[1],
        origin=np.array([unknown.origin for unknown in free]),
        limits=np.array(
            [(np.array(u.ends) - u.origin) / u.unit for u in placed if u.ends is not None]
        ).reshape(-1, 2),
    )


def _row_space(columns: np.ndarray) -> np.ndarray:
    """Orthonormal basis (P, r); a column independent of all others has an axis of its own."""
    number = columns.shape[1]
    if not number:
        return np.zeros((0, 0))
    _, singular, rows = np.linalg.svd(columns, full_matrices=False)
    rank = int(np.sum(singular > 1e-9 * max(singular.max(initial=0.0), 1e-9)))
    alone = np.sum(rows[:rank] ** 2, axis=0) > 1 - 1e-12
    mixed = np.linalg.svd(rows[:rank] * ~alone)[2][: rank - alone.sum()]
    return np.column_stack([np.eye(number)[:, alone], mixed.T])
