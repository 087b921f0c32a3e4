"""Optimizers with random keys in their state: a key per run, kept as words."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jthermo as jt
from jthermo.update_rule.random_keys import with_own_keys
from tests.chance import sigmas

PARAMS = {"w": jnp.zeros(3), "v": jnp.zeros((2, 2))}
RATE, ETA, STEPS = 0.1, 0.5, 3


def noisy(key):
    return optax.noisy_sgd(RATE, eta=ETA, gamma=0.0, key=key)


def updates_of(transformation, number=STEPS):
    state, drawn = transformation.init(PARAMS), []
    for _ in range(number):
        update, state = transformation.update(jax.tree.map(jnp.zeros_like, PARAMS), state, PARAMS)
        drawn.append(jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(update)]))
    return np.stack(drawn), state


def raw(key):
    """Updates of normal numbers, with a key of the old kind in the state."""

    def update(updates, state, params=None):
        state, now = jax.random.split(state)
        noise = jax.random.normal(now, (7,))
        return {"w": noise[:3], "v": noise[3:].reshape(2, 2)}, state

    return optax.GradientTransformation(lambda params: jax.random.key_data(key), update)


@pytest.mark.parametrize("noisy", [noisy, raw])
def test_the_updates_are_those_of_optax_with_the_keys_of_the_run(noisy):
    run, given = jax.random.key(7), jax.random.key(5)
    got, state = updates_of(with_own_keys(noisy(given), run))
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} <= {jnp.uint32.dtype, jnp.int32.dtype}
    words = jax.random.bits(jax.random.fold_in(run, 0), (2,)) ^ jax.random.key_data(given)
    np.testing.assert_array_equal(got, updates_of(noisy(jax.random.wrap_key_data(words)))[0])
    other = updates_of(with_own_keys(noisy(given), jax.random.key(8)))[0]
    assert (got != other).all()
    assert (got != updates_of(with_own_keys(noisy(jax.random.key(6)), run))[0]).all()


def test_an_optimizer_without_keys_is_unchanged():
    plain, wrapped = (f(optax.adam(RATE)) for f in (lambda t: t, lambda t: with_own_keys(t, 0)))
    one, two = (
        jax.make_jaxpr(lambda p, t=t: t.update(p, t.init(p), p))(PARAMS) for t in (plain, wrapped)
    )
    assert str(one) == str(two)


def weights(model, params, probe):
    """All parameters."""
    return jnp.concatenate([params["W"].ravel(), params["V"]])


def test_every_run_has_its_own_noise_of_the_right_size():
    sweep = jt.Sweep(
        model=jt.models.TwoLayer(inputs=8, hidden=8, bias=False),
        data=jt.data.Gaussian(dim=8),
        learning_rate=(0.1, 0.2),
        seed=range(8),
        num_steps=1,
        record=jt.Record(steps=(0, 1), observables=weights),
        optimizer=jt.Optimizer(optax.noisy_sgd, eta=100.0, gamma=0.0, key=0),
        lane_width=4,
    )
    ds = jt.run(sweep, progress=False)
    moved = ds.weights.values[:, 1] - ds.weights.values[:, 0]
    noise = moved / ds.learning_rate.values[:, None]
    # of variance 100; the gradients are of order 0.1
    error = sigmas(1e-6) * 100 * np.sqrt(2 / noise.size)
    assert abs(np.var(noise) - 100) < error
    correlation = np.corrcoef(noise) - np.eye(len(noise))
    assert np.abs(correlation).max() < sigmas(1e-6 / 256) / np.sqrt(noise.shape[1])
    alone = jt.run(sweep.replace(learning_rate=0.2, seed=(3,)), progress=False)
    here = (ds.learning_rate.values == 0.2) & (ds.seed.values == 3)
    np.testing.assert_array_equal(ds.weights.values[here], alone.weights.values)
    assert (
        jt.run(sweep.replace(**{"optimizer.key": 1}), progress=False).weights[:, 1]
        != ds.weights[:, 1]
    ).all()
