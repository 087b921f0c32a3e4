"""Claims and verdicts as Markdown tables and as lines for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jthermo.labels import SYMBOL
from jthermo.paper import claims_json
from jthermo.paper.claims import REASONS
from jthermo.results.atomic import write_between


def _measured_line(row: Mapping[str, Any]) -> str:
    """A row of evidence as a line of text."""
    choice = " ".join(str(v) for v in row["choice"].values())
    return (
        f"{row['quantity']:<52} {choice:<8} "
        f"{row['value']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"
        f"  paper {row['claimed']:<7} {row['verdict']}"
    )


def _measured_table(known: Mapping[str, Any]) -> str:
    """The evidence in ``claims.json`` as a Markdown table; empty if there is none."""
    lines = [
        "| claim | experiment | quantity | choice | paper | measured [95 %] | seeds | verdict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in known.items():
        for experiment, result in entry["experiments"].items():
            for row in (r for r in result["rows"] if "quantity" in r):
                choice = (
                    ", ".join(f"{k.rpartition('.')[2]} {v}" for k, v in row["choice"].items())
                    or "–"
                )
                lines.append(
                    f"| {name} | {experiment} | {row['quantity']} | {choice} | {row['claimed']} "
                    f"| {row['value']:.4g} [{row['low']:.4g}, {row['high']:.4g}] "
                    f"| {row['num_seeds'] or '–'} "
                    f"| **{row['verdict']}** |"
                )
    return "\n".join(lines) if len(lines) > 2 else ""


def table(known: Mapping[str, Any]) -> str:
    """The verdict on each claim as a Markdown list, and all fits and evidence as tables."""
    lines = [
        "| claim | experiment | choice | paper | exponent [95 %] | misfit | start → end | seeds "
        "| verdict |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in known.items():
        for experiment, result in entry["experiments"].items():
            for row in (r for r in result["rows"] if "exponent" in r):
                choice = (
                    ", ".join(f"{k.partition('.')[2] or k} {v}" for k, v in row["choice"].items())
                    or "–"
                )
                exponent = interval(row)
                lines.append(
                    f"| {name} | {experiment} | {choice} | {row['claimed']} | {exponent} "
                    f"| {100 * row['misfit']:.1f} % "
                    f"| {row['first']:.3g} → {row['last']:.3g} | {row['num_seeds']} "
                    f"| **{row['verdict']}**: {row['why']} |"
                )
    summary = [
        f"- **{name}**, {entry['text']}: {entry['verdict']}{_reason(name)}."
        for name, entry in known.items()
    ]
    return "\n".join([*summary, "", *lines, "", _measured_table(known)]).rstrip()


def _reason(claim: str) -> str:
    """A further sentence on why a claim is not reproduced; empty if nothing is known."""
    return f". {REASONS[claim]}" if claim in REASONS else ""


def summary(known: Mapping[str, Any]) -> str:
    """The verdict on each claim, and a line for each of its rows, for a terminal."""
    lines = []
    for name, entry in known.items():
        lines.append(f"{name}  {entry['text']}: {entry['verdict']}{_reason(name)}")
        for experiment, result in entry["experiments"].items():
            for row in result["rows"]:
                text = _measured_line(row) if "quantity" in row else _exponent_line(row)
                lines.append(f"      {experiment:<11} {text}")
    return "\n".join(lines)


def line(claim: str, row: Mapping[str, Any]) -> str:
    """A row and its claim as a line of text, for a terminal."""
    if "quantity" in row:
        return f"{claim:<3} {_measured_line(row)}"
    return f"{claim:<3} {row['variable']:<16} {_exponent_line(row)} ({row['why']})"


def _exponent_line(row: Mapping[str, Any]) -> str:
    """A fitted exponent as a line of text."""
    choice = " ".join(str(v) for v in row["choice"].values())
    fitted = f"exponent of {SYMBOL.get(row['control'], row['control'])}: {interval(row)}"
    return f"{choice:<10} {fitted}  paper {row['claimed']:<4} {row['verdict']}"


def interval(row: Mapping[str, Any]) -> str:
    """The exponent of a row with its interval, as text: the same in tables, terminal and report."""
    if None in (row["exponent"], row["low"], row["high"]):
        return "not identifiable"
    return f"{row['exponent']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def verdict_table(known: Mapping[str, Any]) -> str:
    """A Markdown table with one row per claim: its verdicts and the range of its exponents."""
    lines = ["| | the paper claims | verdict | exponents or evidence |", "|---|---|---|---|"]
    for name, entry in known.items():
        rows = [row for result in entry["experiments"].values() for row in result["rows"]]
        fits = [
            (row["claimed"], row["exponent"]) for row in rows if row.get("exponent") is not None
        ]
        if not rows:
            lines.append(f"| {name} | {entry['text']} | {entry['verdict']} | |")
            continue
        span = f"{len(rows)} measured values" if not fits else ""
        if fits:
            number = "1 fit" if len(fits) == 1 else f"{len(fits)} fits"
            span = f"{reach(fits)}, {number}"
        lines.append(f"| {name} | {entry['text']} | {counted(rows)} | {span} |")
    return "\n".join(lines)


def reach(fits: Sequence[tuple[str, float]]) -> str:
    """The smallest and largest fitted exponent for each exponent that the paper claims.

    >>> reach([("2", 1.6), ("2", 1.9), ("-1", -0.7)])
    '1.60 … 1.90 (paper 2) and -0.70 (paper -1)'
    """
    ranges = []
    for claimed in dict.fromkeys(c for c, _ in fits):
        exponents = [exponent for c, exponent in fits if c == claimed]
        ends = " … ".join(dict.fromkeys(f"{v:.2f}" for v in (min(exponents), max(exponents))))
        ranges.append(f"{ends} (paper {claimed})")
    return " and ".join(ranges)


def counted(rows: Sequence[Mapping[str, Any]]) -> str:
    """The verdict of the rows if they all agree, else the number of rows with each verdict."""
    count = Counter(row["verdict"] for row in rows)
    if len(count) == 1:
        return f"**{next(iter(count))}**"
    return ", ".join(
        f"{number} of {len(rows)} **{verdict}**" for verdict, number in count.most_common()
    )


def write_tables(claims: Path, page: Path) -> None:
    """Write the tables of ``claims.json`` into a page, between its markers.

    Args:
        claims: the path of ``claims.json``.
        page: a Markdown page with ``<!-- claims:begin -->`` and ``<!-- claims:end -->`` for the
            table with one row per fit, or the same with ``verdicts`` for one row per claim.

    Raises:
        InputError: the page has neither pair of markers, or ``claims.json`` was altered.
    """
    known = claims_json.read(claims)
    write_between(page, {"claims": table(known), "verdicts": verdict_table(known)})
