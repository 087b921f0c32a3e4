"""Runs an experiment, or all of them, from its sweep to its fits, verdicts and figures."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from jthermo.errors import InputError, MissingData, StorageError, file_path
from jthermo.execution.progress import TimeLeft
from jthermo.paper import claims, claims_json, claims_tables, experiment_folder
from jthermo.paper.catalogue import SCALES, experiments, joined_lines
from jthermo.results.atomic import writing
from jthermo.results.layout import SWEEP
from jthermo.results.reading import open_results, read_dataset
from jthermo.results.tables import num_diverged
from jthermo.results.writing import write_dataset
from jthermo.sweep.sweep import Sweep
from jthermo.sweep.user_file import import_sweep

if TYPE_CHECKING:
    import xarray as xr

# Module names of the files loaded here: these may be loaded again, other imported names may not.
_LOADED: set[str] = set()


def load(target: str) -> ModuleType:
    """Import an experiment by name, or any Python file that defines SWEEP.

    Raises:
        InputError: no such experiment or file, a file that fails or defines no SWEEP, or a file
            with the name of an installed module.
    """
    known = experiments()
    path = known.get(target) or file_path("experiment", target)
    if (path / SWEEP).is_file():
        remedy = f"is a results folder; give its Python file, or `jthermo resume {target}`"
        raise InputError("experiment", target, remedy)
    if path.suffix != ".py" or not path.is_file():
        raise InputError("experiment", target, f"give a Python file or one of {', '.join(known)}")
    clash = path.stem in sys.modules and path.stem not in _LOADED
    if clash or path.stem in sys.stdlib_module_names:
        raise InputError(
            "experiment", str(path), "has the name of an installed module; rename the file"
        )
    _LOADED.add(path.stem)
    module = import_sweep(path, path.stem, "experiment")
    if not (hasattr(module, "SWEEP") or hasattr(module, "run")):
        raise InputError("experiment", str(path), "defines no SWEEP; add SWEEP = jt.Sweep(...)")
    if not isinstance(sweep := getattr(module, "SWEEP", None), Sweep | None):
        raise InputError(
            "experiment", str(path), f"has SWEEP = {sweep!r}; give SWEEP = jt.Sweep(...)"
        )
    return module


def reproduce(
    name: str, scale: str = "small", out: str | Path = "results", progress: bool = True
) -> xr.Dataset:
    """Run an experiment, fit the exponents that it tests, and draw its figures.

    An experiment that is done is not repeated: the findings in its folder must come from the same
    code and from records that are unchanged.

    An experiment is a Python file with these names:

    - ``SWEEP``, and ``SMALL``, the changes to it for two cores; or ``run(scale)`` if the experiment
      trains no networks.
    - ``FIT``, the claims on exponents that it tests; with ``WINDOWS``, parts of the clock, each
      claim is fitted in every part.
    - ``judge(ds)``, which returns other evidence, on the claims in ``CLAIMS``.
    - ``figure(ds, fits)``, which returns its figures by name.

    Records and findings go to ``<out>/<name>-<scale>/``, and figures to ``<out>/figures/``. The
    rows are also added to ``<out>/claims.json``, which holds those of all experiments.

    Args:
        name: an experiment, such as ``"fig3_4"``; ``jthermo list`` shows them all.
        scale: ``"small"`` takes minutes on two cores, ``"paper"`` has the full number of seeds.
        out: the folder for all results.
        progress: whether to print progress and results.

    Returns:
        The results of the sweep.

    Raises:
        InputError: an unknown experiment or scale.
        MissingData: its data set is not available on this machine.
    """
    _check(name, scale)
    say = print if progress else lambda *_: None
    say(f"{name}: {description(load(name))}")
    ds, findings, before = _reproduce(name, scale, Path(out), progress)
    for figure in findings["figures"]:
        say(f"  figure {Path(out) / experiment_folder.FIGURES / figure}.svg")
    for part in ("rows", "sensitivity"):
        for claim, rows in findings[part].items():
            for row in rows:
                say("  " + claims_tables.line(claim, row))
    folder, seconds = Path(out) / f"{name}-{scale}", findings["made"]["wall_seconds"]
    say(
        f"  already done on {findings['made']['date']}; to run it again, remove {folder}"
        if before
        else f"  {seconds:.0f} s"
    )
    return ds


def _reproduce(
    name: str, scale: str, out: Path, progress: bool
) -> tuple[xr.Dataset, dict[str, Any], bool]:
    """The results, the findings, and whether the experiment was done before."""
    from jthermo import figures
    from jthermo.execution.runner import run

    began, module, folder = time.monotonic(), load(name), out / f"{name}-{scale}"
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    path = out / experiment_folder.FINDING
    sweep = _sweep(module, scale) if hasattr(module, "SWEEP") else None
    experiment_folder.set_damaged_aside(folder)
    if findings := done(name, scale, out):
        claims_json.update(path, name, findings)
        return read_dataset(folder) if sweep is None else open_results(folder), findings, True
    about = {
        "experiment": name,
        "scale": scale,
        "about": description(module),
        "command": f"jthermo reproduce {name} --scale {scale}",
        **_identity(name, scale),
    }
    try:
        if sweep is None:
            ds = module.run(scale)
            write_dataset(folder, ds)
        else:
            ds = run(sweep, folder, progress=progress, extend=True)
    except MissingData as error:
        missing: dict[str, list[Any]] = {claim: [] for claim in tested(module)}
        claims_json.update(
            path, name, {**about, "rows": missing, "not_run": f"{error.value} is not available"}
        )
        raise
    # imported late, so that missing data are reported without loading it first
    import matplotlib.pyplot as plt

    trained = time.monotonic()
    windows, fit = getattr(module, "WINDOWS", None), getattr(module, "FIT", ())
    fits = claims.fit_claims(ds, fit, windows)
    rows = claims.rows(fit, fits, module.judge(ds) if hasattr(module, "judge") else ())
    drawn = module.figure(ds, fits)
    svgs = {name: figures.svg(fig, name) for name, fig in drawn.items()}
    shows = {name: str(fig.get_label()) for name, fig in drawn.items()}
    for fig in drawn.values():
        plt.close(fig)
    experiment_folder.draw(out, svgs)
    seconds = ds.attrs.get("wall_seconds", trained - began) + time.monotonic() - trained
    findings = {
        **about,
        "made": _made(ds, seconds),
        "rows": {} if windows else rows,
        "sensitivity": rows if windows else {},
        "windows": windows or {},
        "shows": shows,
    }
    findings = experiment_folder.write(folder, findings, svgs)
    claims_json.update(path, name, findings)
    return ds, findings, False


def done(name: str, scale: str, out: str | Path = "results") -> dict[str, Any] | None:
    """The findings of an experiment if code, records and figures are unchanged, else None."""
    with contextlib.suppress(InputError):
        findings = experiment_folder.read(Path(out) / f"{name}-{scale}")
        drawn = all(
            experiment_folder.figure(folder, findings, figure) is not None
            for figure in findings["figures"]
            for folder in (Path(out), Path(out) / f"{name}-{scale}")
        )
        if drawn and _identity(name, scale).items() <= findings.items():
            return findings
    return None


def _identity(name: str, scale: str) -> dict[str, str]:
    """The sweep's id and a digest of the code, on which the findings of an experiment depend."""
    package = Path(__file__).parents[1]
    files = [f for f in sorted(package.rglob("*")) if f.suffix in (".py", ".cc", ".h")]
    code = hashlib.sha256(
        b"".join(f.read_bytes() for f in [experiments()[name], *files])
    ).hexdigest()
    module = load(name)
    return {"sweep_id": _sweep(module, scale).id if hasattr(module, "SWEEP") else "", "code": code}


def description(module: ModuleType) -> str:
    """The docstring of an experiment, with each paragraph on one line."""
    return joined_lines(module.__doc__)


def tested(module: ModuleType) -> tuple[str, ...]:
    """The ids of the claims that an experiment tests."""
    return tuple(
        dict.fromkeys([*(c.id for c in getattr(module, "FIT", ())), *getattr(module, "CLAIMS", ())])
    )


def _made(ds: xr.Dataset, seconds: float) -> dict[str, Any]:
    """Date, duration, versions, devices and the numbers of runs, as JSON."""
    import jax

    from jthermo.results.provenance import versions

    runs = "run" in ds.dims
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "wall_seconds": round(seconds, 1),
        "versions": json.loads(ds.attrs["versions"]) if "versions" in ds.attrs else versions(),
        "device": ds.attrs.get("device", jax.devices()[0].device_kind),
        "num_devices": ds.attrs.get("num_devices", 1),
        "engine": ds.attrs.get("engine", ""),
        "num_runs": ds.sizes["run"] if runs else 0,
        "num_seeds": len(np.unique(ds.seed.values)) if runs else 0,
        "num_diverged": num_diverged(ds) if runs else 0,
    }


@dataclass(frozen=True)
class Outcome:
    """How an experiment ended.

    Attributes:
        name: the experiment.
        state: ``"done"``, ``"done before"``, ``"not run"`` (its data are missing) or ``"failed"``.
        why: its verdicts, or the message of the error.
        error: the error, if there was one.
    """

    name: str
    state: str
    why: str = ""
    error: Exception | None = None


def reproduce_all(
    scale: str = "small", out: str | Path = "results", progress: bool = True
) -> tuple[Outcome, ...]:
    """Run all experiments in turn; skip those that are done, and continue after a failure.

    It first prints a forecast of the time. At small scale this is the time that each experiment
    took when ``<out>/claims.json`` was written, at paper scale the plan of each sweep on this
    machine. The forecast is then updated with the pace so far.

    Args:
        scale: ``"small"`` or ``"paper"``.
        out: the folder for all results.
        progress: whether to print progress.

    Returns:
        How each experiment ended.

    Raises:
        StorageError: the disk is full or failing; the same call continues later.
        Interrupted: a signal stopped the run; the same call continues later.
    """
    _check("", scale)
    say = print if progress else lambda *_: None
    names = tuple(experiments())
    known = {name: done(name, scale, out) for name in names}
    todo = [name for name in names if known[name] is None]
    counts = f"{len(names) - len(todo)} done before, {len(todo)} to do"
    say(f"{len(names)} experiments at {scale} scale: {counts}")
    expected = _planned(todo, say) if scale == "paper" else _last_time(scale, Path(out))
    clock, outcomes = TimeLeft({name: expected.get(name) for name in todo}), []
    say(f"forecast: {clock}")
    for name in names:
        began, why = time.monotonic(), ""
        error: Exception | None = None
        if name in todo:
            say(f"[{todo.index(name) + 1}/{len(todo)}] {name}: {clock}")
        try:
            _, findings, before = _reproduce(name, scale, Path(out), progress)
            state = "done before" if before else "done"
            why = claims_tables.counted(
                [row for rows in findings["rows"].values() for row in rows]
            ).replace("**", "")
        except StorageError:
            raise
        except MissingData as absent:
            state, why, error = "not run", str(absent), absent
        except Exception as failure:
            state, why, error = "failed", f"{type(failure).__name__}: {failure}", failure
        if name in todo:
            clock.took(name, time.monotonic() - began)
        outcomes.append(Outcome(name, state, why, error))
    for outcome in outcomes:
        say(f"{outcome.name:<14} {outcome.state:<12} {outcome.why}".rstrip())
    return tuple(outcomes)


def _planned(names: Sequence[str], say: Callable[[str], None]) -> dict[str, float]:
    """Seconds that each sweep will take, from its plan on this machine."""
    from jthermo.execution.forecast import duration, plan

    seconds = {}
    for name in names:
        if hasattr(load(name), "SWEEP"):
            # if its data are missing, running it will report that
            with contextlib.suppress(InputError):
                if (planned := plan(sweep_of(name))).total_seconds is not None:
                    seconds[name] = planned.total_seconds + (planned.compile_seconds or 0.0)
                    say(f"{name:<14} {planned.num_runs:>6,} runs  about {duration(seconds[name])}")
    return seconds


def _last_time(scale: str, out: Path) -> dict[str, float]:
    """Seconds that each experiment took when ``claims.json`` was written."""
    path = out / experiment_folder.FINDING
    joined: dict[str, Any] = {}
    # a damaged file is set aside when the first experiment is added
    with contextlib.suppress(InputError):
        joined = claims_json.read(path) if path.exists() else {}
    results = [item for entry in joined.values() for item in entry["experiments"].items()]
    return {
        name: result["made"]["wall_seconds"]
        for name, result in results
        if "made" in result and result.get("scale") == scale
    }


def sweep_of(target: str, scale: str = "paper", **changes: Any) -> Any:
    """The sweep of an experiment or file, with fields changed.

    Args:
        target: an experiment or a Python file.
        scale: ``"small"`` applies the file's SMALL.
        changes: further fields to change; nested ones by dotted name.

    Raises:
        InputError: there is no such sweep, or a change is invalid.

    >>> sweep_of("fig3_4", "small", batch_size=2).num_runs
    12288
    """
    module = load(target)
    if not hasattr(module, "SWEEP"):
        raise InputError(
            "experiment", target, f"trains no networks; run `jthermo reproduce {target}`"
        )
    if scale == "small" and not hasattr(module, "SMALL"):
        remedy = f"{target} defines no SMALL; add one, such as SMALL = {{'seed': range(8)}}"
        raise InputError("scale", scale, remedy)
    return _sweep(module, scale, changes)


def _sweep(
    module: ModuleType, scale: str, changes: Mapping[str, Any] = MappingProxyType({})
) -> Any:
    small = getattr(module, "SMALL", {}) if scale == "small" else {}
    return module.SWEEP.replace(**{**small, **changes})


def _check(name: str, scale: str) -> None:
    if scale not in SCALES:
        raise InputError("scale", scale, f"use one of {', '.join(SCALES)}")
    if name and name not in experiments():
        raise InputError("experiment", name, f"use one of {', '.join(experiments())}")
