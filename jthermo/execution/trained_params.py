"""Read the trained parameters of runs from their last checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from jthermo.engines import run_state, step_program
from jthermo.errors import InputError, flag, sequence, whole_number
from jthermo.execution.checkpoint import newest
from jthermo.execution.train_cohort import STATE
from jthermo.results.layout import CHECKPOINTS, SWEEP, record_name
from jthermo.results.reading import open_results, read_manifests
from jthermo.results.sealed_json import REBUILD, read_json
from jthermo.sweep.run_config import RunConfig
from jthermo.sweep.sweep import Sweep, pinned_to_sweep

Name = TypeVar("Name")


def open_params(directory: str | Path, run: int | Sequence[int], *, state: bool = False) -> Any:
    """The trained parameters of one finished run, or of several.

    Args:
        directory: a results folder.
        run: index of the run along the dim ``run`` of :func:`jthermo.open_results`; or several
            indices, such as ``range(64)``, of runs of nets with the same shapes.
        state: whether to return also what the net has besides its parameters, such as the running
            averages of batch normalisation.

    Returns:
        The model's parameter tree of NumPy arrays, for several runs with a leading axis over them;
        with `state`, a pair of it and of the state, which is empty for most nets.

    Raises:
        InputError: there is no such run, its last checkpoint was removed or is damaged, the runs
            have parameters of different shapes, or a module of your own that defines the sweep has
            not been imported.
    """
    state = flag("state", state)
    ds = open_results(directory)
    number = ds.sizes["run"]
    several = not isinstance(run, int | np.integer | str)
    listed = sequence("run", run, number, "give one or several indices") if several else (run,)
    runs = [whole_number("run", r, 0, number - 1) for r in listed]
    if not runs:
        raise InputError("run", run, "give at least one index")
    sweep = Sweep.from_json(ds.attrs["sweep"])
    configs = {_label(sweep, group.at): config for config, group in sweep.groups.items()}
    if absent := [name for name in sweep.axes if name not in ds]:
        remedy = f"lists no values of the axis {absent[0]}, so it was altered; {REBUILD}"
        raise InputError("directory", str(Path(directory) / SWEEP), remedy)
    names = [name for name in sweep.axes if name != "seed"]
    columns = {name: ds[name].values for name in (*sweep.axes, "step")}
    trained = {r: configs[_label(sweep, {n: columns[n][r].item() for n in names})] for r in runs}
    trees = {config: _structure(sweep, config) for config in dict.fromkeys(trained.values())}
    if len(set(map(str, trees.values()))) > 1:
        remedy = "names runs of nets with different shapes; give runs with equal models"
        raise InputError("run", run, remedy)
    (shapes, tree), *_ = trees.values()
    keys = {config: sweep.key_of(config) for config in trees}
    wanted = {
        (keys[trained[r]], int(columns["seed"][r]), int(columns["step"][r].max())): r for r in runs
    }
    described = read_json(Path(directory) / SWEEP)["runs"]
    current = {old: group["key"] for group in described for old in group.get("earlier", ())}
    rows = last_states(Path(directory), wanted, current)
    if missing := [r for r in runs if r not in rows]:
        remedy = "has no intact checkpoint; train the sweep again in another folder"
        raise InputError("run", missing[0], remedy)
    leaves = [
        np.stack([rows[r][i] for r in runs]) if several else rows[runs[0]][i]
        for i in range(len(shapes))
    ]
    end = jax.tree.unflatten(tree, leaves)
    return (end.params, end.model_state) if state else end.params


def _label(sweep: Sweep, at: Mapping[str, Any]) -> tuple[str, ...]:
    """The values of the axes without the seed, as text."""
    return tuple(str(at[name]) for name in sweep.axes if name != "seed")


@pinned_to_sweep
def _structure(sweep: Sweep, config: RunConfig) -> tuple[list[jax.ShapeDtypeStruct], Any]:
    """The leaves and the tree of the state of a run with these settings."""
    program, hyper = step_program.split(config, sweep.record)
    one = jax.tree.map(
        lambda a: a[0], step_program.as_runs([config], [hyper], np.zeros(1), np.zeros(1))
    )
    return jax.tree.flatten(
        jax.eval_shape(lambda: run_state.init(config.model, program.optimizer, one))
    )


def last_states(
    directory: Path,
    wanted: Mapping[tuple[str, int, int], Name],
    current: Mapping[str, str],
) -> dict[Name, list[np.ndarray]]:
    """The leaves of the state of each wanted (key, seed, steps trained), by its name there.

    `current` has the keys of runs that are trained further, by the key that they had before.
    """
    committed = {name for m in read_manifests(directory) for name in m["parts"]}
    found: dict[Name, list[np.ndarray]] = {}
    for folder in (directory / CHECKPOINTS).glob("*-of-*/*"):
        if len(found) == len(wanted):
            break
        # Another layout of shards may have left checkpoints of a run that was trained further here.
        rows = newest(folder) if record_name(folder.name) in committed else None
        if rows is None:
            continue
        # if the last checkpoint is damaged, an earlier one has parameters of an earlier step
        keys = [current.get(key, key) for key in rows["key"].tolist()]
        seen = zip(keys, rows["seed"].tolist(), rows["steps"].tolist(), strict=True)
        for place, run in enumerate(seen):
            if run in wanted:
                number = sum(name.startswith(STATE) for name in rows)
                found[wanted[run]] = [rows[f"{STATE}{i:03d}"][place] for i in range(number)]
    return found
