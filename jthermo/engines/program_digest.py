"""A digest of a traced program: what it computes, whatever its source code looks like.

The digest of a value is that of the operation that computes it and of the operation's operands. So
names, layout, comments, helper functions and unused values do not matter, while every operation and
every constant does. A function that JAX calls back on the host cannot be traced: it enters with its
bytecode and everything that this refers to.
"""

from __future__ import annotations

import dataclasses
import dis
import functools
import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, MethodType, ModuleType
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex

# Primitives that only call a program, by the name of the parameter that holds it.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vmap_call": "call",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
}
# Primitives with an effect that changes no result.
_PRINTS = ("debug_callback", "debug_print")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")
_LIBRARY = ("site-packages", "dist-packages")


def digest(function: Callable[..., Any], *shapes: Any) -> str:
    """Sixteen hex digits that identify what `function` computes for arguments of these shapes.

    >>> double = lambda x: x + x
    >>> digest(double, 1.0) == digest(lambda number: jax.jit(double)(number), 1.0)
    True
    >>> digest(double, 1.0) == digest(lambda x: 2 * x, 1.0)
    False
    """
    return _program(jax.make_jaxpr(function)(*shapes))[:16]


def digest_of_arrays(arrays: Mapping[str, Any]) -> str:
    """Sixteen hex digits that identify arrays and their names."""
    return _hash([_value(arrays, set())])[:16]


def _hash(parts: Sequence[str]) -> str:
    # lengths, so that no two lists of parts have the same text
    return hashlib.sha256("".join(f"{len(p)}:{p}" for p in parts).encode()).hexdigest()


def _program(program: Any) -> str:
    """Digest of a jaxpr as a function of its inputs, with its constants."""
    closed = program if isinstance(program, jex.ClosedJaxpr) else jex.ClosedJaxpr(program, ())
    inputs = [_hash(["input", str(i), str(v.aval)]) for i, v in enumerate(closed.jaxpr.invars)]
    effects: list[str] = []
    return _hash(["program", *_outputs(closed, inputs, effects), "effects", *effects])


def _outputs(closed: Any, inputs: Sequence[str], effects: list[str]) -> list[str]:
    """Digests of the outputs of a jaxpr from those of its inputs; its effects are appended."""
    jaxpr = closed.jaxpr
    known = dict(zip(jaxpr.invars, inputs, strict=True))
    known |= {
        v: _value(const, set()) for v, const in zip(jaxpr.constvars, closed.consts, strict=True)
    }

    def of(atom: Any) -> str:
        if isinstance(atom, jex.Literal):
            return _hash(["literal", _value(np.asarray(atom.val), set())])
        return known[atom]

    for eqn in jaxpr.eqns:
        operands = [of(atom) for atom in eqn.invars]
        called = eqn.params.get(_CALLS.get(eqn.primitive.name, ""))
        if called is not None:
            inner = called if isinstance(called, jex.ClosedJaxpr) else jex.ClosedJaxpr(called, ())
            results = _outputs(inner, operands, effects)
            # the user's rule for several runs at once replaces the program
            if (rule := _vmap_rule(eqn)) is not None:
                results = [_hash(["rule", rule, result]) for result in results]
        else:
            settings = [f"{k}={_value(v, set())}" for k, v in sorted(eqn.params.items())]
            operation = _hash([eqn.primitive.name, *settings, "operands", *operands])
            results = [_hash([operation, str(i)]) for i in range(len(eqn.outvars))]
            if eqn.effects and eqn.primitive.name not in _PRINTS:
                effects.append(operation)
        known |= dict(zip(eqn.outvars, results, strict=True))
    return [of(atom) for atom in jaxpr.outvars]


def _vmap_rule(eqn: Any) -> str | None:
    """Digest of the rule of a function with ``jax.custom_batching``; None for JAX's own rules."""
    rule = getattr(eqn.params.get("rule"), "rule", None)
    return None if rule is None or _is_library(rule.__module__) else _value(rule, set())


def _value(value: Any, seen: set[int]) -> str:
    """Text that identifies a constant or a parameter of an operation."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, jex.Jaxpr | jex.ClosedJaxpr):
        return _program(value)
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return _hash(["key", str(value.dtype), _value(jax.random.key_data(value), seen)])
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(value)
        body = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        return f"{array.dtype} {array.shape} {body}"
    if isinstance(value, type) and issubclass(value, np.generic):
        return value.__name__
    if id(value) in seen:
        return "seen"
    seen = seen | {id(value)}
    if isinstance(value, tuple | list):
        return _hash([type(value).__name__, *(_value(v, seen) for v in value)])
    if isinstance(value, set | frozenset):
        return _hash(sorted(_value(v, seen) for v in value))
    if isinstance(value, Mapping):
        return _hash(sorted(_hash([_value(k, seen), _value(v, seen)]) for k, v in value.items()))
    if isinstance(value, CodeType):
        return _bytecode(value, seen)
    if isinstance(value, functools.partial):
        return _hash([_value(v, seen) for v in (value.func, value.args, value.keywords)])
    if isinstance(value, MethodType):
        return _hash([_value(value.__func__, seen), _value(value.__self__, seen)])
    if isinstance(value, ModuleType):
        return value.__name__
    value = inspect.unwrap(value) if callable(value) else value
    if hasattr(value, "__qualname__") and _is_library(value.__module__):
        return f"{value.__module__}:{value.__qualname__}"
    if hasattr(value, "__code__"):
        return _hash(["function", *(_value(v, seen) for v in _function(value))])
    if isinstance(value, type):
        return _hash([value.__qualname__, _value(_own_attributes(value), seen)])
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return _hash([_value(type(value), seen), _value(fields, seen)])
    if hasattr(value, "__dict__"):
        return _hash([_value(type(value), seen), _value(vars(value), seen)])
    return _ADDRESS.sub("", repr(value))


def _is_library(name: str | None) -> bool:
    """Whether a module is jthermo's, Python's or an installed package's; None is Python's."""
    file = getattr(sys.modules.get(name or ""), "__file__", None) or ""
    root = (name or "builtins").partition(".")[0]
    known = root == "jthermo" or root in sys.stdlib_module_names
    return known or any(part in file for part in _LIBRARY)


def _own_attributes(cls: type) -> dict[str, Any]:
    """The functions and values in the body of a user's class."""
    return {k: v for k, v in vars(cls).items() if not k.startswith("__") or callable(v)}


def _function(function: Any) -> list[Any]:
    """Everything that determines what a Python function does: code, defaults, outer variables."""
    code, scope = function.__code__, function.__globals__
    names = _names(code)
    used = {name: scope[name] for name in names if name in scope}
    # of a module of the user's own, the parts whose names occur in the function
    for name, value in list(used.items()):
        if isinstance(value, ModuleType) and not _is_library(value.__name__):
            used |= {f"{name}.{n}": getattr(value, n) for n in names if hasattr(value, n)}
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return [code, function.__defaults__, function.__kwdefaults__, cells, used]


def _names(code: CodeType) -> set[str]:
    """Names that a function and the functions within it look up."""
    inner = (c for c in code.co_consts if isinstance(c, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _bytecode(code: CodeType, seen: set[int]) -> str:
    """The instructions of a function with their operands; comments and docstrings are not in it."""
    instructions = [_hash([i.opname, _value(i.argval, seen)]) for i in dis.get_instructions(code)]
    return _hash([f"{sys.version_info.major}.{sys.version_info.minor}", *instructions])
