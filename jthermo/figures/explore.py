"""The page of `jthermo explore`: sliders for the numbers of the scaling law. No JAX here.

The page draws the curves that the fit used. The loss below each slider is the objective that the
fit minimised; the browser (``pages/explore.js``) evaluates it at the numbers of the sliders.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jthermo.collapse import CollapseFit, fit_collapse
from jthermo.collapse.likelihood import CurveLikelihood, Whitener
from jthermo.errors import InputError
from jthermo.figures import plots, templates
from jthermo.figures.colours import page_shades
from jthermo.labels import SYMBOL
from jthermo.results.atomic import write_whole, writing
from jthermo.results.tables import axes_of, choices, columns

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from jthermo.collapse.read import Condition

# Most single curves drawn for one observable: more cannot be told apart and slow the browser down.
MOST_RUNS = 300
# Most recorded values of single curves on one page: about 1 MB.
MOST_NUMBERS = 200_000
# Most numbers on one page, those of the objectives included, so that it stays below 5 MB.
MOST_IN_ALL = 600_000
# An observable with more numbers per record, such as one per unit, is shown only if it is named.
MOST_COLUMNS = 8
# A slider covers exponents of the time from −3 to 3, or more if the fitted exponent lies outside.
# Those of the value, and of distances from a critical point, are near the fitted one: it covers one
# unit on either side.
REACH = 3.0
# A slider of a critical point or an offset has at least this many steps.
STEPS = 400
# An exponent whose interval is narrower than this moves by thousandths instead of hundredths.
NARROW = 0.02
# The clocks to choose from: the exponent of each control.
CLOCKS: dict[str, dict[str, float]] = {
    "t": {},
    "η t": {"learning_rate": 1.0},
    "η² t": {"learning_rate": 2.0},
    "t/|B|": {"batch_size": -1.0},
    "η² t/|B|": {"learning_rate": 2.0, "batch_size": -1.0},
}


class Candidate(NamedTuple):
    """An observable to fit for one combination of the other axes: its curves and controls."""

    label: str
    choice: str
    curves: Any
    controls: Sequence[str]


@dataclass(frozen=True)
class Parameter:
    """A number of the scaling law that has a slider.

    Attributes:
        name: among the exponents of the fit.
        label: of the slider.
        kind: "shift" of log τ, "height" of the log value, "critical_point" or "offset".
        column: what one unit adds to the shift or the height of each condition, (K,).
        control: index of the control whose exponent it is.
        correction: what the amplitude of a correction multiplies, as text.
        reach: ends of the slider.
        step: of the slider.
    """

    name: str
    label: str
    kind: str
    column: np.ndarray
    control: int | None
    correction: str | None
    reach: tuple[float, float]
    step: float


@dataclass(frozen=True)
class View:
    """One observable for one combination of the axes that are not controls, with its fit."""

    label: str
    choice: str
    fit: CollapseFit

    @property
    def num_runs(self) -> int:
        """Number of curves that the fit used."""
        return sum(len(condition.values) for condition in self.fit.curves.conditions)


def explore(
    data: xr.Dataset | pd.DataFrame,
    path: str | Path,
    controls: Sequence[str] = ("learning_rate", "batch_size"),
    *,
    value: Sequence[str] = (),
    time: str = "step",
    title: str = "Explore the collapse",
    **options: Any,
) -> str:
    """Write a page with a slider for every number of (value − v₀) = Π c^q·F((t − t_c)·Π c^p).

    The page works without a network connection.

    Args:
        data: results, or a tidy table.
        path: the HTML file to write.
        controls: the controls; each one with several values gets a slider.
        value: observables to choose from on the page; for a table, names of its columns. By default
            all observables of the results.
        time: name of t.
        title: heading of the page.
        options: further arguments of :func:`fit_collapse`, such as `replicate`, `error`,
            `critical_point` and `rescale`.

    Returns:
        A description of the page: a line with the number of curves, and a line for each observable
        that was omitted, with the reason.

    Raises:
        InputError: an unknown name, no control with several values, or no observable that can be
            fitted.

    Example:
        >>> import numpy as np, pandas as pd, tempfile
        >>> rng = np.random.default_rng(0)
        >>> table = pd.DataFrame([
        ...     {"dose": c, "plate": s, "hours": t, "alive": 1 / (1 + t * c) + 0.01 * rng.normal()}
        ...     for c in (0.5, 1.0, 2.0) for s in range(4) for t in np.geomspace(1, 100, 20)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     print(explore(table, f"{folder}/page.html", ["dose"], value=["alive"],
        ...                   time="hours", replicate="plate"))
        1 collapse of 12 curves; all 12 single curves are drawn
    """
    from bokeh.embed import json_item

    controls, value = ((names,) if isinstance(names, str) else names for names in (controls, value))
    candidates, omitted = _candidates(data, controls, value)
    views: list[View] = []
    for label, choice, curves, several in candidates:
        try:
            fit = fit_collapse(curves, several, value=label, time=time, **options)
        except InputError as error:
            omitted.append(f"{label}{choice and f' for {choice}'} is omitted: {error}")
            continue
        if views and _labels(fit) != _labels(views[0].fit):
            named = f"{label}{choice and f' for {choice}'}"
            omitted.append(f"{named} is omitted: its fit has other numbers than the first")
            continue
        views.append(View(label, choice, fit))
    if not views:
        raise InputError(
            "value", ", ".join(value) or "all", "nothing can be fitted: " + "; ".join(omitted)
        )
    needed = sum(
        len(block) * (len(block) + 1) // 2
        for v in views
        for block in v.fit.likelihood.whiten.blocks
    )
    room = min(MOST_NUMBERS, max(MOST_IN_ALL - needed, 0))
    most = min(MOST_RUNS, room // sum(_longest(view) for view in views))
    lines = [_count_line(views, most), *omitted]
    curves = views[0].fit.curves
    symbols = [SYMBOL.get(name, name) for name in curves.controls]
    parameters = _labels(views[0].fit)
    clocks = {
        name: [powers.get(control, 0.0) for control in curves.controls]
        for name, powers in CLOCKS.items()
        if set(powers) <= set(curves.controls)
    }
    content = {
        "time": SYMBOL.get(curves.time, curves.time),
        "replicate": options.get("replicate", "seed") or "curve",
        "controls": symbols,
        "clocks": clocks,
        "views": [_content(view, most) for view in views],
        "plots": {
            "curves": json_item(plots.curves()),
            "qualities": [json_item(plots.quality()) for _ in parameters],
        },
        "least": plots.LEAST,
    }
    text = templates.render(
        "explore.html",
        title=title,
        labels=list(dict.fromkeys(view.label for view in views)),
        choices=list(dict.fromkeys(view.choice for view in views)),
        clocks=clocks,
        parameters=parameters,
        controls=symbols,
        signed=curves.clock.signed,
        logs=curves.log_above is not None,
        lines=lines,
        content=json.dumps(content, allow_nan=False).replace("<", "\\u003c"),
        library=plots.library(),
    )
    path = Path(path)
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())
    return "\n".join(lines)


def _candidates(
    data: xr.Dataset | pd.DataFrame, controls: Sequence[str], value: Sequence[str]
) -> tuple[list[Candidate], list[str]]:
    """Every observable for every combination of the other axes, and a line for each omitted one."""
    import pandas as pd
    import xarray as xr

    if not isinstance(data, xr.Dataset | pd.DataFrame):
        remedy = "give the dataset that jt.open_results returns, or a table of pandas"
        raise InputError("data", type(data).__name__, remedy)
    known = [
        str(name) for name in (data.variables if isinstance(data, xr.Dataset) else data.columns)
    ]
    for field, names in (("controls", controls), ("value", value)):
        for name in names:
            if name not in known:
                raise InputError(field, name, f"is not in the data; choose from {', '.join(known)}")
    several = [name for name in controls if len(np.unique(data[name])) > 1]
    if not several:
        raise InputError(
            "controls", tuple(controls), "none has several values; name one that varies in the data"
        )
    if isinstance(data, xr.Dataset):
        return _of_results(data, several, value)
    if not value:
        raise InputError("value", "", f"name the columns to draw; the table has {', '.join(known)}")
    return [Candidate(name, "", data, several) for name in value], []


def _of_results(
    ds: xr.Dataset, controls: Sequence[str], value: Sequence[str]
) -> tuple[list[Candidate], list[str]]:
    """The candidates of a results dataset; see :func:`_candidates`."""
    kept = [*controls, *(a for a in axes_of(ds) if a == "seed")]
    candidates, omitted = [], []
    for name in value or [str(v) for v in ds.data_vars if v != "finite"]:
        parts = columns(ds[name])
        if len(parts) > MOST_COLUMNS and not value:
            numbers = f"it has {len(parts)} numbers per record"
            omitted.append(f"{name} is omitted: {numbers}; name it to include it")
            continue
        for label, part in parts.items():
            for choice, runs in choices(ds.assign({label: part}), kept):
                words = ", ".join(f"{k.rpartition('.')[2]} {v}" for k, v in choice.items())
                candidates.append(Candidate(label, words, runs[label], controls))
    return candidates, omitted


def _longest(view: View) -> int:
    return max(len(condition.log_time) for condition in view.fit.curves.conditions)


def _count_line(views: Sequence[View], most: int) -> str:
    """The numbers of collapses, of curves and of single curves drawn, in words."""
    number, largest = len(views), max(views, key=lambda view: view.num_runs)
    drawn = sum(len(_sample(c, largest.fit, most)) for c in largest.fit.curves.conditions)
    means = f"{number} collapse{'s' if number > 1 else ''} of {largest.num_runs:,} curves"
    if drawn == largest.num_runs:
        return f"{means}; all {drawn:,} single curves are drawn"
    return f"{means}; the means use all, and a sample of {drawn:,} single curves is drawn"


def _sample(condition: Condition, fit: CollapseFit, most: int) -> np.ndarray:
    """Rows of a condition to draw, evenly spaced among its replicates."""
    number, share = len(condition.values), max(most // len(fit.curves.conditions), 1)
    return np.unique(np.linspace(0, number - 1, min(number, share)).round().astype(int))


def parameters_of(fit: CollapseFit) -> list[Parameter]:
    """The numbers of a fit that have a slider, controls first.

    A critical point has one if records on both sides of it may be used, and an offset if it was
    fitted; the power of a correction has none.
    """
    curves = fit.curves
    nothing = np.zeros(len(curves.conditions))
    logs = np.array([c.log_controls for c in curves.conditions])
    levels = dict(zip(curves.controls, (logs - logs.mean(axis=0)).T, strict=True))
    symbols = [SYMBOL.get(name, name) for name in curves.controls]
    listed: list[tuple[str, str, str, np.ndarray, int | None, str | None]] = [
        (name, f"Exponent of {symbol}", "shift", column, i, None)
        for i, (symbol, (name, column)) in enumerate(zip(symbols, levels.items(), strict=True))
    ]
    for c in fit.corrections:
        symbol = symbols[curves.controls.index(c.control)]
        text = f"({symbol}/{c.reference:.3g})^{c.power:.3g}"
        label = f"Correction of {symbol}"
        listed.append((c.name, label, "shift", c.column(curves), None, text))
    for i, (symbol, (name, column)) in enumerate(zip(symbols, levels.items(), strict=True)):
        if (height := f"value_{name}") in fit.exponents:
            label = f"Exponent of {symbol} in the value"
            listed.append((height, label, "height", column, i, None))
    if curves.clock.signed:
        label = f"Critical {'t' if curves.time == 'step' else curves.time}"
        listed.append(("critical_point", label, "critical_point", nothing, None, None))
    if "offset" in fit.free:
        listed.append(("offset", "Offset of the value", "offset", nothing, None, None))
    return [Parameter(*entry, *_slider(fit, entry[0], entry[2])) for entry in listed]


def _labels(fit: CollapseFit) -> list[str]:
    return [parameter.label for parameter in parameters_of(fit)]


def _slider(fit: CollapseFit, name: str, kind: str) -> tuple[tuple[float, float], float]:
    """Ends and step of the slider of a number."""
    exponent = fit.exponents[name]
    at = exponent.value if math.isfinite(exponent.value) else 0.0
    if kind in ("shift", "height"):
        reach = (float(math.floor(at - 1)), float(math.ceil(at + 1)))
        if kind == "shift" and not fit.curves.clock.signed:
            reach = (min(-REACH, reach[0]), max(REACH, reach[1]))
        known = 0 < exponent.high - exponent.low < NARROW
        return reach, 0.001 if known else 0.01
    if name in fit.free:
        directions, averages = fit.directions, fit.averages
        row = directions.position(name) - (directions.basis.shape[1] - len(averages.limits))
        unit = directions.basis[directions.free.index(name), directions.position(name)]
        origin = directions.origin[directions.free.index(name)]
        low, high = (origin + unit * averages.limits[row]).tolist()
    else:
        # A critical point that was given.
        low, high = (at + 0.1 * np.ptp(fit.window) * np.array([-1, 1])).tolist()
    return (low, high), 10.0 ** math.floor(math.log10((high - low) / STEPS))


def _content(view: View, most: int) -> dict[str, Any]:
    """A view as JSON for the page; arrays are base64 of little-endian numbers."""
    fit, curves = view.fit, view.fit.curves
    logs = np.array([c.log_controls for c in curves.conditions])
    clock = curves.clock
    return {
        "label": view.label,
        "choice": view.choice,
        "centre": np.exp(logs.mean(axis=0)).tolist(),
        "clock": {
            "origin": clock.origin,
            "unit": clock.unit,
            "signed": clock.signed,
            "critical": clock.given is not None,
        },
        "logs": curves.log_above is not None,
        "offset": _number(fit.exponents["offset"].value) if "offset" in fit.exponents else 0.0,
        "conditions": [_condition(c, fit, _sample(c, fit, most)) for c in curves.conditions],
        "shades": page_shades(len(logs)),
        "exponents": [
            {
                "kind": parameter.kind,
                "column": parameter.column.tolist(),
                "control": parameter.control,
                "correction": parameter.correction,
                "value": _number(e.value),
                "low": _number(e.low),
                "high": _number(e.high),
                "held": parameter.name not in fit.free,
                "reach": parameter.reach,
                "step": parameter.step,
            }
            for parameter in parameters_of(fit)
            for e in [fit.exponents[parameter.name]]
        ],
        "verdict": _verdict(fit),
        "summary": fit.summary(),
        "confidence": fit.confidence,
        "objective": _objective(fit),
    }


def _condition(condition: Condition, fit: CollapseFit, rows: np.ndarray) -> dict[str, Any]:
    """One setting of the controls as JSON: its mean, standard error and the single curves drawn."""
    values = condition.values
    count = np.isfinite(values).sum(axis=0)
    mean = np.nanmean(values, axis=0)
    error = np.nanstd(values, axis=0) / np.sqrt(np.maximum(count - 1, 1))
    if condition.errors is not None:
        error = condition.errors[0]
    setting = zip(fit.curves.controls, np.exp(condition.log_controls), strict=True)
    names = fit.curves.label_names
    return {
        "name": ", ".join(f"{SYMBOL.get(name, name)} = {value:.4g}" for name, value in setting),
        "log_time": _packed(condition.log_time, "<f8"),
        "mean": _packed(mean, "<f8"),
        "error": _packed(error, "<f4"),
        "num_runs": len(values),
        "replicates": [str(names[condition.labels[row]]) for row in rows],
        "runs": _packed(values[rows], "<f4"),
    }


def _objective(fit: CollapseFit) -> dict[str, Any]:
    """The fit's model as JSON: binned means, whitener, spline stiffness, objective at the fit."""
    model = rounded(fit.likelihood)
    means, averages = model.means, fit.averages
    triangles = [block[np.tril_indices(len(block))] for block in model.whiten.blocks]
    return {
        "starts": means.starts.tolist(),
        "condition": means.condition.tolist(),
        "mean": _packed(means.mean, "<f8"),
        "unit": averages.scale,
        "origin": averages.centre,
        "bend": averages.bend,
        "broken": model.lattice.broken,
        "spacing": model.lattice.spacing,
        "stiffness": float(model.stiffness),
        "sizes": [len(block) for block in model.whiten.blocks],
        "whitener": _packed(np.concatenate(triangles), "<f4"),
        "best": model.objective(fit.solution.theta),
    }


def rounded(model: CurveLikelihood) -> CurveLikelihood:
    """The model with its whitener in single precision: half the size, and six correct digits."""
    blocks = tuple(block.astype(np.float32).astype(float) for block in model.whiten.blocks)
    return replace(model, whiten=Whitener(blocks))


def _verdict(fit: CollapseFit) -> str:
    """Whether the curves coincide at the fitted exponents, in words."""
    words = {
        True: "the curves agree within their noise",
        False: "the curves differ by more than their noise",
        None: "it cannot be decided whether the curves agree",
    }
    beyond = f"Beyond noise they differ by {100 * fit.misfit:.2g} % of their range"
    return f"At the fitted exponents {words[fit.collapsed]} (p = {fit.p_value:.2g}). {beyond}."


def _packed(values: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, kind).tobytes()).decode()


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
