"""Properties 4.1 and 4.2: no counter-example if they hold, and one if an assumption is violated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jthermo.errors import InputError
from jthermo.theory import properties
from jthermo.theory.properties import PROPERTY_4_1, PROPERTY_4_2, Property, counter_example

INPUTS = {
    "normal": lambda key: jax.random.normal(key, (63, 5)),
    "heavy tails": lambda key: jax.random.cauchy(key, (63, 5)),
    "lattice": lambda key: jax.random.randint(key, (63, 5), -2, 3).astype(jnp.float32),
    "uniform": lambda key: jax.random.uniform(key, (63, 5)),
    "exponential": lambda key: jax.random.exponential(key, (63, 5)),
    "few": lambda key: jnp.resize(jax.random.uniform(key, (3, 5)), (63, 5)),
}


@pytest.mark.parametrize("law", INPUTS)
def test_theorems_hold_and_broken_hypotheses_are_found(law):
    for seed in range(3):
        x = INPUTS[law](jax.random.key(seed))
        assert counter_example(PROPERTY_4_1, x, key=jax.random.key(100 + seed)) is None
        violation = counter_example(PROPERTY_4_2, x, key=jax.random.key(200 + seed))
        assert (violation is None) == PROPERTY_4_2.applies(x)
        if violation is not None:
            assert violation.after < violation.before


def test_a_counter_example_is_one():
    """Loops in float64 over the reported unit give the reported moments."""
    x = np.asarray(jax.random.normal(jax.random.key(0), (63, 5)), float)
    violation = counter_example(PROPERTY_4_2, x, key=jax.random.key(1))
    W, b, V = (np.asarray(violation.unit[k], float) for k in ("W", "b", "V"))
    component = int(violation.raised[2:-1])

    def moment(W):
        active = [float(sum(w * v for w, v in zip(W, row, strict=True)) + b) for row in x]
        return {
            "h_v": np.mean([max(a, 0) ** 2 for a in active]),
            "h_w": V**2
            * np.mean([(a > 0) * np.sum(row**2) for a, row in zip(active, x, strict=True)]),
            "h_b": V**2 * np.mean([a > 0 for a in active]),
        }[violation.moment]

    raised = W + violation.by * np.eye(5)[component]
    np.testing.assert_allclose(
        [moment(W), moment(raised)], [violation.before, violation.after], rtol=1e-4
    )
    assert moment(raised) < moment(W)


def test_each_claim_of_monotonicity_is_needed():
    """On normal x, raising W alone violates 4.2; raising V or b alone does not."""
    x = jax.random.normal(jax.random.key(0), (63, 5))
    broken = {
        c: counter_example(Property(c, (c,), nonnegative=False), x, key=jax.random.key(2))
        for c in ("V", "b", "W")
    }
    assert broken["V"] is None
    assert broken["b"] is None
    assert broken["W"].raised.startswith("W")


def test_slopes_in_bias_are_those_of_the_moments():
    dim, w, V = 3, 1.3, 0.7
    with jax.enable_x64():
        x = jax.random.normal(jax.random.key(0), (400_000, dim))
        W = w * jnp.array([1.0, 2.0, 2.0]) / 3
        for b in (-1.0, 0.0, 0.8):
            step = 0.05
            up, down = (properties.second_moments(W, b + s, V, x) for s in (step, -step))
            slopes = properties.slopes_in_bias(V, b, w=w, dim=dim)
            measured = [(u - d) / (2 * step) for u, d in zip(up, down, strict=True)]
            np.testing.assert_allclose(measured, slopes, rtol=0.04)
            assert min(map(float, slopes)) >= 0


def test_misuse_is_refused():
    with pytest.raises(InputError, match="give inputs as a non-empty array"):
        counter_example(PROPERTY_4_1, jnp.zeros((0, 2)), key=jax.random.key(0))
    with pytest.raises(InputError, match="num_trials = 0"):
        counter_example(PROPERTY_4_1, jnp.zeros((4, 2)), key=jax.random.key(0), num_trials=0)
