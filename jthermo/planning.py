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

from jthermo import memory, train, values
from jthermo.data.held import Held
from jthermo.errors import InputError
from jthermo.models import CNN, Model
from jthermo.observables import counting
from jthermo.spec import Config, Sweep

KEPT = 2  # checkpoints that a cohort keeps, each verified
HEADROOM = 0.9  # of a device's memory; the rest is for the allocator's gaps and the program itself
SMALL = 4096  # parameters × batch size up to which a step is dominated by its overhead: more lanes hide it
THREADS = 2048  # that a multiprocessor of a GPU keeps at once
MULTIPROCESSORS = 132  # of an NVIDIA H100, for plans where no GPU is at hand
GPU_LANES = (4, 4096)  # fewest and most of a block by XLA on a GPU
PROGRAMS = (
    32  # of the Pallas kernel per block: a part of a GPU, since all blocks are one launch and few are full
)


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

    program: train.Program
    model: Model
    width: int
    key: np.ndarray
    runs: train.Run
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
        return values.digest([self.key.tolist(), self.runs.seed.tolist()])[:16]

    @property
    def state_bytes(self) -> int:
        """Bytes of parameters and optimizer state over all lanes."""
        one = jax.eval_shape(lambda r: train.init(self.model, self.program.optimizer, r), self.example)
        return self.blocks.size * sum(math.prod(v.shape) * v.dtype.itemsize for v in jax.tree.leaves(one))

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
    def example(self) -> train.Run:
        """One run's numbers."""
        return jax.tree.map(lambda a: a[0], self.runs)


Runs = Mapping[tuple[str, int], tuple[int, int]]  # (key, seed) → steps trained and records made


def cohorts(
    sweep: Sweep,
    wanted: Runs | None = None,
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
        engine: ``"xla"``, ``"fused"`` or ``"pallas"``; see :func:`jthermo.engines.settle`.
        widths: W by key of those configurations that have begun with one; the rule gives it to the others.
    """
    grouped: dict[tuple[train.Program, Model, int], list[_Member]] = {}
    clocks: dict[
        tuple[int, ...], int
    ] = {}  # numbered, since a long tuple of steps is slow to compare for every run
    for config, (_, seeds) in sweep.groups.items():
        program, hyper = train.split(config, sweep.record, engine)
        key, steps = sweep.key_of(config), sweep.steps_of(config)
        width = (widths or {}).get(key) or _width(sweep, program, platform)
        # None and a float of the same field are different programs, since only the float is traced
        members = grouped.setdefault((program, config.model, width), [])
        clock = clocks.setdefault(steps, len(clocks))
        members.extend(_Member(key, config, hyper, seed, steps, clock) for seed in seeds)
    made, first = [], 0
    for (program, model, width), members in grouped.items():
        # the blocks of the whole sweep, so that a shard's runs do not depend on what is done already
        blocks = _blocks([m.clock for m in members], width)
        mine = [
            members[i] for b, block in enumerate(blocks, first) if b % shard[1] == shard[0] for i in block
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
    config: Config
    hyper: dict[str, float]
    seed: int
    steps: tuple[int, ...]
    clock: int


def _blocks(clocks: Sequence[Any], width: int) -> list[list[int]]:
    """Indices in blocks of at most `width` that share a clock."""
    by_clock: dict[Any, list[int]] = {}
    for i, clock in enumerate(clocks):
        by_clock.setdefault(clock, []).append(i)
    return [lanes[i : i + width] for lanes in by_clock.values() for i in range(0, len(lanes), width)]


def _cohort(
    program: train.Program,
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
    blocks = _blocks([(m.clock, *p) for m, p in zip(members, progress.tolist(), strict=True)], width)
    blocks.sort(
        key=lambda lanes: -left[lanes[0]]
    )  # longest first: dealt out in turn, the devices end together
    filled = np.array([lanes + lanes[:1] * (width - len(lanes)) for lanes in blocks])
    real = np.arange(width) < np.array([[len(lanes)] for lanes in blocks])
    configs, seeds = [m.config for m in members], np.array([m.seed for m in members])
    streams = np.array([0 if common_data else c.stream for c in configs])
    runs = train.as_runs(configs, [m.hyper for m in members], seeds, streams)
    key = np.array([m.key for m in members])
    return Cohort(program, model, width, key, runs, steps, filled, real, progress)


def widths(sweep: Sweep, engine: str) -> dict[str, int]:
    """W of every configuration, by its key, as the sweep begins on this machine."""
    programs = {sweep.key_of(c): train.split(c, sweep.record, engine)[0] for c in sweep.groups}
    return {key: _width(sweep, program) for key, program in programs.items()}


def _width(sweep: Sweep, program: train.Program, platform: str | None = None) -> int:
    return sweep.lane_width or lane_width(program, platform or jax.default_backend())


def lane_width(program: train.Program, platform: str) -> int:
    """W by rule: on a CPU 32 lanes hide the overhead of a small net's step; of larger nets a block stays in a core's cache.

    On a GPU by XLA a block has as many lanes as give every thread one number of the widest array of a step, a power of two
    from 4 to 4096: a step costs several launches however narrow it is, and past that width time grows with the lanes. The Pallas
    kernel takes 32 of its programs. Neither has been measured. Another accelerator takes 256.
    A processor's time per run-step by XLA at B = 1, of the 10-10-1 net: 272 ns for W = 8, 213 for 16, 190 for 32, 176 for
    64, which leaves a core without work up to 64 runs; of the 10-316-1 net 2.4 µs for 8 to 32; of the 100-100-1 net 2.5
    for 4, 3.6 for 16; of the 6-layer net of 50,601 parameters 21 for 4, 31 for 8, 36 for 16, 42 for 32, and at B = 16 103,
    116, 128 for 4, 8, 16. The fused kernel takes 16 at once. A net
    with convolutions takes one, since a single run fills the cache: see :func:`convolution_rule`.
    """
    size = sum(math.prod(v.shape) for v in jax.tree.leaves(program.model.shapes))
    small = size * program.batch_size <= SMALL
    if platform == "gpu":
        return _gpu_lanes(program)
    if platform != "cpu":
        return 256
    if convolution_rule(program.model):
        return 1
    if small:
        return 32
    return 16 if size <= SMALL or program.engine == "fused" else 4


def _gpu_lanes(program: train.Program) -> int:
    """W on a GPU; see :func:`lane_width`."""
    if program.engine == "pallas":
        from jthermo.kernels import pallas
        from jthermo.kernels.net import net_of

        net = net_of(program.model)
        assert net is not None
        return PROGRAMS * pallas.shape(net, program.batch_size).runs
    count = MULTIPROCESSORS
    if jax.default_backend() == "gpu":
        count = getattr(jax.devices()[0], "core_count", MULTIPROCESSORS)
    lanes = count * THREADS / _widest(program.model, program.batch_size)
    return min(GPU_LANES[1], max(GPU_LANES[0], 1 << max(0, round(math.log2(lanes)))))


@functools.lru_cache(maxsize=256)
def _widest(model: Model, batch_size: int) -> int:
    """Elements of the largest array of a model's forward pass, parameters included."""
    x = jax.ShapeDtypeStruct((batch_size, *model.input_shape), jnp.float32)
    forward = jax.make_jaxpr(model.apply)(model.shapes, x)
    return max(counting.largest(forward.jaxpr), *(math.prod(v.shape) for v in jax.tree.leaves(model.shapes)))


@functools.lru_cache(maxsize=256)
def _record_shapes(
    program: train.Program, model: Model, hyper: tuple[str, ...]
) -> dict[str, jax.ShapeDtypeStruct]:
    """See :attr:`Cohort.record_shapes`; traced once for equal programs."""
    number, word = (jax.ShapeDtypeStruct((), dtype) for dtype in (jnp.float32, jnp.uint32))

    def record(run: train.Run, held: train.HeldArrays) -> dict[str, Any]:
        state = train.init(model, program.optimizer, run)
        return train.observe(program, run, state, jnp.int32(0), jnp.int32(0), held)

    held = program.data.abstract() if isinstance(program.data, Held) else {}
    return jax.eval_shape(record, train.Run(word, word, number, dict.fromkeys(hyper, number)), held)


@functools.lru_cache(maxsize=256)
def convolution_rule(model: Model) -> str | None:
    """How the lanes of a net with convolutions are vectorised, in words; None for other nets.

    Measured once, a processor's time per run-step of the 6-layer CNN: with patches and matrix products ("im2col") 0.80 ms
    for W = 1 and 1.30 for W = 4 at B = 1, 7.9 and 11.5 ms at B = 8; with XLA's convolution, which several lanes turn into
    a grouped one, 9.0 ms for W = 1 and 10.8 for W = 4 at B = 1. So :class:`jthermo.models.CNN` takes patches; a user's
    flax ``Conv`` is what it is. One lane also needs a quarter of the memory of four, and no block is left half empty.
    """
    if isinstance(model, CNN):
        return "im2col and matrix products, on a CPU one run at a time: ten times as fast as XLA's convolution in a loop"
    x = jax.ShapeDtypeStruct((2, *model.input_shape), jnp.float32)
    forward = jax.make_jaxpr(model.apply)(model.shapes, x).jaxpr
    if "conv_general_dilated" in counting.primitives(forward):
        return "XLA's convolution as the flax module has it, on a CPU one run at a time; jt.models.CNN is faster there"
    return None


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
