"""An experiment from its name to its figures: sweep, fits, verdicts. The experiments travel with the package."""

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

from jthermo.errors import InputError, MissingData, StorageError
from jthermo.execution.progress import TimeLeft
from jthermo.paper import claims, claims_json, claims_tables, experiment_folder
from jthermo.results.atomic import writing
from jthermo.results.reading import open_results, read_dataset, read_json
from jthermo.results.tables import num_diverged
from jthermo.results.writing import write_dataset
from jthermo.sweep.sweep import Sweep
from jthermo.sweep.user_file import import_file

if TYPE_CHECKING:
    import xarray as xr

SCALES = ("small", "paper")
# names of the files loaded here; one may be loaded again
_LOADED: set[str] = set()


def experiments() -> dict[str, Path]:
    """Every experiment by name: those beside the package in a checkout, else those in the installed wheel."""
    package = Path(__file__).parents[1]
    folder = next(
        f for f in (package.parent / "experiments", package / "_experiments") if f.is_dir()
    )
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def load(target: str) -> ModuleType:
    """An experiment by name, or any Python file that defines SWEEP."""
    known = experiments()
    path = known.get(target, Path(target))
    if path.suffix != ".py" or not path.is_file():
        raise InputError(
            "experiment", target, f"is neither a Python file nor one of {', '.join(known)}"
        )
    taken = path.stem in sys.modules and path.stem not in _LOADED
    if taken or path.stem in sys.stdlib_module_names:
        raise InputError(
            "experiment", str(path), "has the name of an installed module; rename the file"
        )
    _LOADED.add(path.stem)
    module = import_file(path, path.stem, "experiment")
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
    """Run an experiment, fit what it claims and draw its figures; what is done already is not done again.

    An experiment is a file with ``SWEEP`` (and ``SMALL``, its changes for two cores), or with ``run(scale)`` where
    no networks are trained; with ``FIT``, the exponents it puts to the test (in each of its ``WINDOWS``, parts of the
    clock, where it asks what the exponents depend on); with ``judge(ds)``, evidence of another kind, on its ``CLAIMS``;
    and with ``figure(ds, fits)``.

    Records and what was found in them go to ``<out>/<name>-<scale>/``, figures to ``<out>/figures/`` and verdicts also into
    ``<out>/claims.json``, which joins those of all experiments. Done is what was found by this very code in records
    that are still there.

    Args:
        name: an experiment, such as ``"fig3_4"``; ``jthermo list`` shows them all.
        scale: ``"small"`` for two cores and minutes, ``"paper"`` for the full number of seeds.
        out: where results go.
        progress: print what is happening.

    Returns:
        The results of the sweep.
    """
    _check(name, scale)
    say = print if progress else lambda *_: None
    say(f"{name}: {load(name).__doc__}")
    ds, found, done = _reproduce(name, scale, Path(out), progress)
    for figure in found["figures"]:
        say(f"  figure {Path(out) / experiment_folder.FIGURES / figure}.svg")
    for part in ("rows", "sensitivity"):
        for claim, rows in found[part].items():
            for row in rows:
                say("  " + claims_tables.line(claim, row))
    seconds = found["made"]["wall_seconds"]
    say(
        f"  done on {found['made']['date']}; remove its folder to do it again"
        if done
        else f"  {seconds:.0f} s"
    )
    return ds


def _reproduce(
    name: str, scale: str, out: Path, progress: bool
) -> tuple[xr.Dataset, dict[str, Any], bool]:
    """Results, what was found in them, and whether that was there already."""
    from jthermo import figures
    from jthermo.execution.runner import run

    began, module, folder = time.monotonic(), load(name), out / f"{name}-{scale}"
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    path = out / experiment_folder.FINDING
    sweep = _sweep(module, scale) if hasattr(module, "SWEEP") else None
    if found := done(name, scale, out):
        claims_json.update(path, name, found)
        return read_dataset(folder) if sweep is None else open_results(folder), found, True
    about = {
        "experiment": name,
        "scale": scale,
        "about": (module.__doc__ or "").strip(),
        "command": f"jthermo reproduce {name} --scale {scale}",
        **_identity(name, scale),
    }
    try:
        ds = module.run(scale) if sweep is None else run(sweep, folder, progress=progress)
    except MissingData as error:
        missing: dict[str, list[Any]] = {claim: [] for claim in tested(module)}
        claims_json.update(
            path, name, {**about, "rows": missing, "not_run": f"{error.value} is not at hand"}
        )
        raise
    if sweep is None:
        write_dataset(folder, ds)
    # here: absent data are told of before it is loaded
    import matplotlib.pyplot as plt

    trained = time.monotonic()
    windows, fit = getattr(module, "WINDOWS", None), getattr(module, "FIT", ())
    fits = claims.fit_claims(ds, fit, windows)
    rows = claims.rows(fit, fits, module.judge(ds) if hasattr(module, "judge") else ())
    made = module.figure(ds, fits)
    drawn = {name: figures.svg(fig, name) for name, fig in made.items()}
    shows = {name: str(fig.get_label()) for name, fig in made.items()}
    for fig in made.values():
        plt.close(fig)
    experiment_folder.draw(out, drawn)
    seconds = ds.attrs.get("wall_seconds", trained - began) + time.monotonic() - trained
    found = {
        **about,
        "made": _made(ds, seconds),
        "rows": {} if windows else rows,
        "sensitivity": rows if windows else {},
        "windows": windows or {},
        "shows": shows,
    }
    found = experiment_folder.write(folder, found, drawn)
    claims_json.update(path, name, found)
    return ds, found, False


def done(name: str, scale: str, out: str | Path = "results") -> dict[str, Any] | None:
    """What an experiment has found, if this very code found it in records that are still there; else None."""
    with contextlib.suppress(InputError):
        found = experiment_folder.read(Path(out) / f"{name}-{scale}")
        drawn = all(
            (Path(out) / experiment_folder.FIGURES / f"{figure}.svg").exists()
            for figure in found["figures"]
        )
        if drawn and _identity(name, scale).items() <= found.items():
            return found
    return None


def _identity(name: str, scale: str) -> dict[str, str]:
    """What decides what an experiment finds: its sweep, its file and this package."""
    package = Path(__file__).parents[1]
    files = [f for f in sorted(package.rglob("*")) if f.suffix in (".py", ".cc", ".h")]
    code = hashlib.sha256(
        b"".join(f.read_bytes() for f in [experiments()[name], *files])
    ).hexdigest()
    module = load(name)
    return {"sweep_id": _sweep(module, scale).id if hasattr(module, "SWEEP") else "", "code": code}


def tested(module: ModuleType) -> tuple[str, ...]:
    """The claims that an experiment puts to the test."""
    return tuple(
        dict.fromkeys([*(c.id for c in getattr(module, "FIT", ())), *getattr(module, "CLAIMS", ())])
    )


def _made(ds: xr.Dataset, seconds: float) -> dict[str, Any]:
    """When, how long, with what and how many."""
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
    """How an experiment ended: ``"done"``, ``"done before"``, ``"not run"``, its data being absent, or ``"failed"``."""

    name: str
    state: str
    why: str = ""
    error: Exception | None = None


def reproduce_all(
    scale: str = "small", out: str | Path = "results", progress: bool = True
) -> tuple[Outcome, ...]:
    """Every experiment, one after the other; what is done is skipped, and one that fails does not stop the others.

    It says first how long that will take: at small scale from what each took when ``<out>/claims.json`` was written, at
    paper scale from a plan of each sweep on this machine; and then as it goes, at the pace seen so far.

    Args:
        scale: ``"small"`` or ``"paper"``.
        out: where results go.
        progress: print what is happening.

    Returns:
        How each one ended. A full disk and a signal end them all; the same call goes on.
    """
    _check("", scale)
    say = print if progress else lambda *_: None
    names = tuple(experiments())
    known = {name: done(name, scale, out) for name in names}
    todo = [name for name in names if known[name] is None]
    say(
        f"{len(names)} experiments at {scale} scale: {len(names) - len(todo)} done before, {len(todo)} to do"
    )
    expected = _planned(todo, say) if scale == "paper" else _last_time(scale, Path(out))
    clock, outcomes = TimeLeft({name: expected.get(name) for name in todo}), []
    say(f"forecast: {clock}")
    for name in names:
        began, why = time.monotonic(), ""
        error: Exception | None = None
        if name in todo:
            say(f"[{todo.index(name) + 1}/{len(todo)}] {name}: {clock}")
        try:
            _, found, before = _reproduce(name, scale, Path(out), progress)
            state = "done before" if before else "done"
            why = claims_tables.counted(
                [row for rows in found["rows"].values() for row in rows]
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
    """Seconds of each sweep by its plan on this machine."""
    from jthermo.execution.forecast import duration, plan

    seconds = {}
    for name in names:
        if hasattr(load(name), "SWEEP"):
            # its data are absent; its turn will say so
            with contextlib.suppress(InputError):
                if (made := plan(sweep_of(name))).total_seconds is not None:
                    seconds[name] = made.total_seconds + (made.compile_seconds or 0.0)
                    say(f"{name:<14} {made.num_runs:>6,} runs  about {duration(seconds[name])}")
    return seconds


def _last_time(scale: str, out: Path) -> dict[str, float]:
    """Seconds that each experiment took when ``claims.json`` was written."""
    path = out / experiment_folder.FINDING
    joined = read_json(path) if path.exists() else {}
    found = [item for entry in joined.values() for item in entry["experiments"].items()]
    return {
        name: made["made"]["wall_seconds"]
        for name, made in found
        if "made" in made and made.get("scale") == scale
    }


def sweep_of(target: str, scale: str = "paper", **changes: Any) -> Any:
    """The sweep of an experiment or file, with fields changed."""
    module = load(target)
    if not hasattr(module, "SWEEP"):
        raise InputError(
            "experiment", target, f"trains no networks; run `jthermo reproduce {target}`"
        )
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
