"""Sweep → cohorts → lane blocks, and what it will cost, before anything is trained.

Runs that share static shapes form a cohort and its programs. A cohort's runs are dealt into blocks of W lanes that
share one clock; each device maps over its blocks. W decides rounding, so it follows from the cohort alone, never from
how many runs or devices there are.
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
from jthermo.execution.lane_width import _width
from jthermo.models import Model
from jthermo.sweep import identity
from jthermo.sweep.run_config import RunConfig
from jthermo.sweep.sweep import Sweep


@dataclass(frozen=True)
class Cohort:
    """Runs that share a program.

    Attributes:
        program: their static part.
        model: the model with its init.
        width: W, the number of lanes of a block.
        key: (R,) what each run is, its seed apart; see :meth:`jthermo.spec.Sweep.key_of`.
        runs: their traced numbers, NumPy with leading axis (R,).
        steps: (R, K) recorded steps, padded with −1.
        blocks: (num_blocks, W) which of the R runs is in each lane; lanes left over repeat the block's first run.
        real: (num_blocks, W) False for lanes left over.
        progress: (R, 2) steps trained and records made before; zero for a run that has not begun.
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
        """R."""
        return len(self.key)

    @functools.cached_property
    def members(self) -> list[tuple[str, int]]:
        """The runs as (key, seed)."""
        return list(zip(self.key.tolist(), self.runs.seed.tolist(), strict=True))

    @property
    def run_steps(self) -> int:
        """Updates that all runs together have before them."""
        return int((self.steps.max(1) - self.progress[:, 0]).sum())

    @functools.cached_property
    def name(self) -> str:
        """Sixteen hex digits of the runs it holds."""
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
        """Shape and dtype of every recorded variable of one run at one record."""
        return _record_shapes(self.program, self.model, tuple(self.runs.hyper))

    @functools.cached_property
    def record_costs(self) -> dict[str, tuple[float, int]]:
        """Of each observable, by its first variable: what a record costs in steps, counted, and n of every n-th record."""
        p = self.program
        made = {}
        for each in p.observables:
            name = next(iter(each.variables(p.model, p.data)))
            made[name] = (
                each.cost(p.model, p.data, p.probe_size, p.loss) / p.batch_size,
                each.period,
            )
        return made

    @property
    def record_bytes(self) -> int:
        """Bytes of all records."""
        one = sum(math.prod(v.shape) * v.dtype.itemsize for v in self.record_shapes.values()) + 8
        return self.steps.size * one

    def split(self, number: int) -> list[Cohort]:
        """The runs in so many cohorts of whole blocks, to be trained one after the other."""
        made = []
        for some in np.array_split(np.arange(len(self.blocks)), min(number, len(self.blocks))):
            blocks, real = self.blocks[some], self.real[some]
            kept, place = np.unique(blocks, return_inverse=True)
            runs = jax.tree.map(lambda a, kept=kept: a[kept], self.runs)
            made.append(
                Cohort(
                    self.program,
                    self.model,
                    self.width,
                    self.key[kept],
                    runs,
                    self.steps[kept],
                    place.reshape(blocks.shape),
                    real,
                    self.progress[kept],
                )
            )
        return made

    def deal(self, num_devices: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Blocks in the order of the devices, dealt out in turn: lanes, real (blocks, W) and steps (blocks, K).

        Blocks added to fill the last deal have no real lane and no step.
        """
        missing = -len(self.blocks) % num_devices
        lanes = np.concatenate([self.blocks, np.repeat(self.blocks[:1], missing, 0)])
        real = np.concatenate([self.real, np.zeros((missing, self.width), bool)])
        steps = np.where(real.any(1, keepdims=True), self.steps[lanes[:, 0]], -1)
        order = np.arange(len(lanes)).reshape(-1, num_devices).T.reshape(-1)
        return lanes[order], real[order], steps[order]

    @property
    def example(self) -> step_program.Run:
        """One run's numbers."""
        return jax.tree.map(lambda a: a[0], self.runs)


# (key, seed) → steps trained and records made
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
    """The sweep's runs in groups that share a program, in the order of the sweep.

    Args:
        sweep: the sweep.
        wanted: which runs, with their progress; None is all of them from the start.
        shard: (I, N): of all lane blocks of the sweep, those whose number is I modulo N.
        platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``; the one JAX runs on where it is None.
        engine: ``"xla"``, ``"fused"`` or ``"pallas"``; see :func:`jthermo.engines.choice.settle`.
        widths: W by key of those configurations that have begun with one; the rule gives it to the others.
    """
    grouped: dict[tuple[step_program.Program, Model, int], list[_Member]] = {}
    # numbered, since a long tuple of steps is slow to compare for every run
    clocks: dict[tuple[int, ...], int] = {}
    for config, group in sweep.groups.items():
        program, hyper = step_program.split(config, sweep.record, engine)
        key, steps = sweep.key_of(config), sweep.steps_of(config)
        width = (widths or {}).get(key) or _width(sweep, program, platform)
        # None and a float of the same field are different programs, since only the float is traced
        members = grouped.setdefault((program, config.model, width), [])
        clock = clocks.setdefault(steps, len(clocks))
        members.extend(_Member(key, config, hyper, seed, steps, clock) for seed in group.seeds)
    made, first = [], 0
    for (program, model, width), members in grouped.items():
        # the blocks of the whole sweep, so that a shard's runs do not depend on what is done already
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
            made.append(_cohort(program, model, mine, np.array(progress), width, sweep.common_data))
    return made


class _Member(NamedTuple):
    """A run before it has a lane."""

    key: str
    config: RunConfig
    hyper: dict[str, float]
    seed: int
    steps: tuple[int, ...]
    clock: int


def _blocks(clocks: Sequence[Any], width: int) -> list[list[int]]:
    """Indices in blocks of at most `width` that share a clock."""
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
    steps = np.full((len(members), max(len(m.steps) for m in members)), -1, np.int64)
    for row, member in zip(steps, members, strict=True):
        row[: len(member.steps)] = member.steps
    left = steps.max(1) - progress[:, 0]
    blocks = _blocks(
        [(m.clock, *p) for m, p in zip(members, progress.tolist(), strict=True)], width
    )
    # longest first: dealt out in turn, the devices end together
    blocks.sort(key=lambda lanes: -left[lanes[0]])
    filled = np.array([lanes + lanes[:1] * (width - len(lanes)) for lanes in blocks])
    real = np.arange(width) < np.array([[len(lanes)] for lanes in blocks])
    configs, seeds = [m.config for m in members], np.array([m.seed for m in members])
    streams = np.array([0 if common_data else c.stream for c in configs])
    runs = step_program.as_runs(configs, [m.hyper for m in members], seeds, streams)
    key = np.array([m.key for m in members])
    return Cohort(program, model, width, key, runs, steps, filled, real, progress)


@functools.lru_cache(maxsize=256)
def _record_shapes(
    program: step_program.Program, model: Model, hyper: tuple[str, ...]
) -> dict[str, jax.ShapeDtypeStruct]:
    """See :attr:`Cohort.record_shapes`; traced once for equal programs."""
    number, word = (jax.ShapeDtypeStruct((), dtype) for dtype in (jnp.float32, jnp.uint32))

    def record(run: step_program.Run, held: step_program.HeldArrays) -> dict[str, Any]:
        state = run_state.init(model, program.optimizer, run)
        return xla.observe(program, run, state, jnp.int32(0), jnp.int32(0), held)

    held = program.data.abstract()
    return jax.eval_shape(
        record, step_program.Run(word, word, number, dict.fromkeys(hyper, number)), held
    )
