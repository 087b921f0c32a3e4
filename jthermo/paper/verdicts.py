"""The rules for verdicts: when an exponent or a measured number counts as reproduced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

REPRODUCED, NOT_REPRODUCED, UNDECIDED = "reproduced", "not reproduced", "undecided"

# A fitted exponent is reproduced if its interval lies within this share of the paper's exponent.
TOLERANCE = 0.15
# Curves whose collapse is rejected still count as collapsed if their misfit, as a share of their
# range, is at most this.
MISFIT = 0.05
# If the interval reaches across the tolerance, the paper's clock is compared with clocks that have
# these shares of its exponent. The limits of the tolerance lie halfway between, so curves that come
# closest on the paper's clock have an exponent within it.
RIVALS = (1 - 2 * TOLERANCE, 1 + 2 * TOLERANCE)
# Half the width of a 95 % interval of a normal estimate, in standard errors.
NORMAL = 1.96
# A measured number agrees with a claimed one within this many standard errors plus its tolerance.
SIGMAS = 3


def verdict(row: Mapping[str, Any]) -> tuple[str, str]:
    """The verdict on a row of ``claims.json`` and its reason, computed from the row's numbers."""
    return _measured_verdict(row) if "quantity" in row else _exponent_verdict(row)


def _measured_verdict(row: Mapping[str, Any]) -> tuple[str, str]:
    """The verdict on a measured number, and its reason."""
    value, low, high, target = (float(row[k]) for k in ("value", "low", "high", "target"))
    if row.get("num_seeds") == 1:
        # resamplings of it are all alike, so that the interval may be a point
        return UNDECIDED, "a single seed has no standard error"
    if not np.isfinite(value):
        return UNDECIDED, "the number is not known"
    if row["relation"] == "=":
        error = (high - low) / 2 / NORMAL
        if not np.isfinite(error):
            return UNDECIDED, "its standard error is not known"
        agrees = abs(value - target) <= SIGMAS * error + row["tolerance"]
        return REPRODUCED if agrees else NOT_REPRODUCED, f"it is {value:.4f} ± {error:.4f}"
    right, wrong = (
        (low > target, high < target) if row["relation"] == ">" else (high < target, low > target)
    )
    if right or wrong:
        return REPRODUCED if right else NOT_REPRODUCED, f"it lies in [{low:.3g}, {high:.3g}]"
    gap = deciding_half_width(row)
    more = ((high - low) / 2 / gap) ** 2 if gap else np.inf
    known = row.get("num_seeds") and np.isfinite(more)
    decide = seeds_decide(row["num_seeds"] * more) if known else ""
    return UNDECIDED, f"the interval holds the bound{decide}"


def _overall_of_measured(rows: Sequence[Mapping[str, Any]]) -> str:
    """The verdicts in one line, by quantity: its name up to the first comma, over all choices.

    The fits among the rows are one more quantity, the exponent.

    >>> drift = [{"quantity": "drift, J/ρ", "verdict": v} for v in (REPRODUCED, UNDECIDED)]
    >>> _overall_of_measured([*drift, {"quantity": "ψ", "verdict": NOT_REPRODUCED}])
    'not reproduced for ψ; reproduced for drift (1 of 2); undecided for drift (1 of 2)'
    """
    counts: dict[str, dict[str, int]] = {}
    for row in rows:
        name = row["quantity"] if "quantity" in row else f"exponent of {row['control']}"
        count = counts.setdefault(name.partition(",")[0], {})
        count[row["verdict"]] = count.get(row["verdict"], 0) + 1
    cases: dict[str, list[str]] = {}
    for name, count in counts.items():
        for verdict, number in count.items():
            part = f" ({number} of {sum(count.values())})" if len(count) > 1 else ""
            cases.setdefault(verdict, []).append(name + part)
    return "; ".join(
        f"{verdict} for {', '.join(names)}" for verdict, names in sorted(cases.items())
    )


def _exponent_verdict(row: Mapping[str, Any]) -> tuple[str, str]:
    """The verdict on a fitted exponent, and its reason."""
    low, high = _ends(row)
    bound = float(row["claimed"].removeprefix("> "))
    if not np.isfinite([row["first"], row["last"]]).all():
        return UNDECIDED, "its first or last mean is not known"
    if not row["last"] < row["first"]:
        return NOT_REPRODUCED, "it does not fall"
    if row["claimed"].startswith(">"):
        if low > bound:
            return REPRODUCED, f"the interval lies above {bound:g}"
        if high < bound:
            return NOT_REPRODUCED, f"the interval lies below {bound:g}"
        return UNDECIDED, "the interval is too wide"
    near, far = sorted((bound * (1 - TOLERANCE), bound * (1 + TOLERANCE)))
    if high < near or low > far:
        return NOT_REPRODUCED, f"the interval excludes {bound:g} ± {100 * TOLERANCE:g} %"
    if row.get("collapsed") is False and row["misfit"] > MISFIT:
        return (
            NOT_REPRODUCED,
            f"the curves miss each other by {100 * row['misfit']:.0f} % of their range",
        )
    if near <= low and high <= far:
        return REPRODUCED, f"the interval lies within {100 * TOLERANCE:g} % of {bound:g}"
    if "clocks" in row:
        return _clock_verdict(row["clocks"])
    return UNDECIDED, "the interval is too wide"


def _ends(row: Mapping[str, Any]) -> tuple[float, float]:
    """The interval of a row; an end that is None is infinite."""
    low, high = row["low"], row["high"]
    return -np.inf if low is None else low, np.inf if high is None else high


def _clock_verdict(clocks: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The verdict from the misfits on the paper's clock, the first, and on its rivals."""
    paper, *rivals = clocks
    on_paper = (
        f"on the paper's clock the curves miss each other by {_percent(paper)} of their range"
    )
    if paper["collapsed"] is False and paper["low"] > MISFIT:
        return NOT_REPRODUCED, on_paper
    if closer := [rival for rival in rivals if rival["high"] < paper["low"]]:
        best = min(closer, key=lambda rival: rival["misfit"])
        return NOT_REPRODUCED, f"{on_paper}, with {best['exponent']:g} by {_percent(best)}"
    if all(paper["high"] < limit for limit in (MISFIT, *(rival["low"] for rival in rivals))):
        others = " and ".join(f"with {r['exponent']:g} by {_percent(r)}" for r in rivals)
        return REPRODUCED, f"{on_paper}, {others}"
    return UNDECIDED, f"the interval is too wide; {on_paper}"


def _percent(clock: Mapping[str, Any]) -> str:
    return f"{100 * clock['misfit']:.1f} %"


def deciding_half_width(row: Mapping[str, Any]) -> float | None:
    """Half the width at which the interval of an undecided row would decide, if its value stays.

    None if no interval around the value would: it is not known, or it lies on the bound.

    >>> deciding_half_width({"claimed": "2", "exponent": 1.8})
    0.10000000000000009
    """
    if "quantity" in row:
        return abs(row["value"] - row["target"]) or None
    if row["exponent"] is None:
        return None
    bound = float(row["claimed"].removeprefix("> "))
    edges = (
        (bound,)
        if row["claimed"].startswith(">")
        else (bound * (1 - TOLERANCE), bound * (1 + TOLERANCE))
    )
    return min(abs(row["exponent"] - edge) for edge in edges) or None


def seeds_decide(number: float) -> str:
    """What an undecided row says of the number of seeds that it would take.

    >>> seeds_decide(1234)
    '; about 1,200 seeds would decide it'
    """
    return f"; about {float(f'{number:.2g}'):,.0f} seeds would decide it"


def supported(row: Mapping[str, Any]) -> bool:
    """Whether the numbers of a row give its verdict; False if any are missing or inconsistent."""
    try:
        estimate, (low, high) = row["value" if "quantity" in row else "exponent"], _ends(row)
        numbers = [low, high] if estimate is None else [low, estimate, high]
        ordered = np.isnan(numbers).any() or numbers == sorted(numbers)
        return bool(ordered) and verdict(row)[0] == row["verdict"]
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def overall(entry: Mapping[str, Any]) -> str:
    """The verdict over all rows of a claim, with the choice that decides it, if one does."""
    rows = [row for experiment in entry["experiments"].values() for row in experiment["rows"]]
    verdicts = {row["verdict"] for row in rows}
    if not verdicts:
        return (
            "; ".join(f"{n} not run: {e['not_run']}" for n, e in entry["experiments"].items())
            or "not run"
        )
    if len(verdicts) == 1:
        return verdicts.pop()
    if any("quantity" in row for row in rows):
        return _overall_of_measured(rows)
    counts = Counter(row["verdict"] for row in rows).most_common()
    several = ", ".join(f"{verdict} in {number} of {len(rows)} fits" for verdict, number in counts)
    return several + _dependence(rows, tuple(entry.get("sensitivity", ())))


def _dependence(rows: Sequence[Mapping[str, Any]], maps: Sequence[str]) -> str:
    """The choice that tells reproduced fits from those that are not, and where it is mapped."""
    decided = [row for row in rows if row["verdict"] != UNDECIDED]
    for name in dict.fromkeys(name for row in decided for name in row["choice"]):
        found: dict[str, set[str]] = {}
        for row in decided:
            found.setdefault(str(row["choice"].get(name, "")), set()).add(row["verdict"])
        verdicts = [verdict for each in found.values() for verdict in each]
        if len(verdicts) == len(found) and len(set(verdicts)) > 1:
            cases = ", ".join(f"{verdict} for {value}" for value, (verdict,) in found.items())
            where = f" (mapped by {', '.join(maps)})" if maps else ""
            return f"; it depends on {name}: {cases}{where}"
    return ""
