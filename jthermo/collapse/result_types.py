"""The small classes of a fit's result: Exponent, Combination, Note, TestResult."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Exponent:
    """The exponent p of a control in τ = t·Π controlᵖ, with its interval (infinite if unknown)."""

    value: float
    low: float
    high: float
    standard_error: float

    def __str__(self) -> str:
        if not math.isfinite(self.value):
            return "not identifiable"
        # A critical point may be known to many digits: show those that the interval resolves.
        digits, width = 4, self.high - self.low
        if 0 < width < math.inf and self.value:
            digits = max(4, math.ceil(math.log10(abs(self.value) / width)) + 2)
        return " ".join(
            (f"{self.value:.{digits}g}", f"[{self.low:.{digits}g}, {self.high:.{digits}g}]")
        )


@dataclass(frozen=True)
class Combination:
    """A sum Σ weights·exponents that is known although the single exponents are not.

    This happens when controls vary only together.
    """

    weights: dict[str, float]
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Note:
    """A caveat: a code for programs and a sentence for people."""

    code: str
    message: str


@dataclass(frozen=True)
class TestResult:
    """Outcome of :meth:`CollapseFit.test`."""

    p_value: float
    statistic: float
    degrees: tuple[int, float]
