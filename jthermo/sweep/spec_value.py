"""Constructor arguments of a sweep's parts (model, data, ...): read or replaced by dotted name.

A spec value is anything with constructor arguments: a frozen dataclass, a
:class:`jthermo.models.Model`, a :class:`jthermo.Optimizer` or a flax module. Only :func:`arguments`
reads them.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from typing import Any

from jthermo.errors import InputError, one_line
from jthermo.update_rule.optimizer import Optimizer, sgd

# Fields that every flax.linen.Module has in addition to its own.
_FLAX_OWN = ("parent", "name")


def is_value(value: object) -> bool:
    """Whether `value` has constructor arguments that `arguments` can read."""
    return not isinstance(value, type) and (
        hasattr(value, "arguments") or dataclasses.is_dataclass(value)
    )


def arguments(value: Any) -> dict[str, Any]:
    """The constructor arguments of a spec value, by name."""
    if hasattr(value, "arguments"):
        return dict(value.arguments)
    names = [f.name for f in dataclasses.fields(value) if f.init and f.name not in _FLAX_OWN]
    return {name: getattr(value, name) for name in names}


def replace(value: Any, /, **changes: Any) -> Any:
    """A copy of a spec value with some constructor arguments changed, validated again."""
    try:
        return type(value)(**{**arguments(value), **changes})
    except InputError:
        raise
    except Exception as error:
        # a check in a class of the user
        remedy = f"{type(value).__name__} rejects this: {type(error).__name__}: {one_line(error)}"
        raise InputError(", ".join(changes), changes, remedy) from error


def same_value(a: Any, b: Any) -> bool:
    """Whether two values are equal and of one type, so that 1, 1.0 and True differ."""
    return type(a) is type(b) and a == b


@functools.lru_cache(maxsize=256)
def defaults_of(cls: type) -> dict[str, Any]:
    """The default values of the constructor's arguments, by name."""
    parameters = inspect.signature(cls).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    # the signature shows a sentinel for a default_factory
    if dataclasses.is_dataclass(cls):
        defaults |= {
            f.name: f.default_factory()
            for f in dataclasses.fields(cls)
            if callable(f.default_factory)
        }
    return defaults


def get(value: Any, path: str) -> Any:
    """The argument of a spec value at a dotted `path`, such as ``model.hidden``."""
    for name in path.split("."):
        value = _argument(value, name, path)
    return value


def put(value: Any, path: str, new: Any) -> Any:
    """A copy of a spec value with the argument at a dotted `path` changed."""
    name, _, rest = path.partition(".")
    old = _argument(value, name, path)
    return replace(value, **{name: put(old, rest, new) if rest else new})


def _argument(value: Any, name: str, path: str) -> Any:
    """The argument `name` of a spec value; `path` is the dotted name in the error."""
    fields = arguments(value) if is_value(value) else {}
    if name not in fields:
        remedy = (
            f"{type(value).__name__} has no field {name!r}; its fields are "
            f"{', '.join(fields) or 'none'}"
        )
        if isinstance(value, Optimizer) and name in inspect.signature(sgd).parameters:
            remedy += f". Give the sweep optimizer=jt.sgd({name}=...) first"
        raise InputError("field", path, remedy)
    return fields[name]


def float_fields(value: Any) -> dict[str, float]:
    """The float arguments of a spec value; compiled programs take them as inputs."""
    # a loss can be a name or a function, which have none
    if not is_value(value):
        return {}
    return {k: v for k, v in arguments(value).items() if isinstance(v, float)}
