"""Deep nets: fully connected of any depth and width, and convolutional; softmax or binary by the number of outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jthermo.errors import whole_number
from jthermo.models.deep_net import DeepModule, DeepNet, check_deep_net, widths


class MLP(DeepNet):
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
        inputs, hidden = whole_number("model.inputs", inputs), widths("model.hidden", hidden)
        outputs = check_deep_net(hidden, outputs, bias, init)
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
