"""Evidence on a claim that is no exponent: a measured number beside what the paper says, with its interval. No JAX."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jthermo.paper.verdicts import NORMAL, verdict


@dataclass(frozen=True)
class Evidence:
    """A measured number on a claim.

    Args:
        claim: the claim's row in :data:`jthermo.paper.claims.CLAIMS`, ``"C11"``.
        quantity: what was measured, in words: a short name, and after a comma its unit and how it was got.
        relation: ``"="``, ``">"`` or ``"<"``: what the paper says of it …
        target: … and of which number.
        value: what it is.
        low: lower end of its 95 % interval.
        high: upper end.
        tolerance: beyond the error, for ``"="``.
        choice: the unstated choices it holds for.
        num_seeds: number of seeds behind it, 0 where there are none.
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
        """The reason of the verdict, in words."""
        return self.row()["why"]

    @property
    def verdict(self) -> str:
        """``"reproduced"``, ``"not reproduced"`` or ``"undecided"``."""
        return self.row()["verdict"]

    def row(self) -> dict[str, Any]:
        """The row for ``claims.json``: its numbers, and the verdict that follows from them."""
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
    """Evidence on a claimed number: reproduced where it lies within 3 standard errors and a tolerance.

    >>> equals("C11", "flux", -1.0, -0.5, 0.01).why
    'it is -0.5000 ± 0.0100'
    """
    ends = value - NORMAL * standard_error, value + NORMAL * standard_error
    return _evidence(claim, quantity, "=", claimed, value, *ends, tolerance=tolerance, **more)


def above(
    claim: str, quantity: str, bound: float, value: float, low: float, high: float, **more: Any
) -> Evidence:
    """Evidence on a number claimed to lie above a bound: the whole interval has to.

    >>> above("C9", "ratio", 1, 1.2, 0.9, 1.5).verdict
    'undecided'
    """
    return _evidence(claim, quantity, ">", bound, value, low, high, **more)


def below(
    claim: str, quantity: str, bound: float, value: float, low: float, high: float, **more: Any
) -> Evidence:
    """Evidence on a number claimed to lie below a bound: the whole interval has to."""
    return _evidence(claim, quantity, "<", bound, value, low, high, **more)


def _evidence(claim: str, quantity: str, relation: str, *numbers: float, **more: Any) -> Evidence:
    """With plain floats, as JSON takes them."""
    target, value, low, high = (float(number) for number in numbers)
    return Evidence(claim, quantity, relation, target, value, low, high, **more)
