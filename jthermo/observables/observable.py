"""Base class of observables, and the probe they measure on.

An observable maps ``(model, params, probe)`` of one run to a dict of arrays by variable name; it is
vectorised over runs elsewhere. The probe is drawn afresh at each record from its own random stream,
so observables do not affect training.
"""

from __future__ import annotations

import abc
import copy
import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend import core as jex
from jaxtyping import Float, Int, Real

from jthermo.data.sampling import over_parts
from jthermo.errors import InputError
from jthermo.models import Model, loss_inputs
from jthermo.observables import cost
from jthermo.randomness.jax_settings import real
from jthermo.update_rule.losses import Loss
from jthermo.update_rule.optimizer import Optimizer, sgd

# Examples of a whole training set that are measured together; it bounds the memory.
PART = 4096
# JAX primitives that call LAPACK on a CPU.
LAPACK = {
    "cholesky", "cholesky_update", "eig", "eigh", "geqp3", "geqrf", "hessenberg",
    "householder_product", "lu", "ormqr", "qr", "schur", "svd", "triangular_solve", "tridiagonal",
    "tridiagonal_solve",
}  # fmt: skip


class NotMeasured:
    """In a probe, the place of the last step for observables that do not read it."""


class Probe(NamedTuple):
    """Examples and settings of a run that an observable can use, in addition to the parameters.

    The last two are those of the step that led to the recorded parameters, and zero at step 0. They
    are computed only for observables that read them, at the cost of one step per record.

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
        opt_state: the state of the optimizer, as optax returns it; random keys in it are words of
            uint32.
        update: the change of the parameters in the last step, shaped like them.
        batch_gradient: the gradient that the optimizer received in that step, shaped like the
            parameters: with the noise of ``Sweep(noise=…)``, of the net in training mode.
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
    opt_state: Any = ()
    update: Any = NotMeasured()
    batch_gradient: Any = NotMeasured()


class Variable(NamedTuple):
    """Label of a recorded variable.

    Attributes:
        long_name: its definition in words.
        units: its unit.
        dims: names of its axes after (run, record).
        coords: the names along dims that have some, by dim.
    """

    long_name: str
    units: str = "1"
    dims: tuple[str, ...] = ()
    coords: Mapping[str, tuple[str, ...]] = MappingProxyType({})


class Observable(abc.ABC):
    """Base class of the built-in observables.

    Attributes:
        optimizer: the optimizer of the runs, whose state the probe has.
    """

    optimizer: Optimizer = sgd()

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
        return _cost(self, self.optimizer, model, data, probe_size, loss)

    def of_optimizer(self, optimizer: Optimizer) -> Observable:
        """The observable of runs with this optimizer."""
        return _of_optimizer(self, optimizer)

    def reads_last_step(self, model: Model, data: Any, probe_size: int, loss: Loss) -> bool:
        """Whether it uses ``probe.update`` or ``probe.batch_gradient``; found by tracing it."""
        # those of jthermo do not, see tests/observables/test_last_step.py
        if type(self).__module__.startswith("jthermo."):
            return False
        return uses_last_step(self, self.optimizer, model, data, probe_size, loss)


def lane_by_lane(measure: Callable[[], Any]) -> Any:
    """``measure()``; if it calls LAPACK on a CPU, the lanes of a vmap run one after another.

    jaxlib's batched LAPACK submits tasks to the thread pool in which it runs itself and waits for
    them. If there are as many programs as threads, it deadlocks. A single matrix is factorised in
    the calling thread, without such tasks.
    """
    closed, shapes = jax.make_jaxpr(measure, return_shape=True)()
    if jax.default_backend() != "cpu" or not LAPACK & cost.primitives(closed.jaxpr):
        return measure()
    evaluate = jax.custom_batching.sequential_vmap(lambda *a: jax.core.eval_jaxpr(closed.jaxpr, a))
    return jax.tree.unflatten(jax.tree.structure(shapes), evaluate(*closed.consts))


# Cached, since two copies of an observable without __eq__ would need two compiled programs.
@functools.lru_cache(maxsize=1024)
def _of_optimizer(observable: Observable, optimizer: Optimizer) -> Observable:
    copied = copy.copy(observable)
    object.__setattr__(copied, "optimizer", optimizer)
    return copied


@functools.lru_cache(maxsize=1024)
def _cost(
    observable: Observable, optimizer: Optimizer, model: Model, data: Any, size: int, loss: Loss
) -> float:
    measure, shapes = on_shapes(observable, optimizer, model, data, size, loss)

    def gradient(params: Any, x: Array, y: Array, *_: Any) -> Any:
        outputs, pull_back = jax.vjp(lambda p: loss_inputs(model.apply(p, x)), params)
        return pull_back(outputs)

    measured, gradients = (
        cost.operations(jax.make_jaxpr(f)(*shapes).jaxpr) for f in (measure, gradient)
    )
    return measured / (gradients / size)


@functools.lru_cache(maxsize=1024)
def uses_last_step(
    observable: Observable, optimizer: Optimizer, model: Model, data: Any, size: int, loss: Loss
) -> bool:
    """Whether some operation or result of an observable depends on the last step."""
    measure, shapes = on_shapes(observable, optimizer, model, data, size, loss)
    jaxpr = jax.make_jaxpr(measure)(*shapes).jaxpr
    last = set(jaxpr.invars[-len(jax.tree.leaves(shapes[-2:])) :])
    used = (atom for eqn in jaxpr.eqns for atom in eqn.invars)
    return any(not isinstance(a, jex.Literal) and a in last for a in (*used, *jaxpr.outvars))


def on_shapes(
    observable: Observable, optimizer: Optimizer, model: Model, data: Any, size: int, loss: Loss
) -> tuple[Callable[..., dict[str, Array]], tuple[Any, ...]]:
    """The observable as a function of arrays, and their shapes for a probe of `size` examples.

    The arrays are params, x, y, the optimizer's state, the last update and its gradient.
    """

    def measure(params: Any, x: Array, y: Array, *of_step: Any) -> dict[str, Array]:
        test = (x, y) if data.has_test else None
        settings = (data, loss, jnp.asarray(0.1, float), 1)
        numbers = (test, jax.random.key(0), jnp.int32(0), False)
        return observable(model, params, Probe(x, y, *settings, *numbers, *of_step))

    x = jax.ShapeDtypeStruct((size, *data.shape), model.x_dtype)
    number = data.num_targets
    y = jax.ShapeDtypeStruct(
        (size, number) if number and number > 1 else (size,), real() if number else jnp.int32
    )
    opt_state = optimizer.state_shapes(model.shapes)
    return measure, (model.shapes, x, y, opt_state, model.shapes, model.shapes)


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
