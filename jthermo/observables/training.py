"""How far training is: loss, accuracy, residuals and parameter norms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from jthermo import losses
from jthermo.errors import InputError
from jthermo.models import Model
from jthermo.observables.base import Observable, Probe, Variable, named, norm


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
        names = list(named(model.shapes))
        if self.parameter not in names:
            raise InputError(
                "weight_norm", self.parameter, f"{model!r} has the parameters {', '.join(names)}"
            )

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """√Σ θ²."""
        (name,) = self.variables(model, probe.data)
        return {name: norm(named(params)[self.parameter].ravel())}


@dataclass(frozen=True)
class Loss(Observable):
    """Mean loss over the probe; see :func:`loss`."""

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """``loss``."""
        return {"loss": Variable("mean loss over the probe", units="nat")}

    def cost(self, model: Model, data: Any, probe_size: int) -> float:
        """A forward pass over the probe."""
        return probe_size / 3

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

    def cost(self, model: Model, data: Any, probe_size: int) -> float:
        """A forward pass over the probe."""
        return probe_size / 3

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """Mean (p − y)²."""
        target = losses.targets(probe.loss, probe.y, model.num_outputs)
        residual = losses.prediction(probe.loss, model.apply(params, probe.x)) - target
        return {"mean_squared_residual": jnp.square(residual).mean()}


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
