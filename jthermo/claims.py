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
from jthermo.collapse import CollapseFit, fit_collapse
from jthermo.errors import InputError
from jthermo.evidence import Evidence
from jthermo.files import write_between, write_whole
from jthermo.results import axes_of

if TYPE_CHECKING:
    import xarray as xr

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

    def verdict(self, fit: CollapseFit, falls: bool) -> tuple[str, str]:
        """``"reproduced"``, ``"not reproduced"`` or ``"undecided"``, and why."""
        low, high = fit.exponents[self.control].low, fit.exponents[self.control].high
        if not falls:
            return "not reproduced", "it does not fall"
        if self.above is not None:
            if low > self.above:
                return "reproduced", f"the interval lies above {self.above:g}"
            return (
                ("not reproduced", f"the interval lies below {self.above:g}")
                if high < self.above
                else ("undecided", "the interval is too wide")
            )
        assert self.exponent is not None
        near, far = sorted((self.exponent * (1 - TOLERANCE), self.exponent * (1 + TOLERANCE)))
        if high < near or low > far:
            return "not reproduced", f"the interval excludes {self.exponent:g} ± {100 * TOLERANCE:g} %"
        if fit.collapsed is False and fit.misfit > MISFIT:
            return "not reproduced", f"the curves miss each other by {100 * fit.misfit:.0f} % of their range"
        if near <= low and high <= far:
            return "reproduced", f"the interval lies within {100 * TOLERANCE:g} % of {self.exponent:g}"
        return "undecided", "the interval is too wide"


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


def fit_claims(ds: xr.Dataset, claims: Sequence[Claim]) -> dict[tuple[str, str], list[Chosen]]:
    """Every fit that some claims need, by (variable, control)."""
    keys = dict.fromkeys((c.variable, c.control) for c in claims)
    return {(variable, control): fit_choices(ds, variable, (control,)) for variable, control in keys}


def judge(claim: Claim, chosen: Chosen) -> dict[str, Any]:
    """The row of a claim for one choice: exponent, interval, misfit, p-value, numbers of runs, verdict and why."""
    runs, fit = chosen.runs, chosen.fit
    found = fit.exponents[claim.control]
    first, last = _ends(runs, claim.variable)
    verdict, why = claim.verdict(fit, bool(last < first))
    return {
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
        "first": first,
        "last": last,
        "num_seeds": len(np.unique(runs.seed.values)),
        "num_runs": runs.sizes["run"],
        "num_left_out": len(fit.left_out),
        "verdict": verdict,
        "why": why,
    }


def _ends(runs: xr.Dataset, variable: str) -> tuple[float, float]:
    """Mean over finite runs at the first and at the last record of each."""
    values = runs[variable].values
    last = values[np.arange(len(values)), (runs.step.values >= 0).sum(1) - 1]
    return float(np.nanmean(values[:, 0])), float(np.nanmean(last))


def update_claims(
    path: Path,
    experiment: str,
    scale: str,
    sweep_id: str,
    claims: Sequence[Claim],
    fits: Mapping[tuple[str, str], list[Chosen]],
) -> dict[str, Any]:
    """Put the rows of an experiment's claims into ``claims.json``, in place of its earlier ones."""
    rows = {c.id: [judge(c, chosen) for chosen in fits[c.variable, c.control]] for c in claims}
    return _update(path, experiment, scale, sweep_id, rows)


def update_evidence(
    path: Path, experiment: str, scale: str, sweep_id: str, found: Sequence[Evidence]
) -> dict[str, Any]:
    """Put the evidence of an experiment into ``claims.json``, in place of its earlier one."""
    rows = {
        name: [e.row() for e in found if e.claim == name] for name in dict.fromkeys(e.claim for e in found)
    }
    return _update(path, experiment, scale, sweep_id, rows)


def update_not_run(
    path: Path, experiment: str, scale: str, sweep_id: str, claims: Sequence[Claim], why: str
) -> dict[str, Any]:
    """Say in ``claims.json`` why an experiment has no rows; rows that it has from a machine that could run it stay."""
    return _update(path, experiment, scale, sweep_id, {c.id: [] for c in claims}, f"not run: {why}")


def _update(
    path: Path,
    experiment: str,
    scale: str,
    sweep_id: str,
    rows: Mapping[str, list[dict[str, Any]]],
    not_run: str | None = None,
) -> dict[str, Any]:
    """``claims.json`` with an experiment's rows by claim, or with why it has none."""
    known = json.loads(path.read_text()) if path.exists() else {}
    for name, made in rows.items():
        if not_run and known.get(name, {}).get("experiments", {}).get(experiment, {}).get("rows"):
            continue
        entry = known.setdefault(name, {"text": CLAIMS[name], "experiments": {}})
        entry["experiments"][experiment] = {
            "command": f"jthermo reproduce {experiment} --scale {scale}",
            "sweep_id": sweep_id,
            "rows": made,
            **({"not_run": not_run} if not_run else {}),
        }
        entry["verdict"] = overall(entry)
    known = dict(sorted(known.items(), key=lambda item: int(item[0][1:])))
    write_whole(path, (json.dumps(known, indent=1) + "\n").encode())
    return known


def overall(entry: Mapping[str, Any]) -> str:
    """The verdict over every row of a claim, naming the choice that it depends on."""
    rows = [(name, row) for name, experiment in entry["experiments"].items() for row in experiment["rows"]]
    found = {row["verdict"] for _, row in rows}
    if not found:
        return "; ".join(f"{name} {e['not_run']}" for name, e in entry["experiments"].items())
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
                exponent = _interval(row)
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


def line(claim: Claim, row: Mapping[str, Any]) -> str:
    """A row with its claim in words, for a terminal."""
    return f"{claim.id} {row['variable']:<16} {_case_line(row)} ({row['why']})"


def _case_line(row: Mapping[str, Any]) -> str:
    symbol = {"learning_rate": "η", "batch_size": "|B|"}.get(row["control"], row["control"])
    choice = " ".join(str(v) for v in row["choice"].values())
    return f"{choice:<10} exponent of {symbol}: {_interval(row)}  paper {row['claimed']:<4} {row['verdict']}"


def _interval(row: Mapping[str, Any]) -> str:
    if row["exponent"] is None:
        return "not identifiable"
    return f"{row['exponent']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def verdicts(known: Mapping[str, Any]) -> str:
    """A Markdown row for each claim: the verdict and the exponent at each init."""
    lines = ["| | the paper claims | verdict | exponents or evidence |", "|---|---|---|---|"]
    for name, entry in known.items():
        rows = [row for found in entry["experiments"].values() for row in found["rows"]]
        fits = [row for row in rows if row.get("exponent") is not None]
        values = [row["exponent"] for row in fits]
        if not rows:
            lines.append(f"| {name} | {entry['text']} | {entry['verdict']} | |")
            continue
        span = f"{len(rows)} measured values" if not fits else ""
        if fits:
            number = "1 fit" if len(fits) == 1 else f"{len(fits)} fits"
            reach = " … ".join(dict.fromkeys(f"{v:.2f}" for v in (min(values), max(values))))
            span = f"{reach} (paper {fits[0]['claimed']}), {number}"
        lines.append(f"| {name} | {entry['text']} | {_counted(rows)} | {span} |")
    return "\n".join(lines)


def _counted(rows: Sequence[Mapping[str, Any]]) -> str:
    """One verdict where all rows agree, else how many have which."""
    count = Counter(row["verdict"] for row in rows)
    if len(count) == 1:
        return f"**{next(iter(count))}**"
    return ", ".join(f"{number} of {len(rows)} **{verdict}**" for verdict, number in count.most_common())


def write_tables(claims: Path, page: Path) -> None:
    """Put tables of ``claims.json`` between their markers on a page: "claims" with a row per fit, "verdicts" per claim."""
    known = json.loads(claims.read_text())
    write_between(page, {"claims": table(known), "verdicts": verdicts(known)})
