"""``jt.plan``: forecast programs, memory, time and disk of a sweep, here or on another machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jthermo.engines import choice as engines
from jthermo.engines import step_program
from jthermo.errors import InputError, finite_number, flag, one_of, whole_number
from jthermo.execution import cohorts, lane_width, memory
from jthermo.execution import placement as placing
from jthermo.execution.checkpoint_policy import CheckpointPolicy
from jthermo.execution.cohorts import Cohort
from jthermo.execution.timing import Measured, measure
from jthermo.sweep.sweep import Sweep, pinned_to_sweep

PLATFORMS = ("cpu", "gpu", "tpu")
# Files of one checkpoint: the archive, its SHA-256 and three that Orbax writes.
CHECKPOINT_FILES = 5
# Files that every results folder has once: sweep.json, its copy and the manifest.
FOLDER_FILES = 3


@dataclass(frozen=True)
class Plan:
    """The forecast of a sweep; ``print`` shows it as a table.

    Attributes:
        num_runs: number of runs.
        num_programs: number of compiled programs of the update; runs with the same static shapes
            share one.
        lane_width: W of each program.
        num_lanes: lanes that are trained, including surplus lanes in blocks that are not full.
        run_steps: updates, summed over runs.
        num_devices: devices of the machine.
        num_hosts: hosts of the machine.
        busy: share of the devices' time in which they have a block to train.
        rate: lane-steps per second of one device, measured or stated; None without either.
        seconds: time of training, without records; None if `rate` is.
        record_seconds: time of the records; None if `seconds` is.
        record_costs: cost of one record of each observable, keyed by its first variable, in
            training steps; mean over all records, including those that a sparse observable skips.
        timed: whether `record_costs` are scaled to the measured time of all observables together;
            else they are counted arithmetic.
        left_to_xla: variables that XLA measures because the fused engine, which trains, can't.
        record_share: share of records in the time of training and records.
        convolutions: how the convolutions of the nets are computed.
        compile_seconds: time of compilation, measured; None if nothing was compiled.
        state_bytes: parameters and optimizer state of the largest cohort on one device.
        device_bytes: peak memory of one device, from the compiled programs of the largest cohort;
            None if nothing was compiled.
        limit_bytes: memory of one device; None if unknown.
        rounds: number of rounds in which the largest cohort is trained so that each fits into
            memory; 1 if the limit is unknown.
        disk_bytes: the records, uncompressed.
        checkpoint_bytes: the last checkpoint of one host: parameters, optimizer state and records.
        checkpoint_every: seconds between two checkpoints.
        num_files: files of records and checkpoints, of all hosts.
    """

    num_runs: int
    num_programs: int
    lane_width: tuple[int, ...]
    num_lanes: int
    run_steps: int
    num_devices: int
    num_hosts: int
    busy: float
    rate: float | None
    seconds: float | None
    record_seconds: float | None
    record_costs: dict[str, float]
    timed: bool
    left_to_xla: tuple[str, ...]
    record_share: float
    convolutions: tuple[str, ...]
    compile_seconds: float | None
    state_bytes: int
    device_bytes: int | None
    limit_bytes: int | None
    rounds: int
    disk_bytes: int
    checkpoint_bytes: int
    checkpoint_every: float
    num_files: int

    @property
    def peak_memory_bytes(self) -> int | None:
        """Peak memory of all devices together, if the largest cohort is trained in one round."""
        return None if self.device_bytes is None else self.device_bytes * self.num_devices

    @property
    def checkpoint_rate(self) -> float:
        """Bytes per second that one host writes, averaged from one checkpoint to the next."""
        return self.checkpoint_bytes / self.checkpoint_every

    @property
    def total_seconds(self) -> float | None:
        """Time of training and records; None if it is unknown."""
        if self.seconds is None or self.record_seconds is None:
            return None
        return self.seconds + self.record_seconds

    def __str__(self) -> str:
        several = self.num_hosts > 1
        hosts = f" of {self.num_hosts} hosts" if several else ""
        widths = ", ".join(map(str, sorted(set(self.lane_width))))
        share = f", {memory.text(self.disk_bytes / self.num_hosts)} per host" if several else ""
        rows = [
            (
                "runs",
                f"{self.num_runs:,} in {self.num_lanes:,} lanes "
                f"on {self.num_devices} devices{hosts}",
            ),
            ("programs", f"{self.num_programs}, lane width {widths}"),
            ("run-steps", f"{self.run_steps:,}; devices busy {self.busy:.0%} of the time"),
            *(("convolutions", sentence) for sentence in self.convolutions),
            ("observables", self._observables_text()),
            *([("time", self._time_text())] if self.total_seconds is not None else []),
            ("memory", self._memory_text()),
            ("records", memory.text(self.disk_bytes) + share),
            ("checkpoints", self._checkpoints_text()),
            ("files", f"about {self.num_files:,}"),
        ]
        return "\n".join(f"{name:<12} {text}" for name, text in rows)

    def _observables_text(self) -> str:
        by_cost = sorted(self.record_costs.items(), key=lambda item: -item[1])
        costs = ", ".join(f"{name} {steps:.2g}" for name, steps in by_cost)
        how = "measured together" if self.timed else "counted arithmetic, not measured"
        text = f"{costs} steps per record; {self.record_share:.0%} of the time ({how})"
        if self.left_to_xla:
            text += f"; measured by XLA, not by the fused engine: {', '.join(self.left_to_xla)}"
        return text

    def _time_text(self) -> str:
        total, training, recording = (
            duration(seconds or 0.0)
            for seconds in (self.total_seconds, self.seconds, self.record_seconds)
        )
        text = (
            f"{total}: {training} of training at {self.rate:.3g} lane-steps/s per device, "
            f"{recording} of records"
        )
        if self.compile_seconds is not None:
            text += f", {self.compile_seconds:.3g} s of compilation"
        return text

    def _memory_text(self) -> str:
        if self.device_bytes is None:
            state = memory.text(self.state_bytes)
            return f"at least {state} per device for parameters and optimizer"
        need = memory.text(self.device_bytes)
        if self.limit_bytes is None:
            return f"{need} per device"
        limit = memory.text(self.limit_bytes)
        if self.rounds > 1:
            return f"{need} per device, which has {limit}: trained in {self.rounds} rounds"
        return f"{need} of {limit} per device"

    def _checkpoints_text(self) -> str:
        size, every = memory.text(self.checkpoint_bytes), f"{self.checkpoint_every:g} s"
        host = " per host" if self.num_hosts > 1 else ""
        if self.total_seconds is not None and self.total_seconds < self.checkpoint_every:
            return f"{size}{host}, once, since training takes less than {every}"
        text = f"{size}{host} every {every}: {memory.text(self.checkpoint_rate)}/s{host}"
        if host:
            text += f", {memory.text(self.checkpoint_rate * self.num_hosts)}/s together"
        return text


@pinned_to_sweep
def plan(
    sweep: Sweep,
    *,
    measure: bool = True,
    placement: str = "sharding",
    engine: str = "auto",
    devices: int | None = None,
    hosts: int = 1,
    rate: float | None = None,
    memory: float | None = None,
    platform: str | None = None,
    checkpoint_every: float = CheckpointPolicy.seconds,
) -> Plan:
    """Forecast programs, lanes, memory, time and disk of a sweep, on this machine or another one.

    Args:
        sweep: the sweep.
        measure: compile each program and, if `rate` is not stated, time a burst of it; False only
            counts.
        placement: ``"sharding"`` or ``"pmap"``.
        engine: the engine to measure; see :func:`jthermo.run`.
        devices: number of devices of the machine; None means the devices of this one.
        hosts: number of hosts, each with the same number of devices.
        rate: lane-steps per second of one device of another machine; None measures it here.
        memory: bytes of one device of another machine; None asks the devices of this one.
        platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``, which decides W; None means this machine's.
        checkpoint_every: seconds between two checkpoints.

    Returns:
        The forecast. ``print`` shows it as a table.

    Raises:
        InputError: a bad argument, or a device that cannot hold a single block of runs.

    >>> import jthermo as jt
    >>> sweep = jt.Sweep(
    ...     model=jt.models.TwoLayer(inputs=2, hidden=2),
    ...     data=jt.data.Gaussian(dim=2),
    ...     learning_rate=0.1,
    ...     batch_size=(1, 2),
    ...     num_steps=10,
    ...     record=jt.Record(steps=jt.every(5), observables=jt.loss()),
    ... )
    >>> jt.plan(sweep, measure=False).num_programs
    2
    >>> forecast = jt.plan(sweep, measure=False, devices=2, rate=10.0)
    >>> forecast.seconds  # one block of 32 lanes per batch size, one after the other
    64.0
    >>> sorted(forecast.record_costs)
    ['loss']
    """
    measure = flag("measure", measure)
    engines.check(engine)
    if platform is not None:
        one_of("platform", platform, PLATFORMS)
    machine = _machine(placement, devices, hosts, rate)
    interval = finite_number("checkpoint_every", checkpoint_every, above=0)
    trainer = _engine(sweep, engine) if measure else "xla"
    groups = cohorts.cohorts(sweep, platform=platform, engine=trainer)
    loads = [_load(cohort, machine, measure) for cohort in groups]
    time = _time(loads, machine)
    limit = _limit(memory, machine.here, devices)
    measured = [(load.measured, load.blocks) for load in loads if load.measured is not None]
    state_bytes = sum(cohort.state_bytes for cohort in groups)
    record_bytes = sum(cohort.record_bytes for cohort in groups)
    notes = (lane_width.convolution_rule(cohort.program.model) for cohort in groups)
    return Plan(
        num_runs=sweep.num_runs,
        num_programs=len({cohort.program for cohort in groups}),
        lane_width=tuple(cohort.width for cohort in groups),
        num_lanes=sum(cohort.blocks.size for cohort in groups),
        run_steps=sum(cohort.run_steps for cohort in groups),
        num_devices=machine.num_devices,
        num_hosts=machine.num_hosts,
        busy=time.busy,
        rate=time.rate,
        seconds=time.training,
        record_seconds=time.recording,
        record_costs=_mean_costs(loads),
        timed=all(load.timed for load in loads),
        left_to_xla=engines.left_to_xla(step_program.programs(sweep), trainer),
        record_share=time.record_share,
        convolutions=tuple(dict.fromkeys(note for note in notes if note)),
        compile_seconds=sum(m.compile_seconds for m, _ in measured) if measure else None,
        state_bytes=max(load.state_bytes for load in loads),
        device_bytes=max((m.peak(blocks) for m, blocks in measured), default=None),
        limit_bytes=limit,
        rounds=max((m.rounds(blocks, limit) for m, blocks in measured), default=1),
        disk_bytes=record_bytes,
        checkpoint_bytes=math.ceil((state_bytes + record_bytes) / machine.num_hosts),
        checkpoint_every=interval,
        num_files=_num_files(len(groups), machine.num_hosts),
    )


class _Machine(NamedTuple):
    """The machine of the forecast, and the devices of this one, which measure.

    `rate` is the stated number of lane-steps per second of one device, or None.
    """

    here: placing.Placement
    num_devices: int
    num_hosts: int
    rate: float | None


def _machine(placement: str, devices: int | None, hosts: int, rate: float | None) -> _Machine:
    """The machine, from the arguments of :func:`plan`, checked."""
    if rate is not None:
        rate = finite_number("rate", rate, above=0)
    hosts = whole_number("hosts", hosts)
    here = placing.Placement(placement, placing.devices())
    count = len(here.devices) if devices is None else whole_number("devices", devices)
    if count % hosts:
        raise InputError("hosts", hosts, f"give a number that divides the {count} devices")
    return _Machine(here, count, hosts, rate)


def _engine(sweep: Sweep, engine: str) -> str:
    """The engine that would train the sweep on this machine."""
    return engines.settle(engine, None, step_program.programs(sweep), lambda _: None)


def _limit(stated: float | None, here: placing.Placement, devices: int | None) -> int | None:
    """Memory of one device: stated, or this machine's if the forecast is for this machine."""
    if stated is not None:
        return int(finite_number("memory", stated, above=0))
    return memory.limit(here.devices) if devices is None else None


class _Load(NamedTuple):
    """What a cohort demands of the machine.

    Attributes:
        cohort: the cohort.
        measured: its measurements on this machine; None if it was only counted.
        rate: lane-steps per second of one device, measured or stated; None without either.
        blocks: blocks on the fullest device.
        longest: lane-steps of training on the busiest device.
        total: lane-steps of training on all devices.
        records: cost of all records of each observable, per block, in lane-steps.
        longest_records: lane-steps that the records of the busiest device cost.
    """

    cohort: Cohort
    measured: Measured | None
    rate: float | None
    blocks: int
    longest: float
    total: float
    records: dict[str, np.ndarray]
    longest_records: float

    @property
    def timed(self) -> bool:
        """Whether the time of a record was measured."""
        return self.measured is not None and self.measured.record_seconds is not None

    @property
    def state_bytes(self) -> int:
        """Parameters and optimizer state on the fullest device, in bytes."""
        return self.cohort.state_bytes // len(self.cohort.blocks) * self.blocks


def _load(cohort: Cohort, machine: _Machine, measured: bool) -> _Load:
    """Divide a cohort among the devices of the machine; compile and time it if `measured`."""
    count = machine.num_devices
    blocks = math.ceil(len(cohort.blocks) / count)
    timing = measure(cohort, machine.here, blocks, burst=machine.rate is None) if measured else None
    longest, total = _dealt(cohort.steps[cohort.blocks[:, 0]].max(1) * cohort.width, count)
    records = _record_steps(cohort, timing)
    return _Load(
        cohort,
        timing,
        timing.rate if timing is not None and timing.rate else machine.rate,
        blocks,
        longest,
        total,
        records,
        _dealt(sum(records.values(), np.zeros(1)), count)[0],
    )


def _dealt(steps: np.ndarray, count: int) -> tuple[float, float]:
    """Lane-steps on the busiest of `count` devices and on all, from lane-steps per block."""
    return max(
        steps[i::count].sum().item() for i in range(min(count, len(steps)))
    ), steps.sum().item()


def _num_records(cohort: Cohort) -> np.ndarray:
    """The number of records of each block."""
    return (cohort.steps[cohort.blocks[:, 0]] >= 0).sum(1)


def _record_steps(cohort: Cohort, timing: Measured | None) -> dict[str, np.ndarray]:
    """Lane-steps that all records of each observable cost, per block.

    Counted arithmetic, scaled so that all observables together take the measured time, if there is
    one.
    """
    costs, scale = cohort.record_costs, 1.0
    counted = sum(cost for cost, _ in costs.values())
    if timing is not None and timing.rate and timing.record_seconds and counted:
        scale = timing.record_seconds * timing.rate / counted
    records = _num_records(cohort)
    return {
        name: scale * cost * cohort.width * np.ceil(records / n)
        for name, (cost, n) in costs.items()
    }


def _mean_costs(loads: Sequence[_Load]) -> dict[str, float]:
    """Cost of one record of each observable in steps, as a mean over all records of all lanes."""
    lanes = sum(int(_num_records(load.cohort).sum()) * load.cohort.width for load in loads)
    names = dict.fromkeys(name for load in loads for name in load.records)
    return {
        name: sum(float(load.records[name].sum()) for load in loads if name in load.records) / lanes
        for name in names
    }


class _Time(NamedTuple):
    """Seconds of training and records (None if no rate is known), and what follows from them."""

    training: float | None
    recording: float | None
    record_share: float
    busy: float
    rate: float | None


def _time(loads: Sequence[_Load], machine: _Machine) -> _Time:
    """The time of the busiest devices; cohorts are trained one after the other."""
    steps = sum(load.longest for load in loads)
    record_steps = sum(load.longest_records for load in loads)
    busy = sum(load.total for load in loads) / (machine.num_devices * steps) if steps else 1.0
    rates = [load.rate for load in loads if load.rate]
    if len(rates) < len(loads):
        share = float(record_steps / (steps + record_steps))
        return _Time(None, None, share, busy, machine.rate)
    training = sum(load.longest / rate for load, rate in zip(loads, rates, strict=True))
    recording = sum(load.longest_records / rate for load, rate in zip(loads, rates, strict=True))
    share = float(recording / (training + recording))
    return _Time(training, recording, share, busy, steps / training if training else machine.rate)


def _num_files(num_cohorts: int, num_hosts: int) -> int:
    """Files of a results folder: records per cohort and kept checkpoints, for every host."""
    return FOLDER_FILES + num_hosts * (num_cohorts + CheckpointPolicy.kept * CHECKPOINT_FILES)


def duration(seconds: float) -> str:
    """Seconds with a unit, for messages.

    >>> duration(0.25), duration(4000)
    ('0.25 s', '1.11 h')
    """
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size or (unit == "h" and seconds >= size):
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
