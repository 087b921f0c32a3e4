"""Group the runs of a sweep into cohorts (one compiled program each) and blocks of W lanes.

Runs with the same static shapes form a cohort. Its runs are divided into blocks of W lanes that are
recorded at the same steps, and each device maps over its blocks. W affects rounding, so it depends
on the program alone, never on the number of runs or devices.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jthermo.engines import run_state, step_program, xla
from jthermo.execution.lane_width import width_of
from jthermo.models import Model
from jthermo.sweep import identity
from jthermo.sweep.run_config import RunConfig
from jthermo.sweep.sweep import Sweep


@dataclass(frozen=True)
class Cohort:
    """R runs that share a compiled program.

    Attributes:
        program: the static part of the runs.
        model: the model with its initialisation.
        width: W, the number of lanes of a block.
        key: (R,) configuration key, which identifies a run up to its seed; see
            :meth:`jthermo.Sweep.key_of`.
        runs: the traced numbers of the runs, NumPy arrays with leading axis (R,).
        steps: (R, K) recorded steps, padded with −1.
        blocks: (num_blocks, W) index of the run in each lane; surplus lanes repeat the first run of
            the block.
        real: (num_blocks, W) False for surplus lanes.
        progress: (R, 2) steps trained and records taken so far; zero for a run that has not begun.
    """

    program: step_program.Program
    model: Model
    width: int
    key: np.ndarray
    runs: step_program.Run
    steps: np.ndarray
    blocks: np.ndarray
    real: np.ndarray
    progress: np.ndarray

    @property
    def num_runs(self) -> int:
        """The number of runs R."""
        return len(self.key)

    @functools.cached_property
    def members(self) -> list[tuple[str, int]]:
        """The runs as (key, seed)."""
        return list(zip(self.key.tolist(), self.runs.seed.tolist(), strict=True))

    @property
    def run_steps(self) -> int:
        """Number of updates still to make, summed over runs."""
        return int((self.steps.max(1) - self.progress[:, 0]).sum())

    @functools.cached_property
    def name(self) -> str:
        """Sixteen hex digits of a hash of the runs, used as file name."""
        return identity.json_digest([self.key.tolist(), self.runs.seed.tolist()])[:16]

    @property
    def state_bytes(self) -> int:
        """Bytes of parameters and optimizer state over all lanes."""
        one = jax.eval_shape(
            lambda r: run_state.init(self.model, self.program.optimizer, r), self.example
        )
        return self.blocks.size * sum(
            math.prod(v.shape) * v.dtype.itemsize for v in jax.tree.leaves(one)
        )

    @property
    def record_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape and dtype of every recorded variable, for one run and one record."""
        return _record_shapes(self.program, self.model, tuple(self.runs.hyper))

    @functools.cached_property
    def record_costs(self) -> dict[str, tuple[float, int]]:
        """Per observable (keyed by its first variable): estimated cost of one record, and period.

        The cost is counted arithmetic in units of a training step. The period n means that every
        n-th record has the observable.
        """
        p = self.program
        costs = {}
        for observable in p.observables:
            name = next(iter(observable.variables(p.model, p.data)))
            settings = (p.model, p.data, p.probe_size, p.loss)
            steps = observable.cost(*settings) / p.batch_size
            costs[name] = (steps + observable.reads_last_step(*settings), observable.period)
        return costs

    @property
    def record_bytes(self) -> int:
        """Bytes of all records of all runs."""
        one = sum(math.prod(v.shape) * v.dtype.itemsize for v in self.record_shapes.values()) + 8
        return self.steps.size * one

    def split(self, number: int) -> list[Cohort]:
        """Divide the cohort into `number` cohorts of whole blocks, or into its blocks if fewer."""
        parts = []
        for some in np.array_split(np.arange(len(self.blocks)), min(number, len(self.blocks))):
            blocks, real = self.blocks[some], self.real[some]
            kept, index = np.unique(blocks, return_inverse=True)
            runs = jax.tree.map(lambda a, kept=kept: a[kept], self.runs)
            parts.append(
                Cohort(
                    self.program,
                    self.model,
                    self.width,
                    self.key[kept],
                    runs,
                    self.steps[kept],
                    index.reshape(blocks.shape),
                    real,
                    self.progress[kept],
                )
            )
        return parts

    def deal(self, num_devices: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Assign the blocks to the devices in turn.

        Args:
            num_devices: number of devices.

        Returns:
            Lanes (blocks, W), real (blocks, W) and steps (blocks, K), ordered by device. The number
            of blocks is a multiple of the number of devices; added blocks have no real lane and
            only −1 as steps.
        """
        missing = -len(self.blocks) % num_devices
        lanes = np.concatenate([self.blocks, np.repeat(self.blocks[:1], missing, 0)])
        real = np.concatenate([self.real, np.zeros((missing, self.width), bool)])
        steps = np.where(real.any(1, keepdims=True), self.steps[lanes[:, 0]], -1)
        order = np.arange(len(lanes)).reshape(-1, num_devices).T.reshape(-1)
        return lanes[order], real[order], steps[order]

    @property
    def example(self) -> step_program.Run:
        """The traced numbers of the first run."""
        return jax.tree.map(lambda a: a[0], self.runs)


# Maps (key, seed) to (steps trained, records taken).
RunProgress = Mapping[tuple[str, int], tuple[int, int]]


def cohorts(
    sweep: Sweep,
    wanted: RunProgress | None = None,
    *,
    shard: tuple[int, int] = (0, 1),
    platform: str | None = None,
    engine: str = "xla",
    widths: Mapping[str, int] | None = None,
) -> list[Cohort]:
    """Group the runs of a sweep into cohorts, in the order of the sweep.

    Args:
        sweep: the sweep.
        wanted: the runs to include, with their progress; None means all runs from the start.
        shard: (I, N) keeps only the blocks of the sweep whose number is I modulo N.
        platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``; None means the platform that JAX runs on.
        engine: ``"xla"``, ``"fused"`` or ``"pallas"``; see :func:`jthermo.engines.choice.settle`.
        widths: W by key of the configurations that already have one; others follow the rule.
    """
    grouped: dict[tuple[step_program.Program, Model, int], list[_Setting]] = {}
    # Long tuples of steps are slow to compare, so each distinct one gets a number.
    clocks: dict[tuple[int, ...], int] = {}
    for config, group in sweep.groups.items():
        program, hyper = step_program.split(config, sweep.record, engine)
        key, steps = sweep.key_of(config), sweep.steps_of(config)
        width = (widths or {}).get(key) or width_of(sweep, program, platform)
        # A field that is None is static and one that is a float is traced: different programs.
        model = step_program.starting_model(config.model)
        clock = clocks.setdefault(steps, len(clocks))
        grouped.setdefault((program, model, width), []).append(
            _Setting(key, config, hyper, group.seeds, steps, clock)
        )
    result, first = [], 0
    for (program, model, width), settings in grouped.items():
        which = np.repeat(np.arange(len(settings)), [len(s.seeds) for s in settings])
        seeds = np.concatenate([np.asarray(s.seeds, np.int64) for s in settings])
        # Shards divide the blocks of the whole sweep, so they do not depend on finished runs.
        lanes, real = _blocks(np.array([[s.clock] for s in settings])[which], width)
        ours = np.arange(first, first + len(lanes)) % shard[1] == shard[0]
        first += len(lanes)
        mine = lanes[ours][real[ours]]
        progress = np.zeros((len(mine), 2), np.int64)
        if wanted is not None:
            named = [
                (settings[i].key, n)
                for i, n in zip(which[mine].tolist(), seeds[mine].tolist(), strict=True)
            ]
            kept = [i for i, run in enumerate(named) if run in wanted]
            mine = mine[kept]
            progress = np.array([wanted[named[i]] for i in kept], np.int64).reshape(-1, 2)
        if len(mine):
            runs = which[mine], seeds[mine], progress
            result.append(_cohort(program, model, settings, *runs, width, sweep.common_data))
    return result


class _Setting(NamedTuple):
    """Runs that differ only in their seed, not assigned to lanes yet."""

    key: str
    config: RunConfig
    hyper: dict[str, float]
    seeds: Sequence[int]
    steps: tuple[int, ...]
    clock: int


def _blocks(alike: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Runs in blocks of W runs with equal rows of `alike` (R, n), rows in order of appearance.

    Returns:
        The run in each lane (blocks, W), and which lanes are real (blocks, W): the last block of a
        row repeats its first run.
    """
    _, first, row = np.unique(alike, axis=0, return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first))[row]
    order = np.argsort(place, kind="stable")
    lanes, real = [], []
    for runs in np.split(order, np.cumsum(np.bincount(place))[:-1]):
        missing = -len(runs) % width
        filled = np.concatenate([runs, np.repeat(runs[missing - width :][:1], missing)])
        lanes.append(filled.reshape(-1, width))
        real.append((np.arange(len(filled)) < len(runs)).reshape(-1, width))
    return np.concatenate(lanes), np.concatenate(real)


def _cohort(
    program: step_program.Program,
    model: Model,
    settings: Sequence[_Setting],
    which: np.ndarray,
    seeds: np.ndarray,
    progress: np.ndarray,
    width: int,
    common_data: bool,
) -> Cohort:
    """Assign runs, given by setting and seed, to blocks of runs with equal clock and progress."""
    table = np.full((len(settings), max(len(s.steps) for s in settings)), -1, np.int64)
    for line, setting in zip(table, settings, strict=True):
        line[: len(setting.steps)] = setting.steps
    # all columns of a cohort are used by one of its runs
    table = table[:, : (table[np.unique(which)] >= 0).sum(1).max()]
    clock = np.array([s.clock for s in settings])[which]
    blocks, real = _blocks(np.column_stack([clock, progress]), width)
    # Longest first: assigned in turn, they end at nearly the same time on all devices.
    left = table.max(1)[which] - progress[:, 0]
    longest_first = np.argsort(-left[blocks[:, 0]], kind="stable")
    configs = [s.config for s in settings]
    streams = np.array([c.common_stream if common_data else c.stream for c in configs])
    per_setting = step_program.as_runs(
        configs, [s.hyper for s in settings], np.zeros(len(settings)), streams
    )
    runs = jax.tree.map(lambda a: a[which], per_setting)._replace(seed=seeds.astype(np.uint32))
    return Cohort(
        program,
        model,
        width,
        np.array([s.key for s in settings])[which],
        runs,
        table[which],
        blocks[longest_first],
        real[longest_first],
        progress,
    )


@functools.lru_cache(maxsize=256)
def _record_shapes(
    program: step_program.Program, model: Model, hyper: tuple[str, ...]
) -> dict[str, jax.ShapeDtypeStruct]:
    """The cached part of :attr:`Cohort.record_shapes`: equal programs are traced once."""
    number, word = (jax.ShapeDtypeStruct((), dtype) for dtype in (jnp.float32, jnp.uint32))

    def record(run: step_program.Run, held: step_program.HeldArrays) -> dict[str, Any]:
        state = run_state.init(model, program.optimizer, run)
        last: Any = ()
        if program.last_step:
            last = xla.LastStep(state.params, state.params)
        return xla.observe(program, run, state, last, jnp.int32(0), jnp.int32(0), held)

    held = program.data.abstract()
    return jax.eval_shape(
        record, step_program.Run(word, word, number, dict.fromkeys(hyper, number)), held
    )
