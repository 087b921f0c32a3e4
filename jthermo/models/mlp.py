"""Fully connected nets of any depth and width; ReLU unless told otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jthermo.errors import whole_number
from jthermo.models.built_in import BuiltIn, DeepModule, checked_options, widths
from jthermo.models.init import Init


class MLP(BuiltIn):
    """Fully connected net: h^l = φ(W^l h^(l−1) + b^l), f = W^n h^(n−1) + b^n (App. A.5, φ = ReLU).

    Parameters: ``hidden_0/kernel`` (inputs, width), ``hidden_0/bias`` …, ``output/kernel``,
    ``output/bias``. An image of `inputs` numbers is flattened.

    Args:
        inputs: d, the number of components of x.
        hidden: widths of the hidden layers; the paper's 6-layer net has ``(100,) * 5``.
        outputs: 1 for the logistic loss, C for softmax.
        bias: whether every layer, including the output layer, has a bias.
        init: ``"torch"``: W, b ~ U(±1/√fan_in). ``"he"``: W ~ N(0, 2/fan_in), output layer
            N(0, 1/fan_in), b = 0. ``"unit"``: W ~ N(0, 1/fan_in), output layer N(0, 1), b = 0.
            ``"paired_he"``: as ``"he"``, but each unit of the last hidden layer appears twice, with
            opposite output weights, so that f = 0. Or ``jt.models.Init(...)`` with gains.
        activation: φ: ``"relu"``, ``"tanh"``, ``"gelu"``, ``"erf"`` (of a/√2), ``"leaky_relu"``
            (slope .01), ``"softplus"`` or ``"identity"``.
        parametrization: ``"standard"``; ``"ntk"``: W/√fan_in with W of order 1; ``"mean_field"``,
            for one hidden layer: f is the mean over its units, and the learning rate is η·width;
            ``"mup"``: the maximal update parametrization for SGD (Yang & Hu 2021).

    Raises:
        InputError: an argument has the wrong type or range.

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
        init: str | Init = "torch",
        activation: str = "relu",
        parametrization: str = "standard",
    ) -> None:
        inputs, hidden = whole_number("model.inputs", inputs), widths("model.hidden", hidden)
        options = checked_options(bias, init, activation, parametrization, hidden)
        outputs = whole_number("model.outputs", outputs)
        module = DeepModule((inputs,), (), hidden, outputs, options)
        arguments = {"inputs": inputs, "hidden": hidden, "outputs": outputs}
        super().__init__(module, (inputs,), {**arguments, **options._asdict()})

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers in the parameter tree, from the first to the last."""
        return (*(f"hidden_{i}" for i in range(len(self.arguments["hidden"]))), "output")

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether the net accepts examples of this shape; images are flattened."""
        return math.prod(shape) == self.input_shape[0]
