"""The nonlinearities of the built-in nets by name; all but ReLU are trained by the XLA engine."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
from jax import Array

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "tanh": nn.tanh,
    # x·Φ(x) itself, not its approximation by tanh
    "gelu": functools.partial(nn.gelu, approximate=False),
    # the error function as theories of online learning use it (Saad & Solla 1995)
    "erf": lambda a: jax.lax.erf(a / math.sqrt(2)),
    "leaky_relu": functools.partial(nn.leaky_relu, negative_slope=0.01),
    "softplus": nn.softplus,
    "identity": lambda a: a,
}
