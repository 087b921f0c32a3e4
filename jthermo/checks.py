"""Checks of single numbers that a user gives: the same words wherever one is wrong."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np

from jthermo.errors import InputError


def whole(field: str, value: Any, least: int = 1, most: int | None = None, remedy: str = "") -> int:
    """`value` as an int of at least `least`, or an error that names the field.

    >>> whole("batch_size", 4.0)
    4
    """
    if not is_whole(value) or value < least or (most is not None and value > most):
        span = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise InputError(field, value, remedy or f"give a whole number {span}")
    return int(value)


def finite(field: str, value: Any, *, above: float = -math.inf, remedy: str = "") -> float:
    """`value` as a finite float above a limit, or an error that names the field.

    >>> finite("data.scale", 2)
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
