"""Curvature of the loss: trace of the Hessian, its bound, top eigenvalues, and κ = η tr K / B."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from jthermo.errors import InputError, one_of, whole_number
from jthermo.models import Model, per_example
from jthermo.observables import curvature_estimators
from jthermo.observables.observable import Observable, Probe, Variable
from jthermo.theory import hessian
from jthermo.update_rule import losses
from jthermo.update_rule.losses import Loss

METHODS = ("exact", "hutchinson")
# The argument `loss` of `hessian.trace` for the losses whose ∂²L/∂f² has no labels in it.
_CURVATURES = {
    "bce": "auto",
    "logistic": "auto",
    "softmax": "auto",
    "squared": "squared",
    "multi_label": "multi_label",
}


@dataclass(frozen=True)
class Kappa(Observable):
    """κ = η tr K / B, which approaches 1 near instability; see :func:`kappa`."""

    def check(self, model: Model, data: Any, loss: Loss) -> None:
        """Refuse losses without tr K; find out whether the tape covers the model."""
        _needs_curvature("kappa", loss)
        per_example.covers(model)

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """``kappa``."""
        return {
            "kappa": Variable(
                "η tr K / B with K the Gauss–Newton matrix over the probe; instability nears 1"
            )
        }

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """η tr K / B."""
        rate = model.learning_rate_of(probe.learning_rate)
        return {"kappa": rate * _trace(model, params, probe) / probe.batch_size}


@dataclass(frozen=True)
class HessianTrace(Observable):
    """tr H of the mean loss over the probe; see :func:`hessian_trace`."""

    method: str = "exact"
    num_probes: int = 16

    def __post_init__(self) -> None:
        one_of("hessian_trace.method", self.method, METHODS)
        if whole_number("hessian_trace.num_probes", self.num_probes) < 2:
            raise InputError(
                "hessian_trace.num_probes",
                self.num_probes,
                "give at least 2, since the standard error is their scatter",
            )

    def check(self, model: Model, data: Any, loss: Loss) -> None:
        """Refuse losses without tr K; find out whether the tape covers the model."""
        if self.method == "exact":
            _needs_curvature("hessian_trace", loss)
            per_example.covers(model)

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """``hessian_trace``, or ``hessian_trace_hutchinson`` with its standard error ``…_se``."""
        if self.method == "exact":
            return {
                "hessian_trace": Variable(
                    "tr K = mean over the probe of Σ_y p_y |∇L_y|²; tr H for ReLU nets"
                )
            }
        name = "hessian_trace_hutchinson"
        return {
            name: Variable(
                f"tr H over the probe, mean of vᵀHv over {self.num_probes} random sign vectors"
            ),
            f"{name}_se": Variable("standard error of that mean, for this probe"),
        }

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """Tr H."""
        names = tuple(self.variables(model, probe.data))
        if self.method == "exact":
            return {names[0]: _trace(model, params, probe)}
        estimate = curvature_estimators.hutchinson(
            model, params, probe.x, probe.y, probe.loss, probe.key, self.num_probes
        )
        return dict(zip(names, estimate, strict=True))


@dataclass(frozen=True)
class TraceBound(Observable):
    """The bound of A.5 and its ratio to the trace; see :func:`jthermo.trace_bound`."""

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """``trace_bound`` and ``trace_bound_ratio``."""
        return {
            "trace_bound": Variable(
                "bound on tr H by activation rates and weight norms (A.5), over the probe"
            ),
            "trace_bound_ratio": Variable("that bound over the exact tr H: how loose it is"),
        }

    def check(self, model: Model, data: Any, loss: Loss) -> None:
        """Refuse nets that are not a chain of dense layers, and losses without the bound."""
        if not hessian.is_chain(model):
            remedy = "the bound of A.5 needs a chain of dense ReLU layers: use TwoLayer or MLP"
            raise InputError("trace_bound", model, remedy)
        if _CURVATURES.get(losses.name(loss)) != "auto":
            remedy = "the bound holds for the logistic and softmax losses only"
            raise InputError("trace_bound", losses.name(loss), remedy)

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """The bound and bound/trace."""
        bound = hessian.trace_bound(model, params, probe.x)
        trace = _trace(model, params, probe)
        return {"trace_bound": bound, "trace_bound_ratio": bound / trace}


@dataclass(frozen=True)
class TopEigenvalues(Observable):
    """The largest eigenvalues of the Hessian; see :func:`jthermo.top_eigenvalues`."""

    number: int = 1
    num_matvecs: int = 20

    def __post_init__(self) -> None:
        number = whole_number("top_eigenvalues.number", self.number)
        if whole_number("top_eigenvalues.num_matvecs", self.num_matvecs) < number:
            raise InputError(
                "top_eigenvalues.num_matvecs",
                self.num_matvecs,
                f"give at least {number}, the number of eigenvalues",
            )

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """``hessian_eigenvalue`` over the dim ``eigenvalue``."""
        long_name = (
            f"largest eigenvalues of the Hessian over the probe, {self.num_matvecs} Lanczos steps"
        )
        return {"hessian_eigenvalue": Variable(long_name, dims=("eigenvalue",))}

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """Eigenvalues (number,), the largest first; NaN if the net has fewer parameters."""
        eigenvalues = curvature_estimators.top_eigenvalues(
            model, params, probe.x, probe.y, probe.loss, probe.key, self.number, self.num_matvecs
        )
        return {
            "hessian_eigenvalue": jnp.pad(
                eigenvalues, (0, self.number - len(eigenvalues)), constant_values=jnp.nan
            )
        }


def kappa() -> Kappa:
    """κ = η tr K / B with tr K = E[p(1−p) |∇f|²], the Gauss–Newton trace over the probe.

    SGD becomes unstable as κ approaches 1. η is the learning rate of the sweep: once it has fallen
    by ``jt.sgd(decay_at=…)``, divide κ by `decay`.

    >>> kappa()
    Kappa()
    """
    return Kappa()


def hessian_trace(method: str = "exact", num_probes: int = 16) -> HessianTrace:
    """Tr H of the loss over the probe (A.5).

    Args:
        method: ``"exact"`` records tr K = mean_μ Σ_y p_y |∇L_y|², which equals tr H for ReLU nets
            almost everywhere. ``"hutchinson"`` records the mean of vᵀHv over random sign vectors v
            and its standard error, for any model.
        num_probes: number of sign vectors, at least 2.

    Raises:
        InputError: unknown `method`, or fewer than 2 sign vectors.

    >>> hessian_trace()
    HessianTrace(method='exact', num_probes=16)
    """
    return HessianTrace(method, num_probes)


def trace_bound() -> TraceBound:
    """Bound on tr H by activation and weight norms (A.5), and its ratio to the trace.

    :func:`jthermo.theory.hessian.trace_bound` states the formula. The bound needs a `TwoLayer` or
    `MLP` net with the logistic or the softmax loss; a sweep with others is refused.

    >>> trace_bound()
    TraceBound()
    """
    return TraceBound()


def top_eigenvalues(number: int = 1, num_matvecs: int = 20) -> TopEigenvalues:
    """The largest eigenvalues of the Hessian of the loss over the probe, by block Lanczos.

    A repeated eigenvalue is found as often as it is repeated, up to `number` times. A record costs
    `number` × `num_matvecs` products of the Hessian with a vector.

    Args:
        number: number of eigenvalues, the dim ``eigenvalue``; the largest comes first.
        num_matvecs: number of Hessian products of each of `number` vectors, at least `number`.

    Raises:
        InputError: `number` is below 1, or `num_matvecs` is below `number`.

    >>> top_eigenvalues(3)
    TopEigenvalues(number=3, num_matvecs=20)
    """
    return TopEigenvalues(number, num_matvecs)


def _trace(model: Model, params: Any, probe: Probe) -> Array:
    return hessian.trace(model, params, probe.x, loss=_CURVATURES[losses.name(probe.loss)])


def _needs_curvature(observable: str, loss: Loss) -> None:
    """Raise an InputError unless ∂²L/∂f² follows from the outputs alone."""
    if losses.name(loss) not in _CURVATURES:
        remedy = (
            f"{observable} needs one of the losses {', '.join(_CURVATURES)}; "
            "jt.hessian_trace('hutchinson') and jt.top_eigenvalues() take any loss"
        )
        raise InputError("record.observables", losses.name(loss), remedy)
