"""Converts spec values to plain JSON and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from jthermo.data.source import Source
from jthermo.errors import InputError
from jthermo.models import Model
from jthermo.sweep.spec_value import arguments, defaults_of, is_value, same_value
from jthermo.sweep.stable_names import RENAMED_ARGUMENTS, dereference, reference
from jthermo.update_rule.optimizer import Optimizer


def diff(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One line per dotted field in which the JSON of two sweeps differs: old value → new value."""
    lines = []
    for name in sorted(k for k in {*a, *b} if a.get(k) != b.get(k)):
        old: Any = a.get(name)
        new: Any = b.get(name)
        if _same_class(old, new):
            lines += diff(old, new, f"{prefix}{name}.")
        else:
            lines.append(f"{prefix}{name}: {_short(old)} → {_short(new)}")
    return lines


def _same_class(a: Any, b: Any) -> bool:
    """Whether the JSON of two spec values has the same fields of the same class."""
    dicts = isinstance(a, dict) and isinstance(b, dict)
    return dicts and a.keys() == b.keys() and a.get("type") == b.get("type")


def _short(plain: Any) -> str:
    """JSON in at most 120 characters: consecutive numbers as FIRST:END, else both its ends."""
    if isinstance(plain, list) and len(plain) > 2 and all(isinstance(v, int) for v in plain):
        first, end = plain[0], plain[0] + len(plain)
        if plain == list(range(first, end)):
            return f"{first}:{end}"
    text = json.dumps(plain)
    return text if len(text) <= 120 else f"{text[:60]} … {text[-57:]}"


def to_plain(value: Any) -> Any:
    """A spec value as dicts, lists and scalars; defaults are written too if they have a name."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, range | tuple | list):
        return [to_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if is_value(value):
        plain = {"type": reference(type(value))}
        kept = {k: v for k, v in arguments(value).items() if not _is_nameless_default(value, k, v)}
        return plain | {k: to_plain(v) for k, v in kept.items()}
    if callable(value):
        return {"function": reference(value)}
    raise InputError(
        type(value).__name__,
        value,
        "can't be written as JSON; use numbers, strings, dataclasses or functions",
    )


def _is_nameless_default(value: Any, name: str, argument: Any) -> bool:
    """Whether an argument is a default without an importable name, such as flax's initialisers."""
    nameless = callable(argument) and "<" in getattr(argument, "__qualname__", "")
    cls: Any = type(value)
    defaults = value.defaults if hasattr(value, "defaults") else defaults_of(cls)
    return nameless and same_value(argument, defaults.get(name))


def from_plain(plain: Any) -> Any:
    """The inverse of `to_plain`; sequences come back as tuples.

    Only classes of spec values are called, and no file of the user is imported, so JSON from
    elsewhere runs no other code.
    """
    if isinstance(plain, list):
        return tuple(from_plain(v) for v in plain)
    if isinstance(plain, dict):
        if set(plain) == {"function"}:
            return dereference(plain["function"])
        fields = {k: from_plain(v) for k, v in plain.items() if k != "type"}
        if "type" not in plain:
            return fields
        renamed = RENAMED_ARGUMENTS.get(plain["type"], {})
        return _class(plain["type"])(**{renamed.get(k, k): v for k, v in fields.items()})
    return plain


def _class(ref: str) -> type:
    """The class of spec values with this name."""
    cls = dereference(ref)
    known = isinstance(cls, type) and (
        dataclasses.is_dataclass(cls) or issubclass(cls, Model | Source | Optimizer)
    )
    if not known:
        raise InputError("type", ref, "isn't a class of spec values, so the JSON was altered")
    return cls
