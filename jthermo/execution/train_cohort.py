"""Train a cohort on its devices from its saved progress to its last record: the loop over steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jthermo.execution import placement as placing
from jthermo.execution.cohorts import Cohort
from jthermo.execution.progress import Progress

# Target duration in seconds of one call to the devices. Between calls the host saves, checks for
# signals and prints, so this bounds how long a signal waits.
PIECE_SECONDS = 1.0
# Prefixes of the arrays of a checkpoint.
STATE, RECORD = "state/", "record/"
Rows = Mapping[str, np.ndarray]
Tend = Callable[[int, Callable[[], dict[str, np.ndarray]]], None]
# Leaves of parameters, and of the state of the net or none of it.
Variables = Sequence[np.ndarray]
OnRecord = Callable[[np.ndarray, np.ndarray, Rows], None]


@dataclass(frozen=True)
class Saved:
    """The saved state of a run: one row of a checkpoint."""

    rows: Rows
    row: int

    @property
    def progress(self) -> tuple[int, int]:
        """(steps trained, records taken)."""
        return int(self.rows["steps"][self.row]), int(self.rows["records"][self.row])


def train_cohort(
    cohort: Cohort,
    place: placing.Placement,
    bar: Progress,
    saved: Mapping[tuple[str, int], Saved],
    starts: Mapping[tuple[str, int], Variables],
    tend: Tend,
    on_record: OnRecord,
) -> dict[str, np.ndarray]:
    """Train a cohort to its last step.

    Args:
        cohort: the runs, with the progress of each.
        place: the devices.
        bar: the progress line.
        saved: the saved states of the runs that have begun, by (key, seed).
        starts: what the others start from, if it isn't the model's own.
        tend: called after every piece of work with the step of the longest run and a function that
            returns the present rows of the cohort. It may save them, and may raise to stop.
        on_record: called after every record with the configuration key (R,) and the step (R,) of
            the runs that were recorded, and their values (R, …) by variable.

    Returns:
        The rows of the finished cohort, one per run: key, seed, progress, state and records.
    """
    lanes, real, steps = cohort.deal(len(place.devices))
    call = placing.programs(cohort.program, place)
    start = cohort.progress[lanes[:, 0]]
    now, taken = start[:, 0].astype(np.int32), start[:, 1].copy()
    records = _blank_records(cohort, saved)
    pace = _Pace()
    with placing.pinned():
        runs = place.put(jax.tree.map(lambda a: a[lanes], cohort.runs))
        optimizer = cohort.program.optimizer
        states = placing.initializer(cohort.model, optimizer, place, cohort.start)(runs)
        if any(run in starts for run in cohort.members):
            states = place.put(_started(cohort, place.get(states), lanes, starts))
            states = placing.starter(optimizer, place)(runs, states)
        if any(run in saved for run in cohort.members):
            states = place.put(_restored(cohort, place.get(states), lanes, saved))

        def rows() -> dict[str, np.ndarray]:
            return _rows(cohort, place.get(states), lanes, real, now, taken, records)

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
            due = (taken <= k) & (steps[:, k] >= 0)
            if due.any():
                number = np.full(len(lanes), k, np.int32)
                values = place.get(call.observe(runs, states, *place.tell(now, number)))
                mine = lanes[due][real[due]]
                recorded = {name: value[due][real[due]] for name, value in values.items()}
                for name, value in recorded.items():
                    records[name][mine, k] = value
                bar.diverged[cohort.name] = int((real & ~values["finite"]).sum())
                on_record(cohort.key[mine], cohort.steps[mine, k], recorded)
            taken = np.maximum(taken, k + 1)
            if due.any():
                tend(int(now.max()), rows)
    return rows()


def _blank_records(cohort: Cohort, saved: Mapping[tuple[str, int], Saved]) -> dict[str, np.ndarray]:
    """Arrays (R, K, …) by variable: saved records, then NaN or False for those still to come."""
    records = {}
    for name, like in cohort.record_shapes.items():
        shape = (*cohort.steps.shape, *like.shape)
        fill = np.zeros if like.dtype == bool else np.empty
        records[name] = fill(shape, like.dtype)
        if like.dtype != bool:
            records[name].fill(np.nan)
    for i, run in enumerate(cohort.members):
        if run in saved:
            checkpoint = saved[run]
            for name, value in records.items():
                earlier = checkpoint.rows[RECORD + name][checkpoint.row]
                value[i, : len(earlier)] = earlier[: value.shape[1]]
    return records


def _started(
    cohort: Cohort, states: Any, lanes: np.ndarray, starts: Mapping[tuple[str, int], Variables]
) -> Any:
    """`states` (blocks, W, …) with other parameters and states of the net put in."""
    variables, tree = jax.tree.flatten((states.params, states.model_state))
    variables = [np.array(leaf) for leaf in variables]
    for block, width in np.ndindex(*lanes.shape):
        # those of the parameters come first, and a start may have only these
        new = starts.get(cohort.members[lanes[block, width]], ())
        for leaf, value in zip(variables, new, strict=False):
            leaf[block, width] = value
    params, model_state = jax.tree.unflatten(tree, variables)
    return states._replace(params=params, model_state=model_state)


def _restored(
    cohort: Cohort, states: Any, lanes: np.ndarray, saved: Mapping[tuple[str, int], Saved]
) -> Any:
    """`states` (blocks, W, …) with the saved states of the runs that have begun put in."""
    leaves, tree = jax.tree.flatten(states)
    leaves = [np.array(leaf) for leaf in leaves]
    members = cohort.members
    for block, width in np.ndindex(*lanes.shape):
        checkpoint = saved.get(members[lanes[block, width]])
        if checkpoint is not None:
            for number, leaf in enumerate(leaves):
                leaf[block, width] = checkpoint.rows[f"{STATE}{number:03d}"][checkpoint.row]
    return jax.tree.unflatten(tree, leaves)


def _rows(
    cohort: Cohort,
    states: Any,
    lanes: np.ndarray,
    real: np.ndarray,
    now: np.ndarray,
    taken: np.ndarray,
    records: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint, one row per run: key, seed, progress, state and records."""
    number, run = cohort.num_runs, lanes[real]
    rows = {
        "key": cohort.key,
        "seed": cohort.runs.seed.astype(np.int64),
        "steps": np.zeros(number, np.int64),
        "records": np.zeros(number, np.int64),
    }
    for name, by_block in (("steps", now), ("records", taken)):
        rows[name][run] = np.broadcast_to(by_block[:, None], lanes.shape)[real]
    for i, leaf in enumerate(jax.tree.leaves(states)):
        rows[f"{STATE}{i:03d}"] = np.empty((number, *leaf.shape[2:]), leaf.dtype)
        rows[f"{STATE}{i:03d}"][run] = leaf[real]
    return rows | {RECORD + name: value.copy() for name, value in records.items()}


class _Pace:
    """Chooses the steps per call to the devices so that a call lasts about PIECE_SECONDS."""

    def __init__(self) -> None:
        self.limit, self.calls = 16, 0

    def until(self, now: np.ndarray, target: np.ndarray) -> np.ndarray:
        """The step at which the next call ends, per block."""
        return np.minimum(target, now + self.limit).astype(np.int32)

    def took(self, steps: int, seconds: float) -> None:
        """Adapt to the duration of a call; the first call is ignored, since it compiles."""
        self.calls += 1
        if self.calls > 1:
            self.limit = int(np.clip(steps / max(seconds, 1e-6) * PIECE_SECONDS, 1, 8 * self.limit))
