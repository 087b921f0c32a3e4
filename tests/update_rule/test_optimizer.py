"""Plain SGD with momentum, Nesterov's momentum and one decay, update by update."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jthermo as jt

GRADIENTS = (1.0, -0.5, 0.25, 2.0, -1.0, 0.5)
RATE = 0.3


def by_hand(momentum, nesterov, decay_at, decay):
    """θ after each update, from θ = 0."""
    theta, velocity, thetas = 0.0, 0.0, []
    for t, g in enumerate(GRADIENTS):
        rate = RATE if decay_at is None or t < decay_at else RATE / decay
        velocity = momentum * velocity + g
        theta -= rate * (g + momentum * velocity if nesterov else velocity)
        thetas.append(theta)
    return thetas


def by_optax(optimizer):
    transformation = optimizer.build(RATE)
    theta, thetas = jnp.float32(0), []
    state = transformation.init(theta)
    for g in GRADIENTS:
        update, state = transformation.update(jnp.float32(g), state, theta)
        theta = optax.apply_updates(theta, update)
        thetas.append(float(theta))
    return thetas


@pytest.mark.parametrize(("decay_at", "decay"), [(None, 10.0), (0, 4.0), (3, 4.0), (3.5, 4.0)])
@pytest.mark.parametrize(("momentum", "nesterov"), [(None, False), (0.9, False), (0.9, True)])
def test_updates_are_those_of_the_formulas(momentum, nesterov, decay_at, decay):
    """`decay_at` counts the updates with the full rate: 3 of them, so the fourth is smaller."""
    optimizer = jt.sgd(momentum=momentum, nesterov=nesterov, decay_at=decay_at, decay=decay)
    expected = by_hand(momentum or 0.0, nesterov, decay_at, decay)
    np.testing.assert_allclose(by_optax(optimizer), expected, rtol=1e-5)


def test_sgd_takes_no_number_without_a_name():
    """`sgd(0.1)` looks like a learning rate, and was a momentum."""
    with pytest.raises(TypeError, match="positional"):
        jt.sgd(0.1)
