"""Curvature of the loss: the Gauss–Newton trace and how close to instability a run is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jax import Array

from jthermo.models import Model
from jthermo.observables.base import Observable, Probe, Variable
from jthermo.theory import hessian


@dataclass(frozen=True)
class Kappa(Observable):
    """κ = η tr K / B, how close to instability a run is; see :func:`kappa`."""

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """``kappa``."""
        return {
            "kappa": Variable("η tr K / B with K the Gauss–Newton matrix over the probe; instability nears 1")
        }

    def cost(self, model: Model, data: Any, probe_size: int) -> float:
        """A forward pass and a backward pass per class."""
        return (1 + 2 * model.num_outputs) / 3 * probe_size

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """η tr K / B."""
        kind = "squared" if probe.loss == "squared" else "auto"
        trace = hessian.trace(model, params, probe.x, loss=kind)
        return {"kappa": probe.learning_rate * trace / probe.batch_size}


def kappa() -> Kappa:
    """κ = η tr K / B with tr K = E[p(1−p) |∇f|²], the Gauss–Newton trace over the probe.

    >>> kappa()
    Kappa()
    """
    return Kappa()
