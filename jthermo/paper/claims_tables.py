"""Claims and verdicts as Markdown tables and as lines for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jthermo.labels import SYMBOL
from jthermo.paper import claims_json
from jthermo.paper.claims import LAWS, STATED, TRUTHS
from jthermo.results.atomic import write_between

# Measured quantities of a claim that the column of laws still lists.
MOST_QUANTITIES = 3


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
                    f"| **{row['verdict']}**: {row['why']}{instead(row)} |"
                )
    summary = [
        f"- **{name}**, {entry['text']}: {entry['verdict']}. {truth(name, _rows(entry))}".rstrip()
        for name, entry in known.items()
    ]
    return "\n".join([*summary, "", *lines, "", _measured_table(known)]).rstrip()


def truth(claim: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """What is true of a claim, in a few sentences; empty if it was not tested."""
    if not rows:
        return ""
    return ". ".join(filter(None, (TRUTHS[claim], _forms(rows)))) + "."


def _forms(rows: Sequence[Mapping[str, Any]]) -> str:
    """In how many fits a form holds that predicts best; empty if none was compared."""
    compared = [row["forms"] for row in rows if row.get("forms")]
    if not compared:
        return ""
    holding = Counter(forms[0]["name"] for forms in compared if forms[0]["status"] == "best")
    parts = [f"“{name}” in {number}" for name, number in holding.most_common()]
    if none := len(compared) - sum(holding.values()):
        parts.append(f"none of those tried in {none}")
    stated = [form for forms in compared for form in forms if form["name"] == STATED]
    holds = sum(form["status"] != "rejected" for form in stated)
    return (
        f"Compared by their prediction of left-out runs, {STATED} holds in {holds} of "
        f"{len(compared)} fits; the form that holds and predicts best is {', '.join(parts)}"
    )


def instead(row: Mapping[str, Any]) -> str:
    """Which form the curves of a fit obey, after a semicolon; empty if none was compared."""
    if not row.get("forms"):
        return ""
    first, *others = row["forms"]
    power = ""
    if first["power"]:
        value, low, high = first["power"]
        power = f" (value ∝ {_symbol(row)}^{value:.2f} [{low:.2f}, {high:.2f}])"
    holds = first["status"] == "best"
    ahead = "“{}”{} holds" if holds else "no form tried holds; “{}”{} predicts best"
    scores = ", ".join(
        f"{form['name']} {form['score']:.0f} ± {form['standard_error']:.0f}" for form in others
    )
    return f"; {ahead.format(first['name'], power)}; log likelihood relative to it: {scores}"


def _symbol(row: Mapping[str, Any]) -> str:
    # in a Markdown table a bar would end the cell
    return SYMBOL.get(row["control"], row["control"]).strip("|")


def summary(known: Mapping[str, Any]) -> str:
    """The verdict on each claim, and a line for each of its rows, for a terminal."""
    lines = []
    for name, entry in known.items():
        lines.append(f"{name}  {entry['text']}: {entry['verdict']}")
        if what := truth(name, _rows(entry)):
            lines.append(f"    {what}")
        for experiment, result in entry["experiments"].items():
            for row in result["rows"]:
                text = _measured_line(row) if "quantity" in row else _exponent_line(row)
                lines.append(f"      {experiment:<11} {text}")
    return "\n".join(lines)


def line(claim: str, row: Mapping[str, Any]) -> str:
    """A row and its claim as a line of text, for a terminal."""
    if "quantity" in row:
        return f"{claim:<3} {_measured_line(row)}"
    return f"{claim:<3} {row['variable']:<16} {_exponent_line(row)} ({row['why']}{instead(row)})"


def _exponent_line(row: Mapping[str, Any]) -> str:
    """A fitted exponent as a line of text."""
    choice = " ".join(str(v) for v in row["choice"].values())
    fitted = f"exponent of {_symbol(row)}: {interval(row)}"
    return f"{choice:<10} {fitted}  paper {row['claimed']:<4} {row['verdict']}"


def interval(row: Mapping[str, Any]) -> str:
    """The exponent of a row with its interval, as text: the same in tables, terminal and report."""
    if None in (row["exponent"], row["low"], row["high"]):
        return "not identifiable"
    return f"{row['exponent']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def verdict_table(known: Mapping[str, Any]) -> str:
    """A Markdown table with one row per claim: its verdicts, the law found, and what is true."""
    lines = ["| | the paper claims | result | law found | what is true |", "|---|---|---|---|---|"]
    for name, entry in known.items():
        rows = _rows(entry)
        result = counted(rows) if rows else entry["verdict"]
        links = {"Figure": figure_of(entry)} if rows else {}
        for study, found in entry.get("sensitivity", {}).items():
            links[f"Map: {study}"] = next(iter(found.get("figures", ())), "")
        shown = "".join(
            f" [{words}](../results/figures/{figure}.svg)."
            for words, figure in links.items()
            if figure
        )
        lines.append(
            f"| {name} | {entry['text']} | {result} | {law(name, rows)} "
            f"| {truth(name, rows)}{shown} |"
        )
    return "\n".join(lines)


def _rows(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row for result in entry["experiments"].values() for row in result["rows"]]


def figure_of(entry: Mapping[str, Any]) -> str:
    """A figure of the experiment with most rows: one that shows their variable, or its first."""
    result = max(entry["experiments"].values(), key=lambda result: len(result["rows"]))
    variables = {row.get("variable") for row in result["rows"]}
    names, shows = result.get("figures", ()), result.get("shows", {})
    return next((n for n in names if shows.get(n) in variables), next(iter(names), ""))


def law(claim: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The law that the fits or measurements of a claim give, with their number."""
    if not rows:
        return ""
    if claim in LAWS:
        return LAWS[claim]
    fits: dict[str, list[tuple[str, float]]] = {}
    for row in rows:
        if row.get("exponent") is not None:
            fits.setdefault(_symbol(row), []).append((row["claimed"], row["exponent"]))
    if fits:
        return "; ".join(f"exponent of {symbol} {reach(pairs)}" for symbol, pairs in fits.items())
    measured: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if "quantity" in row:
            measured.setdefault(row["quantity"].partition(",")[0], []).append(row)
    if not measured or len(measured) > MOST_QUANTITIES:
        return f"{len(rows)} measured values"
    return "; ".join(
        f"{name}: {_between([row['value'] for row in some])} (paper {_claimed(some)})"
        for name, some in measured.items()
    )


def _claimed(rows: Sequence[Mapping[str, Any]]) -> str:
    """The least and the largest number that the paper claims of a quantity.

    >>> _claimed([{"claimed": c} for c in ("1.06", "1.08", "1.04")])
    '1.04 … 1.08'
    """
    order = sorted((row["claimed"] for row in rows), key=lambda text: float(text.lstrip("<> ")))
    return " … ".join(dict.fromkeys((order[0], order[-1])))


def _between(numbers: Sequence[float]) -> str:
    return " … ".join(dict.fromkeys(f"{v:.2f}" for v in (min(numbers), max(numbers))))


def reach(fits: Sequence[tuple[str, float]]) -> str:
    """The smallest and largest fitted exponent for each exponent that the paper claims.

    >>> reach([("2", 1.6), ("2", 1.9), ("-1", -0.7)])
    '1.60 … 1.90 (paper 2) and -0.70 (paper -1)'
    """
    ranges = []
    for claimed in dict.fromkeys(c for c, _ in fits):
        exponents = [exponent for c, exponent in fits if c == claimed]
        ranges.append(f"{_between(exponents)} (paper {claimed})")
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
