"""The noise of the gradient: variance over examples, noise scale and signal-to-noise (THEORY of Sec. 3: Σ1/B)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from jthermo.errors import InputError
from jthermo.models import Model, per_example
from jthermo.observables import gradient_moments
from jthermo.observables.observable import Observable, Probe, Variable


@dataclass(frozen=True)
class GradientVariance(Observable):
    """tr Σ1 / P and what follows from it; see :func:`gradient_variance`."""

    by: str = "layer"
    method: str = "auto"

    def __post_init__(self) -> None:
        if self.by not in ("layer", "parameter"):
            raise InputError("gradient_variance.by", self.by, "use 'layer' or 'parameter'")
        if self.method not in gradient_moments.METHODS:
            methods = ", ".join(gradient_moments.METHODS)
            raise InputError("gradient_variance.method", self.method, f"use one of {methods}")

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """The total, its parts, the noise scale and the signal-to-noise ratio."""
        names = ", ".join(gradient_moments.groups(model, self.by))
        each, dims = f"over the parameters of each {self.by}: {names}", (self.by,)
        return {
            "gradient_variance": Variable(
                "tr Σ1 / P: variance of the per-sample gradient, mean over all parameters"
            ),
            f"gradient_variance_{self.by}": Variable(f"the same {each}", dims=dims),
            "gradient_signal": Variable("|G|²: squared norm of the mean gradient, unbiased"),
            "gradient_snr": Variable("|G|² / tr Σ1, the gradient's signal-to-noise ratio at B = 1"),
            f"gradient_snr_{self.by}": Variable(f"the same {each}", dims=dims),
            "noise_scale": Variable(
                "tr Σ1 / |G|²; NaN where the probe does not resolve |G|²", units="examples"
            ),
        }

    def check(self, model: Model, data: Any, loss: str) -> None:
        """The tape has to cover the model where it is asked for."""
        if self.method == "tape" and not per_example.covers(model):
            raise InputError(
                "gradient_variance.method",
                self.method,
                f"{model!r} has parameters outside dense and convolutional layers; use 'auto' or 'vmap'",
            )

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """Unbiased estimates over the probe."""
        found = gradient_moments.moments(
            model, params, probe.x, probe.y, probe.loss, by=self.by, method=self.method
        )
        total, sizes = found.total, jnp.array(found.sizes, jnp.float32)
        resolved = total.signal > 0
        return {
            "gradient_variance": total.trace / total.sizes[0],
            f"gradient_variance_{self.by}": found.trace / sizes,
            "gradient_signal": total.signal,
            "gradient_snr": total.signal / total.trace,
            f"gradient_snr_{self.by}": found.signal / found.trace,
            "noise_scale": jnp.where(
                resolved, total.trace / jnp.where(resolved, total.signal, 1.0), jnp.nan
            ),
        }


def gradient_variance(by: str = "layer", method: str = "auto") -> GradientVariance:
    """Tr Σ1 / P, the "average gradient variance" of Fig. 2: Σ1 = Cov(∇L) over examples, P parameters.

    Recorded: ``gradient_variance`` and its parts over the dim ``layer`` (or ``parameter``), unbiased with M − 1 in the
    denominator; ``gradient_signal`` |G|² = |ḡ|² − tr Σ1/M; ``gradient_snr`` |G|²/tr Σ1, total and per part;
    ``noise_scale`` tr Σ1/|G|² (McCandlish et al. 2018, arXiv 1812.06162), the B at which noise and signal are equal.
    A noise scale is a ratio with a small denominator: average ``gradient_snr`` instead, which is its inverse.

    Args:
        by: ``"layer"``: the parameters of one module together; ``"parameter"``: each kernel and bias.
        method: ``"auto"`` takes |δ|²(|h|² + 1) and its like for convolutions where every parameter belongs to such a
            layer, else ``jax.vmap(jax.grad)`` over chunks; ``"tape"`` or ``"vmap"`` insists on one of them.

    >>> gradient_variance()
    GradientVariance(by='layer', method='auto')
    """
    return GradientVariance(by, method)
