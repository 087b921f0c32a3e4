"""``noise=``: the residual p − y of the update, or what replaces it to remove some noise.

``"full"`` is SGD. ``"unbiased"`` replaces p − y by an independent random sign: the noise that the
thermophoresis argument assumes. ``"label_averaged"`` replaces y by its mean, which removes the
label noise and keeps the descent.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from jthermo.errors import InputError, finite_number
from jthermo.update_rule import losses
from jthermo.update_rule.losses import Loss


@dataclass(frozen=True)
class Full:
    """r = dL/df, which is p − y for the logistic, softmax and squared losses (Eq. 15)."""

    def residual(self, loss: Loss, outputs: Array, target: Array, key: Array) -> Array:
        """dL/df per example, of the shape of `outputs`."""
        del key
        return losses.gradient(loss, outputs, target)


@dataclass(frozen=True)
class Unbiased:
    """r = ±s with a fresh random sign, independent of x, y and f.

    For C classes, r = 2s·(1/C − one-hot of a random class).

    Args:
        scale: s, where s² stands for E(p−y)²; at f = 0 it is ½.

    Raises:
        InputError: `scale` isn't positive.

    >>> Unbiased(scale=0.3)
    Unbiased(scale=0.3)
    """

    scale: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", finite_number("noise.scale", self.scale, above=0))

    def residual(self, loss: Loss, outputs: Array, target: Array, key: Array) -> Array:
        """dL/df per example, of the shape of `outputs`."""
        del loss, target
        if outputs.ndim == 1:
            return self.scale * jax.random.rademacher(key, outputs.shape, dtype=jnp.float32)
        num_classes = outputs.shape[-1]
        drawn = jax.random.randint(key, outputs.shape[:1], 0, num_classes)
        return (
            2
            * self.scale
            * (1 / num_classes - jax.nn.one_hot(drawn, num_classes, dtype=jnp.float32))
        )


@dataclass(frozen=True)
class LabelAveraged:
    """r = p − E[y], with the mean of random labels: ½ for one output, 1/C for C outputs."""

    def residual(self, loss: Loss, outputs: Array, target: Array, key: Array) -> Array:
        """dL/df per example, of the shape of `outputs`."""
        del target, key
        mean = 0.5 if outputs.ndim == 1 else 1 / outputs.shape[-1]
        return losses.prediction(loss, outputs) - mean


Noise = Full | Unbiased | LabelAveraged
_NAMED = {"full": Full, "unbiased": Unbiased, "label_averaged": LabelAveraged}


def as_noise(noise: str | Noise) -> Noise:
    """The noise value of a name; a noise value is returned unchanged.

    >>> as_noise("unbiased")
    Unbiased(scale=0.5)
    """
    if isinstance(noise, Noise):
        return noise
    if not isinstance(noise, str) or noise not in _NAMED:
        raise InputError(
            "noise",
            noise,
            f"use one of {', '.join(_NAMED)}, or a value such as jt.noise.Unbiased(scale=0.5)",
        )
    return _NAMED[noise]()
