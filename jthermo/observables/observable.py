"""What is measured at a record: one small value per observable, written for one run; the sweep maps it over runs.

An observable is a function ``(model, params, probe) -> array`` (or a dict of arrays by variable name). A user's own
plain function is one too: its name becomes the variable's name. The probe is drawn from a stream of its own, anew at
each record, and never touches the training stream.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jthermo.errors import InputError
from jthermo.models import Model
from jthermo.observables import cost

LAPACK = {
    "cholesky", "cholesky_update", "eig", "eigh", "geqp3", "geqrf", "hessenberg", "householder_product", "lu", "ormqr",
    "qr", "schur", "svd", "triangular_solve", "tridiagonal", "tridiagonal_solve",
}  # fmt: skip  # JAX's primitives that become LAPACK on a CPU


class Probe(NamedTuple):
    """What an observable may look at besides the parameters of its run.

    Attributes:
        x: fresh inputs, (M, ...): from the distribution of a synthetic source, from the training split of a held set.
        y: their labels, (M,) class indices; or real targets, (M,) or (M, C).
        data: the data source.
        loss: ``"bce"``, ``"squared"`` or ``"softmax"``.
        learning_rate: η of the run.
        batch_size: B of the run.
        test: fresh x and y of the test split, None where the source has none.
        key: for estimators that draw numbers, new at each record.
        record: () which record this is, from 0.
    """

    x: Array
    y: Array
    data: Any
    loss: str
    learning_rate: Array
    batch_size: int
    test: tuple[Array, Array] | None = None
    key: Any = None
    record: Any = 0


class Variable(NamedTuple):
    """How a recorded variable is labelled: its definition in words, its unit and its dims beyond (run, record)."""

    long_name: str
    units: str = "1"
    dims: tuple[str, ...] = ()


class Observable(abc.ABC):
    """Base of the built-in observables."""

    @abc.abstractmethod
    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """The variables it records for a model and a data source."""

    @abc.abstractmethod
    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """Its variables for one run."""

    def check(self, model: Model, data: Any, loss: str) -> None:  # noqa: B027
        """Raise an InputError where it makes no sense for this model, data source or loss."""

    @property
    def period(self) -> int:
        """n, where it is measured at every n-th record."""
        return 1

    def cost(self, model: Model, data: Any, probe_size: int, loss: str = "bce") -> float:
        """What a record at which it is due costs, in gradients of one example; divided by B it is in steps.

        Arithmetic counted in its traced program.
        """
        return _cost(self, model, data, probe_size, loss)


@dataclass(frozen=True)
class Custom(Observable):
    """A user's function ``(model, params, probe) -> array`` as an observable.

    Args:
        fn: the function, written for one run; its name becomes the variable's name.
    """

    fn: Callable[[Model, Any, Probe], Array]

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """The function's name, with one dim per axis of what it returns."""
        name = self.fn.__name__
        words = (self.fn.__doc__ or name).strip().partition("\n")[0]
        measure, shapes = _on_shapes(self, model, data, 2, "bce")
        rank = jax.eval_shape(measure, *shapes)[name].ndim
        return {name: Variable(words, dims=tuple(f"{name}_{i}" for i in range(rank)))}

    def check(self, model: Model, data: Any, loss: str) -> None:
        """The function has to run on this model and return one array."""
        try:
            self.variables(model, data)
        except Exception as error:
            raise InputError(
                "record.observables",
                self.fn,
                f"fails on this model: {type(error).__name__}: {error}",
            ) from None

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """What the function returns, under its name."""
        return {self.fn.__name__: _lane_by_lane(lambda: jnp.asarray(self.fn(model, params, probe)))}


def _lane_by_lane(measure: Callable[[], Array]) -> Array:
    """``measure()``, whose linear algebra on a CPU runs over the lanes of a vmap one after another.

    jaxlib's batched LAPACK waits for tasks that it puts into the thread pool it runs in: with as many programs as
    threads it waits for ever. One matrix at a time it is computed where it is.
    """
    closed = jax.make_jaxpr(measure)()
    if jax.default_backend() != "cpu" or not LAPACK & cost.primitives(closed.jaxpr):
        return measure()
    evaluate = jax.custom_batching.sequential_vmap(
        lambda *a: jax.core.eval_jaxpr(closed.jaxpr, a)[0]
    )
    return evaluate(*closed.consts)


@functools.lru_cache(maxsize=1024)
def _cost(observable: Observable, model: Model, data: Any, size: int, loss: str) -> float:
    measure, shapes = _on_shapes(observable, model, data, size, loss)

    def gradient(params: Any, x: Array, y: Array) -> Any:
        outputs, pull_back = jax.vjp(lambda p: model.apply(p, x), params)
        return pull_back(outputs)

    made, unit = (cost.operations(jax.make_jaxpr(f)(*shapes).jaxpr) for f in (measure, gradient))
    return made / (unit / size)


def _on_shapes(
    observable: Observable, model: Model, data: Any, size: int, loss: str
) -> tuple[Callable[..., dict[str, Array]], tuple[Any, ...]]:
    """An observable as a function of parameters, x and y, and their shapes for a probe of so many examples."""

    def measure(params: Any, x: Array, y: Array) -> dict[str, Array]:
        test = (x, y) if data.has_test else None
        probe = Probe(x, y, data, loss, jnp.float32(0.1), 1, test, jax.random.key(0), jnp.int32(0))
        return observable(model, params, probe)

    x = jax.ShapeDtypeStruct((size, *data.shape), jnp.float32)
    return measure, (model.shapes, x, jax.ShapeDtypeStruct((size,), jnp.int32))


def as_observable(obj: Any) -> Observable:
    """An observable, from one or from a user's function."""
    if isinstance(obj, Observable):
        return obj
    if callable(obj) and not isinstance(obj, type) and hasattr(obj, "__name__"):
        if obj.__module__.startswith(__name__.rpartition(".")[0]):
            raise InputError("record.observables", obj.__name__, f"call it: jt.{obj.__name__}(...)")
        return Custom(obj)
    raise InputError(
        "record.observables",
        obj,
        "give observables such as jt.activation_rate() or a function (model, params, probe)",
    )


def norm(x: Array) -> Array:
    """√Σ x² over the last axis, without overflow on the way: a run about to diverge has parameters of 10²⁰ and more."""
    largest = jnp.abs(x).max(-1, keepdims=True)
    unit = jnp.where(largest > 0, largest, 1.0)
    return unit[..., 0] * jnp.sqrt(jnp.square(x / unit).sum(-1))


def needs_preactivations(model: Model, name: str) -> None:
    """Refuse an observable of hidden units for a model that shows none."""
    x = jax.ShapeDtypeStruct((2, *model.input_shape), jnp.float32)
    if not jax.eval_shape(model.preactivations, model.shapes, x):
        raise InputError(
            "record.observables",
            name,
            f"{model!r} shows no pre-activations; in the flax module call "
            'self.sow("preactivations", "name", a) before each nonlinearity',
        )


def named(params: Any) -> dict[str, Array]:
    """Leaves of a parameter tree by path, ``"Dense_0/kernel"``."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {
        "/".join(str(getattr(k, "key", getattr(k, "idx", k))) for k in path): leaf
        for path, leaf in leaves
    }
