"""The unknowns of a fit, and which of them the values of the controls can tell apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import block_diag

from jthermo.collapse.read import Curves


@dataclass(frozen=True)
class Unknown:
    """One number a that is fitted: it multiplies τ, or the value if `height`, by exp(a·column).

    Attributes:
        name: its name among the exponents.
        column: at the conditions, centred, (K,).
        height: whether it scales the value instead of τ.
    """

    name: str
    column: np.ndarray
    height: bool = False


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
    curves: Curves, rescale: tuple[str, ...], corrections: tuple[Correction, ...]
) -> tuple[Unknown, ...]:
    """Exponents of the controls, amplitudes of corrections, exponents of the value's scale."""
    logs = np.array([c.log_controls for c in curves.conditions])
    column = dict(zip(curves.controls, (logs - logs.mean(axis=0)).T, strict=True))
    return (
        *(Unknown(name, column[name]) for name in curves.controls),
        *(Unknown(correction.name, correction.column(curves)) for correction in corrections),
        *(Unknown(f"value_{name}", column[name], height=True) for name in rescale),
    )


@dataclass(frozen=True)
class Directions:
    """Which unknowns the values of the controls can tell apart.

    Only C·p enters the fit, where C (K, P) has the centred columns of the free unknowns. `basis`
    (P, r) spans the row space of C, so p = basis·θ + anything in the null space. Shifts of log τ
    and heights of the value are treated separately.

    Attributes:
        free: names of the unknowns that are not fixed, shifts first.
        basis: (P, r) orthonormal; the identity if every free unknown can be told apart.
        known: whether θ alone determines each free unknown, (P,).
        shifts: columns of the shifts' directions, (K, r₁).
        heights: columns of the heights' directions, (K, r − r₁).
    """

    free: tuple[str, ...]
    basis: np.ndarray
    known: np.ndarray
    shifts: np.ndarray
    heights: np.ndarray

    def position(self, name: str) -> int:
        """The component of θ that a known unknown is."""
        return int(np.argmax(np.abs(self.basis[self.free.index(name)])))


def find_directions(unknowns: tuple[Unknown, ...], fixed: dict[str, float]) -> Directions:
    """Rank of the free unknowns. Constant controls, or two that vary together, lose a direction."""
    free = [unknown for unknown in unknowns if unknown.name not in fixed]
    bases, columns = [], []
    for height in (False, True):
        part = [unknown.column for unknown in free if unknown.height == height]
        empty = np.zeros((len(unknowns[0].column), 0))
        column = np.array(part).reshape(len(part), -1).T if part else empty
        bases.append(_row_space(column))
        columns.append(column @ bases[-1])
    basis = block_diag(*bases)
    known = np.sum(basis**2, axis=1) > 1 - 1e-12
    return Directions(tuple(unknown.name for unknown in free), basis, known, *columns)


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
