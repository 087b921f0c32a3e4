"""What happens between two pieces of work: checkpoints are saved, stop signals obeyed, the lock renewed."""

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
from jthermo.execution.train_cohort import Saved
from jthermo.results.atomic import writing
from jthermo.results.layout import CHECKPOINTS, shard_name
from jthermo.results.writing import Store


class Keeper:
    """Saves when it is due, stops when a signal asks for it, and shows other hosts that this process lives.

    Args:
        store: where records go; without a folder nothing is saved.
        shard: (I, N).
        bar: prints lines.
        stop: whether a signal has asked to stop.
        held: the lock of the folder.
        policy: when to save.
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
        self._policy = policy
        self._folder = None if store.directory is None else store.directory / CHECKPOINTS
        self.seconds = self.total_seconds = 0.0
        self._checkpoints: Any = None

    def saved(self) -> dict[tuple[str, int], Saved]:
        """Where runs were left, by this shard or by one of another layout, the most advanced first."""
        if self._folder is None or not self._folder.is_dir():
            return {}
        own = shard_name(self._shard)
        found: dict[tuple[str, int], Saved] = {}
        for folder in sorted(self._folder.glob("*-of-*/*")):
            layout = folder.parent.name
            # a shard beside this one
            living = layout != own and layout.rpartition("-")[2] == str(self._shard[1])
            if living or f"{folder.name}.npz" in self._store.parts:
                continue
            with contextlib.closing(self._open(folder)) as checkpoints:
                rows = checkpoints.restore()
            for i in range(0 if rows is None else len(rows["seed"])):
                run, here = (str(rows["key"][i]), int(rows["seed"][i])), Saved(rows, i)
                if run not in found or found[run].progress < here.progress:
                    found[run] = here
        return found

    @contextlib.contextmanager
    def keeping(
        self, cohort: Cohort
    ) -> Iterator[Callable[[int, Callable[[], dict[str, np.ndarray]]], None]]:
        """Keep the checkpoints of a cohort while it is trained."""
        self.seconds = 0.0
        if self._folder is None:
            yield lambda step, rows: None
            return
        with writing(self._folder.parent):
            self._checkpoints = self._open(self._folder / shard_name(self._shard) / cohort.name)
        saved_at, saved_step = time.monotonic(), int(cohort.progress[:, 0].max())

        def tend(step: int, rows: Callable[[], dict[str, np.ndarray]]) -> None:
            nonlocal saved_at, saved_step
            assert self._held is not None
            self._held.touch()
            self.heed(lambda: self._save(rows(), wait=True), f" at step {step:,}")
            self._checkpoints.poll()
            elapsed, slowest = time.monotonic() - saved_at, self._checkpoints.slowest
            if self._policy.due(elapsed=elapsed, steps=step - saved_step, slowest_save=slowest):
                self._save(rows(), wait=False)
                saved_at, saved_step = time.monotonic(), step

        try:
            yield tend
        finally:
            self._checkpoints.close()

    def heed(self, save: Callable[[], None] = lambda: None, where: str = "") -> None:
        """Stop where a signal has asked for it, once what there is has been saved."""
        if self._stop is not None and (asked := self._stop.signal) is not None:
            save()
            raise Interrupted(
                f"{asked.name}{where}: saved; the same command again goes on from there"
            )

    def final(self, rows: Mapping[str, np.ndarray]) -> None:
        """Save the end of a cohort, its parameters with it, before its records are committed."""
        if self._folder is not None:
            self._save(dict(rows), wait=True)

    def _save(self, rows: dict[str, np.ndarray], wait: bool) -> None:
        began = time.monotonic()
        self._checkpoints.save(
            rows, {"law": self._store.sweep.law, "id": self._store.sweep.id}, wait=wait
        )
        self.seconds += time.monotonic() - began
        self.total_seconds += time.monotonic() - began

    def _open(self, folder: Any) -> Any:
        # imported here, since Orbax takes a second to import
        from jthermo.execution.checkpoint import Checkpoints

        process = (jax.process_index(), jax.process_count())
        return Checkpoints(folder, process, self._bar.say, self._policy.kept)
