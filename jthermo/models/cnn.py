"""Convolutional nets; the default is the paper's 6-layer CNN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jthermo.errors import InputError, sequence, whole_number
from jthermo.models.built_in import MOST_LAYERS, BuiltIn, DeepModule, checked_options, widths
from jthermo.models.init import Init


class CNN(BuiltIn):
    """Convolutional net: blocks of 3 × 3 convolutions and a 2 × 2 max pool, then dense layers.

    The convolutions have zero padding. Parameters: ``conv_0/kernel`` (9 · channels, width), whose
    rows run over (row, column, channel) of the window, ``conv_0/bias`` …, ``hidden_0/kernel`` …,
    ``output/kernel``, ``output/bias``. The defaults are the 6-layer net of Fig. 2 bottom.

    Args:
        input_shape: (rows, columns, channels) of an image.
        channels: for each block, the widths of its convolutions.
        hidden: widths of the dense hidden layers.
        outputs: 1 for the logistic loss, C for softmax.
        bias: whether every layer has a bias.
        init: as for :class:`MLP`, with fan_in = 9 · channels for a convolution.
        activation: as for :class:`MLP`; it follows every layer but the last.
        parametrization: as for :class:`MLP`.

    Raises:
        InputError: an argument has the wrong type or range, or the image is too small for the
            number of pools.

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
        init: str | Init = "torch",
        activation: str = "relu",
        parametrization: str = "standard",
    ) -> None:
        shape, hidden = widths("model.input_shape", input_shape), widths("model.hidden", hidden)
        if len(shape) != 3:
            raise InputError("model.input_shape", shape, "give (rows, columns, channels)")
        remedy = "give a tuple of widths per block, as in ((16, 16), (32, 32))"
        listed = sequence("model.channels", channels, MOST_LAYERS, remedy)
        blocks = tuple(widths("model.channels", block) for block in listed)
        if min(shape[:2]) < 2 ** len(blocks):
            raise InputError(
                "model.channels",
                blocks,
                f"{len(blocks)} blocks halve the image {len(blocks)} times, for which "
                f"{shape[0]} × {shape[1]} pixels are too few; give fewer blocks",
            )
        options = checked_options(bias, init, activation, parametrization, hidden)
        outputs = whole_number("model.outputs", outputs)
        module = DeepModule(shape, blocks, hidden, outputs, options)
        layers: dict[str, Any] = {"input_shape": shape, "channels": blocks, "hidden": hidden}
        super().__init__(module, shape, {**layers, "outputs": outputs, **options._asdict()})
