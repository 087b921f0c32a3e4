"""What a cohort's programs need, measured on the devices at hand with a few blocks: memory a block, seconds a step."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import jax
import numpy as np

from jthermo.engines import step_program
from jthermo.execution import memory
from jthermo.execution import placement as placing
from jthermo.execution.cohorts import Cohort

BURST_SECONDS = 0.5
# blocks a device in the programs that stand for longer ones; with one block XLA drops the loop
SAMPLE = (2, 4)

# times the state; a program holds it twice, besides the temporaries of a block on each device
ROOMY = 8


class Line(NamedTuple):
    """Peak bytes of a program on one device, as a straight line in the blocks it holds."""

    fixed: int
    each: int


class Measured(NamedTuple):
    """A cohort on one device.

    Attributes:
        compile_seconds: to compile its programs once.
        lines: peak memory of its programs.
        rate: lane-steps a second of one device; None where no burst was timed.
        record_seconds: of one device for the first record of a lane, at which every observable is due; None likewise.
    """

    compile_seconds: float
    lines: tuple[Line, ...]
    rate: float | None
    record_seconds: float | None

    def peak(self, blocks: int) -> int:
        """Peak bytes of a device that holds so many blocks at once."""
        return max(line.fixed + line.each * blocks for line in self.lines)

    def rounds(self, blocks: int, limit: int | None) -> int:
        """In how many rounds so many blocks of a device are trained so that each fits into `limit` bytes."""
        return max(memory.rounds(line.each, blocks, limit, line.fixed) for line in self.lines)


def measure(
    cohort: Cohort, place: placing.Placement, blocks: int, *, burst: bool = True
) -> Measured:
    """Compile a cohort's programs without placing its runs, and time a burst of updates.

    Args:
        cohort: the runs.
        place: the devices at hand.
        blocks: blocks each device will hold; up to the sample's size they are compiled as they are, beyond it
            memory is a straight line through the sample, since every array has one row a block.
        burst: whether to train a few blocks for about half a second.
    """
    small, large = SAMPLE if blocks > max(SAMPLE) else (max(1, blocks),) * 2
    call = placing.programs(cohort.program, place)
    initializer = placing.initializer(cohort.model, cohort.program.optimizer, place)
    with placing.pinned():
        began = time.monotonic()
        runs, states, clock = _shapes(cohort, place, initializer, large)
        init = initializer.compiled(runs)
        observe = call.observe.compiled(runs, states, clock, clock)
        advance = call.advance.compiled(runs, states, clock, clock)
        spent = time.monotonic() - began
        most = memory.peak(advance.jitted)
        if small == large:
            line = Line(0, -(-most // large))
        else:
            runs, states, clock = _shapes(cohort, place, initializer, small)
            least = memory.peak(call.advance.compiled(runs, states, clock, clock).jitted)
            each = max(1, most - least) // (large - small)
            line = Line(max(0, most - each * large), each)
        # one block's, whatever their number
        held = memory.temporary(observe.jitted)
        watching = Line(held, -(-(memory.peak(observe.jitted) - held) // large))
        timed = _timed(cohort, place, large, init, advance, observe) if burst else (None, None)
    return Measured(spent, (line, watching), *timed)


def fitting(cohort: Cohort, place: placing.Placement) -> list[Cohort]:
    """The cohort in as many parts as its memory asks for, each of which fits the devices."""
    limit, count = memory.limit(place.devices), len(place.devices)
    if limit is None or ROOMY * cohort.state_bytes < limit * count:
        # far from the limit: not worth the compilations that measure it
        return [cohort]
    blocks = -(-len(cohort.blocks) // count)
    return cohort.split(measure(cohort, place, blocks, burst=False).rounds(blocks, limit))


def _shapes(
    cohort: Cohort, place: placing.Placement, initializer: Any, blocks: int
) -> tuple[Any, Any, Any]:
    """Runs, states and clock of so many blocks a device, without their bytes."""
    count = blocks * len(place.devices)
    runs = jax.eval_shape(lambda: _placed(cohort, place, count))
    clock = jax.eval_shape(lambda: place.put(np.zeros(count, np.int32)))
    return runs, jax.eval_shape(initializer, runs), clock


def _timed(
    cohort: Cohort, place: placing.Placement, blocks: int, init: Any, advance: Any, observe: Any
) -> tuple[float, float]:
    """Lane-steps a second of one device, over bursts that grow until one is long enough; seconds of a lane's record."""
    count = blocks * len(place.devices)
    zero, runs = np.zeros(count, np.int32), _placed(cohort, place, count)
    states, length, spent = init(runs), 1, 0.0
    while spent < BURST_SECONDS and length < 2**20:
        length *= 4
        began = time.monotonic()
        states = jax.block_until_ready(
            advance(runs, states, place.put(zero), place.put(zero + np.int32(length)))
        )
        spent = time.monotonic() - began
    lanes, watched = blocks * cohort.width, 0.0
    # the first call also loads the program
    for _ in range(2):
        began = time.monotonic()
        jax.block_until_ready(observe(runs, states, place.put(zero), place.put(zero)))
        watched = time.monotonic() - began
    return length * lanes / spent, watched / lanes


def _placed(cohort: Cohort, place: placing.Placement, count: int) -> step_program.Run:
    """So many blocks of the cohort on the devices, repeated where it has fewer."""
    lanes = cohort.blocks[np.arange(count) % len(cohort.blocks)]
    return place.put(jax.tree.map(lambda a: a[lanes], cohort.runs))
