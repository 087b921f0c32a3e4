"""Fully connected ReLU nets of any depth and width."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jthermo.errors import whole_number
from jthermo.models.deep_net import DeepModule, DeepNet, check_deep_net, widths


class MLP(DeepNet):
    """Fully connected ReLU net: h^l = relu(W^l h^(l−1) + b^l), f = W^n h^(n−1) + b^n (App. A.5).

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
            opposite output weights, so that f = 0.

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
        init: str = "torch",
    ) -> None:
        inputs, hidden = whole_number("model.inputs", inputs), widths("model.hidden", hidden)
        outputs, bias = check_deep_net(hidden, outputs, bias, init)
        module = DeepModule((inputs,), (), hidden, outputs, bias, init)
        arguments = {"inputs": inputs, "hidden": hidden, "outputs": outputs}
        super().__init__(module, (inputs,), {**arguments, "bias": bias, "init": init})

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers in the parameter tree, from the first to the last."""
        return (*(f"hidden_{i}" for i in range(len(self.arguments["hidden"]))), "output")

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether the net accepts examples of this shape; images are flattened."""
        return math.prod(shape) == self.input_shape[0]
