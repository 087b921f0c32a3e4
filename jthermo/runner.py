"""The story of a sweep: plan → restore → advance → record → checkpoint → commit → finish."""

from __future__ import annotations

import collections
import contextlib
import functools
import importlib.metadata
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jthermo import lock, signals
from jthermo import placement as placing
from jthermo.engines import choice as engines
from jthermo.engines import step_program
from jthermo.errors import InputError, Interrupted, finite_number, whole_number
from jthermo.measurement import fitting
from jthermo.planning import Cohort, cohorts
from jthermo.progress import Progress
from jthermo.results.atomic import writing
from jthermo.results.layout import CHECKPOINTS
from jthermo.results.reading import open_results
from jthermo.results.writing import Store
from jthermo.sinks import Callback, Watch, as_callbacks
from jthermo.sweep.sweep import Sweep
from jthermo.training import RECORD, Saved, train_cohort

if TYPE_CHECKING:
    import xarray as xr

SHARE = 0.01  # of the wall time that checkpoints may take
VERSIONS = ("jthermo", "jax", "jaxlib", "flax", "optax", "numpy")
Runs = Mapping[tuple[str, int], Saved]


def run(
    sweep: Sweep,
    out: str | Path | None = None,
    *,
    placement: str = "sharding",
    engine: str = "auto",
    progress: bool = True,
    extend: bool = False,
    shard: tuple[int, int] | None = None,
    checkpoint_seconds: float = 60.0,
    checkpoint_steps: int | None = None,
    callbacks: Sequence[Callback] = (),
) -> xr.Dataset:
    """Train every run of a sweep and return what was recorded.

    Args:
        sweep: what to run.
        out: results folder; None keeps everything in memory. A folder that holds this sweep is completed, from its
            newest sound checkpoint, or returned as it is where nothing is missing; one that holds another sweep is refused.
        placement: ``"sharding"`` or ``"pmap"``, how runs are laid over all devices; both give the same bits.
        engine: ``"xla"``; ``"fused"``, one kernel for the paper's nets, native on CPUs, Pallas on GPUs; or ``"auto"``, the
            latter on CPUs where it is at hand and covers the sweep. A folder is never continued with another one.
        progress: print a progress line to standard error.
        extend: run what is new where `out` holds a sweep whose runs are a part of this one's.
        shard: (I, N) trains every N-th lane block, from the I-th on, with no coordination: N such calls with
            one `out` make the sweep. Under ``jax.distributed`` it is (process index, process count) by itself.
        checkpoint_seconds: wall time between checkpoints; saving takes at most 1 % of it, else the interval stretches.
        checkpoint_steps: save also after so many steps of the longest run.
        callbacks: functions of a :class:`jthermo.sinks.Update`, called after every record that is made here, such as
            ``jt.sinks.TensorBoard("logs")``. They change no bit; one that fails is dropped with one warning.

    Returns:
        Dims ``run`` and ``record``; see :func:`jthermo.open_results`. From a shard: every run that is finished so far.

    Raises:
        InputError: a bad argument, a folder that holds another sweep, that another process writes or whose
            checkpoints are all damaged; nothing is overwritten.
        StorageError: the disk is full or fails; what is committed is kept.
        Interrupted: SIGTERM, SIGINT or SIGUSR1 came; the state is saved, and the same call goes on. A SystemExit
            with code 75. Signals are watched in the main thread, and only with `out`.

    Guarantees: on one kind of CPU a run's bits depend on its configuration and its lane width alone, not on the
    other runs of the grid, their order, the number of devices, processes or shards, the placement or how often it was
    interrupted.

    >>> import jthermo as jt
    >>> sweep = jt.Sweep(model=jt.models.TwoLayer(inputs=4, hidden=4, init="paired_he"), data=jt.data.Gaussian(dim=4),
    ...                  learning_rate=0.1, num_steps=8, record=jt.Record(steps=(0, 8), observables=jt.activation_rate()))
    >>> jt.run(sweep, progress=False).activation_rate.dims
    ('run', 'record')
    """
    if not isinstance(sweep, Sweep):
        raise InputError("sweep", sweep, "give a jt.Sweep")
    engines.check(engine)
    callbacks = as_callbacks(callbacks)
    seconds = finite_number("checkpoint_seconds", checkpoint_seconds, above=0)
    every = None if checkpoint_steps is None else whole_number("checkpoint_steps", checkpoint_steps)
    if out is not None and (known := _finished(sweep, Path(out), engine)) is not None:
        return known
    # an absent or damaged data set is reported before anything is created
    for data in {config.data for config in sweep.configs}:
        data.load()
    place = placing.Placement(placement, placing.devices())
    mine = _shard(shard, out)
    bar = Progress(show=progress and (shard is not None or mine[0] == 0))
    with contextlib.ExitStack() as stack:
        stop = held = None
        watch = Watch(sweep, callbacks, bar)
        stack.callback(watch.close)
        if out is not None:
            with writing(out):
                Path(out).mkdir(parents=True, exist_ok=True)
                held = stack.enter_context(lock.held(Path(out), mine))
            stop = stack.enter_context(signals.watched())
        programs = step_program.programs(sweep)
        store = Store(
            sweep,
            out,
            mine,
            extend=extend,
            engine=lambda begun_with: engines.settle(engine, begun_with, programs, bar.say),
            say=bar.say,
        )
        keeper = Keeper(store, mine, bar, stop, held, seconds, every)
        saved = keeper.saved()
        wanted = {
            (key, seed): saved[key, seed].progress if (key, seed) in saved else (0, 0)
            for key, seed in sweep.runs - store.done
        }
        planned = cohorts(sweep, wanted, shard=mine, engine=store.engine, widths=store.widths)
        todo: collections.deque[Cohort] = collections.deque()
        for cohort in planned:
            keeper.heed()
            todo.extend(fitting(cohort, place))
        if len(todo) > len(planned):
            bar.say(f"the sweep would not fit into memory at once: trained in {len(todo)} rounds")
        bar.begin(sum(c.num_runs for c in todo), sum(c.run_steps for c in todo))
        halved: set[str] = set()
        while todo:
            began, cohort = time.monotonic(), todo.popleft()
            try:
                with keeper.keeping(cohort) as tend:
                    rows = train_cohort(cohort, place, bar, saved, tend, watch)
                    keeper.final(rows)
            except jax.errors.JaxRuntimeError as error:
                parts = cohort.split(2)
                if "RESOURCE_EXHAUSTED" not in str(error) or cohort.name in halved or len(parts) < 2:
                    raise
                bar.say(f"the device has no room for {cohort.num_runs:,} runs at once: trained in two rounds")
                todo.extendleft(reversed(parts))
                halved |= {part.name for part in parts}
                continue
            spent = {"wall_seconds": time.monotonic() - began, "checkpoint_seconds": keeper.seconds}
            records = {k.removeprefix(RECORD): v for k, v in rows.items() if k.startswith(RECORD)}
            store.add(cohort, records, environment(place, cohort) | spent)
        bar.finish(keeper.total_seconds)
        return _finish(store, mine, shard is None and mine[1] > 1)


class Keeper:
    """What happens between two pieces of work: save when it is time, stop when asked, show that the owner lives."""

    def __init__(
        self,
        store: Store,
        shard: tuple[int, int],
        bar: Progress,
        stop: signals.Request | None,
        held: lock.Lock | None,
        seconds: float,
        every: int | None,
    ) -> None:
        self._store, self._shard, self._bar, self._stop, self._held = store, shard, bar, stop, held
        self._interval, self._every = seconds, every
        self._folder = None if store.directory is None else store.directory / CHECKPOINTS
        self.seconds = self.total_seconds = 0.0
        self._checkpoints: Any = None

    def saved(self) -> dict[tuple[str, int], Saved]:
        """Where runs were left, by this shard or by one of another layout, the most advanced first."""
        if self._folder is None or not self._folder.is_dir():
            return {}
        own = self._name()
        found: dict[tuple[str, int], Saved] = {}
        for folder in sorted(self._folder.glob("*-of-*/*")):
            layout = folder.parent.name
            living = layout != own and layout.rpartition("-")[2] == str(
                self._shard[1]
            )  # a shard beside this one
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
    def keeping(self, cohort: Cohort) -> Iterator[Callable[[int, Callable[[], dict[str, np.ndarray]]], None]]:
        """Keep the checkpoints of a cohort while it is trained."""
        self.seconds = 0.0
        if self._folder is None:
            yield lambda step, rows: None
            return
        with writing(self._folder.parent):
            self._checkpoints = self._open(self._folder / self._name() / cohort.name)
        saved_at, saved_step = time.monotonic(), int(cohort.progress[:, 0].max())

        def tend(step: int, rows: Callable[[], dict[str, np.ndarray]]) -> None:
            nonlocal saved_at, saved_step
            assert self._held is not None
            self._held.touch()
            self.heed(lambda: self._save(rows(), wait=True), f" at step {step:,}")
            self._checkpoints.poll()
            pause = max(self._interval, self._checkpoints.slowest / SHARE)
            if time.monotonic() - saved_at > pause or (self._every and step - saved_step >= self._every):
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
            raise Interrupted(f"{asked.name}{where}: saved; the same command again goes on from there")

    def final(self, rows: Mapping[str, np.ndarray]) -> None:
        """Save the end of a cohort, its parameters with it, before its records are committed."""
        if self._folder is not None:
            self._save(dict(rows), wait=True)

    def _save(self, rows: dict[str, np.ndarray], wait: bool) -> None:
        began = time.monotonic()
        self._checkpoints.save(rows, {"law": self._store.sweep.law, "id": self._store.sweep.id}, wait=wait)
        self.seconds += time.monotonic() - began
        self.total_seconds += time.monotonic() - began

    def _open(self, folder: Path) -> Any:
        from jthermo.checkpoint import Checkpoints  # Orbax costs a second to import

        process = (jax.process_index(), jax.process_count())
        return Checkpoints(folder, process, self._bar.say)

    def _name(self) -> str:
        return f"{self._shard[0]}-of-{self._shard[1]}"


def _finished(sweep: Sweep, out: Path, engine: str) -> xr.Dataset | None:
    """The results of a folder that holds all of this sweep, sound; None where there is anything to do."""
    with contextlib.suppress(InputError):
        ds = open_results(out)
        if (
            ds.attrs["complete"]
            and ds.attrs["id"] == sweep.id
            and engines.answers(engine, ds.attrs["engine"])
        ):
            return ds
    return None


def _shard(shard: Any, out: Any) -> tuple[int, int]:
    """(I, N) as given, or this process among those of jax.distributed."""
    index, count = jax.process_index(), jax.process_count()
    if shard is None and count > 1:
        if out is None:
            raise InputError("out", out, "several processes need one results folder that all of them see")
        return index, count
    if shard is None:
        return 0, 1
    if count > 1:
        raise InputError("shard", shard, "jax.distributed shares the runs out by itself; leave it away")
    try:
        i, n = (int(part) for part in shard)
    except (TypeError, ValueError):
        raise InputError("shard", shard, "give (I, N) with 0 ≤ I < N, on the command line I/N") from None
    if not 0 <= i < n:
        raise InputError("shard", shard, "give (I, N) with 0 ≤ I < N, on the command line I/N")
    if out is None:
        raise InputError("out", out, "a shard needs a results folder that the others share")
    return i, n


def _finish(store: Store, shard: tuple[int, int], together: bool) -> xr.Dataset:
    """The dataset; of several processes the first one writes one manifest for all, and all wait for it."""
    if together:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("jthermo: every process has committed its records")
        if shard[0] == 0:
            store.merge_manifests()
        multihost_utils.sync_global_devices("jthermo: the manifest is committed")
    store.refresh()
    ds = store.dataset()
    if store.directory is not None and ds.attrs["complete"] and shard[0] == 0:
        for folder in (store.directory / CHECKPOINTS).glob(
            "*-of-*/*"
        ):  # left by an earlier layout of the runs
            if f"{folder.name}.npz" not in store.parts:
                shutil.rmtree(folder, ignore_errors=True)
    return ds


def environment(place: placing.Placement, cohort: Cohort) -> dict[str, Any]:
    """What a result was made with: versions, device, placement, engine, precision, lane width, commit."""
    return {
        "device": place.devices[0].device_kind,
        "num_devices": len(place.devices),
        "placement": place.kind,
        "engine": cohort.program.engine,
        "precision": "float32",
        "lane_width": cohort.width,
        "git_commit": _commit(),
        "versions": json.dumps(versions()),
    }


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    return {name: importlib.metadata.version(name) for name in VERSIONS}


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
