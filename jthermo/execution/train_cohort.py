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
    most_steps: int | None = None,
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
        most_steps: most steps of a piece; None for no limit but its duration.

    Returns:
        The rows of the finished cohort, one per run: key, seed, progress, state and records.
    """
    lanes, real, steps = cohort.deal(len(place.devices))
    call = placing.programs(cohort.program, place)
    start = cohort.progress[lanes[:, 0]]
    now, taken = start[:, 0].astype(np.int32), start[:, 1].copy()
    records, lost = _blank_records(cohort, saved), np.zeros(lanes.shape, bool)
    pace = _Pace(most_steps)
    # A record of the engine's own counts as so many steps.
    weight = max(1, cohort.program.probe_size // cohort.program.batch_size)
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
            return _rows(cohort, place, states, lanes, real, now, taken, records)

        def keep(k: int, due: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
            """Enter the k-th record of the blocks that are due; a variable without value is NaN."""
            mine = lanes[due][real[due]]
            for name, value in values.items():
                records[name][mine, k] = value[due][real[due]]
            lost[due] = ~values["finite"][due]
            bar.diverged[cohort.name] = int((real & lost).sum())
            on_record(
                cohort.key[mine],
                cohort.steps[mine, k],
                {name: value[mine, k] for name, value in records.items()},
            )

        def advanced(to: np.ndarray, seconds: float) -> None:
            nonlocal now
            bar.advance(int((to - now) @ real.sum(1)), seconds, int(to.max()))
            now = to

        tend(int(now.max()), rows)
        # The step of the k-th record of each block, or its last one if it has fewer.
        goals = np.maximum.accumulate(np.maximum(steps, 0), 1).astype(np.int32)
        k = 0
        while k < steps.shape[1]:
            reach = call.reach(k, pace.limit // weight)
            goal = np.maximum(goals[:, k : k + reach], now[:, None])
            # A step that its record is about is made apart.
            stop = goal if call.last_step is None else np.maximum(goal - 1, now[:, None])
            until = pace.until(now, stop[:, -1]) if (now < stop[:, -1]).any() else now
            # All blocks pass the same records, and none trains beyond its next one.
            passed = int((stop <= until[:, None]).all(0).sum())
            until = np.minimum(until, stop[:, min(passed, stop.shape[1] - 1)])
            number = np.arange(k, k + passed)
            due = (steps[:, number] >= 0) & (taken[:, None] <= number)
            # The last of them may need XLA; the engine takes the others itself, if it can.
            own = passed - (passed > 0 and call.observes(k + passed - 1))
            measured: dict[str, np.ndarray] = {}
            takes = call.records > 0 and call.last_step is None
            acts = (now < until).any() or (takes and due.any())
            if acts:
                clock, marks = time.monotonic(), np.where(due & takes, steps[:, number], -1)
                states, measured = _advance(call, place, runs, states, now, until, marks)
                seconds = time.monotonic() - clock
                pace.took(int((until - now).max()) + (weight * passed if measured else 0), seconds)
                for i in range(own):
                    advanced(goal[:, i], seconds / (own + 1))
                    if due[:, i].any():
                        keep(k + i, due[:, i], {n: v[:, :, i] for n, v in measured.items()})
                advanced(until, seconds / (own + 1))
            taken = np.maximum(taken, k + own)
            if acts:
                tend(int(now.max()), rows)
            if own < passed:
                if due[:, own].any():
                    last: Any = ()
                    if call.last_step is not None:
                        # Nothing is saved between the last step and its record, or a run that is
                        # resumed there could not compute the step again.
                        assert not (due[:, own] & (now == goal[:, own]) & (now > 0)).any()
                        last = call.last_step(runs, states, *place.tell(goal[:, own]))
                        clock, marks = time.monotonic(), np.full((len(lanes), 0), -1)
                        states, _ = _advance(call, place, runs, states, now, goal[:, own], marks)
                        advanced(goal[:, own], time.monotonic() - clock)
                    given = place.tell(now, np.full(len(lanes), k + own, np.int32))
                    assert call.observe is not None
                    values = {n: v[:, :, own] for n, v in measured.items()}
                    values |= place.get(call.observe(runs, states, last, *given))
                    keep(k + own, due[:, own], values)
                taken = np.maximum(taken, k + passed)
                if due[:, own].any():
                    tend(int(now.max()), rows)
            k += passed
    return rows()


def _advance(
    call: placing.Programs,
    place: placing.Placement,
    runs: Any,
    states: Any,
    now: np.ndarray,
    until: np.ndarray,
    marks: np.ndarray,
) -> tuple[Any, dict[str, np.ndarray]]:
    """The states after a piece, and its records (blocks, W, …) if the engine takes them.

    `marks` (blocks, …) are the recorded steps, −1 for none.
    """
    if not call.records:
        return jax.block_until_ready(call.advance(runs, states, *place.tell(now, until))), {}
    filled = np.full((len(marks), call.records), -1, np.int32)
    filled[:, : marks.shape[1]] = marks
    given = place.tell(now, until, filled)
    states, measured = jax.block_until_ready(call.advance(runs, states, *given))
    return states, place.get(measured)


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
    place: placing.Placement,
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
        rows[f"{STATE}{i:03d}"] = _by_run(place, leaf, lanes, real, number)
    return rows | {RECORD + name: value.copy() for name, value in records.items()}


def _by_run(
    place: placing.Placement, array: Any, lanes: np.ndarray, real: np.ndarray, number: int
) -> np.ndarray:
    """The lanes of an array on the devices as rows of the runs, (R, …)."""
    pieces = list(place.pieces(array))
    rows = np.empty((number, *pieces[0][1].shape[2:]), array.dtype)
    for first, piece in pieces:
        # block by block, since indexing copies
        for block, values in enumerate(piece, first):
            rows[lanes[block][real[block]]] = values[real[block]]
    return rows


class _Pace:
    """Chooses the steps per call to the devices so that a call lasts about PIECE_SECONDS."""

    def __init__(self, most: int | None) -> None:
        self.most = most or np.iinfo(np.int32).max
        self.limit, self.calls = min(16, self.most), 0

    def until(self, now: np.ndarray, target: np.ndarray) -> np.ndarray:
        """The step at which the next call ends, per block."""
        return np.minimum(target, now + self.limit).astype(np.int32)

    def took(self, steps: int, seconds: float) -> None:
        """Adapt to the duration of a call; the first call is ignored, since it compiles."""
        self.calls += 1
        if self.calls > 1:
            steps = int(np.clip(steps / max(seconds, 1e-6) * PIECE_SECONDS, 1, 8 * self.limit))
            self.limit = min(steps, self.most)
