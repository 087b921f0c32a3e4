"""The story of a sweep: plan → restore → advance → record → checkpoint → commit → finish."""

from __future__ import annotations

import collections
import contextlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jthermo.engines import choice as engines
from jthermo.engines import step_program
from jthermo.errors import InputError
from jthermo.execution import lock, stop_signals
from jthermo.execution import placement as placing
from jthermo.execution.callbacks import Announcer, Callback, as_callbacks
from jthermo.execution.checkpoint_policy import CheckpointPolicy
from jthermo.execution.cohorts import Cohort, cohorts
from jthermo.execution.lane_width import widths
from jthermo.execution.progress import Progress
from jthermo.execution.saving import Keeper
from jthermo.execution.timing import fitting
from jthermo.execution.train_cohort import RECORD, Saved, train_cohort
from jthermo.results.atomic import writing
from jthermo.results.layout import CHECKPOINTS
from jthermo.results.provenance import git_commit, versions
from jthermo.results.reading import open_results
from jthermo.results.writing import Store
from jthermo.sweep.sweep import Sweep

if TYPE_CHECKING:
    import xarray as xr


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
    policy = CheckpointPolicy(checkpoint_seconds, checkpoint_steps)
    if out is not None and (known := _finished(sweep, Path(out), engine)) is not None:
        return known
    # an absent or damaged data set is reported before anything is created
    for data in {config.data for config in sweep.configs}:
        data.load()
    place = placing.Placement(placement, placing.devices())
    mine = _shard(shard, out)
    bar = Progress(show=progress and (shard is not None or mine[0] == 0))
    with contextlib.ExitStack() as stack:
        announce = Announcer(sweep, callbacks, bar)
        stack.callback(announce.close)
        stop = held = None
        if out is not None:
            with writing(out):
                Path(out).mkdir(parents=True, exist_ok=True)
                held = stack.enter_context(lock.held(Path(out), mine))
            stop = stack.enter_context(stop_signals.watched())
        programs = step_program.programs(sweep)
        store = Store(
            sweep,
            out,
            mine,
            extend=extend,
            engine=lambda begun_with: engines.settle(engine, begun_with, programs, bar.say),
            widths=lambda engine: widths(sweep, engine),
            say=bar.say,
        )
        keeper = Keeper(store, mine, bar, stop, held, policy)
        saved = keeper.saved()
        waiting = _unfinished(store, keeper, mine, place, saved, bar)
        bar.begin(sum(c.num_runs for c in waiting), sum(c.run_steps for c in waiting))
        _train(waiting, store, keeper, place, saved, announce, bar)
        bar.finish(keeper.total_seconds)
        return _finish(store, mine, shard is None and mine[1] > 1)


def _unfinished(
    store: Store,
    keeper: Keeper,
    shard: tuple[int, int],
    place: placing.Placement,
    saved: Mapping[tuple[str, int], Saved],
    bar: Progress,
) -> collections.deque[Cohort]:
    """The runs of this shard without records, in cohorts that fit into memory."""
    progress = {
        (key, seed): saved[key, seed].progress if (key, seed) in saved else (0, 0)
        for key, seed in store.sweep.runs - store.done
    }
    planned = cohorts(store.sweep, progress, shard=shard, engine=store.engine, widths=store.widths)
    waiting: collections.deque[Cohort] = collections.deque()
    for cohort in planned:
        keeper.heed()
        waiting.extend(fitting(cohort, place))
    if len(waiting) > len(planned):
        bar.say(
            f"the sweep does not fit into memory at once: it is trained in {len(waiting)} rounds"
        )
    return waiting


def _train(
    waiting: collections.deque[Cohort],
    store: Store,
    keeper: Keeper,
    place: placing.Placement,
    saved: Mapping[tuple[str, int], Saved],
    announce: Announcer,
    bar: Progress,
) -> None:
    """Train every cohort and commit its records; one that the device has no room for is halved once."""
    halved: set[str] = set()
    while waiting:
        began, cohort = time.monotonic(), waiting.popleft()
        try:
            with keeper.keeping(cohort) as tend:
                rows = train_cohort(cohort, place, bar, saved, tend, announce)
                keeper.final(rows)
        except jax.errors.JaxRuntimeError as error:
            halves = cohort.split(2)
            if "RESOURCE_EXHAUSTED" not in str(error) or cohort.name in halved or len(halves) < 2:
                raise
            bar.say(
                f"the device has no room for {cohort.num_runs:,} runs at once: they are trained in two rounds"
            )
            waiting.extendleft(reversed(halves))
            halved |= {half.name for half in halves}
            continue
        attrs = environment(place, cohort) | {
            "wall_seconds": time.monotonic() - began,
            "checkpoint_seconds": keeper.seconds,
        }
        part = {"key": cohort.key, "seed": cohort.runs.seed.astype(np.int64), "step": cohort.steps}
        part |= {k.removeprefix(RECORD): v for k, v in rows.items() if k.startswith(RECORD)}
        store.add(cohort.name, part, attrs)


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
            raise InputError(
                "out", out, "several processes need one results folder that all of them see"
            )
        return index, count
    if shard is None:
        return 0, 1
    if count > 1:
        raise InputError(
            "shard", shard, "jax.distributed shares the runs out by itself; leave it away"
        )
    try:
        i, n = (int(part) for part in shard)
    except (TypeError, ValueError):
        raise InputError(
            "shard", shard, "give (I, N) with 0 ≤ I < N, on the command line I/N"
        ) from None
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
        # left by an earlier layout of the runs
        for folder in (store.directory / CHECKPOINTS).glob("*-of-*/*"):
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
        "git_commit": git_commit(),
        "versions": json.dumps(versions()),
    }
