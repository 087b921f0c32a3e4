"""Measure a cohort with a few blocks on this machine: memory per block and steps per second."""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from jthermo.engines import step_program
from jthermo.execution import memory
from jthermo.execution import placement as placing
from jthermo.execution.cohorts import Cohort

# Least duration in seconds of the timed burst of updates.
BURST_SECONDS = 0.5
# Bound on the steps of a burst, for nets so small that a burst would otherwise never end.
BURST_STEPS = 2**20
# Blocks per device in the two programs from which memory is extrapolated linearly. With one block
# XLA would drop the loop over blocks.
SAMPLE = (2, 4)
# If this many times the bytes of the state fit into memory, the cohort is trained at once without
# measuring it. A program holds the state twice and the temporaries of one block per device.
ROOMY = 8


class Line(NamedTuple):
    """Peak memory of a program on one device as a line: fixed + per_block · blocks bytes."""

    fixed: int
    per_block: int


class Measured(NamedTuple):
    """Measurements of a cohort on one device.

    Attributes:
        compile_seconds: time to compile the programs once.
        lines: peak memory of each program.
        rate: lane-steps per second of one device; None if no burst was timed.
        record_seconds: seconds per lane of the first record, which has every observable; None if no
            burst was timed.
    """

    compile_seconds: float
    lines: tuple[Line, ...]
    rate: float | None
    record_seconds: float | None

    def peak(self, blocks: int) -> int:
        """Peak memory in bytes of a device that holds so many blocks at once."""
        return max(line.fixed + line.per_block * blocks for line in self.lines)

    def rounds(self, blocks: int, limit: int | None) -> int:
        """Number of rounds in which a device has to train so many blocks in `limit` bytes."""
        return max(memory.rounds(line.per_block, blocks, limit, line.fixed) for line in self.lines)


def measure(
    cohort: Cohort, place: placing.Placement, blocks: int, *, burst: bool = True
) -> Measured:
    """Compile the programs of a cohort and, with `burst`, time a few of its blocks.

    Args:
        cohort: the runs.
        place: the devices of this machine.
        blocks: number of blocks per device in the sweep. Up to the size of the sample, a program
            for exactly these is compiled. Beyond it memory is extrapolated linearly from the
            sample, since every array has one row per block.
        burst: whether to train a few blocks for about half a second.
    """
    small, large = SAMPLE if blocks > max(SAMPLE) else (max(1, blocks),) * 2
    call = placing.programs(cohort.program, place)
    initializer = placing.initializer(cohort.model, cohort.program.optimizer, place)
    with placing.pinned():
        began = time.monotonic()
        runs, states, clock = _shapes(cohort, place, initializer, large)
        init = initializer.compiled(runs)
        last_step: Any = call.last_step
        last: Any = ()
        if last_step is not None:
            last = jax.eval_shape(last_step, runs, states, clock)
            last_step = last_step.compiled(runs, states, clock)
        observe = call.observe and call.observe.compiled(runs, states, last, clock, clock)
        advance = call.advance.compiled(runs, states, clock, clock, *_marks(call, place, clock))
        spent = time.monotonic() - began
        most = memory.peak(advance.jitted)
        if small == large:
            line = Line(0, -(-most // large))
        else:
            runs, states, clock = _shapes(cohort, place, initializer, small)
            few = call.advance.compiled(runs, states, clock, clock, *_marks(call, place, clock))
            least = memory.peak(few.jitted)
            per_block = max(1, most - least) // (large - small)
            line = Line(max(0, most - per_block * large), per_block)
        lines = [line]
        if observe is not None:
            # The temporaries of a record are those of one block, whatever the number of blocks.
            held = memory.temporary(observe.jitted)
            lines.append(Line(held, -(-(memory.peak(observe.jitted) - held) // large)))
        rate = record = None
        if burst:
            compiled = (init, advance, last_step, observe)
            rate, record = _timed(cohort, place, large, *compiled, call.records)
    return Measured(spent, tuple(lines), rate, record)


def fitting(cohort: Cohort, place: placing.Placement) -> list[Cohort]:
    """Divide a cohort into as few parts as possible that each fit into the devices' memory."""
    limit, count = memory.limit(place.devices), len(place.devices)
    if limit is None or ROOMY * cohort.state_bytes < limit * count:
        # Far below the limit: skip the compilations that measure the need.
        return [cohort]
    blocks = -(-len(cohort.blocks) // count)
    return cohort.split(measure(cohort, place, blocks, burst=False).rounds(blocks, limit))


def _shapes(
    cohort: Cohort, place: placing.Placement, initializer: Any, blocks: int
) -> tuple[Any, Any, Any]:
    """Shapes of runs, states and clock for so many blocks per device."""
    count = blocks * len(place.devices)
    runs = jax.eval_shape(lambda: _placed(cohort, place, count))
    clock = jax.eval_shape(lambda: place.put(np.zeros(count, np.int32)))
    return runs, jax.eval_shape(initializer, runs), clock


def _marks(call: placing.Programs, place: placing.Placement, clock: Any) -> tuple[Any, ...]:
    """The shape of the steps of the records, if the engine takes them itself."""
    if not call.records:
        return ()
    count = math.prod(clock.shape)
    return (jax.eval_shape(lambda: place.put(np.zeros((count, call.records), np.int32))),)


def _timed(
    cohort: Cohort,
    place: placing.Placement,
    blocks: int,
    init: Any,
    advance: Any,
    last_step: Any,
    observe: Any,
    records: int,
) -> tuple[float, float]:
    """Lane-steps per second of one device, and seconds per record of a lane.

    Bursts grow fourfold until one lasts BURST_SECONDS.
    """
    count = blocks * len(place.devices)
    zero, runs = place.put(np.zeros(count, np.int32)), _placed(cohort, place, count)
    states, length, spent = init(runs), 1, 0.0

    def marks(step: int) -> tuple[Any, ...]:
        """Every mark at a step; −1 for none."""
        if not records:
            return ()
        return (place.put(np.full((count, records), step, np.int32)),)

    def trained(states: Any, length: int, mark: int) -> Any:
        """The states after a burst of so many steps."""
        stop = place.put(np.full(count, length, np.int32))
        result = jax.block_until_ready(advance(runs, states, zero, stop, *marks(mark)))
        return result[0] if records else result

    while spent < BURST_SECONDS and length < BURST_STEPS:
        length *= 4
        began = time.monotonic()
        states = trained(states, length, -1)
        spent = time.monotonic() - began
    lanes, recording = blocks * cohort.width, 0.0
    # The first call also loads the program, so the second one counts.
    for _ in range(2):
        began = time.monotonic()
        if records:
            states = trained(states, 0, 0)
            own = (time.monotonic() - began) / records
        began = time.monotonic()
        if observe is not None:
            last = () if last_step is None else last_step(runs, states, zero)
            jax.block_until_ready(observe(runs, states, last, zero, zero))
        recording = time.monotonic() - began + (own if records else 0.0)
    return length * lanes / spent, recording / lanes


def _placed(cohort: Cohort, place: placing.Placement, count: int) -> step_program.Run:
    """The first `count` blocks of the cohort on the devices, repeated if it has fewer."""
    lanes = cohort.blocks[np.arange(count) % len(cohort.blocks)]
    return place.put(jax.tree.map(lambda a: a[lanes], cohort.runs))
