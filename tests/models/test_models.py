"""Two-layer nets: shapes, forward pass and inits by their moments; flax modules as models."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jthermo as jt
from tests import oracles
from tests.chance import sigmas


class Outside(nn.Module):
    """A user's module with an output axis of length 1, which `apply` keeps."""

    width: int = 3

    @nn.compact
    def __call__(self, x):
        a = nn.Dense(self.width)(x)
        self.sow("preactivations", "hidden", a)
        return nn.Dense(1)(nn.relu(a))


@pytest.mark.parametrize("bias", [True, False])
def test_forward_equals_the_sum_over_units(bias):
    model = jt.models.TwoLayer(inputs=4, hidden=5, bias=bias)
    params = model.init(jax.random.key(3))
    assert ("b" in params) == bias
    x = np.random.default_rng(0).normal(size=(6, 4))
    batch = np.asarray(model.apply(params, jnp.asarray(x, jnp.float32)))
    for row, out in zip(x, batch, strict=True):
        expected, pre = oracles.forward({k: np.asarray(v, float) for k, v in params.items()}, row)
        assert out == pytest.approx(expected, rel=1e-5, abs=1e-6)
        one = jnp.asarray(row, jnp.float32)
        assert float(model.apply(params, one)) == pytest.approx(expected, rel=1e-5, abs=1e-6)
        np.testing.assert_allclose(
            model.preactivations(params, one)["hidden"], pre, rtol=1e-5, atol=1e-6
        )


# Variances of W, b, V for d = 50 inputs, N = 20 units; a uniform on ±a has variance a²/3.
MOMENTS = {
    "torch": (1 / 150, 1 / 150, 1 / 60),
    "he": (2 / 50, 0.0, 1 / 20),
    "unit": (1 / 50, 0.0, 1.0),
    "paired_he": (2 / 50, 0.0, 1 / 20),
}


@pytest.mark.parametrize("init", MOMENTS)
def test_init_has_its_variances_and_no_other(init):
    model = jt.models.TwoLayer(inputs=50, hidden=20, init=init)
    draws = jax.vmap(model.init)(jax.random.split(jax.random.key(1), 400))
    for name, variance in zip(("W", "b", "V"), MOMENTS[init], strict=True):
        values = np.asarray(draws[name], float).ravel()
        independent = values.size / (2 if init == "paired_he" and name != "b" else 1)
        # standard error of the sample variance of normals; a uniform's is smaller
        error = variance * np.sqrt(2 / independent)
        far = sigmas(1e-5) * np.sqrt(variance / independent) + 1e-12
        assert np.mean(values) == pytest.approx(0, abs=far)
        assert np.var(values) == pytest.approx(variance, abs=sigmas(1e-6) * error + 1e-12)
        others = {v for moments in MOMENTS.values() for v in moments if v != variance}
        assert not any(abs(np.var(values) - other) < sigmas(1e-6) * error for other in others)


def test_torch_init_is_bounded_and_normal_inits_are_not():
    for init, bounded in (("torch", True), ("he", False)):
        w = np.asarray(
            jt.models.TwoLayer(inputs=16, hidden=500, init=init).init(jax.random.key(0))["W"]
        )
        assert (np.abs(w).max() <= 0.25) == bounded


def test_paired_he_starts_at_f_zero_and_he_does_not():
    x = jax.random.normal(jax.random.key(1), (7, 6))
    for init, zero in (("paired_he", True), ("he", False)):
        model = jt.models.TwoLayer(inputs=6, hidden=8, init=init)
        out = np.asarray(model.apply(model.init(jax.random.key(2)), x))
        assert np.allclose(out, 0, atol=1e-6) == zero


def test_models_are_values():
    model = jt.models.TwoLayer(inputs=3, hidden=4)
    assert model == jt.models.TwoLayer(inputs=3, hidden=4, bias=True, init="torch")
    assert hash(model) == hash(jt.models.TwoLayer(inputs=3, hidden=4))
    assert model != jt.models.TwoLayer(inputs=3, hidden=4, init="he")


def test_any_flax_module_is_a_model():
    model = jt.models.as_model(Outside(), (5,))
    params = model.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (6, 5))
    batch = model.apply(params, x)
    assert batch.shape == (6, 1)
    assert model.apply(params, x[0]).shape == ()
    np.testing.assert_allclose(model.apply(params, x[0]), batch[0, 0], rtol=1e-6)
    assert model.preactivations(params, x)["hidden"].shape == (6, 3)
    assert model.num_outputs == 1


def test_a_module_that_is_not_hashable_is_rejected_with_a_remedy():
    with pytest.raises(jt.InputError, match="isn't hashable: it has a list or a dict as a field"):
        jt.models.as_model(nn.Sequential([nn.Dense(2), nn.tanh]), (5,))
    assert jt.models.as_model(nn.Sequential((nn.Dense(2), nn.tanh)), (5,)).num_outputs == 2


def test_a_sequential_module_is_read_from_json_with_its_own_initialisers():
    def sweep(module):
        return jt.Sweep(
            model=module, data=jt.data.Gaussian(dim=5), learning_rate=0.1, num_steps=1,
            record=jt.Record(steps=(1,), observables=jt.loss()),
        )  # fmt: skip

    named = sweep(
        nn.Sequential((nn.Dense(3), nn.tanh, nn.Dense(1, bias_init=nn.initializers.ones)))
    )
    again = jt.Sweep.from_json(named.to_json())
    assert again == named
    params, other = (s.configs[0].model.init(jax.random.key(0)) for s in (again, named))
    assert jax.tree.all(jax.tree.map(np.array_equal, params, other))
    assert params["layers_2"]["bias"] == 1
    nameless = sweep(
        nn.Sequential((nn.Dense(3), nn.Dense(1, kernel_init=nn.initializers.normal(0.1))))
    )
    assert nameless != named
    # it raises instead of using the default initialiser
    with pytest.raises(jt.InputError, match="can't be imported"):
        jt.Sweep.from_json(nameless.to_json())
