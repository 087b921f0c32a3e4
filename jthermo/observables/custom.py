"""A user's function as an observable, and the decorator that labels what it records."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jthermo.errors import InputError, one_line
from jthermo.models import Model, loss_inputs
from jthermo.observables.observable import (
    Observable,
    Probe,
    Variable,
    lane_by_lane,
    on_shapes,
    uses_last_step,
)
from jthermo.update_rule.losses import Loss

# The attribute of a function that holds its labels; functools.wraps copies it.
LABELS = "jthermo_labels"


class Labels(NamedTuple):
    """The arguments of :func:`observable`."""

    dims: Any = None
    units: Any = "1"
    long_name: Any = None
    coords: Any = None


def observable(
    fn: Any = None,
    *,
    dims: Any = None,
    units: Any = "1",
    long_name: Any = None,
    coords: Mapping[str, Any] | None = None,
) -> Any:
    """Decorator of a function ``(model, params, probe)``: labels what it records.

    Args:
        fn: the function. It returns an array, recorded under its own name, or a dict of arrays,
            each recorded under its key.
        dims: names of the axes of the array, ``name_0``, ``name_1``, … if omitted. Variables that
            share a dim must have one size along it.
        units: the unit.
        long_name: the definition in words; the first line of the docstring if omitted.
        coords: names along a dim, by dim: ``{"layer": ("hidden", "output")}``.

    For a function that returns a dict, `dims`, `units` and `long_name` can each be a dict by
    variable.

    Returns:
        The function itself. Wrong labels are an InputError when the sweep is built.

    >>> @observable(dims=("unit",), units="1", long_name="norm of each unit's weights")
    ... def unit_norm(model, params, probe):
    ...     return jnp.linalg.norm(params["W"], axis=1)
    >>> import jthermo as jt
    >>> model, data = jt.models.TwoLayer(inputs=3, hidden=4), jt.data.Gaussian(dim=3)
    >>> Custom(unit_norm).variables(model, data)["unit_norm"].dims
    ('unit',)
    """
    if fn is None:
        return functools.partial(
            observable, dims=dims, units=units, long_name=long_name, coords=coords
        )
    setattr(fn, LABELS, Labels(dims, units, long_name, coords))
    return fn


@dataclass(frozen=True)
class Custom(Observable):
    """A user's function ``(model, params, probe)`` as an observable.

    Args:
        fn: the function for one run. It returns an array, and its name becomes the variable's name;
            or a dict of arrays by variable name.
    """

    fn: Callable[[Model, Any, Probe], Any]

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """The variables with the labels of :func:`observable`, or one dim per axis."""
        labels, shapes = getattr(self.fn, LABELS, Labels()), self.shapes(model, data)
        # without the full stop of a docstring, since it labels an axis
        words = (self.fn.__doc__ or "").strip().partition("\n")[0].rstrip(". ")
        variables = {}
        for name, like in shapes.items():
            default = f"{words}: {name}" if words and name != self.fn.__name__ else words or name
            dims = _dims(labels, name) or tuple(f"{name}_{i}" for i in range(like.ndim))
            variables[name] = Variable(
                _of(labels.long_name, name) or default,
                _of(labels.units, name) or "1",
                dims,
                {k: tuple(v) for k, v in (labels.coords or {}).items() if k in dims},
            )
        return variables

    def shapes(self, model: Model, data: Any) -> dict[str, Any]:
        """Shapes and dtypes of the variables, for a probe of two examples."""
        measure, shapes = on_shapes(self, self.optimizer, model, data, 2, "bce")
        return jax.eval_shape(measure, *shapes)

    def check(self, model: Model, data: Any, loss: Loss) -> None:
        """Refuse a function that fails here, complex results, and labels that do not fit them."""
        if _crosses_examples(self, model, data):
            remedy = (
                "combines model.apply(params, x), which has the shape (M, 1), with an array (M,), "
                "so that every example meets every other; use [:, 0] of the outputs"
            )
            raise InputError("record.observables", self.fn, remedy)
        try:
            shapes = self.shapes(model, data)
        except Exception as error:
            remedy = (
                "this function fails on the sweep's model: "
                f"{type(error).__name__}: {one_line(error)}"
            )
            raise InputError("record.observables", self.fn, remedy) from None
        misfit = _misfit(getattr(self.fn, LABELS, Labels()), shapes)
        if misfit is not None:
            raise InputError("record.observables", self.fn, misfit)

    def reads_last_step(self, model: Model, data: Any, probe_size: int, loss: Loss) -> bool:
        """Whether the function uses ``probe.update`` or ``probe.batch_gradient``."""
        return uses_last_step(self, self.optimizer, model, data, probe_size, loss)

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """The returned array by the function's name, or the returned arrays by key."""

        def measure() -> dict[str, Array]:
            value = self.fn(model, params, probe)
            arrays = value if isinstance(value, dict) else {self.fn.__name__: value}
            if not arrays or not all(isinstance(name, str) for name in arrays):
                raise TypeError("return an array, or a dict of arrays by name")
            return {name: jnp.asarray(array) for name, array in arrays.items()}

        recorded: dict[str, Array] = lane_by_lane(measure)
        return recorded


def _of(label: Any, name: str) -> Any:
    """The label of a variable, from a dict by variable or from a label of all."""
    return label.get(name) if isinstance(label, Mapping) else label


def _dims(labels: Labels, name: str) -> tuple[Any, ...] | None:
    dims = _of(labels.dims, name)
    return dims if dims is None else (dims,) if isinstance(dims, str) else tuple(dims)


def _misfit(labels: Labels, shapes: Mapping[str, Any]) -> str | None:
    """Why variables can't be recorded with these labels; None if they can."""
    by_name = [label for label in labels[:3] if isinstance(label, Mapping)]
    if unknown := {name for label in by_name for name in label} - set(shapes):
        return f"labels {', '.join(map(str, unknown))}, but records {', '.join(shapes)}"
    sizes: dict[str, int] = {}
    for name, like in shapes.items():
        if jnp.issubdtype(like.dtype, jnp.complexfloating):
            return f"records {name} in complex numbers; return its real and imaginary part"
        dims = _dims(labels, name)
        if dims is not None:
            if len(dims) != like.ndim or len(set(dims)) != like.ndim:
                return (
                    f"records {name} of the shape {like.shape}, but dims = {dims}; give every "
                    "axis a name of its own"
                )
            sizes |= dict(zip(dims, like.shape, strict=True))
    for dim, names in (labels.coords or {}).items():
        if (len(names), len(set(names))) != (sizes.get(dim),) * 2:
            return (
                f"has coords {tuple(names)} along {dim!r}, whose size is {sizes.get(dim)}; give "
                "every element a name of its own, and name the dim in dims"
            )
    return None


def _crosses_examples(observable: Observable, model: Model, data: Any) -> bool:
    """Whether an observable combines outputs (M, 1) with an array (M,), which gives (M, M).

    Then it promotes ranks, and no longer does if the outputs are (M,).
    """
    if model.output_shape != (2, 1):
        return False
    flat = copy.copy(model)
    vars(flat)["apply"] = lambda params, x: loss_inputs(model.apply(params, x))

    def failure(model: Model) -> str:
        measure, shapes = on_shapes(observable, observable.optimizer, model, data, 2, "bce")
        try:
            with jax.numpy_rank_promotion("raise"):
                jax.eval_shape(measure, *shapes)
        except Exception as error:
            return str(error) or type(error).__name__
        return ""

    return "jax_numpy_rank_promotion" in failure(model) and not failure(flat)


def as_observable(obj: Any) -> Observable:
    """An :class:`Observable`, from an observable or from a function ``(model, params, probe)``.

    Raises:
        InputError: `obj` is neither, or a built-in function that has not been called.
    """
    if isinstance(obj, Observable):
        return obj
    if callable(obj) and not isinstance(obj, type) and hasattr(obj, "__name__"):
        if str(obj.__module__).startswith(__name__.rpartition(".")[0]):
            raise InputError(
                "record.observables", obj.__name__, f"call the function: jt.{obj.__name__}(...)"
            )
        return Custom(obj)
    raise InputError(
        "record.observables",
        obj,
        "give observables such as jt.activation_rate(), or functions (model, params, probe)",
    )
