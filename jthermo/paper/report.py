"""The replication report: an HTML page with verdicts, fits, figures and commands for each claim.

It covers the experiments whose records are in the results folder and unchanged. All others are
listed as "not run", with the command that runs them.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jthermo.errors import InputError
from jthermo.figures import templates
from jthermo.figures.svg import for_page
from jthermo.paper import claims, claims_json, claims_tables, experiment_folder, verdicts
from jthermo.paper.catalogue import SCALES, About, about, experiments
from jthermo.paper.verdicts import NOT_REPRODUCED, REPRODUCED, SIGMAS, UNDECIDED
from jthermo.results.atomic import write_whole, writing

# The sign of each verdict on the page.
SIGNS = {REPRODUCED: "✓", NOT_REPRODUCED: "✗", UNDECIDED: "?"}
UNSUPPORTED, NOT_RUN = "unsupported", "not run"
# Intervals are cut off at this distance from the paper's exponent when they are drawn.
REACH = 2.5
# Short names of swept axes in the tables.
FIELDS = {"learning_rate": "η", "batch_size": "B", "model.init": "init", "data.num_samples": "data"}


@dataclass
class Experiment:
    """An experiment on the page: its findings, or why it has none, and the command that runs it."""

    name: str
    about: About
    command: str
    scale: str = ""
    # the reason why it is "not run"
    why: str = ""
    findings: Mapping[str, Any] | None = None
    sweep: Mapping[str, Any] | None = None
    # SVG by name
    figures: dict[str, str] = field(default_factory=dict)

    @property
    def tested(self) -> tuple[str, ...]:
        """The claims it counts towards; none if it studies what their exponents depend on."""
        return () if self.about.study else self.about.claims

    @property
    def parts(self) -> list[tuple[str, str]]:
        """The sweep as (field, Python expression)."""
        return described(self.sweep) if self.sweep else []

    @property
    def sweep_json(self) -> str:
        """The sweep as indented JSON, with each list on one line."""
        text = json.dumps(self.sweep, indent=1, ensure_ascii=False)
        return re.sub(r"\[[^\[\]{}]*\]", lambda match: " ".join(match[0].split()), text)


def report(
    results: str | Path = "results",
    out: str | Path = "results/report.html",
    published: bool = False,
) -> dict[str, list[str]]:
    """Write the replication report: one HTML file that works without a network connection.

    Args:
        results: the folder that ``jthermo reproduce`` wrote into.
        out: the HTML file to write.
        published: report the published ``claims.json`` instead of the records in `results`.

    Returns:
        The names of the experiments with findings (``"found"``) and without (``"not run"``).

    Raises:
        InputError: `results` is not a folder, has no ``claims.json`` to publish, or the page cannot
            be written.
    """
    if not Path(results).is_dir():
        raise InputError(
            "results", str(results), "is not a folder; run `jthermo reproduce all` first"
        )
    listed, path = (_published if published else _own)(Path(results)), Path(out)
    page = templates.render(
        "report.html",
        title="jthermo: what survives of the paper's claims",
        **_page(listed, published),
    )
    with writing(path.parent):
        write_whole(path, page.encode())
    names: dict[str, list[str]] = {"found": [], NOT_RUN: []}
    for experiment in listed:
        names["found" if experiment.findings else NOT_RUN].append(experiment.name)
    return names


def _own(results: Path) -> list[Experiment]:
    """Every experiment with its findings from the results folder, at the largest scale run."""
    listed = []
    for name, path in experiments().items():
        experiment = Experiment(name, said := about(path), f"jthermo reproduce {name}")
        for scale in SCALES:
            folder = results / f"{name}-{scale}"
            try:
                findings = experiment_folder.read(folder)
            except InputError as error:
                experiment.why = experiment.why or f"{folder} {error.remedy}"
                continue
            svgs = {
                figure: experiment_folder.figure(folder, findings, figure)
                for figure in findings["figures"]
            }
            figures = {figure: for_page(text) for figure, text in svgs.items() if text is not None}
            experiment = Experiment(
                name,
                said,
                findings["command"],
                scale,
                findings=findings,
                sweep=experiment_folder.description(folder),
                figures=figures,
            )
        listed.append(experiment)
    return listed


def _published(results: Path) -> list[Experiment]:
    """Every experiment with its findings from the published ``claims.json``."""
    path = results / experiment_folder.FINDING
    if not path.exists():
        raise InputError(
            "results",
            str(results),
            f"has no {experiment_folder.FINDING}; give the results folder of a clone of jthermo",
        )
    known = claims_json.read(path)
    return [
        _published_experiment(name, about(file), known, results)
        for name, file in experiments().items()
    ]


def _published_experiment(
    name: str, said: About, known: Mapping[str, Any], results: Path
) -> Experiment:
    """One experiment with its findings from the content of ``claims.json``."""
    command = f"jthermo reproduce {name}"
    findings: dict[str, Any] = {"rows": {}, "sensitivity": {}, "made": {}}
    for claim, entry in known.items():
        for part, place in claims_json.PLACES.items():
            if result := entry.get(place, {}).get(name):
                parts = {key: findings[key] for key in claims_json.PLACES}
                parts[part][claim] = result["rows"]
                findings = {**result, **parts}
    paths = {
        figure: results / experiment_folder.FIGURES / f"{figure}.svg"
        for figure in findings.get("figures", [name])
    }
    figures = {
        figure: for_page(path.read_text(encoding="utf-8"))
        for figure, path in paths.items()
        if path.exists()
    }
    if not said.claims and figures:
        # it tests no claim, so claims.json does not mention it, but its figure is published
        return Experiment(name, said, command, findings=findings, figures=figures)
    if not any([*findings["rows"].values(), *findings["sensitivity"].values()]):
        why = findings.get("not_run", "It has no published results")
        return Experiment(name, said, command, why=why)
    # imported here because it loads JAX, which the report of one's own records does not need
    from jthermo.paper.reproduce import sweep_of

    scale = findings["command"].rpartition(" ")[2]
    sweep = None
    if findings.get("sweep_id") and (now := sweep_of(name, scale)).id == findings["sweep_id"]:
        sweep = json.loads(now.to_json())
    return Experiment(
        name,
        said,
        findings["command"],
        scale,
        findings=findings,
        sweep=sweep,
        figures=figures,
    )


def _page(listed: Sequence[Experiment], published: bool) -> dict[str, Any]:
    """The variables of the template."""
    reported = [experiment for experiment in listed if experiment.findings]
    # for each figure, the claim under which it is shown
    shown: dict[str, str] = {}
    sections = [_claim(claim, listed, shown) for claim in claims.CLAIMS]
    studies = [experiment for experiment in listed if experiment.about.study]
    beyond = [e for e in listed if not e.tested and e not in studies]
    made = [_made(experiment) for experiment in reported]
    return {
        "published": published,
        "claims": sections,
        "counts": _counts(sections),
        "signs": SIGNS,
        "sensitivity": [_sensitivity(experiment) for experiment in studies],
        "beyond": beyond,
        "reported": reported,
        "tolerance": 100 * verdicts.TOLERANCE,
        "misfit": 100 * verdicts.MISFIT,
        "sigmas": SIGMAS,
        "written": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "versions": sorted(
            {f"{name} {version}" for m in made for name, version in m.get("versions", {}).items()}
        ),
        "devices": sorted(
            {
                f"{m['num_devices']} × {m['device']}"
                for m in made
                if {"num_devices", "device"} <= {*m}
            }
        ),
    }


def _made(experiment: Experiment) -> Mapping[str, Any]:
    """When and with what an experiment was run; empty if unknown."""
    return (experiment.findings or {}).get("made", {})


def _claim(claim: str, listed: Sequence[Experiment], shown: dict[str, str]) -> dict[str, Any]:
    """A claim for the template: its experiments, their rows as printed, and its figures."""
    parts: list[dict[str, Any]] = []
    rows, found, absent = [], [], []
    before: dict[str, list[str]] = {}
    for experiment in listed:
        if claim not in experiment.tested:
            continue
        if experiment.findings is None:
            absent.append(experiment)
            continue
        by_claim, shows = experiment.findings["rows"], experiment.findings.get("shows", {})
        printed = [_row(row) for row in by_claim.get(claim, [])]
        found += by_claim.get(claim, [])
        rows += printed
        # a figure belongs to the claims on the variable it shows, or to all if none is on it
        variables = {row.get("variable") for row in by_claim.get(claim, [])}
        all_variables = {row.get("variable") for others in by_claim.values() for row in others}
        names = [
            name
            for name in experiment.figures
            if shows.get(name) in variables or shows.get(name) not in all_variables
        ]
        new = [name for name in names if shown.setdefault(name, claim) == claim]
        for name in (name for name in names if name not in new):
            before.setdefault(shown[name], []).append(name)
        parts.append({"experiment": experiment, "rows": printed, "new": new})
    tables = []
    for control in dict.fromkeys(row["control"] for row in rows if "control" in row):
        fits = [row for row in rows if row.get("control") == control]
        _draw_intervals(fits)
        lines = [
            (part["experiment"], [row for row in part["rows"] if row.get("control") == control])
            for part in parts
        ]
        axis = next((row["axis"] for row in fits if "axis" in row), None)
        tables.append(
            {"control": control, "claimed": fits[0]["claimed"], "axis": axis, "lines": lines}
        )
    count = {v: sum(row["verdict"] == v for row in rows) for v in (*SIGNS, UNSUPPORTED)}
    return {
        "id": claim,
        "text": claims.CLAIMS[claim],
        "truth": claims_tables.truth(claim, found).replace("`", ""),
        "parts": parts,
        "absent": absent,
        "before": before,
        "rows": rows,
        "count": {verdict: number for verdict, number in count.items() if number},
        # of fitted exponents, one table per control
        "tables": tables,
        "result": claims_tables.counted(rows).replace("**", "") if rows else "",
        "law": claims_tables.law(claim, found),
        # the studies of what the exponents of the claim depend on
        "maps": [e.name for e in listed if claim in (e.findings or {}).get("sensitivity", {})],
    }


def _counts(sections: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The number of claims that are reproduced in all rows, in some, in none, and so on."""
    counts = {REPRODUCED: 0, "reproduced in part": 0, NOT_REPRODUCED: 0, UNDECIDED: 0, NOT_RUN: 0}
    for section in sections:
        verdicts = set(section["count"])
        one = next(iter(verdicts)) if len(verdicts) == 1 else ""
        part = "reproduced in part" if REPRODUCED in verdicts else NOT_REPRODUCED
        counts[NOT_RUN if not verdicts else one if one in counts else part] += 1
    return {name: number for name, number in counts.items() if number}


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as it is printed; "unsupported" if the verdict does not follow from its numbers."""
    supported = verdicts.supported(row)
    stated = (
        f"the stated verdict, {row.get('verdict')}, does not follow from the numbers of the row"
    )
    common: dict[str, Any] = {
        "verdict": row["verdict"] if supported else UNSUPPORTED,
        "why": f"{row['why']}{claims_tables.instead(row)}" if supported else stated,
        "choice": ", ".join(f"{_field(k)} {_value(k, v)}" for k, v in row["choice"].items()),
        "claimed": row["claimed"],
        "seeds": row["num_seeds"] or "–",
    }
    if "quantity" in row:
        number = f"{row['value']:.4g} [{row['low']:.4g}, {row['high']:.4g}]"
        return {**common, "quantity": row["quantity"], "number": number}
    low, high = row["low"], row["high"]
    known = row["exponent"] is not None and low is not None and high is not None
    return {
        **common,
        "number": claims_tables.interval(row),
        "numbers": (row["exponent"], low, high) if known else None,
        "claimed_exponent": float(row["claimed"].removeprefix("> ")),
        "variable": row["variable"],
        "control": _field(row["control"]),
        "misfit": f"{100 * row['misfit']:.1f} %",
        "p_value": f"{row['p_value']:.2g}",
        "ends": f"{row['first']:.3g} → {row['last']:.3g}",
        "runs": row["num_runs"],
        "left_out": row["num_left_out"],
    }


def _draw_intervals(rows: Sequence[dict[str, Any]]) -> None:
    """Add to each row of a table where its interval and the claimed range lie on a shared axis.

    Places are in per cent of the width of the axis.
    """
    if not (numbers := [n for row in rows if row["numbers"] for n in row["numbers"]]):
        return
    target = rows[0]["claimed_exponent"]
    ends = [
        max(min(n, target + REACH), target - REACH) for n in (*numbers, target - 0.5, target + 0.5)
    ]
    low, high = min(ends) - 0.1, max(ends) + 0.1

    def place(x: float) -> float:
        return round(100 * (min(max(x, low), high) - low) / (high - low), 2)

    near = sorted((target * (1 - verdicts.TOLERANCE), target * (1 + verdicts.TOLERANCE)))
    band = (target, high) if rows[0]["claimed"].startswith(">") else near
    for row in rows:
        row["axis"] = {
            "low": low,
            "high": high,
            "target": place(target),
            "band": [place(x) for x in band],
        }
        row["bar"] = [place(x) for x in row["numbers"]] if row["numbers"] else None


def _sensitivity(study: Experiment) -> dict[str, Any]:
    """A table of exponents for each claim: a row per choice, a column per window."""
    tables = []
    findings = study.findings or {}
    for claim, rows in findings.get("sensitivity", {}).items():
        windows = list(dict.fromkeys(row["choice"]["window"] for row in rows))
        cells: dict[tuple[str, ...], dict[str, Any]] = {}
        for row in rows:
            choice = {k: v for k, v in row["choice"].items() if k != "window"}
            cells.setdefault(tuple(_value(k, v) for k, v in choice.items()), {})[
                row["choice"]["window"]
            ] = _row(row)
        axes = [_field(k) for k in rows[0]["choice"] if k != "window"]
        tables.append(
            {
                "claim": claim,
                "text": claims.CLAIMS[claim],
                "axes": axes,
                "windows": windows,
                "cells": cells,
            }
        )
    return {"experiment": study, "tables": tables, "windows": findings.get("windows", {})}


def _field(name: str) -> str:
    """The short name of a swept axis."""
    return FIELDS.get(name, name.rpartition(".")[2])


def _value(name: str, value: Any) -> str:
    """The value of a choice in words; "fresh" means new examples at each step."""
    if name == "data.num_samples":
        return "fresh" if str(value) == "None" else f"n = {value}"
    return str(value)


def described(sweep: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A sweep as (field, Python expression), without the fields that are None, False or empty.

    >>> model = {"type": "jthermo.models:TwoLayer", "inputs": 10}
    >>> described({"model": model, "seed": [0, 1, 2], "points": []})
    [('model', 'TwoLayer(inputs=10)'), ('seed', '0 … 2, 3 values')]
    """
    return [
        (name, _expression(value))
        for name, value in sweep.items()
        if value not in (None, [], {}, False)
    ]


def _expression(value: Any) -> str:
    """A value of ``sweep.json`` as a Python expression."""
    if isinstance(value, Mapping):
        inner = {k: v for k, v in value.items() if k not in ("type", "function") and v is not None}
        if not (name := value.get("type") or value.get("function")):
            return "; ".join(f"{k}: {_expression(v)}" for k, v in inner.items())
        name = name.rpartition(":")[2]
        return (
            f"{name}({', '.join(f'{k}={_expression(v)}' for k, v in inner.items())})"
            if "type" in value
            else name
        )
    if isinstance(value, list):
        counted = (
            len(value) > 2 and value == list(range(value[0], value[0] + len(value)))
            if _whole(value)
            else False
        )
        return (
            f"{value[0]} … {value[-1]}, {len(value)} values"
            if counted
            else ", ".join(map(_expression, value))
        )
    return str(value)


def _whole(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(v, int) for v in values)
