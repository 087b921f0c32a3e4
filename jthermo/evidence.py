"""Evidence on a claim that is no exponent: a measured number beside what the paper says, with its interval. No JAX."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

REPRODUCED, NOT_REPRODUCED, UNDECIDED = "reproduced", "not reproduced", "undecided"
NORMAL = 1.96  # standard errors from the middle to either end of a 95 % interval
SIGMAS = 3  # a number agrees with a claimed one within so many standard errors, plus a stated tolerance


@dataclass(frozen=True)
class Evidence:
    """A measured number on a claim.

    Args:
        claim: the claim's row in :data:`jthermo.claims.CLAIMS`, ``"C11"``.
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


def verdict(row: Mapping[str, Any]) -> tuple[str, str]:
    """The verdict on a row and why, from its numbers alone."""
    value, low, high, target = (float(row[k]) for k in ("value", "low", "high", "target"))
    if row["relation"] == "=":
        error = (high - low) / 2 / NORMAL
        agrees = abs(value - target) <= SIGMAS * error + row["tolerance"]
        return REPRODUCED if agrees else NOT_REPRODUCED, f"it is {value:.4f} ± {error:.4f}"
    right, wrong = (low > target, high < target) if row["relation"] == ">" else (high < target, low > target)
    if right or wrong:
        return REPRODUCED if right else NOT_REPRODUCED, f"it lies in [{low:.3g}, {high:.3g}]"
    return UNDECIDED, "the interval holds the bound"


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


def words(row: Mapping[str, Any]) -> str:
    """A row of evidence in words."""
    choice = " ".join(str(v) for v in row["choice"].values())
    return (
        f"{row['quantity']:<52} {choice:<8} {row['value']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"
        f"  paper {row['claimed']:<7} {row['verdict']}"
    )


def overall(rows: Sequence[Mapping[str, Any]]) -> str:
    """The verdicts in one line: each quantity once, by its name up to the first comma, whatever the choices.

    >>> rows = [{"quantity": "drift, J/ρ", "verdict": REPRODUCED}, {"quantity": "drift, J/ρ", "verdict": UNDECIDED}]
    >>> overall([*rows, {"quantity": "ψ", "verdict": NOT_REPRODUCED}])
    'not reproduced for ψ; reproduced for drift (1 of 2); undecided for drift (1 of 2)'
    """
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        count = found.setdefault(row["quantity"].partition(",")[0], {})
        count[row["verdict"]] = count.get(row["verdict"], 0) + 1
    cases: dict[str, list[str]] = {}
    for name, count in found.items():
        for verdict, number in count.items():
            part = f" ({number} of {sum(count.values())})" if len(count) > 1 else ""
            cases.setdefault(verdict, []).append(name + part)
    return "; ".join(f"{verdict} for {', '.join(names)}" for verdict, names in sorted(cases.items()))


def table(known: Mapping[str, Any]) -> str:
    """The evidence in ``claims.json`` as a Markdown table, empty where there is none."""
    lines = [
        "| claim | experiment | quantity | choice | paper | measured [95 %] | seeds | verdict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in known.items():
        for experiment, found in entry["experiments"].items():
            for row in (r for r in found["rows"] if "quantity" in r):
                choice = ", ".join(f"{k.rpartition('.')[2]} {v}" for k, v in row["choice"].items()) or "–"
                lines.append(
                    f"| {name} | {experiment} | {row['quantity']} | {choice} | {row['claimed']} "
                    f"| {row['value']:.4g} [{row['low']:.4g}, {row['high']:.4g}] | {row['num_seeds'] or '–'} "
                    f"| **{row['verdict']}** |"
                )
    return "\n".join(lines) if len(lines) > 2 else ""
