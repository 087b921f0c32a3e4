"""Evidence on claims that are not exponents: a measured number with its interval. No JAX."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jthermo.paper.verdicts import NORMAL, verdict


@dataclass(frozen=True)
class Evidence:
    """A measured number that tests a claim.

    Args:
        claim: the claim's key in :data:`jthermo.paper.claims.CLAIMS`, such as ``"C11"``.
        quantity: what was measured: a short name, then after a comma its unit and method.
        relation: ``"="``, ``">"`` or ``"<"``, the claimed relation of the number to `target`.
        target: the claimed number or bound.
        value: the measured number.
        low: lower end of its 95 % interval.
        high: upper end of its 95 % interval.
        tolerance: deviation from `target` that is allowed beyond the error, for ``"="``.
        choice: the choices, unstated in the paper, that the number was measured for.
        num_seeds: number of seeds it was measured from; 0 if there are none.
    """

    claim: str
    quantity: str
    relation: str
    target: float
    value: float
    low: float
    high: float
    tolerance: float = 0.0
    choice: Mapping[str, Any] = field(default_factory=dict)
    num_seeds: int = 0

    @property
    def why(self) -> str:
        """The reason for the verdict, in words."""
        return self.row()["why"]

    @property
    def verdict(self) -> str:
        """``"reproduced"``, ``"not reproduced"`` or ``"undecided"``."""
        return self.row()["verdict"]

    def row(self) -> dict[str, Any]:
        """The row for ``claims.json``: the numbers, the verdict and its reason."""
        row = dataclasses.asdict(self)
        row.pop("claim")
        row["claimed"] = f"{'' if self.relation == '=' else self.relation + ' '}{self.target:.4g}"
        row["verdict"], row["why"] = verdict(row)
        return row


def equals(
    claim: str,
    quantity: str,
    claimed: float,
    value: float,
    standard_error: float,
    *,
    tolerance: float = 0.0,
    **more: Any,
) -> Evidence:
    """Evidence on a claimed number.

    Reproduced if |value − claimed| ≤ 3 standard errors + tolerance, else not reproduced.

    Args:
        claim: the claim's id.
        quantity: what was measured; see :class:`Evidence`.
        claimed: the claimed number.
        value: the measured number.
        standard_error: its standard error.
        tolerance: deviation that is allowed beyond the error.
        more: ``choice`` and ``num_seeds`` of :class:`Evidence`.

    >>> equals("C11", "flux", -1.0, -0.5, 0.01).why
    'it is -0.5000 ± 0.0100'
    """
    ends = value - NORMAL * standard_error, value + NORMAL * standard_error
    return _evidence(claim, quantity, "=", claimed, value, *ends, tolerance=tolerance, **more)


def above(
    claim: str, quantity: str, bound: float, value: float, low: float, high: float, **more: Any
) -> Evidence:
    """Evidence on a number that is claimed to lie above a bound.

    Reproduced if its whole interval does, not reproduced if none of it does, else undecided.

    Args:
        claim: the claim's id.
        quantity: what was measured; see :class:`Evidence`.
        bound: the claimed lower bound.
        value: the measured number.
        low: lower end of its 95 % interval.
        high: upper end of its 95 % interval.
        more: ``choice`` and ``num_seeds`` of :class:`Evidence`.

    >>> above("C9", "ratio", 1, 1.2, 0.9, 1.5).verdict
    'undecided'
    """
    return _evidence(claim, quantity, ">", bound, value, low, high, **more)


def below(
    claim: str, quantity: str, bound: float, value: float, low: float, high: float, **more: Any
) -> Evidence:
    """Evidence on a number that is claimed to lie below a bound; the counterpart of :func:`above`.

    >>> below("C10", "ratio", 1, 0.8, 0.7, 0.9).verdict
    'reproduced'
    """
    return _evidence(claim, quantity, "<", bound, value, low, high, **more)


def _evidence(claim: str, quantity: str, relation: str, *numbers: float, **more: Any) -> Evidence:
    """Evidence with its numbers as plain floats, so that JSON can hold them."""
    target, value, low, high = (float(number) for number in numbers)
    return Evidence(claim, quantity, relation, target, value, low, high, **more)
