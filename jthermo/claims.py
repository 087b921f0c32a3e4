"""Claims of the paper and the verdicts that fits put on them: one row per claim, experiment and unstated choice. No JAX."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jthermo.collapse import CollapseFit, fit_collapse
from jthermo.errors import InputError
from jthermo.files import write_whole
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
    "C13": "a smaller activation rate and weight norm give a smaller bound on the Hessian trace",
}
BEGIN, END = "<!-- claims:begin -->", "<!-- claims:end -->"


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

    def verdict(self, low: float, high: float, misfit: float, falls: bool) -> tuple[str, str]:
        """``"reproduced"``, ``"not reproduced"`` or ``"undecided"``, and why."""
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
        if misfit > MISFIT:
            return "not reproduced", f"the curves miss each other by {100 * misfit:.0f} % of their range"
        if near <= low and high <= far:
            return "reproduced", f"the interval lies within {100 * TOLERANCE:g} % of {self.exponent:g}"
        return "undecided", "the interval is too wide"


class Chosen(NamedTuple):
    """One combination of the choices that the paper leaves open, its runs and their fit."""

    choice: dict[str, Any]
    runs: xr.Dataset
    fit: CollapseFit


def fit_choices(ds: xr.Dataset, variable: str, control: str) -> list[Chosen]:
    """The collapse of a variable on one control, for every combination of the other swept axes."""
    choices = [a for a in axes_of(ds) if a not in (control, "seed") and len(np.unique(ds[a].values)) > 1]
    found = []
    for combination in itertools.product(*(np.unique(ds[a].values) for a in choices)):
        chosen = np.all(
            [
                np.ones(ds.sizes["run"], bool),
                *(ds[a].values == v for a, v in zip(choices, combination, strict=True)),
            ],
            axis=0,
        )
        runs = ds.isel(run=chosen)
        choice = {a: v.item() for a, v in zip(choices, combination, strict=True)}
        found.append(Chosen(choice, runs, fit_collapse(runs[variable], controls=(control,))))
    return found


def fit_claims(ds: xr.Dataset, claims: Sequence[Claim]) -> dict[tuple[str, str], list[Chosen]]:
    """Every fit that some claims need, by (variable, control)."""
    return {key: fit_choices(ds, *key) for key in dict.fromkeys((c.variable, c.control) for c in claims)}


def judge(claim: Claim, chosen: Chosen) -> dict[str, Any]:
    """The row of a claim for one choice: exponent, interval, misfit, p-value, numbers of runs, verdict and why."""
    runs, fit = chosen.runs, chosen.fit
    found = fit.exponents[claim.control]
    first, last = _ends(runs, claim.variable)
    verdict, why = claim.verdict(found.low, found.high, fit.misfit, bool(last < first))
    return {
        "choice": chosen.choice,
        "variable": claim.variable,
        "control": claim.control,
        "control_values": np.unique(runs[claim.control].values).tolist(),
        "claimed": f"{claim.exponent:g}" if claim.exponent is not None else f"> {claim.above:g}",
        "exponent": found.value,
        "low": found.low,
        "high": found.high,
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
    known = json.loads(path.read_text()) if path.exists() else {}
    for claim in claims:
        entry = known.setdefault(claim.id, {"text": CLAIMS[claim.id], "experiments": {}})
        entry["experiments"][experiment] = {
            "command": f"jthermo reproduce {experiment} --scale {scale}",
            "sweep_id": sweep_id,
            "rows": [judge(claim, chosen) for chosen in fits[claim.variable, claim.control]],
        }
        entry["verdict"] = overall(entry)
    known = dict(sorted(known.items(), key=lambda item: int(item[0][1:])))
    write_whole(path, (json.dumps(known, indent=1) + "\n").encode())
    return known


def overall(entry: Mapping[str, Any]) -> str:
    """The verdict over every row of a claim, naming the choice that it depends on."""
    rows = [(name, row) for name, experiment in entry["experiments"].items() for row in experiment["rows"]]
    found = {row["verdict"] for _, row in rows}
    if len(found) == 1:
        return found.pop()
    groups = {
        v: ", ".join(_case(name, row) for name, row in rows if row["verdict"] == v) for v in sorted(found)
    }
    return "depends on an unstated choice: " + "; ".join(f"{v} for {cases}" for v, cases in groups.items())


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
            for row in found["rows"]:
                choice = ", ".join(f"{k.partition('.')[2] or k} {v}" for k, v in row["choice"].items()) or "–"
                exponent = f"{row['exponent']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
                lines.append(
                    f"| {name} | {experiment} | {choice} | {row['claimed']} | {exponent} "
                    f"| {100 * row['misfit']:.1f} % | {row['first']:.3g} → {row['last']:.3g} | {row['num_seeds']} "
                    f"| **{row['verdict']}**: {row['why']} |"
                )
    summary = [f"- **{name}**, {entry['text']}: {entry['verdict']}." for name, entry in known.items()]
    return "\n".join([*summary, "", *lines])


def line(claim: Claim, row: Mapping[str, Any]) -> str:
    """A row in words, for a terminal."""
    symbol = {"learning_rate": "η", "batch_size": "|B|"}.get(claim.control, claim.control)
    choice = " ".join(str(v) for v in row["choice"].values())
    return (
        f"{claim.id} {row['variable']:<16} {choice:<10} exponent of {symbol}: {row['exponent']:+.3f} "
        f"[{row['low']:+.3f}, {row['high']:+.3f}]  claimed {row['claimed']:<4} {row['verdict']} ({row['why']})"
    )


def write_table(claims: Path, page: Path) -> None:
    """Put the table of ``claims.json`` between the markers of a Markdown page."""
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise InputError(
            "page", str(page), f"has no lines {BEGIN} and {END}; add them where the table belongs"
        )
    made = f"{before}{BEGIN}\n{table(json.loads(claims.read_text()))}\n{END}{after}"
    write_whole(page, made.encode())
