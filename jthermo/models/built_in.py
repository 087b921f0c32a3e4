"""What TwoLayer, MLP and CNN share: their options, and the flax module of MLP and CNN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
from jax import Array

from jthermo.errors import InputError, flag, one_of, sequence, whole_number
from jthermo.models.activations import ACTIVATIONS
from jthermo.models.init import INITS, Init, bias_init, is_paired, kernel_init
from jthermo.models.layer import Layer, max_pool
from jthermo.models.model import Model
from jthermo.models.parametrization import PARAMETRIZATIONS, factors

# Largest number of layers of a net and of blocks of a CNN; each is traced into every program.
MOST_LAYERS = 1000


class Options(NamedTuple):
    """The constructor arguments that all built-in nets have.

    Attributes:
        bias: whether layers have a bias.
        init: the initialisation, one of INITS or an Init.
        activation: the nonlinearity, one of ACTIVATIONS.
        parametrization: one of PARAMETRIZATIONS.
    """

    bias: bool
    init: str | Init
    activation: str
    parametrization: str


def checked_options(
    bias: Any, init: Any, activation: Any, parametrization: Any, hidden: tuple[int, ...]
) -> Options:
    """The options of a net with these hidden widths; an InputError for one that is wrong."""
    if not isinstance(init, Init) and (not isinstance(init, str) or init not in INITS):
        remedy = f"use one of {', '.join(INITS)}, or jt.models.Init(...)"
        raise InputError("model.init", init, remedy)
    options = Options(
        flag("model.bias", bias),
        init,
        one_of("model.activation", activation, ACTIVATIONS),
        one_of("model.parametrization", parametrization, PARAMETRIZATIONS),
    )
    if is_paired(init) and (not hidden or hidden[-1] % 2):
        remedy = "a paired init needs an even number of units in the last hidden layer"
        raise InputError("model.hidden", hidden, remedy)
    if parametrization == "mean_field" and len(hidden) != 1:
        remedy = f"needs one hidden layer, not {len(hidden)}; use 'mup'"
        raise InputError("model.parametrization", parametrization, remedy)
    return options


class DeepModule(nn.Module):
    """Blocks of 3 × 3 convolutions, each followed by a 2 × 2 max pool, then dense layers.

    The nonlinearity follows every convolution and every dense layer but the last.
    """

    input_shape: tuple[int, ...]
    channels: tuple[tuple[int, ...], ...]
    hidden: tuple[int, ...]
    outputs: int
    options: Options

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Outputs of an example or a batch: (…,) for a net with one output, else (…, outputs)."""
        batch = x.shape[: x.ndim - _example_ndim(x.shape, math.prod(self.input_shape))]
        nonlinear = ACTIVATIONS[self.options.activation]
        h, index = x.reshape(*batch, *self.input_shape), 0
        for block in self.channels:
            for width in block:
                fan_in = 9 * h.shape[-1]
                h = nonlinear(
                    self._layer(f"conv_{index}", width, fan_in, "hidden", not index, 3)(h)
                )
                index += 1
            h = max_pool(h)
        h = h.reshape(*batch, -1)
        for i, width in enumerate(self.hidden):
            place = "last_hidden" if i == len(self.hidden) - 1 else "hidden"
            first = not i and not self.channels
            h = nonlinear(self._layer(f"hidden_{i}", width, h.shape[-1], place, first)(h))
        first = not self.hidden and not self.channels
        a = self._layer("output", self.outputs, h.shape[-1], "output", first)(h)
        if self.outputs == 1:
            return a[..., 0]
        # an example of shape (1, rows, columns) has an axis that looks like one of the batch
        return a.reshape(*batch[:1], -1) if len(batch) > 1 == math.prod(batch[1:]) else a

    def _layer(
        self, name: str, width: int, fan_in: int, place: str, first: bool, size: int | None = None
    ) -> Layer:
        init = self.options.init
        factor = factors(self.options.parametrization, fan_in, width, place, first)
        return Layer(
            width,
            size,
            self.options.bias,
            kernel_init(init, fan_in, place, scale=factor.weight_start),
            bias_init(init, fan_in, place, scale=factor.bias_start),
            hidden=place != "output",
            weight_factor=factor.weight,
            bias_factor=factor.bias,
            name=name,
        )


class BuiltIn(Model):
    """Base class of TwoLayer, MLP and CNN."""

    def step_model(self) -> Model:
        """The same net with the default init, on which neither update nor observables depend."""
        return type(self)(**{**self.arguments, "init": "torch"})

    @property
    def init_floats(self) -> dict[str, float]:
        """The numbers of an :class:`Init`, which runs may differ in."""
        init = self.arguments["init"]
        names = ("weight_gain", "bias_std", "output_gain") if isinstance(init, Init) else ()
        return {f"init.{name}": getattr(init, name) for name in names}

    def with_init_floats(self, floats: Mapping[str, Any]) -> Model:
        """The same net with these numbers in its :class:`Init`; they may be traced."""
        if not floats:
            return self
        init = self.arguments["init"].with_floats(
            {k.rpartition(".")[2]: v for k, v in floats.items()}
        )
        return type(self)(**{**self.arguments, "init": init})

    @property
    def learning_rate_factor(self) -> float:
        """The width N for the mean-field parametrization, in which η·N is the learning rate."""
        hidden = self.arguments["hidden"]
        width = hidden if isinstance(hidden, int) else hidden[-1] if hidden else 1
        return float(width) if self.arguments["parametrization"] == "mean_field" else 1.0

    @property
    def is_plain_relu(self) -> bool:
        """Whether it is a ReLU net in the standard parametrization, unless a subclass differs."""
        options = self.arguments["activation"], self.arguments["parametrization"]
        return options == ("relu", "standard")


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
