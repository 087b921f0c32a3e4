"""The errors that users see, and the checks of arguments that raise them."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np


class InputError(ValueError):
    """An argument that jthermo can't use, raised where it is passed.

    Args:
        field: the name of the argument as the user writes it, such as ``"learning_rate"``.
        value: the rejected value; the message shows its ``repr``, cut at 200 characters.
        remedy: what is wrong unless the value shows it, and what to do.

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
    """A data set that is neither on this machine nor downloadable; no other data replace it."""


class StorageError(InputError):
    """The disk is full or failing. Committed records are kept; the same call resumes from them."""


class FolderInUse(StorageError):
    """Another process writes to the results folder; the same call succeeds once it has ended."""


class Interrupted(SystemExit):
    """A signal stopped a sweep after its state was saved; the same call resumes it.

    Uncaught, it ends the program with exit code 75, on which launchers restart the job.
    """

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(75)

    def __str__(self) -> str:
        return self.message


def whole_number(
    field: str, value: Any, least: int = 1, most: int | None = None, remedy: str = ""
) -> int:
    """`value` as an int from `least` to `most`; otherwise an InputError for `field`.

    >>> whole_number("batch_size", 4.0)
    4
    """
    if not is_whole(value) or value < least or (most is not None and value > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise InputError(field, value, remedy or f"give a whole number {bounds}")
    return int(value)


def finite_number(field: str, value: Any, *, above: float = -math.inf, remedy: str = "") -> float:
    """`value` as a finite float greater than `above`; otherwise an InputError for `field`.

    >>> finite_number("data.scale", 2)
    2.0
    """
    if not is_number(value) or not (math.isfinite(value) and value > above):
        kind = (
            "a finite number"
            if above == -math.inf
            else "a positive finite number"
            if above == 0
            else f"a finite number above {above:g}"
        )
        raise InputError(field, value, remedy or f"give {kind}")
    return float(value)


def is_number(value: Any) -> bool:
    """Whether `value` is a real number of Python or NumPy, bools excluded."""
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def is_whole(value: Any) -> bool:
    """Whether `value` is a finite number without a fractional part."""
    return is_number(value) and math.isfinite(value) and int(value) == value
