"""The story of a sweep: plan → initialise → advance → record → commit → finish."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jthermo import placement as placing
from jthermo.errors import InputError
from jthermo.planning import Cohort, cohorts
from jthermo.progress import Progress
from jthermo.spec import Sweep
from jthermo.store import Store, coordinates

if TYPE_CHECKING:
    import xarray as xr

ENGINES = ("auto", "xla")
PIECE_SECONDS = 1.0  # a call to the devices lasts about this long, so that the host stays in charge
VERSIONS = ("jthermo", "jax", "jaxlib", "flax", "optax", "numpy")


def run(
    sweep: Sweep,
    out: str | Path | None = None,
    *,
    placement: str = "sharding",
    engine: str = "auto",
    progress: bool = True,
) -> xr.Dataset:
    """Train every run of a sweep and return what was recorded.

    Args:
        sweep: what to run.
        out: results folder; None keeps everything in memory. A folder that holds this sweep is completed, or
            returned as it is where nothing is missing; one that holds another sweep is refused.
        placement: ``"sharding"`` or ``"pmap"``, how runs are laid over all devices; both give the same bits.
        engine: ``"auto"`` or ``"xla"``.
        progress: print a progress line to standard error.

    Returns:
        Dims ``run`` and ``record``; see :func:`jthermo.open_results`.

    Raises:
        InputError: a bad argument, or a folder that holds another sweep.

    Guarantees: on one kind of CPU a run's bits depend on its configuration and its lane width alone, not on the
    other runs of the grid, their order, the number of devices or the placement.

    >>> import jthermo as jt
    >>> sweep = jt.Sweep(model=jt.models.TwoLayer(inputs=4, hidden=4, init="paired_he"), data=jt.data.Gaussian(dim=4),
    ...                  learning_rate=0.1, num_steps=8, record=jt.Record(steps=(0, 8), observables=jt.activation_rate()))
    >>> jt.run(sweep, progress=False).activation_rate.dims
    ('run', 'record')
    """
    if not isinstance(sweep, Sweep):
        raise InputError("sweep", sweep, "give a jt.Sweep")
    if engine not in ENGINES:
        raise InputError("engine", engine, f"use one of {', '.join(ENGINES)}")
    store = Store(sweep, out)
    if store.complete:
        return store.dataset()
    place = placing.Placement(placement, placing.devices())
    columns = coordinates(sweep)
    todo = [cohort for cohort in cohorts(sweep) if not store.has(cohort)]
    bar = Progress(sum(c.num_runs for c in todo), sum(c.run_steps for c in todo), progress)
    for cohort in todo:
        began, spent = time.monotonic(), store.manifest["attrs"].get("wall_seconds", 0.0)
        recorded = train_cohort(cohort, place, bar)
        store.add(
            cohort,
            recorded,
            columns,
            environment(place, cohort) | {"wall_seconds": spent + time.monotonic() - began},
        )
    store.finish()
    bar.finish()
    return store.dataset()


def train_cohort(cohort: Cohort, place: placing.Placement, bar: Progress) -> dict[str, np.ndarray]:
    """Train a cohort from its first step to its last; every recorded variable as (R, K, …)."""
    lanes, real, steps = cohort.deal(len(place.devices))
    call = placing.programs(cohort.program, place)
    now = np.zeros(len(lanes), np.int32)
    pace, recorded = _Pace(), []
    with placing.pinned():
        runs = place.put(jax.tree.map(lambda a: a[lanes], cohort.runs))
        states = placing.initializer(cohort.model, cohort.program.optimizer, place)(runs)
        for k in range(steps.shape[1]):
            target = np.maximum(steps[:, k], now).astype(np.int32)
            while (now < target).any():
                until = pace.until(now, target)
                began = time.monotonic()
                states = jax.block_until_ready(call.advance(runs, states, place.put(now), place.put(until)))
                seconds = time.monotonic() - began
                pace.took(int((until - now).max()), seconds)
                bar.advance(int((until - now) @ real.sum(1)), seconds, int(until.max()))
                now = until
            number = np.full(len(lanes), k, np.int32)
            recorded.append(place.get(call.observe(runs, states, place.put(now), place.put(number))))
            bar.diverged[id(cohort)] = int((real & ~recorded[-1]["finite"]).sum())
    return _by_run(
        cohort, lanes[real], {k: np.stack([r[k][real] for r in recorded], axis=1) for k in recorded[0]}
    )


def _by_run(cohort: Cohort, index: np.ndarray, lanes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Values by lane (L, K, …) in the order of the cohort's runs, empty past each run's last record."""
    order = np.argsort(index)
    made = {}
    for name, value in lanes.items():
        made[name] = value[order]
        made[name][cohort.steps < 0] = False if value.dtype == bool else np.nan
    return made


class _Pace:
    """How many steps a call to the devices may take, so that it lasts about PIECE_SECONDS. It changes no bit."""

    def __init__(self) -> None:
        self.limit, self.calls = 16, 0

    def until(self, now: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Where each block's next call ends."""
        return np.minimum(target, now + self.limit).astype(np.int32)

    def took(self, steps: int, seconds: float) -> None:
        """Learn from a call; the first one compiled, so it says nothing."""
        self.calls += 1
        if self.calls > 1:
            self.limit = int(np.clip(steps / max(seconds, 1e-6) * PIECE_SECONDS, 1, 8 * self.limit))


def environment(place: placing.Placement, cohort: Cohort) -> dict[str, Any]:
    """What a result was made with: versions, device, placement, engine, precision, lane width, commit."""
    return {
        "device": place.devices[0].device_kind,
        "num_devices": len(place.devices),
        "placement": place.kind,
        "engine": "xla",
        "precision": "float32",
        "lane_width": cohort.width,
        "git_commit": _commit(),
        "versions": json.dumps({name: importlib.metadata.version(name) for name in VERSIONS}),
    }


@functools.cache
def _commit() -> str:
    """The commit of the working directory, empty outside a repository."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()
