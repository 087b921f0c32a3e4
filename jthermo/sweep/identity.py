"""Sweep ids and stream numbers: the canonical form of spec values, and digests of it."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import textwrap
import tokenize
from collections.abc import Callable, Mapping
from typing import Any

from jthermo.errors import InputError
from jthermo.sweep.json_codec import to_plain
from jthermo.sweep.spec_value import arguments, defaults_of, is_value, same_value
from jthermo.sweep.stable_names import reference


def canonical(value: Any, *, source: bool = False) -> Any:
    """`to_plain` without arguments at their default, so new arguments with defaults change no id.

    With `source`, classes and functions from outside jthermo, flax and optax include a digest of
    their code, so an edited user model is a different model.
    """
    if isinstance(value, range | tuple | list):
        return [canonical(v, source=source) for v in value]
    if isinstance(value, Mapping):
        return {str(k): canonical(v, source=source) for k, v in sorted(value.items())}
    if is_value(value):
        cls: Any = type(value)
        defaults = value.defaults if hasattr(value, "defaults") else defaults_of(cls)
        # arguments such as a path say where data are, not what they are
        omitted = getattr(value, "unidentifying", ())
        named = {k: v for k, v in arguments(value).items() if k not in omitted}
        kept = {
            k: v for k, v in named.items() if k not in defaults or not same_value(v, defaults[k])
        }
        plain = {"type": reference(cls), **canonical(kept, source=source)}
        return plain | _source(cls) if source else plain
    if callable(value):
        plain = {"function": reference(value)}
        return plain | _source(value) if source else plain
    return to_plain(value)


def json_digest(plain: Any) -> str:
    """SHA-256 of JSON-serialisable data, independent of the order of keys."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _source(obj: type | Callable) -> dict[str, str]:
    """A digest of user code, ignoring comments and layout; empty for library code."""
    if obj.__module__.partition(".")[0] in ("jthermo", "flax", "optax", "builtins"):
        return {}
    closure = getattr(obj, "__closure__", None) or ()
    try:
        cells = [canonical(cell.cell_contents) for cell in closure]
        tree = ast.dump(ast.parse(textwrap.dedent(inspect.getsource(obj))))
    except (OSError, TypeError, SyntaxError, tokenize.TokenError, InputError):
        # without source code, the name alone identifies the object
        return {}
    return {"source": json_digest([tree, cells])[:16]}
