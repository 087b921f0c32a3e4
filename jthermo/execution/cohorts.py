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
from jthermo.update_rule.optimizer import Optimizer


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
        one = _state_bytes(self.model, self.program.optimizer, tuple(self.runs.hyper))
        return self.blocks.size * one

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
            costs[name] = (
                observable.cost(p.model, p.data, p.probe_size, p.loss) / p.batch_size,
                observable.period,
            )
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
    grouped: dict[tuple[step_program.Program, Model, int], list[_Member]] = {}
    # Long tuples of steps are slow to compare for every run, so each distinct one gets a number.
    clocks: dict[tuple[int, ...], int] = {}
    for config, group in sweep.groups.items():
        program, hyper = step_program.split(config, sweep.record, engine)
        key, steps = sweep.key_of(config), sweep.steps_of(config)
        width = (widths or {}).get(key) or width_of(sweep, program, platform)
        # A field that is None is static and one that is a float is traced: different programs.
        model = step_program.starting_model(config.model)
        members = grouped.setdefault((program, model, width), [])
        clock = clocks.setdefault(steps, len(clocks))
        members.extend(_Member(key, config, hyper, seed, steps, clock) for seed in group.seeds)
    result, first = [], 0
    for (program, model, width), members in grouped.items():
        # Shards divide the blocks of the whole sweep, so they do not depend on finished runs.
        blocks = _blocks([m.clock for m in members], width)
        mine = [
            members[i]
            for b, block in enumerate(blocks, first)
            if b % shard[1] == shard[0]
            for i in block
        ]
        first += len(blocks)
        if wanted is not None:
            mine = [m for m in mine if (m.key, m.seed) in wanted]
        if mine:
            progress = [(wanted or {}).get((m.key, m.seed), (0, 0)) for m in mine]
            result.append(
                _cohort(program, model, mine, np.array(progress), width, sweep.common_data)
            )
    return result


class _Member(NamedTuple):
    """A run that has not been assigned to a lane yet."""

    key: str
    config: RunConfig
    hyper: dict[str, float]
    seed: int
    steps: tuple[int, ...]
    clock: int


def _blocks(clocks: Sequence[Any], width: int) -> list[list[int]]:
    """Indices of runs in blocks of at most `width` runs with the same clock."""
    by_clock: dict[Any, list[int]] = {}
    for i, clock in enumerate(clocks):
        by_clock.setdefault(clock, []).append(i)
    return [
        lanes[i : i + width] for lanes in by_clock.values() for i in range(0, len(lanes), width)
    ]


def _cohort(
    program: step_program.Program,
    model: Model,
    members: Sequence[_Member],
    progress: np.ndarray,
    width: int,
    common_data: bool,
) -> Cohort:
    """Assign `members` to blocks; runs of a block share the clock and the progress."""
    steps = np.full((len(members), max(len(m.steps) for m in members)), -1, np.int64)
    for row, member in zip(steps, members, strict=True):
        row[: len(member.steps)] = member.steps
    left = steps.max(1) - progress[:, 0]
    blocks = _blocks(
        [(m.clock, *p) for m, p in zip(members, progress.tolist(), strict=True)], width
    )
    # Longest first: assigned in turn, they end at nearly the same time on all devices.
    blocks.sort(key=lambda lanes: -left[lanes[0]])
    filled = np.array([lanes + lanes[:1] * (width - len(lanes)) for lanes in blocks])
    real = np.arange(width) < np.array([[len(lanes)] for lanes in blocks])
    configs, seeds = [m.config for m in members], np.array([m.seed for m in members])
    streams = np.array([c.common_stream if common_data else c.stream for c in configs])
    runs = step_program.as_runs(configs, [m.hyper for m in members], seeds, streams)
    key = np.array([m.key for m in members])
    return Cohort(program, model, width, key, runs, steps, filled, real, progress)


@functools.lru_cache(maxsize=256)
def _state_bytes(model: Model, optimizer: Optimizer, hyper: tuple[str, ...]) -> int:
    """Bytes of the state of one run."""
    one = jax.eval_shape(functools.partial(run_state.init, model, optimizer), _one_run(hyper))
    return sum(math.prod(v.shape) * v.dtype.itemsize for v in jax.tree.leaves(one))


@functools.lru_cache(maxsize=256)
def _record_shapes(
    program: step_program.Program, model: Model, hyper: tuple[str, ...]
) -> dict[str, jax.ShapeDtypeStruct]:
    """The cached part of :attr:`Cohort.record_shapes`: equal programs are traced once."""

    def record(run: step_program.Run, held: step_program.HeldArrays) -> dict[str, Any]:
        state = run_state.init(model, program.optimizer, run)
        return xla.observe(program, run, state, jnp.int32(0), jnp.int32(0), held)

    return jax.eval_shape(record, _one_run(hyper), program.data.abstract())


def _one_run(hyper: tuple[str, ...]) -> step_program.Run:
    """The shapes of the traced numbers of one run."""
    number, word = (jax.ShapeDtypeStruct((), dtype) for dtype in (jnp.float32, jnp.uint32))
    return step_program.Run(word, word, number, dict.fromkeys(hyper, number))
