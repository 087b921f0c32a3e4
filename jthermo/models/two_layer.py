"""The paper's two-layer net (Sec. 4)."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jthermo.errors import InputError, flag, one_of, whole_number
from jthermo.models.init import INITS, two_layer_initializers
from jthermo.models.model import Model


class TwoLayerModule(nn.Module):
    """The flax module of :class:`TwoLayer`."""

    inputs: int
    hidden: int
    bias: bool
    scheme: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Outputs, () or (M,), of one example (inputs,) or a batch (M, inputs)."""
        init_w, init_b, init_v = two_layer_initializers(self.scheme, self.inputs, self.hidden)
        w = self.param("W", init_w, (self.hidden, self.inputs))
        a = x @ w.T
        if self.bias:
            b = self.param("b", init_b, (self.hidden,))
            a = a + jnp.expand_dims(b, tuple(range(a.ndim - 1)))
        self.sow("preactivations", "hidden", a)
        return nn.relu(a) @ self.param("V", init_v, (self.hidden,))


class TwoLayer(Model):
    """f(x) = Σ_i V_i relu(Σ_j W_ij x_j + b_i), one output and no output bias (Sec. 4 of the paper).

    Parameters: W (hidden, inputs), b (hidden,) unless ``bias=False``, V (hidden,).

    Args:
        inputs: d, the dimension of x.
        hidden: N, the number of hidden units.
        bias: whether there is a bias b. The paper's first family has one; the second has none, and
            x ≥ 0.
        init: ``"torch"``: W, b ~ U(±1/√d), V ~ U(±1/√N). ``"he"``: W ~ N(0, 2/d), b = 0,
            V ~ N(0, 1/N). ``"unit"``: W ~ N(0, 1/d), b = 0, V ~ N(0, 1). ``"paired_he"``: as
            ``"he"``, but each unit appears twice, with opposite V, so that f = 0.

    Raises:
        InputError: an argument has the wrong type or range; `hidden` is odd with ``"paired_he"``.

    >>> import jax
    >>> model = TwoLayer(inputs=3, hidden=4, init="paired_he")
    >>> params = model.init(jax.random.key(0))
    >>> {name: params[name].shape for name in sorted(params)}
    {'V': (4,), 'W': (4, 3), 'b': (4,)}
    >>> round(abs(float(model.apply(params, jax.numpy.ones(3)))), 6)
    0.0
    """

    def __init__(self, inputs: int, hidden: int, bias: bool = True, init: str = "torch") -> None:
        inputs, hidden = (
            whole_number(f"model.{k}", v) for k, v in (("inputs", inputs), ("hidden", hidden))
        )
        init, bias = one_of("model.init", init, INITS), flag("model.bias", bias)
        if init == "paired_he" and hidden % 2:
            raise InputError(
                "model.hidden", hidden, "paired_he needs an even number of hidden units"
            )
        module = TwoLayerModule(inputs, hidden, bias, init)
        arguments = {"inputs": inputs, "hidden": hidden, "bias": bias, "init": init}
        super().__init__(module, (inputs,), arguments)

    def step_model(self) -> Model:
        """The same net with the default init, on which neither update nor observables depend."""
        return type(self)(**{**self.arguments, "init": "torch"})
