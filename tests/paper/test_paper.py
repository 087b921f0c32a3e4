"""The activation rate of the paper's net against an independent simulation; negative controls."""

import numpy as np
import pytest

import jthermo as jt
from tests.chance import sigmas

STEPS = (500, 2000, 5000, 10_000)
# Means of 200 seeds of another program at these steps; their standard errors start at 0.003.
ACTIVATION = np.array([0.469, 0.403, 0.306, 0.210])
# Distance of two such means that one of the four steps exceeds for 3 in 10,000 sets of seeds.
JOINT = sigmas(3e-4, len(STEPS)) * np.sqrt(2) * 0.003


def activation(**changes):
    sweep = jt.Sweep(
        model=jt.models.TwoLayer(inputs=10, hidden=10, init="torch"),
        data=jt.data.Gaussian(dim=10),
        learning_rate=0.05,
        seed=range(200),
        num_steps=STEPS[-1],
        record=jt.Record(steps=STEPS, observables=jt.activation_rate()),
    ).replace(**changes)
    values = jt.run(sweep, progress=False).activation_rate.values
    return values.mean(0), values.std(0, ddof=1) / np.sqrt(len(values))


def test_activation_rate_agrees_with_an_independent_simulation():
    mean, error = activation()
    np.testing.assert_allclose(mean, ACTIVATION, atol=JOINT)
    assert (error < 0.006).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.07),
        ("batch_size", 2),
        ("noise", "unbiased"),
        ("noise", "label_averaged"),
    ],
)
def test_another_rate_batch_or_noise_does_not(name, value):
    mean, _ = activation(**{name: value, "seed": range(64)})
    assert np.abs(mean - ACTIVATION).max() > 2 * JOINT
