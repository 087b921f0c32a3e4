"""An experiment from its name to its figures: sweep, fits, verdicts. The experiments travel with the package."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

from jthermo.errors import InputError, MissingData
from jthermo.files import import_file, writing
from jthermo.spec import Sweep

if TYPE_CHECKING:
    import xarray as xr

SCALES = ("small", "paper")
_LOADED: set[str] = set()  # names of the files loaded here; one may be loaded again


def experiments() -> dict[str, Path]:
    """Every experiment by name: those beside the package in a checkout, else those in the installed wheel."""
    package = Path(__file__).parent
    folder = next(f for f in (package.parent / "experiments", package / "_experiments") if f.is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def load(target: str) -> ModuleType:
    """An experiment by name, or any Python file that defines SWEEP."""
    known = experiments()
    path = known.get(target, Path(target))
    if path.suffix != ".py" or not path.is_file():
        raise InputError("experiment", target, f"is neither a Python file nor one of {', '.join(known)}")
    taken = path.stem in sys.modules and path.stem not in _LOADED
    if taken or path.stem in sys.stdlib_module_names:
        raise InputError("experiment", str(path), "has the name of an installed module; rename the file")
    _LOADED.add(path.stem)
    module = import_file(path, path.stem, "experiment")
    if not (hasattr(module, "SWEEP") or hasattr(module, "run")):
        raise InputError("experiment", str(path), "defines no SWEEP; add SWEEP = jt.Sweep(...)")
    if not isinstance(sweep := getattr(module, "SWEEP", None), Sweep | None):
        raise InputError("experiment", str(path), f"has SWEEP = {sweep!r}; give SWEEP = jt.Sweep(...)")
    return module


def reproduce(
    name: str, scale: str = "small", out: str | Path = "results", progress: bool = True
) -> xr.Dataset:
    """Run an experiment, fit what it claims and draw its figures; what is done already is not done again.

    An experiment is a file with ``SWEEP`` (and ``SMALL``, its changes for two cores), or with ``run(scale)`` where
    no networks are trained; with ``FIT``, the exponents it puts to the test, ``judge(ds)``, its other evidence, or
    both; and with ``figure(ds, fits)``.

    Records go to ``<out>/<name>-<scale>/``, figures to ``<out>/figures/`` and verdicts into ``<out>/claims.json``.

    Args:
        name: an experiment, such as ``"fig3_4"``; ``jthermo list`` shows them all.
        scale: ``"small"`` for two cores and minutes, ``"paper"`` for the full number of seeds.
        out: where results go.
        progress: print what is happening.

    Returns:
        The results of the sweep.
    """
    from jthermo import claims, evidence, figures
    from jthermo.runner import run

    if scale not in SCALES:
        raise InputError("scale", scale, f"use one of {', '.join(SCALES)}")
    if name not in experiments():
        raise InputError("experiment", name, f"use one of {', '.join(experiments())}")
    began, out, module = time.monotonic(), Path(out), load(name)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    say = print if progress else lambda *_: None
    say(f"{name}: {module.__doc__}")
    sweep = _sweep(module, scale) if hasattr(module, "SWEEP") else None
    tested, identity = getattr(module, "FIT", ()), "" if sweep is None else sweep.id
    try:
        ds = module.run(scale) if sweep is None else run(sweep, out / f"{name}-{scale}", progress=progress)
    except MissingData as error:
        claims.update_not_run(
            out / "claims.json", name, scale, identity, tested, f"{error.value} is not at hand"
        )
        raise
    fits = claims.fit_claims(ds, tested)
    known = claims.update_claims(out / "claims.json", name, scale, identity, tested, fits)
    found = module.judge(ds) if hasattr(module, "judge") else ()
    claims.update_evidence(out / "claims.json", name, scale, identity, found)
    for path in figures.save(module.figure(ds, fits), out / "figures"):
        say(f"  figure {path}")
    for claim in tested:
        for row in known[claim.id]["experiments"][name]["rows"]:
            say("  " + claims.line(claim, row))
    for piece in found:
        say("  " + evidence.line(piece))
    say(f"  {time.monotonic() - began:.0f} s")
    return ds


def sweep_of(target: str, scale: str = "paper", **changes: Any) -> Any:
    """The sweep of an experiment or file, with fields changed."""
    module = load(target)
    if not hasattr(module, "SWEEP"):
        raise InputError("experiment", target, f"trains no networks; run `jthermo reproduce {target}`")
    return _sweep(module, scale, changes)


def _sweep(module: ModuleType, scale: str, changes: Mapping[str, Any] = MappingProxyType({})) -> Any:
    small = getattr(module, "SMALL", {}) if scale == "small" else {}
    return module.SWEEP.replace(**{**small, **changes})
