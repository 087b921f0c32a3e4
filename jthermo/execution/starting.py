"""Reads the parameters at which the runs of a sweep start, from memory or from a results folder."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

import jax
import numpy as np

from jthermo.errors import InputError
from jthermo.execution.train_cohort import Variables
from jthermo.models import Model, named_leaves
from jthermo.results.reading import read_manifests, read_part
from jthermo.sweep.start import Start, StartArrays, fitted
from jthermo.sweep.sweep import Sweep


def variables(sweep: Sweep, runs: Set[tuple[str, int]]) -> dict[tuple[str, int], Variables]:
    """What runs, given as (key, seed), start from if it isn't a function of the model's own.

    Raises:
        InputError: it was passed in memory to another process, or its folder has been changed.
    """
    if not runs or not isinstance(sweep.start, Start | StartArrays):
        return {}
    configs = {sweep.key_of(config): config for config in sweep.configs}
    if isinstance(sweep.start, StartArrays):
        if sweep.start.arrays is None:
            remedy = (
                "these parameters were passed in memory; pass the same to jt.Sweep again, or use "
                "`jthermo resume` with the results folder"
            )
            raise InputError("start", sweep.start.sha256, remedy)
        arrays = sweep.start.arrays
        return {run: fitted("start", arrays, configs[run[0]].model) for run in runs}
    sources = {}
    for key, seed in runs:
        start = configs[key].start
        sources[key, seed] = (start.key, seed if start.seed is None else start.seed)
    last = _last(sweep.start.folder, set(sources.values()))
    return {run: _fitted(last[source], configs[run[0]].model) for run, source in sources.items()}


def _last(folder: str, wanted: set[tuple[str, int]]) -> dict[tuple[str, int], list[np.ndarray]]:
    """The leaves of the last states of finished runs of a folder, given as (key, seed)."""
    # Orbax takes a second to import, and other sweeps do not need it.
    from jthermo.execution.trained_params import last_states

    path = Path(folder)
    ends: dict[tuple[str, int, int], tuple[str, int]] = {}
    for manifest in read_manifests(path):
        for name, digest in manifest["parts"].items():
            part = read_part(path, name, digest)
            columns = (part["key"].tolist(), part["seed"].tolist(), part["step"].max(1).tolist())
            for key, seed, end in zip(*columns, strict=True):
                if (key, seed) in wanted:
                    ends[key, seed, end] = key, seed
    last = last_states(path, ends, {})
    if missing := wanted - last.keys():
        remedy = (
            f"has no last parameters of {len(missing)} of the runs to start from, such as seed "
            f"{min(seed for _, seed in missing)}; finish it, or build the sweep anew if the folder "
            "was trained further"
        )
        raise InputError("start", folder, remedy)
    return last


def _fitted(leaves: list[np.ndarray], model: Model) -> Variables:
    """The parameters among the leaves of a last state, and the state of the net if it had one."""
    names, state = [*named_leaves(model.shapes)], jax.tree.leaves(model.state_shapes)
    params = fitted("start", dict(zip(names, leaves, strict=False)), model)
    # the state of the net comes last, after that of the optimizer
    rest = leaves[len(names) :][-len(state) :] if state else []
    shapes = [[(a.shape, a.dtype) for a in arrays] for arrays in (rest, state)]
    return [*params, *(rest if shapes[0] == shapes[1] else [])]
