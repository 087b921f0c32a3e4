"""The initialisations of the built-in nets: by name, or with gains of their own."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jthermo.errors import InputError, finite_number, flag, one_of

INITS = ("torch", "he", "unit", "paired_he")
DISTRIBUTIONS = ("normal", "uniform")

Initializer = Callable[[Array, tuple[int, ...]], Array]


@dataclass(frozen=True)
class Init:
    """Independent weights and biases of mean 0, with a gain each for hidden and output weights.

    Hidden weights have the standard deviation g_w/√fan_in, output weights g_v/√fan_in, biases s_b.
    The three numbers can be axes of a sweep, as in
    ``vary={"model.init.output_gain": (0.1, 1.0, 10.0)}``, which compiles once.

    Args:
        weight_gain: g_w; √2 keeps the scale of the signal through ReLU layers ("he").
        bias_std: s_b.
        output_gain: g_v; small is the rich regime, large the lazy one (Chizat & Bach 2019).
        paired: whether each unit of the last hidden layer appears twice, with opposite output
            weights, so that f equals the output bias at the start.
        distribution: ``"normal"`` or ``"uniform"``.

    Raises:
        InputError: a number is negative or isn't finite; unknown distribution.

    >>> import jax, jthermo as jt
    >>> init = jt.models.Init(output_gain=0.1, paired=True)
    >>> net = jt.models.TwoLayer(inputs=3, hidden=4, init=init)
    >>> round(abs(float(net.apply(net.init(jax.random.key(0)), jax.numpy.ones(3)))), 6)
    0.0
    """

    weight_gain: float = 1.0
    bias_std: float = 0.0
    output_gain: float = 1.0
    paired: bool = False
    distribution: str = "normal"

    def __post_init__(self) -> None:
        for name in ("weight_gain", "bias_std", "output_gain"):
            value = finite_number(f"model.init.{name}", getattr(self, name))
            if value < 0:
                raise InputError(f"model.init.{name}", value, "give a number of at least 0")
            object.__setattr__(self, name, value)
        object.__setattr__(self, "paired", flag("model.init.paired", self.paired))
        one_of("model.init.distribution", self.distribution, DISTRIBUTIONS)

    def with_floats(self, floats: Mapping[str, Any]) -> Init:
        """A copy with these floats, unchecked, since they may be traced."""
        copied = copy.copy(self)
        for name, value in floats.items():
            object.__setattr__(copied, name, value)
        return copied


def kernel_init(
    scheme: str | Init, fan_in: int, place: str, units_axis: int = -1, scale: float = 1.0
) -> Initializer:
    """The initializer of a weight matrix; :class:`jthermo.models.MLP` has the formulas.

    Args:
        scheme: one of INITS, or an :class:`Init`.
        fan_in: number of inputs per unit.
        place: ``"hidden"``, ``"last_hidden"`` or ``"output"``.
        units_axis: the axis of the layer's units; the other one is that of its inputs.
        scale: a further factor, as of a parametrization.
    """
    draw = _weights(scheme, fan_in, place == "output", scale)
    if place == "hidden" or not is_paired(scheme):
        return draw
    # the second half of the units copies the first, and its output weights have the opposite sign
    axis, sign = (units_axis, 1.0) if place == "last_hidden" else (0, -1.0)
    return _paired(draw, axis, sign)


def bias_init(
    scheme: str | Init, fan_in: int, place: str = "hidden", scale: float = 1.0
) -> Initializer:
    """The initializer of a bias: U(±1/√fan_in) for ``"torch"``, s_b for an Init, else zero."""
    if isinstance(scheme, Init):
        draw = _of_distribution(scheme.distribution, scale * scheme.bias_std)
        return _paired(draw, 0, 1.0) if scheme.paired and place == "last_hidden" else draw
    return _uniform(scale * fan_in**-0.5) if scheme == "torch" else _normal(0.0)


def is_paired(scheme: str | Init) -> bool:
    """Whether each unit of the last hidden layer appears twice."""
    return scheme.paired if isinstance(scheme, Init) else scheme == "paired_he"


def _weights(scheme: str | Init, fan_in: int, output: bool, scale: float) -> Initializer:
    if isinstance(scheme, Init):
        gain = scheme.output_gain if output else scheme.weight_gain
        return _of_distribution(scheme.distribution, scale * fan_in**-0.5 * gain)
    if scheme == "torch":
        return _uniform(scale * fan_in**-0.5)
    variance = {"unit": (1 / fan_in, 1.0)}.get(scheme, (2 / fan_in, 1 / fan_in))[output]
    return _normal(scale * math.sqrt(variance))


def _of_distribution(distribution: str, std: float | Array) -> Initializer:
    """Independent numbers of this distribution with mean 0 and standard deviation `std`."""
    return _normal(std) if distribution == "normal" else _uniform(math.sqrt(3) * std)


def _paired(draw: Initializer, axis: int, sign: float) -> Initializer:
    """Draw half of the units; the other half are the same numbers times `sign`."""

    def paired(key: Array, shape: tuple[int, ...]) -> Array:
        axis_number = axis % len(shape)
        half = tuple(n // 2 if i == axis_number else n for i, n in enumerate(shape))
        drawn = draw(key, half)
        return jnp.concatenate([drawn, sign * drawn], axis=axis)

    return paired


def _uniform(bound: float | Array) -> Initializer:
    def init(key: Array, shape: tuple[int, ...]) -> Array:
        return bound * jax.random.uniform(key, shape, float, -1.0, 1.0)

    return init


def _normal(scale: float | Array) -> Initializer:
    def init(key: Array, shape: tuple[int, ...]) -> Array:
        return scale * jax.random.normal(key, shape, float)

    return init
