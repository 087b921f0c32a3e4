"""Where aggregates of a running sweep go: a user's own callback, TensorBoard or Weights & Biases. Off by default.

A callback is any function of an :class:`Update`; one with ``close()`` is closed when the sweep ends. It sees numbers that
are recorded already, so it changes no bit of the results, and one that fails is dropped with one warning.
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

from jthermo.errors import InputError
from jthermo.execution.progress import Progress
from jthermo.sweep.sweep import Sweep

# elements of a variable; larger ones, such as all parameters, are left to the records
LARGEST = 32
LOG = logging.getLogger("jthermo")


class Aggregate(NamedTuple):
    """What the finite runs of a group have in one variable; NaN where there are none.

    Attributes:
        mean: their mean.
        low: their 5 % quantile.
        median: their median.
        high: their 95 % quantile.
    """

    mean: float
    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Group:
    """The runs of one configuration, all its seeds, at one record.

    Attributes:
        controls: every swept axis but the seed, by name.
        name: those that vary in the sweep, ``"learning_rate=0.05 batch_size=1"``; ``"all"`` where none does.
        step: the recorded step, t.
        num_runs: how many runs have just made this record.
        finite: the fraction of them whose parameters are finite.
        values: aggregates by variable; an element of an array has its place in the name, ``"layer_rank[0]"``.
    """

    controls: Mapping[str, Any]
    name: str
    step: int
    num_runs: int
    finite: float
    values: Mapping[str, Aggregate]


@dataclass(frozen=True)
class Update:
    """What a callback is given after each record of each group of runs that are trained together.

    Attributes:
        groups: the configurations that made the record.
        run_steps: updates so far, of all runs together.
        total: updates of the whole sweep.
        run_steps_per_second: of the training alone.
    """

    groups: tuple[Group, ...]
    run_steps: int
    total: int
    run_steps_per_second: float


Callback = Callable[[Update], Any]


class Announcer:
    """The callbacks of a sweep: told of each record, and dropped where they fail.

    Args:
        sweep: whose runs they are.
        callbacks: functions of an :class:`Update`.
        bar: knows how far the sweep is.
    """

    def __init__(self, sweep: Sweep, callbacks: Sequence[Callback], bar: Progress) -> None:
        self._callbacks, self._bar = as_callbacks(callbacks), bar
        if not self._callbacks:
            return
        self._controls = {sweep.key_of(c): group.at for c, group in sweep.groups.items()}
        every = list(self._controls.values())
        self._varying = [name for name in every[0] if len({at[name] for at in every}) > 1]

    def __call__(
        self, keys: np.ndarray, steps: np.ndarray, recorded: Mapping[str, np.ndarray]
    ) -> None:
        """Tell every callback of a record.

        Args:
            keys: (R,) the configuration of each run that made it.
            steps: (R,) at which step.
            recorded: every variable as (R, …).
        """
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
        """Close the callbacks that can be closed."""
        for callback in tuple(self._callbacks):
            if hasattr(callback, "close"):
                self._guarded(callback, callback.close)

    def _guarded(self, callback: Callback, act: Callable[[], Any]) -> None:
        try:
            act()
        except Exception as error:
            self._callbacks.remove(callback)
            told = f"{type(error).__name__}: {error}"
            LOG.warning("the callback %r failed and is left out from here on (%s)", callback, told)

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
    """Callbacks as a list, or an error that names the one that is none."""
    if callable(callbacks):
        raise InputError("callbacks", callbacks, "give several in parentheses: callbacks=(one,)")
    for callback in callbacks:
        if not callable(callback):
            raise InputError("callbacks", callback, "give functions of a jt.sinks.Update")
    return list(callbacks)


def _columns(name: str, value: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Each element of a variable as (R,), by name."""
    if value.ndim == 1:
        yield name, value
    elif value[0].size <= LARGEST:
        for place in np.ndindex(*value.shape[1:]):
            yield f"{name}[{','.join(map(str, place))}]", value[(slice(None), *place)]


def _aggregate(value: np.ndarray) -> Aggregate:
    # a sparse observable isn't due at every record
    known = value[np.isfinite(value)].astype(float)
    if not len(known):
        return Aggregate(*[float("nan")] * 4)
    return Aggregate(float(known.mean()), *map(float, np.quantile(known, (0.05, 0.5, 0.95))))


class TensorBoard:
    """Aggregates as TensorBoard curves: one TensorBoard run for each group of controls, t as its step.

    Args:
        directory: where the event files go; ``tensorboard --logdir DIRECTORY`` shows them.

    Raises:
        InputError: tensorboardX isn't installed: ``pip install "jthermo[tensorboard]"``.
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
    """Aggregates as a Weights & Biases run, offline: nothing leaves the machine until ``wandb sync``.

    Args:
        directory: where the run is kept.
        project: its project.
        mode: ``"offline"``, or ``"online"`` to send it.

    Raises:
        InputError: wandb isn't installed: ``pip install "jthermo[wandb]"``.
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
            extra, module, f'isn\'t at hand ({error}); pip install "jthermo[{extra}]"'
        ) from None
