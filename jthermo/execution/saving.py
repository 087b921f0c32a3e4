"""While a cohort trains: checkpoints are saved, stop signals obeyed, the lock checked."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jthermo.errors import Interrupted
from jthermo.execution import lock, stop_signals
from jthermo.execution.checkpoint_policy import CheckpointPolicy
from jthermo.execution.cohorts import Cohort
from jthermo.execution.progress import Progress
from jthermo.execution.running import Shown
from jthermo.execution.train_cohort import RECORD, Saved
from jthermo.results.atomic import writing
from jthermo.results.layout import CHECKPOINTS, record_name, shard_name
from jthermo.results.writing import Store


class Keeper:
    """Saves checkpoints when they are due, stops after a signal, or if the lock was lost.

    Args:
        store: the records; without a folder no checkpoint is saved.
        shard: (I, N).
        bar: prints lines.
        stop: the stop signal received so far, if any.
        held: the lock of the folder.
        policy: when to save.

    Attributes:
        shown: what others can read while the sweep runs.
        policy: when to save.
        seconds: time spent on saving the present cohort.
        total_seconds: time spent on saving all cohorts.
    """

    def __init__(
        self,
        store: Store,
        shard: tuple[int, int],
        bar: Progress,
        stop: stop_signals.Request | None,
        held: lock.Lock | None,
        policy: CheckpointPolicy,
    ) -> None:
        self._store, self._shard, self._bar, self._stop, self._held = store, shard, bar, stop, held
        self.policy = policy
        self._folder = None if store.directory is None else store.directory / CHECKPOINTS
        self.seconds = self.total_seconds = 0.0
        self._checkpoints: Any = None
        self.shown = Shown(store.directory, shard, bar)

    def saved(self) -> dict[tuple[str, int], Saved]:
        """The most advanced checkpoint of each unfinished run, as a map from (key, seed).

        It may be the last of a run that had fewer steps and is trained further. Checkpoints of
        another layout of shards count too; those of unfinished runs of the other shards of this
        layout do not, since these may be running.
        """
        if self._folder is None or not self._folder.is_dir():
            return {}
        own, store = shard_name(self._shard), self._store
        unfinished = store.sweep.runs - store.done
        latest: dict[tuple[str, int], Saved] = {}
        for folder in sorted(self._folder.glob("*-of-*/*")):
            layout = folder.parent.name
            sibling = layout != own and layout.rpartition("-")[2] == str(self._shard[1])
            part = store.parts.get(record_name(folder.name))
            if sibling if part is None else not store.renamed(part) & unfinished:
                continue
            with contextlib.closing(self._open(folder)) as checkpoints:
                rows = checkpoints.restore()
            for i in range(0 if rows is None else len(rows["seed"])):
                key, candidate = str(rows["key"][i]), Saved(rows, i)
                run = (store.current.get(key, key), int(rows["seed"][i]))
                if run not in latest or latest[run].progress < candidate.progress:
                    latest[run] = candidate
        return latest

    @contextlib.contextmanager
    def keeping(
        self, cohort: Cohort
    ) -> Iterator[Callable[[int, Callable[[], dict[str, np.ndarray]]], None]]:
        """A context in which the checkpoints of a cohort are saved while it is trained.

        Yields:
            A function of a step and of a callable that returns the cohort's rows. Training calls
            it after every piece of work; it saves when the policy says so, and stops on a signal.
        """
        self.seconds = 0.0
        if self._folder is None:
            yield lambda step, rows: None
            return
        with writing(self._folder.parent):
            self._checkpoints = self._open(self._folder / shard_name(self._shard) / cohort.name)
        saved_at, saved_step = time.monotonic(), int(cohort.progress[:, 0].max())

        def tend(step: int, rows: Callable[[], dict[str, np.ndarray]]) -> None:
            nonlocal saved_at, saved_step
            self._check_lock()
            self.heed(lambda: self._save(rows(), wait=True), f" at step {step:,}")
            self._checkpoints.poll()
            self.shown.write(lambda: _records(cohort, rows()))
            elapsed, slowest = time.monotonic() - saved_at, self._checkpoints.slowest
            if self.policy.due(elapsed=elapsed, steps=step - saved_step, slowest_save=slowest):
                self._save(rows(), wait=False)
                saved_at, saved_step = time.monotonic(), step

        try:
            yield tend
        finally:
            self._checkpoints.close()

    def heed(self, save: Callable[[], None] = lambda: None, where: str = "") -> None:
        """If a stop signal has arrived, call `save` and raise Interrupted.

        Args:
            save: saves the present state.
            where: put after the signal's name in the message, such as ``" at step 40"``.
        """
        if self._stop is not None and (received := self._stop.signal) is not None:
            save()
            folder = self._store.directory
            message = f"{received.name}{where}: saved in {folder}; run the same command to resume"
            # Python ends silently on the exception
            self._bar.say(message)
            raise Interrupted(message, printed=self._bar.show)

    def final(self, rows: Mapping[str, np.ndarray]) -> None:
        """Save the last state of a cohort, which has its trained parameters, and wait for it."""
        if self._folder is not None:
            self._check_lock()
            self._save(dict(rows), wait=True)
            self._check_lock()

    def _check_lock(self) -> None:
        if self._held is not None:
            self._held.check()

    def _save(self, rows: dict[str, np.ndarray], wait: bool) -> None:
        began = time.monotonic()
        self._checkpoints.save(
            rows, {"law": self._store.sweep.law, "id": self._store.sweep.id}, wait=wait
        )
        self.seconds += time.monotonic() - began
        self.total_seconds += time.monotonic() - began

    def _open(self, folder: Any) -> Any:
        # Orbax takes a second to import, and a sweep in memory does not need it.
        from jthermo.execution.checkpoint import Checkpoints

        process = (jax.process_index(), jax.process_count())
        return Checkpoints(folder, process, self._bar.say, self.policy.kept)


def _records(cohort: Cohort, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The runs that have records, as a record file; the step of records to come is −1."""
    taken = rows["records"]
    steps = np.where(np.arange(cohort.steps.shape[1]) < taken[:, None], cohort.steps, -1)
    records = {k.removeprefix(RECORD): v for k, v in rows.items() if k.startswith(RECORD)}
    part = {"key": rows["key"], "seed": rows["seed"], "step": steps, **records}
    return {name: values[taken > 0] for name, values in part.items()}
