"""Deep nets: fully connected of any depth and width, and convolutional; softmax or binary by the number of outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
from jax import Array

from jthermo.errors import InputError, whole_number
from jthermo.models.layers import INITS, Layer, bias_init, kernel_init, max_pool
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

    def _layer(self, name: str, width: int, fan_in: int, place: str, size: int | None = None) -> Layer:
        return Layer(
            width,
            size,
            self.bias,
            kernel_init(self.scheme, fan_in, place),
            bias_init(self.scheme, fan_in),
            hidden=place != "output",
            name=name,
        )


class _Deep(Model):
    """What the deep nets share: identity at the default init for compiled updates."""

    def step_model(self) -> Model:
        """The same net at the default init: compiled update and observables don't depend on it."""
        return type(self)(**{**self.arguments, "init": "torch"})


class MLP(_Deep):
    """Fully connected ReLU net: h^l = relu(W^l h^(l−1) + b^l), outputs W^n h^(n−1) + b^n (App. A.5).

    Parameters: ``hidden_0/kernel`` (inputs, width), ``hidden_0/bias`` …, ``output/kernel``, ``output/bias``. A picture
    of `inputs` numbers is flattened.

    Args:
        inputs: d, the number of components of x.
        hidden: widths of the hidden layers; the paper's 6-layer net has ``(100,) * 5``.
        outputs: 1 for the logistic loss, C for softmax.
        bias: whether every layer, the last one too, has a bias.
        init: ``"torch"`` W, b ~ U(±1/√fan_in); ``"he"`` W ~ N(0, 2/fan_in), of the output N(0, 1/fan_in), b = 0;
            ``"unit"`` W ~ N(0, 1/fan_in), of the output N(0, 1), b = 0; ``"paired_he"`` He with the units of the last
            hidden layer twice and opposite output weights, so that f = 0.

    >>> import jax
    >>> model = MLP(inputs=4, hidden=(3, 2))
    >>> params = model.init(jax.random.key(0))
    >>> params["hidden_1"]["kernel"].shape, model.apply(params, jax.numpy.ones((5, 4))).shape
    ((3, 2), (5,))
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int] = (100,) * 5,
        outputs: int = 1,
        bias: bool = True,
        init: str = "torch",
    ) -> None:
        inputs, hidden = whole_number("model.inputs", inputs), _widths("model.hidden", hidden)
        outputs = _check(hidden, outputs, bias, init)
        module = DeepModule((inputs,), (), hidden, outputs, bias, init)
        given = {"inputs": inputs, "hidden": hidden, "outputs": outputs, "bias": bias, "init": init}
        super().__init__(module, (inputs,), given)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers in the parameters, the first one first."""
        return (*(f"hidden_{i}" for i in range(len(self.arguments["hidden"]))), "output")

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether examples of this shape fit; pictures are flattened."""
        return math.prod(shape) == self.input_shape[0]


class CNN(_Deep):
    """Convolutional ReLU net: blocks of 3 × 3 convolutions with zero padding and a 2 × 2 max pool, then dense layers.

    Parameters: ``conv_0/kernel`` (9 · channels, width) with rows over (row, column, channel) of the window,
    ``conv_0/bias`` …, ``hidden_0/kernel`` …, ``output/kernel``, ``output/bias``. The defaults are the 6-layer net of
    Fig. 2 bottom.

    Args:
        input_shape: (rows, columns, channels) of a picture.
        channels: the widths of the convolutions of each block.
        hidden: widths of the dense hidden layers.
        outputs: 1 for the logistic loss, C for softmax.
        bias: whether every layer has a bias.
        init: as for :class:`MLP`, with fan_in = 9 · channels for a convolution.

    >>> import jax
    >>> model = CNN(input_shape=(8, 8, 1), channels=((2,), (3,)), hidden=(5,), outputs=10)
    >>> params = model.init(jax.random.key(0))
    >>> params["conv_1"]["kernel"].shape, params["hidden_0"]["kernel"].shape
    ((18, 3), (12, 5))
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (28, 28, 1),
        channels: Sequence[Sequence[int]] = ((16, 16), (32, 32)),
        hidden: Sequence[int] = (128,),
        outputs: int = 10,
        bias: bool = True,
        init: str = "torch",
    ) -> None:
        shape, hidden = _widths("model.input_shape", input_shape), _widths("model.hidden", hidden)
        if len(shape) != 3:
            raise InputError("model.input_shape", shape, "give (rows, columns, channels)")
        if isinstance(channels, str) or not isinstance(channels, Sequence):
            raise InputError(
                "model.channels", channels, "give the widths of each block: ((16, 16), (32, 32))"
            )
        blocks = tuple(_widths("model.channels", block) for block in channels)
        if min(shape[:2]) < 2 ** len(blocks):
            raise InputError(
                "model.channels",
                blocks,
                f"halves the picture {len(blocks)} times; {shape[:2]} is too small for that",
            )
        outputs = _check(hidden, outputs, bias, init)
        module = DeepModule(shape, blocks, hidden, outputs, bias, init)
        given: dict[str, Any] = {"input_shape": shape, "channels": blocks, "hidden": hidden}
        super().__init__(module, shape, {**given, "outputs": outputs, "bias": bias, "init": init})


def _check(hidden: tuple[int, ...], outputs: Any, bias: Any, init: Any) -> int:
    if init not in INITS:
        raise InputError("model.init", init, f"use one of {', '.join(INITS)}")
    if not isinstance(bias, bool):
        raise InputError("model.bias", bias, "use True or False")
    if init == "paired_he" and (not hidden or hidden[-1] % 2):
        raise InputError(
            "model.hidden", hidden, "paired_he copies the last hidden units in pairs; end in an even number"
        )
    return whole_number("model.outputs", outputs)


def _widths(field: str, given: Any) -> tuple[int, ...]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise InputError(field, given, "give a tuple of positive whole numbers, such as (100, 100)")
    return tuple(whole_number(field, width) for width in given)


def _example_ndim(shape: tuple[int, ...], size: int) -> int:
    """How many of the last axes make up one example of `size` numbers."""
    ndim = next((k for k in range(1, len(shape) + 1) if math.prod(shape[-k:]) == size), None)
    if ndim is None:
        raise InputError("x", shape, f"holds no examples of {size} numbers")
    return ndim
