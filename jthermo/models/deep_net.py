"""What MLP and CNN share: the flax module, its checks, and a compiled step that ignores the init."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
from jax import Array

from jthermo.errors import InputError, whole_number
from jthermo.models.init import INITS, bias_init, kernel_init
from jthermo.models.layer import Layer, max_pool
from jthermo.models.model import Model


class DeepModule(nn.Module):
    """Blocks of 3 × 3 convolutions that end in a 2 × 2 max pool, then dense layers; ReLU after all but the last."""

    input_shape: tuple[int, ...]
    channels: tuple[tuple[int, ...], ...]
    hidden: tuple[int, ...]
    outputs: int
    bias: bool
    scheme: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Outputs (…,) for one output and (…, outputs) for several, of one example or a batch."""
        batch = x.shape[: x.ndim - _example_ndim(x.shape, math.prod(self.input_shape))]
        h, index = x.reshape(*batch, *self.input_shape), 0
        for block in self.channels:
            for width in block:
                h = nn.relu(self._layer(f"conv_{index}", width, 9 * h.shape[-1], "hidden", 3)(h))
                index += 1
            h = max_pool(h)
        h = h.reshape(*batch, -1)
        for i, width in enumerate(self.hidden):
            place = "last_hidden" if i == len(self.hidden) - 1 else "hidden"
            h = nn.relu(self._layer(f"hidden_{i}", width, h.shape[-1], place)(h))
        a = self._layer("output", self.outputs, h.shape[-1], "output")(h)
        return a[..., 0] if self.outputs == 1 else a

    def _layer(
        self, name: str, width: int, fan_in: int, place: str, size: int | None = None
    ) -> Layer:
        return Layer(
            width,
            size,
            self.bias,
            kernel_init(self.scheme, fan_in, place),
            bias_init(self.scheme, fan_in),
            hidden=place != "output",
            name=name,
        )


class DeepNet(Model):
    """What the deep nets share: identity at the default init for compiled updates."""

    def step_model(self) -> Model:
        """The same net at the default init: compiled update and observables don't depend on it."""
        return type(self)(**{**self.arguments, "init": "torch"})


def check_deep_net(hidden: tuple[int, ...], outputs: Any, bias: Any, init: Any) -> int:
    """The number of outputs, once init, bias and hidden widths have been checked."""
    if init not in INITS:
        raise InputError("model.init", init, f"use one of {', '.join(INITS)}")
    if not isinstance(bias, bool):
        raise InputError("model.bias", bias, "use True or False")
    if init == "paired_he" and (not hidden or hidden[-1] % 2):
        raise InputError(
            "model.hidden",
            hidden,
            "paired_he copies the last hidden units in pairs; end in an even number",
        )
    return whole_number("model.outputs", outputs)


def widths(field: str, given: Any) -> tuple[int, ...]:
    """A tuple of positive whole numbers, or an error that names the field."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise InputError(field, given, "give a tuple of positive whole numbers, such as (100, 100)")
    return tuple(whole_number(field, width) for width in given)


def _example_ndim(shape: tuple[int, ...], size: int) -> int:
    """How many of the last axes make up one example of `size` numbers."""
    ndim = next((k for k in range(1, len(shape) + 1) if math.prod(shape[-k:]) == size), None)
    if ndim is None:
        raise InputError("x", shape, f"holds no examples of {size} numbers")
    return ndim
