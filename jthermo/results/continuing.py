"""A folder that holds a part of a sweep, of fewer runs or of fewer steps, is extended to it."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import math
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

from jthermo.errors import InputError
from jthermo.results.layout import CHECKPOINTS
from jthermo.results.reading import read_manifests
from jthermo.sweep.json_codec import diff, from_plain
from jthermo.sweep.recorded_steps import (
    Every,
    LogSteps,
    RescaledSteps,
    as_num_steps,
    as_steps,
    steps_of_run,
)
from jthermo.sweep.run_config import RunConfig
from jthermo.sweep.sweep import Sweep

# The recorded steps of a sweep, as the user gave them.
Steps = LogSteps | Every | tuple[int, ...]


def earlier_keys(
    directory: Path,
    stored: Mapping[str, Any],
    sweep: Sweep,
    wanted: Mapping[str, Any],
    extend: bool,
) -> dict[str, list[str]]:
    """The keys that runs had in a folder before they were trained further, by their key now.

    Args:
        directory: the results folder.
        stored: the content of its ``sweep.json``.
        sweep: the sweep that the folder shall hold.
        wanted: the content of ``sweep.json`` for this sweep.
        extend: whether the folder may hold a part of the sweep.

    Returns:
        For every run of the folder without its seed, the earlier keys, the newest first.

    Raises:
        InputError: the folder isn't a part of the sweep or can't be extended to it, or `extend` is
            not set.
    """
    clock, before = _clock(stored, sweep), {}
    for config in sweep.configs:
        # with a new η, the clock of the folder may give no steps
        with contextlib.suppress(InputError):
            steps = steps_of_run(*clock, config.learning_rate, config.batch_size)
            before[sweep.key_of(config, steps)] = (config, steps)
    changes = diff(stored["sweep"], wanted["sweep"])
    keys = {key: sweep.key_of(config) for key, (config, _) in before.items()}
    if not _contained(stored, wanted, keys):
        names = {change.partition(":")[0] for change in changes}
        measured = names & {"record.observables", "record.probe_size"}
        same_law = measured or stored["law"] == wanted["law"]
        # the other fields of a sweep are settings of its runs, which differ if they do
        same_runs = any(group["key"] in keys for group in stored["runs"])
        inside = {name.partition(".")[0] for name in names} <= {"num_steps", "record", "seed"}
        if inside and not (same_law and same_runs):
            changes.append("the code of your functions")
        remedy = (
            f"holds another sweep; it differs in {'; '.join(changes)}. "
            "Choose another folder, or delete this one if you no longer need it"
        )
        if extend:
            remedy += ". Only a sweep that contains every run in the folder can extend it"
        raise InputError("out", str(directory), remedy)
    lengths = {steps[-1] for _, steps in before.values()}
    earlier = {}
    for group in stored["runs"]:
        config, steps = before[group["key"]]
        _refuse_other_steps(directory, sweep, config, steps, clock[1], lengths)
        key = keys[group["key"]]
        earlier[key] = [group["key"]] * (key != group["key"]) + group.get("earlier", [])
    if not extend:
        remedy = (
            f"holds only a part of this sweep; it differs in {'; '.join(changes)}. "
            "Give --extend (extend=True) to train what is missing"
        )
        raise InputError("out", str(directory), remedy)
    if not earlier.keys() <= {group["key"] for group in stored["runs"]}:
        _refuse_without_states(directory)
    return earlier


def _clock(stored: Mapping[str, Any], sweep: Sweep) -> tuple[int | RescaledSteps, Steps]:
    """The length of a folder's runs and their recorded steps, as the user gave them.

    Those of the sweep, if the folder's can't be read.
    """
    plain = stored["sweep"]
    try:
        steps = as_steps(from_plain(plain["record"]["steps"]))
        return as_num_steps(from_plain(plain["num_steps"])), steps
    except (InputError, LookupError, TypeError):
        return sweep.num_steps, sweep.record.steps


def _contained(
    stored: Mapping[str, Any],
    wanted: Mapping[str, Any],
    keys: Mapping[str, str],
) -> bool:
    """Whether a sweep has every run of a folder; `keys` maps those in the folder to the sweep's."""
    spans = {group["key"]: group["seeds"] for group in wanted["runs"]}
    # Ranges of seeds are compared as ranges: a stored one can have millions of seeds.
    return (
        all(
            group["key"] in keys and _spanned(spans[keys[group["key"]]], a, b)
            for group in stored["runs"]
            for a, b in group["seeds"]
        )
        and stored["law"] == wanted["law"]
        and set(stored["axes"]) == set(wanted["axes"])
    )


def _spanned(spans: list[list[int]], first: int, end: int) -> bool:
    """Whether one of the sorted ranges contains the range from `first` to `end`."""
    i = bisect.bisect(spans, [first, math.inf]) - 1
    return i >= 0 and end <= spans[i][1]


def _refuse_other_steps(
    directory: Path,
    sweep: Sweep,
    config: RunConfig,
    steps: tuple[int, ...],
    schedule: Steps,
    lengths: Set[int],
) -> None:
    """Raise unless the records of a run in the folder are its first ones in the sweep.

    Args:
        directory: the results folder.
        sweep: the sweep.
        config: the settings of the run.
        steps: its recorded steps in the folder.
        schedule: how these were given.
        lengths: the numbers of steps of all runs in the folder.
    """
    now = sweep.steps_of(config)
    if now[: len(steps)] == steps:
        return
    if steps[: len(now)] == now:
        remedy = (
            f"holds runs of {steps[-1]:,} steps, more than this sweep has; "
            "jt.open_results reads them. Choose another folder for shorter runs"
        )
        raise InputError("out", str(directory), remedy)
    if isinstance(schedule, tuple):
        remedy = f"append new steps to {', '.join(map(str, steps[:3]))} … {steps[-1]}"
    elif len(lengths) > 1:
        remedy = "runs of several lengths have no steps in common that could be kept"
    else:
        name = "log_steps" if isinstance(schedule, LogSteps) else "every"
        argument = schedule.n if isinstance(schedule, LogSteps) else schedule.k
        remedy = f"append new steps: steps=(*jt.{name}({argument}).resolve({steps[-1]}), …)"
    raise InputError(
        "record.steps",
        sweep.record.steps,
        f"gives other steps than those recorded in {directory}; {remedy}. Or choose another folder",
    )


def _refuse_without_states(directory: Path) -> None:
    """Raise unless the last states of the finished runs of a folder are on disk."""
    names: Iterable[str] = itertools.chain(*(m["parts"] for m in read_manifests(directory)))
    for name in names:
        if not any((directory / CHECKPOINTS).glob(f"*-of-*/{Path(name).stem}/[0-9]*")):
            remedy = (
                "has no checkpoints of its finished runs, so they can't be trained further; "
                "choose another folder"
            )
            raise InputError("out", str(directory), remedy)
