"""Sweep → cohorts → lane blocks, and what it will cost, before anything is trained.

Runs that share static shapes form a cohort and its programs. A cohort's runs are dealt into blocks of W lanes that
share one clock; each device maps over its blocks. W decides rounding, so it follows from the cohort alone, never from
how many runs or devices there are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jthermo import memory, train
from jthermo.errors import InputError
from jthermo.models import Model
from jthermo.spec import Config, Sweep

HEADROOM = 0.9  # of a device's memory; the rest is for the allocator's gaps and the program itself
SMALL = 4096  # parameters × batch size up to which a step is dominated by its overhead: more lanes hide it


@dataclass(frozen=True)
class Cohort:
    """Runs that share a program.

    Attributes:
        program: their static part.
        model: the model with its init.
        width: W, the number of lanes of a block.
        position: (R,) place of each run in the sweep's order.
        runs: their traced numbers, NumPy with leading axis (R,).
        steps: (R, K) recorded steps, padded with −1.
        blocks: (num_blocks, W) which of the R runs is in each lane; lanes left over repeat the block's first run.
        real: (num_blocks, W) False for lanes left over.
    """

    program: train.Program
    model: Model
    width: int
    position: np.ndarray
    runs: train.Run
    steps: np.ndarray
    blocks: np.ndarray
    real: np.ndarray

    @property
    def num_runs(self) -> int:
        """R."""
        return len(self.position)

    @property
    def run_steps(self) -> int:
        """Updates of all runs together."""
        return int(self.steps.max(1).sum())

    @property
    def state_bytes(self) -> int:
        """Bytes of parameters and optimizer state over all lanes."""
        one = jax.eval_shape(lambda r: train.init(self.model, self.program.optimizer, r), self.example)
        return self.blocks.size * sum(math.prod(v.shape) * v.dtype.itemsize for v in jax.tree.leaves(one))

    @property
    def record_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape and dtype of every recorded variable of one run at one record."""

        def record(run: train.Run) -> dict[str, Any]:
            state = train.init(self.model, self.program.optimizer, run)
            return train.observe(self.program, run, state, jnp.int32(0))

        return jax.eval_shape(record, self.example)

    @property
    def record_bytes(self) -> int:
        """Bytes of all records."""
        one = sum(math.prod(v.shape) * v.dtype.itemsize for v in self.record_shapes.values()) + 8
        return self.steps.size * one

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
    def example(self) -> train.Run:
        """One run's numbers."""
        return jax.tree.map(lambda a: a[0], self.runs)


def cohorts(sweep: Sweep, platform: str | None = None) -> list[Cohort]:
    """The sweep's runs in groups that share a program, in the order of the sweep."""
    grouped: dict[tuple[train.Program, Model], list[tuple[int, Config, dict[str, float], int]]] = {}
    position = itertools.count()
    for config, (_, seeds) in sweep.groups.items():
        program, hyper = train.split(config, sweep.record)
        # None and a float of the same field are different programs, since only the float is traced
        members = grouped.setdefault((program, config.model), [])
        members.extend((next(position), config, hyper, seed) for seed in seeds)
    return [
        _cohort(sweep, program, model, members, platform) for (program, model), members in grouped.items()
    ]


def _cohort(
    sweep: Sweep,
    program: train.Program,
    model: Model,
    members: Sequence[tuple[int, Config, dict[str, float], int]],
    platform: str | None,
) -> Cohort:
    position, configs, hypers, seeds = (list(column) for column in zip(*members, strict=True))
    width = sweep.lane_width or lane_width(program, platform or jax.default_backend())
    schedules = {config: sweep.steps_of(config) for config in set(configs)}
    steps = np.full((len(members), max(map(len, schedules.values()))), -1, np.int64)
    by_clock: dict[tuple[int, ...], list[int]] = {}
    for i, config in enumerate(configs):
        steps[i, : len(schedules[config])] = schedules[config]
        by_clock.setdefault(schedules[config], []).append(i)
    # longest first: dealt out in turn, the devices end together
    clocks = sorted(by_clock.values(), key=lambda lanes: -steps[lanes[0]].max())
    blocks = [lanes[i : i + width] for lanes in clocks for i in range(0, len(lanes), width)]
    filled = np.array([lanes + lanes[:1] * (width - len(lanes)) for lanes in blocks])
    real = np.arange(width) < np.array([[len(lanes)] for lanes in blocks])
    streams = [0 if sweep.common_data else c.stream for c in configs]
    runs = train.as_runs(configs, hypers, np.array(seeds), np.array(streams))
    return Cohort(program, model, width, np.array(position), runs, steps, filled, real)


def lane_width(program: train.Program, platform: str) -> int:
    """W by rule: 64 lanes hide the overhead of a small net's step on a CPU, 16 keep a larger one in cache.

    An accelerator fills its units with 256 lanes.
    """
    if platform != "cpu":
        return 256
    size = sum(math.prod(v.shape) for v in jax.tree.leaves(program.model.shapes))
    return 64 if size * program.batch_size <= SMALL else 16


def rounds(block_bytes: int, blocks: int, limit: int | None, fixed_bytes: int = 0) -> int:
    """In how many rounds a device trains its blocks so that each round fits.

    Args:
        block_bytes: what one block adds to the peak of the compiled program.
        blocks: blocks of the device.
        limit: bytes the device has; None where that isn't known, which is taken as enough.
        fixed_bytes: what the program holds however many blocks there are.

    Raises:
        InputError: not even one block fits.

    >>> rounds(block_bytes=1_000, blocks=100, limit=40_000)
    3
    """
    if limit is None or not blocks:
        return 1
    fitting = int(limit * HEADROOM - fixed_bytes) // max(1, block_bytes)
    if fitting < 1:
        need = memory.text(block_bytes + fixed_bytes)
        raise InputError(
            "memory",
            memory.text(limit),
            f"one block of lanes needs {need}; lower lane_width or take a device with more memory",
        )
    return math.ceil(blocks / fitting)
