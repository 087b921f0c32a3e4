"""`jt.Record`: the steps and observables that a sweep records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jthermo.errors import InputError, sequence, whole_number
from jthermo.observables import as_observable
from jthermo.sweep.recorded_steps import Every, LogSteps, as_steps

# Largest number of observables; each is traced into every program.
MOST_OBSERVABLES = 1000
# The probe size that stands for all examples of a finite set.
WHOLE_SET = "all"


@dataclass(frozen=True)
class Record:
    """The steps and observables to record; a record at step s is of the state after s updates.

    Args:
        steps: ``jt.log_steps(n)``, ``jt.every(k)`` or an increasing tuple of steps.
        observables: one or several values such as ``jt.activation_rate()``, or functions
            ``(model, params, probe) -> array``.
        probe_size: M, the number of examples that observables are estimated from at each record; or
            ``"all"`` to measure them on every example of a finite training set, without a random
            error.

    Raises:
        InputError: the steps aren't increasing, an observable appears twice, or M < 2.

    >>> import jthermo as jt
    >>> Record(steps=jt.every(10), observables=jt.activation_rate()).observables
    (ActivationRate(method='auto'),)
    """

    steps: LogSteps | Every | tuple[int, ...]
    observables: tuple[Any, ...]
    probe_size: int | str = 256

    def __post_init__(self) -> None:
        listed = self.observables
        if isinstance(listed, str) or not isinstance(listed, Sequence):
            listed = (listed,)
        most, remedy = MOST_OBSERVABLES, "give one or several observables"
        observables = tuple(
            as_observable(o) for o in sequence("record.observables", listed, most, remedy)
        )
        if len(set(observables)) < len(observables):
            raise InputError(
                "record.observables", observables, "contains an observable twice; remove the repeat"
            )
        object.__setattr__(self, "observables", observables)
        object.__setattr__(self, "steps", as_steps(self.steps))
        if not isinstance(self.probe_size, str):
            number = whole_number("record.probe_size", self.probe_size, 2)
            object.__setattr__(self, "probe_size", number)
        elif self.probe_size != WHOLE_SET:
            remedy = "give a number of examples, or 'all' for a whole finite set"
            raise InputError("record.probe_size", self.probe_size, remedy)
