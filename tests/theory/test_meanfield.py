"""The mean-field curves against full SGD from the same inits, with nothing fitted, and against simpler predictions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jthermo as jt
from jthermo import train
from jthermo.errors import InputError
from jthermo.theory import drift, meanfield

MODEL = jt.models.TwoLayer(inputs=10, hidden=10, init="he")
NETS = 128


def mean_bias(model, params, probe):
    """Mean over units of b."""
    return params["b"].mean()


def squared_norm(model, params, probe):
    """‖V‖²."""
    return jnp.square(params["V"]).sum()


def trained(eta, size, noise="full"):
    marks = [round(tau * size / eta**2) for tau in (0.1, 0.3, 1.0, 2.0)]
    sweep = jt.Sweep(
        model=MODEL,
        data=jt.data.Gaussian(dim=10),
        learning_rate=eta,
        batch_size=size,
        seed=range(NETS),
        num_steps=marks[-1],
        record=jt.Record(steps=tuple(marks), observables=(jt.activation_rate(), mean_bias, squared_norm)),
        noise=noise,
    )
    return jt.run(sweep, progress=False)


def inits(number=NETS):
    def one(seed):
        return train.init(MODEL, jt.sgd(), train.Run(seed, 0, 0.1, {})).params

    return jax.vmap(one)(jnp.arange(number, dtype=jnp.uint32))


@pytest.mark.parametrize(("eta", "size"), [(0.02, 1), (0.05, 1), (0.05, 4)])
def test_prediction_of_full_sgd(eta, size):
    ds = trained(eta, size)
    found = meanfield.predict(inits(), ds.step.values[0], learning_rate=eta, batch_size=size, num_inputs=128)
    shift, predicted = ds.mean_bias.values[:, 2], found.mean_bias[:, 2]
    error = (shift - predicted).std() / np.sqrt(NETS)  # same inits: only the noise of SGD is left
    assert error < 0.02 * abs(shift.mean())
    assert abs(predicted.mean() / shift.mean() - 1) < 0.05
    assert abs(found.activation_rate.mean(0) - ds.activation_rate.values.mean(0)).max() < 0.02 / 8
    norm, expected = (np.sqrt(v.mean(0)) for v in (ds.squared_norm.values, found.squared_norm_V))
    np.testing.assert_allclose(expected, norm, rtol=0.08)
    # rivals: drift at V → 0 without the descent, and descent without label noise
    limit = float(drift.two_layer(0.0, 0.0, w=jnp.linalg.norm(inits()["W"], axis=-1), dim=10)[1].mean())
    assert abs(shift.mean() - limit) > 5 * error
    descent = meanfield.predict(
        inits(32),
        ds.step.values[0],
        learning_rate=eta,
        batch_size=size,
        num_inputs=64,
        noise="label_averaged",
    )
    assert abs(shift[:32].mean() - descent.mean_bias[:, 2].mean()) > 20 * error
    assert abs(descent.squared_norm_V.mean(0)[-1] / ds.squared_norm.values.mean(0)[-1] - 1) > 0.3


def test_prediction_of_label_averaged_sgd():
    ds = trained(0.05, 1, noise="label_averaged")
    found = meanfield.predict(
        inits(), ds.step.values[0], learning_rate=0.05, num_inputs=256, noise="label_averaged"
    )
    shift, predicted = ds.mean_bias.values[:, 2], found.mean_bias[:, 2]
    error = (shift - predicted).std() / np.sqrt(NETS)
    assert abs(shift.mean() - predicted.mean()) < 3 * error + 0.1 * abs(shift.mean())
    np.testing.assert_allclose(
        np.sqrt(found.squared_norm_V.mean(0)), np.sqrt(ds.squared_norm.values.mean(0)), rtol=0.1
    )
    assert abs(shift.mean() + 0.0876) > 20 * error  # not the shift with label noise


def test_small_steps_follow_the_valley():
    """η → 0: the activation rate of a net with V = 0 follows dΦ/dτ = −φ²/8, whatever its size."""
    params = jax.vmap(jt.models.TwoLayer(inputs=6, hidden=12, init="he").init)(
        jax.random.split(jax.random.key(0), 16)
    )
    params = params | {"V": jnp.zeros_like(params["V"])}
    eta = 0.01
    # the slowest modes of V take ηt ~ 100 to reach their level; what they miss is the first unit of τ
    steps = np.array([0, 2, 4]) / eta**2
    found = meanfield.predict(params, steps, learning_rate=eta, num_inputs=64)
    valley = drift.valley_rate(steps * eta**2)
    np.testing.assert_allclose(found.activation_rate.mean(0), valley, atol=0.006)
    assert abs(found.activation_rate.mean(0)[-1] - 0.5) > 0.06


def test_prediction_starts_at_the_init_and_ignores_how_its_steps_are_asked_for():
    once = meanfield.predict(inits(8), (0, 400), learning_rate=0.02)
    often = meanfield.predict(inits(8), range(0, 401, 40), learning_rate=0.02)
    np.testing.assert_allclose(once.squared_norm_V[:, 0], np.square(inits(8)["V"]).sum(-1), rtol=1e-6)
    for field in ("activation_rate", "squared_norm_V", "mean_bias"):
        np.testing.assert_allclose(
            getattr(once, field)[:, 1], getattr(often, field)[:, -1], rtol=2e-3, atol=1e-5
        )


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("noise", {"noise": "unbiased"}),
        ("steps", {"steps": (4, 2)}),
        ("params", {"params": {"W": jnp.zeros((2, 3, 4)), "V": jnp.zeros((2, 3))}}),
    ],
)
def test_misuse_is_refused(field, changes):
    with pytest.raises(InputError) as caught:
        meanfield.predict(**{"params": inits(2), "steps": (0, 1), "learning_rate": 0.1, **changes})
    assert caught.value.field == field
