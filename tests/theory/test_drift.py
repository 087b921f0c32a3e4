"""F = −(η²/4B) ∇ tr Σ1: closed form, autodiff and differences agree, also with real SGD."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

import jthermo as jt
from jthermo.errors import InputError
from jthermo.theory import drift
from jthermo.theory.walk import Estimate
from tests.chance import sigmas

DIM = 3
# Standard errors that a mean over the trained seeds may be off: right ones fail for 3 sets of seeds
# in 1,000.
OFF = sigmas(3e-3)


def trace_of_unit(V, b, w, dim):
    """A unit's part of tr Σ1 at f = 0, ¼ E[σ² + V² σ'(|x|² + 1)], by quadrature over z."""

    def density(z):
        a = w * z + b
        return (a > 0) * (a**2 + V**2 * (z**2 + dim)) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)

    return 0.25 * integrate.quad(density, -b / w, 12, epsabs=0, epsrel=1e-12)[0]


@pytest.mark.parametrize(("V", "b", "w"), [(0.7, 0.3, 1.4), (-1.2, -1.0, 0.8), (0.3, 0.0, 1.0)])
def test_closed_form_is_the_gradient_of_the_trace(V, b, w):
    with jax.enable_x64():
        force = drift.two_layer(V, b, w=w, dim=DIM, learning_rate=0.1, batch_size=2)
        radial = drift.two_layer_radial(V, b, w=w, dim=DIM, learning_rate=0.1, batch_size=2)
    step = 1e-4
    scale = -(0.1**2) / (4 * 2)

    def slope(at):
        up, down = (
            trace_of_unit(*(np.array([V, b, w]) + s * step * np.array(at)), DIM) for s in (1, -1)
        )
        return scale * (up - down) / (2 * step)

    expected = [slope([1, 0, 0]), slope([0, 1, 0]), slope([0, 0, 1])]
    np.testing.assert_allclose([*force, radial], expected, rtol=1e-6)


def paired_net():
    model = jt.models.TwoLayer(inputs=DIM, hidden=2, init="paired_he")
    W, V = jnp.array([[1.0, -0.5, 0.3]] * 2), jnp.array([0.8, -0.8])
    return model, {"W": W, "b": jnp.array([0.4, 0.4]), "V": V}


def test_any_model_by_differences_equals_the_closed_form_and_autodiff_misses_the_kinks():
    model, params = paired_net()
    x = jax.random.normal(jax.random.key(0), (40_000, DIM))
    w = float(jnp.linalg.norm(params["W"][0]))
    force_V, force_b = drift.two_layer(params["V"], params["b"], w=w, dim=DIM)
    both = jax.jit(lambda p, x: {m: drift.force(model, p, x, method=m) for m in drift.METHODS})(
        params, x
    )
    np.testing.assert_allclose(both["differences"]["V"], force_V, rtol=0.03)
    np.testing.assert_allclose(both["differences"]["b"], force_b, rtol=0.05)
    radial = (both["differences"]["W"] @ params["W"][0]) / w
    np.testing.assert_allclose(
        radial, drift.two_layer_radial(params["V"], params["b"], w=w, dim=DIM), rtol=0.05
    )
    # without δ(a), F_b is only 2 Eσ and lacks the term ∝ V²
    np.testing.assert_allclose(both["autodiff"]["V"], force_V, rtol=0.03)
    smooth_part = drift.two_layer(0.0, params["b"], w=w, dim=DIM)[1]
    np.testing.assert_allclose(both["autodiff"]["b"], smooth_part, rtol=0.03)
    assert float(jnp.abs(both["autodiff"]["b"] / force_b - 1).min()) > 0.3


class Smooth(nn.Module):
    """A tanh net, on which autodiff is exact."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(jnp.tanh(nn.Dense(3)(x)))[..., 0]


@pytest.mark.parametrize(("labels", "loss"), [("random", "bce"), ("given", "squared")])
def test_autodiff_is_exact_for_smooth_nets(labels, loss):
    with jax.enable_x64():
        model = jt.models.Flax(Smooth(), (DIM,))
        params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), model.init(jax.random.key(0)))
        x = jax.random.normal(jax.random.key(1), (40, DIM), jnp.float64)
        y = (
            None
            if labels == "random"
            else jax.random.bernoulli(jax.random.key(2), 0.5, (40,)).astype(int)
        )
        options = {"loss": loss, "width": 1e-4, "learning_rate": 0.2, "batch_size": 3}
        both = jax.jit(
            lambda p: [drift.force(model, p, x, y, method=m, **options) for m in drift.METHODS]
        )(params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-9), *both)
        assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(both[0])) > 1e-4


def test_trace_is_that_of_the_sample_covariance():
    model, params = paired_net()
    x = jax.random.normal(jax.random.key(0), (50, DIM))
    y = jax.random.bernoulli(jax.random.key(1), 0.5, (50,)).astype(int)
    rows = []
    for example, label in zip(np.asarray(x, float), np.asarray(y), strict=True):
        a = np.asarray(params["W"], float) @ example + np.asarray(params["b"], float)
        V = np.asarray(params["V"], float)
        residual = 1 / (1 + np.exp(-(V @ np.maximum(a, 0)))) - label
        on = a > 0
        rows.append(
            residual * np.concatenate([np.outer(V * on, example).ravel(), V * on, np.maximum(a, 0)])
        )
    expected = np.trace(np.cov(np.array(rows).T))
    assert float(drift.trace_covariance(model, params, x, y)) == pytest.approx(expected, rel=1e-5)


def at_end(value):
    return Estimate(value[:, -1].mean(), value[:, -1].std(ddof=1) / np.sqrt(len(value)))


FULL = {(0.02, 1): -0.0853, (0.05, 1): -0.0876, (0.05, 4): -0.0853}
# Number of runs behind each of these values, estimated from the precision of their last digit.
RUNS = 200


@pytest.mark.parametrize(("eta", "size"), FULL)
def test_bias_falls_as_label_noise_says(eta, size, trained):
    """The mean shift of b at η²t/B = 1 is the recorded value and lies between the limits of F."""
    mean_shift = at_end(trained(eta, size).mean_bias.values)
    spread = mean_shift.standard_error * np.sqrt(512)
    error = np.hypot(mean_shift.standard_error, spread / np.sqrt(RUNS))
    assert abs(mean_shift.value - FULL[eta, size]) < OFF * error
    # ‖W‖ of a unit for He init and d = 10
    wide = np.sqrt(np.random.default_rng(0).chisquare(10, 20_000) / 5)
    early, late = (
        float(drift.two_layer(v, 0.0, w=wide, dim=10)[1].mean()) for v in (10**-0.5, 0.0)
    )
    # with V at its initial size
    assert early == pytest.approx(-0.088, abs=1e-3)
    # with V → 0
    assert late == pytest.approx(-0.069, abs=1e-3)
    assert early < mean_shift.value < late
    # the unbiased walk would give 0
    assert mean_shift.away(0.0) > 50


def test_controls_remove_it(trained):
    """Unbiased: b stays and E‖V‖² grows by s² Eσ² per unit. Label-averaged: ¼ of the shift."""
    unbiased = trained(0.05, 1, "unbiased")
    bias = at_end(unbiased.mean_bias.values)
    assert bias.away(0.0) < OFF
    assert bias.away(-0.0876) > 20
    # early, before W has grown
    tau = 40 * 0.05**2
    square = unbiased.weight_norm_V.values[:, :2] ** 2
    rate = at_end((square - square[:, :1]) / tau)
    # Σ_i s² Eσ² with Eσ² = w²/2 = 1
    assert rate.away(10 * 0.25 * 1.0) < OFF
    assert rate.away(0.0) > 10
    averaged = at_end(trained(0.05, 1, "label_averaged").mean_bias.values)
    spread = averaged.standard_error * np.sqrt(512)
    assert abs(averaged.value + 0.0205) < OFF * np.hypot(
        averaged.standard_error, spread / np.sqrt(RUNS)
    )
    assert averaged.away(-0.0876) > 20


def test_valley_rate_solves_its_equation():
    tau = np.linspace(0, 100, 2001)
    for rate in (0.5, 0.9, 0.2):
        rates = drift.valley_rate(tau, rate)
        assert rates[0] == pytest.approx(rate, rel=1e-9)
        slope = np.gradient(rates, tau, edge_order=2)
        np.testing.assert_allclose(
            slope, -(stats.norm.pdf(stats.norm.ppf(rates)) ** 2) / 8, rtol=2e-3
        )


def test_misuse_is_refused():
    model, params = paired_net()
    with pytest.raises(InputError, match="method = 'magic'"):
        drift.force(model, params, jnp.ones((4, DIM)), method="magic")
    with pytest.raises(InputError, match="between 0 and 1"):
        drift.valley_rate([1.0], 0.0)
