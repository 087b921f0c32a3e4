"""Noise controls for any number of classes: exact values and moments, from the formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jthermo as jt
from jthermo.update_rule import losses

CLASSES = (2, 3, 5)
KEY = jax.random.key(1)


def drawn(scale, classes, number=2000, key=4):
    f = jnp.zeros((number, classes))
    residual = jt.noise.Unbiased(scale).residual("softmax", f, f, jax.random.key(key))
    return np.asarray(residual, float)


@pytest.mark.parametrize("scale", [0.5, 0.3])
@pytest.mark.parametrize("classes", CLASSES)
def test_unbiased_residual_is_that_of_a_uniform_prediction_and_a_random_label(classes, scale):
    """r = 2s (1/C − one-hot): at s = ½ the residual p − y of softmax at equal outputs."""
    r = drawn(scale, classes)
    labels = r.argmin(1)
    np.testing.assert_allclose(r, 2 * scale * (1 / classes - np.eye(classes)[labels]), atol=1e-7)
    # one key: a fair draw fails with probability 1e-4
    counts = np.bincount(labels, minlength=classes)
    assert stats.chisquare(counts).pvalue > 1e-4
    full = jt.noise.Full().residual(
        "softmax", jnp.zeros(r.shape), jnp.asarray(np.eye(classes)[labels]), KEY
    )
    np.testing.assert_allclose(r, 2 * scale * np.asarray(full), atol=1e-7)


def test_unbiased_residual_of_two_classes_is_the_sign_of_one_output():
    """With two outputs, ½ on both signs: the logistic residual of their difference."""
    r = drawn(0.3, 2)
    np.testing.assert_allclose(np.abs(r), 0.3, rtol=1e-6)
    one = jt.noise.Unbiased(0.3).residual("bce", jnp.zeros(9), jnp.zeros(9), jax.random.key(0))
    np.testing.assert_allclose(np.abs(one), 0.3, rtol=1e-6)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("loss", ["softmax", "squared"])
def test_label_averaged_residual_is_the_mean_over_all_labels(loss, classes):
    f = 2 * jax.random.normal(jax.random.key(0), (9, classes))
    parts = []
    for label in range(classes):
        target = losses.targets(loss, jnp.full(9, label), classes)
        parts.append(np.asarray(jt.noise.Full().residual(loss, f, target, KEY)))
        averaged = jt.noise.LabelAveraged().residual(loss, f, target, KEY)
    np.testing.assert_allclose(averaged, np.mean(parts, axis=0), rtol=1e-5, atol=1e-6)
