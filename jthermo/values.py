"""Spec values as plain JSON and back, their canonical form, and fields by dotted name.

A spec value is anything with constructor arguments: a frozen dataclass, a :class:`jthermo.models.Model`, an
:class:`jthermo.optimizer.Optimizer` or a flax module. ``arguments`` is the one place that knows how to read them.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import importlib
import inspect
import json
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from jthermo.errors import InputError

_FLAX_OWN = ("parent", "name")  # bookkeeping fields of flax.linen.Module

# Every class and function of jthermo that sweep ids, random streams or JSON name: the name written, then where the
# object is defined today. The written names are permanent: changing one changes ids and random numbers and makes
# existing results folders unreadable. When code moves, only the right-hand side changes.
STABLE_NAMES = {
    "jthermo.models:Model": "jthermo.models.model:Model",
    "jthermo.models:Flax": "jthermo.models.model:Flax",
    "jthermo.models:TwoLayer": "jthermo.models.two_layer:TwoLayer",
    "jthermo.models:MLP": "jthermo.models.mlp:MLP",
    "jthermo.models:CNN": "jthermo.models.cnn:CNN",
    "jthermo.data.synthetic:Gaussian": "jthermo.data.synthetic:Gaussian",
    "jthermo.data.synthetic:Uniform": "jthermo.data.synthetic:Uniform",
    "jthermo.data.synthetic:Sphere": "jthermo.data.synthetic:Sphere",
    "jthermo.data.teacher:Teacher": "jthermo.data.teacher:Teacher",
    "jthermo.data.images:FashionMNIST": "jthermo.data.images:FashionMNIST",
    "jthermo.data.images:CIFAR10": "jthermo.data.images:CIFAR10",
    "jthermo.data.arrays:Arrays": "jthermo.data.arrays:Arrays",
    "jthermo.noise:Full": "jthermo.update_rule.residual_noise:Full",
    "jthermo.noise:Unbiased": "jthermo.update_rule.residual_noise:Unbiased",
    "jthermo.noise:LabelAveraged": "jthermo.update_rule.residual_noise:LabelAveraged",
    "jthermo.optimizer:Optimizer": "jthermo.update_rule.optimizer:Optimizer",
    "jthermo.optimizer:stepped_sgd": "jthermo.update_rule.schedule:stepped_sgd",
    "jthermo.schedule:LogSteps": "jthermo.schedule:LogSteps",
    "jthermo.schedule:Every": "jthermo.schedule:Every",
    "jthermo.schedule:RescaledSteps": "jthermo.schedule:RescaledSteps",
    "jthermo.spec:Record": "jthermo.spec:Record",
    "jthermo.spec:Config": "jthermo.spec:Config",
    "jthermo.spec:Sweep": "jthermo.spec:Sweep",
    "jthermo.observables:ActivationRate": "jthermo.observables.activation:ActivationRate",
    "jthermo.observables:UnitActivation": "jthermo.observables.activation:UnitActivation",
    "jthermo.observables:Custom": "jthermo.observables.base:Custom",
    "jthermo.observables:Kappa": "jthermo.observables.curvature:Kappa",
    "jthermo.observables:HessianTrace": "jthermo.observables.curvature:HessianTrace",
    "jthermo.observables:TraceBound": "jthermo.observables.curvature:TraceBound",
    "jthermo.observables:TopEigenvalues": "jthermo.observables.curvature:TopEigenvalues",
    "jthermo.observables:GradientVariance": "jthermo.observables.gradient:GradientVariance",
    "jthermo.observables:Accuracy": "jthermo.observables.training:Accuracy",
    "jthermo.observables:Loss": "jthermo.observables.training:Loss",
    "jthermo.observables:MeanSquaredResidual": "jthermo.observables.training:MeanSquaredResidual",
    "jthermo.observables:WeightNorm": "jthermo.observables.training:WeightNorm",
    "jthermo.observables:LayerStatistics": "jthermo.observables.layers:LayerStatistics",
    "jthermo.observables:Sparse": "jthermo.observables.sparse:Sparse",
}
_WRITTEN = {place: name for name, place in STABLE_NAMES.items()}


def is_value(value: object) -> bool:
    """Whether `value` has constructor arguments that `arguments` can read."""
    return not isinstance(value, type) and (hasattr(value, "arguments") or dataclasses.is_dataclass(value))


def arguments(value: Any) -> dict[str, Any]:
    """The constructor arguments of a spec value, by name."""
    if hasattr(value, "arguments"):
        return dict(value.arguments)
    names = [f.name for f in dataclasses.fields(value) if f.init and f.name not in _FLAX_OWN]
    return {name: getattr(value, name) for name in names}


def replace(value: Any, /, **changes: Any) -> Any:
    """A copy of a spec value with some constructor arguments changed, validated again."""
    return type(value)(**{**arguments(value), **changes})


def main_name() -> str:
    """The name by which the running program can be imported: ``python sweep.py`` and ``import sweep`` mean one thing."""
    main = sys.modules["__main__"]
    if (spec := getattr(main, "__spec__", None)) is not None:
        return spec.name
    file = getattr(main, "__file__", None)
    return "__main__" if file is None else Path(file).stem


def loaded(module: str) -> ModuleType | None:
    """A module by that name, where it is loaded."""
    return sys.modules.get(module) or (sys.modules["__main__"] if module == main_name() else None)


def reference(obj: Any) -> str:
    """The name of a class or function in ids and JSON: its stable name, else the shortest public ``module:name``."""
    module, name = obj.__module__, obj.__qualname__
    if (written := _WRITTEN.get(f"{module}:{name}")) is not None:
        return written
    if module == "__main__":
        module = main_name()
    root = module.partition(".")[0]
    if root != "jthermo" and getattr(sys.modules.get(root), name, None) is obj:
        module = root
    return f"{module}:{name}"


def dereference(ref: str) -> Any:
    """The class or function that :func:`reference` wrote as `ref`."""
    module, _, name = STABLE_NAMES.get(ref, ref).partition(":")
    try:
        return functools.reduce(getattr, name.split("."), loaded(module) or importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        remedy = "define it in a file that can be imported (not in a notebook cell or inside a function)"
        raise InputError("type", ref, f"can't be imported ({error}); {remedy}") from None


def to_plain(value: Any) -> Any:
    """A spec value as JSON-able dicts, lists and scalars, complete with the defaults that have a name."""
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
        kept = {k: v for k, v in arguments(value).items() if not _made_by_default(value, k, v)}
        return plain | {k: to_plain(v) for k, v in kept.items()}
    if callable(value):
        return {"function": reference(value)}
    raise InputError(
        type(value).__name__,
        value,
        "can't be written as JSON; use numbers, strings, dataclasses or functions",
    )


def _made_by_default(value: Any, name: str, argument: Any) -> bool:
    """Whether an argument at its default is a function without an importable name, as flax's initialisers are."""
    nameless = callable(argument) and "<" in getattr(argument, "__qualname__", "")
    made_by: Any = type(value)
    return nameless and _same(argument, _defaults(made_by).get(name))


def from_plain(plain: Any) -> Any:
    """The inverse of `to_plain`; sequences come back as tuples."""
    if isinstance(plain, list):
        return tuple(from_plain(v) for v in plain)
    if isinstance(plain, dict):
        if set(plain) == {"function"}:
            return dereference(plain["function"])
        made = {k: from_plain(v) for k, v in plain.items() if k != "type"}
        return dereference(plain["type"])(**made) if "type" in plain else made
    return plain


def canonical(value: Any, *, source: bool = False) -> Any:
    """`to_plain` without arguments that stand at their default, so that a new default changes no identity.

    With `source`, classes and functions from outside jthermo, flax and optax carry a digest of their code: an
    edited user model is another model.
    """
    if isinstance(value, range | tuple | list):
        return [canonical(v, source=source) for v in value]
    if isinstance(value, Mapping):
        return {str(k): canonical(v, source=source) for k, v in sorted(value.items())}
    if is_value(value):
        cls: Any = type(value)
        defaults = value.defaults if hasattr(value, "defaults") else _defaults(cls)
        where = getattr(value, "unidentifying", ())  # arguments that say where a thing lies, not what it is
        named = {k: v for k, v in arguments(value).items() if k not in where}
        kept = {k: v for k, v in named.items() if k not in defaults or not _same(v, defaults[k])}
        plain = {"type": reference(cls), **canonical(kept, source=source)}
        return plain | _source(cls) if source else plain
    if callable(value):
        plain = {"function": reference(value)}
        return plain | _source(value) if source else plain
    return to_plain(value)


def digest(plain: Any) -> str:
    """SHA-256 of JSON-able data, independent of the order of keys."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and a == b


@functools.lru_cache(maxsize=256)
def _defaults(cls: type) -> dict[str, Any]:
    parameters = inspect.signature(cls).parameters.values()
    found = {p.name: p.default for p in parameters if p.default is not p.empty}
    if dataclasses.is_dataclass(cls):  # a default_factory shows as a sentinel in the signature
        made = {f.name: f.default_factory() for f in dataclasses.fields(cls) if callable(f.default_factory)}
        found |= made
    return found


def _source(obj: type | Callable) -> dict[str, str]:
    """A digest of user code that ignores comments and layout; nothing for library code, which has versions."""
    if obj.__module__.partition(".")[0] in ("jthermo", "flax", "optax", "builtins"):
        return {}
    closure = getattr(obj, "__closure__", None) or ()
    try:
        cells = [canonical(cell.cell_contents) for cell in closure]
        tree = ast.dump(ast.parse(textwrap.dedent(inspect.getsource(obj))))
    except (OSError, TypeError, SyntaxError, InputError):  # no source at hand: the name has to do
        return {}
    return {"source": digest([tree, cells])[:16]}


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
    have = arguments(value) if is_value(value) else {}
    if name not in have:
        raise InputError(
            "field", path, f"{type(value).__name__} has no {name!r}; it has {', '.join(have) or 'no fields'}"
        )
    return have[name]


def float_fields(value: Any) -> dict[str, float]:
    """The float arguments of a spec value: those that a program takes as inputs, so that no value of them recompiles."""
    return {k: v for k, v in arguments(value).items() if isinstance(v, float)}
