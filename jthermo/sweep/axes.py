"""Checks the values of a sweep's axes, and of the points of an explicit list of runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from jthermo.errors import InputError, finite_number, one_line, sequence, whole_number
from jthermo.sweep.spec_value import is_value

# The batch size that stands for all examples of a finite set.
FULL_BATCH = "full"
# Parts of a sweep whose whole values can be an axis, beside their fields.
WHOLE_PARTS = ("noise", "optimizer", "loss")


def read_axis(name: str, values: Any, limit: int) -> tuple[Any, ...]:
    """The values of one axis, each of them checked; at most `limit`, all different."""
    if _is_single(values):
        values = (values,)
    elif isinstance(values, set | frozenset):
        # the order of an axis has no meaning
        values = sorted(values, key=repr)
    most = f"max_runs = {limit:,}; set a larger max_runs if this is intended"
    listed = sequence(name, values, limit, "give one or several values", most)
    coordinates = tuple(_coordinate(name, v) for v in listed)
    # (0, 0.9) becomes (0.0, 0.9), since an int would be static and need another compilation
    if any(isinstance(v, float) for v in coordinates):
        coordinates = tuple(float(v) if type(v) is int else v for v in coordinates)
    if not coordinates:
        raise InputError(name, coordinates, "give at least one value")
    labels = [label(v) for v in coordinates]
    if len(set(labels)) < len(labels):
        repeated = next(v for v in coordinates if labels.count(label(v)) > 1)
        raise InputError(name, repeated, "appears twice; remove the repeat")
    return coordinates


def _coordinate(name: str, value: Any) -> Any:
    """One checked value of an axis, a plain Python scalar unless it is a whole part."""
    # a number of NumPy or JAX, or an array of rank 0
    value = value.item() if getattr(value, "ndim", None) == 0 else value
    if name == "learning_rate":
        if callable(value):
            remedy = (
                "give numbers; for a schedule, give optimizer=jt.Optimizer(fn) with a function "
                "fn(learning_rate) that returns an optax optimizer"
            )
            raise InputError(name, value, remedy)
        return finite_number(name, value, above=0)
    if name == "batch_size":
        if isinstance(value, str) and value != FULL_BATCH:
            remedy = f'give a whole number of at least 1, or "{FULL_BATCH}"'
            raise InputError(name, value, remedy)
        return value if isinstance(value, str) else whole_number(name, value)
    if name in ("seed", "data_seed"):
        return whole_number(name, value, least=0, most=2**32 - 1)
    if isinstance(value, tuple | list):
        return tuple(_coordinate(name, v) for v in value)
    if name in WHOLE_PARTS and (is_value(value) or hasattr(value, "__qualname__")):
        return value
    if value is not None and not isinstance(value, bool | int | float | str):
        remedy = "give numbers, strings, booleans, None or tuples of them"
        raise InputError(f"vary[{name!r}]", value, remedy)
    if isinstance(value, float) and math.isnan(value):
        raise InputError(f"vary[{name!r}]", value, "isn't a number; give finite numbers")
    return value


def label(value: Any) -> Any:
    """The value as a coordinate of the results: a tuple becomes text such as ``"8-8"``.

    >>> label((8, 8)), label(((8, 8), (16,))), label(0.1)
    ('8-8', '(8-8)-(16)', 0.1)
    """
    if not isinstance(value, tuple):
        plain = value is None or isinstance(value, bool | int | float | str)
        return value if plain else getattr(value, "__name__", one_line(repr(value)))
    parts = [f"({label(v)})" if isinstance(v, tuple) else str(v) for v in value]
    return "-".join(parts) if parts else "()"


def position(value: Any) -> tuple[str, Any]:
    """Where the value comes in the order of its axis."""
    if value is None:
        return "", 0
    plain = isinstance(value, bool | int | float | str | tuple)
    return str(type(value)), value if plain else label(value)


def _is_single(values: Any) -> bool:
    """Whether an axis is given by a single value instead of several."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        return True
    return getattr(values, "ndim", None) == 0


def read_point(point: Any) -> dict[str, Any]:
    """One entry of `points` with checked values."""
    if not isinstance(point, Mapping) or not point:
        raise InputError(
            "points", point, "give dicts such as {'learning_rate': 0.1, 'batch_size': 4}"
        )
    return {str(k): _coordinate(str(k), v) for k, v in point.items()}
