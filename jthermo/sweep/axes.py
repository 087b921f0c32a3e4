"""The axes of a sweep as a user gives them: each value checked where it is built, none twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jthermo.errors import InputError, finite_number, whole_number


def read_axis(name: str, given: Any, limit: int) -> tuple[Any, ...]:
    """The values of one axis, each checked, none twice."""
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        given = (given,)
    if isinstance(given, Sequence | np.ndarray) and len(given) > limit:
        raise InputError(
            name,
            given,
            f"has {len(given):,} values, over max_runs = {limit:,}; raise max_runs if that is meant",
        )
    made = tuple(_coordinate(name, v) for v in given)
    # (0, 0.9) means (0.0, 0.9): one kind, one program
    if any(isinstance(v, float) for v in made):
        made = tuple(float(v) if type(v) is int else v for v in made)
    if not made:
        raise InputError(name, made, "give at least one value")
    if len(set(made)) < len(made):
        twice = next(v for v in made if made.count(v) > 1)
        raise InputError(name, twice, "stands twice; drop the repeat")
    return made


def _coordinate(name: str, value: Any) -> Any:
    """One value on an axis, as a plain Python scalar."""
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
    """One entry of `points`, its values checked."""
    if not isinstance(point, Mapping) or not point:
        raise InputError(
            "points", point, "give dicts such as {'learning_rate': 0.1, 'batch_size': 4}"
        )
    return {str(k): _coordinate(str(k), v) for k, v in point.items()}


def read_list(name: str, given: Any) -> Sequence[Any]:
    """A list that is no string and no mapping."""
    if isinstance(given, Mapping | str) or not isinstance(given, Iterable):
        raise InputError(name, given, "give a list")
    return tuple(given)
