"""The initialisations of the networks by name: torch, he, unit and paired_he."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

INITS = ("torch", "he", "unit", "paired_he")


Init = Callable[[Array, tuple[int, ...]], Array]


def kernel_init(scheme: str, fan_in: int, place: str) -> Init:
    """The initializer of a kernel of MLP or CNN; :class:`jthermo.models.MLP` has the formulas.

    Args:
        scheme: one of INITS.
        fan_in: number of inputs per unit.
        place: ``"hidden"``, ``"last_hidden"`` or ``"output"``.
    """
    if scheme == "torch":
        return _uniform(fan_in**-0.5)
    variance = {"unit": (1 / fan_in, 1.0)}.get(scheme, (2 / fan_in, 1 / fan_in))[place == "output"]
    normal = _normal(math.sqrt(variance))
    if scheme != "paired_he" or place == "hidden":
        return normal
    # the second half of the units copies the first, and its output weights have the opposite sign
    axis, sign = (1, 1.0) if place == "last_hidden" else (0, -1.0)

    def paired(key: Array, shape: tuple[int, ...]) -> Array:
        half = tuple(n // 2 if i == axis else n for i, n in enumerate(shape))
        drawn = normal(key, half)
        return jnp.concatenate([drawn, sign * drawn], axis=axis)

    return paired


def bias_init(scheme: str, fan_in: int) -> Init:
    """The initializer of a bias: U(±1/√fan_in) for ``"torch"``, else zero."""
    return _uniform(fan_in**-0.5) if scheme == "torch" else _normal(0.0)


def _uniform(bound: float) -> Init:
    def init(key: Array, shape: tuple[int, ...]) -> Array:
        return bound * jax.random.uniform(key, shape, jnp.float32, -1.0, 1.0)

    return init


def _normal(scale: float) -> Init:
    def init(key: Array, shape: tuple[int, ...]) -> Array:
        return scale * jax.random.normal(key, shape, jnp.float32)

    return init


def two_layer_initializers(scheme: str, inputs: int, hidden: int) -> tuple[Init, Init, Init]:
    """The initializers of W, b and V; :class:`jthermo.models.TwoLayer` has the formulas."""
    w_scale, b_scale, v_scale = {
        "torch": (inputs**-0.5, inputs**-0.5, hidden**-0.5),
        "he": ((2 / inputs) ** 0.5, 0.0, hidden**-0.5),
        "unit": (inputs**-0.5, 0.0, 1.0),
        "paired_he": ((2 / inputs) ** 0.5, 0.0, hidden**-0.5),
    }[scheme]

    def scaled(scale: float, sign: float = 1.0) -> Init:
        def init(key: Array, shape: tuple[int, ...]) -> Array:
            if scheme == "torch":
                return scale * jax.random.uniform(key, shape, jnp.float32, -1.0, 1.0)
            if scheme != "paired_he":
                return scale * jax.random.normal(key, shape, jnp.float32)
            half = scale * jax.random.normal(key, (shape[0] // 2, *shape[1:]), jnp.float32)
            return jnp.concatenate([half, sign * half])

        return init

    return scaled(w_scale), scaled(b_scale), scaled(v_scale, sign=-1.0)
