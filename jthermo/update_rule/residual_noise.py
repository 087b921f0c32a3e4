"""``noise=``: the noise of the update, or what replaces it to test what it does.

``"full"`` is SGD. Two rules replace the residual p − y of each example: ``"unbiased"`` by an
independent random sign, the noise that the thermophoresis argument assumes; ``"label_averaged"``
replaces y by its mean, which removes the label noise and keeps the descent. The others replace the
noise of the batch: ``SVAG`` approaches the SDE, and on a finite set ``"gaussian"`` has the
covariance of SGD, ``"isotropic"`` only its trace, ``"drift"`` only its mean effect and ``"none"``
nothing of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from jthermo.errors import InputError, finite_number, whole_number
from jthermo.update_rule import losses
from jthermo.update_rule.losses import Loss

# Largest l of SVAG; a step of η/l must still change a float32.
MOST_PARTS = 2**20


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
            return self.scale * jax.random.rademacher(key, outputs.shape, dtype=float)
        num_classes = outputs.shape[-1]
        drawn = jax.random.randint(key, outputs.shape[:1], 0, num_classes, jnp.int32)
        return 2 * self.scale * (1 / num_classes - jax.nn.one_hot(drawn, num_classes, dtype=float))


@dataclass(frozen=True)
class LabelAveraged:
    """r = p − E[y], with the mean of random labels: ½ for one output, 1/C for C outputs."""

    def residual(self, loss: Loss, outputs: Array, target: Array, key: Array) -> Array:
        """dL/df per example, of the shape of `outputs`."""
        del target, key
        mean = 0.5 if outputs.ndim == 1 else 1 / outputs.shape[-1]
        return losses.prediction(loss, outputs) - mean


@dataclass(frozen=True)
class SVAG:
    """SGD with l smaller steps for one, whose noise approaches that of the SDE as l grows.

    A step uses two batches of size B and the learning rate η/l:
    g = ½(1 − √(2l−1)) g₁ + ½(1 + √(2l−1)) g₂. Its mean is ∇L and its covariance l Σ1/B, so l steps
    have the mean and covariance of one step of SGD. Train for l times as many steps.

    Source: Li, Malladi and Arora 2021, arXiv 2102.12470.

    Args:
        l: number of steps in place of one; 1 is SGD.

    Raises:
        InputError: `l` isn't a whole number of at least 1.

    >>> SVAG(4)
    SVAG(l=4)
    """

    l: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "l", whole_number("noise.l", self.l, most=MOST_PARTS))

    def residual(self, loss: Loss, outputs: Array, target: Array, key: Array) -> Array:
        """dL/df of both batches times their weights, of the shape of `outputs`."""
        del key
        spread, half = math.sqrt(2 * self.l - 1), len(outputs) // 2
        weights = jnp.repeat(jnp.array([(1 - spread) / 2, (1 + spread) / 2], float), half)
        gradient = losses.gradient(loss, outputs, target)
        return weights.reshape(-1, *[1] * (outputs.ndim - 1)) * gradient


@dataclass(frozen=True)
class _OfSet(Full):
    """A rule that replaces the noise of a batch by one of the gradients of all n examples."""


@dataclass(frozen=True)
class NoNoise(_OfSet):
    """The full gradient of a finite set: the descent of SGD without any of its noise.

    >>> as_noise("none")
    NoNoise()
    """


@dataclass(frozen=True)
class Gaussian(_OfSet):
    """The full gradient plus normal noise with exactly the covariance Σ1/B of SGD's.

    The noise is Σ_i w_i g_i over all examples with w_i = (z_i − z̄)/√(nB) and standard normal z.

    >>> as_noise("gaussian")
    Gaussian()
    """

    def weights(self, key: Array, size: int, batch_size: int) -> Array:
        """The weights w (n,)."""
        z = jax.random.normal(key, (size,))
        return (z - z.mean()) / jnp.sqrt(jnp.asarray(size, float) * batch_size)


@dataclass(frozen=True)
class Isotropic(Gaussian):
    """The full gradient plus noise in a random direction of parameter space.

    Its norm is that of :class:`Gaussian`, so the trace of its covariance is tr Σ1/B too.

    >>> as_noise("isotropic")
    Isotropic()
    """


@dataclass(frozen=True)
class Drift(_OfSet):
    """The full gradient plus (η/4B) ∇ tr Σ1, the mean effect of the noise and none of its scatter.

    Automatic differentiation treats the derivative of ReLU as constant; see
    :func:`jthermo.theory.drift.force`.

    Source: Smith, Dherin, Barrett and De 2021, arXiv 2101.12176.

    >>> as_noise("drift")
    Drift()
    """


Noise = Full | Unbiased | LabelAveraged | SVAG | NoNoise | Gaussian | Isotropic | Drift
_NAMED: dict[str, type] = {
    "full": Full,
    "unbiased": Unbiased,
    "label_averaged": LabelAveraged,
    "gaussian": Gaussian,
    "isotropic": Isotropic,
    "none": NoNoise,
    "drift": Drift,
}


def as_noise(noise: str | Noise) -> Noise:
    """The noise value of a name; a noise value is returned unchanged, but ``SVAG(1)`` is SGD.

    >>> as_noise("unbiased")
    Unbiased(scale=0.5)
    """
    if noise == SVAG(1):
        return Full()
    if isinstance(noise, Noise):
        return noise
    if not isinstance(noise, str) or noise not in _NAMED:
        raise InputError(
            "noise",
            noise,
            f"use one of {', '.join(_NAMED)}, or a value such as jt.noise.Unbiased(scale=0.5)",
        )
    value: Noise = _NAMED[noise]()
    return value


def of_set(noise: Noise) -> bool:
    """Whether every step uses the gradients of a whole finite set."""
    return isinstance(noise, _OfSet)


def num_batches(noise: Noise) -> int:
    """Number of batches of size B that a step draws."""
    return 2 if isinstance(noise, SVAG) else 1
