"""The observable ``gradient_variance()``: tr Σ1/P, noise scale and signal-to-noise (Sec. 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from jthermo.errors import InputError, one_of
from jthermo.models import Model, per_example
from jthermo.observables import gradient_moments
from jthermo.observables.observable import Observable, Probe, Variable
from jthermo.update_rule.losses import Loss


@dataclass(frozen=True)
class GradientVariance(Observable):
    """tr Σ1 / P, the noise scale and the signal-to-noise ratio; see :func:`gradient_variance`."""

    by: str = "layer"
    method: str = "auto"

    def __post_init__(self) -> None:
        one_of("gradient_variance.by", self.by, ("layer", "parameter"))
        one_of("gradient_variance.method", self.method, gradient_moments.METHODS)

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """The total, its parts, the noise scale and the signal-to-noise ratio."""
        names = tuple(gradient_moments.groups(model, self.by))
        label = Variable(
            f"the same over the parameters of each {self.by}: {', '.join(names)}",
            dims=(self.by,),
            coords={self.by: names},
        )
        return {
            "gradient_variance": Variable(
                "tr Σ1 / P: variance of the per-sample gradient, mean over all parameters"
            ),
            f"gradient_variance_{self.by}": label,
            "gradient_signal": Variable("|G|²: squared norm of the mean gradient, unbiased"),
            "gradient_snr": Variable("|G|² / tr Σ1, the gradient's signal-to-noise ratio at B = 1"),
            f"gradient_snr_{self.by}": label,
            "noise_scale": Variable(
                "tr Σ1 / |G|²; NaN where the probe does not resolve |G|²", units="examples"
            ),
        }

    def check(self, model: Model, data: Any, loss: Loss) -> None:
        """With ``method="tape"``, refuse a model that the tape does not cover."""
        if self.method != "vmap" and not per_example.covers(model) and self.method == "tape":
            raise InputError(
                "gradient_variance.method",
                self.method,
                f"{model!r} has parameters outside dense and convolutional layers, or a layer that "
                "is called twice; use 'auto' or 'vmap'",
            )

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """Unbiased estimates over the probe."""
        gradient = gradient_moments.moments(
            model,
            params,
            probe.x,
            probe.y,
            probe.loss,
            by=self.by,
            method=self.method,
            whole=probe.whole,
        )
        total = gradient.total
        resolved = total.signal > 0
        return {
            "gradient_variance": total.variance,
            f"gradient_variance_{self.by}": gradient.variance,
            "gradient_signal": total.signal,
            "gradient_snr": total.signal / total.trace,
            f"gradient_snr_{self.by}": gradient.signal / gradient.trace,
            "noise_scale": jnp.where(
                resolved, total.trace / jnp.where(resolved, total.signal, 1.0), jnp.nan
            ),
        }


def gradient_variance(by: str = "layer", method: str = "auto") -> GradientVariance:
    """Tr Σ1 / P, the "average gradient variance" of Fig. 2.

    Σ1 = Cov(∇L) over examples, and P is the number of parameters. The observable records these
    variables over M probe examples:

    - ``gradient_variance``: tr Σ1 / P with M − 1 in the denominator, and the same per layer (or
      parameter) as ``gradient_variance_layer``
    - ``gradient_signal``: |G|² = |ḡ|² − tr Σ1/M
      With ``probe_size="all"`` both are exact: M is the denominator, and |G|² = |ḡ|².
    - ``gradient_snr``: |G|²/tr Σ1, and the same per layer as ``gradient_snr_layer``
    - ``noise_scale``: tr Σ1/|G|² (McCandlish et al. 2018, arXiv 1812.06162), the B at which noise
      and signal are equal. Its denominator can be small, so average its inverse ``gradient_snr``.

    Args:
        by: ``"layer"`` groups the parameters of one module; ``"parameter"`` separates each kernel
            and bias.
        method: ``"auto"`` computes |δ|²(|h|² + 1), or the equivalent for convolutions, if every
            parameter belongs to such a layer, otherwise ``jax.vmap(jax.grad)`` over chunks.
            ``"tape"`` requires the first, ``"vmap"`` the second.

    Raises:
        InputError: unknown `by` or `method`, or a model that the tape does not cover.

    >>> gradient_variance()
    GradientVariance(by='layer', method='auto')
    """
    return GradientVariance(by, method)
