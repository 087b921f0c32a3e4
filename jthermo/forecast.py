"""What a sweep will cost, before it is run: programs, lanes, memory from the compiled programs, measured seconds, disk."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jthermo import placement as placing
from jthermo.errors import InputError
from jthermo.planning import Cohort, cohorts
from jthermo.spec import Sweep

BURST_SECONDS = 0.5


@dataclass(frozen=True)
class Plan:
    """The forecast of a sweep.

    Attributes:
        num_runs: runs of the grid.
        num_programs: compiled programs of the update; runs that share static shapes share one.
        lane_width: W of each program.
        num_lanes: lanes trained, those left over in the last block of each clock included.
        run_steps: updates of all runs together.
        peak_memory_bytes: of the largest cohort over all devices, from its compiled programs.
        compile_seconds: measured while planning; None where nothing was compiled.
        seconds: forecast of the training alone, from a burst of about half a second a program.
        disk_bytes: records, uncompressed.
        num_devices: devices the forecast is for.
    """

    num_runs: int
    num_programs: int
    lane_width: tuple[int, ...]
    num_lanes: int
    run_steps: int
    peak_memory_bytes: int | None
    compile_seconds: float | None
    seconds: float | None
    disk_bytes: int
    num_devices: int

    def __str__(self) -> str:
        rows = [
            ("runs", f"{self.num_runs:,} in {self.num_lanes:,} lanes on {self.num_devices} devices"),
            (
                "programs",
                f"{self.num_programs}, lane width {', '.join(map(str, sorted(set(self.lane_width))))}",
            ),
            ("run-steps", f"{self.run_steps:,}"),
            ("disk", _bytes(self.disk_bytes)),
        ]
        if (
            self.seconds is not None
            and self.compile_seconds is not None
            and self.peak_memory_bytes is not None
        ):
            rows += [
                ("peak memory", _bytes(self.peak_memory_bytes)),
                ("time", f"{self.seconds:.3g} s of training, {self.compile_seconds:.3g} s of compilation"),
            ]
        return "\n".join(f"{name:<12} {text}" for name, text in rows)


def plan(sweep: Sweep, *, measure: bool = True, placement: str = "sharding") -> Plan:
    """Forecast a sweep: its programs, lanes, memory, seconds and disk.

    Args:
        sweep: what would be run.
        measure: compile each program and time a burst of it; False counts only.
        placement: ``"sharding"`` or ``"pmap"``.

    >>> import jthermo as jt
    >>> sweep = jt.Sweep(model=jt.models.TwoLayer(inputs=2, hidden=2), data=jt.data.Gaussian(dim=2), learning_rate=0.1,
    ...                  batch_size=(1, 2), num_steps=10, record=jt.Record(steps=jt.every(5), observables=jt.loss()))
    >>> jt.plan(sweep, measure=False).num_programs
    2
    """
    if not isinstance(sweep, Sweep):
        raise InputError("sweep", sweep, "give a jt.Sweep")
    place = placing.Placement(placement, placing.devices())
    groups = cohorts(sweep)
    measured = [_measure(cohort, place) for cohort in groups] if measure else []
    return Plan(
        num_runs=sweep.num_runs,
        num_programs=len({c.program for c in groups}),
        lane_width=tuple(c.width for c in groups),
        num_lanes=sum(c.blocks.size for c in groups),
        run_steps=sum(c.run_steps for c in groups),
        peak_memory_bytes=max((m[0] for m in measured), default=None),
        compile_seconds=sum(m[1] for m in measured) if measured else None,
        seconds=sum(m[2] for m in measured) if measured else None,
        disk_bytes=sum(c.record_bytes for c in groups),
        num_devices=len(place.devices),
    )


def _measure(cohort: Cohort, place: placing.Placement) -> tuple[int, float, float]:
    """Peak bytes over all devices, seconds to compile and forecast seconds to train a cohort."""
    lanes, _, steps = cohort.deal(len(place.devices))
    call = placing.programs(cohort.program, place)
    zero = np.zeros(len(lanes), np.int32)
    with placing.pinned():
        began = time.monotonic()
        runs = place.put(jax.tree.map(lambda a: a[lanes], cohort.runs))
        states = placing.initializer(cohort.model, cohort.program.optimizer, place)(runs)
        compiled = [
            f.lower(*args).compile()
            for f, args in (
                (call.advance, (runs, states, place.put(zero), place.put(zero))),
                (call.observe, (runs, states, place.put(zero), place.put(zero))),
            )
        ]
        compiling = time.monotonic() - began
        pace, length, spent = compiled[0], 1, 0.0
        while spent < BURST_SECONDS and length < 2**20:
            length *= 4
            began = time.monotonic()
            states = jax.block_until_ready(
                pace(runs, states, place.put(zero), place.put(zero + np.int32(length)), call.advance.held)
            )
            spent = time.monotonic() - began
    # every block took `length` steps in the burst; a device's time is the sum over its blocks
    per_device = steps.max(1).clip(0).reshape(len(place.devices), -1).sum(1).max()
    blocks = len(lanes) // len(place.devices)
    peak = max(_peak(c) for c in compiled) * len(place.devices)
    return peak, compiling, float(spent / (length * blocks) * per_device)


def _peak(compiled: Any) -> int:
    """Bytes a compiled program holds at once on one device."""
    made = compiled.memory_analysis()
    return (
        made.argument_size_in_bytes
        + made.output_size_in_bytes
        + made.temp_size_in_bytes
        - made.alias_size_in_bytes
    )


def _bytes(count: int) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000  # type: ignore[assignment]
    return f"{count:.3g} TB"
