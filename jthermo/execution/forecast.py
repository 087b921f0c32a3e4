"""What a sweep will cost, before it is run: programs, memory, seconds, disk, here or on a machine one doesn't have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jthermo.engines import choice as engines
from jthermo.engines import step_program
from jthermo.errors import InputError, finite_number, whole_number
from jthermo.execution import cohorts, lane_width, memory
from jthermo.execution import placement as placing
from jthermo.execution.checkpoint_policy import CheckpointPolicy
from jthermo.execution.cohorts import Cohort
from jthermo.execution.timing import Measured, measure
from jthermo.sweep.sweep import Sweep

# of one checkpoint: the archive, its seal and three of Orbax
CHECKPOINT_FILES = 5


@dataclass(frozen=True)
class Plan:
    """The forecast of a sweep.

    Attributes:
        num_runs: runs of the grid.
        num_programs: compiled programs of the update; runs that share static shapes share one.
        lane_width: W of each program.
        num_lanes: lanes trained, those left over in the last block of each clock included.
        run_steps: updates of all runs together.
        num_devices: devices the forecast is for.
        num_hosts: hosts they belong to.
        busy: share of the devices' time that has a block to train.
        rate: lane-steps a second of one device, measured or stated; None where neither.
        seconds: forecast of the training alone.
        record_seconds: forecast of the records beside it: timed where a burst was, else from `record_costs`; None where
            `seconds` is.
        record_costs: what each observable costs, in updates a record, mean over its schedule; by its first variable.
        timed: whether these are scaled to what all of them together were measured to take, else counted arithmetic.
        record_share: of the run's time that goes into records.
        convolutions: how the lanes of nets with convolutions are vectorised.
        compile_seconds: measured while planning; None where nothing was compiled.
        state_bytes: parameters and optimizer state of the largest cohort, of one device.
        device_bytes: peak memory of one device, from the compiled programs of the largest cohort.
        limit_bytes: memory of one device; None where it isn't known.
        rounds: in how many rounds the largest cohort is trained so that each fits; 1 where nothing says it wouldn't.
        disk_bytes: records, uncompressed.
        checkpoint_bytes: the last checkpoint of one host: parameters, optimizer state and records so far of its runs.
        checkpoint_every: seconds of wall time from one checkpoint to the next.
        num_files: of records and kept checkpoints, over all hosts.
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
        """Of the largest cohort over all devices, were it trained in one round."""
        return None if self.device_bytes is None else self.device_bytes * self.num_devices

    @property
    def checkpoint_rate(self) -> float:
        """Bytes a second that one host writes, averaged over the interval between its last checkpoints."""
        return self.checkpoint_bytes / self.checkpoint_every

    @property
    def total_seconds(self) -> float | None:
        """Training and records together; None where neither is known."""
        if self.seconds is None or self.record_seconds is None:
            return None
        return self.seconds + self.record_seconds

    def __str__(self) -> str:
        text, hosts = memory.text, self.num_hosts
        many = hosts > 1
        rows = [
            (
                "runs",
                f"{self.num_runs:,} in {self.num_lanes:,} lanes on {self.num_devices} devices"
                + (f" of {hosts} hosts" if many else ""),
            ),
            (
                "programs",
                f"{self.num_programs}, lane width {', '.join(map(str, sorted(set(self.lane_width))))}",
            ),
            ("run-steps", f"{self.run_steps:,}; devices busy {self.busy:.0%} of the time"),
        ]
        rows += [("convolutions", words) for words in self.convolutions]
        rows.append(("observables", self._watching()))
        if self.total_seconds is not None:
            compiling = (
                f", {self.compile_seconds:.3g} s of compilation"
                if self.compile_seconds is not None
                else ""
            )
            rows.append(
                (
                    "time",
                    f"{duration(self.total_seconds)}: {duration(self.seconds or 0.0)} of training at {self.rate:.3g} "
                    f"run-steps/s a device, {duration(self.record_seconds or 0.0)} of records{compiling}",
                )
            )
        if self.device_bytes is None:
            rows.append(
                (
                    "memory",
                    f"at least {text(self.state_bytes)} a device for parameters and optimizer",
                )
            )
        else:
            rows.append(("memory", f"{text(self.device_bytes)} a device{self._fits()}"))
        rows.append(
            (
                "records",
                text(self.disk_bytes)
                + (f", {text(self.disk_bytes / hosts)} a host" if many else ""),
            )
        )
        rows.append(("checkpoints", self._traffic()))
        rows.append(("files", f"about {self.num_files:,}"))
        return "\n".join(f"{name:<12} {words}" for name, words in rows)

    def _watching(self) -> str:
        dearest = sorted(self.record_costs.items(), key=lambda item: -item[1])
        each = ", ".join(f"{name} {steps:.2g}" for name, steps in dearest)
        how = "measured together" if self.timed else "counted arithmetic, not measured"
        return f"{each} steps a record: {self.record_share:.0%} of the time ({how})"

    def _fits(self) -> str:
        if self.limit_bytes is None:
            return ""
        if self.rounds > 1:
            return (
                f", but there are {memory.text(self.limit_bytes)}: trained in {self.rounds} rounds"
            )
        return f" of {memory.text(self.limit_bytes)}"

    def _traffic(self) -> str:
        text, one = memory.text, self.checkpoint_bytes
        where = " a host" if self.num_hosts > 1 else ""
        if self.total_seconds is not None and self.total_seconds < self.checkpoint_every:
            return f"{text(one)}{where}, once: training takes less than {self.checkpoint_every:g} s"
        together = f", {text(self.checkpoint_rate * self.num_hosts)}/s together" if where else ""
        return f"{text(one)}{where} every {self.checkpoint_every:g} s: {text(self.checkpoint_rate)}/s{where}{together}"


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
    """Forecast a sweep: its programs, lanes, memory, seconds and disk, on this machine or on another one.

    Args:
        sweep: what would be run.
        measure: compile each program and, where no rate is stated, time a burst of it; False counts only.
        placement: ``"sharding"`` or ``"pmap"``.
        engine: which engine is measured; see :func:`jthermo.run`.
        devices: number of devices of the machine to forecast; None takes those at hand.
        hosts: hosts these devices belong to, in equal shares.
        rate: run-steps a second of one device, to forecast another kind of device; None measures it here.
        memory: bytes of one device, to forecast another kind of device; None asks the devices at hand.
        platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``, which decides the lane width; None takes the one at hand.
        checkpoint_every: seconds of wall time from one checkpoint to the next.

    Raises:
        InputError: a bad argument, or a device that can't hold even one block of lanes.

    >>> import jthermo as jt
    >>> sweep = jt.Sweep(model=jt.models.TwoLayer(inputs=2, hidden=2), data=jt.data.Gaussian(dim=2), learning_rate=0.1,
    ...                  batch_size=(1, 2), num_steps=10, record=jt.Record(steps=jt.every(5), observables=jt.loss()))
    >>> jt.plan(sweep, measure=False).num_programs
    2
    >>> made = jt.plan(sweep, measure=False, devices=2, rate=10.0)
    >>> made.seconds  # two blocks of 32 lanes, one after the other
    64.0
    >>> sorted(made.record_costs)
    ['loss']
    """
    if not isinstance(sweep, Sweep):
        raise InputError("sweep", sweep, "give a jt.Sweep")
    if rate is not None:
        rate = finite_number("rate", rate, above=0)
    hosts = whole_number("hosts", hosts)
    every = finite_number("checkpoint_every", checkpoint_every, above=0)
    here = placing.Placement(placement, placing.devices())
    count = len(here.devices) if devices is None else whole_number("devices", devices)
    if count % hosts:
        raise InputError("hosts", hosts, f"give a number that divides the {count} devices")
    programs = step_program.programs(sweep)
    chosen = engines.settle(engine, None, programs, lambda _: None) if measure else "xla"
    groups = cohorts.cohorts(sweep, platform=platform, engine=chosen)
    found = [_measured(c, here, count, rate) if measure else None for c in groups]
    loads = [_dealt(c.steps[c.blocks[:, 0]].max(1) * c.width, count) for c in groups]
    watched = [_watched(c, m) for c, m in zip(groups, found, strict=True)]
    watching = [_dealt(sum(w.values(), np.zeros(1)), count)[0] for w in watched]
    rates = [m.rate if m is not None and m.rate else rate for m in found]
    seconds = [longest / r if r else None for (longest, _), r in zip(loads, rates, strict=True)]
    total = None if None in seconds else sum(s for s in seconds if s is not None)
    beside = (
        None if total is None else sum(w / r for w, r in zip(watching, rates, strict=True) if r)
    )
    limit = _limit(memory, here, devices)
    blocks = [math.ceil(len(c.blocks) / count) for c in groups]
    longest = sum(most for most, _ in loads)
    trained, recorded = (longest, sum(watching)) if total is None else (total, beside or 0.0)
    record_bytes = sum(c.record_bytes for c in groups)
    state_bytes = sum(c.state_bytes for c in groups)
    return Plan(
        num_runs=sweep.num_runs,
        num_programs=len({c.program for c in groups}),
        lane_width=tuple(c.width for c in groups),
        num_lanes=sum(c.blocks.size for c in groups),
        run_steps=sum(c.run_steps for c in groups),
        num_devices=count,
        num_hosts=hosts,
        busy=sum(every_block for _, every_block in loads) / (count * longest) if longest else 1.0,
        rate=longest / total if total else rate,
        seconds=total,
        record_seconds=beside,
        record_costs=_mean_costs(groups, watched),
        timed=all(m is not None and m.record_seconds is not None for m in found),
        record_share=float(recorded / (trained + recorded)),
        convolutions=tuple(
            dict.fromkeys(w for c in groups if (w := lane_width.convolution_rule(c.program.model)))
        ),
        compile_seconds=sum(m.compile_seconds for m in found if m is not None) if measure else None,
        state_bytes=max(
            c.state_bytes // len(c.blocks) * b for c, b in zip(groups, blocks, strict=True)
        ),
        device_bytes=max(
            (m.peak(b) for m, b in zip(found, blocks, strict=True) if m is not None), default=None
        ),
        limit_bytes=limit,
        rounds=max(
            (m.rounds(b, limit) for m, b in zip(found, blocks, strict=True) if m is not None),
            default=1,
        ),
        disk_bytes=record_bytes,
        checkpoint_bytes=math.ceil((state_bytes + record_bytes) / hosts),
        checkpoint_every=every,
        num_files=2 + hosts * (len(groups) + CheckpointPolicy.kept * CHECKPOINT_FILES),
    )


def _measured(cohort: Cohort, here: placing.Placement, count: int, rate: float | None) -> Measured:
    return measure(cohort, here, math.ceil(len(cohort.blocks) / count), burst=rate is None)


def _dealt(steps: np.ndarray, count: int) -> tuple[float, float]:
    """Of lane-steps by block: those of the device that has most, and of all devices, with the blocks dealt out in turn."""
    return max(
        steps[i::count].sum().item() for i in range(min(count, len(steps)))
    ), steps.sum().item()


def _records(cohort: Cohort) -> np.ndarray:
    """The number of records of each block."""
    return (cohort.steps[cohort.blocks[:, 0]] >= 0).sum(1)


def _watched(cohort: Cohort, measured: Measured | None) -> dict[str, np.ndarray]:
    """What each observable costs each block over its records, in lane-steps, scaled to the time of all together."""
    costs, scale = cohort.record_costs, 1.0
    counted = sum(cost for cost, _ in costs.values())
    if measured is not None and measured.rate and measured.record_seconds and counted:
        scale = measured.record_seconds * measured.rate / counted
    records = _records(cohort)
    return {
        name: scale * cost * cohort.width * np.ceil(records / n)
        for name, (cost, n) in costs.items()
    }


def _mean_costs(
    groups: Sequence[Cohort], watched: Sequence[dict[str, np.ndarray]]
) -> dict[str, float]:
    """Steps a record of each observable, mean over all records of all lanes."""
    lanes = sum(int(_records(c).sum()) * c.width for c in groups)
    names = dict.fromkeys(name for each in watched for name in each)
    return {n: sum(float(w[n].sum()) for w in watched if n in w) / lanes for n in names}


def _limit(stated: float | None, here: placing.Placement, devices: int | None) -> int | None:
    """Bytes of one device: stated, or asked where the devices at hand are those of the forecast."""
    if stated is not None:
        return int(finite_number("memory", stated, above=0))
    return memory.limit(here.devices) if devices is None else None


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(0.25), duration(4000)
    ('0.25 s', '1.11 h')
    """
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size or (unit == "h" and seconds >= size):
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
