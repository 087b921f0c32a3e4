"""Nets on which the tape is wrong or fails: the exact slow way is taken, and is exact."""

import logging

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jthermo as jt
from jthermo.models import per_example
from jthermo.observables import gradient_moments
from jthermo.theory import hessian

# More than a chunk of the slow way, which is then a loop.
M = 35


class Tied(nn.Module):
    """An autoencoder whose decoder is the transposed encoder: h W^T."""

    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(4)
        h = nn.relu(layer(x))
        return h @ layer.variables["params"]["kernel"].T


class Applied(nn.Module):
    """The kernel is used again by another, unbound layer."""

    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(5)
        h = nn.relu(layer(x))
        kernel = layer.variables["params"]["kernel"].T
        h = nn.Dense(5, use_bias=False, parent=None).apply({"params": {"kernel": kernel}}, h)
        return nn.Dense(1)(nn.relu(h))[..., 0]


class Standardised(nn.Module):
    """Weight standardisation: the layer sees (W − mean)/std."""

    @nn.compact
    def __call__(self, x):
        def standardise(variables):
            kernel = variables["params"]["kernel"]
            kernel = (kernel - kernel.mean(0, keepdims=True)) / kernel.std(0, keepdims=True)
            return {"params": {**variables["params"], "kernel": kernel}}

        layer = nn.map_variables(nn.Dense, "params", standardise, init=self.is_initializing())
        return nn.Dense(1)(nn.relu(layer(6)(x)))[..., 0]


class BiasTwice(nn.Module):
    """A bias that is read a second time."""

    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(4)
        h = nn.relu(layer(x)) + layer.variables["params"]["bias"][None]
        return nn.Dense(3)(h)


class Siamese(nn.Module):
    """One layer applied to two halves of the input, stacked before the examples."""

    @nn.compact
    def __call__(self, x):
        a, b = nn.relu(nn.Dense(4)(jnp.stack([x[:, :3], x[:, 3:]])))
        return nn.Dense(1)(a - b)[..., 0]


class Twice(nn.Module):
    """A layer that is called twice."""

    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(6)
        return nn.Dense(1)(nn.relu(layer(nn.relu(layer(x)))))[..., 0]


class Grouped(nn.Module):
    """A convolution with two groups of channels."""

    @nn.compact
    def __call__(self, x):
        h = nn.relu(nn.Conv(4, (3, 3), feature_group_count=2)(x.reshape(-1, 3, 3, 2)))
        return nn.Dense(3)(h.reshape(x.shape[0], -1))


class Plain(nn.Module):
    """A net on which the tape is exact."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(nn.relu(nn.Dense(5)(x)))[..., 0]


# Net, inputs, whether one line says that the tape failed. The others aren't linear layers, each
# called once, and take the slow way without a line.
NETS = {
    "tied": (Tied(), 6, True),
    "applied": (Applied(), 5, True),
    "standardised": (Standardised(), 6, True),
    "bias twice": (BiasTwice(), 6, True),
    "siamese": (Siamese(), 6, False),
    "twice": (Twice(), 6, False),
    "grouped": (Grouped(), 18, False),
}


def case(module, inputs):
    model = jt.models.as_model(module, (inputs,))
    params = jax.tree.map(
        lambda a: a + 0.3 * jax.random.normal(jax.random.key(a.size), a.shape),
        jax.jit(model.init)(jax.random.key(0)),
    )
    x = jax.random.normal(jax.random.key(1), (M, inputs))
    y = jax.random.randint(jax.random.key(2), (M,), 0, max(2, model.num_outputs))
    return model, params, x, y, "bce" if model.num_outputs == 1 else "softmax"


def jacobians(model, params, x):
    """∂f/∂θ of every example, (M, C, P) in float64, one example after the other."""
    jacobian = jax.jit(jax.jacrev(lambda p, x: jnp.atleast_1d(model.apply(p, x[None])[0])))
    rows = [jax.tree.leaves(jacobian(params, one)) for one in x]
    return np.array(
        [np.concatenate([a.reshape(len(a), -1) for a in leaves], 1) for leaves in rows], float
    )


def outputs(model, params, x):
    """The outputs (M, C) and their probabilities: (M, 1) or (M, C)."""
    f = np.asarray(model.apply(params, x), float).reshape(M, -1)
    e = np.exp(f - f.max(1, keepdims=True))
    return f, 1 / (1 + np.exp(-f)) if f.shape[1] == 1 else e / e.sum(1, keepdims=True)


def explicit(model, params, x, y):
    """tr Σ1, |ḡ|² and tr K by NumPy from the explicit Jacobians."""
    j, (_, p) = jacobians(model, params, x), outputs(model, params, x)
    target = np.asarray(y)[:, None] if p.shape[1] == 1 else np.eye(p.shape[1])[np.asarray(y)]
    gradients = np.einsum("mc,mcp->mp", p - target, j)
    diagonal = np.array([np.diag(q * (1 - q)) if len(q) == 1 else np.diag(q) for q in p])
    outer = 0 if p.shape[1] == 1 else np.einsum("mc,md->mcd", p, p)
    trace = np.einsum("mcd,mcp,mdp->m", diagonal - outer, j, j).mean()
    return gradients.var(0, ddof=1).sum(), np.square(gradients.mean(0)).sum(), trace


@pytest.mark.parametrize("name", NETS)
def test_where_the_tape_is_wrong_the_slow_way_is_exact(name, caplog):
    module, inputs, said = NETS[name]
    model, params, x, y, loss = case(module, inputs)
    per_example._covers.cache_clear()
    with caplog.at_level(logging.WARNING, "jthermo"):
        assert not per_example.covers(model)
        assert not per_example.covers(model)
    assert len(caplog.records) == said
    variance, square, trace = explicit(model, params, x, y)

    # two runs side by side, each with its probe, as a sweep measures them
    @jax.jit
    @jax.vmap
    def measured(params, x, y):
        gradient = gradient_moments.moments(model, params, x, y, loss).total
        return gradient.trace, gradient.square_mean, hessian.trace(model, params, x)

    both = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), (params, x))
    found = [a[0] for a in measured(*both, jnp.stack([y, y]))]
    np.testing.assert_allclose(found, [variance, square, trace], rtol=1e-4)


@pytest.mark.parametrize("name", ["tied", "applied", "standardised", "bias twice"])
def test_the_tape_itself_would_have_been_wrong(name):
    """The negative control: without the comparison the numbers are wrong by more than 1 %."""
    model, params, x, y, loss = case(*NETS[name][:2])
    sums = jax.jit(gradient_moments._tape_sums(model, params, loss))
    scatter = sum(s.scatter for s in sums(x, y, jnp.ones(M)).values())
    assert abs(float(scatter) / (M - 1) / explicit(model, params, x, y)[0] - 1) > 0.01
    assert float(per_example._error(model)) > 10 * per_example.TOLERANCE


def test_where_the_tape_is_exact_it_is_used(caplog):
    model, params, x, y, loss = case(Plain(), 6)
    per_example._covers.cache_clear()
    assert per_example.covers(model)
    assert not caplog.records
    assert float(per_example._error(model)) < per_example.TOLERANCE / 100
    gradient = jax.jit(lambda p: gradient_moments.moments(model, p, x, y, loss).total)(params)
    variance, square, trace = explicit(model, params, x, y)
    np.testing.assert_allclose(
        [gradient.trace, gradient.square_mean, hessian.trace(model, params, x)],
        [variance, square, trace],
        rtol=1e-4,
    )
