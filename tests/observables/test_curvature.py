"""Curvature over probes of any size: full chunks, a remainder, and fewer examples than a chunk."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jthermo as jt
from jthermo.observables import curvature_estimators
from jthermo.theory import hessian
from jthermo.update_rule import losses

MODEL = jt.models.MLP(3, hidden=(4,), outputs=3, init="he")
CHUNK = curvature_estimators.HESSIAN_CHUNK
# fewer examples than a chunk, whole chunks, and a remainder
SIZES = (CHUNK - 1, 2 * CHUNK, 2 * CHUNK + 8)
VECTORS = 2


@functools.cache
def case():
    """Parameters and examples whose curvature differs from one example to the next."""
    count = max(SIZES)
    scale = jnp.linspace(0.2, 3, count)[:, None]
    x = scale * jax.random.normal(jax.random.key(1), (count, 3))
    y = jax.random.randint(jax.random.key(2), (count,), 0, 3)
    return MODEL.init(jax.random.key(0)), x, y


@functools.cache
def full_hessians():
    """∂²L/∂θ² of every example, (M, P, P)."""
    params, x, y = case()
    flat, unflatten = ravel_pytree(params)

    def loss(theta, x, y):
        outputs = MODEL.apply(unflatten(theta), x[None])
        return losses.value("softmax", outputs, losses.targets("softmax", y[None], 3))[0]

    return np.asarray(jax.jit(jax.vmap(jax.hessian(loss), (None, 0, 0)))(flat, x, y), float)


@pytest.mark.parametrize("size", SIZES)
def test_a_hessian_product_holds_every_example_of_the_probe_once(size):
    params, x, y = case()
    full, key = full_hessians()[:size].mean(0), jax.random.key(3)
    estimate = jax.jit(
        lambda x, y: curvature_estimators.hutchinson(MODEL, params, x, y, "softmax", key, VECTORS)
    )(x[:size], y[:size])
    exact = products(full, key)
    expected = exact.mean(), exact.std(ddof=1) / np.sqrt(VECTORS)
    np.testing.assert_allclose(estimate, expected, rtol=1e-3)
    # another weight for the last example alone would be seen
    last = products(full_hessians()[size - 1] / size, key)
    assert abs(last.mean()) > 5e-3 * abs(expected[0])


def products(hessian, key):
    """vᵀHv for the sign vectors that a key gives, (VECTORS,)."""
    draw = jax.vmap(lambda k: jax.random.rademacher(k, (len(hessian),), dtype=jnp.float32))
    signs = np.asarray(draw(jax.random.split(key, VECTORS)), float)
    return np.einsum("ki,ij,kj->k", signs, hessian, signs)


@pytest.mark.parametrize("kind", ["dense", "convolution", "vjp"])
def test_the_trace_holds_every_example_of_the_probe_once(kind, monkeypatch):
    """Also of a convolutional net, and of a model that is not a ``jt.models`` value."""
    monkeypatch.setitem(hessian.CHUNK, kind, 4)
    model = MODEL
    if kind == "convolution":
        model = jt.models.CNN((2, 2, 1), ((2,),), hidden=(), outputs=3, init="he")
    params = jax.jit(model.init)(jax.random.key(0))
    scale = jnp.linspace(0.2, 3, 11).reshape(-1, *(1,) * len(model.input_shape))
    x = scale * jax.random.normal(jax.random.key(1), (11, *model.input_shape))
    measured = Other(model) if kind == "vjp" else model
    each = jax.jit(jax.vmap(lambda row: hessian.trace(measured, params, row[None])))(x)
    assert (each > 0).all()
    for size in (3, 8, 11):
        trace = float(jax.jit(lambda x: hessian.trace(measured, params, x))(x[:size]))
        assert trace == pytest.approx(float(each[:size].mean()), rel=1e-5)


class Other:
    """A model with nothing but ``apply``."""

    def __init__(self, model):
        self.apply = lambda params, x: model.apply(params, x[None])[0]


def test_every_curvature_variable_over_a_probe_with_a_remainder():
    """The observables themselves, with η and B other than 1."""
    params, x, y = case()
    full, key, data = full_hessians().mean(0), jax.random.key(3), jt.data.Gaussian(dim=3)
    probe = jt.observables.Probe(x, y, data, "softmax", jnp.float32(0.3), 5, key=key)
    exact = products(full, key)
    each = jax.jit(jax.vmap(lambda row: hessian.trace_bound(MODEL, params, row[None])))(x)
    bound = float(each.mean())
    expected = {
        "hessian_trace": full.trace(),
        "kappa": 0.3 * full.trace() / 5,
        "hessian_trace_hutchinson": exact.mean(),
        "hessian_trace_hutchinson_se": exact.std(ddof=1) / np.sqrt(VECTORS),
        "trace_bound": bound,
        "trace_bound_ratio": bound / full.trace(),
        "hessian_eigenvalue": np.linalg.eigvalsh(full)[::-1][:2],
    }
    observables = (
        jt.hessian_trace(), jt.kappa(), jt.hessian_trace("hutchinson", num_probes=VECTORS),
        jt.trace_bound(), jt.top_eigenvalues(2, num_matvecs=25),
    )  # fmt: skip
    recorded = {}
    for observable in observables:
        recorded |= jax.jit(lambda p, o=observable: o(MODEL, p, probe))(params)
        assert set(observable.variables(MODEL, data)) <= set(recorded)
    assert set(recorded) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(recorded[name], value, rtol=1e-3, err_msg=name)
