"""Checks that the variables of all observables of a sweep fit into one dataset."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import jax

from jthermo.errors import InputError
from jthermo.models import Model
from jthermo.observables.custom import Custom
from jthermo.observables.observable import Observable, on_shapes
from jthermo.update_rule.losses import Loss

# Names in the dataset and in record files that are not those of variables.
RESERVED = ("run", "record", "step", "seed", "key", "finite")


def check_variables(
    observables: Sequence[Observable], model: Model, data: Any, loss: Loss, axes: Collection[str]
) -> None:
    """Raise an InputError unless names, sizes and coordinates of the variables agree.

    Args:
        observables: all observables of a sweep.
        model: the model of some runs.
        data: their data source.
        loss: their loss.
        axes: names of the sweep's axes.
    """
    labels = [(o, o.variables(model, data)) for o in observables]
    seen: set[str] = set()
    dims: dict[str, list[Observable]] = {}
    for observable, variables in labels:
        for name in variables:
            if name in axes:
                remedy = (
                    f"records {name}, which is also the name of an axis; record it by a function "
                    "of your own with another name"
                )
                raise InputError("record.observables", observable, remedy)
            _check_name(observable, "a variable", name, RESERVED)
            if name in seen:
                remedy = f"records {name}, which another observable records too; remove one of them"
                raise InputError("record.observables", observable, remedy)
            seen.add(name)
        for dim in dict.fromkeys(d for v in variables.values() for d in v.dims):
            dims.setdefault(dim, []).append(observable)
    known: dict[str, tuple[int, tuple[str, ...]]] = {}
    for observable, variables in labels:
        own = [d for d, users in dims.items() if observable in users]
        for dim in own:
            _check_name(observable, "a dim", dim, {*RESERVED, *axes, *seen})
        # the dims of jthermo's own observables agree among themselves
        if not any(isinstance(user, Custom) for dim in own for user in dims[dim]):
            continue
        measure, arrays = on_shapes(observable, observable.optimizer, model, data, 2, loss)
        for name, like in jax.eval_shape(measure, *arrays).items():
            for dim, size in zip(variables[name].dims, like.shape, strict=True):
                found = size, variables[name].coords.get(dim, known.get(dim, (size, ()))[1])
                if known.setdefault(dim, found) != found:
                    remedy = (
                        f"records {name} with another size or other names along the dim {dim!r} "
                        "than another variable; give the dim another name"
                    )
                    raise InputError("record.observables", observable, remedy)


def _check_name(observable: Observable, kind: str, name: str, taken: Collection[str]) -> None:
    if not isinstance(name, str) or "/" in name or name in taken:
        remedy = f"has {kind} named {name!r}, which results can't have; give it another name"
        raise InputError("record.observables", observable, remedy)
