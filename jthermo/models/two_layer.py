"""The paper's two-layer net (Sec. 4)."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jthermo.errors import whole_number
from jthermo.models.activations import ACTIVATIONS
from jthermo.models.built_in import BuiltIn, Options, checked_options
from jthermo.models.init import Init, bias_init, kernel_init
from jthermo.models.parametrization import factors


class TwoLayerModule(nn.Module):
    """The flax module of :class:`TwoLayer`."""

    inputs: int
    hidden: int
    options: Options

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Outputs, () or (M,), of one example (inputs,) or a batch (M, inputs)."""
        n, options = self.hidden, self.options
        below, above = (
            factors(options.parametrization, self.inputs, n, "last_hidden", first=True),
            factors(options.parametrization, n, 1, "output", first=False),
        )
        init_w, init_b, init_v = (
            kernel_init(options.init, self.inputs, "last_hidden", 0, below.weight_start),
            bias_init(options.init, self.inputs, "last_hidden", below.bias_start),
            kernel_init(options.init, n, "output", scale=above.weight_start),
        )
        a = _times(below.weight, x) @ self.param("W", init_w, (n, self.inputs)).T
        if options.bias:
            b = _times(below.bias, self.param("b", init_b, (n,)))
            a = a + jnp.expand_dims(b, tuple(range(a.ndim - 1)))
        self.sow("preactivations", "hidden", a)
        h = _times(above.weight, ACTIVATIONS[options.activation](a))
        return h @ self.param("V", init_v, (n,))


def _times(factor: float, x: Array) -> Array:
    """`factor` · x, and x itself for 1, so that the standard parametrization costs nothing."""
    return x if factor == 1 else factor * x


class TwoLayer(BuiltIn):
    """f(x) = Σ_i V_i φ(Σ_j W_ij x_j + b_i), one output and no output bias (Sec. 4, φ = ReLU).

    Parameters: W (hidden, inputs), b (hidden,) unless ``bias=False``, V (hidden,).

    Args:
        inputs: d, the dimension of x.
        hidden: N, the number of hidden units.
        bias: whether there is a bias b. The paper's first family has one; the second has none, and
            x ≥ 0.
        init: ``"torch"``: W, b ~ U(±1/√d), V ~ U(±1/√N). ``"he"``: W ~ N(0, 2/d), b = 0,
            V ~ N(0, 1/N). ``"unit"``: W ~ N(0, 1/d), b = 0, V ~ N(0, 1). ``"paired_he"``: as
            ``"he"``, but each unit appears twice, with opposite V, so that f = 0. Or
            ``jt.models.Init(...)`` with gains of its own.
        activation: φ, one of those of :class:`MLP`.
        parametrization: as for :class:`MLP`.

    Raises:
        InputError: an argument has the wrong type or range; `hidden` is odd with a paired init.

    >>> import jax
    >>> model = TwoLayer(inputs=3, hidden=4, init="paired_he")
    >>> params = model.init(jax.random.key(0))
    >>> {name: params[name].shape for name in sorted(params)}
    {'V': (4,), 'W': (4, 3), 'b': (4,)}
    >>> round(abs(float(model.apply(params, jax.numpy.ones(3)))), 6)
    0.0
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        bias: bool = True,
        init: str | Init = "torch",
        activation: str = "relu",
        parametrization: str = "standard",
    ) -> None:
        inputs, hidden = (
            whole_number(f"model.{k}", v) for k, v in (("inputs", inputs), ("hidden", hidden))
        )
        options = checked_options(bias, init, activation, parametrization, (hidden,))
        arguments = {"inputs": inputs, "hidden": hidden, **options._asdict()}
        super().__init__(TwoLayerModule(inputs, hidden, options), (inputs,), arguments)
