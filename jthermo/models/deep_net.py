"""The flax module of MLP and CNN: the order of the layers and the ReLU between them; checks."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
from jax import Array

from jthermo.errors import InputError, flag, one_of, sequence, whole_number
from jthermo.models.init import INITS, bias_init, kernel_init
from jthermo.models.layer import Layer, max_pool
from jthermo.models.model import Model

# Largest number of layers of a net and of blocks of a CNN; each is traced into every program.
MOST_LAYERS = 1000


class DeepModule(nn.Module):
    """Blocks of 3 × 3 convolutions, each followed by a 2 × 2 max pool, then dense layers.

    A ReLU follows every convolution and every dense layer but the last.
    """

    input_shape: tuple[int, ...]
    channels: tuple[tuple[int, ...], ...]
    hidden: tuple[int, ...]
    outputs: int
    bias: bool
    scheme: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Outputs of an example or a batch: (…,) for a net with one output, else (…, outputs)."""
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
    """Base class of MLP and CNN."""

    def step_model(self) -> Model:
        """The same net with the default init, on which neither update nor observables depend."""
        return type(self)(**{**self.arguments, "init": "torch"})


def check_deep_net(hidden: tuple[int, ...], outputs: Any, bias: Any, init: Any) -> tuple[int, bool]:
    """Check init, bias, hidden widths and outputs; returns outputs as an int and bias as a bool."""
    one_of("model.init", init, INITS)
    bias = flag("model.bias", bias)
    if init == "paired_he" and (not hidden or hidden[-1] % 2):
        raise InputError(
            "model.hidden",
            hidden,
            "paired_he needs an even number of units in the last hidden layer",
        )
    return whole_number("model.outputs", outputs), bias


def widths(field: str, value: Any) -> tuple[int, ...]:
    """`value` as a tuple of positive whole numbers; otherwise an InputError for `field`."""
    remedy = "give a tuple of positive whole numbers, such as (100, 100)"
    return tuple(whole_number(field, w) for w in sequence(field, value, MOST_LAYERS, remedy))


def _example_ndim(shape: tuple[int, ...], size: int) -> int:
    """How many of the last axes of `shape` form one example of `size` numbers."""
    ndim = next((k for k in range(1, len(shape) + 1) if math.prod(shape[-k:]) == size), None)
    if ndim is None:
        raise InputError(
            "x", shape, f"is no shape of an example or batch with {size} numbers per example"
        )
    return ndim
