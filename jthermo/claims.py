"""Claims of the paper and the verdicts that fits put on them: one row per claim, experiment and unstated choice. No JAX."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jthermo import evidence
from jthermo.errors import InputError
from jthermo.evidence import NOT_REPRODUCED, REPRODUCED, UNDECIDED, Evidence
from jthermo.results.atomic import write_between, write_whole
from jthermo.results.tables import axes_of, tau

if TYPE_CHECKING:
    import xarray as xr

    from jthermo.collapse import CollapseFit

TOLERANCE = 0.15  # "reproduced": the whole interval lies within 15 % of the paper's exponent …
MISFIT = 0.05  # … and the curves miss each other by at most 5 % of their range
CLAIMS = {
    "C1": "the activation rate falls, faster with larger η, also on the clock ηt",
    "C2": "the activation rate collapses on η²t",
    "C3": "the activation rate collapses on t/B",
    "C4": "‖V‖ falls and collapses on η²t",
    "C5": "‖V‖ falls and collapses on t/B",
    "C6": "the gradient variance of the 6-layer fully connected net collapses on η²t",
    "C7": "the gradient variance of the 6-layer CNN on Fashion-MNIST collapses on η²t",
    "C8": "on CIFAR-10 with 300 hidden units, the activation rate falls and collapses on η²t/B",
    "C9": "the force is strongest early, ∝ s² = E(p−y)²",
    "C10": "of two learning rates at equal training error, the larger has the smaller activation rate and ‖V‖",
    "C11": "Eq. 10, Eq. 11, A.4 and ψ as printed give the flow",
    "C12": "Properties 4.1 and 4.2: h_v, h_w and h_b never fall in V², b and, for x ≥ 0, W",
    "C13": "a smaller activation rate and weight norm give a smaller bound on the Hessian trace",
}


@dataclass(frozen=True)
class Claim:
    """A claim on how a curve scales with one control: value = F(t·c^p).

    Args:
        id: its row in `CLAIMS`, ``"C2"``.
        variable: the recorded variable.
        control: c.
        exponent: the paper's p; None where it only says that p is larger than `above`.
        above: the p that the claim has to exceed.
    """

    id: str
    variable: str
    control: str
    exponent: float | None = None
    above: float | None = None

    def __post_init__(self) -> None:
        if self.id not in CLAIMS:
            raise InputError("claim", self.id, f"use one of {', '.join(CLAIMS)}")
        if (self.exponent is None) == (self.above is None):
            raise InputError("claim", self.id, "give either exponent= or above=")


class Chosen(NamedTuple):
    """One combination of the choices that the paper leaves open, its runs and their fit."""

    choice: dict[str, Any]
    runs: xr.Dataset
    fit: CollapseFit


def fit_choices(ds: xr.Dataset, variable: str, controls: Sequence[str], **options: Any) -> list[Chosen]:
    """The collapse of a variable on some controls, for every combination of the other swept axes.

    Args:
        ds: results.
        variable: the recorded variable.
        controls: the controls that get an exponent.
        options: further arguments of :func:`jthermo.fit_collapse`.
    """
    # here, since it takes SciPy, which the tables and the messages do without
    from jthermo.collapse import fit_collapse

    found = []
    for choice, runs in choices(ds, [*controls, "seed"]):
        found.append(Chosen(choice, runs, fit_collapse(runs[variable], controls=tuple(controls), **options)))
    return found


def choices(ds: xr.Dataset, kept: Sequence[str]) -> list[tuple[dict[str, Any], xr.Dataset]]:
    """Every combination of the swept axes that are not `kept` and take several values, with its runs."""
    open_axes = [a for a in axes_of(ds) if a not in kept and len(np.unique(ds[a].values)) > 1]
    found = []
    for combination in itertools.product(*(np.unique(ds[a].values) for a in open_axes)):
        runs = ds
        for axis, value in zip(open_axes, combination, strict=True):
            runs = runs.isel(run=runs[axis].values == value)
        if runs.sizes["run"]:
            found.append(({a: v.item() for a, v in zip(open_axes, combination, strict=True)}, runs))
    return found


def fit_claims(
    ds: xr.Dataset, claims: Sequence[Claim], windows: Mapping[str, tuple[float, float]] | None = None
) -> dict[tuple[str, str], list[Chosen]]:
    """Every fit that some claims need, by (variable, control).

    Args:
        ds: results.
        claims: the claims.
        windows: parts of the clock η²t/B, by name; each is fitted by itself and is one more choice.
    """
    keys = dict.fromkeys((c.variable, c.control) for c in claims)
    if windows is None:
        return {(variable, control): fit_choices(ds, variable, (control,)) for variable, control in keys}
    clock = tau(ds)
    fits: dict[tuple[str, str], list[Chosen]] = {key: [] for key in keys}
    for (variable, control), made in fits.items():
        for name, (low, high) in windows.items():
            part = ds.assign_coords(step=ds.step.where((clock >= low) & (clock <= high), -1))
            for choice, runs, fit in fit_choices(part, variable, (control,)):
                made.append(Chosen({**choice, "window": name}, runs, fit))
    return fits


def judge(claim: Claim, chosen: Chosen) -> dict[str, Any]:
    """The row of a claim for one choice: exponent, interval, misfit, p-value, numbers of runs, verdict and why."""
    runs, fit = chosen.runs, chosen.fit
    found = fit.exponents[claim.control]
    first, last = _ends(runs, claim.variable)
    row = {
        "choice": chosen.choice,
        "variable": claim.variable,
        "control": claim.control,
        "control_values": np.unique(runs[claim.control].values).tolist(),
        "claimed": f"{claim.exponent:g}" if claim.exponent is not None else f"> {claim.above:g}",
        **{
            k: v if np.isfinite(v) else None
            for k, v in (("exponent", found.value), ("low", found.low), ("high", found.high))
        },
        "misfit": fit.misfit,
        "p_value": fit.p_value,
        "collapsed": fit.collapsed,
        "first": first,
        "last": last,
        "num_seeds": len(np.unique(runs.seed.values)),
        "num_runs": runs.sizes["run"],
        "num_left_out": len(fit.left_out),
    }
    row["verdict"], row["why"] = verdict(row)
    return row


def verdict(row: Mapping[str, Any]) -> tuple[str, str]:
    """The verdict on a row and why, from its numbers alone."""
    low, high = (e if row[k] is None else row[k] for k, e in (("low", -np.inf), ("high", np.inf)))
    bound = float(row["claimed"].removeprefix("> "))
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
        return NOT_REPRODUCED, f"the curves miss each other by {100 * row['misfit']:.0f} % of their range"
    if near <= low and high <= far:
        return REPRODUCED, f"the interval lies within {100 * TOLERANCE:g} % of {bound:g}"
    return UNDECIDED, "the interval is too wide"


def supported(row: Mapping[str, Any]) -> bool:
    """Whether the verdict in a row is the one that its own numbers give; False also where they are missing or at odds."""
    try:
        if "quantity" in row:
            return evidence.verdict(row)[0] == row["verdict"]
        inside = row["exponent"] is None or row["low"] is None or row["low"] <= row["exponent"] <= row["high"]
        return inside and verdict(row)[0] == row["verdict"]
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def _ends(runs: xr.Dataset, variable: str) -> tuple[float, float]:
    """Mean over finite runs at the first and at the last record of each."""
    values, there = runs[variable].values, runs.step.values >= 0
    run, last = np.arange(len(values)), values.shape[1] - 1 - there[:, ::-1].argmax(1)
    return float(np.nanmean(values[run, there.argmax(1)])), float(np.nanmean(values[run, last]))


def rows(
    claims: Sequence[Claim],
    fits: Mapping[tuple[str, str], list[Chosen]],
    found: Sequence[Evidence] = (),
) -> dict[str, list[dict[str, Any]]]:
    """The rows of an experiment by claim: those of its fits, then its other evidence."""
    made: dict[str, list[dict[str, Any]]] = {}
    for claim in claims:
        made.setdefault(claim.id, []).extend(judge(claim, c) for c in fits[claim.variable, claim.control])
    for piece in found:
        made.setdefault(piece.claim, []).append(piece.row())
    return made


def update(path: Path, name: str, made: Mapping[str, Any]) -> dict[str, Any]:
    """Put what an experiment has found into ``claims.json``, in place of what it found earlier.

    Who finds the same again changes nothing: ``made``, when and on what it was found, is that of the first time, and the
    digests of records and code stay with the records.

    Args:
        path: the file.
        name: the experiment.
        made: its command, its rows by claim, and what else is to be known of it; with ``not_run``, why it has no rows,
            those that it has from a machine that could run it stay.
    """
    known = json.loads(path.read_text()) if path.exists() else {}
    common = {k: v for k, v in made.items() if k not in ("rows", "sensitivity", "code", "records")}
    common["figures"] = list(made.get("figures", ()))
    for part, place in (("rows", "experiments"), ("sensitivity", "sensitivity")):
        rows = made.get(part, {})
        for claim in dict.fromkeys([*known, *rows]):
            entry = known.setdefault(claim, {"text": CLAIMS[claim], "experiments": {}})
            there = entry.get(place, {}).get(name)
            if "not_run" in made and (there or {}).get("rows"):
                continue
            if claim in rows:
                new = {**common, "rows": rows[claim]}
                if there is None or _found(there) != _found(new):
                    made_by = entry.get(place, {}) | {name: new}
                    entry[place] = dict(sorted(made_by.items()))  # whatever was run first
            elif there:
                del entry[place][name]
            entry["verdict"] = overall(entry)
    known = dict(sorted(known.items(), key=lambda item: int(item[0][1:])))
    write_whole(path, (json.dumps(known, indent=1) + "\n").encode())
    return known


def _found(entry: Mapping[str, Any]) -> str:
    """What an experiment found, without when and on what, so that it can be compared."""
    return json.dumps({**entry, "made": None}, sort_keys=True)


def overall(entry: Mapping[str, Any]) -> str:
    """The verdict over every row of a claim, naming the choice that it depends on."""
    rows = [(name, row) for name, experiment in entry["experiments"].items() for row in experiment["rows"]]
    found = {row["verdict"] for _, row in rows}
    if not found:
        return "; ".join(f"{n} not run: {e['not_run']}" for n, e in entry["experiments"].items()) or "not run"
    if len(found) == 1:
        return found.pop()
    if any("quantity" in row for _, row in rows):
        return evidence.overall([row for _, row in rows])
    groups = {
        v: ", ".join(_case(name, row) for name, row in rows if row["verdict"] == v) for v in sorted(found)
    }
    several = "; ".join(f"{v} for {cases}" for v, cases in groups.items())
    return f"depends on an unstated choice: {several}"


def _case(experiment: str, row: Mapping[str, Any]) -> str:
    return " ".join([experiment, *(str(v) for v in row["choice"].values())])


def table(known: Mapping[str, Any]) -> str:
    """The claims as a Markdown table."""
    lines = [
        "| claim | experiment | choice | paper | exponent [95 %] | misfit | start → end | seeds | verdict |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in known.items():
        for experiment, found in entry["experiments"].items():
            for row in (r for r in found["rows"] if "exponent" in r):
                choice = ", ".join(f"{k.partition('.')[2] or k} {v}" for k, v in row["choice"].items()) or "–"
                exponent = interval(row)
                lines.append(
                    f"| {name} | {experiment} | {choice} | {row['claimed']} | {exponent} "
                    f"| {100 * row['misfit']:.1f} % | {row['first']:.3g} → {row['last']:.3g} | {row['num_seeds']} "
                    f"| **{row['verdict']}**: {row['why']} |"
                )
    summary = [f"- **{name}**, {entry['text']}: {entry['verdict']}." for name, entry in known.items()]
    return "\n".join([*summary, "", *lines, "", evidence.table(known)]).rstrip()


def summary(known: Mapping[str, Any]) -> str:
    """The verdicts in words with the exponent and interval of every choice, for a terminal."""
    lines = []
    for name, entry in known.items():
        lines.append(f"{name}  {entry['text']}: {entry['verdict']}")
        for experiment, found in entry["experiments"].items():
            for row in found["rows"]:
                told = evidence.words(row) if "quantity" in row else _case_line(row)
                lines.append(f"      {experiment:<11} {told}")
    return "\n".join(lines)


def line(claim: str, row: Mapping[str, Any]) -> str:
    """A row with its claim in words, for a terminal."""
    if "quantity" in row:
        return f"{claim:<3} {evidence.words(row)}"
    return f"{claim:<3} {row['variable']:<16} {_case_line(row)} ({row['why']})"


def _case_line(row: Mapping[str, Any]) -> str:
    symbol = {"learning_rate": "η", "batch_size": "|B|"}.get(row["control"], row["control"])
    choice = " ".join(str(v) for v in row["choice"].values())
    return f"{choice:<10} exponent of {symbol}: {interval(row)}  paper {row['claimed']:<4} {row['verdict']}"


def interval(row: Mapping[str, Any]) -> str:
    """The exponent of a row with its interval, as it is printed wherever it is."""
    if None in (row["exponent"], row["low"], row["high"]):
        return "not identifiable"
    return f"{row['exponent']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def verdicts(known: Mapping[str, Any]) -> str:
    """A Markdown row for each claim: the verdict and the exponent at each init."""
    lines = ["| | the paper claims | verdict | exponents or evidence |", "|---|---|---|---|"]
    for name, entry in known.items():
        rows = [row for found in entry["experiments"].values() for row in found["rows"]]
        fits = [(row["claimed"], row["exponent"]) for row in rows if row.get("exponent") is not None]
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
    """From which exponent to which the fits go, for each exponent that the paper claims.

    >>> reach([("2", 1.6), ("2", 1.9), ("-1", -0.7)])
    '1.60 … 1.90 (paper 2) and -0.70 (paper -1)'
    """
    told = []
    for claimed in dict.fromkeys(c for c, _ in fits):
        found = [exponent for c, exponent in fits if c == claimed]
        ends = " … ".join(dict.fromkeys(f"{v:.2f}" for v in (min(found), max(found))))
        told.append(f"{ends} (paper {claimed})")
    return " and ".join(told)


def counted(rows: Sequence[Mapping[str, Any]]) -> str:
    """One verdict where all rows agree, else how many have which."""
    count = Counter(row["verdict"] for row in rows)
    if len(count) == 1:
        return f"**{next(iter(count))}**"
    return ", ".join(f"{number} of {len(rows)} **{verdict}**" for verdict, number in count.most_common())


def write_tables(claims: Path, page: Path) -> None:
    """Put tables of ``claims.json`` between their markers on a page: "claims" with a row per fit, "verdicts" per claim."""
    known = json.loads(claims.read_text())
    write_between(page, {"claims": table(known), "verdicts": verdicts(known)})
