"""Checks the keys and types of JSON files, so that an altered one is an error that names the key.

A schema is a type, or a union of types; a pattern, which text has to match; ``[schema]``, a list;
``(schema, …)``, a list of that length; ``{key: schema}``, an object; or a function that chooses the
schema for a value. In an object ``"key?"`` may be absent and ``"*"`` stands for all other keys.
``object`` accepts any value.
"""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jthermo.errors import InputError
from jthermo.results.layout import SWEEP

NUMBER = float | int
_SWEEP: dict[str, Any] = {
    "id": str,
    "law": str,
    "sweep": {"*": object},
    "axes": [str],
    "runs": [
        {
            "key": str,
            "at": {"*": object},
            "seeds": [(int, int)],
            "lane_width?": int,
            "earlier?": [str],
            "coords?": {"*": [str]},
        }
    ],
    "variables": {"*": (str, str, [str])},
    "coords?": {"*": [str]},
    "files": {"*": str},
    "engine?": str,
    "engine_version?": int,
}
_MANIFEST: dict[str, Any] = {
    "parts": {"*": str},
    "attrs": {
        "wall_seconds?": NUMBER,
        "checkpoint_seconds?": NUMBER,
        "*": NUMBER | str,
    },
}


def checked(path: Path, plain: Any) -> Any:
    """The content of a JSON file of a results folder, with the keys that this file needs.

    Raises:
        InputError: a key is missing or its value has another type.
    """
    if path.name == SWEEP:
        return fitting(path, plain, _SWEEP)
    if path.name.startswith("manifest"):
        return fitting(path, plain, _MANIFEST)
    return plain


def fitting(path: Path, plain: Any, schema: Any) -> Any:
    """`plain`, the content of the file `path`, if it fits the schema.

    Raises:
        InputError: it doesn't; the message names the first key that differs.
    """
    if (problem := mismatch(plain, schema)) is not None:
        raise InputError(
            "file",
            str(path),
            f"{problem}, so it was altered; restore it from a copy, or remove it and run again",
        )
    return plain


def mismatch(plain: Any, schema: Any, name: str = "") -> str | None:
    """What differs from the schema, in words; None if nothing does.

    >>> mismatch({"runs": [{"key": 5}]}, {"runs": [{"key": str}]})
    'runs[0].key is 5 instead of str'
    """
    if isinstance(schema, types.FunctionType):
        schema = schema(plain)
    if isinstance(schema, Mapping):
        if not isinstance(plain, Mapping):
            return _wrong(name, plain, "an object")
        keys = {key.removesuffix("?"): key for key in schema if key != "*"}
        for key, written in keys.items():
            if key not in plain and not written.endswith("?"):
                return f"{_joined(name, key)} is missing"
        return _first(
            (_joined(name, key), value, schema.get(keys.get(key, "*"), object))
            for key, value in plain.items()
        )
    if isinstance(schema, list | tuple):
        if not isinstance(plain, list):
            return _wrong(name, plain, "a list")
        if isinstance(schema, tuple) and len(schema) != len(plain):
            return _wrong(name, plain, f"a list of {len(schema)}")
        inner_schemas = schema if isinstance(schema, tuple) else schema * len(plain)
        places = (f"{name}[{i}]" for i in range(len(plain)))
        return _first(zip(places, plain, inner_schemas, strict=True))
    if isinstance(schema, re.Pattern):
        matches = isinstance(plain, str) and schema.fullmatch(plain)
        return None if matches else _wrong(name, plain, f"text like {schema.pattern}")
    # in Python, bool is a kind of int
    fits = schema is object or (isinstance(plain, schema) and not isinstance(plain, bool))
    return None if fits else _wrong(name, plain, _words(schema))


def _first(parts: Any) -> str | None:
    found = (mismatch(value, schema, name) for name, value, schema in parts)
    return next((problem for problem in found if problem is not None), None)


def _joined(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)


def _wrong(name: str, plain: Any, wanted: str) -> str:
    return f"{name or 'it'} is {repr(plain)[:60]} instead of {wanted}"


def _words(schema: Any) -> str:
    options = schema.__args__ if isinstance(schema, types.UnionType) else (schema,)
    return " or ".join(option.__name__ for option in options)
