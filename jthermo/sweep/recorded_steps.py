"""The recorded steps and the length of a run: log-spaced, every k-th, or by the rescaled clock."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from jthermo.errors import MOST_WHOLE, InputError, finite_number, sequence, whole_number

# Largest number of records of a run, far more than a curve can show.
MOST_RECORDS = 1_000_000
# Largest number of steps: they are int32 in compiled programs.
MAX_STEPS = MOST_WHOLE


@dataclass(frozen=True)
class LogSteps:
    """`n` records: step 0, then log-spaced up to the last step; see :func:`log_steps`."""

    n: int

    def __post_init__(self) -> None:
        n = whole_number("log_steps", self.n, 2)
        object.__setattr__(self, "n", whole_number("log_steps", n, 2, MOST_RECORDS))

    def resolve(self, num_steps: int) -> tuple[int, ...]:
        """The recorded steps of a run of `num_steps`, strictly increasing."""
        if num_steps < self.n:
            return tuple(range(num_steps + 1))
        rounded = np.rint(np.geomspace(1, num_steps, self.n - 1)).astype(np.int64)
        # for n = 2, geomspace has a single point, 1
        rounded[-1] = num_steps
        rank = np.arange(self.n - 1)
        # move steps up so that consecutive ones differ by at least 1
        steps = np.maximum.accumulate(rounded - rank) + rank
        return (0, *steps.tolist())


@dataclass(frozen=True)
class Every:
    """Step 0, every k-th step and the last; see :func:`every`."""

    k: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", whole_number("every", self.k))

    def resolve(self, num_steps: int) -> tuple[int, ...]:
        """The recorded steps of a run of `num_steps`, strictly increasing.

        Raises:
            InputError: these are more than a million.
        """
        if (number := num_steps // self.k + 1) > MOST_RECORDS:
            raise InputError(
                "every",
                self.k,
                f"gives {number:,} records of {num_steps:,} steps, more than {MOST_RECORDS:,}; "
                "give a larger k, or jt.log_steps(n)",
            )
        return tuple(sorted({*range(0, num_steps + 1, self.k), num_steps}))


def log_steps(n: int) -> LogSteps:
    """`n` records: step 0, then n − 1 log-spaced steps from 1 to the last, at least 1 apart.

    A run of fewer than n steps records each of them.

    >>> log_steps(6).resolve(100)
    (0, 1, 3, 10, 32, 100)
    """
    return LogSteps(n)


def every(k: int) -> Every:
    """Records at steps 0, k, 2k … and at the last step.

    >>> every(40).resolve(100)
    (0, 40, 80, 100)
    """
    return Every(k)


def as_steps(steps: Any) -> LogSteps | Every | tuple[int, ...]:
    """`steps` checked: a schedule value, or any increasing sequence of steps as a tuple."""
    if isinstance(steps, LogSteps | Every):
        return steps
    remedy = "give jt.log_steps(n), jt.every(k) or an increasing tuple of steps"
    values = sequence("record.steps", steps, MOST_RECORDS, remedy)
    remedy = f"give one or several whole numbers from 0 to {MAX_STEPS}"
    if not values:
        raise InputError("record.steps", values, remedy)
    whole = tuple(whole_number("record.steps", s, 0, MAX_STEPS, remedy) for s in values)
    if any(b <= a for a, b in itertools.pairwise(whole)):
        raise InputError(
            "record.steps", whole, "must be strictly increasing; sort the steps and remove repeats"
        )
    return whole


@dataclass(frozen=True)
class RescaledSteps:
    """Train each run until t·η^a·B^b = value; the paper's clock has a = 2, b = −1.

    Args:
        value: the value of the rescaled clock at which training ends.
        learning_rate_power: a, the power of η.
        batch_size_power: b, the power of B.
        at_most: upper limit of the number of steps; None for no limit.

    Raises:
        InputError: `value` isn't positive, or an argument isn't a number.

    >>> RescaledSteps(20.0).resolve(learning_rate=0.05, batch_size=2)
    16000
    """

    value: float
    learning_rate_power: float = 2.0
    batch_size_power: float = -1.0
    at_most: int | None = None

    def __post_init__(self) -> None:
        for name in ("value", "learning_rate_power", "batch_size_power"):
            above = 0 if name == "value" else -math.inf
            object.__setattr__(
                self, name, finite_number(f"num_steps.{name}", getattr(self, name), above=above)
            )
        if self.at_most is not None:
            object.__setattr__(self, "at_most", _steps("num_steps.at_most", self.at_most))

    def resolve(self, learning_rate: float, batch_size: int) -> int:
        """The number of steps of a run: the first at which the clock has reached `value`.

        Raises:
            InputError: it is 2³¹ − 1 or more.
        """
        try:
            exact = (
                self.value
                * learning_rate**-self.learning_rate_power
                * batch_size**-self.batch_size_power
            )
        except OverflowError:
            exact = math.inf
        if not exact < MAX_STEPS:
            raise InputError(
                "num_steps",
                self,
                f"gives {exact:.3g} steps at learning_rate = {learning_rate}, "
                f"batch_size = {batch_size}, more than the limit of {MAX_STEPS}; "
                "give a smaller value",
            )
        # a relative tolerance of 10⁻⁹, because 20/0.05² is 8000 but rounds to slightly more
        steps = max(1, math.ceil(exact * (1 - 1e-9)))
        return steps if self.at_most is None else min(steps, self.at_most)


def steps_of_run(
    num_steps: int | RescaledSteps,
    steps: LogSteps | Every | tuple[int, ...],
    learning_rate: float,
    batch_size: int,
) -> tuple[int, ...]:
    """The recorded steps of a run; training stops after the last.

    Raises:
        InputError: a run of this length has none of the given steps, or not all.
    """
    if isinstance(num_steps, RescaledSteps):
        total = num_steps.resolve(learning_rate, batch_size)
    else:
        total = num_steps
    if not isinstance(steps, tuple):
        return steps.resolve(total)
    kept = tuple(s for s in steps if s <= total)
    if not kept or (steps[-1] > total and not isinstance(num_steps, RescaledSteps)):
        raise InputError(
            "record.steps",
            steps,
            f"the run has only {total} steps; give smaller steps or a larger num_steps",
        )
    return kept


def as_num_steps(num_steps: Any) -> int | RescaledSteps:
    """`num_steps` checked: a ``RescaledSteps``, or a number of steps as an int."""
    return num_steps if isinstance(num_steps, RescaledSteps) else _steps("num_steps", num_steps)


def _steps(field: str, value: Any) -> int:
    remedy = f"give a whole number from 1 to {MAX_STEPS}, or jt.RescaledSteps(value)"
    return whole_number(field, value, most=MAX_STEPS, remedy=remedy)
