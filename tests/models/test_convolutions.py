"""Moments of gradients are exact for a flax convolution with any option, by the tape or without."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jthermo as jt
from jthermo.observables import gradient_moments

OPTIONS = {
    "strides": {"strides": (2, 1)},
    "valid": {"padding": "VALID"},
    "padding": {"padding": ((1, 0), (0, 2))},
    "groups": {"feature_group_count": 2},
    "dilated kernel": {"kernel_dilation": (2, 1)},
    "dilated input": {"input_dilation": (1, 2), "padding": ((0, 0), (0, 0))},
    "mask": {"mask": np.array([1.0, 0, 1, 1, 0, 1, 1, 1]).reshape(2, 1, 2, 2)},
}


class Net(nn.Module):
    """One convolution with the options, squared and averaged."""

    name_of_options: str

    @nn.compact
    def __call__(self, x):
        return jnp.square(nn.Conv(2, (2, 1), **OPTIONS[self.name_of_options])(x)).mean((1, 2, 3))


@pytest.mark.parametrize("name", OPTIONS)
def test_moments_are_those_of_each_example(name, caplog):
    model = jt.models.as_model(Net(name), (4, 3, 2))
    params = jax.jit(model.init)(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (5, 4, 3, 2))
    y = jnp.array([0, 1, 1, 0, 1])

    def loss(params, x, y):
        f = model.apply(params, x[None])[0]
        return jax.nn.softplus(f) - y * f

    @jax.jit
    def both(params):
        each = jax.vmap(jax.grad(loss), (None, 0, 0))(params, x, y.astype(jnp.float32))
        square = sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(each)) / 5
        return gradient_moments.moments(model, params, x, y, "bce").total.mean_square, square

    measured, exact = both(params)
    assert float(measured) == pytest.approx(float(exact), rel=1e-5)
    # what the tape does not cover is known from the layer, without a comparison of gradients
    assert not caplog.records
