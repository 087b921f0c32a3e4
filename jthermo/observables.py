"""What is measured at a record: one small value per observable, written for one run; the sweep maps it over runs.

An observable is a function ``(model, params, probe) -> array`` (or a dict of arrays by variable name). A user's own
plain function is one too: its name becomes the variable's name. The probe is drawn from a stream of its own, anew at
each record, and never touches the training stream.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jthermo import losses
from jthermo.data import Gaussian
from jthermo.errors import InputError
from jthermo.models import Model, TwoLayer
from jthermo.theory import hessian


class Probe(NamedTuple):
    """What an observable may look at besides the parameters of its run.

    Attributes:
        x: fresh inputs, (M, ...); of the distribution itself where the training set is finite.
        y: their labels, (M,) class indices.
        data: the data source.
        loss: ``"bce"``, ``"squared"`` or ``"softmax"``.
        learning_rate: η of the run.
        batch_size: B of the run.
    """

    x: Array
    y: Array
    data: Any
    loss: str
    learning_rate: Array
    batch_size: int


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

    def check(self, model: Model, data: Any, loss: str) -> None:  # noqa: B027  most have nothing to refuse
        """Raise an InputError where it makes no sense for this model, data source or loss."""


@dataclass(frozen=True)
class ActivationRate(Observable):
    """Mean over units and inputs of 1[pre-activation > 0] (Eq. 14); see :func:`activation_rate`."""

    method: str = "auto"

    def __post_init__(self) -> None:
        if self.method not in ("auto", "closed_form", "probe"):
            raise InputError("activation_rate.method", self.method, "use 'auto', 'closed_form' or 'probe'")

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """``activation_rate``, or ``activation_rate_probe`` with its standard error ``…_se`` where a probe is used."""
        if self._exact(model, data):
            return {
                "activation_rate": Variable(
                    "fraction of active hidden units, mean over x ~ N(0, I) in closed form"
                )
            }
        name = "activation_rate_probe" if self.method == "probe" else "activation_rate"
        return {
            name: Variable("fraction of active hidden units, mean over the probe"),
            f"{name}_se": Variable("standard error of the activation rate over the probe"),
        }

    def check(self, model: Model, data: Any, loss: str) -> None:
        """The closed form needs Gaussian inputs and the two-layer net."""
        if self.method == "closed_form" and not _gaussian_two_layer(model, data):
            raise InputError(
                "activation_rate.method",
                self.method,
                "the closed form Φ(b/‖W‖) holds for a TwoLayer net on Gaussian data; use method='probe'",
            )
        _needs_preactivations(model, "activation_rate")

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """The rate, and its standard error where a probe is used."""
        name, *se = self.variables(model, probe.data)
        if not se:
            return {name: unit_rates(params, probe.data.scale).mean()}
        fraction = _active_fraction(model, params, probe.x)
        return {name: fraction.mean(), se[0]: fraction.std(ddof=1) / jnp.sqrt(jnp.float32(fraction.shape[0]))}

    def _exact(self, model: Model, data: Any) -> bool:
        return self.method != "probe" and _gaussian_two_layer(model, data)


@dataclass(frozen=True)
class UnitActivation(Observable):
    """Activation rate of each hidden unit; see :func:`unit_activation`."""

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """``unit_activation`` over the dim ``unit``."""
        return {
            "unit_activation": Variable("fraction of inputs that activate each hidden unit", dims=("unit",))
        }

    def check(self, model: Model, data: Any, loss: str) -> None:
        """Needs pre-activations."""
        _needs_preactivations(model, "unit_activation")

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """Closed form where there is one, else the probe."""
        if _gaussian_two_layer(model, probe.data):
            return {"unit_activation": unit_rates(params, probe.data.scale)}
        active = [(a > 0).mean(0).reshape(-1) for a in model.preactivations(params, probe.x).values()]
        return {"unit_activation": jnp.concatenate(active)}


@dataclass(frozen=True)
class WeightNorm(Observable):
    """Frobenius norm of one parameter; see :func:`weight_norm`."""

    parameter: str

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """``weight_norm_<parameter>``, with slashes of a nested name as underscores."""
        return {
            f"weight_norm_{self.parameter.replace('/', '_')}": Variable(f"Frobenius norm of {self.parameter}")
        }

    def check(self, model: Model, data: Any, loss: str) -> None:
        """The parameter has to exist."""
        names = list(_named(model.shapes))
        if self.parameter not in names:
            raise InputError(
                "weight_norm", self.parameter, f"{model!r} has the parameters {', '.join(names)}"
            )

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """√Σ θ²."""
        (name,) = self.variables(model, probe.data)
        return {name: _norm(_named(params)[self.parameter].ravel())}


@dataclass(frozen=True)
class Loss(Observable):
    """Mean loss over the probe; see :func:`loss`."""

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """``loss``."""
        return {"loss": Variable("mean loss over the probe", units="nat")}

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """Mean L(f(x), y)."""
        target = losses.targets(probe.loss, probe.y, model.num_outputs)
        return {"loss": losses.value(probe.loss, model.apply(params, probe.x), target).mean()}


@dataclass(frozen=True)
class MeanSquaredResidual(Observable):
    """s² = E(p − y)²; see :func:`mean_squared_residual`."""

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """``mean_squared_residual``."""
        return {"mean_squared_residual": Variable("s² = mean of (p − y)² over the probe and the outputs")}

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """Mean (p − y)²."""
        target = losses.targets(probe.loss, probe.y, model.num_outputs)
        residual = losses.prediction(probe.loss, model.apply(params, probe.x)) - target
        return {"mean_squared_residual": jnp.square(residual).mean()}


@dataclass(frozen=True)
class Kappa(Observable):
    """κ = η tr K / B, how close to instability a run is; see :func:`kappa`."""

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """``kappa``."""
        return {
            "kappa": Variable("η tr K / B with K the Gauss–Newton matrix over the probe; instability nears 1")
        }

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """η tr K / B."""
        kind = "squared" if probe.loss == "squared" else "auto"
        trace = hessian.trace(model, params, probe.x, loss=kind)
        return {"kappa": probe.learning_rate * trace / probe.batch_size}


@dataclass(frozen=True)
class Custom(Observable):
    """A user's function ``(model, params, probe) -> array`` as an observable.

    Args:
        fn: the function, written for one run; its name becomes the variable's name.
    """

    fn: Callable[[Model, Any, Probe], Array]

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """The function's name, with one dim per axis of what it returns."""

        def one() -> dict[str, Array]:
            x, y = data.draw(jax.random.key(0), 2)
            return self(model, model.init(jax.random.key(0)), Probe(x, y, data, "bce", jnp.float32(0.1), 1))

        name = self.fn.__name__
        words = (self.fn.__doc__ or name).strip().partition("\n")[0]
        rank = jax.eval_shape(one)[name].ndim
        return {name: Variable(words, dims=tuple(f"{name}_{i}" for i in range(rank)))}

    def check(self, model: Model, data: Any, loss: str) -> None:
        """The function has to run on this model and return one array."""
        try:
            self.variables(model, data)
        except Exception as error:
            raise InputError(
                "record.observables", self.fn, f"fails on this model: {type(error).__name__}: {error}"
            ) from None

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """What the function returns, under its name."""
        return {self.fn.__name__: jnp.asarray(self.fn(model, params, probe))}


def activation_rate(method: str = "auto") -> ActivationRate:
    """Activation rate: mean over hidden units and inputs of 1[pre-activation > 0] (Eq. 14).

    For the two-layer net on x ~ N(0, s² I) it is exact, mean_i Φ(b_i / (s ‖W_i‖)); else it is the mean over the
    probe, recorded with its standard error over the probe's examples.

    Args:
        method: ``"auto"`` takes the closed form where there is one; ``"closed_form"``; ``"probe"`` records
            ``activation_rate_probe`` and ``activation_rate_probe_se`` so that both can stand side by side.

    >>> activation_rate()
    ActivationRate(method='auto')
    """
    return ActivationRate(method)


def unit_activation() -> UnitActivation:
    """Activation rate of each hidden unit, over the dim ``unit`` (all layers after one another).

    >>> unit_activation()
    UnitActivation()
    """
    return UnitActivation()


def weight_norm(parameter: str) -> WeightNorm:
    """‖θ‖ = √Σ θ² of one parameter; ``weight_norm("V")`` is recorded as ``weight_norm_V``.

    Args:
        parameter: its name; nested ones by path, ``"Dense_0/kernel"``.

    >>> weight_norm("V")
    WeightNorm(parameter='V')
    """
    return WeightNorm(parameter)


def loss() -> Loss:
    """Mean loss over the probe, in nats for the logistic and softmax losses.

    >>> loss()
    Loss()
    """
    return Loss()


def mean_squared_residual() -> MeanSquaredResidual:
    """s² = mean (p − y)² over the probe, the strength of the noise (Sec. 5); ¼ at f = 0.

    >>> mean_squared_residual()
    MeanSquaredResidual()
    """
    return MeanSquaredResidual()


def kappa() -> Kappa:
    """κ = η tr K / B with tr K = E[p(1−p) |∇f|²], the Gauss–Newton trace over the probe.

    >>> kappa()
    Kappa()
    """
    return Kappa()


def as_observable(obj: Any) -> Observable:
    """An observable, from one or from a user's function."""
    if isinstance(obj, Observable):
        return obj
    if callable(obj) and not isinstance(obj, type) and hasattr(obj, "__name__"):
        if obj in _FACTORIES:
            raise InputError("record.observables", obj.__name__, f"call it: jt.{obj.__name__}(...)")
        return Custom(obj)
    raise InputError(
        "record.observables",
        obj,
        "give observables such as jt.activation_rate() or a function (model, params, probe)",
    )


_FACTORIES = (activation_rate, unit_activation, weight_norm, loss, mean_squared_residual, kappa)


def unit_rates(params: Any, scale: Array | float = 1.0) -> Array:
    """Φ(b/(s‖W‖)) of each unit of the two-layer net for x ~ N(0, s² I), (hidden,); a unit with W = 0 is on iff b > 0."""
    width = scale * _norm(params["W"])
    bias = params.get("b", jnp.zeros_like(width))
    rate = jax.scipy.special.ndtr(bias / jnp.where(width > 0, width, 1.0))
    return jnp.where(width > 0, rate, (bias > 0).astype(rate.dtype))


def _norm(x: Array) -> Array:
    """√Σ x² over the last axis, without overflow on the way: a run about to diverge has parameters of 10²⁰ and more."""
    largest = jnp.abs(x).max(-1, keepdims=True)
    unit = jnp.where(largest > 0, largest, 1.0)
    return unit[..., 0] * jnp.sqrt(jnp.square(x / unit).sum(-1))


def _gaussian_two_layer(model: Model, data: Any) -> bool:
    return isinstance(model, TwoLayer) and isinstance(data, Gaussian)


def _active_fraction(model: Model, params: Any, x: Array) -> Array:
    """Fraction of active hidden units per example, (M,), every unit of every layer with the same weight."""
    active = [(a > 0).reshape(x.shape[0], -1) for a in model.preactivations(params, x).values()]
    return jnp.concatenate(active, axis=1).astype(jnp.float32).mean(1)


def _needs_preactivations(model: Model, name: str) -> None:
    x = jax.ShapeDtypeStruct((2, *model.input_shape), jnp.float32)
    if not jax.eval_shape(model.preactivations, model.shapes, x):
        raise InputError(
            "record.observables",
            name,
            f"{model!r} shows no pre-activations; in the flax module call "
            'self.sow("preactivations", "name", a) before each nonlinearity',
        )


def _named(params: Any) -> dict[str, Array]:
    """Leaves of a parameter tree by path, ``"Dense_0/kernel"``."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {
        "/".join(str(getattr(k, "key", getattr(k, "idx", k))) for k in path): leaf for path, leaf in leaves
    }
