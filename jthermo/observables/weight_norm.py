"""The Frobenius norm of a parameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jax import Array

from jthermo.errors import InputError
from jthermo.models import Model, named_leaves
from jthermo.observables.observable import Observable, Probe, Variable, norm
from jthermo.update_rule.losses import Loss


@dataclass(frozen=True)
class WeightNorm(Observable):
    """Frobenius norm of one parameter; see :func:`weight_norm`."""

    parameter: str

    def __post_init__(self) -> None:
        if not isinstance(self.parameter, str):
            raise InputError("weight_norm", self.parameter, "give the name of a parameter")

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """``weight_norm_<parameter>``, with underscores for the slashes of a nested name."""
        return {
            f"weight_norm_{self.parameter.replace('/', '_')}": Variable(
                f"Frobenius norm of {self.parameter}"
            )
        }

    def check(self, model: Model, data: Any, loss: Loss) -> None:
        """Refuse a model without this parameter."""
        names = list(named_leaves(model.shapes))
        if self.parameter not in names:
            raise InputError(
                "weight_norm",
                self.parameter,
                f"give a parameter of {model!r}: {', '.join(names)}",
            )

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """√Σ θ²."""
        (name,) = self.variables(model, probe.data)
        return {name: norm(named_leaves(params)[self.parameter].ravel())}


def weight_norm(parameter: str) -> WeightNorm:
    """‖θ‖ = √Σ θ² of one parameter; ``weight_norm("V")`` is recorded as ``weight_norm_V``.

    Args:
        parameter: name of the parameter; for a nested one its path, such as ``"Dense_0/kernel"``.

    Raises:
        InputError: the sweep's model has no such parameter.

    >>> weight_norm("V")
    WeightNorm(parameter='V')
    """
    return WeightNorm(parameter)
