"""Callbacks of a running sweep (``jt.sinks``): your own function, TensorBoard, Weights & Biases.

A callback is any function of an :class:`Update`. If it has a method ``close()``, that is called
when the sweep ends. A callback sees records that have already been taken, so it cannot change the
results. One that raises is disabled with a warning.
"""

from __future__ import annotations

import functools
import importlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jthermo.errors import InputError, sequence
from jthermo.execution.progress import Progress
from jthermo.sweep.sweep import Sweep

# Bound on the elements of a variable that is aggregated. Larger variables, such as all parameters,
# are only recorded: one curve per element would be too many to look at.
LARGEST = 32
# Largest number of callbacks; each is called at every record.
MOST_CALLBACKS = 1000
LOG = logging.getLogger("jthermo")


class Aggregate(NamedTuple):
    """Statistics of one variable over the finite runs of a group; NaN if there are none.

    Attributes:
        mean: the mean.
        low: the 5 % quantile.
        median: the median.
        high: the 95 % quantile.
    """

    mean: float
    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Group:
    """The runs of one configuration, with different seeds, at one record.

    Attributes:
        controls: the value of every swept axis except the seed, by name.
        name: the controls that vary in the sweep, such as ``"learning_rate=0.05 batch_size=1"``;
            ``"all"`` if none does.
        step: the recorded step t.
        num_runs: number of runs that were just recorded.
        finite: fraction of these runs whose parameters are finite.
        values: statistics by variable. An element of an array has its index in the name:
            ``"layer_rank[0]"``.
    """

    controls: Mapping[str, Any]
    name: str
    step: int
    num_runs: int
    finite: float
    values: Mapping[str, Aggregate]


@dataclass(frozen=True)
class Update:
    """The argument of a callback, which is called after each record of runs trained together.

    Attributes:
        groups: the configurations that were recorded.
        run_steps: updates so far, summed over runs.
        total: updates of the whole sweep, summed over runs.
        run_steps_per_second: speed of training, without recording and saving.
    """

    groups: tuple[Group, ...]
    run_steps: int
    total: int
    run_steps_per_second: float


Callback = Callable[[Update], Any]


class Announcer:
    """Counts each record, calls the callbacks of a sweep after it, and disables those that raise.

    Args:
        sweep: the sweep.
        callbacks: functions of an :class:`Update`.
        bar: the source of the number of updates and of the speed.
    """

    def __init__(self, sweep: Sweep, callbacks: Sequence[Callback], bar: Progress) -> None:
        self._callbacks, self._bar = as_callbacks(callbacks), bar
        if not self._callbacks:
            return
        self._controls = {sweep.key_of(c): group.at for c, group in sweep.groups.items()}
        points = list(self._controls.values())
        self._varying = [name for name in points[0] if len({at[name] for at in points}) > 1]

    def __call__(
        self, keys: np.ndarray, steps: np.ndarray, recorded: Mapping[str, np.ndarray]
    ) -> None:
        """Call every callback with a record.

        Args:
            keys: (R,) configuration key of each recorded run.
            steps: (R,) recorded step of each run.
            recorded: values (R, …) by variable.
        """
        self._bar.recorded(len(keys))
        if not self._callbacks:
            return
        groups = tuple(
            self._group(key, keys == key, steps, recorded) for key in dict.fromkeys(keys)
        )
        bar = self._bar
        update = Update(groups, bar.done, bar.total, bar.rate)
        for callback in tuple(self._callbacks):
            self._guarded(callback, functools.partial(callback, update))

    def close(self) -> None:
        """Call ``close()`` of the callbacks that have it."""
        for callback in tuple(self._callbacks):
            if hasattr(callback, "close"):
                self._guarded(callback, callback.close)

    def _guarded(self, callback: Callback, act: Callable[[], Any]) -> None:
        try:
            act()
        except Exception as error:
            self._callbacks.remove(callback)
            reason = f"{type(error).__name__}: {error}"
            LOG.warning("the callback %r raised an error and is disabled (%s)", callback, reason)

    def _group(
        self, key: str, mine: np.ndarray, steps: np.ndarray, recorded: Mapping[str, np.ndarray]
    ) -> Group:
        controls, now = self._controls[key], {name: value[mine] for name, value in recorded.items()}
        finite = now.pop("finite")
        values = {
            name: _aggregate(column[finite])
            for variable, value in now.items()
            for name, column in _columns(variable, value)
        }
        name = " ".join(f"{k}={controls[k]}" for k in self._varying) or "all"
        step = int(steps[mine][0])
        return Group(dict(controls), name, step, int(mine.sum()), float(finite.mean()), values)


def as_callbacks(callbacks: Sequence[Callback]) -> list[Callback]:
    """The callbacks as a list.

    Raises:
        InputError: a single function instead of a sequence, or a value that is not callable.
    """
    if callable(callbacks):
        raise InputError(
            "callbacks", callbacks, "is not a sequence; write callbacks=(function,) for one"
        )
    remedy = "give a list of functions of a jt.sinks.Update"
    listed = sequence("callbacks", callbacks, MOST_CALLBACKS, remedy)
    for callback in listed:
        if not callable(callback):
            raise InputError(
                "callbacks", callback, "is not callable; give functions of a jt.sinks.Update"
            )
    return list(listed)


def _columns(name: str, value: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """(name, values (R,)) of each element of a variable; none if it has too many elements."""
    if value.ndim == 1:
        yield name, value
    elif value[0].size <= LARGEST:
        for index in np.ndindex(*value.shape[1:]):
            yield f"{name}[{','.join(map(str, index))}]", value[(slice(None), *index)]


def _aggregate(value: np.ndarray) -> Aggregate:
    # A sparse observable is NaN at the records at which it is not measured.
    known = value[np.isfinite(value)].astype(float)
    if not len(known):
        return Aggregate(*[float("nan")] * 4)
    return Aggregate(float(known.mean()), *map(float, np.quantile(known, (0.05, 0.5, 0.95))))


class TensorBoard:
    """Draws the statistics as TensorBoard curves, one TensorBoard run per group, against t.

    Args:
        directory: the folder of the event files; ``tensorboard --logdir DIRECTORY`` shows them.

    Raises:
        InputError: tensorboardX is not installed; ``pip install "jthermo[tensorboard]"``.
    """

    def __init__(self, directory: str | Path) -> None:
        self._make = _imported("tensorboardX", "tensorboard").SummaryWriter
        self._directory = Path(directory)
        self._writers: dict[str, Any] = {}

    def __call__(self, update: Update) -> None:
        """Write the update."""
        for group in update.groups:
            writer = self._writer(group.name)
            writer.add_scalar("finite", group.finite, group.step)
            for variable, aggregate in group.values.items():
                for statistic, value in aggregate._asdict().items():
                    if np.isfinite(value):
                        writer.add_scalar(f"{variable}/{statistic}", value, group.step)
        self._writer("sweep").add_scalar(
            "run_steps_per_second", update.run_steps_per_second, update.run_steps
        )

    def close(self) -> None:
        """Flush and close the event files."""
        for writer in self._writers.values():
            writer.close()

    def _writer(self, name: str) -> Any:
        if name not in self._writers:
            self._writers[name] = self._make(
                str(self._directory / re.sub(r"[^\w=.+ -]", "_", name))
            )
        return self._writers[name]


class WandB:
    """Logs the statistics as one Weights & Biases run, offline by default.

    An offline run stays on this machine until you call ``wandb sync``.

    Args:
        directory: the folder of the run.
        project: the name of the project.
        mode: ``"offline"``, or ``"online"`` to send the run while it is logged.

    Raises:
        InputError: wandb is not installed; ``pip install "jthermo[wandb]"``.
    """

    def __init__(
        self, directory: str | Path, project: str = "jthermo", mode: str = "offline"
    ) -> None:
        wandb = _imported("wandb", "wandb")
        Path(directory).mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(dir=str(directory), project=project, mode=mode)
        self._run.define_metric("*", step_metric="run_steps")

    def __call__(self, update: Update) -> None:
        """Log the update."""
        row: dict[str, Any] = {
            "run_steps": update.run_steps,
            "run_steps_per_second": update.run_steps_per_second,
        }
        for group in update.groups:
            row |= {f"t/{group.name}": group.step, f"finite/{group.name}": group.finite}
            for variable, aggregate in group.values.items():
                row |= {f"{variable}/{k}/{group.name}": v for k, v in aggregate._asdict().items()}
        self._run.log(row)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


def _imported(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            extra, module, f'cannot be imported ({error}); pip install "jthermo[{extra}]"'
        ) from None
