"""Checks the values of a sweep's axes, and of the points of an explicit list of runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jthermo.errors import InputError, finite_number, whole_number


def read_axis(name: str, values: Any, limit: int) -> tuple[Any, ...]:
    """The values of one axis, each of them checked; at most `limit`, all different."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        values = (values,)
    if isinstance(values, Sequence | np.ndarray) and len(values) > limit:
        raise InputError(
            name,
            values,
            f"has {len(values):,} values, more than max_runs = {limit:,}; "
            "set a larger max_runs if this is intended",
        )
    coordinates = tuple(_coordinate(name, v) for v in values)
    # (0, 0.9) becomes (0.0, 0.9), since an int would be static and need another compilation
    if any(isinstance(v, float) for v in coordinates):
        coordinates = tuple(float(v) if type(v) is int else v for v in coordinates)
    if not coordinates:
        raise InputError(name, coordinates, "give at least one value")
    if len(set(coordinates)) < len(coordinates):
        repeated = next(v for v in coordinates if coordinates.count(v) > 1)
        raise InputError(name, repeated, "appears twice; remove the repeat")
    return coordinates


def _coordinate(name: str, value: Any) -> Any:
    """One checked value of an axis as a plain Python scalar."""
    value = (
        value.item()
        if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0)
        else value
    )
    if name == "learning_rate":
        return finite_number(name, value, above=0)
    if name in ("batch_size", "seed"):
        return whole_number(name, value, least=int(name == "batch_size"), most=2**32 - 1)
    if value is not None and not isinstance(value, bool | int | float | str):
        raise InputError(f"vary[{name!r}]", value, "give numbers, strings, booleans or None")
    return value


def read_point(point: Any) -> dict[str, Any]:
    """One entry of `points` with checked values."""
    if not isinstance(point, Mapping) or not point:
        raise InputError(
            "points", point, "give dicts such as {'learning_rate': 0.1, 'batch_size': 4}"
        )
    return {str(k): _coordinate(str(k), v) for k, v in point.items()}


def read_list(name: str, values: Any) -> Sequence[Any]:
    """`values` as a tuple; strings and mappings raise an error."""
    if isinstance(values, Mapping | str) or not isinstance(values, Iterable):
        raise InputError(name, values, "give a list")
    return tuple(values)
