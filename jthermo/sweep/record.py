"""When and what a sweep records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jthermo.errors import InputError, whole_number
from jthermo.observables import as_observable
from jthermo.sweep.recorded_steps import Every, LogSteps, as_steps


@dataclass(frozen=True)
class Record:
    """When and what to record; a record at step s is the state after s updates.

    Args:
        steps: ``jt.log_steps(n)``, ``jt.every(k)`` or an increasing tuple of steps.
        observables: values such as ``jt.activation_rate()`` or functions ``(model, params, probe) -> array``.
        probe_size: M, the number of fresh examples an observable may look at.

    >>> import jthermo as jt
    >>> Record(steps=jt.every(10), observables=jt.activation_rate()).observables
    (ActivationRate(method='auto'),)
    """

    steps: LogSteps | Every | tuple[int, ...]
    observables: tuple[Any, ...]
    probe_size: int = 256

    def __post_init__(self) -> None:
        given = self.observables if isinstance(self.observables, Sequence) else (self.observables,)
        observables = tuple(as_observable(o) for o in given)
        if len(set(observables)) < len(observables):
            raise InputError(
                "record.observables", observables, "names one observable twice; drop the repeat"
            )
        object.__setattr__(self, "observables", observables)
        object.__setattr__(self, "steps", as_steps(self.steps))
        object.__setattr__(
            self, "probe_size", whole_number("record.probe_size", self.probe_size, 2)
        )
