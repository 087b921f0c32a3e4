"""Read the trained parameters of a run from its last checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jthermo.engines import run_state, step_program
from jthermo.errors import InputError, flag, whole_number
from jthermo.execution.checkpoint import newest
from jthermo.execution.train_cohort import STATE
from jthermo.results.layout import CHECKPOINTS, record_name
from jthermo.results.reading import open_results, read_manifests
from jthermo.sweep.sweep import Sweep


def open_params(directory: str | Path, run: int, *, state: bool = False) -> Any:
    """The trained parameters of one finished run.

    Args:
        directory: a results folder.
        run: index of the run along the dim ``run`` of :func:`jthermo.open_results`.
        state: whether to return also what the net has besides its parameters, such as the running
            averages of batch normalisation.

    Returns:
        The model's parameter tree of NumPy arrays; with `state`, a pair of it and of the state,
        which is empty for most nets.

    Raises:
        InputError: there is no such run, its last checkpoint was removed or is damaged, or a module
            of your own that defines the sweep has not been imported.
    """
    state = flag("state", state)
    ds = open_results(directory)
    run = whole_number("run", run, 0, ds.sizes["run"] - 1)
    sweep = Sweep.from_json(ds.attrs["sweep"])
    at = {name: ds[name].values[run].item() for name in sweep.axes}
    config = next(
        c
        for c, group in sweep.groups.items()
        if all(str(at[k]) == str(v) for k, v in group.at.items())
    )
    key = sweep.key_of(config)
    program, hyper = step_program.split(config, sweep.record)
    one = jax.tree.map(
        lambda a: a[0], step_program.as_runs([config], [hyper], np.zeros(1), np.zeros(1))
    )
    shapes, tree = jax.tree.flatten(
        jax.eval_shape(lambda: run_state.init(config.model, program.optimizer, one))
    )
    last = int(ds.step.values[run].max())
    committed = {name for m in read_manifests(Path(directory)) for name in m["parts"]}
    for folder in (Path(directory) / CHECKPOINTS).glob("*-of-*/*"):
        # Another layout of shards may have left checkpoints of a run that was trained further here.
        rows = newest(folder) if record_name(folder.name) in committed else None
        if rows is None:
            continue
        # if the last checkpoint is damaged, an earlier one has parameters of an earlier step
        matches = np.flatnonzero(
            (rows["key"] == key) & (rows["seed"] == at["seed"]) & (rows["steps"] == last)
        )
        if len(matches):
            leaves = [rows[f"{STATE}{i:03d}"][matches[0]] for i in range(len(shapes))]
            trained = jax.tree.unflatten(tree, leaves)
            return (trained.params, trained.model_state) if state else trained.params
    raise InputError(
        "run", run, "has no intact checkpoint; train the sweep again in another folder"
    )
