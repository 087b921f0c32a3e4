"""``jt.run``: from a sweep to its results, resuming a folder, in one process or several."""

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

from jthermo.data.sampling import check_epoch
from jthermo.engines import choice as engines
from jthermo.engines import step_program, xla
from jthermo.engines.fingerprint import Parts, fingerprint
from jthermo.errors import InputError, file_path, flag
from jthermo.execution import lock, starting, stop_signals
from jthermo.execution import placement as placing
from jthermo.execution.callbacks import Announcer, Callback, as_callbacks
from jthermo.execution.checkpoint_policy import CheckpointPolicy
from jthermo.execution.cohorts import Cohort, cohorts
from jthermo.execution.lane_width import widths
from jthermo.execution.progress import Progress
from jthermo.execution.saving import Keeper
from jthermo.execution.timing import fitting
from jthermo.execution.train_cohort import RECORD, Saved, Variables, train_cohort
from jthermo.results.atomic import writing
from jthermo.results.layout import CHECKPOINTS, SWEEP, record_name
from jthermo.results.provenance import git_commit, versions
from jthermo.results.reading import open_results
from jthermo.results.sealed_json import read_json
from jthermo.results.writing import Store, refuse_other_code
from jthermo.sweep import identity
from jthermo.sweep.sweep import Sweep, pinned_to_sweep
from jthermo.sweep.user_file import refuse_training

if TYPE_CHECKING:
    import xarray as xr

# The attribute "precision" of the results, by dtype of the sweep.
PRECISIONS = {
    "float32": "float32",
    "float64": "float64",
    "bfloat16": "passes of updates in bfloat16, parameters and observables in float32",
}


@pinned_to_sweep
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
    """Train every run of a sweep and return the records.

    Args:
        sweep: the sweep.
        out: the results folder; None keeps everything in memory. If the folder already holds this
            sweep, training resumes from the newest intact checkpoint, or the records are returned
            if they are complete. A folder with another sweep is refused.
        placement: ``"sharding"`` or ``"pmap"``, two ways to divide the runs among all devices, with
            bit-identical results.
        engine: ``"xla"``; ``"fused"``, one kernel for the paper's nets, native on CPUs and Pallas
            on GPUs; or ``"auto"``, which is the fused engine on CPUs if it is available and
            supports the sweep. A folder keeps the engine it was created with.
        progress: print a progress line to standard error.
        extend: if `out` holds a part of this sweep, train the rest: further runs, and further steps
            of the runs in the folder if its recorded steps are the first ones of this sweep.
        shard: (I, N) trains every N-th block of runs, starting from block I, without coordination;
            N such calls with one `out` complete the sweep. Under ``jax.distributed`` omit it: each
            process trains the shard (process index, process count).
        checkpoint_seconds: wall time between checkpoints. If saving would take more than 1 % of the
            time, the interval grows.
        checkpoint_steps: save also whenever the longest run has made so many steps.
        callbacks: functions of a :class:`jthermo.sinks.Update`, called after every new record, such
            as ``jt.sinks.TensorBoard("logs")``. They cannot change the results. A callback that
            raises is disabled with a warning.

    Returns:
        Dims ``run`` and ``record``; see :func:`jthermo.open_results`. From a shard, all runs that
        are finished so far.

    Raises:
        InputError: a bad argument; or a folder that holds another sweep or results of other code,
            or whose checkpoints are all damaged. Nothing is overwritten.
        FolderInUse: another process writes to the folder.
        StorageError: the disk is full or fails. Committed records and checkpoints are kept.
        Interrupted: SIGTERM, SIGINT or SIGUSR1 arrived and the state was saved; the same call
            resumes. It is a SystemExit with code 75. Signals are handled only in the main thread
            and only with `out`.

    Guarantees: on one kind of device with one version of the software, the bits of a run depend
    only on its configuration, its lane width and the engine. They do not depend on the other runs
    of the grid or their order, on the number of devices, processes or shards, on the placement, or
    on interruptions. Tested on CPUs.

    >>> import jthermo as jt
    >>> sweep = jt.Sweep(
    ...     model=jt.models.TwoLayer(inputs=4, hidden=4, init="paired_he"),
    ...     data=jt.data.Gaussian(dim=4),
    ...     learning_rate=0.1,
    ...     num_steps=8,
    ...     record=jt.Record(steps=(0, 8), observables=jt.activation_rate()),
    ... )
    >>> jt.run(sweep, progress=False).activation_rate.dims
    ('run', 'record')
    """
    refuse_training()
    engines.check(engine)
    progress, extend = flag("progress", progress), flag("extend", extend)
    out = None if out is None else file_path("out", out)
    callbacks = as_callbacks(callbacks)
    policy = CheckpointPolicy(checkpoint_seconds, checkpoint_steps)
    place = placing.Placement(placement, placing.devices())
    own_shard = _shard(shard, out)
    bar = Progress(show=progress and (shard is not None or own_shard[0] == 0))
    code: dict[str, Parts] = {}
    if out is not None or _has_own_code(sweep):
        with placing.pinned():
            code = fingerprint(sweep)
        placing.forget_changed(code)
    if out is not None and (complete := _complete(sweep, out, engine, code, bar)) is not None:
        return complete
    # Load the data first, so that a missing or damaged set is reported before a folder is created.
    arrays = {data: data.load().arrays for data in {config.data for config in sweep.configs}}
    for config in sweep.configs:
        data = config.data
        check_epoch(config.batch_size, data.size(arrays[data]), data.sampling)
        xla.refuse_parts(config, data.size(arrays[data]))
    new = out is not None and not (out / SWEEP).exists()
    # for the same reason
    starts = starting.variables(sweep, sweep.runs) if new else None
    with contextlib.ExitStack() as stack:
        announce = Announcer(sweep, callbacks, bar)
        stack.callback(announce.close)
        stop = held = None
        if out is not None:
            with writing(out):
                out.mkdir(parents=True, exist_ok=True)
                held = stack.enter_context(lock.held(out, own_shard))
            stop = stack.enter_context(stop_signals.watched())
        programs = step_program.programs(sweep)
        store = Store(
            sweep,
            out,
            own_shard,
            extend=extend,
            engine=lambda begun_with: engines.settle(engine, begun_with, programs, bar.say),
            widths=lambda engine: widths(sweep, engine),
            code=code,
            say=bar.say,
        )
        names = engines.left_to_xla(programs, store.engine)
        by_xla = "trains" if store.engine == "xla" else f"XLA measures {', '.join(names)}"
        if (store.engine == "xla" or names) and (advice := placing.idle_cores(by_xla)) is not None:
            bar.say(advice)
        keeper = Keeper(store, own_shard, bar, stop, held, policy)
        saved = keeper.saved()
        waiting = _unfinished(store, keeper, own_shard, place, saved, bar)
        needed = {r for c in waiting for r in c.members} - saved.keys()
        starts = (
            starting.variables(sweep, needed)
            if starts is None
            else {run: start for run, start in starts.items() if run in needed}
        )
        _begin(bar, waiting, store, own_shard)
        _train(waiting, store, keeper, place, saved, starts, announce, bar)
        bar.finish(keeper.total_seconds)
        ds = _finish(store, own_shard, together=shard is None and own_shard[1] > 1)
        keeper.shown.remove(all_shards=bool(ds.attrs["complete"]) and own_shard[0] == 0)
        return ds


def _begin(bar: Progress, waiting: Sequence[Cohort], store: Store, shard: tuple[int, int]) -> None:
    """Start the progress with all updates of the sweep, or of this shard of it."""
    names = store.parts if shard[1] == 1 else store.manifest["parts"]
    finished = sum(int(store.parts[name]["step"].max(axis=1).sum()) for name in names)
    total = finished + sum(int(cohort.steps.max(axis=1).sum()) for cohort in waiting)
    records = sum(int((c.steps >= 0).sum() - c.progress[:, 1].sum()) for c in waiting)
    left = sum(cohort.run_steps for cohort in waiting)
    bar.begin(sum(c.num_runs for c in waiting), total, total - left, records)


def _unfinished(
    store: Store,
    keeper: Keeper,
    shard: tuple[int, int],
    place: placing.Placement,
    saved: Mapping[tuple[str, int], Saved],
    bar: Progress,
) -> collections.deque[Cohort]:
    """The runs of this shard that have no records yet, in cohorts that fit into memory."""
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
            f"the sweep does not fit into memory at once; it is trained in {len(waiting)} rounds"
        )
    return waiting


def _train(
    waiting: collections.deque[Cohort],
    store: Store,
    keeper: Keeper,
    place: placing.Placement,
    saved: Mapping[tuple[str, int], Saved],
    starts: Mapping[tuple[str, int], Variables],
    announce: Announcer,
    bar: Progress,
) -> None:
    """Train every cohort and commit its records; halve a cohort once if the device refuses it."""
    halved: set[str] = set()
    while waiting:
        began, cohort = time.monotonic(), waiting.popleft()
        try:
            with keeper.keeping(cohort) as tend:
                most_steps = keeper.policy.steps
                rows = train_cohort(cohort, place, bar, saved, starts, tend, announce, most_steps)
                keeper.final(rows)
        except jax.errors.JaxRuntimeError as error:
            halves = cohort.split(2)
            if "RESOURCE_EXHAUSTED" not in str(error) or cohort.name in halved or len(halves) < 2:
                raise
            bar.say(
                f"the device has no memory for {cohort.num_runs:,} runs at once; "
                "they are trained in two rounds"
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


def _has_own_code(sweep: Sweep) -> bool:
    """Whether a part of the sweep is the user's own class or function."""
    parts = (sweep.configs[0], *sweep.record.observables)
    return any('"source"' in json.dumps(identity.canonical(p, source=True)) for p in parts)


def _complete(
    sweep: Sweep, out: Path, engine: str, code: Mapping[str, Parts], bar: Progress
) -> xr.Dataset | None:
    """The results of a folder that holds all records of this sweep, undamaged; else None.

    Raises:
        InputError: they were computed by other code.
    """
    try:
        ds, stored = open_results(out), read_json(out / SWEEP)
    except InputError:
        return None
    if not (
        ds.attrs["complete"]
        and ds.attrs["id"] == sweep.id
        and engines.answers(engine, ds.attrs.get("engine", ""))
    ):
        return None
    refuse_other_code(out, stored, code, bar.say)
    return ds


def _shard(shard: Any, out: Any) -> tuple[int, int]:
    """The argument `shard`, checked; by default this process among those of jax.distributed."""
    index, count = jax.process_index(), jax.process_count()
    if shard is None and count > 1:
        if out is None:
            raise InputError(
                "out", out, "several processes need a results folder; give one that all can access"
            )
        return index, count
    if shard is None:
        return 0, 1
    if count > 1:
        raise InputError(
            "shard", shard, "jax.distributed already assigns runs to processes; omit `shard`"
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
        raise InputError("out", out, "a shard needs a results folder; give the same to all shards")
    return i, n


def _finish(store: Store, shard: tuple[int, int], together: bool) -> xr.Dataset:
    """The dataset of the sweep; `together`, the first process first joins the manifests of all."""
    if together:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("jthermo: every process has committed its records")
        if shard[0] == 0:
            store.merge_manifests()
        multihost_utils.sync_global_devices("jthermo: the manifest is committed")
    store.refresh()
    ds = store.dataset()
    if store.directory is not None and ds.attrs["complete"] and shard[0] == 0:
        store.drop_earlier()
        # Remove the checkpoints of cohorts that another layout of shards or devices had formed.
        for folder in (store.directory / CHECKPOINTS).glob("*-of-*/*"):
            if record_name(folder.name) not in store.parts:
                shutil.rmtree(folder, ignore_errors=True)
    return ds


def environment(place: placing.Placement, cohort: Cohort) -> dict[str, Any]:
    """Provenance of the records of a cohort, for the attributes of the dataset."""
    return {
        "device": place.devices[0].device_kind,
        "num_devices": len(place.devices),
        "placement": place.kind,
        "engine": cohort.program.engine,
        "precision": PRECISIONS[cohort.program.dtype],
        "engine_version": engines.VERSIONS[cohort.program.engine],
        "lane_width": cohort.width,
        "git_commit": git_commit(),
        "versions": json.dumps(versions()),
    }
