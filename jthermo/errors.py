"""The one error a user's mistake raises: it names the field, the value and the remedy."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np


class InputError(ValueError):
    """A value that jthermo can't work with, found where it was given.

    Args:
        field: the name the user wrote, such as ``"learning_rate"``.
        value: what was given; shown by ``repr``, shortened.
        remedy: what would be right, as a full clause.

    >>> raise InputError("batch_size", 0, "give a positive whole number")
    Traceback (most recent call last):
    ...
    jthermo.errors.InputError: batch_size = 0: give a positive whole number
    """

    def __init__(self, field: str, value: object, remedy: str) -> None:
        self.field, self.value, self.remedy = field, value, remedy
        shown = repr(value)
        super().__init__(
            f"{field} = {shown if len(shown) <= 200 else shown[:197] + '...'}: {remedy}"
        )

    def __reduce__(self) -> tuple[type, tuple[str, object, str]]:
        return type(self), (self.field, self.value, self.remedy)


class MissingData(InputError):
    """A data set that is nowhere on this machine and can't be fetched; nothing is put in its place."""


class StorageError(InputError):
    """The disk is full or failing; what was committed is kept, and the same command goes on when it is mended."""


class Interrupted(SystemExit):
    """A signal ended a sweep after its state was saved; the same call goes on from there.

    Left alone it ends the program with exit code 75, which launchers take as "start me again".
    """

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(75)

    def __str__(self) -> str:
        return self.message


def whole_number(
    field: str, value: Any, least: int = 1, most: int | None = None, remedy: str = ""
) -> int:
    """`value` as an int of at least `least`, or an error that names the field.

    >>> whole_number("batch_size", 4.0)
    4
    """
    if not is_whole(value) or value < least or (most is not None and value > most):
        span = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise InputError(field, value, remedy or f"give a whole number {span}")
    return int(value)


def finite_number(field: str, value: Any, *, above: float = -math.inf, remedy: str = "") -> float:
    """`value` as a finite float above a limit, or an error that names the field.

    >>> finite_number("data.scale", 2)
    2.0
    """
    if not is_number(value) or not (math.isfinite(value) and value > above):
        words = (
            "a finite number"
            if above == -math.inf
            else "a positive finite number"
            if above == 0
            else f"a finite number above {above:g}"
        )
        raise InputError(field, value, remedy or f"give {words}")
    return float(value)


def is_number(value: Any) -> bool:
    """A real number, NumPy's included, and no bool."""
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def is_whole(value: Any) -> bool:
    """A number without a fraction."""
    return is_number(value) and math.isfinite(value) and int(value) == value
