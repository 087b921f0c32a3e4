"""Base class of observables, the probe they measure on, and your own functions as observables.

An observable maps ``(model, params, probe)`` of one run to a dict of arrays by variable name; it is
vectorised over runs elsewhere. A plain function that returns one array is an observable too: its
name becomes the variable's name. The probe is drawn afresh at each record from its own random
stream, so observables do not affect training.
"""

from __future__ import annotations

import abc
import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Real

from jthermo.data.sampling import over_parts
from jthermo.errors import InputError, one_line
from jthermo.models import Model, leaves_by_path, loss_inputs
from jthermo.observables import cost
from jthermo.randomness.jax_settings import real
from jthermo.update_rule.losses import Loss

# Examples of a whole training set that are measured together; it bounds the memory.
PART = 4096
# JAX primitives that call LAPACK on a CPU.
LAPACK = {
    "cholesky", "cholesky_update", "eig", "eigh", "geqp3", "geqrf", "hessenberg",
    "householder_product", "lu", "ormqr", "qr", "schur", "svd", "triangular_solve", "tridiagonal",
    "tridiagonal_solve",
}  # fmt: skip


class Probe(NamedTuple):
    """Examples and settings of a run that an observable can use, in addition to the parameters.

    Attributes:
        x: fresh inputs, (M, …): drawn from the distribution of a synthetic source, or from the
            training split of a finite data set.
        y: labels of x: class indices, (M,), or real targets, (M,) or (M, C).
        data: the data source.
        loss: the name of the loss, a ``jt.losses.Softmax``, or your own function.
        learning_rate: η of the run, ().
        batch_size: B of the run.
        test: fresh x and y of the test split; None if the source has no test split.
        key: JAX random key for estimators that draw numbers, new at each record.
        record: index of the record, (), from 0.
        whole: whether x and y are the whole finite training set (``probe_size="all"``).
    """

    x: Float[Array, "m ..."]
    y: Int[Array, " m"] | Float[Array, " m"] | Float[Array, "m c"]
    data: Any
    loss: Loss
    learning_rate: Float[Array, ""]
    batch_size: int
    test: tuple[Float[Array, "m ..."], Real[Array, "m ..."]] | None = None
    key: Any = None
    record: Int[Array, ""] | int = 0
    whole: bool = False


class Variable(NamedTuple):
    """Label of a recorded variable: definition in words, unit, and dims after (run, record)."""

    long_name: str
    units: str = "1"
    dims: tuple[str, ...] = ()


class Observable(abc.ABC):
    """Base class of the built-in observables."""

    @abc.abstractmethod
    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """The variables that the observable records for this model and data source, by name."""

    @abc.abstractmethod
    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """Values of the variables for one run, by name."""

    def check(self, model: Model, data: Any, loss: Loss) -> None:  # noqa: B027
        """Raise an InputError if the observable is undefined for this model, data or loss."""

    @property
    def period(self) -> int:
        """The number n if the observable is measured at every n-th record."""
        return 1

    def cost(self, model: Model, data: Any, probe_size: int, loss: Loss = "bce") -> float:
        """Cost of one measurement, in gradients of one example; divide by B for training steps.

        The cost is the number of floating-point operations in the traced program.
        """
        return _cost(self, model, data, probe_size, loss)


@dataclass(frozen=True)
class Custom(Observable):
    """A user's function ``(model, params, probe) -> array`` as an observable.

    Args:
        fn: the function for one run; its name becomes the variable's name.
    """

    fn: Callable[[Model, Any, Probe], Array]

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """One variable with the function's name and one dim per axis of the returned array."""
        name = self.fn.__name__
        long_name = (self.fn.__doc__ or name).strip().partition("\n")[0]
        measure, shapes = _on_shapes(self, model, data, 2, "bce")
        rank = jax.eval_shape(measure, *shapes)[name].ndim
        return {name: Variable(long_name, dims=tuple(f"{name}_{i}" for i in range(rank)))}

    def check(self, model: Model, data: Any, loss: Loss) -> None:
        """Refuse a function that fails on this model or does not return one array."""
        if _crosses_examples(self, model, data):
            remedy = (
                "combines model.apply(params, x), which has the shape (M, 1), with an array (M,), "
                "so that every example meets every other; use [:, 0] of the outputs"
            )
            raise InputError("record.observables", self.fn, remedy)
        try:
            self.variables(model, data)
        except Exception as error:
            remedy = (
                "this function fails on the sweep's model: "
                f"{type(error).__name__}: {one_line(error)}"
            )
            raise InputError("record.observables", self.fn, remedy) from None

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """The returned array by the function's name."""
        return {self.fn.__name__: lane_by_lane(lambda: jnp.asarray(self.fn(model, params, probe)))}


def lane_by_lane(measure: Callable[[], Array]) -> Array:
    """``measure()``; if it calls LAPACK on a CPU, the lanes of a vmap run one after another.

    jaxlib's batched LAPACK submits tasks to the thread pool in which it runs itself and waits for
    them. If there are as many programs as threads, it deadlocks. A single matrix is factorised in
    the calling thread, without such tasks.
    """
    closed = jax.make_jaxpr(measure)()
    if jax.default_backend() != "cpu" or not LAPACK & cost.primitives(closed.jaxpr):
        return measure()
    evaluate = jax.custom_batching.sequential_vmap(
        lambda *a: jax.core.eval_jaxpr(closed.jaxpr, a)[0]
    )
    return evaluate(*closed.consts)


@functools.lru_cache(maxsize=1024)
def _cost(observable: Observable, model: Model, data: Any, size: int, loss: Loss) -> float:
    measure, shapes = _on_shapes(observable, model, data, size, loss)

    def gradient(params: Any, x: Array, y: Array) -> Any:
        outputs, pull_back = jax.vjp(lambda p: loss_inputs(model.apply(p, x)), params)
        return pull_back(outputs)

    measured, gradients = (
        cost.operations(jax.make_jaxpr(f)(*shapes).jaxpr) for f in (measure, gradient)
    )
    return measured / (gradients / size)


def _on_shapes(
    observable: Observable, model: Model, data: Any, size: int, loss: Loss
) -> tuple[Callable[..., dict[str, Array]], tuple[Any, ...]]:
    """The observable as a function of (params, x, y), and their shapes for a probe of `size`."""

    def measure(params: Any, x: Array, y: Array) -> dict[str, Array]:
        test = (x, y) if data.has_test else None
        probe = Probe(
            x, y, data, loss, jnp.asarray(0.1, float), 1, test, jax.random.key(0), jnp.int32(0)
        )
        return observable(model, params, probe)

    x = jax.ShapeDtypeStruct((size, *data.shape), model.x_dtype)
    number = data.num_targets
    y = jax.ShapeDtypeStruct(
        (size, number) if number and number > 1 else (size,), real() if number else jnp.int32
    )
    return measure, (model.shapes, x, y)


def _crosses_examples(observable: Observable, model: Model, data: Any) -> bool:
    """Whether an observable combines outputs (M, 1) with an array (M,), which gives (M, M).

    Then it promotes ranks, and no longer does if the outputs are (M,).
    """
    if model.output_shape != (2, 1):
        return False
    flat = copy.copy(model)
    vars(flat)["apply"] = lambda params, x: loss_inputs(model.apply(params, x))

    def failure(model: Model) -> str:
        measure, shapes = _on_shapes(observable, model, data, 2, "bce")
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


def mean_over_parts(probe: Probe, measure: Callable[..., Any], *arrays: Any) -> Any:
    """``measure(*arrays)``, a pytree of means over the examples of the arrays (M, …).

    A whole training set is measured in parts, which bounds the memory.
    """
    count = len(arrays[0])
    if not probe.whole or count <= PART:
        return measure(*arrays)

    def add(total: Any, index: Array) -> Any:
        mean = measure(*(a[index] for a in arrays))
        return jax.tree.map(lambda t, m: t + len(index) / count * m, total, mean)

    shapes = jax.eval_shape(measure, *(a[:PART] for a in arrays))
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, float), shapes)
    return over_parts(add, zero, count, PART)


def norm(x: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
    """√Σ x² over the last axis, without overflow of x².

    A run that is about to diverge has parameters above 10²⁰, whose squares overflow float32.

    >>> float(norm(jnp.array([3e30, 4e30])) / 1e30)
    5.0
    """
    largest = jnp.abs(x).max(-1, keepdims=True)
    unit = jnp.where(largest > 0, largest, 1.0)
    return unit[..., 0] * jnp.sqrt(jnp.square(x / unit).sum(-1))


def needs_preactivations(model: Model, name: str) -> None:
    """Raise an InputError if the model has no pre-activations for the observable `name`."""
    if not jax.eval_shape(model.preactivations, model.shapes, model.examples(2)):
        raise InputError(
            "record.observables",
            name,
            f"{model!r} records no pre-activations; {model.how_to_show_preactivations}",
        )


def named(params: Any) -> dict[str, Any]:
    """Leaves of a parameter tree by path, such as ``"Dense_0/kernel"``."""
    return {"/".join(path): leaf for path, leaf in leaves_by_path(params).items()}
