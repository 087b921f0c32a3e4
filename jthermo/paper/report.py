"""The replication report: one page that says, claim by claim, what was found, in what, how surely and how to do it again.

Only what experiments found in records that are still there is told; the rest is "not run", with the command that runs it.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from jthermo.errors import InputError
from jthermo.figures import templates
from jthermo.paper import claims, claims_tables, experiment_folder, verdicts
from jthermo.paper.reproduce import SCALES, experiments, load, sweep_of, tested
from jthermo.paper.verdicts import NOT_REPRODUCED, REPRODUCED, SIGMAS, UNDECIDED
from jthermo.results.atomic import write_whole, writing
from jthermo.results.reading import read_json

SIGNS = {REPRODUCED: "✓", NOT_REPRODUCED: "✗", UNDECIDED: "?"}
UNSUPPORTED, NOT_RUN = "unsupported", "not run"
# an interval is drawn as far as this from the paper's exponent
REACH = 2.5
FIELDS = {"learning_rate": "η", "batch_size": "B", "model.init": "init", "data.num_samples": "data"}


@dataclass
class Experiment:
    """What the page says about an experiment: found or not run, and in either case how to do it again."""

    name: str
    module: ModuleType
    command: str
    scale: str = ""
    # it is not run
    why: str = ""
    found: Mapping[str, Any] | None = None
    sweep: Mapping[str, Any] | None = None
    # markup by name
    figures: dict[str, str] = field(default_factory=dict)

    @property
    def about(self) -> str:
        """What it is, in a sentence."""
        return (self.module.__doc__ or "").strip()

    @property
    def title(self) -> str:
        """The first sentence of it."""
        return self.about.partition("\n\n")[0]

    @property
    def tested(self) -> tuple[str, ...]:
        """The claims it is counted for; none for a study of what their exponents depend on."""
        return () if hasattr(self.module, "WINDOWS") else tested(self.module)

    @property
    def parts(self) -> list[tuple[str, str]]:
        """The sweep in words: each field as the expression that makes it."""
        return described(self.sweep) if self.sweep else []

    @property
    def sweep_json(self) -> str:
        """The sweep as JSON, its lists on one line each."""
        text = json.dumps(self.sweep, indent=1, ensure_ascii=False)
        return re.sub(r"\[[^\[\]{}]*\]", lambda found: " ".join(found[0].split()), text)


def report(
    results: str | Path = "results",
    out: str | Path = "results/report.html",
    published: bool = False,
) -> dict[str, list[str]]:
    """Write the replication report: one HTML file that needs no other and no network.

    Args:
        results: the folder that ``jthermo reproduce`` wrote into.
        out: the page.
        published: tell what ``claims.json`` says that others found, in place of what was found in the records here.

    Returns:
        The names of the experiments that are told of (``"found"``) and of those that are not run (``"not run"``).

    Raises:
        InputError: there is no such folder, nothing is published there, or the page can't be written.
    """
    if not Path(results).is_dir():
        raise InputError("results", str(results), "is no folder; run `jthermo reproduce all` first")
    told, path = (_published if published else _own)(Path(results)), Path(out)
    page = templates.render(
        "report.html",
        title="jthermo: what survives of the paper's claims",
        **_page(told, published),
    )
    with writing(path.parent):
        write_whole(path, page.encode())
    names: dict[str, list[str]] = {"found": [], NOT_RUN: []}
    for each in told:
        names["found" if each.found else NOT_RUN].append(each.name)
    return names


def _own(results: Path) -> list[Experiment]:
    """Every experiment with what was found in the records here, at the largest scale that has been run."""
    told = []
    for name in experiments():
        made = Experiment(name, module := load(name), f"jthermo reproduce {name}")
        for scale in SCALES:
            folder = results / f"{name}-{scale}"
            try:
                found = experiment_folder.read(folder)
            except InputError as error:
                made.why = made.why or f"{folder} {error.remedy}"
                continue
            drawn = {
                each: experiment_folder.figure(folder, found, each) for each in found["figures"]
            }
            figures = {each: svg for each, svg in drawn.items() if svg is not None}
            sweep = experiment_folder.description(folder)
            made = Experiment(name, module, found["command"], scale, "", found, sweep, figures)
        told.append(made)
    return told


def _published(results: Path) -> list[Experiment]:
    """Every experiment with what ``claims.json`` says of it."""
    path = results / experiment_folder.FINDING
    if not path.exists():
        raise InputError(
            "results",
            str(results),
            f"has no {experiment_folder.FINDING}; give the results folder of a checkout",
        )
    known = read_json(path)
    told = []
    for name in experiments():
        module = load(name)
        found: dict[str, Any] = {"rows": {}, "sensitivity": {}, "made": {}}
        for claim, entry in known.items():
            for place, part in (("experiments", "rows"), ("sensitivity", "sensitivity")):
                if made := entry.get(place, {}).get(name):
                    found = {**made, "rows": found["rows"], "sensitivity": found["sensitivity"]}
                    found[part][claim] = made["rows"]
        drawn = {
            each: results / experiment_folder.FIGURES / f"{each}.svg"
            for each in found.get("figures", [name])
        }
        figures = {each: svg.read_text() for each, svg in drawn.items() if svg.exists()}
        beyond = not tested(module) and not hasattr(module, "WINDOWS")
        # it has no claims that could be published, but a figure
        if beyond and figures:
            told.append(
                Experiment(name, module, f"jthermo reproduce {name}", found=found, figures=figures)
            )
            continue
        if not any([*found["rows"].values(), *found["sensitivity"].values()]):
            why = found.get("not_run", "nothing is published on it")
            told.append(Experiment(name, module, f"jthermo reproduce {name}", why=why))
            continue
        scale = found["command"].rpartition(" ")[2]
        sweep = None
        if hasattr(module, "SWEEP") and (now := sweep_of(name, scale)).id == found["sweep_id"]:
            sweep = json.loads(now.to_json())
        told.append(Experiment(name, module, found["command"], scale, "", found, sweep, figures))
    return told


def _page(told: Sequence[Experiment], published: bool) -> dict[str, Any]:
    """What the template needs."""
    found = [each for each in told if each.found]
    # the claim under which a figure stands
    shown: dict[str, str] = {}
    sections = [_claim(claim, told, shown) for claim in claims.CLAIMS]
    studies = [each for each in told if hasattr(each.module, "WINDOWS")]
    beyond = [each for each in told if not each.tested and each not in studies]
    return {
        "published": published,
        "claims": sections,
        "counts": _counts(sections),
        "signs": SIGNS,
        "sensitivity": [_sensitivity(each) for each in studies],
        "beyond": beyond,
        "found": found,
        "tolerance": 100 * verdicts.TOLERANCE,
        "misfit": 100 * verdicts.MISFIT,
        "sigmas": SIGMAS,
        "written": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "versions": sorted(
            {f"{k} {v}" for e in found for k, v in _made(e).get("versions", {}).items()}
        ),
        "devices": sorted(
            {f"{m['num_devices']} × {m['device']}" for e in found if (m := _made(e))}
        ),
    }


def _made(told: Experiment) -> Mapping[str, Any]:
    return (told.found or {}).get("made", {})


def _claim(claim: str, told: Iterable[Experiment], shown: dict[str, str]) -> dict[str, Any]:
    """A claim with its experiments, their rows as they are printed, and the figures that stand under it."""
    parts: list[dict[str, Any]] = []
    rows, absent = [], []
    before: dict[str, list[str]] = {}
    for each in told:
        if claim not in each.tested:
            continue
        if each.found is None:
            absent.append(each)
            continue
        made = [_row(row) for row in each.found["rows"].get(claim, [])]
        rows += made
        about = {row.get("variable") for row in each.found["rows"].get(claim, [])}
        all_about = {row.get("variable") for other in each.found["rows"].values() for row in other}
        shows = each.found.get("shows", {})
        names = [n for n in each.figures if shows.get(n) in about or shows.get(n) not in all_about]
        new = [name for name in names if shown.setdefault(name, claim) == claim]
        for name in (name for name in names if name not in new):
            before.setdefault(shown[name], []).append(name)
        parts.append({"told": each, "rows": made, "new": new})
    tables = []
    for control in dict.fromkeys(row["control"] for row in rows if "control" in row):
        fits = [row for row in rows if row.get("control") == control]
        _draw_intervals(fits)
        lines = [
            (part["told"], [row for row in part["rows"] if row.get("control") == control])
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
        "parts": parts,
        "absent": absent,
        "before": before,
        "rows": rows,
        "count": {verdict: number for verdict, number in count.items() if number},
        # of exponents, one for each control
        "tables": tables,
        "span": _span(rows),
    }


def _counts(sections: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many claims hold wherever they were tested, where some of it does, nowhere, and how many were not."""
    made = {REPRODUCED: 0, "reproduced in part": 0, NOT_REPRODUCED: 0, UNDECIDED: 0, NOT_RUN: 0}
    for section in sections:
        verdicts = set(section["count"])
        one = next(iter(verdicts)) if len(verdicts) == 1 else ""
        part = "reproduced in part" if REPRODUCED in verdicts else NOT_REPRODUCED
        made[NOT_RUN if not verdicts else one if one in made else part] += 1
    return {name: number for name, number in made.items() if number}


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as it is printed; one whose numbers do not give its verdict is printed as unsupported."""
    right = verdicts.supported(row)
    made: dict[str, Any] = {
        "verdict": row["verdict"] if right else UNSUPPORTED,
        "why": row["why"]
        if right
        else f"it says {row.get('verdict')}, which its own numbers do not give",
        "choice": ", ".join(f"{FIELDS.get(k, k)} {_value(k, v)}" for k, v in row["choice"].items()),
        "claimed": row["claimed"],
        "seeds": row["num_seeds"] or "–",
    }
    if "quantity" in row:
        number = f"{row['value']:.4g} [{row['low']:.4g}, {row['high']:.4g}]"
        return {**made, "quantity": row["quantity"], "number": number}
    low, high = row["low"], row["high"]
    known = row["exponent"] is not None and low is not None and high is not None
    return {
        **made,
        "number": claims_tables.interval(row),
        "numbers": (row["exponent"], low, high) if known else None,
        "claimed_exponent": float(row["claimed"].removeprefix("> ")),
        "variable": row["variable"],
        "control": FIELDS.get(row["control"], row["control"]),
        "misfit": f"{100 * row['misfit']:.1f} %",
        "p_value": f"{row['p_value']:.2g}",
        "ends": f"{row['first']:.3g} → {row['last']:.3g}",
        "runs": row["num_runs"],
        "left_out": row["num_left_out"],
    }


def _draw_intervals(rows: Sequence[dict[str, Any]]) -> None:
    """Where each interval, its middle and the claimed range lie on one axis for all rows of a table, in per cent."""
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


def _span(rows: Sequence[Mapping[str, Any]]) -> str:
    """The exponents of a claim in one phrase."""
    if rows and "quantity" in rows[0]:
        return f"{len(rows)} measured values"
    return claims_tables.reach(
        [(row["claimed"], row["numbers"][0]) for row in rows if row.get("numbers")]
    )


def _sensitivity(told: Experiment) -> dict[str, Any]:
    """For each claim a table of exponents: the choices down, the windows across."""
    tables = []
    for claim, rows in (told.found or {}).get("sensitivity", {}).items():
        windows = list(dict.fromkeys(row["choice"]["window"] for row in rows))
        cells: dict[tuple[str, ...], dict[str, Any]] = {}
        for row in rows:
            choice = {k: v for k, v in row["choice"].items() if k != "window"}
            cells.setdefault(tuple(_value(k, v) for k, v in choice.items()), {})[
                row["choice"]["window"]
            ] = _row(row)
        axes = [FIELDS.get(k, k) for k in rows[0]["choice"] if k != "window"]
        tables.append(
            {
                "claim": claim,
                "text": claims.CLAIMS[claim],
                "axes": axes,
                "windows": windows,
                "cells": cells,
            }
        )
    return {"told": told, "tables": tables, "windows": (told.found or {}).get("windows", {})}


def _value(name: str, value: Any) -> str:
    """A chosen value in words; data without a number of samples are drawn afresh at each step."""
    if name == "data.num_samples":
        return "fresh" if str(value) == "None" else f"n = {value}"
    return str(value)


def described(sweep: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A sweep as (field, the expression that makes it), with what is None or empty left away.

    >>> described({"model": {"type": "jthermo.models:TwoLayer", "inputs": 10}, "seed": [0, 1, 2], "points": []})
    [('model', 'TwoLayer(inputs=10)'), ('seed', '0 … 2, 3 values')]
    """
    return [
        (name, _expression(value))
        for name, value in sweep.items()
        if value not in (None, [], {}, False)
    ]


def _expression(value: Any) -> str:
    """A value of ``sweep.json`` as Python would write it."""
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
