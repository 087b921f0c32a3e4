"""Activation rates of hidden units, in closed form if there is one, otherwise over the probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import ArrayLike, Float, Real

from jthermo.data import Gaussian
from jthermo.errors import InputError, one_of
from jthermo.models import Model, TwoLayer
from jthermo.observables.observable import (
    Observable,
    Probe,
    Variable,
    mean_over_parts,
    needs_preactivations,
    norm,
)
from jthermo.update_rule.losses import Loss


@dataclass(frozen=True)
class ActivationRate(Observable):
    """Mean over units and inputs of 1[pre-activation > 0] (Eq. 14); see :func:`activation_rate`."""

    method: str = "auto"

    def __post_init__(self) -> None:
        one_of("activation_rate.method", self.method, ("auto", "closed_form", "probe"))

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """``activation_rate`` or ``activation_rate_probe``; from a probe also its ``…_se``."""
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

    def check(self, model: Model, data: Any, loss: Loss) -> None:
        """Refuse the closed form for other nets and data, and models without pre-activations."""
        if self.method == "closed_form" and not _gaussian_two_layer(model, data):
            raise InputError(
                "activation_rate.method",
                self.method,
                "the closed form Φ(b/‖W‖) holds only for TwoLayer on Gaussian data; use 'probe'",
            )
        needs_preactivations(model, "activation_rate")

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """The rate; from a probe also its standard error."""
        name, *se = self.variables(model, probe.data)
        if not se:
            return {name: unit_rates(params, probe.data.scale).mean()}
        if probe.whole:
            # the rate of the set itself, which has no sampling error
            rate = mean_over_parts(
                probe, lambda x: _active_fraction(model, params, x).mean(), probe.x
            )
            return {name: rate, se[0]: jnp.zeros_like(rate)}
        fraction = _active_fraction(model, params, probe.x)
        return {
            name: fraction.mean(),
            se[0]: fraction.std(ddof=1) / jnp.sqrt(jnp.asarray(fraction.shape[0], float)),
        }

    def _exact(self, model: Model, data: Any) -> bool:
        return self.method != "probe" and _gaussian_two_layer(model, data)


@dataclass(frozen=True)
class UnitActivation(Observable):
    """Activation rate of each hidden unit; see :func:`unit_activation`."""

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """``unit_activation`` over the dim ``unit``."""
        return {
            "unit_activation": Variable(
                "fraction of inputs that activate each hidden unit", dims=("unit",)
            )
        }

    def check(self, model: Model, data: Any, loss: Loss) -> None:
        """Refuse a model without pre-activations."""
        needs_preactivations(model, "unit_activation")

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """The rates in closed form if there is one, otherwise over the probe."""
        if _gaussian_two_layer(model, probe.data):
            return {"unit_activation": unit_rates(params, probe.data.scale)}

        def rates(x: Array) -> Array:
            layers = model.preactivations(params, x).values()
            return jnp.concatenate([(a > 0).mean(0, dtype=float).reshape(-1) for a in layers])

        return {"unit_activation": mean_over_parts(probe, rates, probe.x)}


def activation_rate(method: str = "auto") -> ActivationRate:
    """Activation rate: mean over hidden units and inputs of 1[pre-activation > 0] (Eq. 14).

    For the two-layer net on x ~ N(0, s² I) the rate is exact, mean_i Φ(b_i / (s ‖W_i‖)). Otherwise
    it is the mean over the probe, recorded with its standard error over the probe's examples.

    Args:
        method: ``"auto"`` uses the closed form if there is one; ``"closed_form"`` requires it.
            ``"probe"`` always uses the probe and records ``activation_rate_probe`` and
            ``activation_rate_probe_se``, so one sweep can record both estimates.

    Raises:
        InputError: unknown `method`, or no closed form for the sweep's model and data.

    >>> activation_rate()
    ActivationRate(method='auto')
    """
    return ActivationRate(method)


def unit_activation() -> UnitActivation:
    """Activation rate of each hidden unit, over the dim ``unit``: the units of all layers in order.

    >>> unit_activation()
    UnitActivation()
    """
    return UnitActivation()


def unit_rates(params: Any, scale: Real[ArrayLike, ""] = 1.0) -> Float[Array, " hidden"]:
    """Activation rates Φ(b/(s‖W‖)) of the units of the two-layer net for x ~ N(0, s² I).

    A unit with W = 0 has rate 1 if b > 0, otherwise 0.

    Args:
        params: W (hidden, d) and, unless the net has no bias, b (hidden,).
        scale: s.

    Returns:
        (hidden,) rates.

    >>> import jax.numpy as jnp
    >>> unit_rates({"W": jnp.eye(2), "b": jnp.array([0.0, 10.0])}).tolist()
    [0.5, 1.0]
    """
    width = scale * norm(jnp.asarray(params["W"]))
    bias = params.get("b", jnp.zeros_like(width))
    rate = jax.scipy.special.ndtr(bias / jnp.where(width > 0, width, 1.0))
    return jnp.where(width > 0, rate, (bias > 0).astype(rate.dtype))


def _gaussian_two_layer(model: Model, data: Any) -> bool:
    if type(model) is not TwoLayer or type(data) is not Gaussian:
        return False
    return model.arguments["parametrization"] == "standard"


def _active_fraction(model: Model, params: Any, x: Array) -> Array:
    """Fraction of active hidden units per example, (M,), with equal weight for each unit."""
    active = [(a > 0).reshape(x.shape[0], -1) for a in model.preactivations(params, x).values()]
    return jnp.concatenate(active, axis=1).astype(float).mean(1)
