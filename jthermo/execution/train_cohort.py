"""A cohort on its devices, from the progress its runs have made to its last record; may be left and taken up anywhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jthermo.execution import placement as placing
from jthermo.execution.cohorts import Cohort
from jthermo.execution.progress import Progress

# a call to the devices lasts about this long, so that the host stays in charge
PIECE_SECONDS = 1.0
# of the arrays of a checkpoint
STATE, RECORD = "state/", "record/"
Rows = Mapping[str, np.ndarray]
Tend = Callable[[int, Callable[[], dict[str, np.ndarray]]], None]
OnRecord = Callable[[np.ndarray, np.ndarray, Rows], None]


@dataclass(frozen=True)
class Saved:
    """Where a run was left: a row of a checkpoint."""

    rows: Rows
    row: int

    @property
    def progress(self) -> tuple[int, int]:
        """Steps trained and records made."""
        return int(self.rows["steps"][self.row]), int(self.rows["records"][self.row])


def train_cohort(
    cohort: Cohort,
    place: placing.Placement,
    bar: Progress,
    saved: Mapping[tuple[str, int], Saved],
    tend: Tend,
    on_record: OnRecord,
) -> dict[str, np.ndarray]:
    """Train a cohort to its last step.

    Args:
        cohort: its runs, each at its progress.
        place: the devices.
        bar: is told how far it is.
        saved: where the runs that have begun were left.
        tend: called after every piece of work with the longest run's step and a function that gives the cohort's rows
            as they are: the place to save or to stop.
        on_record: called after every record with the configuration and the step of each run that made it, and what was
            recorded.

    Returns:
        The rows of the finished cohort: state, progress and records.
    """
    lanes, real, steps = cohort.deal(len(place.devices))
    call = placing.programs(cohort.program, place)
    began = cohort.progress[lanes[:, 0]]
    now, made = began[:, 0].astype(np.int32), began[:, 1].copy()
    records = _blank_records(cohort, saved)
    pace = _Pace()
    with placing.pinned():
        runs = place.put(jax.tree.map(lambda a: a[lanes], cohort.runs))
        states = placing.initializer(cohort.model, cohort.program.optimizer, place)(runs)
        if (now > 0).any() or (made > 0).any():
            states = place.put(_restored(cohort, place.get(states), lanes, saved))

        def rows() -> dict[str, np.ndarray]:
            return _rows(cohort, place.get(states), lanes, real, now, made, records)

        tend(int(now.max()), rows)
        for k in range(steps.shape[1]):
            target = np.maximum(steps[:, k], now).astype(np.int32)
            while (now < target).any():
                until = pace.until(now, target)
                clock = time.monotonic()
                states = jax.block_until_ready(call.advance(runs, states, *place.tell(now, until)))
                seconds = time.monotonic() - clock
                pace.took(int((until - now).max()), seconds)
                bar.advance(int((until - now) @ real.sum(1)), seconds, int(until.max()))
                now = until
                tend(int(now.max()), rows)
            due = (made <= k) & (steps[:, k] >= 0)
            if due.any():
                number = np.full(len(lanes), k, np.int32)
                values = place.get(call.observe(runs, states, *place.tell(now, number)))
                mine = lanes[due][real[due]]
                recorded = {name: value[due][real[due]] for name, value in values.items()}
                for name, value in recorded.items():
                    records[name][mine, k] = value
                bar.diverged[cohort.name] = int((real & ~values["finite"]).sum())
                on_record(cohort.key[mine], cohort.steps[mine, k], recorded)
            made = np.maximum(made, k + 1)
            if due.any():
                tend(int(now.max()), rows)
    return rows()


def _blank_records(cohort: Cohort, saved: Mapping[tuple[str, int], Saved]) -> dict[str, np.ndarray]:
    """Every variable as (R, K, …), NaN or False where there is no record yet."""
    records = {}
    for name, like in cohort.record_shapes.items():
        shape = (*cohort.steps.shape, *like.shape)
        fill = np.zeros if like.dtype == bool else np.empty
        records[name] = fill(shape, like.dtype)
        if like.dtype != bool:
            records[name].fill(np.nan)
    for i, run in enumerate(cohort.members):
        if run in saved:
            found = saved[run]
            for name, value in records.items():
                there = found.rows[RECORD + name][found.row]
                value[i, : len(there)] = there[: value.shape[1]]
    return records


def _restored(
    cohort: Cohort, states: Any, lanes: np.ndarray, saved: Mapping[tuple[str, int], Saved]
) -> Any:
    """Fresh states (blocks, W, …) with those of the runs that have begun in their place."""
    leaves, tree = jax.tree.flatten(states)
    leaves = [np.array(leaf) for leaf in leaves]
    members = cohort.members
    for block, width in np.ndindex(*lanes.shape):
        found = saved.get(members[lanes[block, width]])
        if found is not None:
            for number, leaf in enumerate(leaves):
                leaf[block, width] = found.rows[f"{STATE}{number:03d}"][found.row]
    return jax.tree.unflatten(tree, leaves)


def _rows(
    cohort: Cohort,
    states: Any,
    lanes: np.ndarray,
    real: np.ndarray,
    now: np.ndarray,
    made: np.ndarray,
    records: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """A row per run: who it is, its progress, its state and its records."""
    number, run = cohort.num_runs, lanes[real]
    found = {
        "key": cohort.key,
        "seed": cohort.runs.seed.astype(np.int64),
        "steps": np.zeros(number, np.int64),
        "records": np.zeros(number, np.int64),
    }
    for name, by_block in (("steps", now), ("records", made)):
        found[name][run] = np.broadcast_to(by_block[:, None], lanes.shape)[real]
    for i, leaf in enumerate(jax.tree.leaves(states)):
        found[f"{STATE}{i:03d}"] = np.empty((number, *leaf.shape[2:]), leaf.dtype)
        found[f"{STATE}{i:03d}"][run] = leaf[real]
    return found | {RECORD + name: value.copy() for name, value in records.items()}


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
